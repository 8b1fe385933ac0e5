//! A transactional producer on rdkafka.
//!
//! Owns one `transactional.id` from initialisation to fencing, and the delivery reports of the one
//! transaction that may be open. Never retries a request that timed out (see [`super::errors`]), never
//! begins a transaction after librdkafka may have repeated a request of the last one by itself, never
//! commits with a report missing. Guards engine rules 5 (offsets come from delivery reports) and 6.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use processor_engine::cluster::{Delivered, NewRecord, OffsetToCommit, TransactionalProducer};
use processor_engine::{Failure, TopicIndex, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::context::Context;
use super::errors::{NativeError, transactional};
use super::ffi::{self, GroupMetadata, Outbox, Outgoing};
use super::topics::Topics;

/// Longest pause between two attempts to queue a record, and between repetitions of a retriable request.
const BACKOFF: Duration = Duration::from_millis(1);

/// How long the flush beside another call goes on before it looks whether that has ended.
const FLUSH_SLICE: Duration = Duration::from_millis(5);

/// How long after the end of a transaction a broken connection may still be reported, by another thread. Shorter than
/// any connection is idle before it is closed.
const REPORTED_WITHIN: Duration = Duration::from_secs(1);

/// A transactional producer; see [`TransactionalProducer`].
pub struct KafkaProducer {
    outbox: Outbox<DeliveryContext>,
    topics: Topics,
    /// How long one call may take: the transaction is gone after that anyway.
    timeout: Duration,
    /// Tells reports of this transaction from those of an earlier one.
    transaction: u16,
    /// Records queued in this transaction.
    sent: u64,
    /// Of the last transaction.
    ending: Option<Ending>,
}

/// From the moment a transaction's offsets were sent until its end was acknowledged.
///
/// librdkafka repeats a request whose connection broke, or whose answer did not come in time, and the call succeeds. The
/// first copy may still be under way, and under transaction protocol v1 it would end whatever transaction the same
/// producer has open when it arrives: half of it, committed. Only a new epoch makes the broker refuse it.
#[derive(Debug)]
struct Ending {
    /// Broken connections before.
    before: u64,
    /// Broken connections when it was over.
    after: u64,
    /// When it was over.
    at: Instant,
}

/// Reports of the open transaction.
#[derive(Debug, Default)]
struct Deliveries {
    transaction: u16,
    acknowledged: u64,
    /// In the order of their first report.
    offsets: Vec<Delivered>,
    /// Where in `offsets` the last report went.
    last: usize,
    failure: Option<NativeError>,
}

impl Deliveries {
    /// Notes where a record lies.
    ///
    /// Reports come by the batch, so mostly for the same partition as the one before: a hash map cost more than all else
    /// that is done with a report.
    fn note(&mut self, target: TopicPartition, offset: i64) {
        let again = self.offsets.get(self.last).is_some_and(|delivered| delivered.target == target);
        if !again {
            let known = self.offsets.iter().position(|delivered| delivered.target == target);
            self.last = known.unwrap_or(self.offsets.len());
        }
        match self.offsets.get_mut(self.last) {
            Some(delivered) => {
                delivered.first = delivered.first.min(offset);
                delivered.last = delivered.last.max(offset);
            }
            None => self.offsets.push(Delivered { target, first: offset, last: offset }),
        }
    }
}

/// Receives delivery reports on the producer's own thread.
struct DeliveryContext {
    base: Context,
    deliveries: Mutex<Deliveries>,
    /// Connections that broke and requests that timed out so far.
    interruptions: AtomicU64,
}

impl DeliveryContext {
    fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        // Nothing in here can be half done in a way that matters: counters and offsets only grow.
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(facility, "FAIL" | "REQTMOUT") {
            self.interruptions.fetch_add(1, Ordering::AcqRel);
        }
        self.base.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.base.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.error(error, reason);
    }
}

/// Where a record went, packed into the pointer that librdkafka carries along: no allocation per record, and
/// no topic name to compare in the report.
#[cfg(target_pointer_width = "64")]
mod ticket {
    use super::{TopicIndex, TopicPartition};

    pub(super) fn pack(target: TopicPartition, transaction: u16) -> Option<usize> {
        let partition = u32::try_from(target.partition).ok()?;
        let packed = u64::from(target.topic.0) << 48 | u64::from(transaction) << 32 | u64::from(partition);
        usize::try_from(packed).ok()
    }

