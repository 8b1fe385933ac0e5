//! A stream program as small as can be that uses everything the engine offers, and what must hold for it.
//!
//! Input records say "so much for this key". The first stage counts its records and moves the amount to
//! the key's partition: directly when this worker runs it, over the repartition topic otherwise. The
//! second keeps a sum and a version per key. A broadcast makes every source partition give the key
//! `rounds` one more, several times over, in background chunks. Guards, with [`CountingScenario`], the
//! invariants 1 (sums), 2 (versions without a gap or a repeat) and 3 (both together only if offsets,
//! changelog and outputs commit as one).

use std::collections::BTreeMap;

use processor_engine::Changes;
use processor_engine::application::{Background, BroadcastRecord};
use processor_engine::cluster::{NewRecord, Record};
use processor_engine::topology::Stage;
use processor_engine::transaction::StateChange;
use processor_engine::{
    Application, Failure, PartitionStore, StageSpec, StatePartition, Stop, TopicIndex, TopicPartition, Topology,
    Transaction,
};

use crate::broker::Broker;
use crate::log::Next;
use crate::scheduler::Random;
use crate::setup::Scenario;

/// The input.
pub const INPUT: TopicIndex = TopicIndex(0);
/// Changelog of the first stage.
pub const COUNTS: TopicIndex = TopicIndex(1);
/// Repartition topic.
pub const MOVEMENTS: TopicIndex = TopicIndex(2);
/// Output, changelog of the second stage.
pub const SUMS: TopicIndex = TopicIndex(3);
/// Broadcast topic.
pub const BROADCAST: TopicIndex = TopicIndex(4);

/// Background chunks a broadcast causes in each source partition.
const CHUNKS: i64 = 3;
const COUNT_KEY: &str = "count";
const ROUNDS_KEY: &str = "rounds";

/// Topics and stages of the counting program.
pub fn topology() -> Topology {
    let stage = |name, input, changelog, purge_input| StageSpec {
        name,
        input,
        changelog,
        purge_input,
        accept_truncated_input: false,
    };
    Topology {
        topics: ["input", "counts", "movements", "sums", "broadcast"].map(String::from).to_vec(),
        stages: vec![stage("source", INPUT, COUNTS, false), stage("sums", MOVEMENTS, SUMS, true)],
        broadcast: BROADCAST,
    }
}

/// Partition counts for [`topology`].
pub fn partitions(sources: i32, sums: i32) -> Vec<(TopicIndex, i32)> {
    vec![(INPUT, sources), (COUNTS, sources), (MOVEMENTS, sums), (SUMS, sums)]
}

fn defect(what: &str) -> Failure {
    Failure::stop("COUNTING_DEFECT", what, "this is a defect of the test")
}

fn numbers<const N: usize>(text: &[u8]) -> Option<[i64; N]> {
    let parsed: Option<Vec<i64>> = std::str::from_utf8(text).ok()?.split(',').map(|part| part.parse().ok()).collect();
    parsed?.try_into().ok()
}

/// The program.
#[derive(Debug)]
pub struct Counting {
    sums: i32,
    local_movements: bool,
    counted: BTreeMap<StatePartition, i64>,
    moved: BTreeMap<StatePartition, BTreeMap<Vec<u8>, i64>>,
    /// Background chunks left, as committed and as changed by the open transaction.
    left: BTreeMap<StatePartition, i64>,
    left_now: BTreeMap<StatePartition, i64>,
}

impl Counting {
    /// `sums`: number of partitions of the second stage. Without `local_movements` everything takes the
    /// repartition topic.
    pub fn new(sums: i32, local_movements: bool) -> Self {
        Self {
            sums,
            local_movements,
            counted: BTreeMap::new(),
            moved: BTreeMap::new(),
            left: BTreeMap::new(),
            left_now: BTreeMap::new(),
        }
    }

