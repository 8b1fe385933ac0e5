//! Creating, changing and deleting topics.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::Metadata;

use super::kafka::{Kafka, REQUEST_TIMEOUT};
use super::runtime::block_on;
use crate::stack::wait_until;

/// How long one broker may take to say what it knows; one that is down does not.
const ONE_BROKER_TIMEOUT: Duration = Duration::from_secs(2);

/// A topic to create.
#[derive(Debug, Clone)]
pub struct NewTopic {
    name: String,
    partitions: i32,
    properties: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with the cluster's default replication.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self { name: name.into(), partitions, properties: BTreeMap::new() }
    }

    /// Sets a topic property, e.g. `cleanup.policy`.
    #[must_use]
    pub fn property(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.properties.insert(name.to_owned(), value.to_string());
        self
    }
}

impl Kafka {
    pub(super) fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config().create().context("cannot create an admin client")
    }

    /// Creates a topic and waits until every partition has a leader; fails when it exists.
    pub fn create_topic(&self, topic: &NewTopic) -> Result<()> {
        let mut request = rdkafka::admin::NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(-1));
        for (name, value) in &topic.properties {
            request = request.set(name, value);
        }
        let results = block_on(self.admin()?.create_topics([&request], &options()))??;
        for result in results {
            if let Err((name, code)) = result {
                bail!("cannot create topic {name}: {code}");
            }
        }
        let partitions = usize::try_from(topic.partitions)?;
        wait_until(format!("leaders of topic {}", topic.name), || self.is_led_everywhere(&topic.name, partitions))
    }

    /// Deletes topics and waits until the cluster no longer lists them; those that do not exist are no error.
    pub fn delete_topics(&self, topics: &[&str]) -> Result<()> {
        let results = block_on(self.admin()?.delete_topics(topics, &options()))??;
        for result in results {
            match result {
                Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((name, code)) => bail!("cannot delete topic {name}: {code}"),
            }
        }
        wait_until("deleted topics to disappear", || {
            let existing = self.topics()?;
            Ok(!topics.iter().any(|topic| existing.iter().any(|name| name == topic)))
        })
    }

    /// Names of all topics, internal ones included.
    pub fn topics(&self) -> Result<Vec<String>> {
        let consumer: BaseConsumer = self.config().create()?;
        let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// A topic's effective properties.
    pub fn topic_properties(&self, topic: &str) -> Result<BTreeMap<String, String>> {
        let resource = ResourceSpecifier::Topic(topic);
        let results = block_on(self.admin()?.describe_configs([&resource], &options()))??;
        let resource = results.into_iter().next().context("no answer about a topic's configuration")?;
        let resource = resource.with_context(|| format!("cannot read the configuration of {topic}"))?;
        Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// Gives a topic more partitions.
    pub fn add_partitions(&self, topic: &str, count: usize) -> Result<()> {
        let request = NewPartitions::new(topic, count);
        for result in block_on(self.admin()?.create_partitions([&request], &options()))?? {
            if let Err((_, code)) = result {
                bail!("cannot give {topic} {count} partitions: {code}");
            }
        }
        wait_until(format!("leaders of topic {topic}"), || self.is_led_everywhere(topic, count))
    }

    /// Sets a property of a topic. All others that were set go back to the brokers' defaults.
    pub fn set_topic_property(&self, topic: &str, name: &str, value: &str) -> Result<()> {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        for result in block_on(self.admin()?.alter_configs([&change], &options()))?? {
            if let Err((_, code)) = result {
                bail!("cannot set {name} of {topic}: {code}");
            }
        }
        Ok(())
    }

    /// Deletes all records of a partition below `offset` (−1: all there are), as retention would.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut list = rdkafka::TopicPartitionList::new();
        let end = if offset < 0 { rdkafka::Offset::End } else { rdkafka::Offset::Offset(offset) };
        list.add_partition_offset(topic, partition, end)?;
        block_on(self.admin()?.delete_records(&list, &options()))??;
        Ok(())
    }

    /// Whether every broker that answers knows leaders of so many partitions: each hears of a topic in its own time, and the
    /// next client asks any of them.
    fn is_led_everywhere(&self, topic: &str, partitions: usize) -> Result<bool> {
        let consumer: BaseConsumer = self.config().create()?;
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        if leaders(&metadata, topic) != partitions {
            return Ok(false);
        }
        for broker in metadata.brokers() {
            let address = format!("{}:{}", broker.host(), broker.port());
            let only: BaseConsumer = self.config().set("bootstrap.servers", address).create()?;
            // One that is down hears of it before it answers anybody.
            let Ok(metadata) = only.fetch_metadata(Some(topic), ONE_BROKER_TIMEOUT) else { continue };
            if leaders(&metadata, topic) != partitions {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How many partitions of a topic have a leader; none when the topic is unknown.
fn leaders(metadata: &Metadata, topic: &str) -> usize {
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    found.map_or(0, |topic| topic.partitions().iter().filter(|partition| partition.leader() >= 0).count())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}
