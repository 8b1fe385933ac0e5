//! Faults under load on docker compose; every end is judged by the checker. `make faults BACKEND=compose` runs them.
//!
//! What needs a proxy, fail points or settings of brokers is on the native stack alone (`native_faults`). They share a
//! stack and take turns.

use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Result, anyhow};
use tests::compose::{ComposeOptions, ComposeStack, available};
use tests::scenario::faults::{broker, connect, hostile, processor, sink, source, target};
use tests::stack::Stack;

/// One stack at a time on this machine.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a scenario on the shared stack, healthy as it is then.
fn on_shared(scenario: fn(&dyn Stack) -> Result<()>) -> Result<()> {
    static STACK: OnceLock<std::result::Result<ComposeStack, String>> = OnceLock::new();
    if !available()? {
        return Ok(());
    }
    // A test that failed before may have left anything down.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let start = || ComposeOptions::brokers().with_target_database().start().map_err(|error| format!("{error:#}"));
    let stack = STACK.get_or_init(start).as_ref().map_err(|error| anyhow!("the stack did not start: {error}"))?;
    for component in stack.components() {
        stack.resume(component)?;
        stack.start(component)?;
    }
    stack.wait_all_healthy()?;
    scenario(stack)
}

/// Runs a scenario on a stack of its own, with Connect and the source.
fn on_its_own(scenario: fn(&dyn Stack) -> Result<()>) -> Result<()> {
    if !available()? {
        return Ok(());
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    scenario(&ComposeStack::full()?)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn processors_killed_again_and_again_count_each_change_once() -> Result<()> {
    on_shared(processor::killed_repeatedly)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn a_zombie_processor_adds_nothing_and_takes_nothing_away() -> Result<()> {
    on_shared(processor::a_zombie)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn processors_restarted_in_turn_count_each_change_once() -> Result<()> {
    on_shared(processor::rolling_restart)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn one_processor_made_three_made_one_counts_each_change_once() -> Result<()> {
    on_shared(processor::scaled_out_and_in)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn processors_coming_and_going_all_the_time_count_each_change_once() -> Result<()> {
    on_shared(processor::churn)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn a_state_directory_lost_or_damaged_costs_time_and_no_change() -> Result<()> {
    on_shared(processor::state_directory_lost_or_damaged)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn each_broker_killed_in_turn_costs_no_change() -> Result<()> {
    on_shared(broker::each_killed_in_turn)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn coordinators_of_group_and_transactions_killed_cost_no_change() -> Result<()> {
    on_shared(broker::coordinators_killed)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn two_of_three_brokers_down_stop_everything_and_cost_no_change() -> Result<()> {
    on_shared(broker::two_of_three_down)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn all_brokers_down_stop_everything_and_cost_no_change() -> Result<()> {
    on_shared(broker::all_down)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn a_broker_that_sleeps_and_wakes_believing_it_leads_costs_no_change() -> Result<()> {
    on_shared(broker::paused)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn a_target_killed_in_mid_upsert_and_down_for_long_ends_exact() -> Result<()> {
    on_shared(target::killed_and_down_for_long)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn a_target_replaced_by_an_earlier_copy_under_load_catches_up() -> Result<()> {
    on_shared(target::restored_from_an_earlier_copy)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn sinks_killed_again_and_again_write_each_total_once() -> Result<()> {
    on_shared(sink::killed_repeatedly)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn a_zombie_sink_moves_no_good_backwards() -> Result<()> {
    on_shared(sink::a_zombie)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn offsets_of_the_sinks_reset_to_beginning_and_end_change_nothing() -> Result<()> {
    on_shared(sink::group_offsets_reset)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn poison_of_every_kind_under_faults_is_set_aside_once_and_blocks_nothing() -> Result<()> {
    on_shared(hostile::poison_under_faults)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn connect_killed_before_its_offsets_are_flushed_under_load_costs_no_change() -> Result<()> {
    on_its_own(connect::killed_under_load)
}

#[test]
#[ignore = "make faults BACKEND=compose"]
fn a_source_database_killed_under_load_costs_no_change() -> Result<()> {
    on_its_own(source::killed_under_load)
}