    pub(super) fn unpack(ticket: usize) -> Option<(TopicPartition, u16)> {
        let packed = u64::try_from(ticket).ok()?;
        let partition = i32::try_from(packed & 0xffff_ffff).ok()?;
        let transaction = u16::try_from((packed >> 32) & 0xffff).ok()?;
        let topic = TopicIndex(u16::try_from(packed >> 48).ok()?);
        Some((TopicPartition { topic, partition }, transaction))
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let Some((target, transaction)) = ticket::unpack(ticket) else { return };
        let mut deliveries = self.deliveries();
        if deliveries.transaction != transaction {
            return;
        }
        match result {
            // The broker may acknowledge a repeated batch without saying where it is (DUPLICATE_SEQUENCE_NUMBER).
            Ok(message) if message.offset() < 0 => {
                deliveries.failure.get_or_insert_with(|| {
                    NativeError::local(RDKafkaErrorCode::DuplicateSequenceNumber, "acknowledged without an offset")
                });
            }
            Ok(message) => {
                let offset = message.offset();
                deliveries.acknowledged += 1;
                deliveries.note(target, offset);
            }
            Err((error, message)) => {
                deliveries.failure.get_or_insert_with(|| {
                    let text = format!("{} [{}]: {error}", message.topic(), message.partition());
                    NativeError { text, ..NativeError::of(error) }
                });
            }
        }
    }
}

impl KafkaProducer {
    /// Builds the client and initialises its transactional id: whatever a predecessor left open is resolved
    /// and the predecessor is fenced before this returns.
    pub(super) fn start(
        config: &ClientConfig,
        topics: Topics,
        timeout: Duration,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let (deliveries, interruptions) = (Mutex::default(), AtomicU64::new(0));
        let context = DeliveryContext { base: Context::new("producer"), deliveries, interruptions };
        let client: ThreadedProducer<DeliveryContext> =
            config.create_with_context(context).map_err(|error| super::not_created("producer", &error))?;
        let outbox = Outbox::new(client, &topics.topology().topics).map_err(|error| Failure::Rebuild(error.text))?;
        let producer = Self { outbox, topics, timeout, transaction: 0, sent: 0, ending: None };
        let deadline = Instant::now() + patience;
        loop {
            let slice = timeout.min(deadline.saturating_duration_since(Instant::now()));
            let Err(error) = producer.client().init_transactions(slice) else { return Ok(producer) };
            let error = NativeError::of(&error);
            // Unlike all other calls this one may be repeated after a timeout: it has nothing to lose.
            if !error.retriable || error.fatal || Instant::now() >= deadline {
                return Err(producer.failure(&error, "initialising transactions"));
            }
            thread::sleep(BACKOFF);
        }
    }

    fn client(&self) -> &ThreadedProducer<DeliveryContext> {
        self.outbox.client()
    }

    fn interruptions(&self) -> u64 {
        self.client().client().context().interruptions.load(Ordering::Acquire)
    }

    fn watch_ending(&mut self) {
        let before = self.interruptions();
        self.ending.get_or_insert_with(|| Ending { before, after: before, at: Instant::now() });
    }

    fn ended(&mut self) {
        let after = self.interruptions();
        if let Some(ending) = &mut self.ending {
            (ending.after, ending.at) = (after, Instant::now());
        }
    }

    /// Whether a request that ended the last transaction may have been sent twice.
    fn may_be_repeated(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| {
            let after = if ending.at.elapsed() < REPORTED_WITHIN { self.interruptions() } else { ending.after };
            after > ending.before
        })
    }

    /// Calls until it succeeds, fails for good or the time is over.
    fn repeat(&self, doing: &str, mut call: impl FnMut(Duration) -> Result<(), NativeError>) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match call(deadline.saturating_duration_since(Instant::now())) {
                Ok(()) => return Ok(()),
                Err(error) if error.may_be_repeated() && Instant::now() < deadline => thread::sleep(BACKOFF),
                Err(error) => return Err(self.failure(&error, doing)),
            }
        }
    }

    /// Has everything that is queued sent while `call` waits for something else: records linger to be sent in few, large
    /// batches, and without this they would wait for two answers of the coordinators more.
    fn sending_meanwhile<T>(&self, call: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        let client = self.client();
        thread::scope(|scope| {
            let flush = || {
                loop {
                    if ffi::flush(client, FLUSH_SLICE).is_ok() || done.load(Ordering::Relaxed) {
                        return;
                    }
                }
            };
            // Without a thread it only takes longer.
            let _ = thread::Builder::new().name("flush".to_owned()).spawn_scoped(scope, flush);
            let result = call();
            done.store(true, Ordering::Relaxed);
            result
        })
    }

    /// Classifies an error; a producer that failed fatally keeps the reason, which says more than the call's.
    fn failure(&self, error: &NativeError, doing: &str) -> Failure {
        match self.client().client().fatal_error() {
            Some((code, text)) => {
                transactional(&NativeError { code, text, fatal: true, abortable: false, retriable: false }, doing)
            }
            None => transactional(error, doing),
        }
    }

    /// A record that was not delivered has put the transaction into the abortable state.
    ///
    /// The report may only say "purged": then something else failed first (a lost producer id, a missing
    /// right), and the code of that decides. Beginning a transaction while one is open is refused without any
    /// effect, and the refusal carries the reason; no other call tells it without risking a commit.
    fn not_delivered(&self, error: NativeError) -> Failure {
        let reason = match self.client().begin_transaction().map_err(|refused| NativeError::of(&refused)) {
            Err(reason) if reason.abortable || reason.fatal => reason,
            _ => NativeError { abortable: true, ..error },
        };
        self.failure(&reason, "delivering records")
    }
}