    fn move_to(&mut self, transaction: &mut dyn Transaction, key: &[u8], amount: i64) -> Result<(), Failure> {
        let hash = key.iter().fold(0_i32, |hash, byte| (hash * 31 + i32::from(*byte)) % 10_007);
        let partition = StatePartition { stage: Stage(1), partition: hash % self.sums };
        if self.local_movements && transaction.is_running(partition) {
            *self.moved.entry(partition).or_default().entry(key.to_vec()).or_default() += amount;
            return Ok(());
        }
        let target = TopicPartition { topic: MOVEMENTS, partition: partition.partition };
        let value = amount.to_string();
        transaction.emit(&NewRecord { target, key: Some(key), value: Some(value.as_bytes()), headers: &[] })
    }

    fn rounds(transaction: &mut dyn Transaction, partition: StatePartition) -> Result<[i64; 2], Failure> {
        let mut stored = Vec::new();
        if !transaction.get(partition, ROUNDS_KEY.as_bytes(), &mut stored)? {
            return Ok([0, 0]);
        }
        numbers(&stored).ok_or_else(|| defect("rounds"))
    }

    fn set_rounds(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        handled: i64,
        left: i64,
    ) -> Result<(), Failure> {
        self.left_now.insert(partition, left);
        self.counted.entry(partition).or_default();
        let (key, value) = (ROUNDS_KEY.as_bytes(), format!("{handled},{left}"));
        let value = Some(value.as_bytes());
        transaction.put(partition, &StateChange { key, value, changelog_key: key, changelog_value: value })
    }

    fn waiting(&self) -> Option<StatePartition> {
        let now = |partition: &StatePartition, left: i64| self.left_now.get(partition).copied().unwrap_or(left);
        let mut all = self.left.iter().map(|(partition, left)| (*partition, now(partition, *left)));
        all.find(|(_, left)| *left > 0).map(|(partition, _)| partition)
    }
}

impl Application for Counting {
    fn started(&mut self, partition: StatePartition, state: &dyn PartitionStore) -> Result<(), Failure> {
        if partition.stage == Stage(0) {
            let mut stored = Vec::new();
            let known = state.get(ROUNDS_KEY.as_bytes(), &mut stored)?;
            let [_, left] = if known { numbers(&stored).ok_or_else(|| defect("rounds"))? } else { [0, 0] };
            self.left.insert(partition, left);
        }
        Ok(())
    }

    fn stopped(&mut self, partition: StatePartition) {
        self.left.remove(&partition);
        self.left_now.remove(&partition);
    }

    fn restore(&mut self, _partition: StatePartition, record: &Record<'_>, changes: &mut Changes) -> Result<(), Stop> {
        if let Some(key) = record.key {
            changes.insert(key, record.value);
        }
        Ok(())
    }

    fn process(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        record: &Record<'_>,
    ) -> Result<(), Failure> {
        let (Some(key), Some(value)) = (record.key, record.value) else { return Err(defect("no key or value")) };
        let [amount] = numbers(value).ok_or_else(|| defect("amount"))?;
        if partition.stage == Stage(0) {
            *self.counted.entry(partition).or_default() += 1;
            return self.move_to(transaction, key, amount);
        }
        *self.moved.entry(partition).or_default().entry(key.to_vec()).or_default() += amount;
        Ok(())
    }

    fn broadcast(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        record: &BroadcastRecord,
    ) -> Result<(), Failure> {
        if partition.stage != Stage(0) {
            return Ok(());
        }
        let [handled, left] = Self::rounds(transaction, partition)?;
        if record.offset < handled {
            return Ok(());
        }
        self.set_rounds(transaction, partition, record.offset + 1, left + CHUNKS)
    }

    fn caught_up(&mut self, _transaction: &mut dyn Transaction, _partition: StatePartition) -> Result<(), Failure> {
        Ok(())
    }

    fn has_background(&self) -> bool {
        self.waiting().is_some()
    }

