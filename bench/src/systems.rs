//! Owns what is measured side by side, and how each of them is started: the same job, the same source topic, a fresh
//! application id, a fresh state directory.

use std::path::PathBuf;
use std::process::Command;

use ::tests::client::{NewTopic, unique_name};
use ::tests::stack::wait_until;
use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::limit::Limit;
use crate::load::PARTITIONS;
use crate::process::Process;
use crate::verify::Format;

/// Far longer than any run: the cleaner must leave old versions to the verification.
pub const NEVER_CLEANED_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Heap of the Kafka Streams application; the collector for throughput.
const STREAMS_VM: [&str; 3] = ["-Xms1g", "-Xmx1g", "-XX:+UseParallelGC"];

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// This system's processor.
    Processor {
        /// Worker threads.
        workers: u16,
    },
    /// The Kafka Streams application, with two threads.
    Streams {
        /// Its `commit.interval.ms`.
        commit_interval_ms: u64,
        /// Whether it writes only the newest value of each good per commit, as this system does, or one per event.
        newest_per_commit: bool,
    },
    /// The raw transactional copy.
    RawCopy,
}

impl System {
    /// The processor as it is deployed.
    pub const PROCESSOR: Self = Self::Processor { workers: 1 };
    /// Kafka Streams committing as often as this system.
    pub const STREAMS: Self = Self::Streams { commit_interval_ms: 100, newest_per_commit: false };
    /// Kafka Streams as fast as it was found to go.
    pub const STREAMS_BEST: Self = Self::Streams { commit_interval_ms: 1_000, newest_per_commit: true };

    /// Name in output and results.
    pub fn name(self) -> String {
        match self {
            Self::Processor { workers: 1 } => "processor".to_owned(),
            Self::Processor { workers } => format!("processor, {workers} workers"),
            Self::Streams { commit_interval_ms, newest_per_commit } => {
                let what = if newest_per_commit { ", newest per commit" } else { "" };
                format!("streams, {commit_interval_ms} ms{what}")
            }
            Self::RawCopy => "raw copy".to_owned(),
        }
    }

    /// What its output holds.
    pub const fn format(self) -> Format {
        match self {
            Self::Processor { .. } => Format::StockDeltas,
            Self::Streams { .. } => Format::StreamsSums,
            Self::RawCopy => Format::Copies,
        }
    }
}

/// One application of a system: the names of everything it has, and how to start it (again).
#[derive(Debug)]
pub struct Application {
    /// What it is.
    pub system: System,
    /// Start of its topics' names, its application id and consumer group.
    pub id: String,
    /// Topic it writes.
    pub output: String,
    /// Its state.
    pub state: PathBuf,
    command: Command,
    log: PathBuf,
}

impl Application {
    /// A fresh application that will read `source`, with its output topic. `events`: how many there are, which only the
    /// raw copy needs to know.
    pub fn new(bench: &Bench, system: System, source: &str, events: u64) -> Result<Self> {
        let id = unique_name("bench");
        let output = format!("{id}.deltas");
        let cleanup = if system == System::RawCopy { "delete" } else { "compact" };
        bench.kafka.create_topic(
            &NewTopic::new(&output, PARTITIONS)
                .property("cleanup.policy", cleanup)
                .property("delete.retention.ms", 28 * 24 * 60 * 60 * 1_000_u64),
        )?;
        let state = bench.directory.join("state").join(&id);
        std::fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
        let log = bench.directory.join("logs").join(format!("{id}.log"));
        let mut application = Self { system, id, output, state, command: Command::new("false"), log };
        application.command = match system {
            System::Processor { workers } => application.processor(bench, source, workers, &bench.processor_http),
            System::Streams { commit_interval_ms, newest_per_commit } => {
                application.streams(bench, source, commit_interval_ms, newest_per_commit)?
            }
            System::RawCopy => application.raw_copy(bench, source, events)?,
        };
        Ok(application)
    }

