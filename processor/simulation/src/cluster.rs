//! The engine's client traits on the in-memory cluster.
//!
//! Owns what a client library keeps on its side: queued records, read positions, what is paused, whether a
//! transaction has failed locally. Guards the traits' promises and nothing beyond them: where a real client
//! may fail, be late or be suspended, this one is, by seeded choice.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use processor_engine::cluster::{
    Cluster, CommittedOffset, Delivered, GroupConsumer, Headers, LogEnds, LogReader, NewRecord, OffsetToCommit, Polled,
    Read, Record, TransactionalProducer,
};
use processor_engine::{Failure, TopicIndex, TopicPartition};

use crate::broker::{Broker, ClientId};
use crate::coordinator::{Identity, Refusal};
use crate::group::MemberIdentity;
use crate::journal::Transition;
use crate::log::{Next, StoredRecord};
use crate::member::MemberClient;
use crate::scheduler::{Call, Fate};
use crate::world::{Handle, Pause};

/// How long a stable offset fetch waits for an open transaction, virtual ms.
const COMMITTED_DEADLINE_MS: u64 = 30_000;
/// Virtual ms that pass with each of its tries.
const COMMITTED_RETRY_MS: u64 = 100;
/// Polls that find nothing although there is something: fetches take time. Of 10,000.
const EMPTY_POLLS: u32 = 300;

struct StoredHeaders<'a>(&'a [(String, Vec<u8>)]);

impl Headers for StoredHeaders<'_> {
    fn for_each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        for (name, value) in self.0 {
            visit(name, value);
        }
    }
}

fn hand_over(source: TopicPartition, offset: i64, stored: &StoredRecord, on_record: &mut dyn FnMut(&Record<'_>)) {
    on_record(&Record {
        source,
        offset,
        timestamp_ms: Some(stored.timestamp_ms),
        leader_epoch: Some(0),
        key: stored.key.as_deref(),
        value: stored.value.as_deref(),
        headers: &StoredHeaders(&stored.headers),
    });
}

fn unknown_partition(partition: TopicPartition) -> Failure {
    Failure::stop("SIMULATED_UNKNOWN_PARTITION", format!("{partition:?}"), "this is a defect of the test")
}

/// Not a stop: a member that was paused while others consumed and purged a repartition topic wakes up below
/// the log start and only has to learn that it was overtaken. What is really lost is refused when the
/// partition is started again.
fn out_of_range(partition: TopicPartition, position: i64) -> Failure {
    Failure::Rebuild(format!("position {position} of {partition:?} is out of range"))
}

/// A partition being read.
#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    /// The end last reported, so that each is reported once.
    reported: Option<i64>,
}

/// What one look at a set of partitions found.
enum Found {
    Record(TopicPartition, i64, Rc<StoredRecord>),
    End(TopicPartition, i64),
    Nothing,
}

fn look<'p>(
    broker: &Broker,
    positions: impl Iterator<Item = (&'p TopicPartition, &'p mut Position)>,
) -> Result<Found, Failure> {
    for (partition, position) in positions {
        let log = broker.log(*partition).ok_or_else(|| unknown_partition(*partition))?;
        match log.next_committed(position.next) {
            Next::Record(offset, record) => {
                position.next = offset + 1;
                return Ok(Found::Record(*partition, offset, record));
            }
            Next::End(end) => {
                position.next = end;
                if position.reported != Some(end) {
                    position.reported = Some(end);
                    return Ok(Found::End(*partition, end));
                }
            }
            Next::Truncated | Next::Beyond => return Err(out_of_range(*partition, position.next)),
        }
    }
    Ok(Found::Nothing)
}

/// Starts a look at a random partition, so that none starves and no order is relied upon.
fn rotated<K: Ord + Copy, V>(map: &mut BTreeMap<K, V>, by: usize) -> impl Iterator<Item = (&K, &mut V)> {
    let pivot = map.keys().nth(by % map.len().max(1)).copied();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for entry in map.iter_mut() {
        if pivot.is_some_and(|pivot| *entry.0 < pivot) { second.push(entry) } else { first.push(entry) }
    }
    first.into_iter().chain(second)
}

