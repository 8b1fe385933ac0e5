//! Input that cannot be applied is refused with its own reason, keeping the position wherever it was readable.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions themselves"
)]

mod common;

use common::{Event, ID, LIMIT, id};
use proptest::prelude::*;
use schemas::debezium::{self, Change, ChangeOperation, Snapshot};
use schemas::{Content, Reason};

/// Reads a value under the usual key and gives the reason of its refusal.
fn refused(value: &[u8]) -> Reason {
    debezium::Decoder::new(LIMIT).decode_value(&id(ID), Some(value)).unwrap_err().reason()
}

fn with_pcs(pcs: &str) -> Event {
    Event { pcs: pcs.into(), ..Event::default() }
}

fn with_good_id(good_id: &str) -> Event {
    Event { good_id: good_id.into(), ..Event::default() }
}

fn read_with_marker(marker: &str) -> Event {
    Event { op: r#""r""#.into(), snapshot: marker.into(), ..Event::default() }
}

#[test]
fn the_event_that_the_cases_below_spoil_is_good() {
    let row = Event::default().row();
    assert_eq!(row.id, id(ID));
    assert_eq!(row.content, Some(Ok(Content { good_id: 2.into(), pieces: -15 })));
    assert_eq!(row.source.commit_lsn, Some(26_370_336));
}

// The value as a whole

#[test]
fn text_that_is_not_json_is_refused() {
    for value in ["", " ", "hello", "{", r#"{"op":"c""#, "NaN", "{}}", "\u{feff}{}"] {
        assert_eq!(refused(value.as_bytes()), Reason::NotJson, "{value:?}");
    }
}

#[test]
fn json_that_is_no_envelope_is_refused() {
    for value in ["1", "true", "[]", r#""text""#, r#"[null,null,null,"c"]"#, r#"{"op":"c","after":[1,2,3,4]}"#] {
        assert_eq!(refused(value.as_bytes()), Reason::NotAnEnvelope, "{value:?}");
    }
}

#[test]
fn invalid_utf8_is_refused_even_in_a_field_that_is_not_read() {
    let mut value = Event::default().value().into_bytes();
    let at = value.windows(10).position(|window| window == b"created_at").unwrap();
    value[at + 14] = 0xff;
    assert_eq!(refused(&value), Reason::InvalidUtf8);
}

#[test]
fn a_value_above_the_limit_is_refused_and_keeps_its_position() {
    let event = Event { before: format!(r#"{{"note":"{}"}}"#, "x".repeat(2_000_000)), ..Event::default() };
    assert_eq!(event.content_refused(), Reason::ValueTooLarge);
    let delete = Event { op: r#""d""#.into(), after: Some("null".into()), ..event };
    assert_eq!(delete.content_refused(), Reason::ValueTooLarge);
    assert_eq!(refused(&vec![b'x'; LIMIT + 1]), Reason::ValueTooLarge);
    let exact = Event::default().value();
    assert!(debezium::Decoder::new(exact.len()).decode_value(&id(ID), Some(exact.as_bytes())).is_ok());
}

#[test]
fn a_field_given_twice_is_refused() {
    let value = Event::default().value().replace(r#""pcs":15"#, r#""pcs":15,"pcs":16"#);
    assert_eq!(refused(value.as_bytes()), Reason::NotAnEnvelope);
    let value = Event::default().value().replace(r#""op":"c""#, r#""op":"c","op":"d""#);
    assert_eq!(refused(value.as_bytes()), Reason::NotAnEnvelope);
}

#[test]
fn deep_nesting_in_a_field_that_is_not_read_neither_panics_nor_refuses() {
    let depth = 100_000;
    let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let value = Event::default().value().replace(r#""transaction":null"#, &format!(r#""transaction":{nested}"#));
    assert!(debezium::Decoder::new(LIMIT).decode_value(&id(ID), Some(value.as_bytes())).is_ok());
    assert_eq!(with_pcs(&nested).content_refused(), Reason::PcsInvalid);
    assert_eq!(refused("[".repeat(depth).as_bytes()), Reason::NotAnEnvelope);
}

// op

#[test]
fn an_op_that_is_missing_or_unknown_is_refused() {
    assert_eq!(refused(b"{}"), Reason::UnknownOp);
    for op in [r#""m""#, r#""C""#, r#""""#, "null", "7"] {
        let event = Event { op: op.into(), ..Event::default() };
        let change = event.decode().change.unwrap();
        assert!(matches!(&change, Change::Other { op: found } if **found == *op), "{change:?}");
        assert_eq!(change.into_row().unwrap().unwrap_err().reason(), Reason::UnknownOp);
    }
}

#[test]
fn a_truncate_is_told_apart_with_and_without_a_key() {
    let value = br#"{"before":null,"after":null,"source":{"lsn":5},"op":"t","ts_ms":1}"#;
    let key = format!(r#"{{"id":"{ID}"}}"#);
    for key in [None, Some(key.as_bytes())] {
        let change = debezium::Decoder::new(LIMIT).decode(key, Some(value)).change.unwrap();
        assert_eq!(change, Change::Truncate);
        assert_eq!(change.into_row().unwrap().unwrap_err().reason(), Reason::Truncate);
    }
}

// The row

#[test]
fn a_row_that_is_not_there_is_refused_and_keeps_its_position() {
    for op in [r#""r""#, r#""c""#, r#""u""#] {
        let event = Event { op: op.into(), after: Some("null".into()), ..Event::default() };
        assert_eq!(event.content_refused(), Reason::MissingRow);
    }
}

#[test]
fn a_row_without_a_usable_id_is_refused_and_keeps_its_position() {
    for row_id in ["null", "5", r#""""#, r#""78c14186""#] {
        assert_eq!(Event { row_id: row_id.into(), ..Event::default() }.content_refused(), Reason::NoId, "{row_id}");
    }
    let event = Event { after: Some(r#"{"good_id":2,"operation":"add","pcs":1}"#.into()), ..Event::default() };
    assert_eq!(event.content_refused(), Reason::NoId);
}

#[test]
fn a_row_that_disagrees_with_its_key_is_refused() {
    let other = r#""78c14186-0000-4000-8000-000000000005""#;
    assert_eq!(Event { row_id: other.into(), ..Event::default() }.refused(), Reason::KeyValueDisagree);
    let delete = Event {
        op: r#""d""#.into(),
        before: format!(r#"{{"id":{other}}}"#),
        after: Some("null".into()),
        ..Event::default()
    };
    assert_eq!(delete.refused(), Reason::KeyValueDisagree);
}

#[test]
fn a_delete_takes_its_id_from_the_key_when_there_is_no_old_row() {
    let delete = Event { op: r#""d""#.into(), after: Some("null".into()), ..Event::default() }.row();
    assert_eq!((delete.operation, delete.id, delete.content), (ChangeOperation::Delete, id(ID), None));
}

#[test]
fn an_operation_other_than_add_and_remove_is_refused() {
    for operation in [r#""sell""#, r#""ADD""#, r#"" add""#, r#""""#, "null", "1"] {
        let event = Event { operation: operation.into(), ..Event::default() };
        assert_eq!(event.content_refused(), Reason::UnknownOperation, "{operation}");
    }
}

#[test]
fn negative_pieces_are_refused() {
    for pcs in ["-1", "-0.5", "-9223372036854775808", "-9223372036854775809", "-1e400"] {
        assert_eq!(with_pcs(pcs).content_refused(), Reason::NegativePcs, "{pcs}");
    }
}

#[test]
fn fractional_pieces_are_refused() {
    for pcs in ["0.5", "1.5", "1e-1", "1e-400"] {
        assert_eq!(with_pcs(pcs).content_refused(), Reason::FractionalPcs, "{pcs}");
    }
}

#[test]
fn pieces_beyond_64_bits_or_beyond_exact_doubles_are_refused() {
    for pcs in ["9223372036854775808", "18446744073709551616", "9.007199254740994E15", "1e300", "1e400"] {
        assert_eq!(with_pcs(pcs).content_refused(), Reason::PcsOutOfRange, "{pcs}");
    }
}

#[test]
fn pieces_that_are_no_number_are_refused() {
    for pcs in ["null", r#""15""#, r#""NaN""#, "true", "{}", "[]"] {
        assert_eq!(with_pcs(pcs).content_refused(), Reason::PcsInvalid, "{pcs}");
    }
    let event = Event { after: Some(format!(r#"{{"id":"{ID}","good_id":2,"operation":"add"}}"#)), ..Event::default() };
    assert_eq!(event.content_refused(), Reason::PcsInvalid);
}

#[test]
fn every_non_negative_64_bit_count_is_taken_as_integer_and_as_double() {
    for (pcs, pieces) in [
        ("0", 0),
        ("0.0", 0),
        ("15.0", -15),
        ("9223372036854775807", -i64::MAX),
        ("9.007199254740992E15", -9_007_199_254_740_992),
    ] {
        assert_eq!(with_pcs(pcs).row().content, Some(Ok(Content { good_id: 2.into(), pieces })), "{pcs}");
    }
}

#[test]
fn a_good_that_is_no_64_bit_integer_is_refused() {
    for good_id in ["null", r#""2""#, "2.5", "9223372036854775808", "-9223372036854775809", "1e16", "{}"] {
        assert_eq!(with_good_id(good_id).content_refused(), Reason::GoodIdInvalid, "{good_id}");
    }
}

#[test]
fn every_64_bit_good_is_taken() {
    for (text, good_id) in
        [("-9223372036854775808", i64::MIN), ("9223372036854775807", i64::MAX), ("0", 0), ("-7", -7), ("7.0", 7)]
    {
        assert_eq!(
            with_good_id(text).row().content,
            Some(Ok(Content { good_id: good_id.into(), pieces: -15 })),
            "{text}"
        );
    }
}

// The position

#[test]
fn a_position_that_cannot_be_read_is_refused() {
    for lsn in ["null", "-1", r#""5""#, "1.5", "18446744073709551616"] {
        assert_eq!(Event { lsn: lsn.into(), ..Event::default() }.refused(), Reason::NoPosition, "lsn {lsn}");
    }
    for ts_ms in ["null", "1.5", r#""5""#] {
        assert_eq!(Event { ts_ms: ts_ms.into(), ..Event::default() }.refused(), Reason::NoPosition, "ts_ms {ts_ms}");
    }
    assert_eq!(refused(br#"{"op":"c"}"#), Reason::NoPosition);
    assert_eq!(refused(br#"{"op":"c","source":null}"#), Reason::NoPosition);
    assert_eq!(refused(br#"{"op":"c","source":{}}"#), Reason::NoPosition);
}

#[test]
fn an_unreadable_sequence_is_refused_and_not_taken_for_the_null_of_an_initial_snapshot() {
    for sequence in [r#""""#, r#""[]""#, r#""[null]""#, r#""[null,null,null]""#, r#""[\"x\",\"5\"]""#, "[null,5]", "5"]
    {
        let event = Event { sequence: sequence.into(), ..Event::default() };
        assert_eq!(event.refused(), Reason::NoPosition, "{sequence}");
    }
}

#[test]
fn a_sequence_is_read_however_its_string_is_escaped() {
    for (sequence, commit_lsn) in [
        ("null", None),
        (r#""[null,\"5\"]""#, None),
        (r#""[\"4\",\"5\"]""#, Some(4)),
        (r#""[\"4\", \"5\"]""#, Some(4)),
        (r#""[\u00224\u0022,null]""#, Some(4)),
    ] {
        let event = Event { sequence: sequence.into(), ..Event::default() };
        assert_eq!(event.row().source.commit_lsn, commit_lsn, "{sequence}");
    }
}

#[test]
fn an_unknown_snapshot_marker_is_refused() {
    for marker in [r#""FIRST""#, r#""""#, r#""blocking""#, "1", "{}"] {
        assert_eq!(read_with_marker(marker).refused(), Reason::UnknownSnapshotMarker, "{marker}");
    }
}

#[test]
fn every_known_snapshot_marker_is_read() {
    for (marker, snapshot) in [
        (r#""first""#, Snapshot::Part),
        (r#""true""#, Snapshot::Part),
        ("true", Snapshot::Part),
        (r#""first_in_data_collection""#, Snapshot::Part),
        (r#""false""#, Snapshot::Part),
        ("false", Snapshot::Part),
        ("null", Snapshot::Part),
        (r#""last""#, Snapshot::Last),
        (r#""last_in_data_collection""#, Snapshot::Last),
        (r#""incremental""#, Snapshot::Incremental),
    ] {
        assert_eq!(read_with_marker(marker).row().source.snapshot, snapshot, "{marker}");
    }
}

#[test]
fn a_streaming_event_stays_one_even_if_marked_as_snapshot() {
    for op in [r#""c""#, r#""u""#, r#""d""#] {
        for marker in [r#""true""#, r#""last""#, r#""incremental""#] {
            let event = Event { op: op.into(), ..read_with_marker(marker) };
            assert_eq!(event.row().source.snapshot, Snapshot::Streaming, "{op} {marker}");
        }
    }
}

#[test]
fn only_an_incremental_record_may_lack_its_lsn() {
    let incremental = Event { lsn: "null".into(), ..read_with_marker(r#""incremental""#) };
    assert_eq!(incremental.row().source.lsn, None);
    assert_eq!(Event { lsn: "null".into(), ..read_with_marker(r#""last""#) }.refused(), Reason::NoPosition);
}

// The wrapper

#[test]
fn the_schema_wrapper_changes_nothing() {
    let event = Event::default();
    let wrapped = format!(r#"{{"schema":{{"type":"struct","fields":[]}},"payload":{}}}"#, event.value());
    let change = debezium::Decoder::new(LIMIT).decode_value(&id(ID), Some(wrapped.as_bytes())).unwrap();
    assert_eq!(change, Change::Row(event.row()));
}

#[test]
fn a_null_inside_the_wrapper_and_a_bare_json_null_are_tombstones() {
    for value in [Some(&b"null"[..]), Some(br#"{"schema":null,"payload":null}"#), None] {
        assert_eq!(debezium::Decoder::new(LIMIT).decode_value(&id(ID), value), Ok(Change::Tombstone));
    }
}

#[test]
fn an_envelope_inside_and_beside_the_wrapper_is_refused() {
    let value = Event::default().value();
    let both = format!(r#"{{"payload":{value},"op":"d"}}"#);
    assert_eq!(refused(both.as_bytes()), Reason::NotAnEnvelope);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        key in proptest::option::of(any::<Vec<u8>>()),
        value in proptest::option::of(any::<Vec<u8>>()),
    ) {
        let _ = debezium::Decoder::new(100).decode(key.as_deref(), value.as_deref());
    }

    #[test]
    fn an_event_with_arbitrary_bytes_changed_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let event = Event::default();
        let (mut key, mut value) = (event.key.clone().into_bytes(), event.value().into_bytes());
        for (at, byte) in &changes {
            let (at, length) = (at.index(key.len() + value.len()), key.len());
            if at < length { key[at] = *byte } else { value[at - length] = *byte }
        }
        let _ = debezium::Decoder::new(LIMIT).decode(Some(&key), Some(&value));
        let mut value = event.value().into_bytes();
        value.truncate(cut.index(value.len()));
        prop_assert!(debezium::Decoder::new(LIMIT).decode_value(&id(ID), Some(&value)).is_err());
    }

    #[test]
    fn arbitrary_text_in_any_field_is_read_or_refused_with_a_bounded_detail(field in 0..9, text in "\\PC{0,2000}") {
        let text = serde_json::to_string(&text).unwrap();
        let mut event = Event::default();
        *match field {
            0 => &mut event.row_id,
            1 => &mut event.good_id,
            2 => &mut event.operation,
            3 => &mut event.pcs,
            4 => &mut event.snapshot,
            5 => &mut event.sequence,
            6 => &mut event.lsn,
            7 => &mut event.ts_ms,
            _ => &mut event.op,
        } = text;
        let rejection = match event.decode().change {
            Err(rejection) => rejection,
            Ok(change) => match change.into_row() {
                Some(Err(rejection)) => rejection,
                Some(Ok(row)) => match row.content {
                    Some(Err(rejection)) => rejection,
                    _ => return Ok(()),
                },
                None => return Ok(()),
            },
        };
        prop_assert!(rejection.detail().len() <= schemas::MAX_DETAIL_BYTES);
    }

    #[test]
    fn every_whole_count_keeps_its_value_and_its_sign(good_id in any::<i64>(), pcs in 0..=i64::MAX, add in any::<bool>()) {
        let event = Event {
            good_id: good_id.to_string(),
            pcs: pcs.to_string(),
            operation: if add { r#""add""#.into() } else { r#""remove""#.into() },
            ..Event::default()
        };
        let pieces = if add { pcs } else { -pcs };
        prop_assert_eq!(event.row().content, Some(Ok(Content { good_id: good_id.into(), pieces })));
    }
}
