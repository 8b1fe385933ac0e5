//! A random mix of faults under load, from a seed, and everything exact in the end.
//!
//! Every few seconds something goes wrong: programs are killed, told to stop, frozen past their session and woken as
//! zombies, their state is damaged, brokers go one by one or all at once, databases die. Faults overlap. When the last one
//! is over and every partition has gone on, the load ends, everything has to arrive, and the whole checker judges, the
//! reader that ran all the time included.
//!
//! The seed decides on faults and load. What happens between them is up to the machine: a seed that failed once fails
//! again often, not always.
//!
//! Layout:
//! - `schedule`: which faults come when, pure
//! - `stage`: faults done and undone on a stack

mod schedule;
mod stage;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::schedule::{Cast, Planned, plan};
use self::stage::Stage;
use super::super::Job;
use super::super::workload::{TopicWork, Workload};
use super::recovery::{Recovered, table};
use super::trial::SINKS;
use super::{Trial, shop};
use crate::checker::{self, Facts, Topic, report};
use crate::stack::{Component, Stack};

/// Where the changes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Straight into the input topic, with older records again every now and then.
    Topic,
    /// From the source table through the connector; Connect and the source are hurt, too.
    Table,
}

/// What a mix is made of.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Decides on faults and load.
    pub seed: u64,
    /// How long faults come. Start and end take a minute or two more.
    pub length: Duration,
    /// Where the changes come from.
    pub source: Source,
}

/// Processors that run all the time: one more than is hurt at most times, or little would ever be processed.
const PROCESSORS: u32 = 3;

/// Twice the usual: the more is under way, the more of the faults hit something.
const STEPS_PER_SECOND: u32 = 4;

impl Mix {
    /// As the environment says: `CHAOS_SECONDS`, `CHAOS_SEED` (any if not given), `CHAOS_SOURCE` (topic, table).
    pub fn from_environment(seconds: u64, source: Source) -> Result<Self> {
        let number = |name: &str| -> Result<Option<u64>> {
            // Make passes on what it was not told as nothing.
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            value.map(|value| value.parse().with_context(|| format!("{name}={value} is no number"))).transpose()
        };
        let source = match std::env::var("CHAOS_SOURCE").unwrap_or_default().as_str() {
            "" => source,
            "topic" => Source::Topic,
            "table" => Source::Table,
            other => bail!("CHAOS_SOURCE={other} is neither topic nor table"),
        };
        Ok(Self {
            seed: number("CHAOS_SEED")?.unwrap_or_else(|| fastrand::u64(..)),
            length: Duration::from_secs(number("CHAOS_SECONDS")?.unwrap_or(seconds)),
            source,
        })
    }

    /// Does it all. The stack must be one of its own, with Connect and both databases where the source is the table.
    pub fn run(self, stack: &dyn Stack) -> Result<()> {
        let (backend, seed, seconds) = (stack.backend(), self.seed, self.length.as_secs());
        let source = match self.source {
            Source::Topic => "topic",
            Source::Table => "table",
        };
        let again = format!("make chaos BACKEND={backend} SECONDS={seconds} SEED={seed} SOURCE={source}");
        tell(format_args!("begins: {again}"));
        self.run_from_seed(stack).inspect_err(|_| tell(format_args!("FAILED; to run it again: {again}"))).context(again)
    }

    fn run_from_seed(self, stack: &dyn Stack) -> Result<()> {
        let trial = match self.source {
            Source::Topic => {
                let job = Job::for_workload(stack, "mix")?;
                let workload = Workload::new(self.seed);
                let work = TopicWork::new(job.kafka.clone(), job.source_topic.clone(), workload)
                    .with_steps_per_second(STEPS_PER_SECOND);
                Trial::under(job, Box::new(work), PROCESSORS)?
            }
            Source::Table => shop::trial_of(stack, "mix", self.seed, PROCESSORS)?,
        };
        let is_hurt = |component: &Component| match component {
            Component::Broker(_) | Component::TargetDatabase => true,
            Component::Connect | Component::SourceDatabase => self.source == Source::Table,
            Component::Registry => false,
        };
        let servers = stack.components().into_iter().filter(is_hurt).collect();
        let cast = Cast { processors: usize::try_from(PROCESSORS)?, sinks: SINKS, servers };
        let planned = plan(self.seed, &cast, self.length);
        let mut stage = Stage::new(stack, trial, cast)?;
        if let Err(error) = stage.play(&planned).and_then(|()| stage.calm()) {
            tell(format_args!("{error}; what the checker finds now, with nothing drained:"));
            tell(stage.autopsy().unwrap_or_else(|error| format!("nothing: {error:#}")));
            return Err(error);
        }
        let (trial, _operator) = stage.into_parts();
        let restarts = trial.restarts();
        let draining = Instant::now();
        let (_, facts, recovered) = trial.end_measured()?;
        let drained = draining.elapsed();
        let findings = checker::check(&facts);
        tell(figures(&planned, &facts, restarts, &recovered));
        if !findings.is_empty() {
            bail!("not exact:\n{}", report(&findings));
        }
        tell(format_args!("exact; drained, collected and judged in {:.0} s", drained.as_secs_f64()));
        Ok(())
    }
}

/// What happened, and how long it took to recover.
fn figures(planned: &[Planned], facts: &Facts, restarts: usize, recovered: &[Recovered]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for planned in planned {
        *kinds.entry(planned.fault.kind()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    let (input, deltas) = (facts.input.committed.len(), facts.deltas.committed.len());
    let aborted = |topic: &Topic| topic.uncommitted.len().saturating_sub(topic.committed.len());
    let aborted: usize = facts.topics().into_iter().map(aborted).sum();
    format!(
        "{input} records of the input, {deltas} stock deltas, {aborted} aborted records; {} faults ({}); programs that \
         ended by themselves and were restarted: {restarts}\n\
         All faults, delayed by each other as they came:\n{}\
         Those that nothing else delayed:\n{}",
        planned.len(),
        kinds.join(", "),
        table(recovered),
        table(recovered.iter().filter(|recovered| recovered.alone))
    )
}

/// Tells one line on standard error itself: what goes through the print macros is captured by the test harness.
fn tell(message: impl Display) {
    // A closed standard error is no reason to fail.
    let _best_effort = writeln!(std::io::stderr().lock(), "[mix] {message}");
}
