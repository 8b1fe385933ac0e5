//! The whole cluster as plain data: topics, transaction coordinator, group, virtual clock.
//!
//! Owns what spans them: a produce is checked by the coordinator and appended to a log, a decided
//! transaction's markers go to logs and to the group's offsets, a timed-out one is aborted and fenced.
//! Has no client, no fault and no randomness: those are [`crate::cluster`] and [`crate::scheduler`].

use std::collections::BTreeMap;
use std::rc::Rc;

use processor_engine::cluster::CommittedOffset;
use processor_engine::{TopicIndex, TopicPartition, Topology};

use crate::coordinator::{Coordinator, Identity, MarkerTarget, Refusal};
use crate::group::{Group, MemberIdentity};
use crate::log::{PartitionLog, ProducerId, StoredRecord};
use crate::member::MemberClient;

/// Where the virtual clock begins.
const CLOCK_START_MS: u64 = 1_700_000_000_000;

/// Number of a consumer client in [`Broker::clients`].
pub type ClientId = usize;

/// A cluster with one consumer group.
#[derive(Debug)]
pub struct Broker {
    partitions: BTreeMap<TopicPartition, PartitionLog>,
    incarnations: BTreeMap<TopicIndex, u32>,
    /// The transaction coordinator.
    pub coordinator: Coordinator,
    /// The group.
    pub group: Group,
    /// Every consumer ever built.
    pub clients: Vec<MemberClient>,
    /// Virtual milliseconds since 1970.
    pub now_ms: u64,
}

impl Broker {
    /// A cluster with every topic of `topology`, partition counts given by topic (one where none is given).
    pub fn new(topology: &Topology, counts: &[(TopicIndex, i32)]) -> Self {
        let count = |topic| counts.iter().find(|(known, _)| *known == topic).map_or(1, |(_, count)| *count);
        let mut partitions = BTreeMap::new();
        for index in 0..topology.topics.len() {
            let topic = TopicIndex(u16::try_from(index).unwrap_or(u16::MAX));
            for partition in 0..count(topic) {
                partitions.insert(TopicPartition { topic, partition }, PartitionLog::default());
            }
        }
        let mut inputs: Vec<_> =
            partitions.keys().copied().filter(|it| topology.state_of_input(*it).is_some()).collect();
        // Interleaved, so that an even share of the group is an even share of every stage.
        inputs.sort_by_key(|input| (input.partition, input.topic));
        Self {
            partitions,
            incarnations: BTreeMap::new(),
            coordinator: Coordinator::default(),
            group: Group::new(inputs),
            clients: Vec::new(),
            now_ms: CLOCK_START_MS,
        }
    }

    /// A partition's log.
    pub fn log(&self, partition: TopicPartition) -> Option<&PartitionLog> {
        self.partitions.get(&partition)
    }

    /// A partition's log, to be changed from outside: deleting records, truncation, compaction.
    pub fn log_mut(&mut self, partition: TopicPartition) -> Option<&mut PartitionLog> {
        self.partitions.get_mut(&partition)
    }

    /// All partitions of a topic, in order.
    pub fn partitions_of(&self, topic: TopicIndex) -> Vec<TopicPartition> {
        self.partitions.keys().copied().filter(|partition| partition.topic == topic).collect()
    }

    /// The topic's id.
    pub fn topic_id(&self, topic: TopicIndex) -> String {
        format!("topic-{}-{}", topic.0, self.incarnations.get(&topic).unwrap_or(&0))
    }

    /// Deletes a topic and creates it again, empty.
    pub fn recreate(&mut self, topic: TopicIndex) {
        *self.incarnations.entry(topic).or_default() += 1;
        for (_, log) in self.partitions.iter_mut().filter(|(partition, _)| partition.topic == topic) {
            *log = PartitionLog::default();
        }
    }

