//! The entry point to a cluster; what can be done with it is in the sibling modules, one responsibility each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::Metadata;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::records::is_passing;
use crate::stack::wait_for;

/// How long one request to the cluster may take before it counts as failed. Generous: brokers may just be electing.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A Kafka cluster by its bootstrap servers.
#[derive(Debug, Clone)]
pub struct Kafka {
    bootstrap_servers: String,
}

impl Kafka {
    /// `bootstrap_servers` as in [`crate::stack::Addresses::bootstrap_servers`].
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self { bootstrap_servers: bootstrap_servers.into() }
    }

    /// The `host:port` list this client was made with.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// A client configuration for this cluster, for tests that need a client of their own.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers).set("reconnect.backoff.max.ms", "500");
        config
    }

    /// A consumer that never joins its group and never commits by itself.
    pub(super) fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        self.config()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .create()
            .context("cannot create a consumer")
    }

    /// A `read_committed` consumer that follows topics from their beginning; they must exist. `group` is only a name.
    pub fn follow<'t>(&self, group: &str, topics: impl IntoIterator<Item = &'t String>) -> Result<BaseConsumer> {
        let consumer: BaseConsumer = self
            .config()
            // librdkafka refuses to assign without a group, though nothing is ever committed to this one.
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            // Records of a purged topic may go before they are read: then the rest is read.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // At most ten answers a second. One for each record that comes, of which a commit makes dozens, was a tenth of all
            // that brokers did in a test of faults.
            .set("fetch.wait.max.ms", "100")
            .set("fetch.min.bytes", "1000000")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            for partition in self.partitions(topic)? {
                assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment)?;
        Ok(consumer)
    }

    /// First and next offset of a partition, as a read_uncommitted reader sees them.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        Self::ends(&self.asking("read_uncommitted")?, topic, partition)
    }

    /// Where a read_committed reader of a partition has to stop: the first offset of the oldest open transaction, or
    /// the high watermark when none is open.
    pub fn last_stable_offset(&self, topic: &str, partition: i32) -> Result<i64> {
        Ok(Self::ends(&self.asking("read_committed")?, topic, partition)?.1)
    }

    /// First offset, last stable offset and next offset of every partition. Asked by two clients in all: to make one costs
    /// more than what it is asked.
    pub fn log_ends(&self, topic: &str) -> Result<BTreeMap<i32, (i64, i64, i64)>> {
        let (committed, uncommitted) = (self.asking("read_committed")?, self.asking("read_uncommitted")?);
        let ends = |partition| {
            let (start, high_watermark) = Self::ends(&uncommitted, topic, partition)?;
            Ok((partition, (start, Self::ends(&committed, topic, partition)?.1, high_watermark)))
        };
        self.partitions(topic)?.into_iter().map(ends).collect()
    }

    /// Next offset of every partition. Asked by one client.
    pub fn next_offsets(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let consumer = self.asking("read_uncommitted")?;
        let next = |partition| Ok((partition, Self::ends(&consumer, topic, partition)?.1));
        self.partitions(topic)?.into_iter().map(next).collect()
    }

    fn asking(&self, isolation: &str) -> Result<BaseConsumer> {
        Ok(self.config().set("isolation.level", isolation).create()?)
    }

    fn ends(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<(i64, i64)> {
        answered(format!("the watermarks of {topic} [{partition}]"), || {
            consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
        })
    }

    /// The topic's partitions in order, once brokers know the topic.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let consumer: BaseConsumer = self.config().create()?;
        // A topic that one broker has told of, another one may not have heard of yet.
        wait_for(format!("topic {topic}"), || {
            let metadata = metadata_of(&consumer, Some(topic))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
            let Some(found) = found else { return Ok(None) };
            let mut partitions: Vec<i32> =
                found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
            partitions.sort_unstable();
            Ok(Some(partitions))
        })
    }
}

/// What brokers answer: asked again while none does, because leaders are being elected or the machine is busy.
pub(super) fn answered<T>(what: impl fmt::Display, mut request: impl FnMut() -> KafkaResult<T>) -> Result<T> {
    wait_for(&what, || match request() {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_passing(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("no answer about {what}")),
    })
}

/// What brokers tell of a topic, or of all.
pub(super) fn metadata_of(consumer: &BaseConsumer, topic: Option<&str>) -> Result<Metadata> {
    answered("metadata", || consumer.fetch_metadata(topic, REQUEST_TIMEOUT))
}

/// `<prefix>-<something no other test of this or another process uses>`, for topics and groups on a shared cluster.
pub fn unique_name(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let process = std::process::id();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:x}-{process:x}-{count}", since_1970.as_millis())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn brokers_that_die_do_not_crash_a_program_linked_as_this_one_is() {
        assert!(service_kafka::leader_discovery::is_mended());
    }
}
