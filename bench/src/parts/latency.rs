//! Owns the time from sending an event to seeing what it changed: on the output topic by a read_committed consumer, and
//! in the target table by primary key.
//!
//! Open loop: events are sent when they are due, whether or not earlier ones were seen. Each moves a good of its own, so
//! that nothing is coalesced and every event has exactly one answer; a run counts when every event was seen once, with
//! its sum. Before anything counts, 5,000 events warm up the brokers' compilers.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Sizes;
use super::paced::{Observed, Pace, observe};
use crate::bench::Bench;
use crate::report::{Figures, Report};
use crate::statistics::{millis, percentile};
use crate::systems::System;

/// Rate and number of the events that do not count.
const WARM_UP: Pace = Pace { per_second: 1_000, events: 5_000 };

/// One system at one rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyRun {
    /// What ran.
    pub system: String,
    /// Events per second.
    pub per_second: u32,
    /// Events measured.
    pub events: usize,
    /// From sent to visible on the output topic.
    pub topic: Latencies,
    /// From sent to visible in the target table; null without a sink.
    pub target: Option<Latencies>,
    /// How much later than due the latest event was sent, ms.
    pub sent_late_ms: f64,
}

/// Percentiles in ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latencies {
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Latencies {
    fn of(mut values: Vec<std::time::Duration>) -> Option<Self> {
        values.sort_unstable();
        let at = |percent| percentile(&values, percent).map(millis);
        Some(Self { p50_ms: at(50)?, p90_ms: at(90)?, p99_ms: at(99)?, max_ms: at(100)? })
    }
}

/// The part.
pub fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let seconds = sizes.latency_seconds;
    let pace = |per_second: u32| Pace { per_second, events: per_second * seconds };
    // Few events a second need more time to say something about the 99th percentile.
    let slow = Pace { per_second: 20, events: 40 * seconds };
    let mut rates = vec![slow, pace(200)];
    if sizes.full {
        rates.extend([pace(5_000), pace(20_000)]);
    }
    report.latencies.extend(measure(bench, System::PROCESSOR, &rates, false)?);
    report.latencies.extend(measure(bench, System::PROCESSOR, &[slow, pace(200)], true)?);
    if bench.streams.is_some() {
        report.latencies.extend(measure(bench, System::STREAMS, &[pace(200)], false)?);
    }
    if sizes.full {
        let two_workers = System::Processor { workers: 2 };
        report.latencies.extend(measure(bench, two_workers, &[pace(200), pace(5_000)], false)?);
    }
    summarise(&report.latencies, &mut report.figures);
    Ok(())
}

/// Measures a system at several rates, one after the other.
fn measure(bench: &Bench, system: System, rates: &[Pace], with_sink: bool) -> Result<Vec<LatencyRun>> {
    let name = if with_sink { format!("{} and sink", system.name()) } else { system.name() };
    bench.say(format_args!("{name}: warming up with {} events", WARM_UP.events));
    let paces: Vec<Pace> = std::iter::once(WARM_UP).chain(rates.iter().copied()).collect();
    let observed = observe(bench, system, &paces, with_sink)?;
    let mut runs = Vec::new();
    for (pace, observed) in paces.iter().zip(observed).skip(1) {
        let run = latency_run(&name, *pace, observed)?;
        bench.say(run.line());
        runs.push(run);
    }
    Ok(runs)
}

fn latency_run(name: &str, pace: Pace, observed: Observed) -> Result<LatencyRun> {
    let events = observed.topic.len();
    let topic = Latencies::of(observed.topic).context("nothing was measured")?;
    let target = observed.target.and_then(Latencies::of);
    let sent_late_ms = millis(observed.sent_late);
    Ok(LatencyRun { system: name.to_owned(), per_second: pace.per_second, events, topic, target, sent_late_ms })
}

impl LatencyRun {
    /// For people.
    pub fn line(&self) -> String {
        let describe = |of: &Latencies| {
            format!("p50 {:.1}  p90 {:.1}  p99 {:.1}  max {:.1} ms", of.p50_ms, of.p90_ms, of.p99_ms, of.max_ms)
        };
        let target = self.target.as_ref().map(|target| format!(", target table {}", describe(target)));
        let target = target.unwrap_or_default();
        format!("{:<24} {:>6}/s  {}{target}", self.system, self.per_second, describe(&self.topic))
    }
}

fn summarise(runs: &[LatencyRun], figures: &mut Figures) {
    let find = |name: &str, per_second| runs.iter().find(|run| run.system == name && run.per_second == per_second);
    let ours = System::PROCESSOR.name();
    let topic = |per_second| find(&ours, per_second).map(|run| run.topic);
    (figures.p50_ms, figures.p99_ms) = pair(topic(200));
    (figures.p50_at_20_ms, figures.p99_at_20_ms) = pair(topic(20));
    (figures.p50_at_5000_ms, figures.p99_at_5000_ms) = pair(topic(5_000));
    (figures.p50_at_20000_ms, figures.p99_at_20000_ms) = pair(topic(20_000));
    let streams = pair(find(&System::STREAMS.name(), 200).map(|run| run.topic));
    let ratio = |theirs: Option<f64>, ours: Option<f64>| Some(theirs? / ours?);
    figures.p50_vs_streams = ratio(streams.0, figures.p50_ms);
    figures.p99_vs_streams = ratio(streams.1, figures.p99_ms);
    let both = find(&format!("{ours} and sink"), 200);
    (figures.target_p50_ms, figures.target_p99_ms) = pair(both.and_then(|run| run.target));
    let same_events = pair(both.map(|run| run.topic));
    let extra = |target: Option<f64>, topic: Option<f64>| Some(target? - topic?);
    figures.target_extra_p50_ms = extra(figures.target_p50_ms, same_events.0);
    figures.target_extra_p99_ms = extra(figures.target_p99_ms, same_events.1);
}

fn pair(latencies: Option<Latencies>) -> (Option<f64>, Option<f64>) {
    (latencies.map(|of| of.p50_ms), latencies.map(|of| of.p99_ms))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(system: &str, per_second: u32, p50_ms: f64, target: Option<f64>) -> LatencyRun {
        let latencies = |p50_ms: f64| Latencies { p50_ms, p90_ms: 2.0 * p50_ms, p99_ms: 3.0 * p50_ms, max_ms: 100.0 };
        LatencyRun {
            system: system.to_owned(),
            per_second,
            events: 1,
            topic: latencies(p50_ms),
            target: target.map(latencies),
            sent_late_ms: 0.0,
        }
    }

    #[test]
    fn the_target_is_compared_with_the_topic_on_the_same_events() {
        let runs = [
            run("processor", 200, 10.0, None),
            run("processor and sink", 200, 20.0, Some(26.0)),
            run("streams, 100 ms", 200, 80.0, None),
        ];
        let mut figures = Figures::default();
        summarise(&runs, &mut figures);
        assert_eq!((figures.p50_ms, figures.p99_ms), (Some(10.0), Some(30.0)));
        assert_eq!(figures.target_extra_p50_ms, Some(6.0));
        assert_eq!((figures.p50_vs_streams, figures.p99_vs_streams), (Some(8.0), Some(8.0)));
        assert_eq!(figures.p50_at_20_ms, None);
    }

    #[test]
    fn latencies_are_sorted_before_they_are_read() {
        let values = [9, 1, 5].map(Duration::from_millis).to_vec();
        let latencies = Latencies::of(values).unwrap();
        assert!((latencies.p50_ms - 5.0).abs() < 1e-9 && (latencies.max_ms - 9.0).abs() < 1e-9);
    }
}
