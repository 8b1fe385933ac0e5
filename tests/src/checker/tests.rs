//! The checker must be able to fail: a right history, then the same with one thing wrong at a time.

use std::collections::BTreeMap;

use super::{Code, Contribution, Facts, LiveRead, LogEnds, TargetRow, Topic, check, read_row_log};
use crate::client::{Delta, GroupOffset, Record};

const EPOCH: u64 = 7;

fn record(partition: i32, offset: i64, key: &str, value: Option<String>) -> Record {
    let (key, value) = (Some(key.as_bytes().to_vec()), value.map(String::into_bytes));
    Record { partition, offset, timestamp_ms: Some(1), key, value, headers: Vec::new() }
}

fn marked(mut record: Record, next_offset: i64, sequence: u64) -> Record {
    for (name, number) in [("next-offset", next_offset.to_string()), ("sequence", sequence.to_string())] {
        record.headers.push((name.to_owned(), Some(number.into_bytes())));
    }
    record
}

fn event(offset: i64, id: &str, op: &str, row: Option<(i64, &str, i64)>) -> Record {
    let after = row.map_or_else(
        || "null".to_owned(),
        |(good, operation, pcs)| format!(r#"{{"id":"{id}","good_id":{good},"operation":"{operation}","pcs":{pcs}}}"#),
    );
    record(0, offset, &format!(r#"{{"id":"{id}"}}"#), Some(format!(r#"{{"after":{after},"op":"{op}"}}"#)))
}

fn state(offset: i64, id: &str, row: Option<(i64, i64)>, lsn: u64) -> Record {
    let (good, pieces) = row.map_or_else(
        || ("null".to_owned(), "null".to_owned()),
        |(good, pieces)| (good.to_string(), pieces.to_string()),
    );
    record(0, offset, id, Some(format!(r#"{{"format":1,"good_id":{good},"pieces":{pieces},"lsn":{lsn}}}"#)))
}

fn delta(offset: i64, good: i64, delta: i128, remains: i128, transactions: i64, version: u64) -> Record {
    let value = format!(
        r#"{{"good_id":{good},"delta":{delta},"remains":{remains},"transactions":{transactions},"version":{version},"epoch":{EPOCH}}}"#
    );
    record(0, offset, &good.to_string(), Some(value))
}

fn topic(name: &str, committed: Vec<Record>, aborted: Vec<Record>) -> Topic {
    let mut uncommitted = [committed.clone(), aborted].concat();
    uncommitted.sort_by_key(|record| record.offset);
    // One more for the marker of the last transaction.
    let end = uncommitted.last().map_or(0, |record| record.offset + 2);
    let ends = BTreeMap::from([(0, LogEnds { start: 0, last_stable: end, high_watermark: end })]);
    Topic { name: name.to_owned(), committed, uncommitted, ends, compacted: false }
}

fn at(offset: i64, sequence: u64) -> BTreeMap<i32, GroupOffset> {
    BTreeMap::from([(0, GroupOffset { offset, metadata: format!("v1;{sequence};w;T") })])
}

/// Rows a (deleted), b, c; one transaction aborted in between and done again; one bad record in the input.
fn right() -> Facts {
    let mut bad = record(0, 3, r#"{"id":"d"}"#, Some("not JSON".into()));
    let input = vec![
        event(0, "a", "c", Some((1, "add", 5))),
        event(1, "b", "c", Some((1, "add", 30))),
        event(2, "c", "c", Some((2, "remove", 4))),
        bad.clone(),
        event(4, "a", "d", None),
        event(5, "b", "u", Some((1, "add", 31))),
    ];
    bad.offset = 0;
    for (name, value) in [("topic", "in"), ("partition", "0"), ("offset", "3"), ("reason", "not-json")] {
        bad.headers.push((format!("dead-letter.{name}"), Some(value.as_bytes().to_vec())));
    }
    let changelog = vec![
        state(0, "a", Some((1, 5)), 10),
        state(1, "b", Some((1, 30)), 11),
        marked(record(0, 2, "#partition", Some("{}".into())), 2, 1),
        state(7, "c", Some((2, -4)), 12),
        state(8, "a", None, 13),
        marked(state(9, "b", Some((1, 31)), 14), 6, 2),
    ];
    let deltas = vec![
        marked(delta(0, 1, 35, 35, 2, 1), 0, 1),
        marked(delta(5, 1, -4, 31, 1, 2), 2, 2),
        marked(delta(6, 2, -4, -4, 1, 1), 2, 2),
    ];
    let movement = record(0, 0, "1", Some(r#"{"good_id":1,"delta":-4,"transactions":-1}"#.into()));
    let live = [("changelog", &changelog), ("deltas", &deltas)]
        .map(|(name, records)| LiveRead { topic: name.to_owned(), records: records.clone() });
    Facts {
        scale: 0,
        rows: Some(BTreeMap::from([
            ("b".to_owned(), Contribution { good: 1, pieces: 31 }),
            ("c".to_owned(), Contribution { good: 2, pieces: -4 }),
        ])),
        input: topic("input", input, vec![]),
        changelog: topic("changelog", changelog, vec![state(4, "c", Some((2, -4)), 12)]),
        movements: topic("movements", vec![movement], vec![]),
        deltas: topic("deltas", deltas, vec![delta(2, 1, -4, 31, 1, 2), delta(3, 2, -4, -4, 1, 1)]),
        dead_letters: topic("dead-letters", vec![bad], vec![]),
        input_offsets: at(6, 2),
        movement_offsets: at(2, 2),
        live: live.into(),
        target: Some(BTreeMap::from([
            (1, TargetRow { cnt: 31, epoch: EPOCH, version: 2 }),
            (2, TargetRow { cnt: -4, epoch: EPOCH, version: 1 }),
        ])),
    }
}

/// What is found when one thing of the right history is changed, each kind once.
fn found(change: impl FnOnce(&mut Facts)) -> Vec<Code> {
    let mut facts = right();
    change(&mut facts);
    let mut codes: Vec<Code> = check(&facts).into_iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[test]
fn a_right_history_with_aborted_records_has_no_findings() {
    assert_eq!(check(&right()), []);
}

#[test]
fn a_dropped_stock_delta_is_a_gap() {
    let codes = found(|facts| {
        facts.deltas.committed.remove(0);
        facts.deltas.uncommitted.remove(0);
    });
    assert_eq!(codes, [Code::MovementsDiffer, Code::VersionGap, Code::LiveVanished]);
    // The newest one leaves no gap: the sums, the marks and the target tell.
    let codes = found(|facts| {
        facts.deltas.committed.truncate(1);
        facts.live.clear();
    });
    assert!(codes.contains(&Code::SumDiffers) && codes.contains(&Code::OffsetWithoutOutput), "{codes:?}");
    assert!(codes.contains(&Code::TargetDiffers) && codes.contains(&Code::TargetInvented), "{codes:?}");
}

#[test]
fn a_repeated_stock_delta_is_found() {
    let codes = found(|facts| {
        let mut again = facts.deltas.committed[1].clone();
        again.offset = 7;
        facts.deltas.committed.push(again.clone());
        facts.deltas.uncommitted.push(again.clone());
        facts.live[1].records.push(again);
    });
    assert_eq!(codes, [Code::MovementsDiffer, Code::VersionRepeated]);
}

#[test]
fn two_swapped_stock_deltas_are_found() {
    let codes = found(|facts| {
        let (first, second) = (facts.deltas.committed[0].value.clone(), facts.deltas.committed[1].value.clone());
        facts.deltas.committed[0].value = second;
        facts.deltas.committed[1].value = first;
        facts.live.clear();
    });
    assert!(codes.contains(&Code::VersionGap) && codes.contains(&Code::VersionRepeated), "{codes:?}");
}

#[test]
fn two_swapped_changelog_records_are_found() {
    let codes = found(|facts| {
        let (marked, state) =
            (facts.changelog.committed[5].headers.clone(), facts.changelog.committed[2].headers.clone());
        facts.changelog.committed[5].headers = state;
        facts.changelog.committed[2].headers = marked;
        facts.live.clear();
    });
    assert_eq!(codes, [Code::OffsetWithoutOutput, Code::ProgressBackwards]);
}

#[test]
fn an_altered_sum_is_found() {
    let codes = found(|facts| {
        facts.deltas.committed[1] = marked(delta(5, 1, -4, 32, 1, 2), 2, 2);
        facts.live.clear();
    });
    assert_eq!(codes, [Code::SumDiffers, Code::SumBroken, Code::TargetDiffers]);
    // A total that follows from a wrong delta is no broken chain; the changelog contradicts it.
    let codes = found(|facts| {
        facts.deltas.committed[1] = marked(delta(5, 1, -3, 32, 1, 2), 2, 2);
        facts.live.clear();
        facts.target = None;
    });
    assert_eq!(codes, [Code::SumDiffers, Code::MovementsDiffer]);
    let codes = found(|facts| {
        facts.deltas.committed[1] = marked(delta(5, 1, -4, 31, 2, 2), 2, 2);
        facts.live.clear();
    });
    assert_eq!(codes, [Code::RowCountDiffers]);
}

#[test]
fn movements_that_do_not_add_up_or_cannot_be_read_are_found() {
    // A row moved on, and no stock delta says so.
    let codes = found(|facts| {
        let (moved, row) = (state(10, "c", Some((2, -5)), 15), event(6, "c", "u", Some((2, "remove", 5))));
        facts.changelog.committed.push(moved.clone());
        facts.changelog.uncommitted.push(moved);
        facts.input.committed.insert(2, row.clone());
        facts.input.uncommitted.push(row);
        facts.live.clear();
        facts.rows = None;
    });
    assert_eq!(codes, [Code::SumDiffers, Code::MovementsDiffer]);
    assert_eq!(found(|facts| facts.movements.committed[0].key = Some(b"2".to_vec())), [Code::RecordUnreadable]);
    let purged = |facts: &mut Facts| {
        let mut unreadable = facts.movements.committed[0].clone();
        (unreadable.offset, unreadable.value) = (-1, Some(b"{}".to_vec()));
        facts.live.push(LiveRead {
            topic: "movements".into(),
            records: vec![unreadable, facts.movements.committed[0].clone()],
        });
        facts.movements.ends.insert(0, LogEnds { start: 0, last_stable: 2, high_watermark: 2 });
    };
    assert_eq!(found(purged), [Code::RecordUnreadable]);
}

#[test]
fn sums_beyond_64_bits_are_compared_exactly() {
    let big = i128::from(i64::MAX) * 4;
    let chain = |remains| super::newest_of(&[delta(0, 1, big, remains, 1, 1)]);
    assert_eq!(chain(big).unwrap()[&1].remains, big);
    assert!(chain(big - 1).is_err());
}

#[test]
fn an_offset_committed_without_its_output_is_found() {
    assert_eq!(found(|facts| facts.input_offsets = at(7, 3)), [Code::OffsetWithoutOutput]);
    assert_eq!(found(|facts| facts.input_offsets = at(6, 3)), [Code::OffsetWithoutOutput]);
    assert_eq!(found(|facts| facts.movement_offsets = at(3, 2)), [Code::OffsetWithoutOutput]);
}

#[test]
fn output_committed_without_its_offset_is_found() {
    assert_eq!(found(|facts| facts.input_offsets = at(2, 1)), [Code::OutputWithoutOffset, Code::Unconsumed]);
    assert_eq!(found(|facts| facts.movement_offsets.clear()), [Code::OutputWithoutOffset, Code::Unconsumed]);
}

#[test]
fn an_aborted_record_that_was_shown_is_found() {
    let codes = found(|facts| {
        let aborted = facts.deltas.uncommitted[1].clone();
        facts.live[1].records.insert(1, aborted);
    });
    assert_eq!(codes, [Code::AbortedSeen]);
    // Visible to everybody, afterwards too: then it is one change too many.
    let codes = found(|facts| {
        let aborted = facts.deltas.uncommitted[1].clone();
        facts.deltas.committed.insert(1, aborted);
    });
    assert_eq!(codes, [Code::MovementsDiffer, Code::VersionRepeated, Code::LiveMissed]);
}

#[test]
fn a_live_reader_that_saw_something_else_is_found() {
    assert_eq!(found(|facts| facts.live[1].records.swap(1, 2)), [Code::LiveRepeated]);
    assert_eq!(found(|facts| drop(facts.live[1].records.remove(1))), [Code::LiveMissed]);
    assert_eq!(found(|facts| facts.live[1].records[1].value = None), [Code::LiveAltered]);
    let codes = found(|facts| {
        let again = facts.live[1].records[2].clone();
        facts.live[1].records.push(again);
    });
    assert_eq!(codes, [Code::LiveRepeated]);
}

#[test]
fn what_compaction_or_a_purge_took_is_no_finding() {
    let codes = found(|facts| {
        facts.deltas.compacted = true;
        let gone = facts.deltas.committed.remove(0);
        facts.deltas.uncommitted.retain(|record| record.offset != gone.offset);
    });
    assert_eq!(codes, []);
    let codes = found(|facts| {
        facts.live.push(LiveRead { topic: "movements".into(), records: facts.movements.committed.split_off(0) });
        facts.movements.uncommitted.clear();
        facts.movements.ends.insert(0, LogEnds { start: 2, last_stable: 2, high_watermark: 2 });
    });
    assert_eq!(codes, []);
}

#[test]
fn a_transaction_left_open_is_found() {
    let ends = LogEnds { start: 0, last_stable: 3, high_watermark: 8 };
    assert_eq!(found(|facts| facts.deltas.ends = BTreeMap::from([(0, ends)])), [Code::OpenTransaction]);
}

#[test]
fn a_target_that_was_altered_is_found() {
    let altered = |change: fn(&mut BTreeMap<i64, TargetRow>)| found(|facts| change(facts.target.as_mut().unwrap()));
    assert_eq!(altered(|target| target.get_mut(&1).unwrap().cnt = 30), [Code::TargetDiffers]);
    assert_eq!(altered(|target| target.get_mut(&1).unwrap().version = 1), [Code::TargetDiffers]);
    assert_eq!(altered(|target| target.retain(|good, _| *good != 2)), [Code::TargetLost]);
    let phantom = |target: &mut BTreeMap<i64, TargetRow>| {
        target.insert(9, TargetRow { cnt: 1, epoch: EPOCH, version: 1 });
    };
    assert_eq!(altered(phantom), [Code::TargetInvented]);
}

#[test]
fn a_row_that_is_lost_or_counted_otherwise_is_found() {
    let changed = |change: fn(&mut BTreeMap<String, Contribution>)| found(|facts| change(facts.rows.as_mut().unwrap()));
    let extra = |rows: &mut BTreeMap<String, Contribution>| {
        rows.insert("e".into(), Contribution { good: 1, pieces: 1 });
    };
    assert_eq!(changed(extra), [Code::RowLost]);
    assert_eq!(changed(|rows| rows.retain(|id, _| id != "c")), [Code::RowInvented]);
    assert_eq!(changed(|rows| rows.get_mut("b").unwrap().pieces = 30), [Code::RowDiffers]);
}

#[test]
fn an_event_that_was_lost_or_made_up_is_found() {
    let codes = found(|facts| {
        facts.input.committed.push(event(6, "e", "c", Some((1, "add", 1))));
        facts.input_offsets = at(7, 3);
        facts.changelog.committed[5].headers = marked(record(0, 0, "", None), 7, 3).headers;
        facts.live.clear();
        facts.input.uncommitted.clone_from(&facts.input.committed);
    });
    assert_eq!(codes, [Code::InputLost]);
    let codes = found(|facts| {
        let row = event(5, "b", "u", Some((1, "add", 99)));
        facts.input.committed[5] = row;
    });
    assert_eq!(codes, [Code::ContributionInvented]);
    let codes = found(|facts| {
        let again = state(10, "c", Some((2, -4)), 12);
        facts.changelog.committed.push(again.clone());
        facts.changelog.uncommitted.push(again.clone());
        facts.live[0].records.push(again);
    });
    assert_eq!(codes, [Code::AppliedTwice]);
}

#[test]
fn a_dead_letter_that_is_altered_or_repeated_is_found() {
    assert_eq!(found(|facts| facts.dead_letters.committed[0].value = None), [Code::DeadLetterAltered]);
    let codes = found(|facts| {
        let again = facts.dead_letters.committed[0].clone();
        facts.dead_letters.committed.push(again);
    });
    assert_eq!(codes, [Code::DeadLetterRepeated]);
}

#[test]
fn epochs_partitions_and_unreadable_records_are_found() {
    let older = Delta { good_id: 1, delta: 1, remains: 1, transactions: 1, version: 1, epoch: 6 };
    let newer = Delta { epoch: 7, ..older };
    assert_eq!(super::follow(Some(newer), older, false).unwrap().0, Code::EpochBackwards);
    assert_eq!(super::follow(Some(older), newer, false), None);
    let codes = found(|facts| {
        facts.deltas.committed[1].partition = 1;
        facts.deltas.uncommitted.push(facts.deltas.committed[1].clone());
        facts.live.clear();
    });
    assert!(codes.contains(&Code::GoodInTwoPartitions), "{codes:?}");
    let codes = found(|facts| facts.changelog.committed[0].value = Some(b"{".to_vec()));
    assert!(codes.contains(&Code::RecordUnreadable), "{codes:?}");
}

#[test]
fn names_of_findings_are_unique() {
    let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len());
}

#[test]
fn a_row_log_ends_with_the_last_line_of_each_row() {
    let log = r#"{"id":"A","good_id":1,"operation":"add","pcs":5}
{"id":"b","good_id":1,"operation":"remove","pcs":2}

{"id":"a","good_id":2,"operation":"add","pcs":6}
{"id":"b","deleted":true}"#;
    let rows = read_row_log(log.as_bytes(), 0).unwrap();
    assert_eq!(rows, BTreeMap::from([("a".to_owned(), Contribution { good: 2, pieces: 6 })]));
    assert!(read_row_log(r#"{"id":"a","good_id":2,"operation":"steal","pcs":6}"#.as_bytes(), 0).is_err());
}
