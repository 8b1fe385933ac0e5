//! Owns the Kafka side: a group consumer of one topic, and a reader of the control topic.
//!
//! It never decides about offsets: the caller seeks to what the target says, and what is committed to the group only
//! shows lag. Rebalances are copied out of librdkafka's callback and handled by the loop as ordinary events: a callback
//! that waits for the database would block the group. Lists of partitions are never kept: an object of librdkafka's
//! that outlives the consumer keeps its destruction waiting for ever (librdkafka#3796).

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::RDKafkaRespErr;
use service::{Coded, logging};

use crate::position::Start;
use crate::work::Record;

/// How long a question to the brokers may take; membership is kept by librdkafka's own thread meanwhile.
const ASK: Duration = Duration::from_secs(5);

/// What a poll came to; `T` is what the caller made of a record.
#[derive(Debug)]
pub enum Event<T> {
    /// A record.
    Record(T),
    /// All records of the partition, up to the last stable offset, were read.
    End(i32),
    /// The group gave partitions to this sink; to be answered with [`Source::accept`].
    Assigned(Vec<i32>),
    /// The group takes partitions away; to be answered with [`Source::give_up`].
    Revoked {
        /// The partitions.
        partitions: Vec<i32>,
        /// Whether they are lost already: another sink may have them.
        lost: bool,
    },
    /// A position is outside its log: find all of them anew.
    OutOfRange,
    /// Nothing at the moment.
    Idle,
}

/// A consumer in a group, reading one topic.
pub struct Source {
    consumer: BaseConsumer<Context>,
    topic: String,
}

#[derive(Debug)]
enum Rebalance {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
}

/// librdkafka's callbacks; everything they learn is left here for the loop.
#[derive(Default)]
struct Context {
    rebalances: Mutex<VecDeque<Rebalance>>,
    stable_offsets: Mutex<HashMap<i32, i64>>,
    /// While closing nobody handles events any more: revocations are answered on the spot.
    closing: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        #[cfg(target_os = "linux")]
        if service_kafka::leader_discovery::is_told_of(facility, message) {
            return;
        }
        logging::librdkafka(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Connections come and go; what the sink cannot live with reaches it through poll.
        tracing::debug!(%error, reason, "librdkafka reports");
    }

    fn stats(&self, statistics: Statistics) {
        let mut offsets = lock(&self.stable_offsets);
        for partition in statistics.topics.values().flat_map(|topic| topic.partitions.values()) {
            if partition.ls_offset >= 0 {
                offsets.insert(partition.partition, partition.ls_offset);
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) {
            if !assigned {
                log_failure("unassign", answer_revocation(consumer, list));
            }
            return;
        }
        let partitions = list.elements().iter().map(TopicPartitionListElem::partition).collect();
        let rebalance = if assigned { Rebalance::Assigned(partitions) } else { Rebalance::Revoked(partitions) };
        lock(&self.rebalances).push_back(rebalance);
    }
}

fn answer_revocation(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

fn log_failure(what: &str, result: Result<(), KafkaError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what} failed");
    }
}

fn client(config: &ClientConfig) -> Result<BaseConsumer<Context>, Coded> {
    config
        .create_with_context(Context::default())
        .map_err(|error| service_kafka::setting_refused("Kafka client", &error))
}

/// A refusal that only an operator can lift, if the error is one.
fn refused(error: &KafkaError, doing: &str) -> Option<Coded> {
    error.rdkafka_error_code().and_then(|code| service_kafka::refusal(code, doing, ""))
}

impl Source {
    /// Joins the group of `config` for `topic`, which need not exist yet.
    ///
    /// # Errors
    /// `KAFKA_SETTING_REFUSED` when librdkafka refuses a property.
    pub fn subscribe(config: &ClientConfig, topic: &str) -> Result<Self, Coded> {
        let consumer = client(config)?;
        consumer
            .subscribe(&[topic])
            .map_err(|error| Coded::unexpected("KAFKA_SUBSCRIBE", format!("cannot subscribe to {topic}: {error}")))?;
        Ok(Self { consumer, topic: topic.to_owned() })
    }

