//! A stock delta: the output. By how much a good just changed, and how much of it remains.
//!
//! Topic `<prefix>.deltas`, compacted, keyed by good; it is also the changelog of the sums, so the newest record of a
//! key is the whole truth about the good. Carries what invariants 2 and 8 are checked by: `remains(v) =
//! remains(v − 1) + delta(v)`, versions 1, 2, 3, …, and (epoch, version) only ever grows.

use crate::DecodeError;
use crate::json::{self, ObjectWriter, json_object};

const RECORD: &str = "delta";

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

    /// Reads a record; `key` must be the good of the value.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        let wire: Wire<'_> = json::read(RECORD, value)?;
        json::check_format(RECORD, wire.format)?;
        let good_id = json::required(RECORD, "good_id", wire.good_id)?;
        crate::movement::check_good_key(RECORD, key, good_id)?;
        let version = json::required(RECORD, "version", wire.version)?;
        if version == 0 {
            return Err(DecodeError::malformed(RECORD, "version is 0, the first is 1"));
        }
        Ok(Self {
            good_id,
            delta: json::required(RECORD, "delta", wire.delta)?,
            remains: json::required(RECORD, "remains", wire.remains)?,
            transactions: json::required(RECORD, "transactions", wire.transactions)?,
            version,
            epoch: json::required(RECORD, "epoch", wire.epoch)?,
        })
    }

    /// Reads the good out of a record key, for tombstones and for readers that look at keys only.
    pub fn decode_key(key: &[u8]) -> Result<i64, DecodeError> {
        json::parse_canonical_i64(key)
            .ok_or_else(|| DecodeError::key(RECORD, format!("no good: {}", crate::rejection::excerpt(key))))
    }
}
