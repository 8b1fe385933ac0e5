//! Owns what is kept of a run: the figures by name, the targets beside them, the file and the table.
//!
//! A figure that was not measured is null, never 0; why, is a note.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::Machine;
use crate::parts::latency::LatencyRun;
use crate::run::Run;
use crate::statistics::Spread;

/// Share of busy CPUs above which something else is running.
const DISTURBED: f64 = 0.1;

/// The figures that have a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Events/s of one worker.
    pub throughput: Option<f64>,
    /// Throughput against Kafka Streams committing every 100 ms, as this system does.
    pub throughput_vs_streams: Option<f64>,
    /// Against Kafka Streams as fast as it was found to go.
    pub throughput_vs_streams_best: Option<f64>,
    /// Events per CPU second against Kafka Streams committing every 100 ms.
    pub cpu_vs_streams: Option<f64>,
    /// Against the raw transactional copy.
    pub throughput_vs_raw_copy: Option<f64>,
    /// From sent to visible on the output topic at 200 events/s, ms.
    pub p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub p99_ms: Option<f64>,
    /// At 20 events/s, ms.
    pub p50_at_20_ms: Option<f64>,
    /// The same, 99th percentile.
    pub p99_at_20_ms: Option<f64>,
    /// At 5,000 events/s, ms.
    pub p50_at_5000_ms: Option<f64>,
    /// The same, 99th percentile.
    pub p99_at_5000_ms: Option<f64>,
    /// At 20,000 events/s, ms.
    pub p50_at_20000_ms: Option<f64>,
    /// The same, 99th percentile.
    pub p99_at_20000_ms: Option<f64>,
    /// How many times the median of Kafka Streams is ours, at 200 events/s.
    pub p50_vs_streams: Option<f64>,
    /// The same, 99th percentile.
    pub p99_vs_streams: Option<f64>,
    /// From sent to visible in the target table at 200 events/s, ms.
    pub target_p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub target_p99_ms: Option<f64>,
    /// Target table's median less the topic's, of the same events, ms.
    pub target_extra_p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub target_extra_p99_ms: Option<f64>,
    /// Most private memory of the processor, MiB.
    pub peak_private_mb: Option<f64>,
    /// Most resident memory of the processor, MiB.
    pub peak_rss_mb: Option<f64>,
    /// Throughput with 512 MiB of memory, page cache included, against without limit.
    pub throughput_in_512_mb: Option<f64>,
    /// From the start of a killed processor's successor to its first commit, s.
    pub restart_s: Option<f64>,
    /// From its owning the partitions to that commit, s.
    pub restart_owned_s: Option<f64>,
    /// Changelog records/s when the state directory is gone.
    pub restore_records_per_s: Option<f64>,
    /// Changed goods/s of the sink.
    pub sink_rows_per_s: Option<f64>,
    /// Against the same upsert without Kafka.
    pub sink_vs_raw_upsert: Option<f64>,
    /// Against Debezium's JDBC sink on the same topic.
    pub sink_vs_jdbc: Option<f64>,
    /// Throughput with many ids in the store, against none.
    pub growth_filled_store: Option<f64>,
    /// Throughput with many ids in the store and 512 MiB of memory, page cache included, against without limit.
    pub filled_in_512_mb: Option<f64>,
    /// From owning the partitions to the first commit after kill -9, with many ids in the store, s.
    pub filled_restart_owned_s: Option<f64>,
    /// Changelog records/s while many ids are restored.
    pub filled_restore_records_per_s: Option<f64>,
    /// Bytes on disk for each id in the store.
    pub disk_bytes_per_id: Option<f64>,
    /// Throughput with one good that half of the events move, against the usual load.
    pub growth_hot_good: Option<f64>,
    /// Throughput with 10 million goods, against the usual load.
    pub growth_10m_goods: Option<f64>,
    /// Throughput of two workers against one, brokers and everything else on the same CPUs.
    pub two_workers: Option<f64>,
    /// Throughput of two processors of one worker against one, each with a quarter of a CPU, so that brokers are not the limit.
    pub two_workers_limited: Option<f64>,
    /// Rows/s of a first snapshot from the source table to the target table.
    pub backfill_rows_per_s: Option<f64>,
    /// How much longer that took than the connector needed to send the snapshot: 1 is at its own pace.
    pub backfill_vs_connector: Option<f64>,
    /// Share of one CPU that the processor used meanwhile.
    pub backfill_processor_cpus: Option<f64>,
    /// Rows/s of `--until-caught-up` on the same topic, from the start of the process to its end.
    pub until_caught_up_rows_per_s: Option<f64>,
}

