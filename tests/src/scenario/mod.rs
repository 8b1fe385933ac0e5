//! One job on a stack: an input topic, processors, sinks, and what must be true at the end.
//!
//! Scenarios are written once, against [`Stack`], and run on every backend. A [`Job`] has names of its own, so
//! that many run beside each other on one stack.

pub mod backfill;
pub mod bad_input;
pub mod every_form;
pub mod faults;
pub mod fencing;
pub mod formats;
pub mod fractions;
pub mod histories;
pub mod live;
pub mod other_goods;
pub mod other_keys;
pub mod poison;
pub mod rebuild;
pub mod workload;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use schemas::{Scale, StockDelta};

use crate::checker::newest_of;
use crate::client::{Delta, Isolation, Kafka, NewTopic, Record, Sql, check_remains, unique_name};
use crate::stack::{ProgramSpec, RunningProgram, Stack, Viewpoint, wait_until};

/// Partitions of the input, as in production and in what was captured.
pub const INPUT_PARTITIONS: i32 = 10;

/// One job with names of its own.
pub struct Job<'a> {
    /// The servers.
    pub stack: &'a dyn Stack,
    /// Kafka, from the test's point of view.
    pub kafka: Kafka,
    /// Start of every name of the job.
    pub name: String,
    /// The input topic.
    pub source_topic: String,
    /// Start of the names of the job's own topics.
    pub topic_prefix: String,
    /// The job's own database on the target server, where the stack has one.
    target: Option<Target>,
    topics: OwnTopics,
}

/// Topics of one job, deleted with it: a cluster that thirty tests share would end with a thousand partitions.
struct OwnTopics {
    kafka: Kafka,
    /// Whatever begins with one of these and a dot.
    names: Vec<String>,
}

impl Drop for OwnTopics {
    fn drop(&mut self) {
        // What stays behind, as when brokers are down, costs time and nothing else.
        let _ = self.kafka.tidy_topics(|topic| self.names.iter().any(|name| has_prefix(topic, name)));
    }
}

