//! Owns the question whether throughput stays as load grows: one good that half of the events move, ten million goods,
//! two workers instead of one. Growth of the state is a part of its own (`filled`).
//!
//! On a machine whose CPUs the brokers share, a second worker can only take CPU time from them. So two processors of one
//! worker are also compared with one where each gets a quarter of a CPU: what limits is then the workers, and the rest of
//! the machine is idle in part.

use std::time::Instant;

use ::tests::client::NewTopic;
use ::tests::stack::wait_until;
use anyhow::{Context as _, Result};

use super::Sizes;
use super::throughput::loaded;
use crate::bench::Bench;
use crate::events::{Popularity, Workload};
use crate::limit::Limit;
use crate::load::{Loaded, PARTITIONS};
use crate::machine::busy_s;
use crate::process::Process;
use crate::report::Report;
use crate::run::{Run, run as run_once};
use crate::statistics::rate;
use crate::systems::{Application, System};
use crate::verify::{Reader, Verifier};

/// Of one CPU, for each of the limited processors.
const CPU_PERCENT: u64 = 25;

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
    report.runs.extend([base, two, hot, many]);
    let events = sizes.events / 2;
    match [Limit::cpu(CPU_PERCENT), Limit::cpu(CPU_PERCENT)] {
        [Ok(first), Ok(second)] => {
            let one = scaled_out(bench, events, &[&first])?;
            let two = scaled_out(bench, events, &[&first, &second])?;
            report.figures.two_workers_limited = Some(two / one);
            report.details.insert("two_workers_limited_events_per_s".to_owned(), vec![one, two].into());
        }
        [Err(reason), _] | [_, Err(reason)] => {
            _ = report.notes.insert("growth".to_owned(), format!("two workers with less than a CPU: {reason:#}"));
        }
    }
    Ok(())
}

fn special(bench: &Bench, purpose: &str, workload: Workload) -> Result<Run> {
    let source = loaded(bench, "bench-growth", workload)?;
    let run = run_once(bench, System::PROCESSOR, &source, purpose, None)?;
    bench.delete_topics_of(&source.topic)?;
    Ok(run)
}

/// Events per second of one processor for each limit, from when all events were written and the partitions dealt out.
fn scaled_out(bench: &Bench, events: u64, limits: &[&Limit]) -> Result<f64> {
    let topic = "bench-scaled-out";
    bench.kafka.create_topic(&NewTopic::new(topic, PARTITIONS))?;
    let mut source = Loaded::empty(topic);
    let first = Application::new(bench, System::PROCESSOR, topic, 0)?;
    let second = first.second(bench, topic)?;
    let all = [(&first, bench.processor_http.as_str()), (&second, bench.second_http.as_str())];
    let started = all.iter().zip(limits);
    let mut processes: Vec<Process> =
        started.map(|((application, _), limit)| application.start(Some(limit))).collect::<Result<_>>()?;
    let addresses: Vec<&str> = all.iter().map(|(_, address)| *address).take(limits.len()).collect();
    // As many partitions of source and movements on each.
    let share = 2.0 * f64::from(PARTITIONS) / f64::from(u32::try_from(limits.len())?);
    wait_until("the partitions to be dealt out", || {
        processes.iter_mut().try_for_each(Process::check_running)?;
        let runs = |address: &&str| Bench::metric(address, "processor_partition_running") == Some(share);
        Ok(addresses.iter().all(runs))
    })?;
    source.more(&bench.kafka, Workload::usual(events))?;
    let (began, busy, before) = (Instant::now(), busy_s(), applied(&addresses));
    let mut verifier = Verifier::new(first.system.format(), &source.expected, events)?;
    let mut reader = Reader::from_beginning(&bench.kafka, &first.output)?;
    let seen = reader.follow(&mut verifier, || processes.iter_mut().try_for_each(Process::check_running))?;
    let seconds = seen.right.checked_duration_since(began).context("all was done when all was written")?;
    let speed = rate(events.saturating_sub(before), seconds.as_secs_f64());
    let cpus = busy_s().zip(busy).map_or(0.0, |(now, before)| (now - before) / began.elapsed().as_secs_f64());
    bench.say(format_args!(
        "{} processors with {CPU_PERCENT} % of a CPU each: {speed:.0} events/s, {cpus:.2} CPUs busy",
        limits.len()
    ));
    processes.iter_mut().try_for_each(Process::stop)?;
    drop(processes);
    std::fs::remove_dir_all(&second.state)?;
    first.remove(bench)?;
    bench.delete_topics_of(topic)?;
    Ok(speed)
}

/// Events that processors have applied or recognised since they started.
pub(super) fn applied(addresses: &[&str]) -> u64 {
    let events = |address: &&str| -> f64 {
        let counters = ["processor_events_applied_total", "processor_events_redelivered_total"];
        counters.iter().filter_map(|name| Bench::metric(address, name)).sum()
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counters, printed as floats
    let sum = addresses.iter().map(events).sum::<f64>() as u64;
    sum
}
