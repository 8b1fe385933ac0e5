//! Input that cannot be applied, while programs are mistreated.

use anyhow::{Result, ensure};

use super::super::Job;
use super::super::poison::{PoisonedWork, check_dead_letters};
use super::super::workload::{TopicWork, Workload};
use super::{SESSION_TIMEOUT, Trial};
use crate::checker::{check, report};
use crate::stack::{Program, Stack};

const PROCESSOR: Program = Program::Processor;

/// One record in a hundred is poison, of every kind in turn; processors are killed, sleep and wake as zombies, sinks are
/// killed. Each poison record is set aside once, as what it is, and what stands behind it counts.
pub fn poison_under_faults(stack: &dyn Stack) -> Result<()> {
    let job = Job::for_workload(stack, "poison")?;
    let workload = Workload::new(Workload::any_seed());
    let work = TopicWork::new(job.kafka.clone(), job.source_topic.clone(), workload);
    let mut trial = Trial::under(job, Box::new(PoisonedWork::new(work)), 2)?;
    for victim in [0, 1] {
        trial.kill(PROCESSOR, victim)?;
        trial.up(PROCESSOR, victim)?;
        trial.progress(300)?;
        trial.kill(Program::Sink, victim)?;
        trial.running(PROCESSOR, 1 - victim)?.pause()?;
        trial.for_the_length_of(2 * SESSION_TIMEOUT)?;
        trial.running(PROCESSOR, 1 - victim)?.resume()?;
        trial.up(Program::Sink, victim)?;
        trial.progress(300)?;
    }
    let (seed, facts) = trial.end()?;
    let findings = check(&facts);
    ensure!(findings.is_empty(), "with WORKLOAD_SEED={seed}:\n{}", report(&findings));
    check_dead_letters(&facts)
}
