//! Ids that are whole record keys, of one column or several, are read in every form, and agree with the row.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions"
)]

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::mem::discriminant;
use std::sync::Arc;

use apache_avro::types::Value as Avro;
use common::Event;
use proptest::prelude::*;
use schemas::debezium::{Change, Columns, Decoder, Names, Record, WriterSchema};
use schemas::{GoodType, IdType, Reason, RowId};
use serde_json::{Value, json};

const UUID: &str = "78c14186-0000-4000-8000-00000000000a";

fn decoder(columns: &[&str]) -> Decoder {
    let id = columns.iter().map(|column| (*column).to_owned()).collect();
    let names = Names { id, id_type: IdType::Key, ..Names::default() };
    Decoder { columns: Columns::new(names).unwrap(), ..Decoder::new(10_000) }
}

/// Id and encoding of a key.
fn read(columns: &[&str], key: &str) -> (String, String) {
    let key = decoder(columns).decode_key(Some(key.as_bytes())).unwrap_or_else(|why| panic!("{key}: {why}"));
    (key.id.to_string(), key.encoding.to_string())
}

#[test]
fn a_key_of_one_column_is_its_value_and_of_several_an_array_in_the_configured_order() {
    let uuid = format!("\"{UUID}\"");
    for (columns, key, id, encoding) in [
        (&["id"][..], r#"{"id":42}"#, "42", r#"{"id":*}"#),
        (&["id"], r#"{"id":-9223372036854775808}"#, "-9223372036854775808", r#"{"id":*}"#),
        (&["id"], r#"{"id":"42"}"#, "\"42\"", r#"{"id":"*"}"#),
        (&["id"], r#"{"id": 42}"#, "42", r#"{"id": *}"#),
        (&["id"], r#"{"id":""}"#, "\"\"", r#"{"id":"*"}"#),
        (&["id"], &format!(r#"{{"id":"{UUID}"}}"#), &uuid, r#"{"id":"*"}"#),
        (&["id"], r#"{"id":"größe \"A\"\\\n\u001F"}"#, r#""größe \"A\"\\\n\u001F""#, r#"{"id":"*"}"#),
        (&["shop", "line"], r#"{"shop":1,"line":"A-7"}"#, r#"[1,"A-7"]"#, r#"{"shop":*,"line":"*"}"#),
        (&["line", "shop"], r#"{"shop":1,"line":"A-7"}"#, r#"["A-7",1]"#, r#"{"shop":*,"line":"*"}"#),
        (&["shop", "line"], r#"{"line": 7, "shop":1}"#, "[1,7]", r#"{"line": *, "shop":*}"#),
        (&["a", "b", "c"], r#"{"a":1,"b":2,"c":3}"#, "[1,2,3]", r#"{"a":*,"b":*,"c":*}"#),
    ] {
        assert_eq!(read(columns, key), (id.to_owned(), encoding.to_owned()), "{key}");
    }
}

#[test]
fn the_encodings_of_long_wrapped_and_registered_keys_are_hashes_that_never_change() {
    // Constants: they are state of every partition, so another hash would stop every upgraded processor.
    let long = read(&["shop_number", "line_number"], r#"{"shop_number":1,"line_number":2}"#);
    assert_eq!(long, ("[1,2]".to_owned(), "json:fd35585c6e690973".to_owned()));
    let wrapped = |key: &str| format!(r#"{{"schema":{{"type":"struct"}},"payload":{key}}}"#);
    let wrapped = |columns, key| read(columns, &wrapped(key));
    assert_eq!(wrapped(&["id"][..], r#"{"id":42}"#), ("42".to_owned(), "json-schema:5a9ff2c4cf72ef44".to_owned()));
    let several = wrapped(&["a", "b"], r#"{"a":1,"b":"x"}"#);
    assert_eq!(several, (r#"[1,"x"]"#.to_owned(), "json-schema:8603b31c3e387852".to_owned()));
    let registered =
        registered_key(&["id"], &framed(7, br#"{"id":42}"#), WriterSchema::json(&Columns::default(), "{}"));
    assert_eq!(registered, Ok(("42".to_owned(), "json-registry:d59d13f70b0cbd03".to_owned())));
    let schema = avro_schema("Key", &[("id", json!("long"))]);
    let payload = avro(&schema, vec![("id", Avro::Long(42))]);
    let registered = registered_key(&["id"], &framed(7, &payload), WriterSchema::avro(&schema, &[]));
    assert_eq!(registered, Ok(("42".to_owned(), "avro:d7dab0fa29949b94".to_owned())));
}

#[test]
fn a_key_that_is_not_exactly_the_columns_of_the_id_is_refused() {
    let too_long = format!(r#"{{"id":"{}"}}"#, "x".repeat(499));
    let (column, columns) = ("not exactly the id column", "not exactly the columns of the id");
    let neither = "neither a 64-bit integer nor a text";
    for (id, key, why) in [
        (&["id"][..], r#"{"id":42,"line":1}"#, column),
        (&["id"], r#"{"ID":42}"#, column),
        (&["id"], "{}", column),
        (&["id"], r#"{"payload":{"id":42,"line":1}}"#, column),
        (&["id"], r#"{"payload":{"id":42},"id":42}"#, column),
        (&["id"], r#"{"schema":null,"id":42}"#, column),
        (&["id", "line"], r#"{"id":42}"#, columns),
        (&["id", "line"], r#"{"line":42}"#, columns),
        (&["id", "line"], r#"{"id":42,"line":1,"x":1}"#, columns),
        (&["id"], "42", "not a JSON object"),
        (&["id"], "null", "not a JSON object"),
        (&["id"], r#"{"id":42}{}"#, "not a JSON object"),
        (&["id"], r#"{"id":42,"id":42}"#, "not a JSON object"),
        (&["id"], r#"{"id":042}"#, "not a JSON object"),
        (&["id"], r#"{"id":42.0}"#, neither),
        (&["id"], r#"{"id":-0}"#, neither),
        (&["id"], r#"{"id":9223372036854775808}"#, neither),
        (&["id"], r#"{"id":null}"#, neither),
        (&["id"], r#"{"id":true}"#, neither),
        (&["id"], r#"{"id":{"scale":0,"value":"Kg=="}}"#, neither),
        (&["id", "line"], r#"{"id":42,"line":[1]}"#, neither),
        (&["id"], r#"{"id":"\u0041"}"#, "in another form"),
        (&["id"], r#"{"id":"\u001f"}"#, "in another form"),
        (&["id"], r#"{"id":"__debezium_unavailable_value"}"#, "unavailable"),
        (&["id", "line"], r#"{"id":42,"line":"__debezium_unavailable_value"}"#, "unavailable"),
        (&["id"], &too_long, "longer than 500 bytes"),
    ] {
        let rejection = decoder(id).decode_key(Some(key.as_bytes())).unwrap_err();
        assert_eq!(rejection.reason(), Reason::KeyNotTheId, "{key}");
        assert!(rejection.detail().contains(why), "{key}: {rejection}");
    }
}

/// What became of an event of a row with these columns under the key `{"shop":1,"line":"A-7"}`.
fn content_of(before: &str, row: &str, op: &str) -> Result<i64, (Reason, String)> {
    let after = if op == "\"d\"" { "null".to_owned() } else { row.to_owned() };
    let event = Event { before: before.into(), after: Some(after), op: op.into(), ..Event::default() };
    let key = br#"{"shop":1,"line":"A-7"}"#;
    let of = |rejection: schemas::Rejection| (rejection.reason(), rejection.detail().to_owned());
    let read = |value: String| match decoder(&["shop", "line"]).decode(Some(key), Some(value.as_bytes())).change {
        Ok(Change::Row(row)) => row.content.map_or(Ok(0), |content| content.map(|it| it.pieces)).map_err(of),
        Ok(other) => panic!("{other:?}"),
        Err(rejection) => Err(of(rejection)),
    };
    // As it is read in one pass, and as `serde_json` reads it.
    let spaced = read(event.value().replacen('{', "{ ", 1));
    assert_eq!(read(event.value()), spaced);
    spaced
}

#[test]
fn the_row_agrees_with_the_key_in_all_columns() {
    let row = |columns: &str| format!(r#"{{{columns},"good_id":2,"operation":"add","pcs":3}}"#);
    let created = |columns: &str| content_of("null", &row(columns), "\"c\"");
    assert_eq!(created(r#""shop":1,"line":"A-7""#), Ok(3));
    assert_eq!(created(r#""line":"A-7","shop":1"#), Ok(3));
    assert_eq!(created(r#""line":"\u0041-7","shop":1"#), Ok(3), "by the text and not by how it is written");
    let (reason, detail) = created(r#""shop":1,"line":"A-8""#).unwrap_err();
    assert_eq!(
        (reason, detail.as_str()),
        (Reason::KeyValueDisagree, r#"the id in after is [1,"A-8"], the key says [1,"A-7"]"#)
    );
    let (reason, detail) = created(r#""line":"A-7""#).unwrap_err();
    assert_eq!((reason, detail.as_str()), (Reason::NoId, "after.shop is missing"));
    let (reason, detail) = created(r#""shop":1,"line":null"#).unwrap_err();
    assert_eq!(reason, Reason::NoId);
    assert_eq!(detail, "after.line: a column of the id is neither a 64-bit integer nor a text: null");

    let deleted = |before: &str| content_of(before, "", "\"d\"");
    for nothing in ["null", r#"{"good_id":0}"#, r#"{"shop":1,"line":"A-7","good_id":0}"#] {
        assert_eq!(deleted(nothing), Ok(0), "{nothing}");
    }
    assert_eq!(deleted(r#"{"shop":2,"line":"A-7"}"#).unwrap_err().0, Reason::KeyValueDisagree);
    assert_eq!(deleted(r#"{"line":"A-7"}"#).unwrap_err(), (Reason::NoId, "before.shop is missing".to_owned()));
}

#[test]
fn a_key_of_one_column_agrees_with_it() {
    let event = Event { key: r#"{"id":42}"#.into(), row_id: "42".into(), ..Event::default() };
    let read = |event: &Event| decoder(&["id"]).decode(Some(event.key.as_bytes()), Some(event.value().as_bytes()));
    let Change::Row(row) = read(&event).change.unwrap() else { panic!("no row") };
    assert_eq!((row.id.to_string().as_str(), row.content.unwrap().unwrap().pieces), ("42", -15));
    let other = read(&Event { row_id: "43".into(), ..event.clone() }).change.unwrap_err();
    assert_eq!(other.reason(), Reason::KeyValueDisagree);
    let text = read(&Event { row_id: "\"42\"".into(), ..event }).change.unwrap_err();
    assert_eq!(text.reason(), Reason::KeyValueDisagree);
}

/// A table may well say in its key which good a row is about.
#[test]
fn a_column_of_the_id_may_be_that_of_the_good_too() {
    let mut decoder = decoder(&["shop", "good_id"]);
    decoder.columns = decoder.columns.with_goods(GoodType::Text);
    let key = r#"{"shop":1,"good_id":"nut"}"#;
    let row = |good: &str| format!(r#"{{"shop":1,"good_id":"{good}","operation":"add","pcs":3}}"#);
    let read = |value: String| decoder.decode(Some(key.as_bytes()), Some(value.as_bytes())).change;
    for form in ["{", "{ "] {
        let event = |good| Event { after: Some(row(good)), ..Event::default() }.value().replacen('{', form, 1);
        let Change::Row(row) = read(event("nut")).unwrap() else { panic!("no row") };
        assert_eq!(row.content.unwrap().unwrap().good_id.to_string(), "\"nut\"");
        assert_eq!(read(event("bolt")).unwrap_err().reason(), Reason::KeyValueDisagree);
    }
    let schema = avro_schema("Value", &[("shop", json!("int")), ("good_id", json!("string"))]);
    let row = vec![("shop", Avro::Int(1)), ("good_id", Avro::String("nut".into()))];
    let schemas = BTreeMap::from([envelope_schema(&schema)]);
    let record = registered(&decoder, key.as_bytes(), &framed(2, &envelope(&schema, row)), &schemas);
    let Change::Row(row) = record.change.unwrap() else { panic!("no row") };
    assert_eq!(row.content.unwrap().unwrap().good_id.to_string(), "\"nut\"");
}

/// The bytes behind a schema id.
fn framed(id: u32, payload: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], payload].concat()
}

fn registered(decoder: &Decoder, key: &[u8], value: &[u8], schemas: &BTreeMap<u32, Arc<WriterSchema>>) -> Record {
    let Ok(record) =
        decoder.decode_registered(Some(key), Some(value), |id| Ok::<_, Infallible>(Arc::clone(&schemas[&id])));
    record
}

fn registered_key(
    columns: &[&str],
    key: &[u8],
    schema: Result<WriterSchema, schemas::debezium::UnusableSchema>,
) -> Result<(String, String), String> {
    let record = registered(&decoder(columns), key, b"null", &BTreeMap::from([(7, Arc::new(schema.unwrap()))]));
    match record.key {
        Some(key) => Ok((key.id.to_string(), key.encoding.to_string())),
        None => Err(record.change.unwrap_err().to_string()),
    }
}

fn avro_schema(name: &str, columns: &[(&str, Value)]) -> String {
    let fields: Vec<Value> = columns.iter().map(|(name, of)| json!({"name": name, "type": of})).collect();
    json!({"type": "record", "name": name, "fields": fields}).to_string()
}

fn avro(schema: &str, fields: Vec<(&str, Avro)>) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    let value = Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

/// The schema 2: of an envelope around rows with the columns of a schema, and those of the content that it lacks.
fn envelope_text(row: &str) -> String {
    let mut row: Value = serde_json::from_str(row).unwrap();
    let fields = row["fields"].as_array_mut().unwrap();
    for (name, of) in [("good_id", "long"), ("operation", "string"), ("pcs", "int")] {
        if fields.iter().all(|field| field["name"] != name) {
            fields.push(json!({"name": name, "type": of}));
        }
    }
    json!({"type": "record", "name": "Envelope", "fields": [
        {"name": "after", "type": row},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "ts_ms", "type": "long"}, {"name": "snapshot", "type": "string"}, {"name": "lsn", "type": "long"}]}},
        {"name": "op", "type": "string"}]})
    .to_string()
}

fn envelope_schema(row: &str) -> (u32, Arc<WriterSchema>) {
    (2, Arc::new(WriterSchema::avro(&envelope_text(row), &[]).unwrap()))
}

fn envelope(schema: &str, mut row: Vec<(&str, Avro)>) -> Vec<u8> {
    let text = |text: &str| Avro::String(text.to_owned());
    for (name, value) in [("good_id", Avro::Long(2)), ("operation", text("add")), ("pcs", Avro::Int(3))] {
        if row.iter().all(|(there, _)| *there != name) {
            row.push((name, value));
        }
    }
    let record = |fields: Vec<(&str, Avro)>| {
        Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let source = vec![("ts_ms", Avro::Long(5)), ("snapshot", text("false")), ("lsn", Avro::Long(100))];
    avro(&envelope_text(schema), vec![("after", record(row)), ("source", record(source)), ("op", text("c"))])
}

#[test]
fn an_avro_key_that_is_not_exactly_the_columns_of_the_id_is_refused() {
    let refused = |columns: &[(&str, Value)], fields: Vec<(&str, Avro)>, more: &[u8]| {
        let schema = avro_schema("Key", columns);
        let payload = [avro(&schema, fields).as_slice(), more].concat();
        registered_key(&["shop", "line"], &framed(7, &payload), WriterSchema::avro(&schema, &[])).unwrap_err()
    };
    let (shop, line) = (("shop", json!("long")), ("line", json!("string")));
    let (one, a) = (("shop", Avro::Long(1)), ("line", Avro::String("A".into())));
    for (refusal, why) in [
        (refused(std::slice::from_ref(&shop), vec![one.clone()], b""), "not exactly the columns"),
        (
            refused(
                &[shop.clone(), line.clone(), ("x", json!("int"))],
                vec![one.clone(), a.clone(), ("x", Avro::Int(1))],
                b"",
            ),
            "not exactly the columns",
        ),
        (refused(&[shop.clone(), line.clone()], vec![one.clone(), a.clone()], b"\0"), "more than its schema says"),
        (
            refused(&[("shop", json!("double")), line.clone()], vec![("shop", Avro::Double(1.0)), a.clone()], b""),
            "neither a 64-bit integer nor a text",
        ),
        (
            refused(
                &[("shop", json!(["null", "long"])), line],
                vec![("shop", Avro::Union(0, Box::new(Avro::Null))), a],
                b"",
            ),
            "neither a 64-bit integer nor a text",
        ),
    ] {
        assert!(refusal.contains("key-not-the-id") && refusal.contains(why), "{refusal}");
    }
}

#[derive(Debug, Clone)]
enum Column {
    Integer(i64),
    Text(String),
}

impl Column {
    fn json(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Text(text) => serde_json::to_string(text).unwrap(),
        }
    }

    fn schema(&self) -> Value {
        if matches!(self, Self::Integer(_)) { json!("long") } else { json!(["null", "string"]) }
    }

    fn avro(&self) -> Avro {
        match self {
            Self::Integer(value) => Avro::Long(*value),
            Self::Text(text) => Avro::Union(1, Box::new(Avro::String(text.clone()))),
        }
    }
}

fn column() -> impl Strategy<Value = Column> {
    prop_oneof![any::<i64>().prop_map(Column::Integer), "\\PC{0,12}".prop_map(Column::Text)]
}

const COLUMNS: [&str; 4] = ["a", "b", "c", "d"];

proptest! {
    /// Any key, in the order of its columns or another, in every form: the same id, and the rows under it.
    #[test]
    fn every_key_is_the_same_id_in_every_form(
        key in prop::collection::vec(column(), 1..=4),
        other in prop::collection::vec(column(), 4),
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
    ) {
        let order: Vec<usize> = order.into_iter().filter(|at| *at < key.len()).collect();
        let decoder = decoder(&COLUMNS[..key.len()]);
        let text = |key: &[Column], between: &str| {
            let field = |at: &usize| format!("\"{}\":{}", COLUMNS[*at], key[*at].json());
            order.iter().map(field).collect::<Vec<_>>().join(between)
        };
        let schema = |name| {
            avro_schema(name, &order.iter().map(|at| (COLUMNS[*at], key[*at].schema())).collect::<Vec<_>>())
        };
        let fields = |key: &[Column]| order.iter().map(|at| (COLUMNS[*at], key[*at].avro())).collect::<Vec<_>>();
        let values: Vec<String> = key.iter().map(Column::json).collect();
        let id = if let [value] = values.as_slice() { value.clone() } else { format!("[{}]", values.join(",")) };
        let (key_schema, row_schema) = (schema("Key"), schema("Value"));
        let schemas = BTreeMap::from([
            (1, Arc::new(WriterSchema::avro(&key_schema, &[]).unwrap())),
            envelope_schema(&row_schema),
            (3, Arc::new(WriterSchema::json(&decoder.columns, "{}").unwrap())),
        ]);
        let keys_of = |key: &[Column]| [
            format!("{{{}}}", text(key, ",")).into_bytes(),
            format!("{{ {} }}", text(key, ", ")).into_bytes(),
            format!(r#"{{"schema":{{"type":"struct"}},"payload":{{{}}}}}"#, text(key, ",")).into_bytes(),
            framed(3, format!("{{{}}}", text(key, ",")).as_bytes()),
            framed(1, &avro(&key_schema, fields(key))),
        ];
        let row = format!(r#"{{{},"good_id":2,"operation":"add","pcs":3}}"#, text(&key, ","));
        let value = Event { before: row.clone(), after: Some(row), ..Event::default() }.value();
        let rows = [
            value.clone().into_bytes(),
            value.replacen('{', "{ ", 1).into_bytes(),
            framed(3, value.as_bytes()),
            framed(2, &envelope(&row_schema, fields(&key))),
        ];
        // Of columns of the same types.
        let same_type = |one: &Column, other| {
            if discriminant(one) == discriminant(&other) { other } else { one.clone() }
        };
        let same_types: Vec<Column> = key.iter().zip(other).map(|(one, other)| same_type(one, other)).collect();
        for (bytes, others) in keys_of(&key).into_iter().zip(keys_of(&same_types)) {
            let encoding = registered(&decoder, &bytes, b"null", &schemas).key.unwrap().encoding;
            let other = registered(&decoder, &others, b"null", &schemas).key.unwrap();
            prop_assert_eq!(other.encoding, encoding, "the encoding does not depend on the id");
            prop_assert_eq!(others == bytes, other.id.to_string() == id);
            for value in &rows {
                let record = registered(&decoder, &bytes, value, &schemas);
                prop_assert_eq!(record.key.unwrap().id.to_string(), id.clone());
                let Change::Row(row) = record.change.unwrap() else { panic!("no row") };
                prop_assert_eq!(row.content.unwrap().unwrap().pieces, 3);
                prop_assert_eq!(RowId::from_bytes(row.id.as_bytes(), IdType::Key), Some(row.id));
                let disagrees = registered(&decoder, &others, value, &schemas).change;
                if others != bytes {
                    prop_assert_eq!(disagrees.unwrap_err().reason(), Reason::KeyValueDisagree);
                }
            }
        }
    }
}