    /// A plain producer's record: the source connector's.
    pub fn append(&mut self, target: TopicPartition, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<i64> {
        let record = StoredRecord {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
            timestamp_ms: i64::try_from(self.now_ms).unwrap_or(i64::MAX),
        };
        Some(self.partitions.get_mut(&target)?.append(Rc::new(record), None))
    }

    /// `InitProducerId`: answers only when whatever was open is aborted and every marker is written.
    pub fn initialise(&mut self, transactional_id: &str) -> Identity {
        let identity = self.coordinator.initialise(transactional_id);
        if self.coordinator.is_open(identity.producer) {
            // Refused only when nothing is open, which was just asked.
            let _aborted = self.coordinator.end(identity, false);
        }
        self.write_markers(identity.producer);
        identity
    }

    /// A transactional produce of one record. A client waits out its own producer's due markers.
    pub fn produce(
        &mut self,
        identity: Identity,
        target: TopicPartition,
        record: Rc<StoredRecord>,
    ) -> Result<i64, Refusal> {
        self.add_waiting(identity, MarkerTarget::Partition(target))?;
        let log = self.partitions.get_mut(&target).ok_or(Refusal::InvalidState)?;
        Ok(log.append(record, Some(identity.producer)))
    }

    /// `AddOffsetsToTxn` and `TxnOffsetCommit`; `Ok(false)` when the membership is stale.
    pub fn commit_offsets(
        &mut self,
        identity: Identity,
        member: MemberIdentity,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<bool, Refusal> {
        self.add_waiting(identity, MarkerTarget::GroupOffsets)?;
        Ok(self.group.commit_in_transaction(identity.producer, member, offsets))
    }

    fn add_waiting(&mut self, identity: Identity, target: MarkerTarget) -> Result<(), Refusal> {
        match self.coordinator.add(identity, target, self.now_ms) {
            Err(Refusal::Concurrent) => {
                self.write_markers(identity.producer);
                self.coordinator.add(identity, target, self.now_ms)
            }
            answer => answer,
        }
    }

    /// `EndTxn`: decided when it returns, markers follow.
    pub fn end(&mut self, identity: Identity, commit: bool) -> Result<(), Refusal> {
        self.coordinator.end(identity, commit)
    }

    /// Writes one due marker of a producer.
    pub fn write_marker(&mut self, producer: ProducerId, choice: usize) -> bool {
        let Some((target, commit)) = self.coordinator.take_marker(producer, choice) else { return false };
        match target {
            MarkerTarget::Partition(partition) => {
                if let Some(log) = self.partitions.get_mut(&partition) {
                    log.append_marker(producer, commit);
                }
            }
            MarkerTarget::GroupOffsets => self.group.decide(producer, commit),
        }
        true
    }

    /// Writes every due marker of a producer.
    pub fn write_markers(&mut self, producer: ProducerId) {
        while self.write_marker(producer, 0) {}
    }

    /// Writes every due marker there is.
    pub fn write_all_markers(&mut self) {
        for producer in self.coordinator.ending() {
            self.write_markers(producer);
        }
    }

    /// The broker's transaction timeout strikes: aborted, fenced, markers due.
    pub fn expire_transaction(&mut self, producer: ProducerId) {
        self.coordinator.expire(producer);
    }

    /// A heartbeat round of one consumer.
    pub fn background(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get_mut(client) {
            client.background(&mut self.group);
        }
    }

    /// Inputs that no living consumer holds: while there are any, an idle group is a stuck one.
    pub fn unassigned(&self) -> Vec<TopicPartition> {
        let held = |input: &TopicPartition| self.clients.iter().any(|it| !it.dead && it.held().contains(input));
        self.group.inputs().iter().copied().filter(|input| !held(input)).collect()
    }

    /// Whether every transaction is decided and every marker written.
    pub fn is_settled(&self) -> bool {
        self.coordinator.is_quiet() && self.partitions.values().all(|log| !log.has_any_open())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology { topics: vec!["in".into(), "out".into()], stages: Vec::new(), broadcast: TopicIndex(1) }
    }

    fn target(topic: u16) -> TopicPartition {
        TopicPartition { topic: TopicIndex(topic), partition: 0 }
    }

    fn record() -> Rc<StoredRecord> {
        Rc::new(StoredRecord::default())
    }

    #[test]
    fn a_committed_transaction_becomes_visible_marker_by_marker() {
        let mut broker = Broker::new(&topology(), &[]);
        let producer = broker.initialise("a");
        for topic in 0..2 {
            broker.produce(producer, target(topic), record()).unwrap();
        }
        broker.end(producer, true).unwrap();
        let visible =
            |broker: &Broker| (0..2).map(|topic| broker.log(target(topic)).unwrap().committed().count()).sum::<usize>();
        assert_eq!(visible(&broker), 0);
        assert!(broker.write_marker(producer.producer, 0));
        assert_eq!(visible(&broker), 1);
        broker.produce(producer, target(0), record()).unwrap();
        assert_eq!(visible(&broker), 2, "the same producer's next transaction waited for the rest");
    }

    #[test]
    fn initialising_aborts_what_a_predecessor_left_open() {
        let mut broker = Broker::new(&topology(), &[]);
        let old = broker.initialise("a");
        broker.produce(old, target(0), record()).unwrap();
        broker.initialise("a");
        let log = broker.log(target(0)).unwrap();
        assert_eq!((log.committed().count(), log.aborted_records()), (0, 1));
        assert_eq!(broker.produce(old, target(0), record()), Err(Refusal::Fenced));
        assert!(broker.is_settled());
    }
}
