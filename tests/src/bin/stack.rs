//! `stack`: a full native stack that stays up, for demonstrations, benchmarks and looking around.
//!
//! Owns the command line and what is printed; everything else is in [`tests::native`]. `up` may be called again and
//! again: it starts what does not run. `down` ends exactly what pid files say is ours.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tests::client::{Connect, Kafka, NewTopic, orders_connector};
use tests::native::{
    FixedPorts, GUIDE, NativeOptions, NativeStack, connect_converters, default_up_directory, end, end_all, recorded,
};
use tests::stack::{Addresses, ProgramSpec, Stack, Viewpoint};

const INPUT_TOPIC: &str = "warehouse.orders.transactions";
const INPUT_PARTITIONS: i32 = 10;
const CONNECTOR: &str = "orders-connector";

/// Three Kafka brokers, Kafka Connect with Debezium, and two PostgreSQL servers as local processes.
#[derive(Parser)]
#[command(name = "stack")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where the servers keep configuration, data and logs
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    ports: PortArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Starts what does not run yet, creates the input topic, registers the connector
    Up {
        /// Leaves topic and connector to you
        #[arg(long)]
        no_connector: bool,
    },
    /// Ends everything and removes the directory
    Down {
        /// Keeps data and logs, for the next `up`
        #[arg(long)]
        keep_data: bool,
    },
    /// Shows what runs, and where
    Status,
    /// Runs a processor or a sink beside the servers (addresses and state directory are supplied)
    Run {
        /// Which of the two
        program: ProgramName,
        /// Its name, for `stop`, log and state directory; the program's unless given
        #[arg(long)]
        name: Option<String>,
        /// Flags of the program
        #[arg(last = true)]
        flags: Vec<String>,
    },
    /// Installs converters for Avro and JSON Schema, and shows the directory for Connect's `plugin.path`
    Converters,
    /// Ends one server or program cleanly
    Stop {
        /// As `status` names it
        name: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ProgramName {
    Processor,
    Sink,
}

#[derive(Args)]
struct PortArguments {
    /// Ports of the three brokers, separated by commas; their controllers listen 100 above
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [29_092, 29_093, 29_094])]
    broker_ports: Vec<u16>,
    /// Port of Kafka Connect
    #[arg(long, global = true, default_value_t = 8083)]
    connect_port: u16,
    /// Port of the source database
    #[arg(long, global = true, default_value_t = 25_432)]
    source_port: u16,
    /// Port of the target database
    #[arg(long, global = true, default_value_t = 25_433)]
    target_port: u16,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _best_effort = writeln!(std::io::stderr(), "stack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let directory = cli.dir.map_or_else(|| Ok(default_up_directory()), std::path::absolute)?;
    ensure!(cli.ports.broker_ports.len() == 3, "--broker-ports wants three ports, separated by commas");
    let ports = FixedPorts {
        brokers: cli.ports.broker_ports,
        connect: cli.ports.connect_port,
        source_database: cli.ports.source_port,
        target_database: cli.ports.target_port,
    };
    match cli.command {
        Command::Up { no_connector } => up(&directory, ports, !no_connector),
        Command::Down { keep_data } => down(&directory, keep_data),
        Command::Status => status(&directory),
        Command::Run { program, name, flags } => run_program(&directory, ports, program, name, &flags),
        Command::Converters => say(&connect_converters()?.display().to_string()),
        Command::Stop { name } => {
            let ran = end(&directory, &name)?;
            say(if ran { "ended" } else { "was not running" })
        }
    }
}

fn up(directory: &Path, ports: FixedPorts, connector: bool) -> Result<()> {
    // Marked before anything runs: whatever happens next, `down` can clean it up.
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    std::fs::write(directory.join(GUIDE), "starting\n")?;
    let stack = open(directory, ports)?;
    let addresses = stack.addresses(Viewpoint::Host);
    if connector {
        register(&stack, &addresses)?;
    }
    let guide = guide(directory, &addresses)?;
    std::fs::write(directory.join(GUIDE), &guide)?;
    say(&guide)
}

fn open(directory: &Path, ports: FixedPorts) -> Result<NativeStack> {
    NativeOptions::full().staying_up_in(directory.to_path_buf(), ports).start()
}

