//! State, changelogs and outputs in memory behind the engine's [`Transaction`]; commits and aborts like the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use processor_engine::application::{Application, BroadcastRecord};
use processor_engine::cluster::{Headers, NewRecord, NoHeaders, Record};
use processor_engine::mark::Progress;
use processor_engine::store::Write;
use processor_engine::transaction::StateChange;
use processor_engine::{Failure, PartitionStore, StatePartition, TopicPartition, Transaction};
use schemas::{GoodId, Movement, Scale, StockDelta};

use crate::{ApplicationObserver, Counts, Event, MOVEMENTS, SOURCE, Settings, StockApplication, Wiring};

pub(super) const SOURCE_TOPIC: &str = "warehouse.orders.transactions";
pub(super) const PARTITIONS: i32 = 10;

/// A record written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) target: TopicPartition,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) marked: bool,
}

/// Keeps what it is told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) events: Vec<String>,
    pub(super) counts: Counts,
}

impl ApplicationObserver for Told {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Committed(counts) => {
                self.counts.applied += counts.applied;
                self.counts.redelivered += counts.redelivered;
                self.counts.stale += counts.stale;
                self.counts.tombstones += counts.tombstones;
                self.counts.stock_deltas += counts.stock_deltas;
                self.counts.repartitioned_movements += counts.repartitioned_movements;
                self.counts.received_movements += counts.received_movements;
            }
            other => self.events.push(format!("{other:?}")),
        }
    }
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The state of one partition, as an engine store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Store(pub(super) Map);

impl PartitionStore for Store {
    fn progress(&self) -> Result<Option<Progress>, Failure> {
        Ok(None)
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        value.clear();
        self.0.get(key).inspect(|found| value.extend_from_slice(found));
        Ok(self.0.contains_key(key))
    }