/// [`GroupConsumer`] in memory.
#[derive(Debug)]
pub struct SimulatedConsumer<'y> {
    handle: Handle<'y>,
    client: ClientId,
    positions: BTreeMap<TopicPartition, Position>,
}

impl SimulatedConsumer<'_> {
    fn client<T>(&self, act: impl FnOnce(&mut MemberClient) -> T) -> Result<T, Failure> {
        let mut broker = self.handle.world.broker.borrow_mut();
        broker.clients.get_mut(self.client).map(act).ok_or_else(|| Failure::Rebuild("no such client".into()))
    }
}

impl Drop for SimulatedConsumer<'_> {
    fn drop(&mut self) {
        let alive = self.handle.process.alive.get();
        let mut broker = self.handle.world.broker.borrow_mut();
        let Some(client) = broker.clients.get_mut(self.client) else { return };
        client.dead = true;
        // A closed consumer says good-bye; a killed one is counted out when its session ends.
        if let (true, Some(member)) = (alive, client.member()) {
            broker.group.remove(member);
        }
    }
}

impl GroupConsumer for SimulatedConsumer<'_> {
    type Metadata = MemberIdentity;

    fn poll(&mut self, timeout: Duration, on_record: &mut dyn FnMut(&Record<'_>)) -> Result<Polled, Failure> {
        let (client, handle, positions) = (self.client, &self.handle, &mut self.positions);
        // A poll that fails takes nothing out of the client's queues.
        handle.call(Call::Poll, Failure::Rebuild, |_, _| Ok(()))?;
        let event = {
            let mut broker = handle.world.broker.borrow_mut();
            broker.background(client);
            broker.clients.get_mut(client).and_then(MemberClient::deliver)
        };
        if let Some(event) = event {
            handle.trace(|| format!("rebalance: {event:?}"));
            return Ok(Polled::Rebalance(event));
        }
        let (by, empty) = {
            let mut random = handle.world.random.borrow_mut();
            (random.below(positions.len()), random.chance(EMPTY_POLLS))
        };
        let found = if empty { Found::Nothing } else { look(&handle.world.broker.borrow(), rotated(positions, by))? };
        match found {
            Found::Record(partition, offset, record) => {
                handle.trace(|| format!("reads {partition:?} {offset}"));
                hand_over(partition, offset, &record, on_record);
                Ok(Polled::Record)
            }
            Found::End(partition, position) => Ok(Polled::End { partition, position }),
            Found::Nothing => {
                handle.world.broker.borrow_mut().now_ms += u64::try_from(timeout.as_millis()).unwrap_or(0) / 4;
                Ok(Polled::Idle)
            }
        }
    }

    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        self.handle.call(Call::Consumer, Failure::Rebuild, |_, _| Ok(()))?;
        self.client(|client| client.assigned(partitions))
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        self.handle.call(Call::Consumer, Failure::Rebuild, |_, _| Ok(()))?;
        self.positions.retain(|partition, _| !partitions.contains(partition));
        self.client(|client| client.unassigned(partitions))
    }

    fn start(&mut self, partition: TopicPartition, offset: i64, _leader_epoch: Option<i32>) -> Result<(), Failure> {
        self.handle.call(Call::Consumer, Failure::Rebuild, |_, _| Ok(()))?;
        self.handle.trace(|| format!("starts {partition:?} at {offset}"));
        if self.client(|client| client.held().contains(&partition))? {
            self.positions.insert(partition, Position { next: offset, reported: None });
            return Ok(());
        }
        Err(Failure::Rebuild(format!("{partition:?} is not assigned")))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        self.handle.call(Call::Consumer, Failure::Rebuild, |_, _| Ok(()))?;
        self.positions.retain(|partition, _| !partitions.contains(partition));
        Ok(())
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Failure> {
        let mut waited = 0;
        loop {
            let answer = self.handle.call(Call::Committed, Failure::Rebuild, |broker, _| {
                if broker.group.unstable(partitions).is_empty() {
                    let offset = |partition: &TopicPartition| broker.group.committed(*partition).cloned();
                    return Ok(Some(partitions.iter().map(offset).collect::<Vec<_>>()));
                }
                broker.now_ms += COMMITTED_RETRY_MS;
                Ok(None)
            })?;
            if let Some(answer) = answer {
                self.handle.note(Transition::OffsetsRead);
                self.handle.trace(|| format!("committed: {answer:?}"));
                return Ok(answer);
            }
            waited += COMMITTED_RETRY_MS;
            if waited >= COMMITTED_DEADLINE_MS {
                return Err(Failure::Rebuild("offsets stayed unstable".into()));
            }
            self.handle.suspend(Pause::Call(Call::Committed));
        }
    }

    fn metadata(&mut self) -> Result<Option<MemberIdentity>, Failure> {
        self.handle.process.check()?;
        self.client(|client| client.identity())
    }

    fn leave(&mut self) -> Result<(), Failure> {
        self.handle.call(Call::Consumer, Failure::Rebuild, |_, _| Ok(()))?;
        self.client(MemberClient::leave)
    }
}

