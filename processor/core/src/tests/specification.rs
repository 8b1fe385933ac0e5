//! The rule, sentence by sentence.

use schemas::debezium::{ChangeOperation, RowChange};
use schemas::{Movement, Reason};

use super::events::{But, content, deleted, incremental, snapshot, streamed};
use crate::partition::KeyEncodingCheck;
use crate::{Decision, Outcome, Partition, Row, SnapshotComplete, SweepPolicy, apply};

/// One partition with one row.
#[derive(Default)]
struct One {
    partition: Partition,
    row: Option<Row>,
}

impl One {
    fn after(changes: impl IntoIterator<Item = RowChange>) -> Self {
        let mut one = Self::default();
        changes.into_iter().for_each(|change| _ = one.apply(change));
        one
    }

    #[allow(clippy::needless_pass_by_value, reason = "events are built in place")]
    fn apply(&mut self, change: RowChange) -> Decision {
        let decision = apply(&mut self.partition, self.row.as_ref(), &change);
        self.row = decision.row.clone().or_else(|| self.row.take());
        decision
    }

    fn pieces(&self) -> Option<i64> {
        self.row.as_ref().and_then(|row| row.content.as_ref()).map(|content| content.pieces)
    }

    /// Sweeps snapshot `lsn` with only this row in the partition.
    fn sweep(&mut self, lsn: u64) {
        self.partition.announce(lsn, super::events::time(lsn));
        self.partition.plan_sweep(&SweepPolicy::default());
        if let Some(row) = &self.row {
            match self.partition.settle(row).fate {
                crate::Fate::Stays => {}
                crate::Fate::Lifted(lifted) => self.row = Some(lifted),
                crate::Fate::Gone => self.row = None,
            }
        }
        self.partition.finish_sweep();
    }
}

#[allow(clippy::unnecessary_wraps, reason = "as it stands in a decision")]
fn movement(good_id: i64, delta: i128, transactions: i64) -> Option<Movement> {
    Some(Movement { good_id: good_id.into(), delta, transactions })
}

fn reason(decision: &Decision) -> Option<Reason> {
    match &decision.outcome {
        Outcome::Refused(rejection) => Some(rejection.reason()),
        _ => None,
    }
}

#[test]
fn the_first_event_of_a_row_adds_its_contribution() {
    let decision = One::default().apply(streamed(10, 2, 30));
    assert_eq!(decision.outcome, Outcome::Applied);
    assert_eq!(decision.movements, [None, movement(2, 30, 1)]);
}

#[test]
fn an_event_above_the_stored_position_replaces_the_contribution() {
    let decision = One::after([streamed(10, 2, 30)]).apply(streamed(11, 2, 25));
    assert_eq!(decision.movements, [movement(2, -5, 0), None]);
}

#[test]
fn a_row_that_changes_its_good_moves_from_one_to_the_other() {
    let decision = One::after([streamed(10, 2, 30)]).apply(streamed(11, 3, 30));
    assert_eq!(decision.movements, [movement(2, -30, -1), movement(3, 30, 1)]);
}

#[test]
fn an_event_that_changes_only_the_position_moves_nothing_and_is_stored() {
    let decision = One::after([streamed(10, 2, 30)]).apply(streamed(11, 2, 30));
    assert_eq!(decision.movements, [None, None]);
    assert_eq!(decision.row.unwrap().lsn, 11);
}

#[test]
fn an_event_at_the_stored_position_is_a_redelivery_and_changes_nothing() {
    let decision = One::after([streamed(10, 2, 30)]).apply(streamed(10, 2, 30));
    assert_eq!((decision.outcome, decision.row), (Outcome::Redelivered, None));
}

#[test]
fn an_event_below_the_stored_position_is_a_redelivery_however_often_and_late_it_comes() {
    let mut one = One::after([streamed(10, 2, 1), streamed(11, 2, 2), streamed(12, 2, 3)]);
    for _ in 0..3 {
        for lsn in 10..=12 {
            assert_eq!(one.apply(streamed(lsn, 2, 99)).outcome, Outcome::Redelivered);
        }
    }
    assert_eq!(one.pieces(), Some(3));
}

#[test]
fn a_delete_takes_the_contribution_off_and_leaves_a_marker_that_recognises_older_events() {
    let mut one = One::after([streamed(10, 2, 30)]);
    assert_eq!(one.apply(deleted(11)).movements, [movement(2, -30, -1), None]);
    assert_eq!(one.row.clone().unwrap().content, None);
    assert_eq!(one.apply(streamed(10, 2, 30)).outcome, Outcome::Redelivered);
    assert_eq!(one.apply(deleted(11)).outcome, Outcome::Redelivered);
}

