//! The narrow traits behind which a Kafka client hides.
//!
//! Two implementations exist: rdkafka on real brokers (crate `processor`) and an in-memory transactional
//! log for seeded simulation (crate `processor-simulation`). A second real client must stay possible.
//!
//! All calls block, and all are made by the one thread that owns the worker. Implementations retry what
//! is retriable inside their own deadline and report everything else as a [`Failure`].

use std::collections::BTreeSet;
use std::time::Duration;

use crate::failure::Failure;
use crate::topology::{TopicIndex, TopicPartition};

/// Headers of a record, read lazily: the hot path of most records never looks at them.
pub trait Headers {
    /// Calls `visit` with key and value (empty for a null value) of every header, in order.
    fn for_each(&self, visit: &mut dyn FnMut(&str, &[u8]));
}

/// A record without headers.
#[derive(Debug, Clone, Copy)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn for_each(&self, _visit: &mut dyn FnMut(&str, &[u8])) {}
}

/// A record as read, borrowed from the client.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Topic and partition it was read from.
    pub source: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Kafka timestamp, ms since 1970; `None` when the record has none.
    pub timestamp_ms: Option<i64>,
    /// Epoch of the leader that wrote it (KIP-320), if the client tells.
    pub leader_epoch: Option<i32>,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: &'a dyn Headers,
}

/// A record to write inside the open transaction.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// Topic and partition to write to: always explicit.
    pub target: TopicPartition,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// What the group protocol asks for. Must be answered even when the list is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    /// These input partitions are now ours, in addition to those we have (cooperative).
    Assign(Vec<TopicPartition>),
    /// These input partitions must be given up; still ours until answered.
    Revoke(Vec<TopicPartition>),
    /// These input partitions are already somebody else's: nothing may be committed for them.
    Lost(Vec<TopicPartition>),
}

/// What one poll of the group consumer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// `on_record` was called once.
    Record,
    /// The consumer stands at the end (LSO) of this partition; `position` is the next offset, control
    /// records passed (`enable.partition.eof`). Records alone cannot tell: markers hide the end.
    End {
        /// Which input partition.
        partition: TopicPartition,
        /// Next offset to be read.
        position: i64,
    },
    /// Nothing within the time given.
    Idle,
    /// The group protocol asks for something; it must be answered before the next poll.
    Rebalance(Rebalance),
}

/// An offset committed for an input partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Next offset to read.
    pub offset: i64,
    /// The metadata string committed with it; empty when set by hand.
    pub metadata: String,
}

/// An offset to commit with a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The input partition.
    pub input: TopicPartition,
    /// Next offset to read.
    pub offset: i64,
    /// Epoch of the leader that wrote the record before it, if known.
    pub leader_epoch: Option<i32>,
    /// Metadata string (see [`crate::mark`]).
    pub metadata: String,
}

/// Where a log begins and ends, as a `read_uncommitted` client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnds {
    /// Log start offset.
    pub start: i64,
    /// High watermark: offset after the last replicated record, markers and open transactions included.
    pub high_watermark: i64,
}

/// Offsets of the records of one transaction that were acknowledged in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Where.
    pub target: TopicPartition,
    /// Lowest offset.
    pub first: i64,
    /// Highest offset.
    pub last: i64,
}

/// The member of the consumer group. Reads inputs `read_committed`, never commits by itself.
pub trait GroupConsumer {
    /// Identity of the member within the group's current generation (KIP-447).
    type Metadata;

