//! Creating, changing and deleting topics.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::kafka::{Kafka, REQUEST_TIMEOUT, metadata_of};
use super::runtime::block_on;
use crate::stack::{wait_for, wait_until};

/// How long one broker may take to say what it knows; one that is down does not.
const ONE_BROKER_TIMEOUT: Duration = Duration::from_secs(10);

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
        let admin = self.admin()?;
        let mut asked_before = false;
        wait_until(format!("topic {} to be created", topic.name), || {
            let failed = first_failure(block_on(admin.create_topics([&request], &options()))?)?;
            let again = std::mem::replace(&mut asked_before, true);
            match failed {
                None => Ok(true),
                // Of a request that was not answered nobody knows whether it took effect.
                Some(Code::TopicAlreadyExists) if again => Ok(true),
                Some(code) if is_unanswered(code) => Ok(false),
                Some(code) => bail!("cannot create topic {}: {code}", topic.name),
            }
        })?;
        let partitions = usize::try_from(topic.partitions)?;
        wait_until(format!("leaders of topic {}", topic.name), || self.is_led_everywhere(&topic.name, partitions))
    }

    /// Deletes topics and waits until the cluster no longer lists them; those that do not exist are no error.
    pub fn delete_topics(&self, topics: &[&str]) -> Result<()> {
        let admin = self.admin()?;
        wait_until("deleted topics to disappear", || {
            let existing = self.topics()?;
            let left: Vec<&str> =
                topics.iter().copied().filter(|topic| existing.iter().any(|name| name == topic)).collect();
            if left.is_empty() {
                return Ok(true);
            }
            match first_failure(block_on(admin.delete_topics(&left, &options()))?)? {
                None | Some(Code::UnknownTopicOrPartition) => Ok(false),
                Some(code) if is_unanswered(code) => Ok(false),
                Some(code) => bail!("cannot delete topics {left:?}: {code}"),
            }
        })
    }

    /// Asks once for the deletion of those topics that are picked, and waits for nothing.
    pub fn tidy_topics(&self, is_picked: impl Fn(&str) -> bool) -> Result<()> {
        let topics = self.topics_asked_once()?;
        let picked: Vec<&str> = topics.iter().map(String::as_str).filter(|topic| is_picked(topic)).collect();
        if !picked.is_empty() {
            block_on(self.admin()?.delete_topics(&picked, &options()))??;
        }
        Ok(())
    }

    /// Names of all topics, internal ones included.
    pub fn topics(&self) -> Result<Vec<String>> {
        let consumer: BaseConsumer = self.config().create()?;
        Ok(names(&metadata_of(&consumer, None)?))
    }

    /// As [`Kafka::topics`], for people, who do not want to wait for ten minutes to hear that nobody is there.
    pub fn topics_asked_once(&self) -> Result<Vec<String>> {
        let consumer: BaseConsumer = self.config().create()?;
        let answer = consumer.fetch_metadata(None, REQUEST_TIMEOUT);
        Ok(names(&answer.with_context(|| format!("no answer from {}", self.bootstrap_servers()))?))
    }

    /// A topic's effective properties.
    pub fn topic_properties(&self, topic: &str) -> Result<BTreeMap<String, String>> {
        let (resource, admin) = (ResourceSpecifier::Topic(topic), self.admin()?);
        wait_for(format!("the configuration of {topic}"), || {
            let results = block_on(admin.describe_configs([&resource], &options()))??;
            // A broker that has not heard of a new topic yet answers with nothing.
            let Some(resource) = results.into_iter().next() else { return Ok(None) };
            let resource = resource.with_context(|| format!("cannot read the configuration of {topic}"))?;
            let entries = resource.entries.into_iter();
            let properties: BTreeMap<_, _> = entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
            Ok((!properties.is_empty()).then_some(properties))
        })
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
        wait_until(format!("{name} of {topic} to be known"), || {
            Ok(self.topic_properties(topic)?.get(name).is_some_and(|known| known == value))
        })
    }

    /// Deletes all records of a partition below `offset` (−1: all there are), as retention would.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut list = rdkafka::TopicPartitionList::new();
        let end = if offset < 0 { rdkafka::Offset::End } else { rdkafka::Offset::Offset(offset) };
        list.add_partition_offset(topic, partition, end)?;
        for element in block_on(self.admin()?.delete_records(&list, &options()))??.elements() {
            element.error().with_context(|| format!("cannot delete records of {topic} [{partition}]"))?;
        }
        Ok(())
    }

    /// Whether every broker that is listed knows leaders of so many partitions: each hears of a topic in its own time, and the
    /// next client asks any of them.
    fn is_led_everywhere(&self, topic: &str, partitions: usize) -> Result<bool> {
        let consumer: BaseConsumer = self.config().create()?;
        let metadata = metadata_of(&consumer, Some(topic))?;
        if leaders(&metadata, topic) != partitions {
            return Ok(false);
        }
        for broker in metadata.brokers() {
            let address = format!("{}:{}", broker.host(), broker.port());
            let only: BaseConsumer = self.config().set("bootstrap.servers", address).create()?;
            // One that is down is soon no longer listed, and hears of the topic before it is again.
            let Ok(metadata) = only.fetch_metadata(Some(topic), ONE_BROKER_TIMEOUT) else { return Ok(false) };
            if leaders(&metadata, topic) != partitions {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn names(metadata: &Metadata) -> Vec<String> {
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

/// How many partitions of a topic have a leader; none when the topic is unknown.
fn leaders(metadata: &Metadata, topic: &str) -> usize {
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    found.map_or(0, |topic| topic.partitions().iter().filter(|partition| partition.leader() >= 0).count())
}

/// What went wrong with a request about topics, with one of them or altogether; nothing when it is done.
fn first_failure(results: KafkaResult<Vec<TopicResult>>) -> Result<Option<Code>> {
    match results {
        Ok(results) => Ok(results.into_iter().find_map(|result| result.err().map(|(_, code)| code))),
        Err(KafkaError::AdminOp(code)) => Ok(Some(code)),
        Err(error) => Err(error.into()),
    }
}

/// Whether it is unknown if a request took effect, or certain that the next controller has to be asked.
fn is_unanswered(code: Code) -> bool {
    matches!(code, Code::OperationTimedOut | Code::RequestTimedOut | Code::NotController)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}
