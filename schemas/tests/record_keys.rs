//! The record key is exactly the id, and its byte form is noticed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions themselves"
)]

mod common;

use common::{ID, id};
use schemas::Reason;
use schemas::debezium::{Decoder, KeyEncoding};

fn encoding(text: &str) -> String {
    let key =
        Decoder::new(0).decode_key(Some(text.as_bytes())).unwrap_or_else(|rejection| panic!("{text}: {rejection}"));
    assert_eq!(key.id, id(ID), "{text}");
    key.encoding.as_str().to_owned()
}

fn refused(text: &str) -> Reason {
    Decoder::new(0).decode_key(Some(text.as_bytes())).unwrap_err().reason()
}

fn wrapped(schema_name: &str) -> String {
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"type":"string","optional":false,"name":"io.debezium.data.Uuid","version":1,"field":"id"}}],"optional":false,"name":"{schema_name}"}},"payload":{{"id":"{ID}"}}}}"#
    )
}

#[test]
fn a_plain_key_has_the_plain_encoding() {
    assert_eq!(encoding(&format!(r#"{{"id":"{ID}"}}"#)), r#"{"id":"*"}"#);
    assert_eq!(KeyEncoding::PLAIN.as_str(), r#"{"id":"*"}"#);
}

#[test]
fn another_byte_form_of_the_same_id_has_another_encoding() {
    assert_eq!(encoding(&format!(r#"{{"id": "{ID}"}}"#)), r#"{"id": "*"}"#);
    assert_eq!(encoding(&format!(r#" {{"id":"{ID}"}}"#)), r#" {"id":"*"}"#);
    assert!(encoding(&format!(r#"{{"id":{:50}"{ID}"}}"#, "")).starts_with("json:"));
}

#[test]
fn the_encoding_of_a_wrapped_key_is_a_hash_that_never_changes() {
    // A constant: it is state of every partition, so another hash would stop every upgraded processor.
    assert_eq!(encoding(&wrapped("warehouse.orders.transactions.Key")), "json-schema:c366707969921542");
    assert_ne!(
        encoding(&wrapped("other.orders.transactions.Key")),
        encoding(&wrapped("warehouse.orders.transactions.Key"))
    );
    assert!(encoding(&format!(r#"{{"payload":{{"id":"{ID}"}}}}"#)).starts_with("json-schema:"));
}

#[test]
fn the_encoding_does_not_depend_on_the_id() {
    let other = |text: String| text.replace(ID, "00000000-0000-4000-8000-000000000001");
    for text in [format!(r#"{{"id":"{ID}"}}"#), format!(r#"{{ "id":"{ID}"}}"#), wrapped("x")] {
        let of = |text: &str| Decoder::new(0).decode_key(Some(text.as_bytes())).unwrap().encoding;
        assert_eq!(of(&text), of(&other(text.clone())));
    }
}

#[test]
fn an_encoding_is_kept_and_read_back_as_text() {
    for text in [format!(r#"{{"id":"{ID}"}}"#), wrapped("x")] {
        let encoding = Decoder::new(0).decode_key(Some(text.as_bytes())).unwrap().encoding;
        assert_eq!(KeyEncoding::from_text(encoding.as_str()), Some(encoding));
        let json = serde_json::to_string(&encoding).unwrap();
        assert_eq!(serde_json::from_str::<KeyEncoding>(&json).unwrap(), encoding);
    }
    assert_eq!(KeyEncoding::from_text(&"x".repeat(32)), None);
}

#[test]
fn a_missing_key_is_refused() {
    assert_eq!(Decoder::new(0).decode_key(None).unwrap_err().reason(), Reason::NoId);
}

#[test]
fn a_key_that_is_not_exactly_the_id_is_refused() {
    let upper = ID.to_uppercase();
    for text in [
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        ID.to_owned(),
        format!(r#""{ID}""#),
        format!(r#"["{ID}"]"#),
        format!(r#"{{"id":"{ID}","good_id":2}}"#),
        format!(r#"{{"uuid":"{ID}"}}"#),
        format!(r#"{{"ID":"{ID}"}}"#),
        format!(r#"{{"id":"{ID}","id":"{ID}"}}"#),
        format!(r#"{{"id":"{ID}"}}{{}}"#),
        format!(r#"{{"id":"{}"}}"#, ID.replace('-', "")),
        format!(r#"{{"id":"{{{ID}}}"}}"#),
        format!(r#"{{"id":"{upper}"}}"#),
        format!(r#"{{"id":"\u0037{}"}}"#, &ID[1..]),
        r#"{"id":17}"#.to_owned(),
        r#"{"id":null}"#.to_owned(),
        format!(r#"{{"schema":null,"id":"{ID}"}}"#),
        format!(r#"{{"schema":null,"payload":{{"id":"{ID}","x":1}}}}"#),
        r#"{"schema":null,"payload":null}"#.to_owned(),
        format!(r#"{{"payload":{{"id":"{ID}"}},"id":"{ID}"}}"#),
    ] {
        assert_eq!(refused(&text), Reason::KeyNotTheId, "{text}");
    }
    assert_eq!(
        Decoder::new(0).decode_key(Some(b"\x00\x00\x00\x00\x01H")).unwrap_err().reason(),
        Reason::KeyNotTheId,
        "Avro"
    );
}
