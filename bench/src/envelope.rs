//! Owns the form of the generated events: Debezium's envelope as its PostgreSQL connector writes an insert while
//! streaming, about 650 bytes, and the headers Connect adds. Pure.

use std::fmt::Write as _;

use rdkafka::message::{Header, OwnedHeaders};
use uuid::Uuid;

/// Where the generated log begins: any plausible lsn and time do.
const FIRST_LSN: u64 = 26_370_000;
const FIRST_MICROS: u64 = 1_795_333_786_480_000;
const FIRST_TRANSACTION: u64 = 730;
/// From the commit in the database to Debezium's own clock.
const CAPTURED_AFTER_MICROS: u64 = 350_123;

/// An inserted row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Id of the row.
    pub id: Uuid,
    /// Its good.
    pub good_id: i64,
    /// Signed pieces: positive is `add`.
    pub pieces: i64,
    lsn: u64,
    previous_lsn: u64,
    micros: u64,
    transaction: u64,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            id: Uuid::nil(),
            good_id: 0,
            pieces: 0,
            lsn: FIRST_LSN,
            previous_lsn: FIRST_LSN,
            micros: FIRST_MICROS,
            transaction: FIRST_TRANSACTION,
        }
    }
}

impl Change {
    /// Goes on to the next database transaction, so many bytes of log and microseconds later.
    pub const fn advance(&mut self, log_bytes: u64, micros: u64) {
        self.previous_lsn = self.lsn;
        self.lsn += log_bytes;
        self.micros += micros;
        self.transaction += 1;
    }
}

/// Replaces `out` by the record key.
pub fn write_key(out: &mut String, id: Uuid) {
    out.clear();
    // Writing to a string cannot fail.
    let _infallible = write!(out, "{{\"id\":\"{id}\"}}");
}

/// Replaces `out` by the record value.
pub fn write_value(out: &mut String, change: &Change) {
    let Change { id, good_id, pieces, lsn, previous_lsn, micros, transaction } = *change;
    let operation = if pieces < 0 { "remove" } else { "add" };
    let captured = micros + CAPTURED_AFTER_MICROS;
    let (seconds, fraction) = (micros / 1_000_000 % 86_400, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    out.clear();
    let _infallible = write!(
        out,
        "{{\"before\":null,\"after\":{{\"id\":\"{id}\",\"good_id\":{good_id},\"operation\":\"{operation}\",\
         \"pcs\":{pcs},\"created_at\":\"2026-11-22T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z\"}},\
         \"source\":{{\"version\":\"3.6.0.Final\",\"connector\":\"postgresql\",\"name\":\"warehouse\",\
         \"ts_ms\":{millis},\"snapshot\":\"false\",\"db\":\"goods_db\",\
         \"sequence\":\"[\\\"{previous_lsn}\\\",\\\"{lsn}\\\"]\",\"ts_us\":{micros},\"ts_ns\":{micros}000,\
         \"schema\":\"orders\",\"table\":\"transactions\",\"txId\":{transaction},\"lsn\":{lsn},\"xmin\":null,\
         \"origin\":null,\"origin_lsn\":null}},\"transaction\":null,\"op\":\"c\",\"ts_ms\":{captured_millis},\
         \"ts_us\":{captured},\"ts_ns\":{captured}598}}",
        pcs = pieces.unsigned_abs(),
        millis = micros / 1_000,
        captured_millis = captured / 1_000,
    );
}

/// The headers of every record.
pub fn headers() -> OwnedHeaders {
    [
        ("__debezium.context.connectorLogicalName", "warehouse"),
        ("__debezium.context.taskId", "0"),
        ("__debezium.context.connectorName", "postgresql"),
        ("__debezium.context.runId", "01a2023b-8a6c-72cf-b34f-4f0341857886"),
    ]
    .into_iter()
    .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

#[cfg(test)]
mod tests {
    use schemas::debezium::{self, ChangeOperation, Snapshot};

    use super::*;

    #[test]
    fn an_event_reads_as_the_streamed_insert_it_stands_for() {
        let mut change = Change { id: Uuid::from_u128(7), good_id: 42, pieces: -15, ..Change::default() };
        change.advance(100, 5);
        let (mut key, mut value) = (String::new(), String::new());
        write_key(&mut key, change.id);
        write_value(&mut value, &change);
        let record = debezium::Decoder::new(1 << 20).decode(Some(key.as_bytes()), Some(value.as_bytes()));
        assert_eq!(record.key.unwrap().id, schemas::RowId::from(change.id));
        let debezium::Change::Row(row) = record.change.unwrap() else { panic!("not a row") };
        assert_eq!(row.operation, ChangeOperation::Create);
        assert_eq!(row.content.unwrap().unwrap(), schemas::Content { good_id: 42.into(), pieces: -15 });
        assert_eq!(row.source.snapshot, Snapshot::Streaming);
        assert_eq!(row.source.lsn, Some(FIRST_LSN + 100));
    }

    #[test]
    fn an_event_is_as_large_as_a_captured_one_and_has_the_same_fields() {
        let mut value = String::new();
        write_value(&mut value, &Change::default());
        let captured = captured_insert();
        let difference = value.len().abs_diff(captured.len());
        assert!(difference < 20, "{} bytes, captured {}", value.len(), captured.len());
        assert_eq!(fields(&value), fields(&captured));
    }

    /// An insert as the real connector wrote it.
    fn captured_insert() -> String {
        let file = ::tests::client::data_directory().join("debezium-capture/every-kind.jsonl");
        let text = std::fs::read_to_string(file).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut values = records.filter_map(|record| Some(record["value"].as_str()?.to_owned()));
        values.find(|value| value.contains("\"op\":\"c\"")).unwrap()
    }

    /// Names of all fields, in order.
    fn fields(value: &str) -> Vec<&str> {
        value
            .split('"')
            .zip(value.split('"').skip(1))
            .filter(|(_, next)| next.starts_with(':'))
            .map(|(name, _)| name)
            .collect()
    }
}