    fn background(&mut self, transaction: &mut dyn Transaction) -> Result<Background, Failure> {
        let Some(partition) = self.waiting() else { return Ok(Background::Done) };
        let [handled, left] = Self::rounds(transaction, partition)?;
        self.set_rounds(transaction, partition, handled, left - 1)?;
        self.move_to(transaction, ROUNDS_KEY.as_bytes(), 1)?;
        Ok(if self.has_background() { Background::More } else { Background::Done })
    }

    fn complete(&mut self, transaction: &mut dyn Transaction) -> Result<(), Failure> {
        let mut stored = Vec::new();
        for (partition, records) in std::mem::take(&mut self.counted) {
            let key = COUNT_KEY.as_bytes();
            let known = transaction.get(partition, key, &mut stored)?;
            let [count] = if known { numbers(&stored).ok_or_else(|| defect("count"))? } else { [0] };
            let value = (count + records).to_string();
            let value = Some(value.as_bytes());
            transaction
                .put_marked(partition, &StateChange { key, value, changelog_key: key, changelog_value: value })?;
        }
        for (partition, keys) in std::mem::take(&mut self.moved) {
            let last = keys.len().saturating_sub(1);
            for (index, (key, amount)) in keys.into_iter().enumerate() {
                let known = transaction.get(partition, &key, &mut stored)?;
                let [sum, version, _] = if known { numbers(&stored).ok_or_else(|| defect("sum"))? } else { [0; 3] };
                let value = format!("{},{},{amount}", sum + amount, version + 1);
                let value = Some(value.as_bytes());
                let change = StateChange { key: &key, value, changelog_key: &key, changelog_value: value };
                if index == last {
                    transaction.put_marked(partition, &change)?;
                } else {
                    transaction.put(partition, &change)?;
                }
            }
        }
        Ok(())
    }

    fn committed(&mut self) {
        self.left.extend(std::mem::take(&mut self.left_now));
    }

    fn aborted(&mut self) {
        self.counted.clear();
        self.moved.clear();
        self.left_now.clear();
    }
}

/// Feeds the counting program and knows what it must come to.
#[derive(Debug)]
pub struct CountingScenario {
    sums: i32,
    local_movements: bool,
    to_feed: usize,
    broadcasts_to_feed: i64,
    broadcasts: i64,
    expected: BTreeMap<Vec<u8>, i64>,
    fed: BTreeMap<TopicPartition, i64>,
    read_to: BTreeMap<TopicPartition, i64>,
    seen: BTreeMap<Vec<u8>, [i64; 2]>,
}

