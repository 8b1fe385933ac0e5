//! The scenarios on docker compose: the deployment's own containers.
//!
//! Skipped with a notice where there is no container engine; fails instead when `STACK_REQUIRE_COMPOSE` is set.

use anyhow::Result;
use tests::compose::{ComposeStack, available};
use tests::scenario::{bad_input, histories, live};

/// One stack for all, one after the other: a stack takes 2 GB and most of a small machine.
#[test]
fn histories_bad_input_and_a_live_run_end_exactly() -> Result<()> {
    if !available()? {
        return Ok(());
    }
    let stack = ComposeStack::full()?;
    histories::ends_exactly_in_the_target(&stack, "debezium-capture/history", 2)?;
    histories::ends_exactly_despite_kills(&stack, "debezium-capture/history-concurrent", 3, 3)?;
    histories::recognised_after_offset_reset(&stack, "debezium-capture/history")?;
    bad_input::is_set_aside_byte_for_byte(&stack)?;
    live::ends_equal_to_the_source(&stack, "live")
}