fn has_prefix(topic: &str, name: &str) -> bool {
    topic.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

/// A database of one job.
struct Target {
    sql: Sql,
    /// Its URL from the programs' point of view.
    url: String,
}

impl<'a> Job<'a> {
    /// A job with names that nobody else uses.
    pub fn new(stack: &'a dyn Stack, name: &str) -> Result<Self> {
        Self::unique(stack, name, INPUT_PARTITIONS)
    }

    /// A job for a [`workload`], with as many partitions as that writes into.
    pub fn for_workload(stack: &'a dyn Stack, name: &str) -> Result<Self> {
        Self::unique(stack, name, workload::PARTITIONS)
    }

    fn unique(stack: &'a dyn Stack, name: &str, partitions: i32) -> Result<Self> {
        let name = unique_name(name);
        let source_topic = format!("{name}.orders.transactions");
        Self::with_partitions(stack, &name, source_topic, partitions)
    }

    /// A job that reads a topic of this name. Creates the input topic, and the output topic so that the cleaner keeps
    /// away from it: a check of versions 1, 2, 3 … needs all of them.
    pub fn named(stack: &'a dyn Stack, name: &str, source_topic: String) -> Result<Self> {
        Self::with_partitions(stack, name, source_topic, INPUT_PARTITIONS)
    }

    fn with_partitions(stack: &'a dyn Stack, name: &str, source_topic: String, partitions: i32) -> Result<Self> {
        let kafka = Kafka::new(stack.addresses(Viewpoint::Host).bootstrap_servers);
        let topic_prefix = format!("{name}.stock");
        if !kafka.topics()?.contains(&source_topic) {
            let source = NewTopic::new(&source_topic, partitions).property("max.message.bytes", 4 << 20);
            kafka.create_topic(&source)?;
        }
        let month_ms: u64 = 28 * 24 * 3_600_000;
        let deltas = NewTopic::new(format!("{topic_prefix}.deltas"), partitions)
            .property("cleanup.policy", "compact")
            .property("delete.retention.ms", month_ms)
            .property("min.compaction.lag.ms", month_ms);
        kafka.create_topic(&deltas)?;
        let target = Target::create(stack, name)?;
        let topics = OwnTopics { kafka: kafka.clone(), names: vec![name.to_owned()] };
        Ok(Self { stack, kafka, name: name.to_owned(), source_topic, topic_prefix, target, topics })
    }

    /// The same job rebuilt from nothing: the same input and target, own topics and group of another name.
    pub fn rebuilt(mut self) -> Result<Self> {
        let name = unique_name("rebuilt");
        self.topics.names.push(name.clone());
        Ok(Self { topic_prefix: format!("{name}.stock"), name, ..self })
    }

    /// The topics stay when the job goes.
    pub fn keep_topics(&mut self) {
        self.topics.names.clear();
    }

    /// A topic of the job: `deltas`, `transactions`, …
    pub fn topic(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.topic_prefix)
    }

    /// The consumer group and application id.
    pub fn application_id(&self) -> &str {
        &self.name
    }

    /// A processor of this job; flags may be added.
    pub fn processor(&self, instance: u32) -> ProgramSpec {
        ProgramSpec::processor(format!("{}-processor-{instance}", self.name))
            .flag("--source-topic", &self.source_topic)
            .flag("--topic-prefix", &self.topic_prefix)
            .flag("--application-id", self.application_id())
            .flag("--instance", instance)
    }

    /// Starts a processor of this job.
    pub fn start_processor(&self, instance: u32) -> Result<Box<dyn RunningProgram>> {
        self.stack.run(&self.processor(instance))
    }

    /// The consumer group of the job's sinks.
    pub fn sink_group(&self) -> String {
        format!("{}-sink", self.name)
    }

    /// A sink of this job, into the job's own database; flags may be added.
    pub fn sink(&self, instance: u32) -> Result<ProgramSpec> {
        let target = self.target.as_ref().context("the stack has no target database")?;
        Ok(ProgramSpec::sink(format!("{}-sink-{instance}", self.name))
            .flag("--topic-prefix", &self.topic_prefix)
            .flag("--group-id", self.sink_group())
            .flag("--database-url", &target.url))
    }

    /// Starts a sink of this job, into the job's own database.
    pub fn start_sink(&self, instance: u32) -> Result<Box<dyn RunningProgram>> {
        self.stack.run(&self.sink(instance)?)
    }

    /// Name of the job's database on the target server.
    pub fn database(&self) -> String {
        database_name(&self.name)
    }

    /// The job's target database.
    pub fn target(&self) -> Result<&Sql> {
        Ok(&self.target.as_ref().context("the stack has no target database")?.sql)
    }

    /// Waits until the target shows `expected`; rows with nothing left are as good as none.
    pub fn wait_for_target(&self, expected: &BTreeMap<i64, i64>) -> Result<()> {
        let target = self.target()?;
        let mut last = String::new();
        let arrived =
            wait_until(format!("the target of {}", self.name), || match same_remains(&target.remains()?, expected) {
                Ok(()) => Ok(true),
                Err(error) => {
                    last = format!("{error:#}");
                    Ok(false)
                }
            });
        arrived.map_err(|error| error.context(last))
    }

    /// Everything on the output topic, as a `read_committed` reader sees it.
    pub fn deltas(&self) -> Result<Vec<Record>> {
        self.kafka.read(&self.topic("deltas"), Isolation::ReadCommitted)
    }

    /// Newest stock delta per good; fails where versions have a gap or a sum does not follow.
    pub fn newest(&self) -> Result<BTreeMap<i64, Delta>> {
        let in_json = self.deltas()?.into_iter().map(in_json).collect::<Result<Vec<_>>>()?;
        newest_of(&in_json)
    }

    /// Compares the output with expected remains.
    pub fn check(&self, expected: &BTreeMap<i64, i64>) -> Result<()> {
        let newest = self.newest()?;
        let actual = newest.iter().map(|(good, delta)| (*good, delta.remains));
        check_remains(actual, expected.iter().map(|(good, pieces)| (*good, i128::from(*pieces))))
    }

    /// Whether the group has committed everything the input holds.
    pub fn is_consumed(&self) -> Result<bool> {
        let offsets = self.kafka.group_offsets(self.application_id(), &self.source_topic)?;
        let ends = self.kafka.next_offsets(&self.source_topic)?;
        Ok(ends.iter().all(|(partition, end)| offsets.get(partition).map_or(0, |committed| committed.offset) >= *end))
    }

    /// Whether everything the input holds is in the target, and nothing is on its way: movements whose sum is nothing, and the
    /// stock deltas that they make, show in no row.
    pub fn is_processed(&self) -> Result<bool> {
        let [movements, deltas] = ["movements", "deltas"].map(|name| self.topic(name));
        let is_settled = |topic: &str| -> Result<bool> {
            let ends = self.kafka.log_ends(topic)?;
            Ok(ends.values().all(|(_, last_stable, high_watermark)| last_stable == high_watermark))
        };
        if !self.is_consumed()? || !is_settled(&movements)? || !is_settled(&deltas)? {
            return Ok(false);
        }
        let group = self.kafka.group_offsets(self.application_id(), &movements)?;
        let consumed = group.into_iter().map(|(partition, committed)| (partition, committed.offset)).collect();
        Ok(self.is_before(&movements, &consumed) && self.is_before(&deltas, &self.applied(&deltas)?))
    }

    /// Whether every record of a topic lies below these offsets. A topic that is purged while it is read cannot be read to its
    /// end: it is looked at again.
    fn is_before(&self, topic: &str, next: &BTreeMap<i32, i64>) -> bool {
        let is_below = |record: &Record| next.get(&record.partition).is_some_and(|next| record.offset < *next);
        self.kafka.read(topic, Isolation::ReadCommitted).is_ok_and(|records| records.iter().all(is_below))
    }

    /// The next offset of each partition as the target has it.
    fn applied(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let query = format!("SELECT partition, next_offset FROM remains.progress WHERE topic = '{topic}'");
        let number = |value: Option<String>| value.context("unexpected NULL");
        let rows = self.target()?.rows(&query)?.into_iter();
        rows.map(|row| {
            let [partition, next] = <[_; 2]>::try_from(row).ok().context("expected two columns")?;
            Ok((number(partition)?.parse()?, number(next)?.parse()?))
        })
        .collect()
    }

    /// Waits until the input is consumed and the output equals `expected`; then looks once more, so that passing
    /// through the right sums on the way to wrong ones is no success. Tells what ended in `programs` on failure.
    pub fn wait_for(&self, expected: &BTreeMap<i64, i64>, programs: &mut [Box<dyn RunningProgram>]) -> Result<()> {
        let mut last = String::new();
        let arrived = wait_until(format!("the remains of {}", self.name), || {
            for program in programs.iter_mut() {
                if let Some(exit) = program.exit()? {
                    bail!("{} ended with {exit}:\n{}", program.name(), tail(&program.log()?));
                }
            }
            if !self.is_consumed()? {
                last = "the input is not consumed yet".into();
                return Ok(false);
            }
            match self.check(expected) {
                Ok(()) => Ok(true),
                Err(error) => {
                    last = format!("{error:#}");
                    Ok(false)
                }
            }
        });
        if let Err(error) = arrived {
            let logs: Vec<String> =
                programs.iter().map(|program| program.log().map(|log| tail(&log)).unwrap_or_default()).collect();
            return Err(error.context(format!("{last}\n{}", logs.join("\n---\n"))));
        }
        self.check(expected).context("right for a moment only")
    }
}

