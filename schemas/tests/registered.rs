//! Keys and values in a registry's wire format are read into the same events as plain JSON.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions themselves"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use apache_avro::types::Value as Avro;
use common::LIMIT;
use proptest::prelude::*;
use schemas::debezium::UnusableSchema;
use schemas::debezium::{self, Change, Record, WriterSchema};
use schemas::{Content, Reason, Scale};
use serde_json::{Value, json};

/// Key and value of a captured record.
type Captured = (String, Vec<u8>, Option<Vec<u8>>);

struct Capture {
    texts: BTreeMap<u32, String>,
    records: Vec<Captured>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// What Connect wrote through the `AvroConverter`, and the schemas that the registry gave.
fn capture() -> Capture {
    let path = format!("{}/../tests/data/debezium-avro.jsonl", env!("CARGO_MANIFEST_DIR"));
    let mut capture = Capture { texts: BTreeMap::new(), records: Vec::new() };
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(id) = line["id"].as_u64() {
            capture.texts.insert(u32::try_from(id).unwrap(), line["schema"].as_str().unwrap().to_owned());
        } else {
            let topic = line["topic"].as_str().unwrap().to_owned();
            capture.records.push((topic, unhex(line["key"].as_str().unwrap()), line["value"].as_str().map(unhex)));
        }
    }
    capture
}

impl Capture {
    fn schemas(&self) -> BTreeMap<u32, Arc<WriterSchema>> {
        let read = |text: &String| Arc::new(WriterSchema::avro(text, &[]).unwrap());
        self.texts.iter().map(|(id, text)| (*id, read(text))).collect()
    }
}

fn decode(schemas: &BTreeMap<u32, Arc<WriterSchema>>, key: &[u8], value: Option<&[u8]>) -> Record {
    decode_with(0, schemas, key, value)
}

/// The same with quantities of so many digits behind the point.
fn decode_with(digits: u8, schemas: &BTreeMap<u32, Arc<WriterSchema>>, key: &[u8], value: Option<&[u8]>) -> Record {
    let scale = Scale::try_from(digits).unwrap();
    let columns = debezium::Columns::default().with_pieces(debezium::PiecesType::default(), scale);
    let decoder = debezium::Decoder { columns, ..debezium::Decoder::new(LIMIT) };
    decoder.decode_registered(Some(key), value, |id| schemas.get(&id).cloned().ok_or(id)).unwrap()
}

/// The bytes behind a schema id.
fn framed(id: u32, payload: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], payload].concat()
}

/// A value of a schema, written by the Avro library.
fn avro(schema: &str, value: Value) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    let value = Avro::try_from(value).unwrap().resolve(&schema).unwrap();
    apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

