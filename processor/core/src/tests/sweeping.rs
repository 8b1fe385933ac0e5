//! The sweep: which rows go, which stay, when it waits; and the stored forms.

use proptest::prelude::*;
use schemas::debezium::RowChange;
use schemas::{Content, DecodeError, GoodId, IdType, RowId, Scale};

use super::events::{But, content, id, incremental, snapshot, streamed, time};
use crate::generations::REMEMBERED_SWEPT;
use crate::{Approval, Chunk, ChunkLimits, Fate, Partition, Plan, Row, SweepPolicy, apply};

/// Applies events of different ids to one partition; gives their rows.
fn rows(partition: &mut Partition, changes: impl IntoIterator<Item = RowChange>) -> Vec<Row> {
    changes.into_iter().map(|change| apply(partition, None, &change).row.unwrap()).collect()
}

fn begin(partition: &mut Partition, lsn: u64) {
    assert!(partition.announce(lsn, time(lsn)));
    let never_hold = SweepPolicy { hold_above_percent: 100, ..SweepPolicy::default() };
    assert!(matches!(partition.plan_sweep(&never_hold), Plan::Started { generation, .. } if generation == lsn));
}

#[test]
fn what_is_older_than_the_snapshot_goes_and_what_is_in_it_stays() {
    let mut partition = Partition::default();
    let rows = rows(&mut partition, [streamed(10, 1, 1), snapshot(100, 1, 2).of(2), snapshot(200, 1, 3).of(3)]);
    begin(&mut partition, 200);
    assert_eq!(rows.iter().map(|row| partition.fate(row)).collect::<Vec<_>>(), [Fate::Gone, Fate::Gone, Fate::Stays]);
    let settled = partition.settle(&rows[1]);
    assert_eq!(settled.movement, Some(schemas::Movement { good_id: 1.into(), delta: -2, transactions: -1 }));
    assert_eq!(partition.generations().live(), 2);
}

#[test]
fn delete_markers_of_an_older_generation_go_with_the_sweep_and_move_nothing() {
    let mut partition = Partition::default();
    let marker = rows(&mut partition, [super::events::deleted(10)])[0].clone();
    begin(&mut partition, 200);
    let settled = partition.settle(&marker);
    assert_eq!((settled.fate, settled.movement), (Fate::Gone, None));
}

#[test]
fn what_the_new_connector_touched_before_the_partition_knew_its_snapshot_is_lifted_into_it() {
    let mut partition = Partition::default();
    let touched = [
        streamed(150, 1, 1).after_commit(200),
        streamed(200, 1, 1).of(2),
        streamed(150, 1, 1).of(3).at(time(200)),
        incremental(1, Some(200), 1, 1).of(4),
    ];
    let untouched =
        [streamed(150, 1, 1).of(5).at(time(199)), streamed(150, 1, 1).after_commit(199).of(6).at(time(201))];
    let touched = rows(&mut partition, touched);
    let untouched = rows(&mut partition, untouched);
    begin(&mut partition, 200);
    for row in &touched {
        assert_eq!(partition.settle(row).fate, Fate::Lifted(Row { generation: 200, ..row.clone() }));
    }
    for row in &untouched {
        assert_eq!(partition.settle(row).fate, Fate::Gone);
    }
    assert_eq!(partition.generations().get(200).unwrap().live, 4);
    assert_eq!(partition.generations().live(), 4);
}

#[test]
fn commit_time_is_not_trusted_where_rows_of_the_snapshot_came_first() {
    let mut partition = Partition::default();
    let old = rows(&mut partition, [streamed(150, 1, 1).at(time(300)), snapshot(200, 1, 1).of(2)])[0].clone();
    begin(&mut partition, 200);
    assert_eq!(partition.fate(&old), Fate::Gone);
}

#[test]
fn an_announcement_read_again_changes_nothing_before_during_and_after_the_sweep() {
    let mut partition = Partition::default();
    begin(&mut partition, 200);
    assert!(!partition.announce(200, time(200)));
    partition.finish_sweep().unwrap();
    let swept = partition.clone();
    assert!(!partition.announce(200, time(200)));
    assert_eq!(partition.plan_sweep(&SweepPolicy::default()), Plan::Nothing);
    assert_eq!(partition, swept);
}

#[test]
fn an_announcement_older_than_the_last_sweep_changes_nothing_also_when_its_number_is_larger() {
    let mut partition = Partition::default();
    begin(&mut partition, 200);
    partition.finish_sweep().unwrap();
    let swept = partition.clone();
    assert!(!partition.announce(100, time(100)));
    assert!(!partition.announce(900, time(150)), "of a source that was rebuilt since");
    assert_eq!(partition, swept);
}

