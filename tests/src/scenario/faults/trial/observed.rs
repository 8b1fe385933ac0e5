//! What the programs of a trial say and run.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Trial;
use crate::stack::{Program, wait_for, wait_until};

impl Trial<'_> {
    /// Waits until the log of this run of a program says something.
    pub fn until_logged(&mut self, program: Program, instance: usize, words: &str) -> Result<()> {
        self.until_logged_times(program, instance, words, 1)
    }

    /// As [`Trial::until_logged`], so many times.
    pub fn until_logged_times(&mut self, program: Program, instance: usize, words: &str, times: usize) -> Result<()> {
        let before = self.slot(program, instance)?.logged_before;
        let came = wait_until(format!("{words:?} of {program} {instance}"), || {
            self.tend()?;
            let log = self.log(program, instance)?;
            Ok(log.get(before..).is_some_and(|log| log.matches(words).count() >= times))
        });
        self.with_logs(came)
    }

    /// Waits until a processor runs so many partitions of one step.
    pub fn until_runs(&mut self, instance: usize, stage: &str, count: usize) -> Result<()> {
        let came = wait_until(format!("processor {instance} to run {count} {stage} partitions"), || {
            self.tend()?;
            Ok(self.runs(instance, stage)?.len() >= count)
        });
        self.with_logs(came)
    }

    /// How often the processors or sinks that run have logged something, in all their runs.
    pub(in crate::scenario::faults) fn times_logged(&self, program: Program, words: &str) -> Result<usize> {
        let running =
            self.programs.iter().filter(|slot| slot.spec.program == program).filter_map(|slot| slot.running.as_ref());
        running.map(|running| Ok(running.log()?.matches(words).count())).sum()
    }

    /// Of two processors one that reads from the input, and the other one, which runs movements then. The group may have given
    /// one of them all of the input and the other one all movements.
    pub(in crate::scenario::faults) fn reader_and_other(&mut self) -> Result<(usize, usize)> {
        let partitions = |topic: &str| Ok::<_, anyhow::Error>(self.job.kafka.partitions(topic)?.len());
        let (sources, movements) = (partitions(&self.job.source_topic)?, partitions(&self.job.topic("movements"))?);
        let came = wait_for("one processor to read from the input, and the other one to run movements", || {
            self.tend()?;
            let [first, second] = [0, 1].map(|instance| {
                Ok::<_, anyhow::Error>((self.runs(instance, "source")?.len(), self.runs(instance, "movements")?.len()))
            });
            let (first, second) = (first?, second?);
            // One that has only just lost partitions may still tell of them.
            if (first.0 + second.0, first.1 + second.1) != (sources, movements) {
                return Ok(None);
            }
            let is_pair = |reader: (usize, usize), other: (usize, usize)| reader.0 > 0 && other.1 > 0;
            Ok(if is_pair(first, second) {
                Some((0, 1))
            } else if is_pair(second, first) {
                Some((1, 0))
            } else {
                None
            })
        });
        self.with_logs(came)
    }

    /// The partitions of one step (`source`, `movements`) that a processor runs at the moment, as its metrics tell: none while it
    /// has only just been started, and does not answer yet.
    pub fn runs(&mut self, instance: usize, stage: &str) -> Result<BTreeSet<i32>> {
        let address = self.running(Program::Processor, instance)?.http_address();
        let Ok(mut answer) = ureq::get(format!("http://{address}/metrics")).call() else { return Ok(BTreeSet::new()) };
        let metrics = answer.body_mut().read_to_string()?;
        let running = |line: &str| {
            let rest = line.strip_prefix("processor_partition_running{")?;
            let (labels, value) = rest.split_once("} ")?;
            let label = |name: &str| labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
            let is_of_stage = label("stage")?.trim_end_matches('"') == stage;
            let partition = label("partition")?.trim_end_matches('"').parse().ok()?;
            (is_of_stage && value.trim() == "1").then_some(partition)
        };
        Ok(metrics.lines().filter_map(running).collect())
    }
}
