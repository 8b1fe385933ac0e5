//! Faults under load on the native stack; every end is judged by the checker.
//!
//! Three stacks: on one only programs are mistreated, so that its tests run beside each other; on another the brokers and the
//! target are, on the third the network is, and their tests take turns. Those that hurt Connect or the source have
//! their own. `WORKLOAD_SEED` repeats a workload; `make faults` tells how long recovery took, `CHAOS_MINUTES` makes the churn longer.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Result, anyhow};
use tests::native::{NativeOptions, NativeStack};
use tests::proxy::Proxy;
use tests::scenario::faults::{
    broker, connect, disk, fail_points, hostile, network, outage, processor, refused, sink, source, target, zombie,
};
use tests::stack::Stack as _;

type Shared<T> = OnceLock<std::result::Result<T, String>>;

/// A broker and the target, which nobody hurts. Two more brokers would copy what it writes, and more than double the
/// processor time of a test.
fn shared() -> Result<&'static NativeStack> {
    static STACK: Shared<NativeStack> = OnceLock::new();
    // Some thirty tests share it: the optimising compiler has the time to pay here, as it has not elsewhere (not measured).
    let options = NativeOptions::brokers(1).with_target_database().optimising_compiler();
    let start = || options.start().map_err(|error| format!("{error:#}"));
    STACK.get_or_init(start).as_ref().map_err(|error| anyhow!("the shared stack did not start: {error}"))
}

/// Three brokers and the target, to be hurt by one test at a time; healthy again when the next one gets it.
fn hurt() -> Result<MutexGuard<'static, NativeStack>> {
    static STACK: Shared<Mutex<NativeStack>> = OnceLock::new();
    let start = || NativeOptions::brokers(3).with_target_database().start().map(Mutex::new);
    let stack = STACK.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    let stack = stack.as_ref().map_err(|error| anyhow!("the stack to be hurt did not start: {error}"))?;
    // A test that failed before may have left anything down.
    let stack = stack.lock().unwrap_or_else(PoisonError::into_inner);
    for component in stack.components() {
        stack.resume(component).or_else(|_| stack.start(component))?;
        stack.start(component)?;
    }
    stack.wait_all_healthy()?;
    Ok(stack)
}

/// Three brokers behind a proxy, and the target; one test at a time goes through the proxy.
fn proxied() -> Result<(MutexGuard<'static, NativeStack>, Proxy)> {
    static STACK: Shared<Mutex<NativeStack>> = OnceLock::new();
    let start = || {
        let options = NativeOptions::brokers(3).with_target_database().with_proxied_listener();
        options.start().map(Mutex::new).map_err(|error| format!("{error:#}"))
    };
    let stack = STACK.get_or_init(start).as_ref().map_err(|error| anyhow!("the stack did not start: {error}"))?;
    // Nobody hurts its servers.
    let stack = stack.lock().unwrap_or_else(PoisonError::into_inner);
    let proxy = stack.proxy()?;
    Ok((stack, proxy))
}

#[test]
fn processors_killed_again_and_again_count_each_change_once() -> Result<()> {
    processor::killed_repeatedly(shared()?)
}

#[test]
fn a_zombie_processor_adds_nothing_and_takes_nothing_away() -> Result<()> {
    processor::a_zombie(shared()?)
}

#[test]
fn a_processor_killed_at_every_step_of_a_transaction_counts_each_change_once() -> Result<()> {
    fail_points::killed_at_every_step_of_a_transaction(shared()?)
}

#[test]
fn a_processor_killed_at_every_step_of_a_takeover_counts_each_change_once() -> Result<()> {
    fail_points::killed_at_every_step_of_a_takeover(shared()?)
}

#[test]
fn a_processor_asleep_between_offsets_and_commit_counts_each_change_once() -> Result<()> {
    fail_points::asleep_around_a_commit(shared()?)
}

#[test]
fn a_processor_killed_in_abort_rebuild_and_purge_counts_each_change_once() -> Result<()> {
    fail_points::killed_in_abort_rebuild_and_purge(shared()?)
}

#[test]
fn a_call_that_never_returns_ends_the_process_with_its_code_and_costs_no_change() -> Result<()> {
    fail_points::a_call_that_never_returns(shared()?)
}

#[test]
fn a_zombie_told_to_stop_before_it_wakes_adds_nothing() -> Result<()> {
    processor::a_zombie_told_to_stop(shared()?)
}

#[test]
fn a_zombie_with_local_movements_only_adds_nothing() -> Result<()> {
    zombie::asleep_with_local_movements(shared()?)
}

