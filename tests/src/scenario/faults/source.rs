//! Faults of the source database. The stack must be one of its own.

use anyhow::Result;

use super::recovery::Output;
use super::shop::{CONNECTOR, SHORT_OUTAGE, connect, trial};
use crate::stack::{Component, Stack};

/// Killed (−9) in the middle of transactions; the connector's task fails and is restarted, as an operator would.
pub fn killed_under_load(stack: &dyn Stack) -> Result<()> {
    let mut trial = trial(stack, "source-kill")?;
    for _ in 0..2 {
        stack.kill(Component::SourceDatabase)?;
        trial.for_the_length_of(SHORT_OUTAGE)?;
        stack.start(Component::SourceDatabase)?;
        trial.recovers_from("source database killed", Output::Topic);
        stack.wait_healthy(Component::SourceDatabase)?;
        connect(stack)?.keep_running(CONNECTOR)?;
        trial.progress(150)?;
    }
    trial.finish()
}