#[test]
fn a_sweep_of_too_large_a_share_is_held_until_it_is_approved() {
    let mut partition = Partition::default();
    rows(&mut partition, (0..20).map(|number| streamed(10, 1, 1).of(number)));
    let policy = SweepPolicy { hold_above_rows: 10, ..SweepPolicy::default() };
    partition.announce(200, time(200));
    let Plan::Held(held) = partition.plan_sweep(&policy) else { panic!("not held") };
    assert_eq!((held.generation, held.would_remove, held.live), (200, 20, 20));
    assert_eq!(partition.plan_sweep(&policy), Plan::Nothing, "told once");
    assert_eq!(partition.approve(100), Approval::Unknown, "bound to its snapshot");
    assert_eq!(partition.approve(200), Approval::Accepted);
    assert_eq!(partition.approve(200), Approval::Known);
    assert_eq!(partition.plan_sweep(&policy), Plan::Started { generation: 200, at_most: 20 });
    partition.finish_sweep();
    assert_eq!(partition.held(), None);
    assert_eq!(partition.approve(200), Approval::Known, "and approved for good");
}

#[test]
fn a_later_complete_snapshot_resolves_a_wrong_hold_by_itself() {
    let mut partition = Partition::default();
    rows(&mut partition, (0..20).map(|number| streamed(10, 1, 1).of(number)));
    let policy = SweepPolicy { hold_above_rows: 10, ..SweepPolicy::default() };
    partition.announce(200, time(200));
    assert!(matches!(partition.plan_sweep(&policy), Plan::Held(_)));
    for number in 0..20 {
        let stored = Row { content: Some(content(1, 1)), generation: 0, ..row_at(10) };
        apply(&mut partition, Some(&stored), &snapshot(300, 1, 1).of(number));
    }
    partition.announce(300, time(300));
    assert_eq!(partition.plan_sweep(&policy), Plan::Started { generation: 300, at_most: 0 });
    partition.finish_sweep();
    assert_eq!(partition.held(), None);
}

#[test]
fn few_rows_are_never_held_and_a_small_share_is_not_either() {
    let policy = SweepPolicy::default();
    for (old, new, held) in [(1_000, 0, false), (1_001, 0, true), (1_001, 1_001, false), (1_003, 1_001, true)] {
        let mut partition = Partition::default();
        rows(&mut partition, (0..old).map(|number| streamed(10, 1, 1).of(number)));
        rows(&mut partition, (old..old + new).map(|number| snapshot(200, 1, 1).of(number)));
        partition.announce(200, time(200));
        assert_eq!(matches!(partition.plan_sweep(&policy), Plan::Held(_)), held, "{old} old, {new} new");
    }
}

#[test]
fn with_sweeping_switched_off_only_an_approved_one_runs() {
    let off = SweepPolicy { enabled: false, ..SweepPolicy::default() };
    let mut partition = Partition::default();
    partition.announce(200, time(200));
    assert_eq!(partition.plan_sweep(&off), Plan::Nothing);
    partition.approve(200);
    assert!(matches!(partition.plan_sweep(&off), Plan::Started { .. }));
}

#[test]
fn an_on_demand_snapshot_is_swept_on_approval_alone() {
    let mut partition = Partition::default();
    rows(&mut partition, [streamed(10, 1, 1), snapshot(200, 1, 1).after_commit(200).of(2).last()]);
    assert_eq!(partition.plan_sweep(&SweepPolicy::default()), Plan::Nothing);
    assert_eq!(partition.approve(200), Approval::Accepted);
    assert_eq!(partition.plan_sweep(&SweepPolicy::default()), Plan::Started { generation: 200, at_most: 1 });
}

#[test]
fn a_snapshot_completed_during_a_sweep_is_swept_after_it() {
    let mut partition = Partition::default();
    begin(&mut partition, 200);
    partition.announce(300, time(300));
    assert_eq!(partition.plan_sweep(&SweepPolicy::default()), Plan::Nothing);
    partition.finish_sweep();
    assert_eq!(partition.plan_sweep(&SweepPolicy::default()), Plan::Started { generation: 300, at_most: 0 });
}

#[test]
fn an_operators_word_that_the_source_was_emptied_sweeps_everything_older_once() {
    let mut partition = Partition::default();
    let row = rows(&mut partition, [snapshot(100, 1, 1)])[0].clone();
    assert!(partition.announce_emptied(500));
    assert!(matches!(partition.plan_sweep(&SweepPolicy::default()), Plan::Started { generation: 500, .. }));
    assert_eq!(partition.settle(&row).fate, Fate::Gone);
    partition.finish_sweep();
    assert!(!partition.announce_emptied(500));
    assert!(!partition.announce_emptied(400));
    assert_eq!(partition.plan_sweep(&SweepPolicy::default()), Plan::Nothing);
}