fn register(stack: &NativeStack, addresses: &Addresses) -> Result<()> {
    let kafka = Kafka::new(&addresses.bootstrap_servers);
    if !kafka.topics()?.iter().any(|topic| topic == INPUT_TOPIC) {
        kafka.create_topic(&NewTopic::new(INPUT_TOPIC, INPUT_PARTITIONS))?;
    }
    let source = stack.addresses(Viewpoint::Stack).source_database.context("the stack has no source database")?;
    let url = addresses.connect_url.as_deref().context("the stack has no Connect")?;
    Connect::new(url).register(CONNECTOR, &orders_connector(&source))
}

fn down(directory: &Path, keep_data: bool) -> Result<()> {
    let ended = end_all(directory, keep_data)?;
    say(&format!("{ended} processes ended{}", if keep_data { ", data kept" } else { "" }))
}

fn status(directory: &Path) -> Result<()> {
    let processes = recorded(directory)?;
    if processes.is_empty() {
        return say(&format!("nothing is up in {}", directory.display()));
    }
    for process in processes {
        let state = process.pid.map_or_else(|| "down".to_owned(), |pid| format!("up (pid {pid})"));
        say(&format!("{:<12} {state}", process.name))?;
    }
    say(&std::fs::read_to_string(directory.join(GUIDE)).unwrap_or_default())
}

fn run_program(
    directory: &Path,
    ports: FixedPorts,
    program: ProgramName,
    name: Option<String>,
    flags: &[String],
) -> Result<()> {
    let stack = open(directory, ports)?;
    let (title, spec): (_, fn(String) -> ProgramSpec) = match program {
        ProgramName::Processor => ("processor", ProgramSpec::processor),
        ProgramName::Sink => ("sink", ProgramSpec::sink),
    };
    let name = name.unwrap_or_else(|| title.to_owned());
    let spec = with_flags(spec(name.clone()), flags);
    let running = stack.run(&spec)?;
    say(&format!("{name} runs: http://{}/ready, log {}", running.http_address(), running.log_file()?.display()))
}

/// Pairs each flag with its value: a word that does not itself look like a flag.
fn with_flags(mut spec: ProgramSpec, words: &[String]) -> ProgramSpec {
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        spec = match (word.split_once('='), words.next_if(|next| !next.starts_with("--"))) {
            (Some((flag, value)), None) => spec.flag(flag, value),
            (_, Some(value)) => spec.flag(word, value),
            (None, None) => spec.switch(word),
        };
    }
    spec
}

fn guide(directory: &Path, addresses: &Addresses) -> Result<String> {
    let source = addresses.source_database_url.as_deref().unwrap_or_default();
    let target = addresses.target_database_url.as_deref().unwrap_or_default();
    let mut text = String::new();
    writeln!(text, "Kafka            {}", addresses.bootstrap_servers)?;
    writeln!(text, "Connect          {}", addresses.connect_url.as_deref().unwrap_or_default())?;
    writeln!(text, "source database  {source}")?;
    writeln!(text, "target database  {target}")?;
    writeln!(text, "logs             {}", directory.join("logs").display())?;
    writeln!(text, "\nLook around:")?;
    let broker = addresses.bootstrap_servers.split(',').next().unwrap_or_default();
    writeln!(text, "  kcat -b {broker} -C -t {INPUT_TOPIC} -e -K:")?;
    writeln!(text, "  kcat -b {broker} -C -t warehouse.stock.deltas -e -K:")?;
    writeln!(text, "  psql {source} -c 'SELECT * FROM orders.transactions ORDER BY created_at'")?;
    writeln!(text, "  psql {target} -c 'SELECT * FROM remains.remains ORDER BY good_id'")?;
    Ok(text)
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{}", text.trim_end()).context("cannot write to standard output")
}

#[cfg(test)]
mod command_line {
    use super::*;

    #[test]
    fn flags_keep_their_values_however_they_are_written() {
        let words = ["--http=127.0.0.1:80", "--workers", "2", "--transaction-log"].map(str::to_owned);
        let spec = with_flags(ProgramSpec::sink("sink"), &words);
        assert_eq!(spec.arguments(), ["--http", "127.0.0.1:80", "--workers", "2", "--transaction-log"]);
        assert!(spec.has_flag("--http") && spec.has_flag("--transaction-log"));
    }
}
