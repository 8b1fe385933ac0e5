//! A movement: by how much one good changed in one transaction of the first step.
//!
//! Topic `<prefix>.movements`, the repartition topic: key is the good, so that one partition sees all of a good.
//! Movements are differences; they are added exactly once or the sums are wrong, which is why they only ever travel
//! inside Kafka transactions.

use serde_json::value::RawValue;

use crate::json::{self, ObjectWriter, json_object};
use crate::{DecodeError, GoodId, Scale};

const RECORD: &str = "movement";

/// The change of one good: new contributions minus old ones, coalesced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Movement {
    /// The good.
    pub good_id: GoodId,
    /// Change of the sum, in units of the system's scale. Wider than a contribution: many coalesce into one movement.
    pub delta: i128,
    /// Change of the number of live source rows of the good.
    pub transactions: i64,
}

json_object! {
    struct Wire<'a> { format: u64, good_id: GoodId, delta: &'a RawValue, transactions: i64, }
}

impl Movement {
    /// Appends the record's key: the good as plain text.
    pub fn encode_key(&self, out: &mut Vec<u8>) {
        self.good_id.with_key(|key| out.extend_from_slice(key));
    }

    /// Appends the record's value; `delta` is in units of `scale`.
    pub fn encode(&self, scale: Scale, out: &mut Vec<u8>) {
        ObjectWriter::new(out)
            .good("good_id", &self.good_id)
            .quantity("delta", self.delta, scale)
            .integer("transactions", self.transactions)
            .finish();
    }

    /// Reads a record; `key` must be the good of the value, and its quantity of this scale.
    pub fn decode(key: &[u8], value: &[u8], scale: Scale) -> Result<Self, DecodeError> {
        let wire: Wire<'_> = json::read(RECORD, value)?;
        json::check_format(RECORD, wire.format)?;
        let good_id = json::required(RECORD, "good_id", wire.good_id)?;
        check_good_key(RECORD, key, &good_id)?;
        let delta = json::required(RECORD, "delta", wire.delta)?;
        Ok(Self {
            good_id,
            delta: scale.read(RECORD, "delta", delta.get())?,
            transactions: json::required(RECORD, "transactions", wire.transactions)?,
        })
    }
}

/// A record keyed by good must lie under its own good: another key is another partition and another history.
pub(crate) fn check_good_key(record: &'static str, key: &[u8], good_id: &GoodId) -> Result<(), DecodeError> {
    if good_id.with_key(|own| own == key) {
        return Ok(());
    }
    let found = crate::rejection::excerpt(key);
    Err(DecodeError::key(record, format!("it is {found}, its value is about good {good_id}")))
}