#[test]
fn swept_generations_are_forgotten_in_the_end_and_still_recognised() {
    let mut partition = Partition::default();
    for lsn in 1..=100 {
        begin(&mut partition, lsn * 100);
        partition.finish_sweep().unwrap();
    }
    assert_eq!(partition.generations().known().len(), REMEMBERED_SWEPT + 1);
    let swept = partition.clone();
    for lsn in 1..=100 {
        assert!(!partition.announce(lsn * 100, time(lsn * 100)));
        assert!(!partition.announce_emptied(lsn * 100));
        let late = apply(&mut partition, None, &snapshot(lsn * 100, 1, 1));
        assert_eq!(late.row.is_some(), lsn == 100, "only the newest still counts");
    }
    assert_eq!(partition.swept(), swept.swept());
}

#[test]
fn a_chunk_ends_at_either_bound_and_the_next_continues_behind_it() {
    let mut partition = Partition::default();
    let rows = rows(&mut partition, (1..=10).map(|number| streamed(10, 1, 1).of(number)));
    begin(&mut partition, 200);
    let run = |limits| {
        let mut chunk = Chunk::new(limits, None);
        let full = (1..).zip(&rows).any(|(number, row)| !chunk.offer(&partition, id(number), row));
        (full, chunk.scanned(), chunk.candidates().len(), chunk.cursor().cloned())
    };
    assert_eq!(run(ChunkLimits { scanned: 4, changed: 100 }), (true, 4, 4, Some(id(4))));
    assert_eq!(run(ChunkLimits { scanned: 100, changed: 3 }), (true, 3, 3, Some(id(3))));
    assert_eq!(run(ChunkLimits::default()), (false, 10, 10, Some(id(10))));
}