#[test]
fn a_zombie_with_a_sweep_chunk_only_adds_nothing() -> Result<()> {
    zombie::asleep_with_a_sweep_chunk(shared()?)
}

#[test]
fn a_zombie_whose_movements_lie_with_a_slow_leader_adds_nothing() -> Result<()> {
    let (stack, proxy) = proxied()?;
    zombie::asleep_with_repartitioned_movements(&*stack, &proxy)
}

#[test]
fn static_members_restarted_cause_no_rebalance() -> Result<()> {
    processor::static_members_restarted(shared()?)
}

#[test]
fn processors_restarted_in_turn_count_each_change_once() -> Result<()> {
    processor::rolling_restart(shared()?)
}

#[test]
fn one_processor_made_three_made_one_counts_each_change_once() -> Result<()> {
    processor::scaled_out_and_in(shared()?)
}

#[test]
fn processors_coming_and_going_all_the_time_count_each_change_once() -> Result<()> {
    processor::churn(shared()?)
}

#[test]
fn a_state_directory_lost_or_damaged_costs_time_and_no_change() -> Result<()> {
    processor::state_directory_lost_or_damaged(shared()?)
}

#[test]
fn a_foreign_state_directory_is_refused_left_alone_and_costs_no_change() -> Result<()> {
    processor::a_foreign_state_directory(shared()?)
}

#[test]
fn each_broker_killed_in_turn_costs_no_change() -> Result<()> {
    broker::each_killed_in_turn(&*hurt()?)
}

#[test]
fn brokers_restarted_in_turn_cost_no_change() -> Result<()> {
    broker::rolling_restart(&*hurt()?)
}

#[test]
fn coordinators_of_group_and_transactions_killed_cost_no_change() -> Result<()> {
    broker::coordinators_killed(&*hurt()?)
}

#[test]
fn two_of_three_brokers_down_stop_everything_and_cost_no_change() -> Result<()> {
    broker::two_of_three_down(&*hurt()?)
}

#[test]
fn all_brokers_down_stop_everything_and_cost_no_change() -> Result<()> {
    broker::all_down(&*hurt()?)
}

#[test]
fn a_broker_that_sleeps_and_wakes_believing_it_leads_costs_no_change() -> Result<()> {
    broker::paused(&*hurt()?)
}

#[test]
fn a_target_killed_in_mid_upsert_and_down_for_long_ends_exact() -> Result<()> {
    target::killed_and_down_for_long(&*hurt()?)
}

#[test]
fn a_target_replaced_by_an_earlier_copy_under_load_catches_up() -> Result<()> {
    target::restored_from_an_earlier_copy(shared()?)
}

#[test]
fn a_target_away_for_longer_than_a_poll_may_last_ends_exact() -> Result<()> {
    target::away_for_longer_than_a_poll_may_last(&*hurt()?)
}

#[test]
fn a_target_that_lost_its_last_commits_catches_up() -> Result<()> {
    target::failed_over_with_the_last_commits_lost(&*hurt()?)
}

#[test]
fn sinks_killed_again_and_again_write_each_total_once() -> Result<()> {
    sink::killed_repeatedly(shared()?)
}

#[test]
fn a_zombie_sink_moves_no_good_backwards() -> Result<()> {
    sink::a_zombie(shared()?)
}

#[test]
fn two_sinks_of_one_group_hand_partitions_to_each_other() -> Result<()> {
    sink::two_of_one_group_hand_over(shared()?)
}

#[test]
fn offsets_of_the_sinks_reset_to_beginning_and_end_change_nothing() -> Result<()> {
    sink::group_offsets_reset(shared()?)
}

#[test]
fn poison_of_every_kind_under_faults_is_set_aside_once_and_blocks_nothing() -> Result<()> {
    hostile::poison_under_faults(shared()?)
}

#[test]
fn a_full_disk_stops_one_processor_and_costs_no_change() -> Result<()> {
    disk::full(shared()?)
}

#[test]
fn an_outage_longer_than_every_timeout_costs_no_change() -> Result<()> {
    outage::longer_than_every_timeout(&outage::options().start()?)
}

#[test]
fn input_truncated_before_it_was_read_is_refused_and_a_new_snapshot_repairs_it() -> Result<()> {
    refused::input_truncated_before_it_was_read(shared()?)
}

#[test]
fn an_input_created_again_is_refused_and_a_rebuild_repairs_it() -> Result<()> {
    refused::input_created_again(shared()?)
}

