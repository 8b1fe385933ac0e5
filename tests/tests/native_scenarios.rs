//! The scenarios on the native stack.

use anyhow::Result;
use tests::client::Format;
use tests::native::{NativeOptions, NativeStack, shared_full};
use tests::scenario::{backfill, bad_input, fencing, histories, live, other_goods, other_keys, rebuild};

#[test]
fn a_history_ends_exactly_with_one_process() -> Result<()> {
    histories::ends_exactly(shared_full()?, "debezium-capture/history", 1)
}

#[test]
fn a_history_of_a_table_with_other_columns_ends_exactly() -> Result<()> {
    histories::ends_exactly_with_other_columns(shared_full()?, "debezium-capture/straddling-transaction")
}

#[test]
fn a_history_with_goods_that_are_texts_ends_exactly_in_the_target() -> Result<()> {
    other_goods::texts_end_exactly_in_the_target(shared_full()?, "debezium-capture/history")
}

#[test]
fn a_concurrent_history_ends_exactly_with_two_processes() -> Result<()> {
    histories::ends_exactly(shared_full()?, "debezium-capture/history-concurrent", 2)
}

#[test]
fn a_concurrent_history_ends_exactly_with_three_processes_killed_in_turn() -> Result<()> {
    histories::ends_exactly_despite_kills(shared_full()?, "debezium-capture/history-concurrent", 3, 6)
}

#[test]
fn a_history_ends_exactly_with_one_process_killed_several_times() -> Result<()> {
    histories::ends_exactly_despite_kills(shared_full()?, "debezium-capture/history", 1, 4)
}

#[test]
fn several_workers_in_several_processes_hand_partitions_to_each_other() -> Result<()> {
    histories::ends_exactly_with_several_workers(shared_full()?, "debezium-capture/history-concurrent", 2)
}

#[test]
fn processes_that_run_until_caught_up_end_with_everything_done() -> Result<()> {
    backfill::ends_when_caught_up(shared_full()?, "debezium-capture/history-concurrent", 2, 2)
}

#[test]
fn a_transaction_that_straddles_a_snapshot_is_not_lost() -> Result<()> {
    histories::ends_exactly(shared_full()?, "debezium-capture/straddling-transaction", 1)
}

#[test]
fn a_late_batch_of_an_older_snapshot_changes_nothing() -> Result<()> {
    histories::ends_exactly(shared_full()?, "crafted/late-batch-of-an-older-snapshot", 1)
}

#[test]
fn an_incremental_snapshot_does_not_hide_a_straddling_transaction() -> Result<()> {
    histories::ends_exactly(shared_full()?, "crafted/incremental-then-straddling", 1)
}

#[test]
fn a_partition_without_a_row_of_the_snapshot_is_swept() -> Result<()> {
    histories::ends_exactly(shared_full()?, "crafted/snapshot-without-a-row-here", 2)
}

#[test]
fn a_blocking_snapshot_cut_short_sweeps_nothing() -> Result<()> {
    histories::ends_exactly(shared_full()?, "crafted/blocking-snapshot-cut-short", 1)
}

#[test]
fn offsets_reset_at_rest_are_recognised_and_nothing_is_written() -> Result<()> {
    histories::recognised_after_offset_reset(shared_full()?, "debezium-capture/history")
}

#[test]
fn offsets_reset_under_load_are_recognised_and_no_version_appears_twice() -> Result<()> {
    histories::recognised_after_offset_reset_under_load(shared_full()?, "debezium-capture/history-concurrent")
}

#[test]
fn a_history_reaches_the_target_exactly_with_everything_killed_once() -> Result<()> {
    histories::ends_exactly_in_the_target(shared_full()?, "debezium-capture/history", 2)
}

#[test]
fn two_processes_of_one_instance_do_not_fence_each_other_for_ever() -> Result<()> {
    fencing::two_processes_of_one_instance_do_not_fence_each_other_for_ever(
        shared_full()?,
        "debezium-capture/history-concurrent",
    )
}

#[test]
fn a_rebuilt_output_replaces_the_old_one_in_the_target() -> Result<()> {
    rebuild::replaces_the_old_epoch(shared_full()?, "debezium-capture/history")
}

#[test]
fn bad_input_is_set_aside_byte_for_byte_and_the_rest_goes_on() -> Result<()> {
    bad_input::is_set_aside_byte_for_byte(shared_full()?)
}

#[test]
fn a_live_run_through_the_connector_ends_equal_to_the_source() -> Result<()> {
    live::ends_equal_to_the_source(&NativeStack::full()?, "live")
}

#[test]
fn another_shops_table_with_large_text_goods_ends_equal_to_the_source_through_the_connector() -> Result<()> {
    other_goods::of_another_table_end_equal_to_the_source(
        &NativeOptions::with_one_broker().start()?,
        "shop",
        Format::Json,
    )
}

#[test]
fn other_shops_tables_with_keys_of_integers_and_texts_end_equal_to_the_source_through_the_connector() -> Result<()> {
    other_keys::end_equal_to_the_source(&NativeOptions::with_one_broker().start()?, "keys", Format::Json)
}
