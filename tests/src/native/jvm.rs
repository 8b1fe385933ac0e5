//! How Java servers are run, and what makes them start fast.
//!
//! Owns the command line of a virtual machine. A broker spends 5 CPU seconds on starting, mostly on loading and
//! verifying classes and compiling them twice; on two cores that is most of the time of a short test. A class-data
//! archive written once (see [`class_archives`]) and the quick compiler alone bring it to under 2. Benchmarks want the
//! optimising compiler back: they ask for it, and stacks that stay up keep it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::connect::WorkerOptions;
use super::kafka::BrokerPorts;
use super::ports::Port;
use super::progress::tell;
use super::server::Launch;
use super::{connect, kafka, provision};

/// Main class of a broker.
pub(super) const BROKER: &str = "kafka.Kafka";
/// Main class of a Connect worker.
pub(super) const CONNECT: &str = "org.apache.kafka.connect.cli.ConnectDistributed";

/// Logs to standard output, which the server's log file receives.
const LOG4J_CONFIGURATION: &str = "Configuration:
  Appenders:
    Console:
      name: stdout
      PatternLayout: { pattern: '[%d] %p %m (%c{1})%n' }
  Loggers:
    Root: { level: INFO, AppenderRef: { ref: stdout } }
    Logger:
      - { name: org.apache.kafka.clients, level: WARN }
      - { name: org.apache.kafka.connect.runtime.WorkerConfig, level: ERROR }
";

/// What to do about class-data archives.
#[derive(Debug, Clone)]
enum Archives {
    None,
    /// Servers write theirs into this directory when they end cleanly.
    Write(PathBuf),
    /// Servers read theirs from this directory where there is one.
    Read(PathBuf),
}

/// Virtual machine, class path, logging.
#[derive(Debug, Clone)]
pub(super) struct Jvm {
    pub(super) java: PathBuf,
    class_path: String,
    log4j: PathBuf,
    archives: Archives,
    optimising: bool,
}

impl Jvm {
    /// Installs what is missing and writes the logging configuration into `directory`.
    /// `optimising` buys throughput with a slower start.
    pub(super) fn prepare(directory: &Path, optimising: bool) -> Result<Self> {
        let mut jvm = Self::bare(directory)?;
        jvm.optimising = optimising;
        jvm.archives = Archives::Read(class_archives()?);
        Ok(jvm)
    }

    fn bare(directory: &Path) -> Result<Self> {
        let log4j = directory.join("log4j2.yaml");
        fs::write(&log4j, LOG4J_CONFIGURATION).with_context(|| format!("cannot write {}", log4j.display()))?;
        // In a fixed order, because an archive fits only the very class path it was written with; a wildcard is
        // expanded in the order of the directory, which a restored cache need not keep.
        let mut jars: Vec<String> = fs::read_dir(provision::kafka_libraries()?)?
            .map(|entry| Ok(entry?.path().display().to_string()))
            .collect::<Result<_>>()?;
        jars.sort_unstable();
        let java = provision::java()?;
        Ok(Self { java, class_path: jars.join(":"), log4j, archives: Archives::None, optimising: true })
    }

    /// Arguments that start `main_class` with at most `heap_mb` of heap.
    pub(super) fn arguments(&self, heap_mb: u32, main_class: &str, arguments: &[String]) -> Vec<String> {
        let mut all = vec![
            format!("-Xms{}m", heap_mb.min(128)),
            format!("-Xmx{heap_mb}m"),
            "-XX:+ExitOnOutOfMemoryError".to_owned(),
            format!("-Dlog4j2.configurationFile={}", self.log4j.display()),
        ];
        if !self.optimising {
            all.push("-XX:TieredStopAtLevel=1".to_owned());
        }
        all.extend(self.archive_argument(main_class));
        all.extend(["-cp".to_owned(), self.class_path.clone(), main_class.to_owned()]);
        all.extend_from_slice(arguments);
        all
    }

    fn archive_argument(&self, main_class: &str) -> Option<String> {
        match &self.archives {
            Archives::Write(directory) if matches!(main_class, BROKER | CONNECT) => {
                Some(format!("-XX:ArchiveClassesAtExit={}", directory.join(format!("{main_class}.jsa")).display()))
            }
            Archives::Read(directory) => {
                // Tools share the broker's.
                let name = if main_class == CONNECT { CONNECT } else { BROKER };
                let archive = directory.join(format!("{name}.jsa"));
                archive.is_file().then(|| format!("-XX:SharedArchiveFile={}", archive.display()))
            }
            Archives::Write(_) | Archives::None => None,
        }
    }
}

/// How long a server may take to stop and write its archive.
const ARCHIVE_WITHIN: Duration = Duration::from_secs(120);

/// The directory of class-data archives, written by a broker and a Connect worker that are started for nothing else.
/// They are a convenience: where that fails, the directory stays empty and servers start slowly.
fn class_archives() -> Result<PathBuf> {
    let name = format!("class-archives-{}-java-{}", provision::KAFKA_VERSION, provision::java_version()?);
    // Installed first: the lock of the cache is not reentrant.
    provision::kafka_libraries()?;
    provision::installed(&name, "class archives for a faster start", |directory| {
        if let Err(error) = write_archives(directory) {
            tell(format_args!("going on without class archives, servers will start slowly: {error:#}"));
        }
        Ok(())
    })
}

fn write_archives(archives: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let home = scratch.path();
    let mut jvm = Jvm::bare(home)?;
    jvm.archives = Archives::Write(archives.to_path_buf());
    let launch = |name: &str| Launch::in_directory(name, home, false);
    fs::create_dir_all(home.join("logs"))?;
    fs::create_dir_all(home.join("pids"))?;
    let ports = [BrokerPorts { client: Port::reserve()?, controller: Port::reserve()?, proxied: None, secured: None }];
    let [BrokerPorts { client, .. }] = &ports;
    let bootstrap = format!("127.0.0.1:{}", client.number());
    let mut brokers = kafka::brokers(home, &jvm, &ports, 512, &[], launch)?;
    let broker = brokers.first_mut().context("no broker")?;
    broker.start()?;
    kafka::wait_healthy(1, &bootstrap, || broker.check_running())?;
    let rest = Port::reserve()?;
    let url = format!("http://127.0.0.1:{}", rest.number());
    let plugins = home.join("plugins");
    fs::create_dir_all(&plugins)?;
    let options = WorkerOptions {
        bootstrap_servers: &bootstrap,
        replication: 1,
        port: rest.number(),
        offset_flush_interval: Duration::from_secs(60),
        plugins: &plugins.display().to_string(),
        scan: false,
    };
    let mut worker = connect::worker(home, &jvm, options, launch("connect"))?;
    worker.start()?;
    connect::wait_healthy(&url, || worker.check_running())?;
    // Now and then Connect waits for its HTTP server for ever (4.3.1: its shutdown hook and Jetty's own run beside each other).
    worker.stop_or_kill(Signal::TERM, ARCHIVE_WITHIN)?;
    broker.stop_or_kill(Signal::TERM, ARCHIVE_WITHIN)
}