fn content(record: &Record) -> Result<Content, Reason> {
    match record.change.as_ref().map_err(schemas::Rejection::reason)? {
        Change::Row(row) => row.content.clone().unwrap().map_err(|rejection| rejection.reason()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_avro_converter_wrote_is_read() {
    let capture = capture();
    let schemas = capture.schemas();
    let mut seen = Vec::new();
    for (topic, key, value) in &capture.records {
        let record = decode(&schemas, key, value.as_deref());
        let read = record.key.unwrap();
        assert_eq!(read.id.to_string(), "63703d1f-0000-4000-8000-000000000001");
        assert!(read.encoding.as_str().starts_with("avro:"), "{}", read.encoding);
        let what = match record.change {
            Ok(Change::Row(row)) => {
                let content = row.content.map(|content| content.map_err(|rejection| rejection.reason()));
                format!("{:?} {:?} {:?}", row.operation, row.source.snapshot, content)
            }
            other => format!("{other:?}"),
        };
        seen.push(format!("{topic}: {what}"));
    }
    let added = |pieces: i64| format!("Some(Ok(Content {{ good_id: Integer(7), pieces: {pieces} }}))");
    let fractional = "Some(Err(FractionalPcs))";
    assert_eq!(
        seen,
        [
            format!("av.orders.transactions: Read Part {}", added(5)),
            format!("av.orders.transactions: Update Streaming {}", added(6)),
            "av.orders.transactions: Delete Streaming None".to_owned(),
            "av.orders.transactions: Ok(Tombstone)".to_owned(),
            format!("av.orders.dec: Read Last {}", added(5)),
            format!("av.orders.dec: Update Streaming {fractional}"),
            format!("avd.orders.dec: Read Last {}", added(5)),
            format!("avd.orders.dec: Update Streaming {fractional}"),
        ]
    );
}

/// As decimals and as doubles, of a column of `numeric(10,2)`.
#[test]
fn what_the_avro_converter_wrote_is_read_with_its_digits() {
    let capture = capture();
    let schemas = capture.schemas();
    let mut seen = Vec::new();
    for (topic, key, value) in capture.records.iter().filter(|(topic, ..)| topic.ends_with("orders.dec")) {
        let record = decode_with(2, &schemas, key, value.as_deref());
        seen.push((topic.as_str(), content(&record).unwrap().pieces));
    }
    assert_eq!(
        seen,
        [("av.orders.dec", 500), ("av.orders.dec", 625), ("avd.orders.dec", 500), ("avd.orders.dec", 625)]
    );
}

/// The Avro library writes what was captured in JSON with the schema Connect registers; it is then read alike.
#[test]
fn every_captured_event_reads_alike_in_json_and_in_avro() {
    let capture = capture();
    let schemas = capture.schemas();
    let mut events = 0;
    for name in ["debezium-capture/every-kind.jsonl", "debezium-capture/history-concurrent.jsonl.gz"] {
        for captured in common::capture(name) {
            let (Some(key), Some(value)) = (&captured.key, &captured.value) else { continue };
            let json = captured.decode();
            let document: Value = serde_json::from_str(value).unwrap();
            let value = framed(4, &avro(&capture.texts[&4], document));
            assert_eq!(
                decode(&schemas, key.as_bytes(), Some(&value)),
                json,
                "{captured:?}",
                captured = captured.offset
            );
            let id = serde_json::from_str(key).unwrap();
            let both = decode(&schemas, &framed(2, &avro(&capture.texts[&2], id)), Some(&value));
            assert_eq!(both.change, json.change);
            assert_eq!(both.key.unwrap().id, json.key.unwrap().id);
            events += 1;
        }
    }
    assert!(events > 10_000, "{events}");
}

#[test]
fn json_behind_a_schema_id_reads_as_without_one() {
    let schemas = BTreeMap::from([(
        9,
        Arc::new(WriterSchema::json(&debezium::Columns::default(), r#"{"type":"object","title":"x"}"#).unwrap()),
    )]);
    for captured in common::capture("debezium-capture/every-kind.jsonl") {
        let (Some(key), Some(value)) = (&captured.key, &captured.value) else { continue };
        let record = decode(&schemas, key.as_bytes(), Some(&framed(9, value.as_bytes())));
        assert_eq!(record, captured.decode());
        let both = decode(&schemas, &framed(9, key.as_bytes()), Some(value.as_bytes()));
        assert_eq!(both.change, record.change);
        assert!(both.key.unwrap().encoding.as_str().starts_with("json-registry:"));
    }
}

#[test]
fn a_value_that_breaks_off_or_has_more_behind_it_is_refused() {
    let capture = capture();
    let schemas = capture.schemas();
    for (_, key, value) in &capture.records {
        let Some(value) = value else { continue };
        for length in 5..value.len() {
            let change = decode(&schemas, key, Some(&value[..length])).change;
            assert_eq!(change.unwrap_err().reason(), Reason::NotAvro, "{length} of {} bytes", value.len());
        }
        let longer = [value, &[0][..]].concat();
        assert_eq!(decode(&schemas, key, Some(&longer)).change.unwrap_err().reason(), Reason::NotAvro);
        for length in 5..key.len() {
            let record = decode(&schemas, &key[..length], Some(value));
            assert_eq!(record.change.unwrap_err().reason(), Reason::KeyNotTheId);
        }
        let longer = [key, &[0][..]].concat();
        assert_eq!(decode(&schemas, &longer, Some(value)).change.unwrap_err().reason(), Reason::KeyNotTheId);
    }
}

/// An envelope whose `pcs` is of this Avro type.
fn envelope_schema(pcs: &Value) -> String {
    json!({"type": "record", "name": "Envelope", "fields": [
        {"name": "before", "type": ["null", {"type": "record", "name": "Value", "fields": [
            {"name": "id", "type": "string"},
            {"name": "good_id", "type": "int"},
            {"name": "operation", "type": ["null", "string"]},
            {"name": "pcs", "type": pcs},
            {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "null"}}},
        ]}]},
        {"name": "after", "type": ["Value", "null"]},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "ts_ms", "type": "long"}, {"name": "lsn", "type": ["null", "long"]},
            {"name": "snapshot", "type": ["string", "null"]}, {"name": "sequence", "type": ["null", "string"]},
        ]}},
        {"name": "op", "type": "string"},
    ]})
    .to_string()
}

