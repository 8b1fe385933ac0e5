//! A stock delta: the output. By how much a good just changed, and how much of it remains.
//!
//! In JSON, or in Avro behind the id of its schema in a registry, as the processor is told; a topic may hold both, and
//! readers need no registry: the first field of the Avro form says which schema of `avro/` it has.
//!
//! Topic `<prefix>.deltas`, compacted, keyed by good; it is also the changelog of the sums, so the newest record of a
//! key is the whole truth about the good. Carries what invariants 2 and 8 are checked by: `remains(v) =
//! remains(v − 1) + delta(v)`, versions 1, 2, 3, …, and (epoch, version) only ever grows.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::avro::{Input, Malformed, own, write};
use crate::debezium::registered::payload;
use crate::json::{self, ObjectWriter, json_object};
use crate::reader::Reader;
use crate::{DecodeError, GoodId, GoodType, Scale};

const RECORD: &str = "delta";
/// The Avro schema of the values, to be registered: `avro/delta.avsc`, or `avro/delta-text.avsc`, of the scale.
pub fn avro_schema(good_type: GoodType, scale: Scale) -> Cow<'static, str> {
    let of_whole_pieces = match good_type {
        GoodType::Integer => include_str!("../avro/delta.avsc"),
        GoodType::Text => include_str!("../avro/delta-text.avsc"),
    };
    own::schema(of_whole_pieces, good_type, scale)
}

/// A number that the Avro form has no room for: a version or an epoch beyond 63 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("version {version} or epoch {epoch} does not fit 63 bits")]
pub struct BeyondAvro {
    /// The version.
    pub version: u64,
    /// The epoch.
    pub epoch: u64,
}

/// One version of one good's stock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StockDelta {
    /// The good.
    pub good_id: GoodId,
    /// Change made by this version, in units of the system's scale.
    pub delta: i128,
    /// The sum after this version, in the same units. May be negative: the source decides, not we.
    pub remains: i128,
    /// Live source rows of the good after this version. Signed: a key change moves a row between partitions, and its
    /// removal may be counted before it was ever added here.
    pub transactions: i64,
    /// 1, 2, 3, … per good and epoch, without gap or repeat.
    pub version: u64,
    /// When this output partition was first written, ms since 1970; a larger epoch is a newer output.
    pub epoch: u64,
}

json_object! {
    struct Wire<'a> {
        format: u64,
        good_id: GoodId,
        delta: &'a RawValue,
        remains: &'a RawValue,
        transactions: i64,
        version: u64,
        epoch: u64,
    }
}

impl StockDelta {
    /// Appends the record's key: the good as plain text.
    pub fn encode_key(&self, out: &mut Vec<u8>) {
        self.good_id.with_key(|key| out.extend_from_slice(key));
    }

    /// Appends the record's value; its quantities are in units of `scale`.
    pub fn encode(&self, scale: Scale, out: &mut Vec<u8>) {
        ObjectWriter::new(out)
            .good("good_id", &self.good_id)
            .quantity("delta", self.delta, scale)
            .quantity("remains", self.remains, scale)
            .integer("transactions", self.transactions)
            .integer("version", self.version)
            .integer("epoch", self.epoch)
            .finish();
    }

    /// Appends the record's value in Avro, behind the id under which a registry knows its
    /// [`avro_schema`].
    ///
    /// # Errors
    /// [`BeyondAvro`]; nothing is appended then.
    pub fn encode_avro(&self, schema_id: u32, scale: Scale, out: &mut Vec<u8>) -> Result<(), BeyondAvro> {
        let Self { ref good_id, delta, remains, transactions, version, epoch } = *self;
        let (Ok(avro_version), Ok(avro_epoch)) = (i64::try_from(version), i64::try_from(epoch)) else {
            return Err(BeyondAvro { version, epoch });
        };
        own::begin(out, schema_id, good_id.good_type(), scale);
        own::push_good(out, good_id);
        write::decimal(out, delta);
        write::decimal(out, remains);
        write::long(out, transactions);
        write::long(out, avro_version);
        write::long(out, avro_epoch);
        Ok(())
    }

    /// Reads a record in either form; `key` must be the good of the value, and its quantities of this scale.
    pub fn decode(key: &[u8], value: &[u8], scale: Scale) -> Result<Self, DecodeError> {
        if let Some(payload) = payload(value) {
            let delta = Self::decode_avro(payload, scale)?;
            crate::movement::check_good_key(RECORD, key, &delta.good_id)?;
            return Ok(delta);
        }
        let delta = match std::str::from_utf8(value).ok().and_then(|text| Self::read_as_written(text, scale)) {
            Some(delta) => delta,
            None => Self::decode_any(value, scale)?,
        };
        crate::movement::check_good_key(RECORD, key, &delta.good_id)?;
        if delta.version == 0 {
            return Err(DecodeError::malformed(RECORD, "version is 0, the first is 1"));
        }
        Ok(delta)
    }

