//! Owns the comparison of throughput, CPU time and memory: all systems on the same loaded topic, in an order that
//! alternates between repetitions, because caches and the brokers' compilers favour who comes late.

use anyhow::Result;

use super::Sizes;
use crate::bench::Bench;
use crate::events::Workload;
use crate::load::{Loaded, load};
use crate::report::Report;
use crate::run::{Run, run as run_once};
use crate::statistics::{median, spread};
use crate::systems::System;

/// Events with which brokers and page cache are warmed up before anything counts: after 200,000 whatever ran first was still
/// 40 % slower than the same an hour later, because the brokers' code was not compiled yet.
const WARM_UP: u64 = 1_000_000;

/// Loads a topic and says how long it took.
pub fn loaded(bench: &Bench, topic: &str, workload: Workload) -> Result<Loaded> {
    bench.say(format_args!("loading {} events", workload.events));
    let loaded = load(&bench.kafka, topic, workload)?;
    bench.say(format_args!("loaded in {:.1} s", loaded.seconds));
    Ok(loaded)
}

/// Warms up brokers and page cache; before it, whoever is measured first would lose.
pub fn warm_up(bench: &Bench) -> Result<()> {
    let source = loaded(bench, "bench-warm-up", Workload::usual(WARM_UP))?;
    bench.say("warming up, not counted:");
    run_once(bench, System::PROCESSOR, &source, "warm-up", None)?;
    bench.delete_topics_of(&source.topic)
}

/// Runs all systems as often as asked.
pub fn repeat(bench: &Bench, systems: &[System], sizes: &Sizes, purpose: &str, loaded: &Loaded) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for repetition in 0..sizes.repetitions {
        let mut order = systems.to_vec();
        if repetition % 2 == 1 {
            order.reverse();
        }
        for system in order {
            runs.push(run_once(bench, system, loaded, purpose, None)?);
        }
    }
    Ok(runs)
}

/// The part.
pub fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let mut systems = vec![System::PROCESSOR, System::RawCopy];
    if bench.streams.is_some() {
        systems.extend([System::STREAMS, System::STREAMS_BEST]);
    } else {
        report.notes.insert("streams".to_owned(), "Kafka Streams was not built; see the first lines".to_owned());
    }
    let source = loaded(bench, "bench-throughput", Workload::usual(sizes.events))?;
    let runs = repeat(bench, &systems, sizes, "throughput", &source)?;
    bench.delete_topics_of(&source.topic)?;
    summarise(report, &runs);
    report.runs.extend(runs);
    Ok(())
}

fn summarise(report: &mut Report, runs: &[Run]) {
    let of = |system: System, value: fn(&Run) -> f64| -> Vec<f64> {
        runs.iter().filter(|run| run.system == system.name()).map(value).collect()
    };
    let speed = |system| median(&of(system, |run| run.events_per_s));
    let per_cpu = |system| median(&of(system, |run| run.events_per_cpu_s));
    let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
    let ours = speed(System::PROCESSOR);
    let figures = &mut report.figures;
    figures.throughput = ours;
    figures.throughput_vs_streams = ratio(ours, speed(System::STREAMS));
    let best = [System::STREAMS, System::STREAMS_BEST].into_iter().filter_map(speed).reduce(f64::max);
    figures.throughput_vs_streams_best = ratio(ours, best);
    figures.cpu_vs_streams = ratio(per_cpu(System::PROCESSOR), per_cpu(System::STREAMS));
    figures.throughput_vs_raw_copy = ratio(ours, speed(System::RawCopy));
    figures.peak_private_mb = of(System::PROCESSOR, |run| run.usage.peak_private_mb).into_iter().reduce(f64::max);
    figures.peak_rss_mb = of(System::PROCESSOR, |run| run.usage.peak_rss_mb).into_iter().reduce(f64::max);
    for run in runs {
        let speeds: Vec<f64> =
            runs.iter().filter(|other| other.system == run.system).map(|other| other.events_per_s).collect();
        report.throughput_spread.extend(spread(&speeds).map(|spread| (run.system.clone(), spread)));
    }
}