    /// A further instance of the same application on the same source: a processor of one worker, with a state of its own.
    pub fn second(&self, bench: &Bench, source: &str) -> Result<Self> {
        let state = self.state.with_extension("2");
        std::fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
        let mut second = Self {
            system: System::PROCESSOR,
            id: self.id.clone(),
            output: self.output.clone(),
            log: self.log.with_extension("2.log"),
            state,
            command: Command::new("false"),
        };
        second.command = second.processor(bench, source, 1, &bench.second_http);
        second.command.args(["--instance", "2"]);
        Ok(second)
    }

    fn processor(&self, bench: &Bench, source: &str, workers: u16, http: &str) -> Command {
        let mut command = Command::new(bench.programs.join("processor"));
        command.args(["run", "--bootstrap-servers", bench.kafka.bootstrap_servers()]);
        command.args(["--source-topic", source, "--topic-prefix", &self.id, "--application-id", &self.id]);
        command.arg("--state-dir").arg(&self.state);
        command.args(["--http", http, "--log-format", "json"]);
        command.args(["--workers", &workers.to_string()]);
        command
    }

    fn streams(&self, bench: &Bench, source: &str, interval_ms: u64, newest_per_commit: bool) -> Result<Command> {
        let jar = bench.streams.as_ref().context("the Kafka Streams application was not built")?;
        let mut command = Command::new("java");
        command.args(STREAMS_VM).arg("-jar").arg(jar);
        command.args(["--bootstrap", bench.kafka.bootstrap_servers(), "--application-id", &self.id]);
        command.args(["--source", source, "--output", &self.output]);
        command.arg("--state-dir").arg(&self.state);
        command.args(["--commit-interval-ms", &interval_ms.to_string()]);
        command.args(["--emit", if newest_per_commit { "commit" } else { "every" }]);
        Ok(command)
    }

    fn raw_copy(&self, bench: &Bench, source: &str, events: u64) -> Result<Command> {
        let changelog = format!("{}.transactions", self.id);
        bench.kafka.create_topic(&NewTopic::new(&changelog, PARTITIONS))?;
        let mut command = Command::new(std::env::current_exe().context("cannot tell where this program is")?);
        command.args(["raw-copy", "--bootstrap", bench.kafka.bootstrap_servers()]);
        command.args(["--source", source, "--output", &self.output, "--changelog", &changelog]);
        command.args(["--events", &events.to_string()]);
        Ok(command)
    }

    /// Adds a flag for every start from now on.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.command.arg(flag);
        self
    }

    /// Starts it, in a cgroup if one is given.
    pub fn start(&self, limit: Option<&Limit>) -> Result<Process> {
        let name = self.system.name();
        match limit {
            Some(limit) => Process::start(&name, &limit.wrap(&self.command), &self.log),
            None => Process::start(&name, &self.command, &self.log),
        }
    }

    /// Starts a sink that follows it, once the running application has made its topics.
    pub fn start_sink(&self, bench: &Bench) -> Result<Process> {
        let control = format!("{}.control", self.id);
        wait_until("the processor to make its topics", || Ok(bench.kafka.topics()?.contains(&control)))?;
        start_sink(bench, &self.id)
    }

    /// Removes its topics and its state; it must not run any more.
    pub fn remove(self, bench: &Bench) -> Result<()> {
        bench.delete_topics_of(&self.id)?;
        std::fs::remove_dir_all(&self.state).with_context(|| format!("cannot remove {}", self.state.display()))
    }
}

/// Starts a sink in a group of its own for the topics that begin with `prefix`.
pub fn start_sink(bench: &Bench, prefix: &str) -> Result<Process> {
    let mut command = Command::new(bench.programs.join("sink"));
    command.args(["run", "--bootstrap-servers", bench.kafka.bootstrap_servers(), "--topic-prefix", prefix]);
    command.args(["--group-id", &format!("{prefix}-sink"), "--http", &bench.sink_http]);
    command.env("SINK_DATABASE_URL", &bench.target_url);
    Process::start("sink", &command, &bench.directory.join("logs").join(format!("{prefix}-sink.log")))
}
