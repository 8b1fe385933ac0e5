//! Owns the question what is left of the throughput when the processor has 512 MiB, page cache of its state included.

use anyhow::Result;

use super::Sizes;
use super::throughput::loaded;
use crate::bench::Bench;
use crate::events::Workload;
use crate::limit::Limit;
use crate::report::Report;
use crate::run::run as run_once;
use crate::systems::System;

pub(super) const LIMIT_MB: u64 = 512;

/// The part.
pub fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let limit = match Limit::memory(LIMIT_MB) {
        Ok(limit) => limit,
        Err(reason) => {
            bench.say(format_args!("not measured: {reason:#}"));
            report.notes.insert("memory".to_owned(), format!("{reason:#}"));
            return Ok(());
        }
    };
    let source = loaded(bench, "bench-memory", Workload::usual(sizes.events))?;
    let free = run_once(bench, System::PROCESSOR, &source, "memory, without limit", None)?;
    let limited = run_once(bench, System::PROCESSOR, &source, "memory, 512 MiB", Some(&limit))?;
    report.figures.throughput_in_512_mb = Some(limited.events_per_s / free.events_per_s);
    report.details.insert("memory_cgroup_peak_mb".to_owned(), serde_json::to_value(limit.peak_memory_mb())?);
    report.runs.extend([free, limited]);
    bench.delete_topics_of(&source.topic)
}