    /// Waits up to `timeout` for one record, and hands it to `on_record`.
    ///
    /// # Errors
    /// [`Failure::Stop`] for conditions an operator must resolve (log truncated, topic gone, not authorised) and for
    /// those only a new process gets out of (position outside the log, membership lost for good).
    fn poll(&mut self, timeout: Duration, on_record: &mut dyn FnMut(&Record<'_>)) -> Result<Polled, Failure>;

    /// Answers an [`Rebalance::Assign`]: takes the partitions, all paused; nothing is read from them until
    /// [`GroupConsumer::start`].
    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure>;

    /// Answers a [`Rebalance::Revoke`] or [`Rebalance::Lost`].
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure>;

    /// Seeks an assigned partition and (re)starts reading it; records prefetched before are not delivered
    /// any more. `leader_epoch`: of the record before `offset`, if known, so that a truncated log is noticed.
    fn start(&mut self, partition: TopicPartition, offset: i64, leader_epoch: Option<i32>) -> Result<(), Failure>;

    /// Pauses assigned partitions.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure>;

    /// Stable committed offsets (KIP-447 `require_stable`): waits until no open transaction holds one back.
    /// One answer per partition asked, in order; `None` where the group has none.
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Failure>;

    /// Identity to send with a transaction's offsets; fetched fresh each time. `None` while the member has
    /// no generation (an empty member id is accepted by a live group, so it must never be sent).
    fn metadata(&mut self) -> Result<Option<Self::Metadata>, Failure>;

    /// Starts leaving the group: a last [`Rebalance::Revoke`] (or none) follows on `poll`, then `Idle`.
    fn leave(&mut self) -> Result<(), Failure>;
}

/// One transactional producer, already initialised (leftovers of its transactional id are resolved).
pub trait TransactionalProducer {
    /// See [`GroupConsumer::Metadata`].
    type Metadata;

    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), Failure>;

    /// Queues a record; blocks while the local queue is full.
    fn send(&mut self, record: &NewRecord<'_>) -> Result<(), Failure>;

    /// Adds input offsets to the transaction.
    fn send_offsets(&mut self, offsets: &[OffsetToCommit], member: &Self::Metadata) -> Result<(), Failure>;

    /// Waits until every record is acknowledged (all delivery reports are in), then returns the offsets by
    /// partition, of this transaction only.
    fn flush(&mut self) -> Result<Vec<Delivered>, Failure>;

    /// Commits. `Ok` means: the coordinator has acknowledged the commit. Any indefinite answer is
    /// [`Failure::Rebuild`] or [`Failure::Fenced`].
    fn commit(&mut self) -> Result<(), Failure>;

    /// Aborts. `Ok` means: the transaction is known to be aborted.
    fn abort(&mut self) -> Result<(), Failure>;
}

/// What one poll of a [`LogReader`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// `on_record` was called once.
    Record,
    /// The reader stands at the end (LSO) of this partition; `position` is the next offset, control
    /// records passed.
    End {
        /// Which partition.
        partition: TopicPartition,
        /// Next offset to be read.
        position: i64,
    },
    /// Nothing within the time given.
    Idle,
}

/// Reads partitions `read_committed` outside the group: changelogs and the broadcast topic.
pub trait LogReader {
    /// Starts reading a partition at `offset` (clamped to the log start).
    fn add(&mut self, partition: TopicPartition, offset: i64) -> Result<(), Failure>;

    /// Stops reading a partition.
    fn remove(&mut self, partition: TopicPartition) -> Result<(), Failure>;

    /// Waits up to `timeout` for one record or one end of partition.
    fn poll(&mut self, timeout: Duration, on_record: &mut dyn FnMut(&Record<'_>)) -> Result<Read, Failure>;
}

/// A Kafka cluster as one worker sees it: builds clients and answers questions about logs.
pub trait Cluster {
    /// See [`GroupConsumer::Metadata`].
    type Metadata;
    /// The group member.
    type Consumer: GroupConsumer<Metadata = Self::Metadata>;
    /// Transactional producers.
    type Producer: TransactionalProducer<Metadata = Self::Metadata>;
    /// Changelog and broadcast reader.
    type Reader: LogReader;

    /// Builds the group member and subscribes it to all inputs.
    fn consumer(&mut self) -> Result<Self::Consumer, Failure>;

    /// Builds and initialises the producer of this turn (0 or 1); its transactional id is stable across
    /// restarts, so this fences and resolves whatever a predecessor left open.
    fn producer(&mut self, turn: usize) -> Result<Self::Producer, Failure>;

    /// Builds a reader.
    fn reader(&mut self) -> Result<Self::Reader, Failure>;

    /// Log start and high watermark, read uncommitted.
    fn log_ends(&mut self, partition: TopicPartition) -> Result<LogEnds, Failure>;

    /// Whether any partition of an input but `except` holds a record behind the group's offset, or a transaction that is not
    /// decided; whoever has the partition, and as of now: offsets of open transactions count for nothing.
    fn has_unread(&mut self, input: TopicIndex, except: &BTreeSet<i32>) -> Result<bool, Failure>;

    /// The topic's id (KIP-516) as text; changes when a topic is deleted and created again.
    fn topic_id(&mut self, topic: TopicIndex) -> Result<String, Failure>;

    /// Deletes records before `offset` (a repartition topic's consumed ones). Failures are harmless.
    fn delete_records(&mut self, partition: TopicPartition, before: i64) -> Result<(), Failure>;

    /// Milliseconds since 1970.
    fn now_ms(&mut self) -> u64;
}