#[test]
fn the_partitions_record_survives_its_json_and_a_newer_format_is_refused_as_newer() {
    let mut partition = Partition::default();
    partition.check_key_encoding(schemas::debezium::KeyEncoding::PLAIN);
    rows(&mut partition, (0..20).map(|number| streamed(10, 1, 1).of(number)));
    begin(&mut partition, 200);
    partition.advance_sweep(Some(&id(7)));
    let mut value = Vec::new();
    partition.encode(&mut value);
    assert_eq!(Partition::decode(&value).unwrap(), partition);
    assert!(value.starts_with(br#"{"format":1,"key_encoding":"{\"id\":\"*\"}","before_snapshots":20,"#));
    assert!(String::from_utf8(value).unwrap().contains(r#""after":"00000000-0000-0000-0000-000000000007""#));
    let newer = Partition::decode(br#"{"format":2,"new":true}"#).unwrap_err();
    assert!(matches!(newer, DecodeError::FormatNewer { found: 2, .. }));
    assert!(matches!(Partition::decode(b"{}").unwrap_err(), DecodeError::Malformed { .. }));
    assert!(matches!(Partition::decode(b"\xff").unwrap_err(), DecodeError::Malformed { .. }));
}

#[test]
fn a_partition_whose_ids_are_keys_remembers_their_columns_and_how_far_its_sweep_is() {
    let columns = ["shop", "line"].map(str::to_owned);
    let mut partition = Partition::with_goods(schemas::GoodType::Integer).with_ids(&columns);
    assert_eq!((partition.id_type(), Partition::default().id_type()), (IdType::Key, IdType::Uuid));
    begin(&mut partition, 200);
    let after = RowId::from_bytes(br#"[1,"A-7"]"#, IdType::Key).unwrap();
    partition.advance_sweep(Some(&after));
    let mut value = Vec::new();
    partition.encode(&mut value);
    assert_eq!(Partition::decode(&value).unwrap(), partition);
    let text = String::from_utf8(value).unwrap();
    assert!(text.starts_with(r#"{"format":1,"key_encoding":null,"key_columns":["shop","line"],"#), "{text}");
    assert!(text.contains(r#""after":"[1,\"A-7\"]""#), "{text}");
    let broken = text.replace(r#""[1,\"A-7\"]""#, r#""[1, 7]""#);
    assert!(matches!(Partition::decode(broken.as_bytes()).unwrap_err(), DecodeError::Malformed { .. }));
}

/// The ids of the same sweep as uuids, as integers and as texts of several columns.
#[test]
fn a_sweep_of_keys_ends_as_one_of_uuids_whatever_the_chunks() {
    let uuid = |number: u64| id(number.into());
    let integer = |number: u64| RowId::from_bytes(number.to_string().as_bytes(), IdType::Key).unwrap();
    let several = |number: u64| {
        let text = format!(r#"["{}",{number}]"#, number % 3);
        RowId::from_bytes(text.as_bytes(), IdType::Key).unwrap()
    };
    for id in [&uuid as &dyn Fn(u64) -> RowId, &integer, &several] {
        for scanned in [1, 7, 1_000] {
            let mut replay = super::replay::Replay::new(1);
            replay.limits = ChunkLimits { scanned, changed: 3 };
            let change = |number: u64, change: RowChange| super::replay::Logged {
                partition: 0,
                offset: i64::try_from(number).unwrap(),
                timestamp: 0,
                change: Some(Ok(RowChange { id: id(number % 50), ..change })),
            };
            (0..50).for_each(|number| _ = replay.read(&change(number, streamed(10, 1, 1))));
            (50..60).for_each(|number| _ = replay.read(&change(number, snapshot(100, 1, 1))));
            replay.read(&change(60, snapshot(100, 1, 1).last()));
            replay.sweep();
            assert_eq!((replay.removed, replay.remains()[&1]), (39, 11), "{}", id(7));
            replay.check_books();
        }
    }
}

#[test]
fn the_partitions_record_says_the_scale_unless_pieces_are_whole() {
    let scale = Scale::try_from(3).unwrap();
    for (scale, said) in [(scale, true), (Scale::WHOLE, false)] {
        let partition = Partition::default().with_scale(scale);
        let mut value = Vec::new();
        partition.encode(&mut value);
        assert_eq!(String::from_utf8_lossy(&value).contains(r#","pieces_scale":3,"#), said);
        assert_eq!(Partition::decode(&value).unwrap().pieces_scale(), scale);
    }
    let mut value = Vec::new();
    Partition::default().with_scale(scale).encode(&mut value);
    let unknown = String::from_utf8(value).unwrap().replace(r#""pieces_scale":3"#, r#""pieces_scale":10"#);
    assert!(matches!(Partition::decode(unknown.as_bytes()).unwrap_err(), DecodeError::Malformed { .. }));
}

fn row_at(lsn: u64) -> Row {
    Row {
        content: None,
        generation: 0,
        streaming: true,
        lsn,
        commit_lsn: None,
        ts_ms: time(lsn),
        incremental_ts_ms: None,
        outdated: false,
    }
}

/// Any good of either type; texts of the length of an integer among them.
fn good() -> impl Strategy<Value = GoodId> {
    let text = prop_oneof!["\\PC{1,20}", "[a-z]{7,8}"].prop_map(|text| GoodId::from_text(&text).unwrap());
    prop_oneof![any::<i64>().prop_map(GoodId::from), text]
}

prop_compose! {
    fn any_row()(
        content in proptest::option::of((good(), any::<i64>())),
        generation: u64,
        streaming: bool,
        lsn: u64,
        commit_lsn: Option<u64>,
        ts_ms: i64,
        incremental_ts_ms: Option<i64>,
        outdated: bool,
    ) -> Row {
        let content = content.map(|(good_id, pieces)| Content { good_id, pieces });
        Row { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated }
    }
}

proptest! {
    #[test]
    fn every_row_survives_the_store_and_the_changelog(row in any_row(), digits in 0..=Scale::MAX.digits()) {
        let scale = Scale::try_from(digits).unwrap();
        let (mut stored, mut logged) = (Vec::new(), Vec::new());
        row.encode(&mut stored);
        row.encode_changelog(scale, &mut logged);
        prop_assert_eq!(Row::decode(&stored), Ok(row.clone()));
        prop_assert_eq!(Row::decode_changelog(&logged, scale), Ok(row));
    }

    #[test]
    fn a_stored_row_that_is_cut_or_of_another_version_is_damaged(row in any_row(), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut stored = Vec::new();
        row.encode(&mut stored);
        for length in 0..stored.len() {
            prop_assert!(Row::decode(&stored[..length]).is_err());
        }
        stored[0] ^= 0x70;
        prop_assert!(Row::decode(&stored).is_err());
        _ = Row::decode(&bytes);
        _ = Row::decode_changelog(&bytes, Scale::WHOLE);
        _ = Partition::decode(&bytes);
    }
}

#[test]
fn a_usual_row_takes_little_more_than_twenty_bytes() {
    let row = Row {
        content: Some(content(2, -15)),
        generation: 26_370_000,
        lsn: 26_370_504,
        commit_lsn: Some(26_370_336),
        ts_ms: 1_795_333_820_306,
        ..row_at(1)
    };
    let (mut stored, mut logged) = (Vec::new(), Vec::new());
    row.encode(&mut stored);
    row.encode_changelog(Scale::WHOLE, &mut logged);
    // What stores hold since before there were goods of other types.
    assert_eq!(
        stored,
        [0x17, 0xc8, 0xc3, 0xc9, 0x0c, 0xf0, 0x07, 0xa4, 0xbe, 0xe0, 0xa3, 0xc0, 0x68, 0x04, 0x1d, 0xd0, 0x02]
    );
    let json = r#"{"format":1,"good_id":2,"pieces":-15,"generation":26370000,"streaming":true,"lsn":26370504,"commit_lsn":26370336,"ts_ms":1795333820306}"#;
    assert_eq!(String::from_utf8(logged).unwrap(), json);
}