/// Everything that is kept of a run of the benchmarks.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `full` or `quick`.
    pub mode: &'static str,
    /// Where it was measured.
    pub machine: Machine,
    /// The named figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Events/s by system: median and spread of the repetitions.
    pub throughput_spread: BTreeMap<String, Spread>,
    /// Every throughput run.
    pub runs: Vec<Run>,
    /// Every latency run.
    pub latencies: Vec<LatencyRun>,
    /// Other figures, by part.
    pub details: BTreeMap<String, serde_json::Value>,
    /// Why something was not measured, by part.
    pub notes: BTreeMap<String, String>,
    /// How long it all took, s.
    pub seconds: f64,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(mode: &'static str) -> Self {
        Self {
            mode,
            machine: Machine::here(),
            figures: Figures::default(),
            throughput_spread: BTreeMap::new(),
            runs: Vec::new(),
            latencies: Vec::new(),
            details: BTreeMap::new(),
            notes: BTreeMap::new(),
            seconds: 0.0,
        }
    }

    /// Writes the file, replacing what an earlier run left.
    pub fn store(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    /// The table of figures with their targets, the others below.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{:<30} {:>12}   {:<14} ", "", "measured", "target");
        for target in targets(&self.figures) {
            let measured = target.measured.map_or_else(|| "-".to_owned(), readable);
            let verdict = target.verdict().word();
            let _infallible = writeln!(text, "{:<30} {measured:>12}   {:<14} {verdict}", target.name, target.bound());
        }
        for (name, measured) in self.without_target() {
            let _infallible = writeln!(text, "{name:<30} {:>12}   -", readable(measured));
        }
        for run in &self.latencies {
            let _infallible = writeln!(text, "{}", run.line());
        }
        for (system, Spread { median, least, greatest }) in &self.throughput_spread {
            let _infallible = writeln!(text, "{system}: {median:.0} events/s ({least:.0} to {greatest:.0})");
        }
        let machine = &self.machine;
        if machine.busy_before > DISTURBED {
            let percent = 100.0 * machine.busy_before;
            let _infallible =
                writeln!(text, "DISTURBED: {percent:.0} % of the CPUs were busy before anything was started");
        }
        for (part, note) in &self.notes {
            let _infallible = writeln!(text, "note on {part}: {note}");
        }
        text
    }

    /// Named figures that were measured and have no target.
    fn without_target(&self) -> Vec<(String, f64)> {
        let targets = targets(&self.figures);
        // A target's name may have more words, which say how it was measured.
        let has_target = |name: &str| targets.iter().any(|target| target.name.split(' ').next() == Some(name));
        // A struct of numbers is an object of numbers.
        let Ok(serde_json::Value::Object(figures)) = serde_json::to_value(&self.figures) else { return Vec::new() };
        let others = figures.into_iter().filter(|(name, _)| !has_target(name));
        others.filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
    }
}

/// On which side of its limit a figure shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    AtLeast,
    AtMost,
}

/// A figure that has a target.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    name: &'static str,
    measured: Option<f64>,
    side: Side,
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Reached,
    NotReached,
    NotRun,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::NotReached => "NOT reached",
            Self::NotRun => "not run",
        }
    }
}

impl Target {
    fn verdict(&self) -> Verdict {
        let reached = self.measured.map(|measured| match self.side {
            Side::AtLeast => measured >= self.limit,
            Side::AtMost => measured <= self.limit,
        });
        match reached {
            Some(true) => Verdict::Reached,
            Some(false) => Verdict::NotReached,
            None => Verdict::NotRun,
        }
    }

    fn bound(&self) -> String {
        let sign = if self.side == Side::AtLeast { "≥" } else { "≤" };
        format!("{sign} {}", self.limit)
    }
}

