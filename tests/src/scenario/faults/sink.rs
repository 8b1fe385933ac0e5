//! Faults of sinks.

use anyhow::{Context as _, Result};

use super::recovery::Output;
use super::{SESSION_TIMEOUT, Trial};
use crate::client::ResetTo;
use crate::stack::{Program, Stack, wait_until};

const SINK: Program = Program::Sink;

/// Killed (−9) again and again, both at the same time in the end.
pub fn killed_repeatedly(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "sink-kill")?;
    for kill in 0..4 {
        target_moves(&mut trial)?;
        trial.kill(SINK, kill % 2)?;
        trial.up(SINK, kill % 2)?;
    }
    trial.kill(SINK, 0)?;
    trial.kill(SINK, 1)?;
    trial.progress(100)?;
    trial.finish()
}

/// Two of one group: each leaves in good order and comes back while the other goes on, and partitions go to and fro.
pub fn two_of_one_group_hand_over(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "sink-handover")?;
    for instance in [0, 1, 0, 1] {
        trial.terminate(SINK, instance)?;
        target_moves(&mut trial)?;
        trial.up(SINK, instance)?;
        trial.progress(100)?;
        target_moves(&mut trial)?;
    }
    trial.finish()
}

/// Stopped (SIGSTOP) until the other one has its partitions, then set going again with an old batch in its hands.
pub fn a_zombie(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "sink-zombie")?;
    for victim in 0..2 {
        trial.running(SINK, victim)?.pause()?;
        trial.for_the_length_of(2 * SESSION_TIMEOUT)?;
        target_moves(&mut trial)?;
        trial.running(SINK, victim)?.resume()?;
        trial.recovers_from("sink asleep", Output::Target);
        target_moves(&mut trial)?;
    }
    trial.finish()
}

/// The group's offsets set to the beginning and to the end: the sink's progress is in the target, and counts alone.
pub fn group_offsets_reset(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "sink-reset")?;
    for to in [ResetTo::Beginning, ResetTo::End] {
        trial.kill(SINK, 0)?;
        trial.kill(SINK, 1)?;
        trial.progress(100)?;
        let group = trial.job.sink_group();
        trial.job.kafka.reset_group_offsets(&group, &trial.job.topic("deltas"), to)?;
        trial.up(SINK, 0)?;
        trial.up(SINK, 1)?;
        trial.recovers_from("offsets of the sinks reset", Output::Target);
        target_moves(&mut trial)?;
    }
    trial.finish()
}

/// Waits until the target shows a change.
pub(super) fn target_moves(trial: &mut Trial<'_>) -> Result<()> {
    let target = trial.job.target()?.clone();
    let written = || -> Result<Option<String>> {
        let rows = target.rows("SELECT coalesce(sum(version), 0) FROM remains.remains");
        // Not there yet, or not back yet.
        let Ok(rows) = rows else { return Ok(None) };
        rows.into_iter().next().and_then(|row| row.into_iter().next()).context("no sum")
    };
    let mut before = None;
    wait_until("the target to move", || {
        let now = written()?;
        let moved = before.is_some() && now.is_some() && now != before;
        before = before.take().or(now);
        Ok(moved)
    })
}