    fn scan(&self, after: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<bool, Failure> {
        let rest = self.0.iter().filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after));
        for (key, value) in rest {
            if !visit(key, value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn apply(&mut self, writes: &[Write<'_>], _progress: &Progress) -> Result<(), Failure> {
        for write in writes {
            match write.value {
                Some(value) => _ = self.0.insert(write.key.to_vec(), value.to_vec()),
                None => _ = self.0.remove(write.key),
            }
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Failure> {
        self.0.clear();
        Ok(())
    }
}

/// Everything durable, and one worker's application.
pub(super) struct World {
    pub(super) application: StockApplication<Told>,
    pub(super) state: BTreeMap<StatePartition, Store>,
    pub(super) running: BTreeSet<StatePartition>,
    /// Every committed record in order.
    pub(super) log: Vec<Written>,
    pub(super) now_ms: u64,
    pub(super) next_offset: i64,
}

/// The open transaction.
#[derive(Default)]
pub(super) struct Open {
    now_ms: u64,
    state: BTreeMap<StatePartition, Store>,
    running: BTreeSet<StatePartition>,
    overlay: BTreeMap<StatePartition, BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    log: Vec<Written>,
}

pub(super) fn source(partition: i32) -> StatePartition {
    StatePartition { stage: SOURCE, partition }
}

pub(super) fn movements(partition: i32) -> StatePartition {
    StatePartition { stage: MOVEMENTS, partition }
}

pub(super) fn settings() -> Settings {
    let partitions = NonZeroU32::new(10).unwrap();
    Settings::new(SOURCE_TOPIC, partitions, partitions, NonZeroU32::new(3).unwrap())
}

impl World {
    /// A worker that runs everything.
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let mut world = Self {
            application: StockApplication::new(settings, Told::default()),
            state: BTreeMap::new(),
            running: BTreeSet::new(),
            log: Vec::new(),
            now_ms: 1_000,
            next_offset: 0,
        };
        for partition in 0..PARTITIONS {
            world.start(source(partition));
            world.start(movements(partition));
        }
        world
    }

    pub(super) fn start(&mut self, partition: StatePartition) {
        self.running.insert(partition);
        self.application.started(partition, self.state.entry(partition).or_default()).unwrap();
    }

    pub(super) fn stop(&mut self, partition: StatePartition) {
        self.running.remove(&partition);
        self.application.stopped(partition);
    }

    /// A new process: nothing but the state survives.
    pub(super) fn restart(&mut self) {
        let settings = self.application.settings().clone();
        self.application = StockApplication::new(settings, Told::default());
        for partition in std::mem::take(&mut self.running) {
            self.start(partition);
        }
    }

    pub(super) fn begin(&mut self) -> Open {
        self.now_ms += 1;
        let (state, running) = (std::mem::take(&mut self.state), self.running.clone());
        Open { now_ms: self.now_ms, state, running, ..Open::default() }
    }

    /// Completes and commits; gives the records written.
    pub(super) fn commit(&mut self, mut open: Open) -> Vec<Written> {
        self.application.complete(&mut open).unwrap();
        for partition in open.touched() {
            assert!(
                open.log.iter().any(|record| record.marked && record.target == changelog(partition)),
                "{partition:?} was touched and has no marked record"
            );
        }
        self.state = open.state;
        for (partition, overlay) in open.overlay {
            let writes: Vec<Write<'_>> =
                overlay.iter().map(|(key, value)| Write { key, value: value.as_deref() }).collect();
            self.state.entry(partition).or_default().apply(&writes, &Progress::default()).unwrap();
        }
        self.application.committed();
        self.log.extend(open.log.iter().cloned());
        open.log
    }

    pub(super) fn abort(&mut self, open: Open) {
        self.state = open.state;
        self.application.aborted();
    }

    /// One record of a source partition in the open transaction.
    pub(super) fn event(
        &mut self,
        open: &mut Open,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), Failure> {
        self.next_offset += 1;
        let record = record(Wiring::DEFAULT.source.0, partition, self.next_offset, key, value, &NoHeaders);
        open.overlay.entry(source(partition)).or_default();
        self.application.process(open, source(partition), &record)
    }

    /// One record of the movements topic in the open transaction.
    pub(super) fn movement(&mut self, open: &mut Open, written: &Written) -> Result<(), Failure> {
        let partition = written.target.partition;
        let (key, value) = (written.key.as_deref(), written.value.as_deref());
        let record = record(Wiring::DEFAULT.movements.0, partition, 0, key, value, &NoHeaders);
        open.overlay.entry(movements(partition)).or_default();
        self.application.process(open, movements(partition), &record)
    }

    /// Hands a control record to every running source partition and commits.
    pub(super) fn broadcast(&mut self, value: &[u8]) -> Vec<Written> {
        let record = BroadcastRecord { offset: 0, key: Vec::new(), value: value.to_vec() };
        let mut open = self.begin();
        for partition in self.running.clone() {
            self.application.broadcast(&mut open, partition, &record).unwrap();
        }
        self.commit(open)
    }

    /// Runs background work to its end, a transaction a chunk; gives the number of chunks.
    pub(super) fn background(&mut self) -> usize {
        let mut chunks = 0;
        while self.application.has_background() {
            let mut open = self.begin();
            self.application.background(&mut open).unwrap();
            self.commit(open);
            chunks += 1;
        }
        chunks
    }

    /// What `read_committed` readers find on the deltas topic, in order per partition.
    pub(super) fn deltas(&self) -> Vec<StockDelta> {
        let deltas = self.log.iter().filter(|record| record.target.topic == Wiring::DEFAULT.deltas);
        let scale = self.application.settings().pieces_scale();
        let decode = |it: &Written| StockDelta::decode(it.key.as_ref().unwrap(), it.value.as_ref().unwrap(), scale);
        deltas.map(|it| decode(it).unwrap()).collect()
    }

    /// Checks invariant 2 and gives what remains of each good that has rows.
    pub(super) fn remains(&self) -> BTreeMap<i64, i128> {
        let mut newest: BTreeMap<GoodId, StockDelta> = BTreeMap::new();
        for delta in self.deltas() {
            let (version, remains) = newest.get(&delta.good_id).map_or((0, 0), |it| (it.version, it.remains));
            assert_eq!((delta.version, delta.remains), (version + 1, remains + delta.delta), "{delta:?}");
            newest.insert(delta.good_id.clone(), delta);
        }
        let live = newest.values().filter(|delta| delta.transactions != 0);
        live.map(|delta| (delta.good_id.integer().unwrap(), delta.remains)).collect()
    }
}

pub(super) fn of(records: &[Written], topic: processor_engine::TopicIndex) -> Vec<Written> {
    records.iter().filter(|record| record.target.topic == topic).cloned().collect()
}

pub(super) fn decoded(movement: &Written) -> Movement {
    Movement::decode(movement.key.as_ref().unwrap(), movement.value.as_ref().unwrap(), Scale::WHOLE).unwrap()
}

pub(super) fn record<'a>(
    topic: u16,
    partition: i32,
    offset: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a dyn Headers,
) -> Record<'a> {
    let source = TopicPartition { topic: processor_engine::TopicIndex(topic), partition };
    Record { source, offset, timestamp_ms: None, leader_epoch: None, key, value, headers }
}

fn changelog(partition: StatePartition) -> TopicPartition {
    let topic = if partition.stage == SOURCE { Wiring::DEFAULT.transactions } else { Wiring::DEFAULT.deltas };
    TopicPartition { topic, partition: partition.partition }
}

impl Open {
    /// Notes that a record of the partition was read.
    pub(super) fn touch(&mut self, partition: StatePartition) {
        self.overlay.entry(partition).or_default();
    }

    fn change(&mut self, partition: StatePartition, change: &StateChange<'_>, marked: bool) {
        assert!(self.running.contains(&partition), "{partition:?} is not ours");
        let overlay = self.overlay.entry(partition).or_default();
        overlay.insert(change.key.to_vec(), change.value.map(<[u8]>::to_vec));
        self.log.push(Written {
            target: changelog(partition),
            key: Some(change.changelog_key.to_vec()),
            value: change.changelog_value.map(<[u8]>::to_vec),
            headers: Vec::new(),
            marked,
        });
    }
}

impl Transaction for Open {
    fn is_running(&self, partition: StatePartition) -> bool {
        self.running.contains(&partition)
    }

    fn get(&mut self, partition: StatePartition, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        assert!(self.running.contains(&partition), "{partition:?} is not ours");
        if let Some(own) = self.overlay.get(&partition).and_then(|overlay| overlay.get(key)) {
            value.clear();
            value.extend_from_slice(own.as_deref().unwrap_or_default());
            return Ok(own.is_some());
        }
        self.state.entry(partition).or_default().get(key, value)
    }

    fn scan(
        &mut self,
        partition: StatePartition,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<bool, Failure> {
        self.state.entry(partition).or_default().scan(after, visit)
    }

    fn put(&mut self, partition: StatePartition, change: &StateChange<'_>) -> Result<(), Failure> {
        self.change(partition, change, false);
        Ok(())
    }

    fn put_marked(&mut self, partition: StatePartition, change: &StateChange<'_>) -> Result<(), Failure> {
        self.change(partition, change, true);
        Ok(())
    }

    fn emit(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        self.log.push(Written {
            target: record.target,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
            marked: false,
        });
        Ok(())
    }

    fn changelog_end(&self, partition: StatePartition) -> Option<i64> {
        self.running.contains(&partition).then_some(0)
    }

    fn touched(&self) -> Vec<StatePartition> {
        self.overlay.keys().copied().collect()
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }
}
