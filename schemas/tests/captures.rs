//! Every record of the small captures says exactly what it says; the large ones have no record that is refused.

mod common;

use common::{Captured, capture, id};
use schemas::Content;
use schemas::debezium::ChangeOperation::{self, Create, Delete, Read, Update};
use schemas::debezium::Snapshot::{self, Incremental, Last, Part, Streaming};
use schemas::debezium::{Change, KeyEncoding, RowChange, Source};

type Expected = ((i32, i64), &'static str, Change);

fn row(
    operation: ChangeOperation,
    row_id: &str,
    content: Option<(i64, i64)>,
    snapshot: Snapshot,
    lsn: Option<u64>,
    commit_lsn: Option<u64>,
    ts_ms: i64,
) -> Change {
    Change::Row(RowChange {
        operation,
        id: id(row_id),
        content: content.map(|(good_id, pieces)| Ok(Content { good_id, pieces })),
        source: Source { snapshot, lsn, commit_lsn, ts_ms },
    })
}

fn check(capture: &[Captured], expected: &[Expected]) {
    assert_eq!(capture.len(), expected.len());
    for (captured, (at, key, change)) in capture.iter().zip(expected) {
        assert_eq!((captured.partition, captured.offset), *at);
        let record = captured.decode();
        assert_eq!(record.key.map(|key| (key.id, key.encoding)), Some((id(key), KeyEncoding::PLAIN)), "{at:?}");
        assert_eq!(record.change.as_ref(), Ok(change), "{at:?}");
    }
}

#[test]
fn every_record_of_the_capture_of_every_kind_is_read_exactly() {
    let expected = [
        (
            (1, 0),
            "63703d1f-0000-4000-8000-000000000001",
            row(
                Read,
                "63703d1f-0000-4000-8000-000000000001",
                Some((1, 5)),
                Last,
                Some(26_370_000),
                None,
                1_795_333_786_480,
            ),
        ),
        (
            (1, 1),
            "78c14186-0000-4000-8000-000000000004",
            row(
                Create,
                "78c14186-0000-4000-8000-000000000004",
                Some((2, -15)),
                Streaming,
                Some(26_370_504),
                Some(26_370_336),
                1_795_333_820_306,
            ),
        ),
        (
            (1, 2),
            "63703d1f-0000-4000-8000-000000000001",
            row(
                Update,
                "63703d1f-0000-4000-8000-000000000001",
                Some((1, 7)),
                Streaming,
                Some(26_370_728),
                Some(26_370_728),
                1_795_333_820_306,
            ),
        ),
        (
            (1, 3),
            "63703d1f-0000-4000-8000-000000000001",
            row(
                Delete,
                "63703d1f-0000-4000-8000-000000000001",
                None,
                Streaming,
                Some(26_370_888),
                Some(26_370_888),
                1_795_333_820_306,
            ),
        ),
        ((1, 4), "63703d1f-0000-4000-8000-000000000001", Change::Tombstone),
        (
            (1, 5),
            "63703d1f-0000-4000-8000-0000000000aa",
            row(
                Create,
                "63703d1f-0000-4000-8000-0000000000aa",
                Some((1, 9)),
                Streaming,
                Some(26_370_888),
                Some(26_370_888),
                1_795_333_820_306,
            ),
        ),
        (
            (1, 6),
            "78c14186-0000-4000-8000-000000000004",
            row(
                Delete,
                "78c14186-0000-4000-8000-000000000004",
                None,
                Streaming,
                Some(26_372_280),
                Some(26_372_280),
                1_795_333_820_309,
            ),
        ),
        ((1, 7), "78c14186-0000-4000-8000-000000000004", Change::Tombstone),
        (
            (5, 0),
            "5d838899-0000-4000-8000-000000000002",
            row(
                Create,
                "5d838899-0000-4000-8000-000000000002",
                Some((2, 30)),
                Streaming,
                Some(26_370_120),
                None,
                1_795_333_820_305,
            ),
        ),
        (
            (5, 1),
            "905ff7e7-0000-4000-8000-000000000003",
            row(
                Create,
                "905ff7e7-0000-4000-8000-000000000003",
                Some((3, 1)),
                Streaming,
                Some(26_370_336),
                Some(26_370_336),
                1_795_333_820_306,
            ),
        ),
        (
            (5, 2),
            "905ff7e7-0000-4000-8000-000000000003",
            row(
                Delete,
                "905ff7e7-0000-4000-8000-000000000003",
                None,
                Streaming,
                Some(26_371_136),
                Some(26_371_136),
                1_795_333_820_307,
            ),
        ),
        ((5, 3), "905ff7e7-0000-4000-8000-000000000003", Change::Tombstone),
        (
            (5, 4),
            "905ff7e7-0000-4000-8000-000000000003",
            row(
                Create,
                "905ff7e7-0000-4000-8000-000000000003",
                Some((3, 4)),
                Streaming,
                Some(26_371_264),
                Some(26_371_264),
                1_795_333_820_307,
            ),
        ),
        (
            (5, 5),
            "905ff7e7-0000-4000-8000-000000000003",
            row(
                Update,
                "905ff7e7-0000-4000-8000-000000000003",
                Some((4, 4)),
                Streaming,
                Some(26_371_480),
                Some(26_371_480),
                1_795_333_820_307,
            ),
        ),
        (
            (5, 6),
            "905ff7e7-0000-4000-8000-000000000003",
            row(
                Update,
                "905ff7e7-0000-4000-8000-000000000003",
                Some((5, 4)),
                Streaming,
                Some(26_372_080),
                Some(26_371_640),
                1_795_333_820_308,
            ),
        ),
        (
            (7, 0),
            "aaaaaaaa-0000-4000-8000-000000000009",
            row(
                Create,
                "aaaaaaaa-0000-4000-8000-000000000009",
                Some((9, 2)),
                Streaming,
                Some(26_376_272),
                Some(26_375_776),
                1_795_333_820_312,
            ),
        ),
    ];
    check(&capture("debezium-capture/every-kind.jsonl"), &expected);
}

#[test]
fn every_record_around_a_straddling_transaction_is_read_exactly() {
    let expected = [
        (
            (3, 0),
            "00000000-0000-4000-8000-000000000001",
            row(
                Read,
                "00000000-0000-4000-8000-000000000001",
                Some((1, 1)),
                Part,
                Some(713_819_160),
                None,
                1_795_337_156_829,
            ),
        ),
        (
            (3, 1),
            "00000000-0000-4000-8000-000000000002",
            row(
                Read,
                "00000000-0000-4000-8000-000000000002",
                Some((1, 2)),
                Part,
                Some(713_819_160),
                None,
                1_795_337_156_829,
            ),
        ),
        (
            (3, 2),
            "00000000-0000-4000-8000-000000000003",
            row(
                Read,
                "00000000-0000-4000-8000-000000000003",
                Some((1, 3)),
                Last,
                Some(713_819_160),
                None,
                1_795_337_156_829,
            ),
        ),
        (
            (3, 3),
            "00000000-0000-4000-8000-000000000001",
            row(
                Read,
                "00000000-0000-4000-8000-000000000001",
                Some((1, 1)),
                Part,
                Some(713_820_008),
                None,
                1_795_337_164_943,
            ),
        ),
        (
            (3, 4),
            "00000000-0000-4000-8000-000000000002",
            row(
                Read,
                "00000000-0000-4000-8000-000000000002",
                Some((1, 2)),
                Part,
                Some(713_820_008),
                None,
                1_795_337_164_943,
            ),
        ),
        (
            (3, 5),
            "00000000-0000-4000-8000-000000000003",
            row(
                Read,
                "00000000-0000-4000-8000-000000000003",
                Some((1, 3)),
                Part,
                Some(713_820_008),
                None,
                1_795_337_164_943,
            ),
        ),
        (
            (3, 6),
            "00000000-0000-4000-8000-000000000001",
            row(
                Update,
                "00000000-0000-4000-8000-000000000001",
                Some((1, 100)),
                Streaming,
                Some(713_819_320),
                None,
                1_795_337_188_836,
            ),
        ),
        (
            (3, 7),
            "00000000-0000-4000-8000-000000000001",
            row(
                Update,
                "00000000-0000-4000-8000-000000000001",
                Some((1, 101)),
                Streaming,
                Some(713_819_432),
                None,
                1_795_337_188_836,
            ),
        ),
        (
            (3, 8),
            "00000000-0000-4000-8000-000000000002",
            row(
                Delete,
                "00000000-0000-4000-8000-000000000002",
                None,
                Streaming,
                Some(713_819_544),
                None,
                1_795_337_188_836,
            ),
        ),
        ((3, 9), "00000000-0000-4000-8000-000000000002", Change::Tombstone),
        (
            (6, 0),
            "00000000-0000-4000-8000-000000000006",
            row(
                Create,
                "00000000-0000-4000-8000-000000000006",
                Some((1, 6)),
                Streaming,
                Some(713_820_384),
                Some(713_820_328),
                1_795_337_198_870,
            ),
        ),
        (
            (7, 0),
            "00000000-0000-4000-8000-000000000005",
            row(
                Read,
                "00000000-0000-4000-8000-000000000005",
                Some((1, 5)),
                Last,
                Some(713_820_008),
                None,
                1_795_337_164_943,
            ),
        ),
        (
            (9, 0),
            "00000000-0000-4000-8000-000000000004",
            row(
                Create,
                "00000000-0000-4000-8000-000000000004",
                Some((1, 4)),
                Streaming,
                Some(713_819_624),
                None,
                1_795_337_188_836,
            ),
        ),
    ];
    check(&capture("debezium-capture/straddling-transaction.jsonl"), &expected);
}

#[test]
fn an_incremental_snapshot_record_has_no_lsn_and_is_read_exactly() {
    let expected = [(
        (0, 218),
        "001508c0-0578-4949-be20-20c2d3d09fe8",
        row(
            Read,
            "001508c0-0578-4949-be20-20c2d3d09fe8",
            Some((1, 7)),
            Incremental,
            None,
            Some(706_338_992),
            1_795_336_953_214,
        ),
    )];
    check(&capture("debezium-capture/incremental-snapshot.json"), &expected);
}

#[test]
fn no_record_of_the_histories_and_the_crafted_logs_is_refused() {
    for (name, records) in [
        ("debezium-capture/history.jsonl.gz", 9_261),
        ("debezium-capture/history-concurrent.jsonl.gz", 14_668),
        ("crafted/blocking-snapshot-cut-short.jsonl", 5),
        ("crafted/incremental-then-straddling.jsonl", 7),
        ("crafted/late-batch-of-an-older-snapshot.jsonl", 5),
        ("crafted/snapshot-without-a-row-here.jsonl", 4),
    ] {
        let capture = capture(name);
        assert_eq!(capture.len(), records, "{name}");
        for captured in capture {
            match captured.decode().change.unwrap() {
                Change::Tombstone => assert_eq!(captured.value, None),
                Change::Row(row) => assert!(row.content.is_none_or(|content| content.is_ok())),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