/// An insert up to `pcs`, and from behind it.
fn around_pcs() -> (Vec<u8>, Vec<u8>) {
    let text = |text: &str| [&[u8::try_from(text.len() * 2).unwrap()], text.as_bytes()].concat();
    let before = [&[0, 0][..], &text(common::ID), &[14, 2], &text("add")].concat();
    // tags {"x":[null,null,null]}, the nulls in a block without its length; then the source.
    let tags = [&[2][..], &text("x"), &[6, 0, 0]].concat();
    let source = [&[2, 2, 16, 0][..], &text("false"), &[0]].concat();
    (before, [tags, source, text("c")].concat())
}

fn read_pcs(pcs_type: &Value, pcs: &[u8]) -> Result<Content, Reason> {
    read_pcs_with(0, pcs_type, pcs)
}

fn read_pcs_with(digits: u8, pcs_type: &Value, pcs: &[u8]) -> Result<Content, Reason> {
    let schema = WriterSchema::avro(&envelope_schema(pcs_type), &[]).unwrap();
    let (before, after) = around_pcs();
    let value = framed(1, &[&before[..], pcs, &after].concat());
    let key = format!(r#"{{"id":"{}"}}"#, common::ID);
    content(&decode_with(digits, &BTreeMap::from([(1, Arc::new(schema))]), key.as_bytes(), Some(&value)))
}

#[test]
fn counts_are_read_from_every_type_a_converter_writes_them_in() {
    let pieces = |pieces| Ok(Content { good_id: 7.into(), pieces });
    let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 2});
    let whole = json!({"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 0});
    let fixed = json!({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 2});
    let variable = json!({"type": "record", "name": "VariableScaleDecimal", "fields": [
        {"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}]});
    let double = |value: f64| value.to_le_bytes().to_vec();
    let max = i64::MAX.to_be_bytes();
    for (pcs_type, bytes, expected) in [
        (json!("int"), vec![10], pieces(5)),
        (json!("long"), vec![10], pieces(5)),
        (json!(["null", "long"]), vec![2, 10], pieces(5)),
        (json!(["null", "long"]), vec![0], Err(Reason::PcsInvalid)),
        (json!("long"), vec![9], Err(Reason::NegativePcs)),
        (json!("double"), double(5.0), pieces(5)),
        (json!("double"), double(5.5), Err(Reason::FractionalPcs)),
        (json!("double"), double(1e300), Err(Reason::PcsOutOfRange)),
        (json!("double"), double(f64::NAN), Err(Reason::PcsInvalid)),
        (json!("double"), double(f64::INFINITY), Err(Reason::PcsInvalid)),
        (json!("float"), 5.0_f32.to_le_bytes().to_vec(), pieces(5)),
        (json!("string"), vec![8, b'5', b'.', b'0', b'0'], pieces(5)),
        (json!("string"), vec![6, b'N', b'a', b'N'], Err(Reason::PcsInvalid)),
        (json!("boolean"), vec![1], Err(Reason::PcsInvalid)),
        (decimal.clone(), vec![4, 0x01, 0xf4], pieces(5)),
        (decimal.clone(), vec![4, 0x01, 0xf5], Err(Reason::FractionalPcs)),
        (decimal, vec![2, 0x9c], Err(Reason::NegativePcs)),
        (whole.clone(), [&[16][..], &max].concat(), pieces(i64::MAX)),
        (whole.clone(), [&[18, 1][..], &max].concat(), Err(Reason::PcsOutOfRange)),
        (whole, vec![0], Err(Reason::PcsInvalid)),
        (fixed, vec![0x01, 0xf4], pieces(5)),
        (variable, vec![2, 2, 50], pieces(5)),
    ] {
        assert_eq!(read_pcs(&pcs_type, &bytes), expected, "{pcs_type} {bytes:?}");
    }
}

#[test]
fn quantities_with_digits_are_exact_in_every_type_and_doubles_only_as_far_as_they_are() {
    let pieces = |pieces| Ok(Content { good_id: 7.into(), pieces });
    let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 3});
    let variable = json!({"type": "record", "name": "VariableScaleDecimal", "fields": [
        {"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}]});
    let double = |value: f64| value.to_le_bytes().to_vec();
    let text = |text: &str| [&[u8::try_from(2 * text.len()).unwrap()], text.as_bytes()].concat();
    let max = [&[16][..], &i64::MAX.to_be_bytes()].concat();
    let too_large = Err(Reason::PcsOutOfRange);
    for (pcs_type, bytes, expected) in [
        (json!("long"), vec![10], pieces(5_000)),
        (json!("double"), double(12.5), pieces(12_500)),
        (json!("double"), double(1e-3), pieces(1)),
        (json!("double"), double(999_999_999_999.999), pieces(999_999_999_999_999)),
        (json!("double"), double(1e12), too_large.clone()),
        (json!("double"), double(1e-4), Err(Reason::FractionalPcs)),
        (json!("string"), text("1000000000000.001"), pieces(1_000_000_000_000_001)),
        (json!("string"), text("0.0010"), pieces(1)),
        (json!("string"), text("0.0011"), Err(Reason::FractionalPcs)),
        (decimal.clone(), max.clone(), pieces(i64::MAX)),
        (decimal, [&[18, 1][..], &max[1..]].concat(), too_large.clone()),
        (variable.clone(), [&[6][..], &max].concat(), pieces(i64::MAX)),
        (variable.clone(), [&[4][..], &max].concat(), too_large),
        (variable, vec![8, 2, 5], Err(Reason::FractionalPcs)),
    ] {
        assert_eq!(read_pcs_with(3, &pcs_type, &bytes), expected, "{pcs_type} {bytes:?}");
    }
}

#[test]
fn counts_in_json_are_read_as_their_schema_says() {
    let connect =
        |pcs: Value| json!({"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": [pcs]}]});
    let schema = |pcs: Value| {
        json!({"properties": {"after": {"oneOf": [{"type": "null"}, {"$ref": "#/definitions/Value"}]}},
               "definitions": {"Value": {"type": "object", "properties": {"pcs": pcs}}}})
    };
    let decimal = "org.apache.kafka.connect.data.Decimal";
    let pieces = |pieces| Ok(Content { good_id: 7.into(), pieces });
    for (schema, pcs, expected) in [
        (
            connect(json!({"field": "pcs", "type": "bytes", "name": decimal, "parameters": {"scale": "2"}})),
            r#""AfQ=""#,
            pieces(5),
        ),
        (connect(json!({"field": "pcs", "type": "string"})), r#""5.00""#, pieces(5)),
        (connect(json!({"field": "pcs", "type": "int64"})), "5", pieces(5)),
        (connect(json!({"field": "pcs", "type": "int64"})), r#""5""#, Err(Reason::PcsInvalid)),
        (
            schema(json!({"type": "string", "title": decimal, "connect.parameters": {"scale": "2"}})),
            r#""AfQ=""#,
            pieces(5),
        ),
        (schema(json!({"type": "number", "title": decimal, "connect.parameters": {"scale": "2"}})), "5.00", pieces(5)),
        (schema(json!({"oneOf": [{"type": "null"}, {"type": "string"}]})), r#""5""#, pieces(5)),
        (schema(json!({"type": "integer"})), "5", pieces(5)),
        (json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}), "5", pieces(5)),
    ] {
        let text = format!(
            r#"{{"after":{{"id":"{}","good_id":7,"operation":"add","pcs":{pcs}}},"source":{{"snapshot":"false","lsn":8,"ts_ms":1}},"op":"c"}}"#,
            common::ID
        );
        let key = format!(r#"{{"id":"{}"}}"#, common::ID);
        let schemas = BTreeMap::from([(
            1,
            Arc::new(WriterSchema::json(&debezium::Columns::default(), &schema.to_string()).unwrap()),
        )]);
        let record = decode(&schemas, key.as_bytes(), Some(&framed(1, text.as_bytes())));
        assert_eq!(content(&record), expected, "{schema} {pcs}");
    }
}

#[test]
fn another_schema_id_is_another_form_of_key() {
    let capture = capture();
    let mut schemas = capture.schemas();
    schemas.insert(77, Arc::clone(&schemas[&2]));
    let (_, key, _) = &capture.records[0];
    let mut other = key.clone();
    other[4] = 77;
    let encoding = |key: &[u8]| decode(&schemas, key, None).key.unwrap().encoding;
    assert_eq!(encoding(key), encoding(key));
    assert_ne!(encoding(key), encoding(&other), "it lies in another partition");
    let (text, same_text) =
        (encoding(key).as_str().to_owned(), debezium::KeyEncoding::from_text(encoding(key).as_str()));
    assert_eq!(same_text, Some(encoding(key)), "{text}");
}

#[test]
fn a_truncate_is_told_apart_behind_a_schema_id() {
    let schemas = BTreeMap::from([(1, Arc::new(WriterSchema::json(&debezium::Columns::default(), "{}").unwrap()))]);
    let value = framed(1, br#"{"before":null,"after":null,"source":{"lsn":8},"op":"t"}"#);
    let record =
        debezium::Decoder::new(LIMIT).decode_registered(None, Some(&value), |id| schemas.get(&id).cloned().ok_or(id));
    assert_eq!(record.unwrap().change, Ok(Change::Truncate));
}

#[test]
fn a_schema_that_is_not_known_says_nothing_about_the_record() {
    let none = |id: u32| Err(id);
    assert_eq!(debezium::Decoder::new(LIMIT).decode_registered(Some(b"{}"), Some(&[0, 0, 0, 1, 2, 9]), none), Err(258));
    assert_eq!(debezium::Decoder::new(LIMIT).decode_registered(Some(&[0, 0, 0, 0, 3]), None, none), Err(3));
    // Not in wire format: too short.
    let record = debezium::Decoder::new(LIMIT).decode_registered(Some(b"{}"), Some(&[0, 0, 0, 1]), none).unwrap();
    assert_eq!(record.change.unwrap_err().reason(), Reason::KeyNotTheId);
}

#[test]
fn schemas_that_cannot_be_read_are_refused() {
    let refused = |schema: Result<WriterSchema, UnusableSchema>| schema.unwrap_err().to_string();
    assert!(refused(WriterSchema::avro("nonsense", &[])).starts_with("no Avro schema"));
    assert!(refused(WriterSchema::json(&debezium::Columns::default(), "nonsense")).starts_with("no JSON schema"));
    let list = r#"{"type":"record","name":"List","fields":[{"name":"next","type":["null","List"]}]}"#;
    assert_eq!(refused(WriterSchema::avro(list, &[])), "List contains itself");
    // Each record holds the next one twice: 2^40 types.
    let mut doubling = json!("long");
    for n in 0..40 {
        let name = format!("R{n}");
        doubling = json!({"type": "record", "name": name, "fields": [{"name": "a", "type": doubling}]});
        let again = json!({"name": "b", "type": if n == 0 { json!("long") } else { json!(format!("R{}", n - 1)) }});
        doubling["fields"].as_array_mut().unwrap().push(again);
    }
    assert!(refused(WriterSchema::avro(&doubling.to_string(), &[])).contains("schema"));
    let uses = r#"{"type":"record","name":"K","fields":[{"name":"id","type":"other.Id"}]}"#;
    let id = r#"{"type":"fixed","namespace":"other","name":"Id","size":16}"#;
    assert!(WriterSchema::avro(uses, &[]).is_err());
    assert!(WriterSchema::avro(uses, &[id.to_owned()]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Of a captured value with some bytes replaced, removed, doubled or added.
    #[test]
    fn no_bytes_bring_the_avro_reader_down(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<u8>()), 0..6),
        tail in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let capture = capture();
        let schemas = capture.schemas();
        let (_, key, value) = &capture.records[which.index(capture.records.len())];
        let mut value = value.clone().unwrap_or_else(|| framed(4, &[]));
        for (kind, at, byte) in edits {
            let at = 5 + at.index(value.len().saturating_sub(5).max(1));
            match kind {
                _ if at >= value.len() => value.push(byte),
                0 => value[at] = byte,
                1 => _ = value.remove(at),
                2 => value.insert(at, byte),
                _ => value[at] |= 0x80,
            }
        }
        value.extend(tail);
        let _ = decode(&schemas, key, Some(&value));
        let _ = decode(&schemas, &framed(2, &value), Some(&value));
    }

    #[test]
    fn no_bytes_of_an_array_bring_the_avro_reader_down(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = read_pcs(&json!({"type": "array", "items": {"type": "map", "values": "null"}}), &bytes);
        let _ = read_pcs(&json!({"type": "array", "items": "null"}), &bytes);
    }
}