    /// Waits up to `timeout` for something to happen.
    ///
    /// # Errors
    /// `KAFKA_FATAL` when the client cannot go on, `KAFKA_NOT_AUTHORIZED`, `KAFKA_NOT_AUTHENTICATED`.
    pub fn poll<T>(&self, timeout: Duration, on_record: impl FnOnce(Record<'_>) -> T) -> Result<Event<T>, Coded> {
        if let Some(event) = self.next_rebalance() {
            return Ok(event);
        }
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => Ok(Event::Record(on_record(Record {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key(),
                value: message.payload(),
            }))),
            Some(Err(error)) => self.judge(&error),
            None => Ok(self.next_rebalance().unwrap_or(Event::Idle)),
        }
    }

    fn next_rebalance<T>(&self) -> Option<Event<T>> {
        let rebalance = lock(&self.consumer.context().rebalances).pop_front()?;
        Some(match rebalance {
            Rebalance::Assigned(partitions) => Event::Assigned(partitions),
            Rebalance::Revoked(partitions) => Event::Revoked { partitions, lost: self.consumer.assignment_lost() },
        })
    }

    fn judge<T>(&self, error: &KafkaError) -> Result<Event<T>, Coded> {
        match error {
            KafkaError::PartitionEOF(partition) => Ok(Event::End(*partition)),
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Ok(Event::OutOfRange)
            }
            KafkaError::MessageConsumptionFatal(_) => {
                Err(Coded::unexpected("KAFKA_FATAL", format!("the Kafka client cannot go on: {error}")))
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                tracing::info!(topic = self.topic, "the topic does not exist (yet)");
                Ok(Event::Idle)
            }
            error => {
                if let Some(refused) =
                    refused(error, &format!("reading {} as a member of the consumer group", self.topic))
                {
                    return Err(refused);
                }
                tracing::warn!(topic = self.topic, %error, "reading is disturbed");
                Ok(Event::Idle)
            }
        }
    }

    /// Takes partitions over, paused: nothing is read before the target said from where.
    pub fn accept(&self, partitions: &[i32]) {
        let list = self.list(partitions.iter().map(|partition| (*partition, Offset::Beginning)));
        let assigned = match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.assign(&list),
        };
        log_failure("assign", assigned);
        self.pause(partitions);
    }

    /// Gives partitions up.
    pub fn give_up(&self, partitions: &[i32]) {
        let list = self.list(partitions.iter().map(|partition| (*partition, Offset::Invalid)));
        log_failure("unassign", answer_revocation(&self.consumer, &list));
        lock(&self.consumer.context().stable_offsets).retain(|partition, _| !partitions.contains(partition));
    }

    /// Stops reading partitions, keeping them.
    pub fn pause(&self, partitions: &[i32]) {
        let list = self.list(partitions.iter().map(|partition| (*partition, Offset::Invalid)));
        log_failure("pause", self.consumer.pause(&list));
    }

    /// The first offset of a partition's log and its last stable offset, as the brokers say now.
    pub fn bounds(&self, partition: i32) -> Result<(i64, i64), KafkaError> {
        self.consumer.fetch_watermarks(&self.topic, partition, ASK)
    }

    /// How many partitions the topic has.
    pub fn partition_count(&self) -> Result<Option<NonZeroU32>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), ASK)?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        Ok(u32::try_from(count).ok().and_then(NonZeroU32::new))
    }

    /// Goes to the given places and reads on from there; what was fetched before is not handed out any more.
    ///
    /// # Errors
    /// The partitions then are where they were: try again later.
    pub fn go_to(&self, places: &[(i32, Start)]) -> Result<(), KafkaError> {
        let offset = |start: Start| match start {
            Start::Beginning => Offset::Beginning,
            Start::Offset(offset) => Offset::Offset(offset),
        };
        let list = self.list(places.iter().map(|(partition, start)| (*partition, offset(*start))));
        let mut refused = Vec::new();
        {
            let answers = self.consumer.seek_partitions(list, ASK)?;
            for answer in answers.elements() {
                match answer.error() {
                    Ok(()) => {}
                    Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State) => {
                        refused.push(answer.partition());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        // A partition that is not being fetched cannot be sought: it was only just assigned, or its topic was deleted
        // and created again, after which librdkafka does not start to fetch it by itself. Taking it anew does.
        if !refused.is_empty() {
            let again = places.iter().filter(|(partition, _)| refused.contains(partition));
            let list = self.list(again.map(|(partition, start)| (*partition, offset(*start))));
            self.consumer.incremental_unassign(&list)?;
            self.consumer.incremental_assign(&list)?;
        }
        let list = self.list(places.iter().map(|(partition, _)| (*partition, Offset::Invalid)));
        self.consumer.resume(&list)
    }

    /// Tells the group how far the target is, for those who watch lag. Nothing depends on it.
    pub fn show_progress(&self, offsets: impl Iterator<Item = (i32, i64)>) {
        let list = self.list(offsets.map(|(partition, offset)| (partition, Offset::Offset(offset))));
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "the group was not told the offsets");
        }
    }

    /// Last stable offset of a partition as of the last statistics.
    pub fn stable_offset(&self, partition: i32) -> Option<i64> {
        lock(&self.consumer.context().stable_offsets).get(&partition).copied()
    }

    /// Leaves the group, so that others take over at once.
    pub fn close(self) {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        // A revocation that was queued but not answered would keep the consumer from closing.
        let pending = std::mem::take(&mut *lock(&self.consumer.context().rebalances));
        for rebalance in pending {
            match rebalance {
                Rebalance::Assigned(partitions) => self.accept(&partitions),
                Rebalance::Revoked(partitions) => self.give_up(&partitions),
            }
        }
        drop(self.consumer);
    }

    fn list(&self, offsets: impl Iterator<Item = (i32, Offset)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            // Fails for offsets below -2 only, of which there are none.
            log_failure("partition list", list.add_partition_offset(&self.topic, partition, offset));
        }
        list
    }
}