/// [`TransactionalProducer`] in memory.
#[derive(Debug)]
pub struct SimulatedProducer<'y> {
    handle: Handle<'y>,
    turn: usize,
    identity: Identity,
    begun: bool,
    /// Something failed: only an abort is possible.
    failed: bool,
    queue: Vec<(TopicPartition, Rc<StoredRecord>)>,
    delivered: BTreeMap<TopicPartition, (i64, i64)>,
}

fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Fenced => Failure::Fenced("a newer epoch exists".into()),
        Refusal::InvalidState | Refusal::Concurrent => Failure::Rebuild(format!("{refusal:?}")),
    }
}

impl SimulatedProducer<'_> {
    fn check(&self) -> Result<(), Failure> {
        match (self.begun, self.failed) {
            (true, false) => Ok(()),
            (true, true) => Err(Failure::Abort("the transaction has failed".into())),
            (false, _) => Err(Failure::Rebuild("no transaction was begun".into())),
        }
    }

    fn deliver(&mut self, call: Call) -> Result<(), Failure> {
        let queue = std::mem::take(&mut self.queue);
        let (identity, delivered) = (self.identity, &mut self.delivered);
        let result = self.handle.call(call, Failure::Abort, |broker, _| {
            for (target, record) in queue {
                let offset = broker.produce(identity, target, record).map_err(refused)?;
                delivered.entry(target).or_insert((offset, offset)).1 = offset;
            }
            Ok(())
        });
        self.failed |= result.is_err();
        result
    }

    fn end(&mut self, commit: bool) -> Result<(), Failure> {
        let identity = self.identity;
        let call = if commit { Call::Commit } else { Call::Abort };
        let world = &self.handle.world;
        let decided = self.handle.call(call, Failure::Rebuild, |broker, fate| {
            if matches!(fate, Fate::RequestLate | Fate::AnsweredEarly) {
                world.late.borrow_mut().push((identity, commit));
                return Ok(false);
            }
            if !broker.coordinator.is_open(identity.producer) && broker.coordinator.is_current(identity) {
                // Nothing was ever sent: the client knows, and asks nobody.
                return Ok(true);
            }
            broker.end(identity, commit).map_err(refused)?;
            if !world.chance(world.faults.get().late_markers) {
                broker.write_markers(identity.producer);
            }
            Ok(true)
        })?;
        if decided {
            self.handle.note(Transition::Ended { turn: self.turn, commit });
        }
        self.handle.trace(|| format!("ends producer {} epoch {}: commit {commit}", identity.producer, identity.epoch));
        Ok(())
    }
}