impl TransactionalProducer for KafkaProducer {
    type Metadata = GroupMetadata;

    fn begin(&mut self) -> Result<(), Failure> {
        if self.may_be_repeated() {
            return Err(Failure::Rebuild(
                "a connection broke while the last transaction ended: a copy of its end may still arrive".into(),
            ));
        }
        self.ending = None;
        self.client()
            .begin_transaction()
            .map_err(|error| self.failure(&NativeError::of(&error), "beginning a transaction"))?;
        self.transaction = self.transaction.wrapping_add(1);
        self.sent = 0;
        *self.client().client().context().deliveries() =
            Deliveries { transaction: self.transaction, ..Deliveries::default() };
        Ok(())
    }

    fn send(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        let Some(ticket) = ticket::pack(record.target, self.transaction) else {
            return Err(Failure::Rebuild(format!("no such partition: {}", self.topics.describe(record.target))));
        };
        let outgoing = Outgoing {
            topic: usize::from(record.target.topic.0),
            partition: record.target.partition,
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        let mut deadline = None;
        loop {
            match self.outbox.produce(&outgoing, ticket) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                // The clock is read only now: it would cost as much as queueing the record does.
                Err(error)
                    if error.code == RDKafkaErrorCode::QueueFull
                        && Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + self.timeout) =>
                {
                    thread::sleep(BACKOFF);
                }
                Err(error) => {
                    // Refused outside a healthy transaction: a report says why, if one has come in.
                    let reported = self.client().client().context().deliveries().failure.clone();
                    return Err(self.not_delivered(reported.unwrap_or(error)));
                }
            }
        }
    }

    fn send_offsets(&mut self, offsets: &[OffsetToCommit], member: &GroupMetadata) -> Result<(), Failure> {
        // librdkafka sends nothing for an empty list, and with it no generation: the broker could not fence us.
        if offsets.is_empty() {
            return Err(Failure::Abort("a transaction must carry the offset of at least one partition".into()));
        }
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for next in offsets {
            let topic = self.topics.name(next.input.topic);
            ffi::add_offset(&mut list, topic, next.input.partition, next.offset, next.leader_epoch, &next.metadata)
                .map_err(|error| Failure::Abort(format!("offset {} of {topic}: {error}", next.offset)))?;
        }
        self.watch_ending();
        self.sending_meanwhile(|| {
            self.repeat("sending offsets", |timeout| ffi::send_offsets(self.client(), &list, member, timeout))
        })
    }

    fn flush(&mut self) -> Result<Vec<Delivered>, Failure> {
        let flushed = ffi::flush(self.client(), self.timeout);
        let context = self.client().client().context();
        let deliveries = context.deliveries();
        if let Some(error) = deliveries.failure.clone() {
            return Err(self.not_delivered(error));
        }
        if let Err(code) = flushed {
            return Err(Failure::Rebuild(format!("records were not acknowledged within {:?}: {code}", self.timeout)));
        }
        if deliveries.acknowledged != self.sent {
            let (acknowledged, sent) = (deliveries.acknowledged, self.sent);
            return Err(Failure::Rebuild(format!("{acknowledged} of {sent} records have a delivery report")));
        }
        let mut delivered = deliveries.offsets.clone();
        delivered.sort_unstable_by_key(|delivered| delivered.target);
        Ok(delivered)
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.watch_ending();
        let committed = self.repeat("committing", |timeout| ffi::commit_transaction(self.client(), timeout));
        self.ended();
        committed
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.watch_ending();
        let aborted = self.repeat("aborting", |timeout| {
            self.client().abort_transaction(timeout).map_err(|error| NativeError::of(&error))
        });
        self.ended();
        aborted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_several_partitions_in_turn_give_the_range_of_each() {
        let at = |partition| TopicPartition { topic: TopicIndex(3), partition };
        let mut deliveries = Deliveries::default();
        for (partition, offset) in [(1, 7), (1, 8), (0, 2), (1, 6), (0, 1), (2, 9)] {
            deliveries.note(at(partition), offset);
        }
        let range = |partition, first, last| Delivered { target: at(partition), first, last };
        assert_eq!(deliveries.offsets, [range(1, 6, 8), range(0, 1, 2), range(2, 9, 9)]);
    }

    #[test]
    fn a_ticket_carries_topic_partition_and_transaction() {
        for topic in [0, 5, u16::MAX] {
            for partition in [0, 9, i32::MAX] {
                for transaction in [0, 1, u16::MAX] {
                    let target = TopicPartition { topic: TopicIndex(topic), partition };
                    let ticket = ticket::pack(target, transaction).unwrap();
                    assert_eq!(ticket::unpack(ticket), Some((target, transaction)));
                }
            }
        }
        assert_eq!(ticket::pack(TopicPartition { topic: TopicIndex(0), partition: -1 }, 0), None);
    }
}
