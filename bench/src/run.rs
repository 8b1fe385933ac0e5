//! One throughput run: a loaded topic, a fresh application on it, read back and verified.

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::bench::Bench;
use crate::limit::Limit;
use crate::load::Loaded;
use crate::machine::busy_s;
use crate::process::{Process, Usage, cpu_seconds};
use crate::statistics::{number, rate};
use crate::systems::{Application, System};
use crate::verify::{Reader, Verifier};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// What ran.
    pub system: String,
    /// What for: the part, and what is special about the load.
    pub purpose: String,
    /// Events on the topic.
    pub events: u64,
    /// From the first output visible to everything right, in seconds.
    pub first_to_right_s: f64,
    /// From the start of the process to everything right, in seconds.
    pub start_to_right_s: f64,
    /// Events per second between first output and everything right.
    pub events_per_s: f64,
    /// Events per second of CPU time, the process's start included.
    pub events_per_cpu_s: f64,
    /// CPU time everybody else used meanwhile, in seconds: the brokers', on a machine where nothing else runs. This
    /// program's own, which verifies, is not in it.
    pub brokers_cpu_s: f64,
    /// CPU time of this program meanwhile, in seconds.
    pub verifier_cpu_s: f64,
    /// Records of the output.
    pub output_records: u64,
    /// CPU time and memory when everything was right.
    #[serde(flatten)]
    pub usage: Usage,
}

impl Run {
    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{:<34} {:>9.0} events/s  {:>9.0} per CPU-s  {:>6.1} s ({:>5.1} s from start)  CPU-s: {:>4.1} own {:>4.1} brokers {:>4.1} verifier  {:>5.0} MB private  {:>5.0} MB RSS",
            self.system,
            self.events_per_s,
            self.events_per_cpu_s,
            self.first_to_right_s,
            self.start_to_right_s,
            self.usage.cpu_s,
            self.brokers_cpu_s,
            self.verifier_cpu_s,
            self.usage.peak_private_mb,
            self.usage.peak_rss_mb
        )
    }
}

/// Runs a system on a loaded topic, and removes everything it made.
pub fn run(bench: &Bench, system: System, loaded: &Loaded, purpose: &str, limit: Option<&Limit>) -> Result<Run> {
    let application = Application::new(bench, system, &loaded.topic, loaded.events)?;
    let (run, mut process) = run_and_keep(bench, &application, loaded, purpose, limit)?;
    process.stop()?;
    drop(process);
    application.remove(bench)?;
    Ok(run)
}

/// As [`run`], leaving the application running.
pub fn run_and_keep(
    bench: &Bench,
    application: &Application,
    loaded: &Loaded,
    purpose: &str,
    limit: Option<&Limit>,
) -> Result<(Run, Process)> {
    let system = application.system;
    let mut verifier = Verifier::new(system.format(), &loaded.expected, loaded.events)?;
    let mut reader = Reader::from_beginning(&bench.kafka, &application.output)?;
    let (all_before, own_before) = (busy_s(), cpu_seconds("self"));
    let mut process = application.start(limit)?;
    let seen = reader
        .follow(&mut verifier, || process.check_running())
        .with_context(|| format!("{} on {} events is not verified", system.name(), loaded.events))?;
    let usage = process.usage()?;
    let verifier_cpu_s = since(own_before, cpu_seconds("self"));
    let brokers_cpu_s = since(all_before, busy_s()) - verifier_cpu_s - usage.cpu_s;
    let first_to_right_s = (seen.right - seen.first).as_secs_f64();
    let run = Run {
        system: system.name(),
        purpose: purpose.to_owned(),
        events: loaded.events,
        first_to_right_s,
        start_to_right_s: (seen.right - process.started()).as_secs_f64(),
        events_per_s: rate(loaded.events, first_to_right_s),
        events_per_cpu_s: number(loaded.events) / usage.cpu_s,
        brokers_cpu_s,
        verifier_cpu_s,
        output_records: seen.records,
        usage,
    };
    bench.say(run.line());
    Ok((run, process))
}

fn since(before: Option<f64>, now: Option<f64>) -> f64 {
    now.zip(before).map_or(0.0, |(now, before)| now - before)
}
