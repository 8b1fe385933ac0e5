//! Clients, topics and waiting, shared by the tests of this binary.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use processor::kafka::{ClientProperties, KafkaCluster, KafkaConsumer, KafkaProducer, Settings};
use processor_engine::cluster::{
    Cluster as _, Delivered, GroupConsumer as _, NewRecord, OffsetToCommit, Polled, Rebalance,
    TransactionalProducer as _,
};
use processor_engine::{Failure, StageSpec, TopicIndex, TopicPartition, Topology};
use service::Shutdown;
use tests::client::{Kafka, NewTopic, OutgoingRecord, unique_name};
use tests::native::shared_brokers;
pub(crate) use tests::stack::PATIENCE;
use tests::stack::{Stack as _, Viewpoint, wait_until};

/// The input topic of [`Bench`]'s topology.
pub(crate) const INPUT: TopicIndex = TopicIndex(0);
/// Its changelog.
pub(crate) const CHANGELOG: TopicIndex = TopicIndex(1);
/// Its broadcast topic.
pub(crate) const BROADCAST: TopicIndex = TopicIndex(2);

/// Topics and a group of its own on the shared brokers.
pub(crate) struct Bench {
    pub(crate) kafka: Kafka,
    pub(crate) application: String,
    pub(crate) topology: Arc<Topology>,
}

impl Bench {
    /// Creates the topics with two partitions each.
    pub(crate) fn new() -> Result<Self> {
        let kafka = Kafka::new(shared_brokers()?.addresses(Viewpoint::Host).bootstrap_servers);
        let application = unique_name("adapter");
        let names = ["input", "changelog", "broadcast"].map(|name| format!("{application}.{name}"));
        for name in &names {
            kafka.create_topic(&NewTopic::new(name, 2))?;
        }
        let stage = StageSpec {
            name: "only",
            input: INPUT,
            changelog: CHANGELOG,
            purge_input: false,
            accept_truncated_input: false,
        };
        let topology = Topology { topics: names.to_vec(), stages: vec![stage], broadcast: BROADCAST };
        Ok(Self { kafka, application, topology: Arc::new(topology) })
    }

    /// One worker's cluster.
    pub(crate) fn cluster(&self, instance: &str) -> KafkaCluster {
        KafkaCluster::new(self.settings(instance))
    }

    /// What one worker's clients are told. On a busy machine everything may take long: no transaction, session or request
    /// ends by itself while a test runs.
    pub(crate) fn settings(&self, instance: &str) -> Settings {
        Settings {
            bootstrap_servers: self.kafka.bootstrap_servers().to_owned(),
            application_id: self.application.clone(),
            instance: instance.to_owned(),
            worker: 0,
            topology: Arc::clone(&self.topology),
            transaction_timeout: PATIENCE,
            static_membership: false,
            properties: patient(),
            shutdown: Shutdown::new(),
        }
    }

    /// A member that holds both input partitions.
    pub(crate) fn member(&self, instance: &str) -> Result<KafkaConsumer> {
        let mut consumer = self.cluster(instance).consumer()?;
        let assigned = assigned(&mut consumer)?;
        ensure!(assigned.len() == 2, "assigned {assigned:?}");
        Ok(consumer)
    }

    /// Name of a topic.
    pub(crate) fn name(&self, topic: TopicIndex) -> &str {
        self.topology.topic_name(topic)
    }

    /// Writes records outside any transaction.
    pub(crate) fn write(&self, at: TopicPartition, values: &[&str]) -> Result<()> {
        let outgoing = values.iter().map(|value| OutgoingRecord {
            partition: at.partition,
            value: Some(value.as_bytes().to_vec()),
            ..OutgoingRecord::default()
        });
        self.kafka.write(self.name(at.topic), &outgoing.collect::<Vec<_>>())?;
        Ok(())
    }

