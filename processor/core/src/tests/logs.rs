//! Every log of `tests/data` through the core alone ends at its expected sums, every good.

use std::collections::BTreeMap;
use std::io::Read as _;

use schemas::debezium::Snapshot;

use super::replay::{Logged, Replay};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/");
/// The topic's partitions in every capture.
const PARTITIONS: i32 = 10;

fn text(path: &str) -> String {
    let bytes = std::fs::read(format!("{DATA}{path}")).unwrap_or_else(|error| panic!("{DATA}{path}: {error}"));
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return String::from_utf8(bytes).unwrap();
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    text
}

fn log(path: &str) -> Vec<Logged> {
    let record = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |name: &str| line[name].as_i64().unwrap();
        let partition = i32::try_from(number("partition")).unwrap();
        Logged::read(partition, number("offset"), number("timestamp"), line["key"].as_str(), line["value"].as_str())
    };
    text(path).lines().map(record).collect()
}

fn expected(path: &str) -> BTreeMap<i64, i128> {
    let row = |line: &str| {
        let (good, sum) = line.split_once(',').unwrap();
        (good.trim().parse().unwrap(), sum.trim().parse().unwrap())
    };
    text(path).lines().filter(|line| !line.is_empty()).map(row).collect()
}

const EXACT: [&str; 7] = [
    "debezium-capture/history",
    "debezium-capture/history-concurrent",
    "debezium-capture/straddling-transaction",
    "crafted/blocking-snapshot-cut-short",
    "crafted/incremental-then-straddling",
    "crafted/late-batch-of-an-older-snapshot",
    "crafted/snapshot-without-a-row-here",
];

fn load(name: &str) -> (Vec<Logged>, BTreeMap<i64, i128>) {
    let gz = if name.starts_with("debezium-capture/history") { ".gz" } else { "" };
    (log(&format!("{name}.jsonl{gz}")), expected(&format!("{name}.expected.csv")))
}

#[test]
fn every_log_ends_at_its_expected_sums_when_read_whole_before_the_sweeps() {
    for name in EXACT {
        let (log, expected) = load(name);
        let mut replay = Replay::new(PARTITIONS);
        for record in &log {
            replay.read(record);
        }
        replay.sweep();
        assert_eq!(replay.remains(), expected, "{name}");
        assert_eq!(replay.refused, [], "{name}");
        replay.check_books();
    }
}

#[test]
fn every_log_ends_at_its_expected_sums_when_read_live_with_sweeps_as_snapshots_end() {
    for name in EXACT {
        let (mut log, expected) = load(name);
        log.sort_by_key(|record| record.timestamp);
        let mut replay = Replay::new(PARTITIONS);
        for record in &log {
            if replay.read(record) {
                replay.sweep();
            }
        }
        replay.sweep();
        assert_eq!(replay.remains(), expected, "{name}");
        replay.check_books();
    }
}

#[test]
fn every_log_ends_at_its_expected_sums_whichever_partition_is_read_first() {
    for name in EXACT {
        let (mut log, expected) = load(name);
        for turn in 0..i64::from(PARTITIONS) {
            log.sort_by_key(|record| ((i64::from(record.partition) + turn) % i64::from(PARTITIONS), record.offset));
            let mut replay = Replay::new(PARTITIONS);
            for record in &log {
                replay.read(record);
            }
            replay.sweep();
            assert_eq!(replay.remains(), expected, "{name}, first partition {turn}");
        }
    }
}

#[test]
fn a_second_reading_is_recognised_by_offset_and_changes_nothing() {
    for name in EXACT {
        let (log, expected) = load(name);
        let mut replay = Replay::new(PARTITIONS);
        for record in &log {
            replay.read(record);
        }
        replay.sweep();
        let (applied, removed) = (replay.applied, replay.removed);
        for record in &log {
            replay.read(record);
        }
        replay.sweep();
        assert_eq!(replay.remains(), expected, "{name}");
        assert_eq!((replay.recognised, replay.applied, replay.removed), (log.len(), applied, removed), "{name}");
    }
}

#[test]
fn the_histories_hold_the_redeliveries_and_vanished_rows_their_description_names() {
    let count = |name: &str| {
        let mut replay = Replay::new(PARTITIONS);
        for record in &load(name).0 {
            replay.read(record);
        }
        replay.sweep();
        (replay.redelivered, replay.removed)
    };
    assert_eq!(count("debezium-capture/history").1, 81);
    // Of 44 rows that the second snapshot does not show, 10 are inserted again by transactions that straddle it.
    assert_eq!(count("debezium-capture/history-concurrent"), (1_483, 34));
}

/// What the exception in [`crate::rule`] rests on: a connector that took snapshot S sends nothing that has both a
/// last seen commit and an lsn below S.
#[test]
fn no_event_after_a_snapshot_has_both_its_commit_lsn_and_its_lsn_below_it() {
    let (mut straddling, mut without_commit) = (0, 0);
    let logs = EXACT.map(|name| load(name).0);
    let every_kind = log("debezium-capture/every-kind.jsonl");
    for log in logs.iter().chain([&every_kind]) {
        let mut current = BTreeMap::new();
        for record in log {
            let Some(Ok(change)) = &record.change else { continue };
            let source = &change.source;
            match source.snapshot {
                Snapshot::Part | Snapshot::Last => _ = current.insert(record.partition, source.lsn),
                Snapshot::Incremental => {}
                Snapshot::Streaming => {
                    let snapshot = current.get(&record.partition).copied().flatten().unwrap_or(0);
                    if source.lsn.unwrap() < snapshot {
                        straddling += 1;
                        without_commit += usize::from(source.commit_lsn.is_none());
                        assert!(source.commit_lsn.is_none_or(|commit_lsn| commit_lsn >= snapshot), "{record:?}");
                    }
                }
            }
        }
    }
    assert_eq!((straddling, without_commit), (40, 4));
}

#[test]
fn one_record_of_every_kind_ends_at_the_rows_that_are_left() {
    let log = log("debezium-capture/every-kind.jsonl");
    let mut by_time = log.clone();
    by_time.sort_by_key(|record| record.timestamp);
    let mut left = BTreeMap::new();
    for record in &by_time {
        let Some(Ok(change)) = &record.change else { continue };
        match &change.content {
            Some(content) => _ = left.insert(change.id.clone(), content.clone().unwrap()),
            None => _ = left.remove(&change.id),
        }
    }
    let mut expected = BTreeMap::new();
    for content in left.values() {
        *expected.entry(content.good_id.integer().unwrap()).or_default() += i128::from(content.pieces);
    }
    let mut replay = Replay::new(PARTITIONS);
    for record in &log {
        replay.read(record);
    }
    replay.sweep();
    assert_eq!(replay.remains(), expected);
    assert_eq!(replay.applied, 13, "all but three tombstones");
    assert_eq!(replay.refused, []);
}