/// A stock delta as it would be in JSON, which is what the checker reads.
fn in_json(record: Record) -> Result<Record> {
    let (Some(key), Some(value @ [0, ..])) = (record.key.as_deref(), record.value.as_deref()) else {
        return Ok(record);
    };
    let mut json = Vec::new();
    StockDelta::decode(key, value, Scale::WHOLE)?.encode(Scale::WHOLE, &mut json);
    Ok(Record { value: Some(json), ..record })
}

/// Compares what the target shows with what it has to show.
fn same_remains(actual: &BTreeMap<i64, i64>, expected: &BTreeMap<i64, i64>) -> Result<()> {
    let wide = |sums: &BTreeMap<i64, i64>| -> BTreeMap<i64, i128> {
        sums.iter().map(|(good, pieces)| (*good, i128::from(*pieces))).collect()
    };
    check_remains(wide(actual), wide(expected))
}

fn database_name(job: &str) -> String {
    job.replace(['-', '.'], "_")
}

impl Target {
    fn create(stack: &dyn Stack, name: &str) -> Result<Option<Self>> {
        let (host, inside) = (stack.addresses(Viewpoint::Host), stack.addresses(Viewpoint::Stack));
        let (Some(host), Some(inside)) = (host.target_database_url, inside.target_database_url) else {
            return Ok(None);
        };
        let database = database_name(name);
        Sql::connect(&host)?.execute(&format!("CREATE DATABASE {database}"))?;
        let at = |server: &str| -> Result<String> {
            let (start, _) = server.rsplit_once('/').context("no database in the URL")?;
            Ok(format!("{start}/{database}"))
        };
        Ok(Some(Self { sql: Sql::connect(&at(&host)?)?, url: at(&inside)? }))
    }
}

/// SIGTERM, and exit code 0.
pub fn end_cleanly(programs: &mut [Box<dyn RunningProgram>]) -> Result<()> {
    for program in programs {
        program.terminate()?;
        wait_ended_cleanly(program.as_mut())?;
    }
    Ok(())
}

/// Exit code 0 of a program that was told to stop.
pub fn wait_ended_cleanly(program: &mut dyn RunningProgram) -> Result<()> {
    let exit = program.wait_exit()?;
    if !exit.is_clean() {
        bail!("{} ended with {exit}:\n{}", program.name(), tail(&program.log()?));
    }
    let is_mended = !program.log()?.contains("linked without the mend");
    ensure!(is_mended, "{} may crash when brokers do: see service_kafka::leader_discovery", program.name());
    Ok(())
}

/// The last lines of a log, for the message of a test that failed.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
}
