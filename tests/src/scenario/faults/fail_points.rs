//! A processor that ends, or falls asleep, at each numbered step of its loop (docs/ARCHITECTURE.md, "One transaction").

use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::tail;
use super::super::workload::Workload;
use super::{SESSION_TIMEOUT, Trial};
use crate::stack::{FailAction, Program, Stack};

/// Every step of a transaction, in order, and at most how often it is passed before it is the last thing that happens.
const STEPS: [(&str, u64); 8] = [
    ("gather-processed", 200),
    ("commit-begun", 20),
    ("commit-completed", 20),
    ("commit-offsets-sent", 20),
    ("commit-flushed", 20),
    ("commit-acknowledged", 20),
    ("store-partition-applied", 60),
    ("store-applied", 20),
];

/// Those around a transaction: how a partition comes, is restored, and goes. Passed by each partition of a processor, which
/// are five for each of two.
const AROUND: [(&str, u64); 4] =
    [("assign-opened", 4), ("restore-replayed", 4), ("restore-started", 4), ("revoke-settled", 1)];

/// Killed (−9) at every step of a transaction, in one of its first passes after a restart.
pub fn killed_at_every_step_of_a_transaction(stack: &dyn Stack) -> Result<()> {
    killed_at(stack, "step-kill", &STEPS)
}

/// Killed (−9) while partitions are taken over, restored and given up.
pub fn killed_at_every_step_of_a_takeover(stack: &dyn Stack) -> Result<()> {
    killed_at(stack, "takeover-kill", &AROUND)
}

/// Killed between the steps where something is decided: before the commit, after it, and with half of the state written.
pub fn killed_around_a_commit(stack: &dyn Stack) -> Result<()> {
    killed_at(
        stack,
        "commit-kill",
        &[("commit-flushed", 20), ("commit-acknowledged", 20), ("store-partition-applied", 60)],
    )
}

/// Asleep for longer than its session, and woken as a zombie: with offsets sent and nothing committed, and with a commit
/// acknowledged that its state does not know of.
pub fn asleep_around_a_commit(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "step-sleep")?;
    for (step, pass) in [("commit-completed", 15), ("commit-offsets-sent", 15), ("commit-acknowledged", 15)] {
        trial.up_with_fail_point(0, step, FailAction::Stop, pass)?;
        let asleep = format!("fail point {step}: {}", FailAction::Stop);
        trial.until_logged(Program::Processor, 0, &asleep)?;
        trial.until_out_of_the_group(0)?;
        trial.progress(100)?;
        trial.running(Program::Processor, 0)?.resume()?;
        trial.progress(100)?;
    }
    trial.finish()
}

/// Killed (−9) when its transaction is aborted after it was put out of the group; when its producers are built anew after
/// its transaction has timed out; and when it has had consumed movements deleted.
pub fn killed_in_abort_rebuild_and_purge(stack: &dyn Stack) -> Result<()> {
    const PROCESSOR: Program = Program::Processor;
    let mut trial = Trial::start(stack, "recovery-kill")?;
    let longer_than_a_transaction = 5 * SESSION_TIMEOUT;
    // What was not told to the brokers before it slept is being told when it aborts, and librdkafka may then call the abort
    // fatal (INVALID_TXN_STATE); the producers are built anew in that case.
    let (either, rebuild) =
        (["abort-acknowledged", "rebuild-initialised"].as_slice(), ["rebuild-initialised"].as_slice());
    for (asleep_at, asleep, killed_at) in [
        ("commit-begun", Duration::ZERO, either),
        ("commit-completed", Duration::ZERO, either),
        ("commit-offsets-sent", longer_than_a_transaction, rebuild),
        ("commit-flushed", longer_than_a_transaction, rebuild),
    ] {
        // Only after the sleep: a rebalance may well cause an abort before.
        let killed = killed_at.join(":kill:1,");
        trial.up_with_fail_points(0, &format!("{asleep_at}:stop:15;{killed}:kill:1"))?;
        trial.until_logged(PROCESSOR, 0, &format!("fail point {asleep_at}: stop"))?;
        trial.until_out_of_the_group(0)?;
        trial.for_the_length_of(asleep)?;
        trial.running(PROCESSOR, 0)?.resume()?;
        trial.killed_by_fail_point(0, &killed_at.join(" or "))?;
        trial.progress(100)?;
    }
    for pass in [1, 3] {
        // Alone, because only who runs movements purges them.
        trial.up(PROCESSOR, 1)?;
        trial.progress(100)?;
        trial.terminate(PROCESSOR, 1)?;
        trial.up_with_fail_point(0, "purge-requested", FailAction::Kill, pass)?;
        trial.killed_by_fail_point(0, "purge-requested")?;
    }
    trial.up(PROCESSOR, 1)?;
    trial.up(PROCESSOR, 0)?;
    trial.progress(100)?;
    trial.finish()
}

/// A call never returns: the watchdog ends the process with its own code, and the group goes on without it.
pub fn a_call_that_never_returns(stack: &dyn Stack) -> Result<()> {
    const WATCHDOG: i32 = 5;
    let mut trial = Trial::start(stack, "watchdog")?;
    for hung_at in ["commit-completed", "commit-acknowledged"] {
        loop {
            trial.up_as(0, |spec| {
                let spec = spec.flag("--watchdog-seconds", 20).env("FAIL_POINT", format!("{hung_at}:hang:15"));
                crate::stack::ProgramSpec { with_fail_points: true, ..spec }
            })?;
            let (exit, log) = trial.ended(Program::Processor, 0)?;
            let by_the_watchdog = exit.code == Some(WATCHDOG) && log.contains("WATCHDOG");
            ensure!(by_the_watchdog, "ended with {exit}, not by the watchdog:\n{}", tail(&log));
            // It is impatient here: a start on a busy machine may take it that long.
            if log.contains(&format!("fail point {hung_at}: hang")) {
                break;
            }
        }
        trial.progress(100)?;
        trial.up(Program::Processor, 0)?;
        trial.progress(100)?;
    }
    trial.finish()
}

fn killed_at(stack: &dyn Stack, name: &str, steps: &[(&str, u64)]) -> Result<()> {
    let mut trial = Trial::start(stack, name)?;
    let mut random = fastrand::Rng::with_seed(Workload::any_seed());
    for (step, passes) in steps {
        trial.up_with_fail_point(0, step, FailAction::Kill, random.u64(1..=*passes))?;
        if *step == "revoke-settled" {
            // Somebody else comes, so that something is taken away.
            trial.until_logged(Program::Processor, 0, "partition running")?;
            trial.add_processor()?;
        }
        trial.killed_by_fail_point(0, step)?;
    }
    trial.up(Program::Processor, 0)?;
    trial.progress(200)?;
    trial.finish()
}
