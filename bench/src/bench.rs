//! Owns what all parts share: the servers, where programs and files are, and the line that says what is going on.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use ::tests::client::Kafka;
use ::tests::native::{NativeOptions, NativeStack};
use ::tests::stack::{Component, HostPort, Stack as _, Viewpoint};
use anyhow::{Context as _, Result};

use crate::process::cpu_seconds;
use crate::systems::NEVER_CLEANED_MS;

/// Enough for 3 million events a minute without collecting all the time.
const BROKER_HEAP_MB: u32 = 700;

/// In the order in which they are started.
const SOURCE_SIDE: [Component; 2] = [Component::SourceDatabase, Component::Connect];
/// The same for Debezium's JDBC sink.
const JDBC_SIDE: [Component; 2] = [Component::Registry, Component::Connect];

/// What is there beside brokers and target database; it runs only while it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The source database and Connect.
    pub source: bool,
    /// Connect with Debezium's JDBC sink and the registry, if they can be had.
    pub jdbc_sink: bool,
}

/// The servers and everything around them. Dropping it ends and removes them.
#[derive(Debug)]
pub struct Bench {
    /// The brokers.
    pub kafka: Kafka,
    /// The target database.
    pub target_url: String,
    /// The source database and Connect, where a part needs them.
    pub source: Option<Source>,
    /// Debezium's JDBC sink, where a part needs it; otherwise why it is not there.
    pub jdbc_sink: std::result::Result<JdbcSink, String>,
    /// Where `processor` and `sink` are.
    pub programs: PathBuf,
    /// The Kafka Streams application, if it could be built.
    pub streams: Option<PathBuf>,
    /// Where the processor serves its metrics.
    pub processor_http: String,
    /// Where a second processor serves its metrics.
    pub second_http: String,
    /// Where the sink serves its metrics.
    pub sink_http: String,
    /// State and logs.
    pub directory: PathBuf,
    began: Instant,
    stack: NativeStack,
}

/// Where changes come from.
#[derive(Debug)]
pub struct Source {
    /// The source database.
    pub url: String,
    /// The same for the connector.
    pub address: HostPort,
    /// Connect's REST interface.
    pub connect_url: String,
}

/// What Debezium's JDBC sink runs in and needs.
#[derive(Debug)]
pub struct JdbcSink {
    /// Connect's REST interface.
    pub connect_url: String,
    /// Base URL of the registry.
    pub registry_url: String,
    /// The registry's Confluent-compatible API.
    pub schemas_url: String,
}

impl Bench {
    /// Builds the Kafka Streams application and starts the servers, with those beside them that are needed.
    pub fn start(programs: PathBuf, needs: Needs) -> Result<Self> {
        let began = Instant::now();
        let say = |text: &str| say(began, &text);
        say("building the Kafka Streams application");
        let streams = build_streams(&programs)
            .inspect_err(|error| say(&format!("going on without Kafka Streams: {error:#}")))
            .ok();
        let (options, without_jdbc_sink) = options(needs);
        if let Some(why) = without_jdbc_sink.as_ref().filter(|_| needs.jdbc_sink) {
            say(&format!("going on without Debezium's JDBC sink: {why}"));
        }
        say("starting three brokers, the target database and what is needed beside them");
        let stack = options
            .broker_heap_mb(BROKER_HEAP_MB)
            .optimising_compiler()
            .broker_property("log.cleaner.min.compaction.lag.ms", &NEVER_CLEANED_MS.to_string())
            // A topic that is no longer needed gives its disk back at once.
            .broker_property("log.segment.delete.delay.ms", "1000")
            .start()?;
        let addresses = stack.addresses(Viewpoint::Host);
        let schemas_url = addresses.schemas_url();
        let connect_url = addresses.connect_url.clone();
        let source = match (addresses.source_database_url, addresses.source_database, connect_url) {
            (Some(url), Some(address), Some(connect_url)) => Some(Source { url, address, connect_url }),
            _ => None,
        };
        let jdbc_sink = match (without_jdbc_sink, addresses.connect_url, addresses.registry_url, schemas_url) {
            (None, Some(connect_url), Some(registry_url), Some(schemas_url)) => {
                Ok(JdbcSink { connect_url, registry_url, schemas_url })
            }
            (why, ..) => Err(why.unwrap_or_else(|| "the stack has no registry".to_owned())),
        };
        // Until they are needed they would only take CPU time from what is measured.
        let beside = [Component::Connect, Component::Registry, Component::SourceDatabase];
        let there = stack.components();
        beside.into_iter().filter(|one| there.contains(one)).try_for_each(|component| stack.stop(component))?;
        let directory = stack.directory().join("bench");
        fs::create_dir_all(directory.join("logs"))?;
        Ok(Self {
            kafka: Kafka::new(&addresses.bootstrap_servers),
            target_url: addresses.target_database_url.context("the stack has no target database")?,
            source,
            jdbc_sink,
            programs,
            streams,
            processor_http: free_address()?,
            second_http: free_address()?,
            sink_http: free_address()?,
            directory,
            began,
            stack,
        })
    }

