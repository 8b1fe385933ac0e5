//! `check-history`: was every change counted exactly once? For any job, its brokers and its target.
//!
//! Owns the command line and the exit code; the judgement is [`tests::checker`]'s. Reads only, commits nothing. To be run
//! while nothing is written and everything is consumed: what is still on its way is reported as missing.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tests::checker::{self, Code, Collector, read_row_log, report};
use tests::client::{Kafka, Sql};

/// Checks that every change was counted exactly once: topics, group offsets, and (where given) source and target.
///
/// Exit code 0: nothing found; 1: findings, on standard output; 2: the check could not be made.
#[derive(Debug, Parser)]
#[command(name = "check-history")]
struct Cli {
    /// Lists all findings there are, and ends
    #[arg(long)]
    list: bool,
    /// Brokers (host:port, separated by commas)
    #[arg(long, default_value = "localhost:29092", value_name = "HOST:PORT,…")]
    bootstrap_servers: String,
    /// The input topic
    #[arg(long, default_value = "warehouse.orders.transactions", value_name = "TOPIC")]
    source_topic: String,
    /// Start of the names of the processor's topics
    #[arg(long, default_value = "warehouse.stock", value_name = "PREFIX")]
    topic_prefix: String,
    /// The processor's consumer group
    #[arg(long, default_value = "stock", value_name = "ID")]
    application_id: String,
    /// The target database; its rows are compared with the output
    #[arg(long, value_name = "URL")]
    target_url: Option<String>,
    /// The source database; its rows are compared with the changelog
    #[arg(long, value_name = "URL", conflicts_with = "rows")]
    source_url: Option<String>,
    /// The workload's own log instead of the source database: a JSON object a line, `{"id":…,"good_id":…,"operation":…,"pcs":…}`
    /// or `{"id":…,"deleted":true}`
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// How many digits quantities have behind the point, as the processor is told
    #[arg(long, default_value_t = 0, value_name = "N")]
    pieces_scale: u32,
    /// Compaction may have removed records: gaps between versions are no findings
    #[arg(long)]
    compacted: bool,
    /// How long to wait for open transactions to end, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    settle_seconds: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        for code in Code::ALL {
            println!("{code:24}{}", code.meaning().trim());
        }
        return ExitCode::SUCCESS;
    }
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was found.
fn run(cli: &Cli) -> Result<bool> {
    let kafka = Kafka::new(&cli.bootstrap_servers);
    let collector = Collector::new(&kafka, &cli.source_topic, &cli.topic_prefix, &cli.application_id)
        .compacted(cli.compacted)
        .scale(cli.pieces_scale);
    let existing = kafka.topics_asked_once()?;
    if let Some(missing) = collector.topics().into_iter().find(|topic| !existing.contains(topic)) {
        bail!("there is no topic {missing}");
    }
    collector.wait_settled(Duration::from_secs(cli.settle_seconds))?;
    let mut facts = collector.collect(None)?;
    if let Some(url) = &cli.target_url {
        facts.read_target(&Sql::connect(url).context("cannot reach the target")?)?;
    }
    if let Some(url) = &cli.source_url {
        facts.read_source(&Sql::connect(url).context("cannot reach the source")?)?;
    }
    if let Some(path) = &cli.rows {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        facts.rows = Some(read_row_log(BufReader::new(file), cli.pieces_scale)?);
    }
    let findings = checker::check(&facts);
    for topic in facts.topics() {
        let aborted = topic.uncommitted.len().saturating_sub(topic.committed.len());
        println!("{}: {} records, {aborted} more of aborted transactions", topic.name, topic.committed.len());
    }
    print!("{}", report(&findings));
    println!("{} findings", findings.len());
    Ok(findings.is_empty())
}
