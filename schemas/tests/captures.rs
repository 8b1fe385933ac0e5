//! Every record of the small captures says exactly what it says; the large ones have no record that is refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions themselves"
)]

mod common;

use common::{Captured, capture};
use schemas::Content;
use schemas::debezium::{Change, Key, KeyEncoding, RowChange, Source};

/// All that was read of a record, in one line; destructured so that a new field cannot be forgotten here.
fn rendered(captured: &Captured) -> String {
    let record = captured.decode();
    let Key { id: key, encoding } = record.key.unwrap();
    assert_eq!(encoding, KeyEncoding::PLAIN);
    let change = match record.change.unwrap() {
        Change::Tombstone => "Tombstone".to_owned(),
        Change::Row(RowChange { operation, id, content, source, .. }) => {
            assert_eq!(id, key);
            let content = content.map_or_else(
                || "gone".to_owned(),
                |content| {
                    let Content { good_id, pieces } = content.unwrap();
                    format!("good {good_id} {pieces:+}")
                },
            );
            let Source { snapshot, lsn, commit_lsn, ts_ms } = source;
            let or_none =
                |position: Option<u64>| position.map_or_else(|| "-".to_owned(), |position| position.to_string());
            let (lsn, commit_lsn) = (or_none(lsn), or_none(commit_lsn));
            format!("{operation:?} {content}, {snapshot:?} lsn {lsn} commit {commit_lsn} at {ts_ms}")
        }
        other => panic!("{other:?}"),
    };
    format!("{}/{} {key} {change}", captured.partition, captured.offset)
}

fn check(name: &str, expected: &[&str]) {
    let capture = capture(name);
    for (captured, expected) in capture.iter().zip(expected) {
        assert_eq!(rendered(captured), *expected);
    }
    assert_eq!(capture.len(), expected.len());
}

#[test]
fn every_record_of_the_capture_of_every_kind_is_read_exactly() {
    check(
        "debezium-capture/every-kind.jsonl",
        &[
            "1/0 63703d1f-0000-4000-8000-000000000001 Read good 1 +5, Last lsn 26370000 commit - at 1795333786480",
            "1/1 78c14186-0000-4000-8000-000000000004 Create good 2 -15, Streaming lsn 26370504 commit 26370336 at 1795333820306",
            "1/2 63703d1f-0000-4000-8000-000000000001 Update good 1 +7, Streaming lsn 26370728 commit 26370728 at 1795333820306",
            "1/3 63703d1f-0000-4000-8000-000000000001 Delete gone, Streaming lsn 26370888 commit 26370888 at 1795333820306",
            "1/4 63703d1f-0000-4000-8000-000000000001 Tombstone",
            "1/5 63703d1f-0000-4000-8000-0000000000aa Create good 1 +9, Streaming lsn 26370888 commit 26370888 at 1795333820306",
            "1/6 78c14186-0000-4000-8000-000000000004 Delete gone, Streaming lsn 26372280 commit 26372280 at 1795333820309",
            "1/7 78c14186-0000-4000-8000-000000000004 Tombstone",
            "5/0 5d838899-0000-4000-8000-000000000002 Create good 2 +30, Streaming lsn 26370120 commit - at 1795333820305",
            "5/1 905ff7e7-0000-4000-8000-000000000003 Create good 3 +1, Streaming lsn 26370336 commit 26370336 at 1795333820306",
            "5/2 905ff7e7-0000-4000-8000-000000000003 Delete gone, Streaming lsn 26371136 commit 26371136 at 1795333820307",
            "5/3 905ff7e7-0000-4000-8000-000000000003 Tombstone",
            "5/4 905ff7e7-0000-4000-8000-000000000003 Create good 3 +4, Streaming lsn 26371264 commit 26371264 at 1795333820307",
            "5/5 905ff7e7-0000-4000-8000-000000000003 Update good 4 +4, Streaming lsn 26371480 commit 26371480 at 1795333820307",
            "5/6 905ff7e7-0000-4000-8000-000000000003 Update good 5 +4, Streaming lsn 26372080 commit 26371640 at 1795333820308",
            "7/0 aaaaaaaa-0000-4000-8000-000000000009 Create good 9 +2, Streaming lsn 26376272 commit 26375776 at 1795333820312",
        ],
    );
}

#[test]
fn every_record_around_a_straddling_transaction_is_read_exactly() {
    check(
        "debezium-capture/straddling-transaction.jsonl",
        &[
            "3/0 00000000-0000-4000-8000-000000000001 Read good 1 +1, Part lsn 713819160 commit - at 1795337156829",
            "3/1 00000000-0000-4000-8000-000000000002 Read good 1 +2, Part lsn 713819160 commit - at 1795337156829",
            "3/2 00000000-0000-4000-8000-000000000003 Read good 1 +3, Last lsn 713819160 commit - at 1795337156829",
            "3/3 00000000-0000-4000-8000-000000000001 Read good 1 +1, Part lsn 713820008 commit - at 1795337164943",
            "3/4 00000000-0000-4000-8000-000000000002 Read good 1 +2, Part lsn 713820008 commit - at 1795337164943",
            "3/5 00000000-0000-4000-8000-000000000003 Read good 1 +3, Part lsn 713820008 commit - at 1795337164943",
            "3/6 00000000-0000-4000-8000-000000000001 Update good 1 +100, Streaming lsn 713819320 commit - at 1795337188836",
            "3/7 00000000-0000-4000-8000-000000000001 Update good 1 +101, Streaming lsn 713819432 commit - at 1795337188836",
            "3/8 00000000-0000-4000-8000-000000000002 Delete gone, Streaming lsn 713819544 commit - at 1795337188836",
            "3/9 00000000-0000-4000-8000-000000000002 Tombstone",
            "6/0 00000000-0000-4000-8000-000000000006 Create good 1 +6, Streaming lsn 713820384 commit 713820328 at 1795337198870",
            "7/0 00000000-0000-4000-8000-000000000005 Read good 1 +5, Last lsn 713820008 commit - at 1795337164943",
            "9/0 00000000-0000-4000-8000-000000000004 Create good 1 +4, Streaming lsn 713819624 commit - at 1795337188836",
        ],
    );
}

#[test]
fn an_incremental_snapshot_record_has_no_lsn_and_is_read_exactly() {
    check(
        "debezium-capture/incremental-snapshot.json",
        &[
            "0/218 001508c0-0578-4949-be20-20c2d3d09fe8 Read good 1 +7, Incremental lsn - commit 706338992 at 1795336953214",
        ],
    );
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