fn readable(value: f64) -> String {
    if value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn targets(figures: &Figures) -> Vec<Target> {
    let f = figures;
    let at_least = |name, measured, limit| Target { name, measured, side: Side::AtLeast, limit };
    let at_most = |name, measured, limit| Target { name, measured, side: Side::AtMost, limit };
    vec![
        at_least("throughput_vs_streams", f.throughput_vs_streams, 3.5),
        at_least("throughput_vs_streams_best", f.throughput_vs_streams_best, 2.0),
        at_least("cpu_vs_streams", f.cpu_vs_streams, 5.0),
        at_least("throughput_vs_raw_copy", f.throughput_vs_raw_copy, 1.0),
        at_most("p50_ms (200/s)", f.p50_ms, 50.0),
        at_most("p99_ms (200/s)", f.p99_ms, 160.0),
        at_least("p50_vs_streams (200/s)", f.p50_vs_streams, 8.0),
        at_least("p99_vs_streams (200/s)", f.p99_vs_streams, 4.0),
        at_most("p50_at_20_ms", f.p50_at_20_ms, 20.0),
        at_most("p99_at_20_ms", f.p99_at_20_ms, 50.0),
        at_most("target_extra_p50_ms", f.target_extra_p50_ms, 15.0),
        at_most("target_extra_p99_ms", f.target_extra_p99_ms, 15.0),
        at_most("peak_private_mb", f.peak_private_mb, 300.0),
        at_least("throughput_in_512_mb", f.throughput_in_512_mb, 0.8),
        at_most("restart_s", f.restart_s, 2.0),
        at_least("restore_records_per_s", f.restore_records_per_s, 500_000.0),
        at_least("sink_rows_per_s", f.sink_rows_per_s, 100_000.0),
        at_least("sink_vs_raw_upsert", f.sink_vs_raw_upsert, 0.8),
        at_least("sink_vs_jdbc", f.sink_vs_jdbc, 1.0),
        at_least("growth_filled_store", f.growth_filled_store, 0.8),
        at_least("growth_hot_good", f.growth_hot_good, 1.0),
        at_least("growth_10m_goods", f.growth_10m_goods, 0.8),
        at_least("filled_in_512_mb", f.filled_in_512_mb, 0.8),
        at_most("filled_restart_owned_s", f.filled_restart_owned_s, 2.0),
        at_least("filled_restore_records_per_s", f.filled_restore_records_per_s, 500_000.0),
        at_least("two_workers_limited", f.two_workers_limited, 1.6),
        at_most("backfill_vs_connector", f.backfill_vs_connector, 1.05),
        at_most("backfill_processor_cpus", f.backfill_processor_cpus, 0.5),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_null_in_the_file_and_not_run_in_the_table() {
        let report = Report::new("quick");
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert!(json["throughput_vs_streams"].is_null() && json.get("throughput_vs_streams").is_some());
        assert!(report.table().lines().filter(|line| line.ends_with("not run")).count() >= 20);
    }

    #[test]
    fn every_figure_is_in_the_table_once_with_a_target_or_without() {
        let mut report = Report::new("quick");
        report.figures = Figures { p50_ms: Some(4.0), disk_bytes_per_id: Some(107.6), ..Figures::default() };
        let table = report.table();
        let lines = |name: &str| table.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!((lines("p50_ms "), lines("disk_bytes_per_id "), lines("two_workers ")), (1, 1, 0), "{table}");
    }

    #[test]
    fn a_target_is_reached_on_its_own_side_of_the_limit() {
        let figures = Figures {
            throughput_vs_streams: Some(3.5),
            p50_ms: Some(50.1),
            restart_s: Some(1.0),
            ..Figures::default()
        };
        let verdict = |name: &str| targets(&figures).iter().find(|target| target.name == name).unwrap().verdict();
        assert_eq!(verdict("throughput_vs_streams"), Verdict::Reached);
        assert_eq!(verdict("p50_ms (200/s)"), Verdict::NotReached);
        assert_eq!(verdict("restart_s"), Verdict::Reached);
        assert_eq!(verdict("two_workers_limited"), Verdict::NotRun);
    }
}
