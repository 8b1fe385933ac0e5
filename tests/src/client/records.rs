//! Reading a topic to its end, and writing records to exact places.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::kafka::{Kafka, REQUEST_TIMEOUT};
use crate::stack::PATIENCE;

/// What a reader is shown of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is committed, up to the last stable offset.
    ReadCommitted,
    /// Everything up to the high watermark, aborted records included.
    ReadUncommitted,
}

impl Isolation {
    const fn level(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition it was in.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Key, byte for byte.
    pub key: Option<Vec<u8>>,
    /// Value, byte for byte; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The key as text, replacing what is no UTF-8; empty when there is none.
    pub fn key_text(&self) -> String {
        self.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned()
    }

    /// Whether the value is in a registry's wire format, which begins with a zero byte, as no JSON does.
    pub fn is_framed(&self) -> bool {
        matches!(self.value.as_deref(), Some([0, ..]))
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name)?.1.as_deref()
    }

    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}

/// A record to be written.
#[derive(Debug, Clone, Default)]
pub struct OutgoingRecord {
    /// Partition to write to.
    pub partition: i32,
    /// Timestamp in milliseconds since 1970, or now.
    pub timestamp_ms: Option<i64>,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Kafka {
    /// Reads all partitions of a topic from the beginning to the end they have meanwhile, ordered by partition and
    /// offset. A read_committed read ends at the last stable offset: an open transaction hides what follows it.
    pub fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<Record>> {
        let partitions = self.partitions(topic)?;
        let consumer: BaseConsumer = self
            .config()
            // librdkafka refuses to assign without a group, though nothing is ever committed to this one.
            .set("group.id", "reader-without-group")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("isolation.level", isolation.level())
            .set("fetch.wait.max.ms", "50")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in &partitions {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let mut unfinished: BTreeSet<i32> = partitions.into_iter().collect();
        let mut records = Vec::new();
        let mut progress = Instant::now();
        while !unfinished.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => records.push(Record::of(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    unfinished.remove(&partition);
                }
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(error).with_context(|| format!("cannot read {topic}")),
                None if progress.elapsed() > PATIENCE => {
                    bail!("reading {topic} made no progress for {PATIENCE:?} in partitions {unfinished:?}");
                }
                None => continue,
            }
            progress = Instant::now();
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// Writes records to the partitions they name, in order, and returns their offsets, in the same order.
    /// Fails unless every record was written.
    pub fn write(&self, topic: &str, records: &[OutgoingRecord]) -> Result<Vec<i64>> {
        self.writer()?.write(topic, records)
    }

    /// A producer to write with more than once: to make one takes longer than most writes.
    pub fn writer(&self) -> Result<Writer> {
        let reports = Reports::default();
        let producer: ThreadedProducer<Reports> = self
            .config()
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("message.max.bytes", "16000000")
            .set("queue.buffering.max.messages", "1000000")
            .set("message.timeout.ms", "120000")
            .create_with_context(reports.clone())?;
        Ok(Writer { producer, reports })
    }
}

/// Writes records. After an error it is to be made anew: what it still holds may be written later.
pub struct Writer {
    producer: ThreadedProducer<Reports>,
    reports: Reports,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// As [`Kafka::write`].
    pub fn write(&self, topic: &str, records: &[OutgoingRecord]) -> Result<Vec<i64>> {
        for (index, record) in records.iter().enumerate() {
            enqueue(&self.producer, topic, record, index)?;
        }
        self.producer.flush(REQUEST_TIMEOUT * 4).context("records were not delivered in time")?;
        let mut delivered = std::mem::take(&mut *self.reports.0.lock().unwrap_or_else(PoisonError::into_inner));
        delivered.sort_unstable_by_key(|(index, _)| *index);
        let offsets: Vec<i64> = delivered
            .into_iter()
            .map(|(index, offset)| offset.map_err(|error| anyhow::anyhow!("record {index} was not written: {error}")))
            .collect::<Result<_>>()?;
        if offsets.len() != records.len() {
            bail!("{} of {} records were reported as written", offsets.len(), records.len());
        }
        Ok(offsets)
    }
}

fn enqueue(producer: &ThreadedProducer<Reports>, topic: &str, record: &OutgoingRecord, index: usize) -> Result<()> {
    let headers = record
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() }));
    let mut base: BaseRecord<'_, Vec<u8>, Vec<u8>, usize> =
        BaseRecord::with_opaque_to(topic, index).partition(record.partition).headers(headers);
    base.key = record.key.as_ref();
    base.payload = record.value.as_ref();
    base.timestamp = record.timestamp_ms;
    loop {
        match producer.send(base) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                base = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error).context("cannot write a record"),
        }
    }
}

/// Errors that pass while brokers come and go, or are busy: a reader goes on, a request is repeated.
pub(crate) fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

/// Where each record ended up, by its place in the request.
#[derive(Debug, Clone, Default)]
struct Reports(Arc<Mutex<Vec<Report>>>);

type Report = (usize, Result<i64, KafkaError>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
    }
}