#[test]
fn a_delete_of_an_unknown_row_leaves_a_marker_and_moves_nothing() {
    let decision = One::default().apply(deleted(11));
    assert_eq!(decision.movements, [None, None]);
    assert_eq!(decision.row.unwrap().content, None);
}

#[test]
fn an_id_inserted_again_after_its_delete_counts_again() {
    let mut one = One::after([streamed(10, 2, 30), deleted(11)]);
    assert_eq!(one.apply(streamed(12, 2, 4)).movements, [None, movement(2, 4, 1)]);
}

#[test]
fn a_record_of_a_new_snapshot_replaces_whatever_was_streamed_before_it() {
    let mut one = One::after([streamed(10, 2, 30)]);
    assert_eq!(one.apply(snapshot(9, 2, 7)).outcome, Outcome::Applied, "also with a smaller number");
    assert_eq!(one.pieces(), Some(7));
}

#[test]
fn a_straddling_event_is_newer_than_the_snapshot_although_its_lsn_is_below() {
    let mut one = One::after([snapshot(100, 1, 1)]);
    assert_eq!(one.apply(streamed(40, 1, 100)).outcome, Outcome::Applied);
    assert_eq!(one.apply(streamed(50, 1, 101).after_commit(100)).outcome, Outcome::Applied);
    assert_eq!(one.apply(snapshot(100, 1, 1)).outcome, Outcome::Redelivered);
    assert_eq!(one.pieces(), Some(101));
}

#[test]
fn a_change_right_after_the_snapshot_may_have_its_very_lsn() {
    let mut one = One::after([snapshot(100, 1, 1)]);
    assert_eq!(one.apply(streamed(100, 1, 2)).outcome, Outcome::Applied);
}

#[test]
fn a_known_older_snapshot_is_a_late_redelivery_and_keeps_its_old_generation() {
    let mut one = One::after([snapshot(100, 1, 1), snapshot(200, 1, 2)]);
    assert_eq!(one.apply(snapshot(100, 1, 1)).outcome, Outcome::Redelivered);
    let other = apply(&mut one.partition, None, &snapshot(100, 1, 5).of(2));
    assert_eq!(other.row.unwrap().generation, 100, "a row of it not seen yet counts until a sweep says otherwise");
}

#[test]
fn an_unknown_snapshot_that_is_older_by_number_and_by_time_goes_before_the_newer_one() {
    let mut one = One::after([snapshot(200, 1, 2)]);
    assert_eq!(one.apply(snapshot(100, 1, 1)).outcome, Outcome::Redelivered);
    assert_eq!(one.partition.generations().current(), 200);
}

#[test]
fn an_unknown_snapshot_with_a_smaller_number_but_a_later_time_is_the_newest() {
    let mut one = One::after([snapshot(200, 1, 2)]);
    assert_eq!(one.apply(snapshot(100, 1, 1).at(super::events::time(300))).outcome, Outcome::Applied);
    assert_eq!(one.partition.generations().current(), 100);
}

#[test]
fn a_streamed_event_of_a_connector_from_before_the_snapshot_belongs_to_an_older_generation() {
    let mut one = One::after([snapshot(100, 1, 1), snapshot(200, 1, 2)]);
    assert_eq!(one.apply(streamed(150, 1, 9).after_commit(140)).outcome, Outcome::Redelivered);
    let other = apply(&mut one.partition, None, &streamed(150, 1, 9).after_commit(140).of(2));
    assert_eq!(other.row.unwrap().generation, 100);
    let first = apply(&mut one.partition, None, &streamed(50, 1, 9).after_commit(40).of(3));
    assert_eq!(first.row.unwrap().generation, 0);
}

#[test]
fn an_incremental_record_replaces_the_content_and_leaves_the_position() {
    let mut one = One::after([snapshot(100, 1, 5), streamed(300, 1, 6)]);
    let decision = one.apply(incremental(7, Some(700), 1, 8));
    assert_eq!(decision.movements, [movement(1, 2, 0), None]);
    let row = one.row.clone().unwrap();
    assert_eq!((row.generation, row.streaming, row.lsn), (100, true, 300));
    assert_eq!((row.commit_lsn, row.incremental_ts_ms), (Some(700), Some(7)));
    assert_eq!(one.apply(streamed(500, 1, 9)).outcome, Outcome::Applied, "a transaction open at that time");
}

#[test]
fn a_row_first_seen_by_an_incremental_record_stands_at_the_beginning_of_the_current_generation() {
    let mut one = One { row: None, ..One::after([snapshot(100, 1, 5).of(2)]) };
    let row = one.apply(incremental(7, None, 1, 8)).row.unwrap();
    assert_eq!((row.generation, row.streaming, row.lsn), (100, false, 0));
    assert_eq!(one.apply(streamed(40, 1, 9)).outcome, Outcome::Applied);
}

