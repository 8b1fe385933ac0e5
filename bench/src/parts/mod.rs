//! What is measured: one module per part, each of which can be run alone.

pub mod backfill;
pub mod filled;
pub mod growth;
mod jdbc_sink;
pub mod latency;
pub mod memory;
mod paced;
pub mod restart;
pub mod sink;
pub mod throughput;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use crate::bench::Bench;
use crate::report::Report;

/// A part of the benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// Events per second and per CPU second of all systems, memory
    Throughput,
    /// From sent to visible, on the topic and in the target table
    Latency,
    /// What a crash costs: first commit after kill -9, restoring from the changelogs
    Restart,
    /// Changed goods per second into the target table
    Sink,
    /// Throughput with 512 MiB of memory
    Memory,
    /// Throughput with a hot good, many goods, two workers
    Growth,
    /// A store with many ids: restore, throughput, restart, 512 MiB of memory, bytes on disk
    Filled,
    /// A first start: Debezium's snapshot of a large table, and the processor reading it
    Backfill,
}

impl Part {
    /// What a quick run consists of.
    pub const QUICK: &[Self] = &[Self::Throughput, Self::Latency, Self::Restart, Self::Sink];
    /// Everything.
    pub const ALL: &[Self] = &[
        Self::Throughput,
        Self::Latency,
        Self::Restart,
        Self::Sink,
        Self::Memory,
        Self::Growth,
        Self::Filled,
        Self::Backfill,
    ];

    /// Measures it into the report.
    pub fn run(self, bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
        match self {
            Self::Throughput => throughput::run(bench, sizes, report),
            Self::Latency => latency::run(bench, sizes, report),
            Self::Restart => restart::run(bench, sizes, report),
            Self::Sink => sink::run(bench, sizes, report),
            Self::Memory => memory::run(bench, sizes, report),
            Self::Growth => growth::run(bench, sizes, report),
            Self::Filled => filled::run(bench, sizes, report),
            Self::Backfill => backfill::run(bench, sizes, report),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Whether everything is measured, however long it takes.
    pub full: bool,
    /// Events of each throughput run.
    pub events: u64,
    /// Runs of each system.
    pub repetitions: usize,
    /// Ids with which a store is filled; 0: not at all.
    pub fill: u64,
    /// Rows of the table of which a snapshot is taken.
    pub backfill: u64,
    /// Seconds of each latency run.
    pub latency_seconds: u32,
}
