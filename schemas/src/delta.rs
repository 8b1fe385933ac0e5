//! A stock delta: the output. By how much a good just changed, and how much of it remains.
//!
//! In JSON, or in Avro behind the id of its schema in a registry, as the processor is told; a topic may hold both, and
//! readers need no registry: the first field of the Avro form says which version of `avro/delta.avsc` it is.
//!
//! Topic `<prefix>.deltas`, compacted, keyed by good; it is also the changelog of the sums, so the newest record of a
//! key is the whole truth about the good. Carries what invariants 2 and 8 are checked by: `remains(v) =
//! remains(v − 1) + delta(v)`, versions 1, 2, 3, …, and (epoch, version) only ever grows.

use crate::avro::{Input, Malformed, write};
use crate::debezium::registered::{framed, payload};
use crate::json::{self, ObjectWriter, json_object};
use crate::reader::Reader;
use crate::{DecodeError, FORMAT};

const RECORD: &str = "delta";
/// The version of `avro/delta.avsc`, first field of every value: without the schema it was written with, an Avro value
/// cannot be read, and asking a registry would make a restore depend on one.
const AVRO_FORMAT: i64 = 1;

/// The Avro schema of the values, to be registered.
pub const AVRO_SCHEMA: &str = include_str!("../avro/delta.avsc");

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StockDelta {
    /// The good.
    pub good_id: i64,
    /// Change made by this version, in pieces.
    pub delta: i128,
    /// The sum after this version, in pieces. May be negative: the source decides, not we.
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
        good_id: i64,
        delta: i128,
        remains: i128,
        transactions: i64,
        version: u64,
        epoch: u64,
    }
}

impl StockDelta {
    /// Appends the record's key: the good as decimal text.
    pub fn encode_key(&self, out: &mut Vec<u8>) {
        json::push_integer(out, self.good_id);
    }

    /// Appends the record's value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        ObjectWriter::new(out)
            .integer("good_id", self.good_id)
            .integer("delta", self.delta)
            .integer("remains", self.remains)
            .integer("transactions", self.transactions)
            .integer("version", self.version)
            .integer("epoch", self.epoch)
            .finish();
    }

    /// Appends the record's value in Avro, behind the id under which a registry knows [`AVRO_SCHEMA`].
    ///
    /// # Errors
    /// [`BeyondAvro`]; nothing is appended then.
    pub fn encode_avro(&self, schema_id: u32, out: &mut Vec<u8>) -> Result<(), BeyondAvro> {
        let Self { good_id, delta, remains, transactions, version, epoch } = *self;
        let (Ok(avro_version), Ok(avro_epoch)) = (i64::try_from(version), i64::try_from(epoch)) else {
            return Err(BeyondAvro { version, epoch });
        };
        framed(schema_id, out);
        write::long(out, AVRO_FORMAT);
        write::long(out, good_id);
        write::decimal(out, delta);
        write::decimal(out, remains);
        write::long(out, transactions);
        write::long(out, avro_version);
        write::long(out, avro_epoch);
        Ok(())
    }

    /// Reads a record in either form; `key` must be the good of the value.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        if let Some(payload) = payload(value) {
            let delta = Self::decode_avro(payload)?;
            crate::movement::check_good_key(RECORD, key, delta.good_id)?;
            return Ok(delta);
        }
        let delta = match std::str::from_utf8(value).ok().and_then(Self::read_as_written) {
            Some(delta) => delta,
            None => Self::decode_any(value)?,
        };
        crate::movement::check_good_key(RECORD, key, delta.good_id)?;
        if delta.version == 0 {
            return Err(DecodeError::malformed(RECORD, "version is 0, the first is 1"));
        }
        Ok(delta)
    }

    /// Exactly the form that [`encode`](Self::encode) writes; restores and the sink read millions of them.
    fn read_as_written(text: &str) -> Option<Self> {
        let mut reader = Reader::new(text);
        reader.literal(r#"{"good_id":"#)?;
        let good_id = reader.number()?;
        reader.literal(r#","delta":"#)?;
        let delta = reader.number()?;
        reader.literal(r#","remains":"#)?;
        let remains = reader.number()?;
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
    fn decode_any(value: &[u8]) -> Result<Self, DecodeError> {
        let wire: Wire<'_> = json::read(RECORD, value)?;
        json::check_format(RECORD, wire.format)?;
        Ok(Self {
            good_id: json::required(RECORD, "good_id", wire.good_id)?,
            delta: json::required(RECORD, "delta", wire.delta)?,
            remains: json::required(RECORD, "remains", wire.remains)?,
            transactions: json::required(RECORD, "transactions", wire.transactions)?,
            version: json::required(RECORD, "version", wire.version)?,
            epoch: json::required(RECORD, "epoch", wire.epoch)?,
        })
    }

    fn decode_avro(payload: &[u8]) -> Result<Self, DecodeError> {
        let malformed = |Malformed(why)| DecodeError::malformed(RECORD, format!("in Avro: {why}"));
        let mut input = Input::new(payload);
        let format = input.long().map_err(malformed)?;
        if format > AVRO_FORMAT {
            let found = u64::try_from(format).unwrap_or(u64::MAX);
            return Err(DecodeError::FormatNewer { record: RECORD, found, supported: FORMAT });
        }
        if format < AVRO_FORMAT {
            return Err(malformed(Malformed("it has no format")));
        }
        Self::read_avro(&mut input).map_err(malformed)
    }

    fn read_avro(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let delta = Self {
            good_id: input.long()?,
            delta: input.whole_decimal()?,
            remains: input.whole_decimal()?,
            transactions: input.long()?,
            version: u64::try_from(input.long()?).map_err(|_| Malformed("a negative version"))?,
            epoch: u64::try_from(input.long()?).map_err(|_| Malformed("a negative epoch"))?,
        };
        if delta.version == 0 {
            return Err(Malformed("version is 0, the first is 1"));
        }
        if input.left() != 0 {
            return Err(Malformed("bytes are left over"));
        }
        Ok(delta)
    }

    /// Reads the good out of a record key, for tombstones and for readers that look at keys only.
    pub fn decode_key(key: &[u8]) -> Result<i64, DecodeError> {
        json::parse_canonical_i64(key)
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
                good_id,
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
            at in any::<prop::sample::Index>(),
            byte in prop::sample::select(b"\"{},.-+019enul \\".to_vec()),
            kind in 0..3,
        ) {
            let mut value = Vec::new();
            delta.encode(&mut value);
            prop_assert_eq!(StockDelta::read_as_written(std::str::from_utf8(&value).unwrap()), Some(delta));
            let at = at.index(value.len());
            match kind {
                0 => value[at] = byte,
                1 => _ = value.remove(at),
                _ => value.insert(at, byte),
            }
            let text = std::str::from_utf8(&value).unwrap();
            if let Some(read) = StockDelta::read_as_written(text) {
                prop_assert_eq!(StockDelta::decode_any(&value), Ok(read), "{}", text);
            }
        }
    }
}