impl TransactionalProducer for SimulatedProducer<'_> {
    type Metadata = MemberIdentity;

    fn begin(&mut self) -> Result<(), Failure> {
        self.handle.process.check()?;
        if self.begun {
            return Err(Failure::Rebuild("a transaction is open already".into()));
        }
        self.handle.note(Transition::Begun(self.turn));
        self.begun = true;
        self.failed = false;
        self.queue.clear();
        self.delivered.clear();
        Ok(())
    }

    fn send(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        self.handle.process.check()?;
        self.check()?;
        let headers = record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        let stored = StoredRecord {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
            timestamp_ms: i64::try_from(self.handle.world.broker.borrow().now_ms).unwrap_or(i64::MAX),
        };
        self.queue.push((record.target, Rc::new(stored)));
        // Now and then the client's own thread has sent what is queued.
        if self.handle.world.chance(2_500) { self.deliver(Call::Produce) } else { Ok(()) }
    }

    fn send_offsets(&mut self, offsets: &[OffsetToCommit], member: &MemberIdentity) -> Result<(), Failure> {
        self.check()?;
        let (identity, member) = (self.identity, *member);
        let offsets: Vec<_> = offsets
            .iter()
            .map(|it| (it.input, CommittedOffset { offset: it.offset, metadata: it.metadata.clone() }))
            .collect();
        self.handle.trace(|| format!("sends offsets as {member:?}: {offsets:?}"));
        let result = self.handle.call(Call::SendOffsets, Failure::Abort, |broker, _| {
            if broker.commit_offsets(identity, member, &offsets).map_err(refused)? {
                return Ok(());
            }
            Err(Failure::Membership(format!("{member:?} in generation {}", broker.group.generation())))
        });
        self.failed |= result.is_err();
        result
    }

    fn flush(&mut self) -> Result<Vec<Delivered>, Failure> {
        self.check()?;
        self.deliver(Call::Flush)?;
        let delivered = self.delivered.iter();
        Ok(delivered.map(|(target, (first, last))| Delivered { target: *target, first: *first, last: *last }).collect())
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.check()?;
        if !self.queue.is_empty() {
            self.deliver(Call::Flush)?;
        }
        self.end(true)?;
        self.begun = false;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.handle.process.check()?;
        self.queue.clear();
        self.end(false)?;
        self.begun = false;
        Ok(())
    }
}

/// [`LogReader`] in memory.
#[derive(Debug)]
pub struct SimulatedReader<'y> {
    handle: Handle<'y>,
    positions: BTreeMap<TopicPartition, Position>,
}

impl LogReader for SimulatedReader<'_> {
    fn add(&mut self, partition: TopicPartition, offset: i64) -> Result<(), Failure> {
        self.handle.process.check()?;
        let broker = self.handle.world.broker.borrow();
        let start = broker.log(partition).ok_or_else(|| unknown_partition(partition))?.start();
        self.positions.insert(partition, Position { next: offset.max(start), reported: None });
        Ok(())
    }

    fn remove(&mut self, partition: TopicPartition) -> Result<(), Failure> {
        self.handle.process.check()?;
        self.positions.remove(&partition);
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration, on_record: &mut dyn FnMut(&Record<'_>)) -> Result<Read, Failure> {
        let (handle, positions) = (&self.handle, &mut self.positions);
        let (by, empty) = {
            let mut random = handle.world.random.borrow_mut();
            (random.below(positions.len()), random.chance(EMPTY_POLLS))
        };
        handle.call(Call::Read, Failure::Rebuild, |_, _| Ok(()))?;
        let found = if empty { Found::Nothing } else { look(&handle.world.broker.borrow(), rotated(positions, by))? };
        match found {
            Found::Record(partition, offset, record) => {
                handle.trace(|| format!("replays {partition:?} {offset}"));
                hand_over(partition, offset, &record, on_record);
                Ok(Read::Record)
            }
            Found::End(partition, position) => {
                handle.trace(|| format!("stands at the end {position} of {partition:?}"));
                Ok(Read::End { partition, position })
            }
            Found::Nothing => Ok(Read::Idle),
        }
    }
}