#[test]
fn the_same_incremental_record_again_is_recognised_also_after_a_streamed_event() {
    let mut one = One::after([incremental(7, None, 1, 8), streamed(500, 1, 9)]);
    assert_eq!(one.apply(incremental(7, None, 1, 8)).outcome, Outcome::Redelivered);
    assert_eq!(one.apply(incremental(8, None, 1, 10)).outcome, Outcome::Applied);
}

#[test]
fn a_retried_request_with_two_incremental_records_does_not_bring_back_a_deleted_row() {
    let request = [incremental(7, Some(700), 1, 8), incremental(9, Some(700), 1, 8), deleted(650)];
    let mut one = One::after([streamed(500, 1, 8)].into_iter().chain(request.clone()));
    for change in request {
        assert_eq!(one.apply(change).outcome, Outcome::Redelivered);
    }
    assert_eq!(one.pieces(), None);
}

#[test]
fn an_incremental_record_of_a_clock_set_back_is_told_by_the_commit_seen_since() {
    let mut one = One::after([incremental(7, Some(700), 1, 8)]);
    assert_eq!(one.apply(incremental(5, Some(700), 1, 9)).outcome, Outcome::Redelivered);
    assert_eq!(one.apply(incremental(5, Some(710), 1, 9)).outcome, Outcome::Applied);
}

#[test]
fn an_event_below_the_stored_position_but_later_in_time_is_of_a_rebuilt_source() {
    let mut one = One::after([streamed(500, 1, 9)]);
    let decision = one.apply(streamed(20, 1, 3).at(super::events::time(501)));
    assert_eq!((reason(&decision), decision.row), (Some(Reason::SourceRebuilt), None));
    assert_eq!(one.pieces(), Some(9));
}

#[test]
fn a_straddling_event_is_never_taken_for_a_rebuilt_source() {
    let mut one = One::after([snapshot(500, 1, 9)]);
    assert_eq!(one.apply(streamed(20, 1, 3).at(super::events::time(501))).outcome, Outcome::Applied);
}

#[test]
fn a_refused_event_keeps_the_old_contribution_and_marks_the_id_as_seen() {
    let mut one = One::after([streamed(10, 2, 30)]);
    let decision = one.apply(streamed(11, 2, 0).unreadable());
    assert_eq!((reason(&decision), &decision.movements), (Some(Reason::NegativePcs), &[None, None]));
    let row = one.row.unwrap();
    assert_eq!((row.lsn, row.content), (11, Some(content(2, 30))));
}

#[test]
fn a_refused_event_delivered_again_is_no_second_dead_letter() {
    let mut one = One::after([streamed(11, 2, 0).unreadable()]);
    assert_eq!(one.apply(streamed(11, 2, 0).unreadable()).outcome, Outcome::Redelivered);
    assert_eq!(one.row.unwrap().content, None, "a marker without contribution");
}

#[test]
fn a_row_whose_snapshot_record_was_refused_is_not_swept() {
    let mut one = One::after([snapshot(100, 2, 30), snapshot(200, 2, 0).unreadable()]);
    one.sweep(200);
    assert_eq!(one.pieces(), Some(30));
}

#[test]
fn an_event_older_than_a_sweep_about_an_absent_id_is_of_something_proven_gone() {
    let mut one = One::after([snapshot(100, 1, 5)]);
    one.sweep(200);
    assert_eq!(one.row, None);
    assert_eq!(one.apply(snapshot(100, 1, 5)).outcome, Outcome::Stale);
    assert_eq!(one.apply(snapshot(50, 1, 5)).outcome, Outcome::Stale, "of a snapshot never seen here, too");
    assert_eq!(one.apply(streamed(150, 1, 5).after_commit(140)).outcome, Outcome::Stale);
    assert_eq!(one.apply(streamed(150, 1, 5).unreadable().after_commit(140)).outcome, Outcome::Stale);
    assert_eq!(one.apply(streamed(201, 1, 5).after_commit(140)).outcome, Outcome::Applied);
}

#[test]
fn a_late_record_of_the_swept_snapshot_heals_what_was_swept_too_early() {
    let mut one = One::after([snapshot(100, 1, 5)]);
    one.sweep(200);
    assert_eq!(one.apply(snapshot(200, 1, 5)).movements, [None, movement(1, 5, 1)]);
}

