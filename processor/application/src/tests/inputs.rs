//! Change events as the connector writes them.

use processor_engine::Failure;

use super::world::{Open, World};

/// The record key of row `number`.
pub(super) fn key(number: u64) -> Vec<u8> {
    format!(r#"{{"id":"{}"}}"#, id(number)).into_bytes()
}

pub(super) fn id(number: u64) -> uuid::Uuid {
    uuid::Uuid::from_u128(u128::from(number))
}

/// An event's value; `pieces` below zero = remove.
pub(super) fn value(op: &str, snapshot: &str, number: u64, lsn: u64, good: i64, pieces: i64) -> Vec<u8> {
    let operation = if pieces < 0 { "remove" } else { "add" };
    let row = format!(
        r#"{{"id":"{}","good_id":{good},"operation":"{operation}","pcs":{},"created_at":"2026-11-22T09:00:00Z"}}"#,
        id(number),
        pieces.unsigned_abs()
    );
    let after = if op == "d" { "null".to_owned() } else { row };
    let ts_ms = lsn * 1_000;
    format!(
        r#"{{"before":null,"after":{after},"source":{{"ts_ms":{ts_ms},"snapshot":"{snapshot}","sequence":"[null,\"{lsn}\"]","lsn":{lsn}}},"op":"{op}"}}"#
    )
    .into_bytes()
}

impl World {
    /// A streamed insert or update of a row, in source partition 0.
    pub(super) fn streamed(&mut self, open: &mut Open, number: u64, lsn: u64, good: i64, pieces: i64) {
        self.sent(open, number, &value("u", "false", number, lsn, good, pieces)).unwrap();
    }

    /// A streamed delete of a row, in source partition 0.
    pub(super) fn deleted(&mut self, open: &mut Open, number: u64, lsn: u64) {
        self.sent(open, number, &value("d", "false", number, lsn, 0, 0)).unwrap();
    }

    /// Any value of a row, in source partition 0.
    pub(super) fn sent(&mut self, open: &mut Open, number: u64, value: &[u8]) -> Result<(), Failure> {
        self.event(open, 0, Some(&key(number)), Some(value))
    }
}