#[test]
fn a_lost_changelog_is_refused_and_a_rebuild_repairs_it() -> Result<()> {
    refused::changelog_lost(shared()?)
}

#[test]
fn group_offsets_moved_forward_are_refused_and_setting_them_back_repairs_it() -> Result<()> {
    refused::offsets_moved_forward(shared()?)
}

#[test]
fn an_input_made_compact_is_refused_until_it_is_undone() -> Result<()> {
    refused::input_made_compact(shared()?)
}

#[test]
fn a_changed_partition_count_is_refused_and_a_rebuild_repairs_it() -> Result<()> {
    refused::partition_count_changed(shared()?)
}

#[test]
fn another_form_of_record_keys_is_refused_and_a_new_topic_repairs_it() -> Result<()> {
    refused::key_encoding_switched(shared()?)
}

#[test]
fn expired_group_offsets_are_refused_and_setting_them_to_the_beginning_repairs_it() -> Result<()> {
    refused::group_offsets_expired(&refused::forgetful_options().start()?)
}

#[test]
fn brokers_that_lost_the_last_second_are_refused_and_a_new_topic_repairs_it() -> Result<()> {
    let stack = hurt()?;
    refused::brokers_lost_the_last_second(&*stack, stack.directory())
}

#[test]
fn connect_killed_before_its_offsets_are_flushed_under_load_costs_no_change() -> Result<()> {
    connect::killed_under_load(&NativeOptions::with_one_broker().start()?)
}

#[test]
fn connect_killed_after_an_offset_flush_goes_on_without_a_snapshot() -> Result<()> {
    let flushes = std::time::Duration::from_secs(2);
    connect::killed_after_an_offset_flush(&NativeOptions::with_one_broker().offset_flush_interval(flushes).start()?)
}

#[test]
fn a_connector_deleted_and_created_again_costs_no_change() -> Result<()> {
    let flushes = std::time::Duration::from_secs(2);
    connect::deleted_and_created_again(&NativeOptions::with_one_broker().offset_flush_interval(flushes).start()?)
}

#[test]
fn snapshots_on_demand_under_load_killed_half_way_cost_no_change() -> Result<()> {
    connect::snapshots_on_demand(&NativeOptions::with_one_broker().start()?)
}

#[test]
fn the_only_row_of_a_partition_deleted_while_connect_was_away_is_taken_off() -> Result<()> {
    connect::the_only_row_of_a_partition_deleted_while_away(&NativeOptions::with_one_broker().start()?)
}

#[test]
fn a_source_database_killed_under_load_costs_no_change() -> Result<()> {
    source::killed_under_load(&NativeOptions::with_one_broker().start()?)
}

#[test]
fn a_long_transaction_and_one_of_100_000_rows_count_each_change_once() -> Result<()> {
    source::long_and_large_transactions(&NativeOptions::with_one_broker().start()?)
}

#[test]
fn a_commit_delivered_late_is_refused() -> Result<()> {
    let (stack, proxy) = proxied()?;
    network::commit_delivered_late(&*stack, &proxy)
}

#[test]
fn a_commit_delivered_after_its_sender_was_killed_is_refused() -> Result<()> {
    let (stack, proxy) = proxied()?;
    network::commit_delivered_after_its_sender_was_killed(&*stack, &proxy)
}

#[test]
fn records_and_offsets_delivered_late_cost_no_change() -> Result<()> {
    let (stack, proxy) = proxied()?;
    network::anything_else_delivered_late(&*stack, &proxy)
}

#[test]
fn offsets_of_an_earlier_transaction_delivered_again_cost_no_change() -> Result<()> {
    let (stack, proxy) = proxied()?;
    network::offsets_of_an_earlier_transaction_delivered_again(&*stack, &proxy)
}

#[test]
fn lost_answers_to_commits_cost_no_change() -> Result<()> {
    let (stack, proxy) = proxied()?;
    network::answers_to_commits_lost(&*stack, &proxy)
}

#[test]
fn a_processor_cut_off_from_one_broker_costs_no_change() -> Result<()> {
    let (stack, proxy) = proxied()?;
    network::cut_off_from_one_broker(&*stack, &proxy)
}

#[test]
fn a_processor_cut_off_from_its_coordinators_costs_no_change() -> Result<()> {
    let (stack, proxy) = proxied()?;
    network::cut_off_from_the_coordinators(&*stack, &proxy)
}

#[test]
fn a_processor_cut_off_from_all_brokers_costs_no_change() -> Result<()> {
    let (stack, proxy) = proxied()?;
    network::cut_off_from_all_brokers(&*stack, &proxy)
}
