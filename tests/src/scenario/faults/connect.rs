//! Faults of Kafka Connect. The stack must be one of its own.

use anyhow::Result;

use super::recovery::Output;
use super::shop::{CONNECTOR, SHORT_OUTAGE, connect, trial};
use crate::stack::{Component, Stack};

/// Killed (−9) before its first offset flush, under load: it snapshots again, rows deleted meanwhile are simply missing,
/// and transactions are open across the snapshot. Killed once more soon after.
pub fn killed_under_load(stack: &dyn Stack) -> Result<()> {
    let mut trial = trial(stack, "connect-kill")?;
    for _ in 0..2 {
        stack.kill(Component::Connect)?;
        trial.for_the_length_of(SHORT_OUTAGE)?;
        stack.start(Component::Connect)?;
        trial.recovers_from("Connect killed", Output::Topic);
        stack.wait_healthy(Component::Connect)?;
        connect(stack)?.wait_running(CONNECTOR)?;
        trial.progress(150)?;
    }
    trial.finish()
}
