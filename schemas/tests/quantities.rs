//! Quantities with digits behind the point are read exactly in every form in which a connector writes `numeric`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions"
)]

mod common;

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Event, ID};
use num_bigint::BigInt;
use proptest::prelude::*;
use schemas::debezium::{Change, Columns, Decoder, PiecesType, Record, WriterSchema};
use schemas::{Reason, Rejection, Scale};
use serde_json::json;

fn scale(digits: u8) -> Scale {
    Scale::try_from(digits).unwrap()
}

fn decoder(pieces_type: PiecesType, digits: u8) -> Decoder {
    Decoder { columns: Columns::default().with_pieces(pieces_type, scale(digits)), ..Decoder::new(10_000) }
}

fn pieces(record: Record) -> Result<i64, Rejection> {
    match record.change.unwrap() {
        Change::Row(row) => row.content.unwrap().map(|content| content.pieces),
        other => panic!("{other:?}"),
    }
}

fn event(pcs: &str) -> Event {
    Event { pcs: pcs.into(), operation: "\"add\"".into(), ..Event::default() }
}

/// Plain JSON with these pieces, in the form that is read in one pass and in another one.
fn plain(pieces_type: PiecesType, digits: u8, pcs: &str) -> Result<i64, Rejection> {
    let event = event(pcs);
    let decoder = decoder(pieces_type, digits);
    let read = |value: String| pieces(decoder.decode(Some(event.key.as_bytes()), Some(value.as_bytes())));
    let value = event.value();
    let spaced = read(value.replacen('{', "{ ", 1));
    assert_eq!(read(value), spaced, "{pcs}");
    spaced
}

/// The same behind the id of a schema in which the column is of this type.
fn registered(column: &serde_json::Value, digits: u8, pcs: &str) -> Result<i64, Rejection> {
    let schema = json!({"properties": {"after": {"properties": {"pcs": column}}}}).to_string();
    let schema = Arc::new(WriterSchema::json(&Columns::default(), &schema).unwrap());
    let value = [b"\0\0\0\0\x01", event(pcs).value().as_bytes()].concat();
    let key = format!(r#"{{"id":"{ID}"}}"#);
    let known = |_| Ok::<_, Infallible>(Arc::clone(&schema));
    let decoder = decoder(PiecesType::default(), digits);
    let Ok(record) = decoder.decode_registered(Some(key.as_bytes()), Some(&value), known);
    pieces(record)
}

fn reason(read: Result<i64, Rejection>) -> Reason {
    read.unwrap_err().reason()
}

#[test]
fn a_quantity_finer_than_the_scale_is_refused_with_the_scale_that_it_takes() {
    let error = plain(PiecesType::Number, 3, "12.3456").unwrap_err();
    assert_eq!(error.to_string(), "fractional-pcs: pcs is finer than --pieces-scale 3, it takes 4: 12.3456");
    let error = plain(PiecesType::Text, 1, "\"0.125\"").unwrap_err();
    assert_eq!(error.to_string(), "fractional-pcs: pcs is finer than --pieces-scale 1, it takes 3: \"0.125\"");
    // As ever where pieces are whole.
    assert_eq!(plain(PiecesType::Number, 0, "1.5").unwrap_err().to_string(), "fractional-pcs: pcs is 1.5");
    for (pcs, expected) in
        [("-0.001", Reason::NegativePcs), ("-0.0001", Reason::NegativePcs), ("1e300", Reason::PcsOutOfRange)]
    {
        assert_eq!(reason(plain(PiecesType::Number, 3, pcs)), expected, "{pcs}");
    }
}

#[test]
fn numbers_texts_and_decimals_are_each_read_only_where_they_are_said_to_be() {
    use PiecesType::{Decimal, Number, Text};
    for (pieces_type, pcs, expected) in [
        (Number, "12.5", Ok(12_500)),
        (Number, "\"12.500\"", Err(Reason::PcsInvalid)),
        (Number, "\"MNQ=\"", Err(Reason::PcsInvalid)),
        (Text, "\"12.500\"", Ok(12_500)),
        (Text, "\"12\"", Ok(12_000)),
        (Text, "12.5", Ok(12_500)),
        (Text, "\"MNQ=\"", Err(Reason::PcsInvalid)),
        (Text, "\"NaN\"", Err(Reason::PcsInvalid)),
        (Text, "null", Err(Reason::PcsInvalid)),
        (Decimal, "\"MNQ=\"", Ok(12_500)),
        (Decimal, r#"{"scale":1,"value":"fQ=="}"#, Ok(12_500)),
        (Decimal, "\"12.500\"", Err(Reason::PcsInvalid)),
        (Decimal, "\"zw==\"", Err(Reason::NegativePcs)),
        (Decimal, "\"__debezium_unavailable_value\"", Err(Reason::UnavailableValue)),
        (Text, "\"__debezium_unavailable_value\"", Err(Reason::UnavailableValue)),
    ] {
        let read = plain(pieces_type, 3, pcs).map_err(|rejection| rejection.reason());
        assert_eq!(read, expected, "{pieces_type:?} {pcs}");
    }
}

#[test]
fn where_pieces_are_whole_texts_and_decimals_are_read_too() {
    assert_eq!(plain(PiecesType::Text, 0, "\"15.00\"").unwrap(), 15);
    assert_eq!(plain(PiecesType::Decimal, 0, "\"Dw==\"").unwrap(), 15);
    assert_eq!(reason(plain(PiecesType::Text, 0, "\"15.50\"")), Reason::FractionalPcs);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The units of a column of `digits` digits behind the point are the units of a system of as many or more.
    #[test]
    fn every_quantity_is_the_same_in_every_form(
        units in prop_oneof![0..1_000_000_000_000_i64, 0..i64::MAX],
        digits in 0..=Scale::MAX.digits(),
        more in 0..=Scale::MAX.digits(),
    ) {
        let system = digits.saturating_add(more).min(Scale::MAX.digits());
        let expected = units.checked_mul(10_i64.pow(u32::from(system - digits)));
        let text = scale(digits).text(units.into());
        let base64 = STANDARD.encode(BigInt::from(units).to_signed_bytes_be());
        let connect = |name: &str| json!({"type": "string", "title": name, "connect.parameters": {"scale": digits.to_string()}});
        let variable = format!(r#"{{"scale":{digits},"value":"{base64}"}}"#);
        let read = [
            plain(PiecesType::Text, system, &format!("\"{text}\"")),
            plain(PiecesType::Decimal, system, &variable),
            registered(&json!({"type": "string"}), system, &format!("\"{text}\"")),
            registered(&connect("org.apache.kafka.connect.data.Decimal"), system, &format!("\"{base64}\"")),
            registered(&json!({"type": "object", "title": "io.debezium.data.VariableScaleDecimal"}), system, &variable),
        ];
        for read in read {
            let expected = expected.ok_or(Reason::PcsOutOfRange);
            prop_assert_eq!(read.map_err(|rejection| rejection.reason()), expected, "{}", text);
        }
        if system == digits {
            prop_assert_eq!(plain(PiecesType::Decimal, system, &format!("\"{base64}\"")), Ok(units));
        }
        // A double has room for 15 digits.
        if system > 0 {
            let double: f64 = text.parse().unwrap();
            let read = plain(PiecesType::Number, system, &format!("{double:?}"));
            if let Some(expected) = expected.filter(|expected| *expected < 1_000_000_000_000_000) {
                prop_assert_eq!(read, Ok(expected));
            } else {
                prop_assert!(read.is_err(), "{} {:?}", text, read);
            }
        }
    }
}
