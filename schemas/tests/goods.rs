//! Goods that are texts are read in every form, and where goods are texts nothing else is one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions"
)]

mod common;

use std::convert::Infallible;
use std::sync::Arc;

use apache_avro::types::Value as Avro;
use common::{Event, ID};
use schemas::debezium::{Change, Columns, Decoder, Partial, Record, WriterSchema};
use schemas::{GoodId, GoodType, Reason};
use serde_json::{Value, json};

const UUID: &str = "78c14186-0000-4000-8000-00000000000a";

fn decoder(good_type: GoodType) -> Decoder {
    Decoder { columns: Columns::default().with_goods(good_type), ..Decoder::new(10_000) }
}

fn good(record: Record) -> Result<GoodId, Reason> {
    match record.change.unwrap() {
        Change::Row(row) => row.content.unwrap().map(|content| content.good_id).map_err(|rejection| rejection.reason()),
        other => panic!("{other:?}"),
    }
}

fn text(good: &str) -> GoodId {
    GoodId::from_text(good).unwrap()
}

/// Plain JSON with this good, in the form that is read in one pass and in another one.
fn plain(good_type: GoodType, raw: &str) -> Result<GoodId, Reason> {
    let event = Event { good_id: raw.into(), ..Event::default() };
    let read = |value: String| good(decoder(good_type).decode(Some(event.key.as_bytes()), Some(value.as_bytes())));
    let value = event.value();
    let spaced = read(value.replacen('{', "{ ", 1));
    assert_eq!(read(value), spaced, "{raw}");
    spaced
}