    /// Waits until readers see everything below `offset`: the markers of a transaction follow the acknowledgement of its end.
    pub(crate) fn until_stable(&self, at: TopicPartition, offset: i64) -> Result<()> {
        wait_until("the markers of a transaction", || {
            Ok(self.kafka.last_stable_offset(self.name(at.topic), at.partition)? >= offset)
        })
    }

    /// Waits until the group has no members: a farewell that is not answered within 5 s is librdkafka's last.
    pub(crate) fn until_nobody_is_left(&self) -> Result<()> {
        wait_until("the group to be empty", || Ok(!self.kafka.group_has_members(&self.application)?))
    }
}

/// Properties that let nothing end by itself.
fn patient() -> ClientProperties {
    let mut properties = ClientProperties::default();
    properties.consumer.insert("session.timeout.ms".into(), "60000".into());
    properties.producer.insert("socket.timeout.ms".into(), "300000".into());
    // Closing an idle connection counts as a broken one, and a transaction that ends meanwhile is the producer's last.
    properties.producer.insert("connections.max.idle.ms".into(), "0".into());
    properties
}

pub(crate) fn at(topic: TopicIndex, partition: i32) -> TopicPartition {
    TopicPartition { topic, partition }
}

/// Queues a record in the open transaction.
pub(crate) fn send(producer: &mut KafkaProducer, target: TopicPartition, value: &str) -> Result<(), Failure> {
    producer.send(&NewRecord { target, key: Some(b"key"), value: Some(value.as_bytes()), headers: &[] })
}

/// One whole transaction of records, without offsets.
pub(crate) fn commit_records(
    producer: &mut KafkaProducer,
    target: TopicPartition,
    values: &[&str],
) -> Result<Vec<Delivered>, Failure> {
    producer.begin()?;
    for value in values {
        send(producer, target, value)?;
    }
    let delivered = producer.flush()?;
    producer.commit()?;
    Ok(delivered)
}

/// An offset to commit for input partition 0.
pub(crate) fn offset(offset: i64, metadata: &str) -> Vec<OffsetToCommit> {
    vec![OffsetToCommit { input: at(INPUT, 0), offset, leader_epoch: None, metadata: metadata.into() }]
}

/// Polls and answers rebalances until partitions are assigned.
pub(crate) fn assigned(consumer: &mut KafkaConsumer) -> Result<Vec<TopicPartition>> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100), &mut |_| ())? {
            Polled::Rebalance(Rebalance::Assign(partitions)) => {
                consumer.assign(&partitions)?;
                if !partitions.is_empty() {
                    return Ok(partitions);
                }
            }
            Polled::Rebalance(Rebalance::Revoke(partitions) | Rebalance::Lost(partitions)) => {
                consumer.unassign(&partitions)?;
            }
            _ => {}
        }
    }
    bail!("no partitions were assigned within {PATIENCE:?}")
}

/// Reads `count` values, which must come from `partition`, with their offsets.
pub(crate) fn read(
    consumer: &mut KafkaConsumer,
    partition: TopicPartition,
    count: usize,
) -> Result<Vec<(i64, String)>> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < count {
        ensure!(Instant::now() < deadline, "only {records:?} after {PATIENCE:?}");
        let mut foreign = None;
        consumer.poll(Duration::from_millis(100), &mut |record| {
            if record.source != partition {
                foreign = Some(record.source);
            }
            let value = record.value.map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            records.push((record.offset, value));
        })?;
        ensure!(foreign.is_none(), "a record of {foreign:?}");
    }
    Ok(records)
}

/// Polls until it fails.
pub(crate) fn failure_of(consumer: &mut KafkaConsumer) -> Result<Failure> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Err(failure) = consumer.poll(Duration::from_millis(100), &mut |_| ()) {
            return Ok(failure);
        }
    }
    bail!("polling did not fail within {PATIENCE:?}")
}

/// The code of a refusal.
pub(crate) fn code(failure: &Failure) -> &'static str {
    match failure {
        Failure::Stop(stop) => stop.code,
        _ => "",
    }
}
