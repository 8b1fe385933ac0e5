//! Shared by the tests of the wire contract: the captures of real change events, and events made by hand.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of this")]

use std::io::Read as _;

use schemas::debezium::{self, Record};
use schemas::{Reason, Rejection, RowId};
use uuid::Uuid;

/// Longest value the tests let pass.
pub const LIMIT: usize = 1_000_000;

/// One line of a capture.
pub struct Captured {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<String>,
    pub value: Option<String>,
}

impl Captured {
    pub fn decode(&self) -> Record {
        debezium::Decoder::new(LIMIT)
            .decode(self.key.as_deref().map(str::as_bytes), self.value.as_deref().map(str::as_bytes))
    }
}

/// Reads a capture under `tests/data`, unpacking `.gz`.
pub fn capture(name: &str) -> Vec<Captured> {
    let path = format!("{}/../tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut text = String::new();
    if name.strip_suffix(".gz").is_some() {
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            Captured {
                partition: i32::try_from(line["partition"].as_i64().unwrap()).unwrap(),
                offset: line["offset"].as_i64().unwrap(),
                key: line["key"].as_str().map(str::to_owned),
                value: line["value"].as_str().map(str::to_owned),
            }
        })
        .collect()
}

pub const ID: &str = "78c14186-0000-4000-8000-000000000004";

pub fn id(text: &str) -> RowId {
    RowId::Uuid(Uuid::parse_str(text).unwrap())
}

/// The parts of a change event, as JSON text, each to be replaced by what a test is about.
#[derive(Clone)]
pub struct Event {
    pub key: String,
    pub before: String,
    pub row_id: String,
    pub good_id: String,
    pub operation: String,
    pub pcs: String,
    pub after: Option<String>,
    pub snapshot: String,
    pub sequence: String,
    pub lsn: String,
    pub ts_ms: String,
    pub op: String,
}

impl Default for Event {
    fn default() -> Self {
        Self {
            key: format!(r#"{{"id":"{ID}"}}"#),
            before: "null".into(),
            row_id: format!(r#""{ID}""#),
            good_id: "2".into(),
            operation: r#""remove""#.into(),
            pcs: "15".into(),
            after: None,
            snapshot: r#""false""#.into(),
            sequence: r#""[\"26370336\",\"26370504\"]""#.into(),
            lsn: "26370504".into(),
            ts_ms: "1795333820306".into(),
            op: r#""c""#.into(),
        }
    }
}

impl Event {
    pub fn value(&self) -> String {
        let after = self.after.clone().unwrap_or_else(|| {
            let Self { row_id, good_id, operation, pcs, .. } = self;
            format!(
                r#"{{"id":{row_id},"good_id":{good_id},"operation":{operation},"pcs":{pcs},"created_at":"2026-11-22T07:50:20.305990Z"}}"#
            )
        });
        let Self { before, snapshot, sequence, lsn, ts_ms, op, .. } = self;
        format!(
            r#"{{"before":{before},"after":{after},"source":{{"version":"3.6.0.Final","ts_ms":{ts_ms},"snapshot":{snapshot},"sequence":{sequence},"lsn":{lsn}}},"transaction":null,"op":{op},"ts_ms":1795333820669}}"#
        )
    }

    pub fn decode(&self) -> Record {
        debezium::Decoder::new(LIMIT).decode(Some(self.key.as_bytes()), Some(self.value().as_bytes()))
    }

    /// The row change; panics when there is none.
    pub fn row(&self) -> debezium::RowChange {
        match self.decode().change.unwrap() {
            debezium::Change::Row(row) => row,
            other => panic!("no row: {other:?}"),
        }
    }

    /// The reason for which the whole value was refused.
    pub fn refused(&self) -> Reason {
        self.decode().change.unwrap_err().reason()
    }

    /// The reason for which only the row's content was refused, its position being known.
    pub fn content_refused(&self) -> Reason {
        let row = self.row();
        assert_eq!(row.source.lsn, Some(26_370_504), "the position is kept");
        row.content.unwrap().map_err(|rejection: Rejection| rejection.reason()).unwrap_err()
    }
}
