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

use crate::systems::NEVER_CLEANED_MS;

/// Enough for 3 million events a minute without collecting all the time.
const BROKER_HEAP_MB: u32 = 700;

/// In the order in which they are started.
const SOURCE_SIDE: [Component; 2] = [Component::SourceDatabase, Component::Connect];

/// The servers and everything around them. Dropping it ends and removes them.
#[derive(Debug)]
pub struct Bench {
    /// The brokers.
    pub kafka: Kafka,
    /// The target database.
    pub target_url: String,
    /// The source database and Connect, where a part needs them.
    pub source: Option<Source>,
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

impl Bench {
    /// Builds the Kafka Streams application and starts the servers, with source database and Connect where asked.
    pub fn start(programs: PathBuf, with_source: bool) -> Result<Self> {
        let began = Instant::now();
        let say = |text: &str| say(began, &text);
        say("building the Kafka Streams application");
        let streams = build_streams(&programs)
            .inspect_err(|error| say(&format!("going on without Kafka Streams: {error:#}")))
            .ok();
        let (options, what) = if with_source {
            (NativeOptions::full(), "all servers")
        } else {
            (NativeOptions::brokers(3).with_target_database(), "three brokers and the target database")
        };
        say(&format!("starting {what}"));
        let stack = options
            .broker_heap_mb(BROKER_HEAP_MB)
            .optimising_compiler()
            .broker_property("log.cleaner.min.compaction.lag.ms", &NEVER_CLEANED_MS.to_string())
            // A topic that is no longer needed gives its disk back at once.
            .broker_property("log.segment.delete.delay.ms", "1000")
            .start()?;
        let addresses = stack.addresses(Viewpoint::Host);
        let source = match (addresses.source_database_url, addresses.source_database, addresses.connect_url) {
            (Some(url), Some(address), Some(connect_url)) => Some(Source { url, address, connect_url }),
            _ => None,
        };
        if source.is_some() {
            // Until they are needed they would only take CPU time from what is measured.
            SOURCE_SIDE.into_iter().rev().try_for_each(|component| stack.stop(component))?;
        }
        let directory = stack.directory().join("bench");
        fs::create_dir_all(directory.join("logs"))?;
        Ok(Self {
            kafka: Kafka::new(&addresses.bootstrap_servers),
            target_url: addresses.target_database_url.context("the stack has no target database")?,
            source,
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
        for component in SOURCE_SIDE {
            self.stack.start(component)?;
            self.stack.wait_healthy(component)?;
        }
        Ok(source)
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
