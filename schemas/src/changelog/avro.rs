//! The Avro form of a changelog record: `avro/changelog.avsc`, of goods that are texts `avro/changelog-text.avsc`, behind the
//! id by which a registry knows that schema.
//!
//! As in a stock delta the first field says which of them it is, so that a restore depends on no registry.

use super::{RECORD, TransactionRecord};
use crate::avro::{Input, Malformed, write};
use crate::debezium::registered::framed;
use crate::{Content, DecodeError, GoodId, GoodType};

const INTEGER_GOODS: i64 = 1;
const TEXT_GOODS: i64 = 2;

/// The Avro schema of the values, to be registered.
pub const fn avro_schema(good_type: GoodType) -> &'static str {
    match good_type {
        GoodType::Integer => include_str!("../../avro/changelog.avsc"),
        GoodType::Text => include_str!("../../avro/changelog-text.avsc"),
    }
}

impl TransactionRecord {
    /// Appends the record's value in Avro, behind the id under which a registry knows the [`avro_schema`] of these goods.
    ///
    /// One with a position that does not fit the 63 bits that Avro has for it is appended in JSON, which readers take as
    /// well: no WAL gets there, but an event may claim it.
    pub fn encode_avro(&self, good_type: GoodType, schema_id: u32, out: &mut Vec<u8>) {
        let commit_lsn = self.commit_lsn.map(i64::try_from).transpose();
        let (Ok(generation), Ok(lsn), Ok(commit_lsn)) =
            (i64::try_from(self.generation), i64::try_from(self.lsn), commit_lsn)
        else {
            return self.encode(out);
        };
        framed(schema_id, out);
        let format = match good_type {
            GoodType::Integer => INTEGER_GOODS,
            GoodType::Text => TEXT_GOODS,
        };
        write::long(out, format);
        write::or_null(out, self.content.as_ref(), |out, content| match &content.good_id {
            GoodId::Integer(value) => write::long(out, *value),
            GoodId::Text(text) => write::text(out, text),
        });
        write::or_null(out, self.content.as_ref(), |out, content| write::long(out, content.pieces));
        write::long(out, generation);
        write::boolean(out, self.streaming);
        write::long(out, lsn);
        write::or_null(out, commit_lsn, write::long);
        write::long(out, self.ts_ms);
        write::or_null(out, self.incremental_ts_ms, write::long);
        write::or_null(out, self.outdated.then_some(true), write::boolean);
    }

    pub(super) fn decode_avro(payload: &[u8]) -> Result<Self, DecodeError> {
        let malformed = |Malformed(why)| DecodeError::malformed(RECORD, format!("in Avro: {why}"));
        let mut input = Input::new(payload);
        let format = input.long().map_err(malformed)?;
        match format {
            INTEGER_GOODS => Self::read_avro(GoodType::Integer, &mut input),
            TEXT_GOODS => Self::read_avro(GoodType::Text, &mut input),
            newer if newer > TEXT_GOODS => {
                let found = newer.unsigned_abs();
                return Err(DecodeError::FormatNewer { record: RECORD, found, supported: TEXT_GOODS.unsigned_abs() });
            }
            _ => Err(Malformed("it has no format")),
        }
        .map_err(malformed)
    }

    fn read_avro(good_type: GoodType, input: &mut Input<'_>) -> Result<Self, Malformed> {
        let good_id = input.or_null(|input| match good_type {
            GoodType::Integer => input.long().map(GoodId::Integer),
            GoodType::Text => GoodId::from_text(input.text()?).map_err(|_| Malformed("a text that is no good")),
        })?;
        let content = match (good_id, input.or_null(Input::long)?) {
            (Some(good_id), Some(pieces)) => Some(Content { good_id, pieces }),
            (None, None) => None,
            _ => return Err(Malformed("only one of good_id and pieces is null")),
        };
        let record = Self {
            content,
            generation: position(input.long()?)?,
            streaming: input.boolean()?,
            lsn: position(input.long()?)?,
            commit_lsn: input.or_null(Input::long)?.map(position).transpose()?,
            ts_ms: input.long()?,
            incremental_ts_ms: input.or_null(Input::long)?,
            outdated: input.or_null(Input::boolean)?.unwrap_or_default(),
        };
        if input.left() == 0 { Ok(record) } else { Err(Malformed("bytes are left over")) }
    }
}

fn position(value: i64) -> Result<u64, Malformed> {
    u64::try_from(value).map_err(|_| Malformed("a negative position"))
}
