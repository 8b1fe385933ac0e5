//! The Avro form of a changelog record: `avro/changelog.avsc`, of goods that are texts `avro/changelog-text.avsc`, behind the
//! id by which a registry knows that schema.
//!
//! As in a stock delta the first field says which of them it is, and the scale, so that a restore depends on no registry.

use std::borrow::Cow;

use super::{RECORD, TransactionRecord};
use crate::avro::{Input, Malformed, own, write};
use crate::{Content, DecodeError, GoodType, Scale};

/// How the schemas type pieces, which are whole there.
const WHOLE_PIECES: &str = r#""name": "pieces",
      "type": [
        "null",
        "long"
      ]"#;

/// The Avro schema of the values, to be registered. Pieces that are not whole are decimals: units in a `long` would be
/// read as another quantity by whoever knows only the schema.
pub fn avro_schema(good_type: GoodType, scale: Scale) -> Cow<'static, str> {
    let of_whole_pieces = match good_type {
        GoodType::Integer => include_str!("../../avro/changelog.avsc"),
        GoodType::Text => include_str!("../../avro/changelog-text.avsc"),
    };
    let schema = own::schema(of_whole_pieces, good_type, scale);
    if scale.is_whole() {
        return schema;
    }
    let decimal = format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": 19, "scale": {scale}}}"#);
    let pieces = format!(r#""name": "pieces", "type": ["null", {decimal}]"#);
    Cow::Owned(schema.replace(WHOLE_PIECES, &pieces))
}

impl TransactionRecord {
    /// Appends the record's value in Avro, behind the id under which a registry knows the [`avro_schema`] of these goods
    /// and this scale; pieces are in units of it.
    ///
    /// One with a position that does not fit the 63 bits that Avro has for it is appended in JSON, which readers take as
    /// well: no WAL gets there, but an event may claim it.
    pub fn encode_avro(&self, good_type: GoodType, scale: Scale, schema_id: u32, out: &mut Vec<u8>) {
        let commit_lsn = self.commit_lsn.map(i64::try_from).transpose();
        let (Ok(generation), Ok(lsn), Ok(commit_lsn)) =
            (i64::try_from(self.generation), i64::try_from(self.lsn), commit_lsn)
        else {
            return self.encode(scale, out);
        };
        own::begin(out, schema_id, good_type, scale);
        write::or_null(out, self.content.as_ref(), |out, content| own::push_good(out, &content.good_id));
        write::or_null(out, self.content.as_ref(), |out, content| match scale {
            Scale::WHOLE => write::long(out, content.pieces),
            _ => write::decimal(out, content.pieces.into()),
        });
        write::long(out, generation);
        write::boolean(out, self.streaming);
        write::long(out, lsn);
        write::or_null(out, commit_lsn, write::long);
        write::long(out, self.ts_ms);
        write::or_null(out, self.incremental_ts_ms, write::long);
        write::or_null(out, self.outdated.then_some(true), write::boolean);
    }

    pub(super) fn decode_avro(payload: &[u8], scale: Scale) -> Result<Self, DecodeError> {
        own::read(RECORD, payload, scale, |good_type, input| Self::read_avro(good_type, scale, input))
    }

    fn read_avro(good_type: GoodType, scale: Scale, input: &mut Input<'_>) -> Result<Self, Malformed> {
        let good_id = input.or_null(|input| own::good(good_type, input))?;
        let content = match (good_id, input.or_null(|input| pieces(scale, input))?) {
            (Some(good_id), Some(pieces)) => Some(Content { good_id, pieces }),
            (None, None) => None,
            _ => return Err(Malformed("only one of good_id and pieces is null")),
        };
        Ok(Self {
            content,
            generation: position(input.long()?)?,
            streaming: input.boolean()?,
            lsn: position(input.long()?)?,
            commit_lsn: input.or_null(Input::long)?.map(position).transpose()?,
            ts_ms: input.long()?,
            incremental_ts_ms: input.or_null(Input::long)?,
            outdated: input.or_null(Input::boolean)?.unwrap_or_default(),
        })
    }
}

fn pieces(scale: Scale, input: &mut Input<'_>) -> Result<i64, Malformed> {
    match scale {
        Scale::WHOLE => input.long(),
        _ => i64::try_from(input.units()?).map_err(|_| Malformed("pieces beyond 64 bits")),
    }
}

fn position(value: i64) -> Result<u64, Malformed> {
    u64::try_from(value).map_err(|_| Malformed("a negative position"))
}