/// A reader of the one-partition control topic, from its beginning, outside any group.
pub struct Announcements {
    consumer: BaseConsumer<Context>,
    topic: String,
}

impl Announcements {
    /// Reads `topic`, which need not exist yet. (librdkafka wants a group id even for a reader that never commits.)
    ///
    /// # Errors
    /// `KAFKA_SETTING_REFUSED` when librdkafka refuses a property.
    pub fn open(config: &ClientConfig, topic: &str) -> Result<Self, Coded> {
        let announcements = Self { consumer: client(config)?, topic: topic.to_owned() };
        announcements.restart();
        Ok(announcements)
    }

    /// Reads everything again, from the beginning.
    pub fn restart(&self) {
        let mut list = TopicPartitionList::new();
        log_failure("partition list", list.add_partition_offset(&self.topic, 0, Offset::Beginning));
        log_failure("assign", self.consumer.assign(&list));
    }

    /// Hands every record that is there to `on_record`; never waits.
    ///
    /// # Errors
    /// What `on_record` gives; `KAFKA_NOT_AUTHORIZED`, `KAFKA_NOT_AUTHENTICATED`.
    pub fn poll(&self, mut on_record: impl FnMut(Record<'_>) -> Result<(), Coded>) -> Result<(), Coded> {
        while let Some(polled) = self.consumer.poll(Duration::ZERO) {
            match polled {
                Ok(message) => on_record(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key(),
                    value: message.payload(),
                })?,
                Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                )) => {
                    tracing::warn!(topic = self.topic, "the topic is a new one: reading it from the beginning");
                    self.restart();
                    return Ok(());
                }
                Err(error) => {
                    if let Some(refused) = refused(&error, &format!("reading {}", self.topic)) {
                        return Err(refused);
                    }
                    tracing::debug!(topic = self.topic, %error, "no announcements at the moment");
                }
            }
        }
        Ok(())
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}
