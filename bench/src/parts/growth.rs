//! Owns the question whether throughput stays as state and load grow: many ids in the store, one good that half of the
//! events move, ten million goods, two workers instead of one.
//!
//! The store is filled by the processor itself, from a topic that is loaded in chunks and purged behind it, so that
//! the disk holds the ids once, not their events too.

use anyhow::Result;

use super::Sizes;
use super::throughput::loaded;
use crate::bench::Bench;
use crate::events::{Popularity, Workload};
use crate::load::PARTITIONS;
use crate::report::Report;
use crate::run::{Run, run as run_once};
use crate::statistics::rate;
use crate::systems::{Application, System};
use crate::verify::{Reader, Verifier};

/// Events that are on the disk at once while the store is filled.
const CHUNK: u64 = 5_000_000;
/// Few, so that the output of filling stays small: each transaction shows a good once.
const FILLING_GOODS: u32 = 1_000;

/// The part.
pub fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let usual = Workload::usual(sizes.events);
    let source = loaded(bench, "bench-growth", usual)?;
    let base = run_once(bench, System::PROCESSOR, &source, "growth, the usual load", None)?;
    let two = run_once(bench, System::Processor { workers: 2 }, &source, "growth, two workers", None)?;
    bench.delete_topics_of(&source.topic)?;
    let hot = special(bench, "growth, a hot good", Workload { hot_good_percent: 50, ..usual })?;
    let many = Workload { goods: 10_000_000, popularity: Popularity::Uniform, ..usual };
    let many = special(bench, "growth, 10 million goods", many)?;
    let ratio = |run: &Run| Some(run.events_per_s / base.events_per_s);
    let figures = &mut report.figures;
    figures.two_workers = ratio(&two);
    figures.growth_hot_good = ratio(&hot);
    figures.growth_10m_goods = ratio(&many);
    if sizes.fill > 0 {
        let filled_rate = filled(bench, sizes)?;
        report.figures.growth_filled_store = Some(filled_rate / base.events_per_s);
        report
            .notes
            .insert("growth".to_owned(), format!("growth_filled_store is with {} ids in the store", sizes.fill));
        report.details.insert("growth_filled_ids".to_owned(), sizes.fill.into());
        report.details.insert("growth_filled_events_per_s".to_owned(), filled_rate.into());
    } else {
        report.notes.insert("growth".to_owned(), "the store was not filled; see --fill".to_owned());
    }
    report.runs.extend([base, two, hot, many]);
    Ok(())
}

fn special(bench: &Bench, purpose: &str, workload: Workload) -> Result<Run> {
    let source = loaded(bench, "bench-growth", workload)?;
    let run = run_once(bench, System::PROCESSOR, &source, purpose, None)?;
    bench.delete_topics_of(&source.topic)?;
    Ok(run)
}

/// Fills the store, then measures the usual load on top of it; gives events per second.
fn filled(bench: &Bench, sizes: &Sizes) -> Result<f64> {
    let chunks = sizes.fill.div_ceil(CHUNK);
    let chunk = |number: u64| Workload {
        goods: FILLING_GOODS,
        popularity: Popularity::Uniform,
        redelivered_percent: 0,
        seed: 1_000 + number,
        ..Workload::usual(sizes.fill / chunks)
    };
    let mut source = loaded(bench, "bench-filling", chunk(1))?;
    let application = Application::new(bench, System::PROCESSOR, &source.topic, 0)?;
    let mut reader = Reader::from_beginning(&bench.kafka, &application.output)?;
    let mut verifier = Verifier::new(application.system.format(), &source.expected, 0)?;
    let mut process = application.start(None)?;
    for number in 1..=chunks {
        reader.follow(&mut verifier, || process.check_running())?;
        bench.say(format_args!("{} ids in the store", source.events));
        purge(bench, &source.topic)?;
        if number < chunks {
            source.more(&bench.kafka, chunk(number + 1))?;
            verifier.expect(&source.expected);
        }
    }
    process.stop()?;
    drop(process);

    source.more(&bench.kafka, Workload { seed: 7, ..Workload::usual(sizes.events) })?;
    verifier.expect(&source.expected);
    let mut process = application.start(None)?;
    let seen = reader.follow(&mut verifier, || process.check_running())?;
    let rate = rate(sizes.events, (seen.right - seen.first).as_secs_f64());
    bench.say(format_args!("on the filled store: {rate:.0} events/s"));
    process.stop()?;
    drop(process);
    application.remove(bench)?;
    bench.delete_topics_of(&source.topic)?;
    Ok(rate)
}

/// Deletes the events that were applied.
fn purge(bench: &Bench, topic: &str) -> Result<()> {
    (0..PARTITIONS).try_for_each(|partition| {
        let end = bench.kafka.watermarks(topic, partition)?.1;
        bench.kafka.delete_records(topic, partition, end)
    })
}
