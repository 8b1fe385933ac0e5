//! Owns writing the load to the source topic, as fast as the brokers take it.
//!
//! Written as Debezium's producer would: acknowledged by all in-sync replicas, partitioned by murmur2 of the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::tests::client::{Kafka, NewTopic};
use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use crate::envelope::headers;
use crate::events::{ExpectedSums, Generator, Workload};

/// Partitions of source and output.
pub const PARTITIONS: i32 = 10;

const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

/// A loaded source topic.
#[derive(Debug)]
pub struct Loaded {
    /// The topic.
    pub topic: String,
    /// Events in it.
    pub events: u64,
    /// What they sum up to.
    pub expected: Arc<ExpectedSums>,
    /// How long writing took, in seconds.
    pub seconds: f64,
}

/// Creates the source topic and writes a workload to it.
pub fn load(kafka: &Kafka, topic: &str, workload: Workload) -> Result<Loaded> {
    kafka.create_topic(&NewTopic::new(topic, PARTITIONS).property("cleanup.policy", "delete"))?;
    let mut loaded = Loaded::empty(topic);
    loaded.more(kafka, workload)?;
    Ok(loaded)
}

impl Loaded {
    /// A topic in which nothing is yet.
    pub fn empty(topic: &str) -> Self {
        Self { topic: topic.to_owned(), events: 0, expected: Arc::default(), seconds: 0.0 }
    }

    /// Writes another workload to the topic. Give it another seed, or all of it is redelivered.
    pub fn more(&mut self, kafka: &Kafka, workload: Workload) -> Result<()> {
        let writer = Writer::bulk(kafka, &self.topic)?;
        let began = Instant::now();
        let mut generator = Generator::new(workload);
        while let Some(event) = generator.next_event() {
            writer.send(event.key.as_bytes(), event.value.as_bytes())?;
        }
        writer.finish()?;
        self.seconds += began.elapsed().as_secs_f64();
        self.events += workload.events;
        Arc::make_mut(&mut self.expected).extend(generator.expected());
        Ok(())
    }
}

/// Writes records to one topic.
pub struct Writer {
    producer: ThreadedProducer<Failures>,
    failures: Failures,
    topic: String,
    headers: Option<OwnedHeaders>,
}

impl Writer {
    /// For many records: large batches.
    pub fn bulk(kafka: &Kafka, topic: &str) -> Result<Self> {
        Self::new(kafka, topic, &[("linger.ms", "20"), ("batch.size", "1000000"), ("batch.num.messages", "50000")])
    }

    /// For records that count one by one: each is sent at once.
    pub fn prompt(kafka: &Kafka, topic: &str) -> Result<Self> {
        Self::new(kafka, topic, &[("linger.ms", "0")])
    }

    fn new(kafka: &Kafka, topic: &str, batching: &[(&str, &str)]) -> Result<Self> {
        let failures = Failures::default();
        let mut config = kafka.config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            // As the Java client, Debezium's included.
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "524288");
        for (name, value) in batching {
            config.set(*name, *value);
        }
        let producer = config.create_with_context(failures.clone()).context("cannot create a producer")?;
        Ok(Self { producer, failures, topic: topic.to_owned(), headers: Some(headers()) })
    }

    /// Leaves Debezium's headers off.
    #[must_use]
    pub fn without_headers(mut self) -> Self {
        self.headers = None;
        self
    }

    /// Queues a record for the partition of its key, waiting while the queue is full.
    pub fn send(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.queue(BaseRecord::to(&self.topic).key(key).payload(value))
    }

    /// Queues a record for a partition, waiting while the queue is full.
    pub fn send_to(&self, partition: i32, key: &[u8], value: &[u8]) -> Result<()> {
        self.queue(BaseRecord::to(&self.topic).partition(partition).key(key).payload(value))
    }

    fn queue(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
        if let Some(headers) = &self.headers {
            record = record.headers(headers.clone());
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error).context("cannot write a record"),
            }
        }
    }

    /// Waits until everything was acknowledged; fails when anything was not.
    pub fn finish(&self) -> Result<()> {
        self.producer.flush(DELIVERED_WITHIN).context("records were not delivered in time")?;
        let failed = self.failures.0.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} records were not delivered to {}", self.topic);
        Ok(())
    }
}

/// Counts records that were not delivered.
#[derive(Debug, Clone, Default)]
struct Failures(Arc<AtomicU64>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
