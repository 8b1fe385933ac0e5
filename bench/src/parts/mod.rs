//! What is measured: one module per part, each of which can be run alone.

pub mod latency;
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
}

impl Part {
    /// What a quick run consists of.
    pub const QUICK: &[Self] = &[Self::Throughput, Self::Latency];
    /// Everything.
    pub const ALL: &[Self] = &[Self::Throughput, Self::Latency];

    /// Measures it into the report.
    pub fn run(self, bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
        match self {
            Self::Throughput => throughput::run(bench, sizes, report),
            Self::Latency => latency::run(bench, sizes, report),
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
    /// Seconds of each latency run.
    pub latency_seconds: u32,
}