/// [`Cluster`] in memory, as one worker sees it.
#[derive(Debug)]
pub struct SimulatedCluster<'y> {
    handle: Handle<'y>,
    instance: String,
}

impl<'y> SimulatedCluster<'y> {
    /// The cluster as the worker of this instance sees it; the instance's name makes the transactional ids.
    pub fn new(handle: Handle<'y>, instance: String) -> Self {
        Self { handle, instance }
    }
}

impl<'y> Cluster for SimulatedCluster<'y> {
    type Metadata = MemberIdentity;
    type Consumer = SimulatedConsumer<'y>;
    type Producer = SimulatedProducer<'y>;
    type Reader = SimulatedReader<'y>;

    fn consumer(&mut self) -> Result<SimulatedConsumer<'y>, Failure> {
        let world = &self.handle.world;
        let quiet = world.chance(world.faults.get().quiet_rejoin);
        let client = self.handle.call(Call::Consumer, Failure::Rebuild, |broker, _| {
            let mut client = MemberClient::default();
            client.owner.clone_from(&self.handle.process.name);
            client.rejoin_quietly(quiet);
            broker.clients.push(client);
            Ok(broker.clients.len() - 1)
        })?;
        Ok(SimulatedConsumer { handle: self.handle.clone(), client, positions: BTreeMap::new() })
    }

    fn producer(&mut self, turn: usize) -> Result<SimulatedProducer<'y>, Failure> {
        let id = format!("{}-{turn}", self.instance);
        let identity = self.handle.call(Call::Initialise, Failure::Rebuild, |broker, _| Ok(broker.initialise(&id)))?;
        self.handle.note(Transition::Initialised(turn));
        self.handle.trace(|| format!("initialised {id}: producer {} epoch {}", identity.producer, identity.epoch));
        Ok(SimulatedProducer {
            handle: self.handle.clone(),
            turn,
            identity,
            begun: false,
            failed: false,
            queue: Vec::new(),
            delivered: BTreeMap::new(),
        })
    }

    fn reader(&mut self) -> Result<SimulatedReader<'y>, Failure> {
        self.handle.process.check()?;
        Ok(SimulatedReader { handle: self.handle.clone(), positions: BTreeMap::new() })
    }

    fn log_ends(&mut self, partition: TopicPartition) -> Result<LogEnds, Failure> {
        self.handle.call(Call::Describe, Failure::Rebuild, |broker, _| {
            let log = broker.log(partition).ok_or_else(|| unknown_partition(partition))?;
            Ok(LogEnds { start: log.start(), high_watermark: log.high_watermark() })
        })
    }

    fn has_unread(&mut self, input: TopicIndex, except: &BTreeSet<i32>) -> Result<bool, Failure> {
        self.handle.call(Call::Describe, Failure::Rebuild, |broker, _| {
            let of_others = |it: &TopicPartition| !except.contains(&it.partition);
            Ok(broker.partitions_of(input).into_iter().filter(of_others).any(|partition| {
                let Some(log) = broker.log(partition) else { return false };
                let committed = broker.group.committed(partition).map_or(0, |committed| committed.offset);
                let end = log.next_committed(committed.max(log.start()));
                !matches!(end, Next::End(position) if position >= log.high_watermark())
            }))
        })
    }

    fn topic_id(&mut self, topic: TopicIndex) -> Result<String, Failure> {
        self.handle.process.check()?;
        Ok(self.handle.world.broker.borrow().topic_id(topic))
    }

    fn delete_records(&mut self, partition: TopicPartition, before: i64) -> Result<(), Failure> {
        self.handle.call(Call::Delete, Failure::Rebuild, |broker, _| {
            if let Some(log) = broker.log_mut(partition) {
                log.delete_before(before);
            }
            Ok(())
        })
    }

    fn now_ms(&mut self) -> u64 {
        self.handle.world.broker.borrow().now_ms
    }
}
