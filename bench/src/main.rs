//! `bench`: the command line of the benchmarks. What is measured is in the library.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use bench::bench::{Bench, Needs};
use bench::parts::{Part, Sizes, throughput};
use bench::raw_copy;
use bench::report::Report;
use clap::{Args, Parser, Subcommand};

/// Measures this system beside Kafka Streams and a raw transactional copy, on real servers.
#[derive(Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Command {
    /// The raw transactional copy; started by the benchmarks themselves
    #[command(hide = true)]
    RawCopy(raw_copy::Arguments),
}

#[derive(Args)]
struct Measure {
    /// Fewer events, one repetition, the most telling parts: some minutes instead of some thirty
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    only: Vec<Part>,
    /// Events of each throughput run
    #[arg(long)]
    events: Option<u64>,
    /// Runs of each system
    #[arg(long)]
    repetitions: Option<usize>,
    /// Ids with which a store is filled; 0 leaves that out. 50,000,000 need some 25 GB of disk meanwhile
    #[arg(long, default_value_t = 50_000_000)]
    fill: u64,
    /// Rows of the table of which Debezium takes a snapshot
    #[arg(long, default_value_t = 5_000_000)]
    backfill: u64,
    /// Where `processor` and `sink` are; beside this program unless given
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Where to store the result; below the build directory unless given
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Some(Command::RawCopy(arguments)) => raw_copy::run(arguments),
        None => measure(cli.measure),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _best_effort = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: Measure) -> Result<()> {
    let executable = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = executable.parent().context("this program has no directory")?;
    let programs = std::path::absolute(arguments.programs.unwrap_or_else(|| beside.to_path_buf()))?;
    let default_result = beside.parent().unwrap_or(beside).join("bench/latest.json");
    let result = arguments.result.unwrap_or(default_result);
    let quick = arguments.quick;
    let sizes = Sizes {
        full: !quick,
        events: arguments.events.unwrap_or(if quick { 1_000_000 } else { 1_500_000 }),
        repetitions: arguments.repetitions.unwrap_or(if quick { 1 } else { 2 }),
        fill: arguments.fill,
        backfill: arguments.backfill,
        latency_seconds: if quick { 8 } else { 15 },
    };
    let mut parts = arguments.only;
    if parts.is_empty() {
        parts = if quick { Part::QUICK } else { Part::ALL }.to_vec();
    }
    parts.sort_unstable();
    parts.dedup();
    let mut report = Report::new(if quick { "quick" } else { "full" });
    let needs = Needs { source: parts.contains(&Part::Backfill), jdbc_sink: parts.contains(&Part::Sink) };
    let bench = Bench::start(programs, needs)?;
    throughput::warm_up(&bench)?;
    let mut failed = Vec::new();
    for part in parts {
        bench.say(format_args!("== {part}"));
        if let Err(error) = part.run(&bench, &sizes, &mut report) {
            bench.say(format_args!("{part} failed: {error:#}"));
            report.notes.insert(part.to_string(), format!("failed: {error:#}"));
            failed.push(part.to_string());
        }
        report.seconds = bench.seconds();
        // After every part, also one that failed half-way: what was measured survives whatever comes next.
        report.store(&result)?;
    }
    bench.say(format_args!("done; figures in {}", result.display()));
    writeln!(std::io::stdout(), "\n{}", report.table()).context("cannot write to standard output")?;
    ensure!(failed.is_empty(), "failed: {}; why is among the notes above", failed.join(", "));
    Ok(())
}
