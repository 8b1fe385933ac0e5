//! The floor: read, write two records for each, commit in transactions, and nothing in between.
//!
//! What an exactly-once program on this client cannot avoid; no state, no parsing, no recovery. Run as a process of its
//! own (`bench raw-copy`), so that its CPU time and memory are its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::ffi;

/// Bytes of each record it writes: about those of a stock delta.
const RECORD_BYTES: usize = 90;
/// When to commit: whatever comes first. As the processor's defaults.
const COMMIT_RECORDS: u64 = 10_000;
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(30);

/// What to copy.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Brokers
    #[arg(long)]
    bootstrap: String,
    /// Topic to read from the beginning
    #[arg(long)]
    source: String,
    /// Topic that receives one record per event
    #[arg(long)]
    output: String,
    /// Topic that receives another record per event, in the event's partition
    #[arg(long)]
    changelog: String,
    /// Events to copy; then it idles until it is ended
    #[arg(long)]
    events: u64,
}

/// Copies, then idles: whoever measures reads its CPU time while it exists.
pub fn run(arguments: &Arguments) -> Result<()> {
    Copy::new(arguments)?.run()?;
    loop {
        std::thread::park();
    }
}

struct Copy<'a> {
    arguments: &'a Arguments,
    consumer: BaseConsumer,
    producer: ThreadedProducer<DefaultProducerContext>,
    copied: u64,
}

/// A transaction that is open.
struct Open {
    since: Instant,
    records: u64,
    next_offsets: BTreeMap<i32, i64>,
}

impl Default for Open {
    fn default() -> Self {
        Self { since: Instant::now(), records: 0, next_offsets: BTreeMap::new() }
    }
}

impl<'a> Copy<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        let consumer = config(
            &arguments.bootstrap,
            &[
                // Its own topics' name is new with every run, and so is its group.
                ("group.id", &arguments.output),
                ("isolation.level", "read_committed"),
                ("auto.offset.reset", "earliest"),
                ("enable.auto.commit", "false"),
                ("queued.min.messages", "200000"),
                ("queued.max.messages.kbytes", "131072"),
                ("fetch.message.max.bytes", "4194304"),
                ("fetch.queue.backoff.ms", "20"),
            ],
        );
        let producer = config(
            &arguments.bootstrap,
            &[
                ("transactional.id", &arguments.output),
                ("linger.ms", "5"),
                ("compression.type", "lz4"),
                ("queue.buffering.max.messages", "500000"),
                ("queue.buffering.max.kbytes", "262144"),
                ("retry.backoff.ms", "10"),
                ("batch.num.messages", "50000"),
                ("batch.size", "1000000"),
            ],
        );
        let copy = Self {
            arguments,
            consumer: consumer.create().context("cannot create the consumer")?,
            producer: producer.create().context("cannot create the producer")?,
            copied: 0,
        };
        copy.producer.init_transactions(TIMEOUT)?;
        copy.consumer.subscribe(&[&arguments.source])?;
        Ok(copy)
    }

    fn run(mut self) -> Result<()> {
        let mut open: Option<Open> = None;
        while self.copied < self.arguments.events || open.is_some() {
            if let Some(message) = self.consumer.poll(Duration::from_millis(1)) {
                let message = message.context("cannot read")?;
                if open.is_none() {
                    self.producer.begin_transaction()?;
                }
                let transaction = open.get_or_insert_with(Open::default);
                self.write(&message)?;
                transaction.records += 1;
                transaction.next_offsets.insert(message.partition(), message.offset() + 1);
                self.copied += 1;
            }
            let done = self.copied >= self.arguments.events;
            let due =
                |open: &mut Open| open.records >= COMMIT_RECORDS || open.since.elapsed() >= COMMIT_INTERVAL || done;
            if let Some(transaction) = open.take_if(due) {
                self.commit(&transaction)?;
            }
        }
        Ok(())
    }

    fn write(&self, message: &BorrowedMessage<'_>) -> Result<()> {
        let key = message.key().unwrap_or_default();
        // Not all alike, or compression would make the copy cheaper than any real output.
        let mut payload = [b'x'; RECORD_BYTES];
        if let Some(head) = payload.first_chunk_mut() {
            *head = message.offset().to_le_bytes();
        }
        let output = BaseRecord::to(&self.arguments.output).key(key).payload(payload.as_slice());
        let changelog = BaseRecord::to(&self.arguments.changelog).key(key).payload(payload.as_slice());
        for mut record in [output, changelog.partition(message.partition())] {
            loop {
                match self.producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        record = back;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err((error, _)) => return Err(error).context("cannot write"),
                }
            }
        }
        Ok(())
    }

    fn commit(&self, open: &Open) -> Result<()> {
        let mut offsets = TopicPartitionList::with_capacity(open.next_offsets.len());
        for (partition, offset) in &open.next_offsets {
            offsets.add_partition_offset(&self.arguments.source, *partition, Offset::Offset(*offset))?;
        }
        let member = self.consumer.group_metadata().context("not a member of the group")?;
        self.producer.send_offsets_to_transaction(&offsets, &member, TIMEOUT)?;
        ffi::commit_transaction(&self.producer, TIMEOUT).map_err(|code| anyhow!("cannot commit: {code}"))
    }
}

fn config(bootstrap: &str, properties: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (name, value) in properties {
        config.set(*name, *value);
    }
    config
}
