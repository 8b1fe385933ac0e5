//! Inputs that are read without complaint: captured events, the golden records, schemas as converters register them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "reads files of this repository, and a test or a developer's run fails without them"
)]

use processor_core::{Row, Sum};
use schemas::debezium::{Columns, WriterSchema};
use schemas::{Scale, TransactionRecord};
use serde_json::Value;

use crate::inputs::join;

fn read(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn lines(path: &str) -> Vec<Value> {
    read(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every kind of captured event.
pub fn events() -> Vec<Vec<u8>> {
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().as_bytes().to_vec();
    let captured = lines("tests/data/debezium-capture/every-kind.jsonl");
    let of_two_columns = br#"{"id":42,"created_at":"A-7"}"#;
    let captured = captured.iter().map(|line| join(&text(line, "key"), &text(line, "value")));
    captured.chain([join(of_two_columns, of_two_columns)]).collect()
}

fn captured_in_avro() -> Vec<Value> {
    lines("tests/data/debezium-avro.jsonl")
}

/// Events as a converter wrote them in Avro.
pub fn events_in_avro() -> Vec<Vec<u8>> {
    let bytes = |line: &Value, field: &str| line[field].as_str().map(unhex).unwrap_or_default();
    captured_in_avro().iter().map(|line| join(&bytes(line, "key"), &bytes(line, "value"))).collect()
}

/// The schema of those values.
pub fn avro_schema() -> WriterSchema {
    let captured = captured_in_avro();
    let schema = captured.iter().find(|line| line["id"] == 4).and_then(|line| line["schema"].as_str());
    WriterSchema::avro(schema.unwrap(), &[]).unwrap()
}

/// A schema that says nothing, so that numbers are what they look like.
pub fn json_schema() -> WriterSchema {
    WriterSchema::json(&Columns::default(), "{}").unwrap()
}

/// Schemas in Avro and JSON Schema.
pub fn schemas() -> Vec<Vec<u8>> {
    let captured = captured_in_avro().into_iter().filter_map(|line| line["schema"].as_str().map(str::to_owned));
    captured.chain([read("schemas/json/delta.schema.json")]).map(String::into_bytes).collect()
}

/// A partition's own record with everything in it.
const PARTITION: &[u8] =
    br#"{"format":1,"key_encoding":"{\"id\":\"*\"}","good_type":"text","pieces_scale":3,"before_snapshots":20,
    "generations":[{"snapshot_lsn":100,"ts_ms":1795333786480,"live":7}],"swept":90,
    "sweep":{"generation":100,"after":"78c14186-0000-4000-8000-000000000004","removed":1,"markers":2,"lifted":3},
    "held":{"generation":100,"would_remove":9,"live":12},"caught_up":true}"#;

/// The golden records.
pub fn own_records() -> Vec<Vec<u8>> {
    let directory = format!("{}/../../schemas/golden/v1", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let golden = paths.iter().filter(|path| path.is_file()).map(|path| {
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let text = golden["value"].as_str().map(|text| text.as_bytes().to_vec());
        let value = text.or_else(|| golden["value_hex"].as_str().map(unhex)).unwrap_or_default();
        join(golden["key"].as_str().unwrap_or_default().as_bytes(), &value)
    });
    golden.chain([join(b"#partition", PARTITION)]).collect()
}

/// Rows of the golden changelog records, and a sum.
pub fn state() -> Vec<Vec<u8>> {
    let records = own_records();
    let values = records.iter().map(|input| crate::inputs::split(input).1);
    let rows = values.filter(|value| TransactionRecord::decode(value, Scale::WHOLE).is_ok());
    let rows = rows.filter_map(|value| Row::decode_changelog(value, Scale::WHOLE).ok()).map(|row| {
        let mut out = Vec::new();
        row.encode(&mut out);
        out
    });
    let mut sum = Vec::new();
    Sum { remains: -15, transactions: 2, version: 3, epoch: 1_795_333_787_103 }.encode(Scale::WHOLE, &mut sum);
    rows.chain([sum]).collect()
}

/// A file that uses every form of setting.
pub fn configuration() -> Vec<Vec<u8>> {
    let file = "http = \"127.0.0.1:0\"\nbatch-records = 2\nlabel = [\"a\", 1]\n[kafka.consumer]\n\"fetch.min.bytes\" = 1\n\
                sasl.password = \"x\"\n[kafka.admin]\na = true\n[kafka.producer]\nb = 1.5\n";
    vec![file.as_bytes().to_vec()]
}
