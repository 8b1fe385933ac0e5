//! Runs that process what is there and then end.

use anyhow::{Result, ensure};

use super::{Job, tail};
use crate::client::{History, Replay, expected_remains};
use crate::stack::{RunningProgram, Stack};

/// Processes started with `--until-caught-up` on a loaded topic share the work, end with exit code 0 by themselves, and
/// leave nothing undone: not even movements that one worker's last transaction had for another.
pub fn ends_when_caught_up(stack: &dyn Stack, history: &str, processors: u32, workers: u32) -> Result<()> {
    let job = Job::new(stack, "backfill")?;
    Replay::new(&job.kafka, &job.source_topic, &History::load(history)?)?.write_rest()?;
    let mut programs: Vec<Box<dyn RunningProgram>> = Vec::new();
    for instance in 0..processors {
        programs.push(stack.run(&job.processor(instance).flag("--workers", workers).switch("--until-caught-up"))?);
    }
    for program in &mut programs {
        let exit = program.wait_exit()?;
        ensure!(exit.is_clean(), "{} ended with {exit}:\n{}", program.name(), tail(&program.log()?));
    }
    ensure!(job.is_consumed()?, "the input is not consumed");
    job.check(&expected_remains(history)?)
}