    /// Exactly the form that [`encode`](Self::encode) writes of integer goods; restores and the sink read millions of them.
    fn read_as_written(text: &str, scale: Scale) -> Option<Self> {
        let mut reader = Reader::new(text);
        reader.literal(r#"{"good_id":"#)?;
        let good_id = GoodId::Integer(reader.number()?);
        reader.literal(r#","delta":"#)?;
        let delta = reader.quantity(scale)?;
        reader.literal(r#","remains":"#)?;
        let remains = reader.quantity(scale)?;
        reader.literal(r#","transactions":"#)?;
        let transactions = reader.number()?;
        reader.literal(r#","version":"#)?;
        let version = reader.number()?;
        reader.literal(r#","epoch":"#)?;
        let epoch = reader.number()?;
        reader.expect(b'}')?;
        reader.is_at_end().then_some(Self { good_id, delta, remains, transactions, version, epoch })
    }

    /// Any other JSON with these fields.
    fn decode_any(value: &[u8], scale: Scale) -> Result<Self, DecodeError> {
        let wire: Wire<'_> = json::read(RECORD, value)?;
        json::check_format(RECORD, wire.format)?;
        let quantity = |name, field: Option<&RawValue>| {
            json::required(RECORD, name, field).and_then(|raw| scale.read(RECORD, name, raw.get()))
        };
        Ok(Self {
            good_id: json::required(RECORD, "good_id", wire.good_id)?,
            delta: quantity("delta", wire.delta)?,
            remains: quantity("remains", wire.remains)?,
            transactions: json::required(RECORD, "transactions", wire.transactions)?,
            version: json::required(RECORD, "version", wire.version)?,
            epoch: json::required(RECORD, "epoch", wire.epoch)?,
        })
    }

    fn decode_avro(payload: &[u8], scale: Scale) -> Result<Self, DecodeError> {
        own::read(RECORD, payload, scale, Self::read_avro)
    }

    fn read_avro(good_type: GoodType, input: &mut Input<'_>) -> Result<Self, Malformed> {
        let delta = Self {
            good_id: own::good(good_type, input)?,
            delta: input.units()?,
            remains: input.units()?,
            transactions: input.long()?,
            version: u64::try_from(input.long()?).map_err(|_| Malformed("a negative version"))?,
            epoch: u64::try_from(input.long()?).map_err(|_| Malformed("a negative epoch"))?,
        };
        if delta.version == 0 {
            return Err(Malformed("version is 0, the first is 1"));
        }
        Ok(delta)
    }

    /// Reads the good out of a record key, for tombstones and for readers that look at keys only.
    ///
    /// # Errors
    /// `RECORD_KEY_MALFORMED` for a key that no good of this type has.
    pub fn decode_key(key: &[u8], good_type: GoodType) -> Result<GoodId, DecodeError> {
        GoodId::from_key(key, good_type)
            .ok_or_else(|| DecodeError::key(RECORD, format!("no good: {}", crate::rejection::excerpt(key))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Zero is frequent, since a sign before it is not the same to all readers.
    fn delta() -> impl Strategy<Value = StockDelta> {
        let good_id = prop_oneof![Just(0), any::<i64>()];
        (good_id, any::<(i128, i128)>(), prop_oneof![Just(0), any::<i64>()], any::<(u64, u64)>()).prop_map(
            |(good_id, (delta, remains), transactions, (version, epoch))| StockDelta {
                good_id: GoodId::Integer(good_id),
                delta,
                remains,
                transactions,
                version,
                epoch,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// What was written is read the quick way, and whatever the quick way takes, `serde_json` reads alike.
        #[test]
        fn the_quick_way_reads_what_serde_json_reads(
            delta in delta(),
            scale in crate::quantity::tests::any_scale(),
            at in any::<prop::sample::Index>(),
            byte in prop::sample::select(b"\"{},.-+019enul \\".to_vec()),
            kind in 0..3,
        ) {
            let read = |value: &[u8]| StockDelta::read_as_written(std::str::from_utf8(value).unwrap(), scale);
            let mut value = Vec::new();
            delta.encode(scale, &mut value);
            prop_assert_eq!(read(&value), Some(delta));
            let at = at.index(value.len());
            match kind {
                0 => value[at] = byte,
                1 => _ = value.remove(at),
                _ => value.insert(at, byte),
            }
            if let Some(read) = read(&value) {
                let text = String::from_utf8_lossy(&value);
                prop_assert_eq!(StockDelta::decode_any(&value, scale), Ok(read), "{}", text);
            }
        }
    }
}