impl CountingScenario {
    /// `records`: input records; `broadcasts`: broadcast records; the rest as [`Counting::new`].
    pub fn new(sums: i32, local_movements: bool, records: usize, broadcasts: i64) -> Self {
        Self {
            sums,
            local_movements,
            to_feed: records,
            broadcasts_to_feed: broadcasts,
            broadcasts: 0,
            expected: BTreeMap::new(),
            fed: BTreeMap::new(),
            read_to: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Writes one record by hand, to the input or straight to the repartition topic, and expects it in the sums.
    pub fn give(&mut self, broker: &mut Broker, target: TopicPartition, key: &[u8], amount: i64) {
        broker.append(target, Some(key), Some(amount.to_string().as_bytes()));
        *self.expected.entry(key.to_vec()).or_default() += amount;
        if target.topic == INPUT {
            *self.fed.entry(target).or_default() += 1;
        }
    }

    fn see(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let name = String::from_utf8_lossy(key).into_owned();
        let [sum, version, delta] = numbers(value).ok_or("unreadable sum")?;
        let [sum_before, version_before] = self.seen.get(key).copied().unwrap_or_default();
        if version != version_before + 1 {
            return Err(format!("invariant 2: version {version} of {name} follows {version_before}"));
        }
        if sum != sum_before + delta {
            return Err(format!("invariant 2: sum {sum} of {name} is not {sum_before} and {delta}"));
        }
        self.seen.insert(key.to_vec(), [sum, version]);
        Ok(())
    }

    fn check_counts(&self, broker: &Broker) -> Result<(), String> {
        for (input, fed) in &self.fed {
            let changelog = TopicPartition { topic: COUNTS, partition: input.partition };
            let log = broker.log(changelog).ok_or("no changelog")?;
            let counts = log.committed().filter(|(_, record)| record.key.as_deref() == Some(COUNT_KEY.as_bytes()));
            let last = counts.last().and_then(|(_, record)| numbers::<1>(record.value.as_deref()?));
            if last != Some([*fed]) {
                return Err(format!("invariant 3: {input:?} has {fed} records, its changelog counts {last:?}"));
            }
        }
        Ok(())
    }
}

impl Scenario for CountingScenario {
    type Application = Counting;

    fn application(&self) -> Counting {
        Counting::new(self.sums, self.local_movements)
    }

    fn feed(&mut self, broker: &mut Broker, random: &mut Random) -> bool {
        if broker.group.members().is_empty() && random.chance(1_000) {
            reset_offsets(broker);
        }
        if self.broadcasts_to_feed > 0 && random.chance(500) {
            self.broadcasts_to_feed -= 1;
            self.broadcasts += 1;
            let broadcast = TopicPartition { topic: BROADCAST, partition: 0 };
            broker.append(broadcast, Some(b"again"), Some(b""));
        }
        let inputs = broker.partitions_of(INPUT);
        for _ in 0..random.below(6).min(self.to_feed) {
            let Some(input) = random.pick(&inputs) else { continue };
            self.to_feed -= 1;
            let (key, amount) = (format!("key-{}", random.below(7)).into_bytes(), random.between(-9, 9));
            self.give(broker, input, &key, amount);
        }
        self.to_feed > 0 || self.broadcasts_to_feed > 0
    }

    fn observe(&mut self, broker: &Broker) -> Result<(), String> {
        for partition in 0..self.sums {
            let sums = TopicPartition { topic: SUMS, partition };
            let log = broker.log(sums).ok_or("no output")?;
            loop {
                let position = self.read_to.get(&sums).copied().unwrap_or(0);
                match log.next_committed(position) {
                    Next::Record(offset, record) => {
                        self.read_to.insert(sums, offset + 1);
                        self.see(
                            record.key.as_deref().unwrap_or_default(),
                            record.value.as_deref().unwrap_or_default(),
                        )?;
                    }
                    Next::End(end) => {
                        if end > position {
                            self.read_to.insert(sums, end);
                        }
                        break;
                    }
                    Next::Truncated | Next::Beyond => return Err("the output lost records".into()),
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, broker: &Broker) -> Result<(), String> {
        self.observe(broker)?;
        let sources = i64::try_from(broker.partitions_of(INPUT).len()).unwrap_or(0);
        if self.broadcasts > 0 {
            self.expected.insert(ROUNDS_KEY.into(), self.broadcasts * CHUNKS * sources);
        }
        let seen: BTreeMap<_, _> = self.seen.iter().map(|(key, [sum, _])| (key.clone(), *sum)).collect();
        if seen != self.expected {
            let text = |map: &BTreeMap<Vec<u8>, i64>| {
                map.iter().map(|(key, sum)| format!("{}={sum}", String::from_utf8_lossy(key))).collect::<Vec<_>>()
            };
            return Err(format!("invariant 1: sums {:?}, expected {:?}", text(&seen), text(&self.expected)));
        }
        self.check_counts(broker)
    }
}

/// An operator sets the offsets of the empty group back to the beginning: everything applied must be
/// recognised.
pub fn reset_offsets(broker: &mut Broker) {
    for topic in [INPUT, MOVEMENTS] {
        for input in broker.partitions_of(topic) {
            let start = broker.log(input).map_or(0, crate::log::PartitionLog::start);
            broker.group.reset(input, start);
        }
    }
}
