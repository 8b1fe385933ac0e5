//! A movement table with other column names and operations is read like the one of this project, in every form.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use schemas::debezium::{Change, Columns, Decoder, KeyEncoding, Names, Record, WriterSchema};
use schemas::{Content, IdType, Reason};

const ID: &str = "63703d1f-0000-4000-8000-000000000001";
const LIMIT: usize = 10_000;

fn other_table() -> Decoder {
    let [id, good_id, operation, pcs, add, remove] =
        ["movement_uuid", "article", "direction", "quantity", "IN", "OUT"].map(str::to_owned);
    let names = Names { id: vec![id], id_type: IdType::Uuid, good_id, operation, pcs, add, remove };
    let columns = Columns::new(names).unwrap();
    Decoder { columns, max_value_bytes: LIMIT }
}

fn key() -> String {
    format!(r#"{{"movement_uuid":"{ID}"}}"#)
}

fn value(direction: &str, quantity: &str) -> String {
    // The names of this project's table are columns like any other here.
    let row = format!(
        r#"{{"movement_uuid":"{ID}","article":7,"direction":"{direction}","quantity":{quantity},"id":null,"pcs":"x","operation":"add"}}"#
    );
    let source = r#"{"snapshot":"false","lsn":100,"sequence":"[\"90\",\"100\"]","ts_ms":5}"#;
    format!(r#"{{"before":null,"after":{row},"source":{source},"op":"c","ts_ms":6}}"#)
}

fn content(record: Record) -> Result<Content, Reason> {
    assert_eq!(record.key.unwrap().id.to_string(), ID);
    match record.change.map_err(|rejection| rejection.reason())? {
        Change::Row(row) => row.content.unwrap().map_err(|rejection| rejection.reason()),
        other => panic!("{other:?} is no row"),
    }
}

fn decode(key: &str, value: &str) -> Record {
    other_table().decode(Some(key.as_bytes()), Some(value.as_bytes()))
}

#[test]
fn a_table_with_other_columns_is_read_in_plain_json_and_any_other() {
    for (direction, pieces) in [("IN", 3), ("OUT", -3)] {
        let plain = value(direction, "3");
        // White space and the wrapper are read by `serde_json`.
        for value in [plain.clone(), plain.replace(',', ", "), format!(r#"{{"schema":null,"payload":{plain}}}"#)] {
            assert_eq!(content(decode(&key(), &value)), Ok(Content { good_id: 7.into(), pieces }), "{value}");
        }
    }
    assert_eq!(content(decode(&key(), &value("add", "3"))), Err(Reason::UnknownOperation));
    assert_eq!(content(decode(&key(), &value("IN", "-3"))), Err(Reason::NegativePcs));
    let refused = decode(&key(), &value("IN", "\"three\"")).change.unwrap();
    let Change::Row(row) = refused else { panic!("no row") };
    let rejection = row.content.unwrap().unwrap_err();
    assert_eq!(rejection.detail(), "quantity is \"three\"", "the columns are called as in the table");
    let twice = value("IN", "3").replace(r#""article":7"#, r#""article":7,"article":8"#);
    assert_eq!(decode(&key(), &twice).change.unwrap_err().reason(), Reason::NotAnEnvelope);
}

#[test]
fn the_key_of_another_table_is_its_id_column_and_nothing_else() {
    let plain = decode(&key(), &value("IN", "3")).key.unwrap();
    assert_ne!(plain.encoding, KeyEncoding::PLAIN);
    let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{}}}"#, key());
    let wrapped = other_table().decode_key(Some(wrapped.as_bytes())).unwrap();
    assert_eq!(wrapped.id, plain.id);
    assert_ne!(wrapped.encoding, plain.encoding);
    for other in [format!(r#"{{"id":"{ID}"}}"#), format!(r#"{{"movement_uuid":"{ID}","id":1}}"#)] {
        assert_eq!(other_table().decode_key(Some(other.as_bytes())).unwrap_err().reason(), Reason::KeyNotTheId);
    }
    let spaced = format!(r#"{{"movement_uuid": "{ID}"}}"#);
    assert_ne!(other_table().decode_key(Some(spaced.as_bytes())).unwrap().encoding, plain.encoding);
}

fn registered(key: &[u8], value: &[u8], schemas: &BTreeMap<u32, Arc<WriterSchema>>) -> Record {
    let known = |id| Ok::<_, Infallible>(Arc::clone(&schemas[&id]));
    let Ok(record) = other_table().decode_registered(Some(key), Some(value), known);
    record
}

#[test]
fn a_table_with_other_columns_is_read_in_avro() {
    let key_schema = r#"{"type":"record","name":"Key","fields":[{"name":"movement_uuid","type":"string"}]}"#;
    let value_schema = r#"{"type":"record","name":"Envelope","fields":[
        {"name":"after","type":{"type":"record","name":"Value","fields":[
            {"name":"movement_uuid","type":"string"},{"name":"article","type":"long"},
            {"name":"direction","type":"string"},{"name":"quantity","type":"int"}]}},
        {"name":"source","type":{"type":"record","name":"Source","fields":[
            {"name":"ts_ms","type":"long"},{"name":"snapshot","type":"string"},{"name":"lsn","type":"long"},
            {"name":"sequence","type":"string"}]}},
        {"name":"op","type":"string"}]}"#;
    let framed = |id: u8, schema: &str, value: Avro| {
        let schema = apache_avro::Schema::parse_str(schema).unwrap();
        let payload = GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap();
        [&[0, 0, 0, 0, id], payload.as_slice()].concat()
    };
    let text = |text: &str| Avro::String(text.to_owned());
    let record = |fields: Vec<(&str, Avro)>| {
        Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let key = framed(1, key_schema, record(vec![("movement_uuid", text(ID))]));
    let row = vec![
        ("movement_uuid", text(ID)),
        ("article", Avro::Long(7)),
        ("direction", text("OUT")),
        ("quantity", Avro::Int(3)),
    ];
    let source = vec![
        ("ts_ms", Avro::Long(5)),
        ("snapshot", text("false")),
        ("lsn", Avro::Long(100)),
        ("sequence", text(r#"["90","100"]"#)),
    ];
    let envelope = record(vec![("after", record(row)), ("source", record(source)), ("op", text("c"))]);
    let value = framed(2, value_schema, envelope);
    let schema = |text| Arc::new(WriterSchema::avro(text, &[]).unwrap());
    let schemas = BTreeMap::from([(1, schema(key_schema)), (2, schema(value_schema))]);
    assert_eq!(content(registered(&key, &value, &schemas)), Ok(Content { good_id: 7.into(), pieces: -3 }));
}

#[test]
fn a_json_schema_tells_how_the_numbers_of_another_table_are_written() {
    let schema = r#"{"type":"object","properties":{"after":{"type":"object","properties":{
        "quantity":{"type":"string"},"pcs":{"type":"integer"}}}}}"#;
    let schema = WriterSchema::json(&other_table().columns, schema).unwrap();
    let value = [b"\0\0\0\0\x01", value("IN", "\"3\"").as_bytes()].concat();
    let record = registered(key().as_bytes(), &value, &BTreeMap::from([(1, Arc::new(schema))]));
    assert_eq!(content(record), Ok(Content { good_id: 7.into(), pieces: 3 }));
}