    /// Starts the source database and Connect again.
    pub fn start_source(&self) -> Result<&Source> {
        let source = self.source.as_ref().context("the stack was started without a source database")?;
        self.start_all(SOURCE_SIDE)?;
        Ok(source)
    }

    /// Starts the registry and Connect with Debezium's JDBC sink again.
    pub fn start_jdbc_sink(&self) -> Result<&JdbcSink> {
        let there = self.jdbc_sink.as_ref().map_err(|why| anyhow::anyhow!("no JDBC sink: {why}"))?;
        self.start_all(JDBC_SIDE)?;
        Ok(there)
    }

    /// Stops them: until they are needed again they would only take CPU time from what is measured.
    pub fn stop_jdbc_sink(&self) -> Result<()> {
        JDBC_SIDE.into_iter().rev().try_for_each(|component| self.stack.stop(component))
    }

    fn start_all(&self, components: [Component; 2]) -> Result<()> {
        for component in components {
            self.stack.start(component)?;
            self.stack.wait_healthy(component)?;
        }
        Ok(())
    }

    /// CPU time Connect has used since it was started, s.
    pub fn connect_cpu_s(&self) -> Result<f64> {
        let pid = self.stack.pid(Component::Connect).context("Connect does not run")?;
        cpu_seconds(&pid.to_string()).context("Connect is gone")
    }

    /// Says what is going on, with the time since the start.
    pub fn say(&self, text: impl fmt::Display) {
        say(self.began, &text);
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Deletes every topic whose name begins with `prefix`.
    pub fn delete_topics_of(&self, prefix: &str) -> Result<()> {
        let topics = self.kafka.topics()?;
        let ours: Vec<&str> = topics.iter().map(String::as_str).filter(|topic| topic.starts_with(prefix)).collect();
        if ours.is_empty() { Ok(()) } else { self.kafka.delete_topics(&ours) }
    }

    /// The value of a metric of a program, added up over its labels; `None` while it does not answer.
    pub fn metric(address: &str, name: &str) -> Option<f64> {
        let text = ureq::get(format!("http://{address}/metrics")).call().ok()?.body_mut().read_to_string().ok()?;
        metric_in(&text, name)
    }
}

/// Which servers to start, and why the JDBC sink is not among them.
fn options(needs: Needs) -> (NativeOptions, Option<String>) {
    let options = NativeOptions::brokers(3).with_target_database();
    let options = if needs.source { options.with_source() } else { options };
    if !needs.jdbc_sink {
        return (options, Some("no part needs it".to_owned()));
    }
    match options.clone().with_jdbc_sink() {
        Ok(options) => (options, None),
        Err(error) => (options, Some(format!("{error:#}"))),
    }
}

fn metric_in(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, _labels) = series.split_once('{').unwrap_or((series, ""));
            if found == name { value.parse::<f64>().ok() } else { None }
        })
        .reduce(|sum, value| sum + value)
}

fn say(began: Instant, text: &dyn fmt::Display) {
    let _best_effort = writeln!(std::io::stderr(), "[{:6.1} s] {text}", began.elapsed().as_secs_f64());
}

/// An address nobody listens on now. The programs get it at once, so nobody else will.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on the loopback interface")?;
    Ok(listener.local_addr()?.to_string())
}

/// Builds the application below the build directory, unless that was done, and gives its jar.
fn build_streams(programs: &Path) -> Result<PathBuf> {
    let target = programs.parent().unwrap_or(programs).join("bench/streams");
    let jar = target.join("streams-all.jar");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("streams");
    if is_newer(&jar, &sources).unwrap_or(false) {
        return Ok(jar);
    }
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "package"])
        .arg(format!("-Dbench.target={}", target.display()))
        .current_dir(&sources)
        .output()
        .context("Maven (mvn) is missing. To do: apt-get install maven")?;
    anyhow::ensure!(
        output.status.success(),
        "it does not build; Maven needs its repository:\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(jar)
}

/// Whether a file is newer than everything below a directory.
fn is_newer(file: &Path, directory: &Path) -> Result<bool> {
    let built = fs::metadata(file)?.modified()?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let newer = if entry.file_type()?.is_dir() {
            is_newer(file, &entry.path())?
        } else {
            entry.metadata()?.modified()? < built
        };
        if !newer {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_over_its_labels_and_of_its_name_alone() {
        let text =
            "# HELP commits Commits.\nrows_total{topic=\"a\"} 2\nrows_total{topic=\"b\"} 3\nrows_total_x 100\nup 1\n";
        assert_eq!(metric_in(text, "rows_total"), Some(5.0));
        assert_eq!(metric_in(text, "up"), Some(1.0));
        assert_eq!(metric_in(text, "down"), None);
    }
}
