//! Our own records read back what was written, tolerate additions, and refuse what they do not know.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions themselves"
)]

use proptest::prelude::*;
use schemas::{
    ChangelogKey, Content, Control, DecodeError, GoodId, GoodType, Movement, ReceivedControl, Scale, StockDelta,
    TransactionRecord, headers,
};
use uuid::Uuid;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

const CHANGELOG: &str =
    r#"{"format":1,"good_id":2,"pieces":-15,"generation":1,"streaming":true,"lsn":5,"commit_lsn":null,"ts_ms":7}"#;

fn changelog_code(value: &str) -> &'static str {
    TransactionRecord::decode(value.as_bytes(), Scale::WHOLE).unwrap_err().code()
}

#[test]
fn a_newer_format_is_refused_with_its_code_even_if_its_fields_are_others() {
    assert_eq!(changelog_code(&CHANGELOG.replace(r#""format":1"#, r#""format":2"#)), "FORMAT_NEWER");
    assert_eq!(changelog_code(r#"{"format":2}"#), "FORMAT_NEWER");
    assert_eq!(changelog_code(r#"{"format":2,"good_id":{"low":1}}"#), "FORMAT_NEWER");
    let movement = br#"{"format":2,"good_id":2,"delta":"-15"}"#;
    assert_eq!(Movement::decode(b"2", movement, Scale::WHOLE).unwrap_err().code(), "FORMAT_NEWER");
    assert_eq!(StockDelta::decode(b"2", br#"{"format":9}"#, Scale::WHOLE).unwrap_err().code(), "FORMAT_NEWER");
    let control = Control::decode(br#"{"format":2,"type":"caught-up","partition":3}"#);
    assert!(matches!(control, Err(DecodeError::FormatNewer { found: 2, supported: 1, .. })), "{control:?}");
}

#[test]
fn unknown_fields_are_accepted() {
    let value = CHANGELOG.replace('}', r#","added_later":{"x":[1,2]}}"#);
    let read = |value: &str| TransactionRecord::decode(value.as_bytes(), Scale::WHOLE);
    assert_eq!(read(&value), read(CHANGELOG));
    assert!(Movement::decode(b"2", br#"{"x":null,"good_id":2,"delta":1,"transactions":0}"#, Scale::WHOLE).is_ok());
}

#[test]
fn a_changelog_value_with_a_field_missing_or_wrong_is_refused() {
    for field in ["format", "good_id", "pieces", "generation", "streaming", "lsn", "ts_ms"] {
        let value = CHANGELOG.replace(&format!("\"{field}\""), "\"other\"");
        assert_eq!(changelog_code(&value), "RECORD_MALFORMED", "{field}");
    }
    for value in
        ["", "null", "[1,2,-15,1,true,5,null,7]", &CHANGELOG.replace("-15", "null"), &CHANGELOG.replace("5,", "-5,")]
    {
        assert_eq!(changelog_code(value), "RECORD_MALFORMED", "{value}");
    }
    assert_eq!(TransactionRecord::decode(b"{\"x\":\"\xff\"}", Scale::WHOLE).unwrap_err().code(), "RECORD_MALFORMED");
}

#[test]
fn a_changelog_key_in_another_form_is_refused() {
    let uuids = ["78C14186-0000-4000-8000-000000000004", "78c14186000040008000000000000004"];
    let others = ["", "#other", "042", "4.2", "[42]", "[1, 2]", r#""\u0041""#, "[1,[2]]", "\"A", "A"];
    for key in uuids.iter().chain(&others) {
        assert_eq!(ChangelogKey::decode(key.as_bytes()).unwrap_err().code(), "RECORD_KEY_MALFORMED", "{key}");
    }
}

#[test]
fn a_record_under_another_goods_key_is_refused() {
    let movement = br#"{"good_id":2,"delta":1,"transactions":0}"#;
    let delta = br#"{"good_id":2,"delta":1,"remains":1,"transactions":1,"version":1,"epoch":1}"#;
    for key in ["3", "02", "+2", " 2", "2 ", ""] {
        let movement = Movement::decode(key.as_bytes(), movement, Scale::WHOLE);
        assert_eq!(movement.unwrap_err().code(), "RECORD_KEY_MALFORMED", "{key}");
        let delta = StockDelta::decode(key.as_bytes(), delta, Scale::WHOLE);
        assert_eq!(delta.unwrap_err().code(), "RECORD_KEY_MALFORMED", "{key}");
    }
    for key in ["02", "+2", " 2", "", "x", "-0", "9223372036854775808"] {
        assert_eq!(
            StockDelta::decode_key(key.as_bytes(), GoodType::Integer).unwrap_err().code(),
            "RECORD_KEY_MALFORMED",
            "{key}"
        );
    }
}

#[test]
fn quantities_of_two_scales_in_one_record_are_refused() {
    let scale = Scale::try_from(3).unwrap();
    for (delta, remains) in [("1.500", "1.5"), ("1.5", "1.500"), ("1", "1.500"), ("1.500", "1")] {
        let value =
            format!(r#"{{"good_id":2,"delta":{delta},"remains":{remains},"transactions":1,"version":1,"epoch":1}}"#);
        for scale in [scale, Scale::WHOLE] {
            let error = StockDelta::decode(b"2", value.as_bytes(), scale).unwrap_err();
            assert_eq!(error.code(), "PIECES_SCALE_CHANGED", "{value}");
        }
    }
}

#[test]
fn a_version_of_zero_is_refused() {
    let delta = br#"{"good_id":2,"delta":1,"remains":1,"transactions":1,"version":0,"epoch":1}"#;
    assert_eq!(StockDelta::decode(b"2", delta, Scale::WHOLE).unwrap_err().code(), "RECORD_MALFORMED");
}

#[test]
fn a_control_record_of_unknown_type_is_reported_as_such() {
    let decoded = Control::decode(br#"{"type":"rebalance-hint","partition":"all","lsn":[1]}"#);
    assert_eq!(decoded, Ok(ReceivedControl::Unknown { kind: "rebalance-hint".to_owned() }));
}

#[test]
fn a_control_record_with_a_field_missing_or_out_of_range_is_refused() {
    for value in [
        r"{}",
        r#"{"type":7}"#,
        r#"{"type":"caught-up"}"#,
        r#"{"type":"caught-up","partition":2147483648}"#,
        r#"{"type":"caught-up","partition":"3"}"#,
        r#"{"type":"snapshot-complete","snapshot_lsn":-1,"ts_ms":1}"#,
    ] {
        assert_eq!(Control::decode(value.as_bytes()).unwrap_err().code(), "RECORD_MALFORMED", "{value}");
    }
}

#[test]
fn a_header_that_is_missing_or_no_decimal_number_is_refused() {
    assert_eq!(headers::parse_next_offset(Some(b"42")), Ok(42));
    assert_eq!(headers::parse_sequence(Some(b"18446744073709551615")), Ok(u64::MAX));
    for value in [
        None,
        Some(&b""[..]),
        Some(b"x"),
        Some(b"-1"),
        Some(b"+1"),
        Some(b" 1"),
        Some(b"18446744073709551616"),
        Some(b"\xff"),
    ] {
        let error = headers::parse_sequence(value).unwrap_err();
        assert_eq!(error.code(), "HEADER_MALFORMED", "{value:?}");
        assert!(error.to_string().contains("sequence"));
        if value != Some(b"18446744073709551616") {
            assert!(headers::parse_next_offset(value).is_err(), "{value:?}");
        }
    }
    assert_eq!(headers::format_decimal(&mut itoa::Buffer::new(), 42_i64), b"42");
}

/// Of either type.
fn goods() -> impl Strategy<Value = GoodId> {
    let text = "\\PC{1,30}|[\u{1}-\u{7f}]{1,30}".prop_map(|text| GoodId::from_text(&text).unwrap());
    prop_oneof![any::<i64>().prop_map(GoodId::from), text]
}

fn contents() -> impl Strategy<Value = Option<Content>> {
    proptest::option::of((goods(), any::<i64>()).prop_map(|(good_id, pieces)| Content { good_id, pieces }))
}

fn type_of(record: &TransactionRecord) -> GoodType {
    record.content.as_ref().map_or(GoodType::Integer, |content| content.good_id.good_type())
}

fn scales() -> impl Strategy<Value = Scale> {
    (0..=Scale::MAX.digits()).prop_map(|digits| Scale::try_from(digits).unwrap())
}

/// Every other scale.
fn others(scale: Scale) -> impl Iterator<Item = Scale> {
    (0..=Scale::MAX.digits()).map(|digits| Scale::try_from(digits).unwrap()).filter(move |other| *other != scale)
}

fn avro(delta: &StockDelta, scale: Scale) -> Vec<u8> {
    let mut out = Vec::new();
    delta.encode_avro(7, scale, &mut out).unwrap();
    out
}

proptest! {
    #[test]
    fn changelog_records_round_trip(
        id in any::<u128>(),
        content in contents(),
        generation in any::<u64>(),
        streaming in any::<bool>(),
        lsn in any::<u64>(),
        commit_lsn in any::<Option<u64>>(),
        ts_ms in any::<i64>(),
        incremental_ts_ms in any::<Option<i64>>(),
        outdated in any::<bool>(),
        scale in scales(),
    ) {
        let record = TransactionRecord { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated };
        let json = written(|out| record.encode(scale, out));
        // Positions beyond 63 bits come in JSON.
        let avro = written(|out| record.encode_avro(type_of(&record), scale, 7, out));
        for value in [json, avro] {
            for other in others(scale).filter(|_| record.content.is_some()) {
                prop_assert_eq!(TransactionRecord::decode(&value, other).unwrap_err().code(), "PIECES_SCALE_CHANGED");
            }
            prop_assert_eq!(TransactionRecord::decode(&value, scale), Ok(record.clone()));
        }
        let key = ChangelogKey::Transaction(Uuid::from_u128(id).into());
        prop_assert_eq!(ChangelogKey::decode(&written(|out| key.encode(out))), Ok(key));
    }

    #[test]
    fn movements_round_trip(
        good_id in goods(),
        delta in any::<i128>(),
        transactions in any::<i64>(),
        scale in scales(),
    ) {
        let record = Movement { good_id, delta, transactions };
        let (key, value) = (written(|out| record.encode_key(out)), written(|out| record.encode(scale, out)));
        for other in others(scale) {
            prop_assert_eq!(Movement::decode(&key, &value, other).unwrap_err().code(), "PIECES_SCALE_CHANGED");
        }
        prop_assert_eq!(Movement::decode(&key, &value, scale), Ok(record));
    }

    #[test]
    fn stock_deltas_round_trip(
        good_id in goods(),
        delta in any::<i128>(),
        remains in any::<i128>(),
        transactions in any::<i64>(),
        version in 1..=u64::MAX,
        epoch in any::<u64>(),
        scale in scales(),
    ) {
        let record = StockDelta { good_id, delta, remains, transactions, version, epoch };
        let (key, value) = (written(|out| record.encode_key(out)), written(|out| record.encode(scale, out)));
        for other in others(scale) {
            prop_assert_eq!(StockDelta::decode(&key, &value, other).unwrap_err().code(), "PIECES_SCALE_CHANGED");
        }
        prop_assert_eq!(StockDelta::decode(&key, &value, scale), Ok(record));
    }

    #[test]
    fn control_records_round_trip(
        kind in 0..5,
        partition in any::<i32>(),
        snapshot_lsn in any::<u64>(),
        epoch in any::<u64>(),
        ts_ms in any::<i64>(),
    ) {
        let record = match kind {
            0 => Control::SnapshotComplete { snapshot_lsn, ts_ms },
            1 => Control::EpochComplete { partition, epoch, offset: ts_ms },
            2 => Control::CaughtUp { partition },
            3 => Control::ApproveSweep { partition, snapshot_lsn },
            _ => Control::SourceEmptied { snapshot_lsn },
        };
        prop_assert_eq!(Control::decode(&written(|out| record.encode(out))), Ok(ReceivedControl::Known(record)));
    }

    #[test]
    fn changelog_records_in_avro_break_off_nowhere_and_newer_ones_are_told(
        content in contents(),
        generation in 0..=i64::MAX.cast_unsigned(),
        lsn in 0..=i64::MAX.cast_unsigned(),
        commit_lsn in prop::option::of(0..=i64::MAX.cast_unsigned()),
        ts_ms in any::<i64>(),
        (incremental_ts_ms, streaming, outdated) in any::<(Option<i64>, bool, bool)>(),
        scale in scales(),
    ) {
        let record = TransactionRecord { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated };
        let mut value = written(|out| record.encode_avro(type_of(&record), scale, 7, out));
        let code = |value: &[u8], scale| TransactionRecord::decode(value, scale).unwrap_err().code();
        prop_assert_eq!(&value[..5], [0, 0, 0, 0, 7]);
        for length in 5..value.len() {
            prop_assert_eq!(code(&value[..length], scale), "RECORD_MALFORMED");
        }
        for other in others(scale) {
            prop_assert_eq!(code(&value, other), "PIECES_SCALE_CHANGED");
        }
        value.push(0);
        prop_assert_eq!(code(&value, scale), "RECORD_MALFORMED");
        // Formats 21 and 0.
        for (format, expected) in [(42, "FORMAT_NEWER"), (0, "RECORD_MALFORMED")] {
            value[5] = format;
            prop_assert_eq!(code(&value, scale), expected);
        }
    }

    /// Behind the right beginning: arbitrary bytes alone hardly get past it.
    #[test]
    fn no_bytes_bring_the_reader_of_avro_changelogs_down_or_are_read_as_two_things(
        goods in prop_oneof![Just(2_u8), Just(4)],
        mut value in prop::collection::vec(any::<u8>(), 0..40),
        scale in scales(),
    ) {
        value.splice(0..0, [0, 0, 0, 0, 7, goods + 4 * scale.digits()]);
        let read = |value: &[u8]| TransactionRecord::decode(value, scale);
        if let Ok(record) = read(&value) {
            let good_type = if goods == 2 { GoodType::Integer } else { GoodType::Text };
            prop_assert_eq!(read(&written(|out| record.encode_avro(good_type, scale, 7, out))), Ok(record));
        }
    }

    /// Behind the right beginning: arbitrary bytes alone hardly get past it.
    #[test]
    fn no_bytes_bring_the_reader_of_avro_deltas_down_or_are_read_as_two_things(
        good_id in any::<i64>(),
        mut value in prop::collection::vec(any::<u8>(), 0..40),
        scale in scales(),
    ) {
        // The format of integer goods, zigzagged.
        value.splice(0..0, [0, 0, 0, 0, 7, 2 + 4 * scale.digits()]);
        let read = |value: &[u8]| StockDelta::decode(good_id.to_string().as_bytes(), value, scale);
        if let Ok(delta) = read(&value) {
            prop_assert_eq!(read(&avro(&delta, scale)), Ok(delta));
        }
    }

    #[test]
    fn stock_deltas_in_avro_survive_the_round_trip(
        good_id in goods(),
        delta in any::<i128>(),
        remains in any::<i128>(),
        transactions in any::<i64>(),
        version in 1..=i64::MAX.cast_unsigned(),
        epoch in 0..=i64::MAX.cast_unsigned(),
        scale in scales(),
    ) {
        let record = StockDelta { good_id, delta, remains, transactions, version, epoch };
        let (key, value) = (written(|out| record.encode_key(out)), avro(&record, scale));
        let code = |key: &[u8], value: &[u8], scale| StockDelta::decode(key, value, scale).unwrap_err().code();
        prop_assert_eq!(StockDelta::decode(&key, &value, scale), Ok(record));
        prop_assert_eq!(code(b"\xff", &value, scale), "RECORD_KEY_MALFORMED");
        for length in 5..value.len() {
            prop_assert_eq!(code(&key, &value[..length], scale), "RECORD_MALFORMED");
        }
        for other in others(scale) {
            prop_assert_eq!(code(&key, &value, other), "PIECES_SCALE_CHANGED");
        }
        // Formats 21 and 0.
        let mut changed = value;
        for (format, expected) in [(42, "FORMAT_NEWER"), (0, "RECORD_MALFORMED")] {
            changed[5] = format;
            prop_assert_eq!(code(&key, &changed, scale), expected);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(key in any::<Vec<u8>>(), value in any::<Vec<u8>>(), scale in scales()) {
        let _ = (TransactionRecord::decode(&value, scale), ChangelogKey::decode(&key), Control::decode(&value));
        let _ = (Movement::decode(&key, &value, scale), StockDelta::decode(&key, &value, scale));
        let _ = StockDelta::decode_key(&key, GoodType::Integer);
        let _ = (headers::parse_next_offset(Some(&value)), headers::parse_sequence(Some(&value)));
    }
}