#[test]
fn a_text_is_a_good_where_goods_are_texts() {
    let longest = "x".repeat(500);
    for good in [UUID, "2", "M8", "größe", " ", "#partition", "null", &longest] {
        assert_eq!(plain(GoodType::Text, &format!("\"{good}\"")), Ok(text(good)), "{good}");
    }
    assert_eq!(plain(GoodType::Text, r#""M8 \"A2\"\n\u00e4""#), Ok(text("M8 \"A2\"\nä")));
}

#[test]
fn what_is_no_text_or_no_good_is_refused_where_goods_are_texts() {
    let too_long = format!("\"{}\"", "x".repeat(501));
    for raw in ["2", "2.0", "null", "true", "{}", "[\"a\"]", "\"\"", r#""a\u0000""#, r#""\ud800""#, &too_long] {
        assert_eq!(plain(GoodType::Text, raw), Err(Reason::GoodIdInvalid), "{raw}");
    }
    assert_eq!(plain(GoodType::Integer, &format!("\"{UUID}\"")), Err(Reason::GoodIdInvalid));
}

#[test]
fn a_column_that_the_source_has_not_told_is_told_apart_in_every_form() {
    const LEFT_OUT: &str = "\"__debezium_unavailable_value\"";
    let row = |event: &Event, value: &str| {
        let record = decoder(GoodType::Text).decode(Some(event.key.as_bytes()), Some(value.as_bytes()));
        let Change::Row(row) = record.change.unwrap() else { panic!("no row") };
        row
    };
    let whole = Event { good_id: format!("\"{UUID}\""), ..Event::default() };
    let good = Event { good_id: LEFT_OUT.into(), ..whole.clone() };
    let operation = Event { operation: LEFT_OUT.into(), ..whole.clone() };
    let pcs = Event { pcs: LEFT_OUT.into(), ..whole.clone() };
    let partial = |good: bool, operation: bool, pcs: bool| Partial {
        good_id: good.then(|| text(UUID)),
        adds: operation.then_some(false),
        pieces: pcs.then_some(15),
    };
    for (event, expected) in
        [(good, partial(false, true, true)), (operation, partial(true, false, true)), (pcs, partial(true, true, false))]
    {
        for value in [event.value(), event.value().replacen('{', "{ ", 1)] {
            let row = row(&event, &value);
            assert_eq!(row.content.unwrap().unwrap_err().reason(), Reason::UnavailableValue);
            assert_eq!(row.partial.as_deref(), Some(&expected));
        }
    }
    // With another column that is wrong there is nothing to complete.
    let wrong = Event { good_id: LEFT_OUT.into(), pcs: "-1".into(), ..whole };
    let row = row(&wrong, &wrong.value());
    assert_eq!((row.content.unwrap().unwrap_err().reason(), row.partial), (Reason::NegativePcs, None));
    let string = json!("string");
    let avro = avro(GoodType::Text, &string, Avro::String("__debezium_unavailable_value".into()));
    assert_eq!(avro, Err(Reason::UnavailableValue));
}

fn registered(good_type: GoodType, schema: WriterSchema, payload: &[u8]) -> Result<GoodId, Reason> {
    let schema = Arc::new(schema);
    let value = [b"\0\0\0\0\x01", payload].concat();
    let key = format!(r#"{{"id":"{ID}"}}"#);
    let known = |_| Ok::<_, Infallible>(Arc::clone(&schema));
    let Ok(record) = decoder(good_type).decode_registered(Some(key.as_bytes()), Some(&value), known);
    good(record)
}

#[test]
fn a_json_schema_makes_no_number_of_a_text_that_is_a_good() {
    let decimal = json!({"type": "string", "title": "org.apache.kafka.connect.data.Decimal",
                         "connect.parameters": {"scale": "0"}});
    for (good_type, column, raw, expected) in [
        (GoodType::Text, json!({"type": "string"}), "\"2\"", Ok(text("2"))),
        (GoodType::Text, json!({"type": "string", "title": "io.debezium.data.Uuid"}), UUID, Ok(text(UUID))),
        (GoodType::Text, decimal.clone(), "\"Ag==\"", Err(Reason::GoodIdInvalid)),
        (GoodType::Text, json!({"type": "integer"}), "2", Err(Reason::GoodIdInvalid)),
        (GoodType::Integer, json!({"type": "string"}), "\"2\"", Ok(GoodId::from(2))),
        (GoodType::Integer, decimal, "\"Ag==\"", Ok(GoodId::from(2))),
    ] {
        let raw = if raw == UUID { format!("\"{UUID}\"") } else { raw.to_owned() };
        let schema = json!({"properties": {"after": {"properties": {"good_id": column}}}}).to_string();
        let schema = WriterSchema::json(&Columns::default().with_goods(good_type), &schema).unwrap();
        let value = Event { good_id: raw.clone(), ..Event::default() }.value();
        assert_eq!(registered(good_type, schema, value.as_bytes()), expected, "{good_type} {column} {raw}");
    }
}

fn avro(good_type: GoodType, column: &Value, good: Avro) -> Result<GoodId, Reason> {
    let schema = json!({"type": "record", "name": "Envelope", "fields": [
        {"name": "after", "type": {"type": "record", "name": "Value", "fields": [
            {"name": "id", "type": "string"}, {"name": "good_id", "type": column},
            {"name": "operation", "type": "string"}, {"name": "pcs", "type": "int"}]}},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "ts_ms", "type": "long"}, {"name": "snapshot", "type": "string"}, {"name": "lsn", "type": "long"}]}},
        {"name": "op", "type": "string"}]})
    .to_string();
    let text = |text: &str| Avro::String(text.to_owned());
    let record = |fields: Vec<(&str, Avro)>| {
        Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let row = vec![("id", text(ID)), ("good_id", good), ("operation", text("add")), ("pcs", Avro::Int(3))];
    let source = vec![("ts_ms", Avro::Long(5)), ("snapshot", text("false")), ("lsn", Avro::Long(100))];
    let value = record(vec![("after", record(row)), ("source", record(source)), ("op", text("c"))]);
    let parsed = apache_avro::Schema::parse_str(&schema).unwrap();
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&parsed).build().unwrap();
    let payload = writer.write_value_to_vec(value).unwrap();
    registered(good_type, WriterSchema::avro(&schema, &[]).unwrap(), &payload)
}

#[test]
fn a_text_in_avro_is_a_good_where_goods_are_texts_and_a_number_elsewhere() {
    let string = json!("string");
    for good in ["2", UUID, "M8 \"A2\"\n"] {
        assert_eq!(avro(GoodType::Text, &string, Avro::String(good.into())), Ok(text(good)));
    }
    assert_eq!(avro(GoodType::Integer, &string, Avro::String("2".into())), Ok(GoodId::from(2)));
    assert_eq!(avro(GoodType::Text, &json!("long"), Avro::Long(2)), Err(Reason::GoodIdInvalid));
}