#[test]
fn the_end_of_an_initial_snapshot_is_announced_until_this_partition_knows_it_is_complete() {
    let mut one = One::default();
    let complete = SnapshotComplete { snapshot_lsn: 100, ts_ms: super::events::time(100) };
    assert_eq!(one.apply(snapshot(100, 1, 5)).announce, None);
    assert_eq!(one.apply(snapshot(100, 1, 5).of(2).last()).announce, Some(complete));
    assert_eq!(one.apply(snapshot(100, 1, 5).of(3).unreadable().last()).announce, Some(complete), "also if refused");
    one.partition.announce(100, complete.ts_ms);
    assert_eq!(one.apply(snapshot(100, 1, 5).of(2).last()).announce, None);
}

#[test]
fn the_end_of_an_on_demand_snapshot_is_not_announced() {
    assert_eq!(One::default().apply(snapshot(100, 1, 5).after_commit(99).last()).announce, None);
}

#[test]
fn an_event_without_a_position_is_refused() {
    let mut change = streamed(1, 1, 1);
    change.source.lsn = None;
    assert_eq!(reason(&One::default().apply(change)), Some(Reason::NoPosition));
    assert_eq!(reason(&One::default().apply(snapshot(0, 1, 1))), Some(Reason::NoPosition));
}

#[test]
fn another_form_of_record_keys_is_noticed() {
    let (plain, other) = (schemas::debezium::KeyEncoding::PLAIN, "json-schema:0".to_owned());
    let other = schemas::debezium::KeyEncoding::from_text(&other).unwrap();
    let mut partition = Partition::default();
    assert_eq!(partition.check_key_encoding(plain), KeyEncodingCheck::First);
    assert_eq!(partition.check_key_encoding(plain), KeyEncodingCheck::Same);
    assert_eq!(partition.check_key_encoding(other), KeyEncodingCheck::Changed { known: plain });
}

#[test]
fn what_an_event_leaves_out_is_as_it_was() {
    let after = |stored: i64, event: RowChange| {
        let mut one = One::after([streamed(10, 1, stored)]);
        let decision = one.apply(event);
        (decision.outcome == Outcome::Applied, one.row.unwrap().content.unwrap())
    };
    let event = |pieces| streamed(11, 2, pieces);
    assert_eq!(after(5, event(-8).without(true, false, false)), (true, content(1, -8)));
    assert_eq!(after(-5, event(8).without(false, true, false)), (true, content(2, -8)));
    assert_eq!(after(-5, event(8).without(false, false, true)), (true, content(2, 5)));
    assert_eq!(after(-5, event(8).without(false, true, true)), (true, content(2, -5)));
    assert_eq!(after(-5, event(8).without(true, true, true)), (true, content(1, -5)));
    // A row of no pieces does not say whether pieces came or went.
    assert_eq!(after(0, event(8).without(false, true, false)), (false, content(1, 0)));
    assert_eq!(after(0, event(0).without(false, true, false)), (true, content(2, 0)));
}

#[test]
fn what_an_event_leaves_out_is_refused_where_nothing_is_stored_to_take_it_from() {
    for before in [vec![], vec![streamed(10, 1, 5), deleted(11)], vec![streamed(11, 1, 5).unreadable()]] {
        let mut one = One { row: None, ..One::after([snapshot(1, 1, 5).of(2)]) };
        for event in before {
            one.apply(event);
        }
        let decision = one.apply(streamed(12, 2, 8).without(true, false, false));
        assert_eq!(reason(&decision), Some(Reason::UnavailableValue));
        assert_eq!(one.row.unwrap().content, None);
    }
}

#[test]
fn what_an_insert_leaves_out_is_not_taken_from_another_row_of_its_id() {
    let mut one = One::after([streamed(10, 1, 5)]);
    // The delete was lost with the connector's offsets; then another row got this key.
    let insert = RowChange { operation: ChangeOperation::Create, ..streamed(20, 2, 8) };
    assert_eq!(reason(&one.apply(insert.without(true, false, false))), Some(Reason::UnavailableValue));
}

#[test]
fn what_an_event_leaves_out_is_not_taken_from_before_a_refused_one() {
    let mut one = One::after([streamed(10, 1, 5), streamed(11, 2, 5).unreadable()]);
    let left_out = |lsn| streamed(lsn, 3, 8).without(true, false, false);
    assert_eq!(reason(&one.apply(left_out(12))), Some(Reason::UnavailableValue));
    assert_eq!(one.row.clone().unwrap().content, Some(content(1, 5)), "the good may be another by now");
    one.apply(incremental(7, None, 2, 5));
    assert_eq!(reason(&one.apply(left_out(13))), None, "shown again, it is known");
    assert_eq!(one.row.unwrap().content, Some(content(2, 8)));
}
