//! A shop at work: change events as the connector writes them, from a seed, and what has to remain in the end.
//!
//! Owns the generator and the thread that writes what it generates at a given pace. The events go into the input topic
//! directly, so that faults of brokers, processors, sinks and target can be tried without the connector; they are inserts,
//! updates, moves to another good, deletes with their tombstone and changed keys, and every now and then everything of
//! the last moments again, in its order, as after a crash of the connector.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::checker::Contribution;
use crate::client::{Kafka, OutgoingRecord, Writer};

/// Partitions that are written into: more than there are processors in any scenario, and half of production's. Every commit
/// costs a marker in each, and every fetch names each: with ten of them a test took a third more processor time.
pub const PARTITIONS: i32 = 5;
/// Goods the shop has.
const GOODS: i64 = 40;
/// How many of the last records may be delivered again at once.
const REDELIVERED: usize = 150;
/// Changes written at once, as a connector's batch.
const CHANGES_PER_STEP: usize = 10;
/// Steps in a second, unless somebody wants more: each is a transaction of every processor, or several. With four of them a test
/// of faults took a fifth more processor time.
const STEPS_PER_SECOND: u32 = 2;
/// A write that failed is done again, as a connector does it, this often.
const ATTEMPTS: usize = 5;

/// A generator of change events that remembers which rows are alive.
#[derive(Debug)]
pub struct Workload {
    seed: u64,
    random: fastrand::Rng,
    rows: BTreeMap<u64, Row>,
    next_row: u64,
    lsn: u64,
    recent: VecDeque<OutgoingRecord>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    good: i64,
    is_add: bool,
    pcs: i64,
}

impl Row {
    fn contribution(self) -> Contribution {
        Contribution { good: self.good, pieces: if self.is_add { self.pcs } else { -self.pcs } }
    }
}

impl Workload {
    /// A shop without any row. The same seed gives the same events.
    pub fn new(seed: u64) -> Self {
        let (random, rows, recent) = (fastrand::Rng::with_seed(seed), BTreeMap::new(), VecDeque::new());
        Self { seed, random, rows, next_row: 0, lsn: 1_000, recent }
    }

    /// A seed from `WORKLOAD_SEED`, or any. It is printed, so that a failure can be had again.
    pub fn any_seed() -> u64 {
        let given = std::env::var("WORKLOAD_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| fastrand::u64(..));
        eprintln!("WORKLOAD_SEED={seed}");
        seed
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What has to remain: the live rows by id.
    pub fn rows(&self) -> BTreeMap<String, Contribution> {
        self.rows.iter().map(|(number, row)| (self.id(*number), row.contribution())).collect()
    }

    /// What has to remain: pieces by good.
    pub fn sums(&self) -> BTreeMap<i64, i64> {
        sums(&self.rows())
    }

    /// The records of so many further changes, and sometimes older ones again behind them.
    pub fn changes(&mut self, count: usize) -> Vec<OutgoingRecord> {
        let mut records: Vec<OutgoingRecord> = (0..count).flat_map(|_| self.change()).collect();
        self.recent.extend(records.iter().cloned());
        self.recent.drain(..self.recent.len().saturating_sub(REDELIVERED));
        if self.random.u8(..8) == 0 {
            let again = self.random.usize(..self.recent.len());
            records.extend(self.recent.range(again..).cloned());
        }
        records
    }

    /// A complete initial snapshot of the live rows, as a connector takes it that has lost its offsets.
    pub fn snapshot(&mut self) -> Vec<OutgoingRecord> {
        self.lsn += 1_000;
        self.recent.clear();
        let rows: Vec<(u64, Row)> = self.rows.iter().map(|(number, row)| (*number, *row)).collect();
        let last = rows.len().saturating_sub(1);
        let event = |(index, (number, row)): (usize, &(u64, Row))| {
            let marker = if index == last { "last" } else { "true" };
            self.event(*number, "r", Some(*row), marker, "null")
        };
        rows.iter().enumerate().map(event).collect()
    }

    /// So many rows are deleted while the connector is away: nobody ever hears of it.
    pub fn vanish(&mut self, count: usize) {
        let mut numbers: Vec<u64> = self.rows.keys().copied().collect();
        self.random.shuffle(&mut numbers);
        for number in numbers.into_iter().take(count) {
            self.rows.remove(&number);
        }
    }

    /// A new row of a good, whose record goes into a chosen partition.
    pub fn insert_into(&mut self, partition: i32, good: i64) -> OutgoingRecord {
        let row = Row { good, ..self.any_content() };
        let partitions = u64::from(PARTITIONS.unsigned_abs());
        let wanted = u64::from(partition.unsigned_abs());
        // Row numbers decide about partitions; those in between are never used.
        self.next_row += (wanted + partitions - self.next_row % partitions) % partitions;
        self.insert(row)
    }

    fn change(&mut self) -> Vec<OutgoingRecord> {
        match (self.random.u8(..100), self.any_row()) {
            (0..55, _) | (_, None) => {
                let row = self.any_content();
                vec![self.insert(row)]
            }
            (55..75, Some((number, row))) => {
                let row = Row { pcs: self.random.i64(0..50), ..row };
                vec![self.update(number, row)]
            }
            (75..85, Some((number, _))) => {
                let row = self.any_content();
                vec![self.update(number, row)]
            }
            (85..95, Some((number, _))) => self.delete(number),
            (_, Some((number, row))) => {
                let mut records = self.delete(number);
                records.push(self.insert(row));
                records
            }
        }
    }

    fn any_row(&mut self) -> Option<(u64, Row)> {
        let start = self.random.u64(..=self.next_row);
        let row = self.rows.range(start..).next().or_else(|| self.rows.iter().next())?;
        Some((*row.0, *row.1))
    }

    fn any_content(&mut self) -> Row {
        Row { good: self.random.i64(1..=GOODS), is_add: self.random.u8(..4) > 0, pcs: self.random.i64(0..50) }
    }

    fn insert(&mut self, row: Row) -> OutgoingRecord {
        let number = self.next_row;
        self.next_row += 1;
        self.rows.insert(number, row);
        self.streamed(number, "c", Some(row))
    }

    fn update(&mut self, number: u64, row: Row) -> OutgoingRecord {
        self.rows.insert(number, row);
        self.streamed(number, "u", Some(row))
    }

    fn delete(&mut self, number: u64) -> Vec<OutgoingRecord> {
        self.rows.remove(&number);
        let deleted = self.streamed(number, "d", None);
        let tombstone = OutgoingRecord { value: None, ..deleted.clone() };
        vec![deleted, tombstone]
    }

    fn streamed(&mut self, number: u64, op: &str, row: Option<Row>) -> OutgoingRecord {
        let committed = self.lsn;
        self.lsn += 8;
        self.event(number, op, row, "false", &format!(r#"\"{committed}\""#))
    }

    fn event(&self, number: u64, op: &str, row: Option<Row>, snapshot: &str, committed: &str) -> OutgoingRecord {
        let id = self.id(number);
        let image = |row: Row| {
            let operation = if row.is_add { "add" } else { "remove" };
            let (good, pcs) = (row.good, row.pcs);
            format!(r#"{{"id":"{id}","good_id":{good},"operation":"{operation}","pcs":{pcs}}}"#)
        };
        let after = row.map_or_else(|| "null".to_owned(), image);
        // What the default replica identity shows of a deleted row: its key and zeroes.
        let zeroes = || format!(r#"{{"id":"{id}","good_id":0,"operation":"","pcs":0}}"#);
        let before = if op == "d" { zeroes() } else { "null".to_owned() };
        let lsn = self.lsn;
        let ts_ms = 1_795_333_820_000 + self.lsn;
        let value = format!(
            r#"{{"before":{before},"after":{after},"source":{{"snapshot":"{snapshot}","sequence":"[{committed},\"{lsn}\"]","ts_ms":{ts_ms},"lsn":{lsn}}},"op":"{op}","ts_ms":{ts_ms}}}"#
        );
        let partitions = u64::from(PARTITIONS.unsigned_abs());
        OutgoingRecord {
            partition: i32::try_from(number % partitions).unwrap_or_default(),
            timestamp_ms: None,
            key: Some(format!(r#"{{"id":"{id}"}}"#).into_bytes()),
            value: Some(value.into_bytes()),
            headers: Vec::new(),
        }
    }

    fn id(&self, number: u64) -> String {
        format!("{:08x}-0000-4000-8000-{number:012}", self.seed & 0xffff_ffff)
    }
}

/// Something that goes on changing rows, and knows what has to remain.
pub trait Work: Send {
    /// How often a second [`Work::step`] is done.
    fn steps_per_second(&self) -> u32 {
        STEPS_PER_SECOND
    }

    /// Makes some changes, and does not return before they are stored; says how many.
    fn step(&mut self) -> Result<usize>;

    /// The live rows, by id.
    fn rows(&self) -> Result<BTreeMap<String, Contribution>>;

    /// The seed of everything that looks random.
    fn seed(&self) -> u64;
}

/// A [`Workload`] written straight into an input topic.
#[derive(Debug)]
pub struct TopicWork {
    kafka: Kafka,
    topic: String,
    /// What is written.
    pub workload: Workload,
    steps_per_second: u32,
    writer: Option<Writer>,
}

impl TopicWork {
    /// Work on an input topic that exists.
    pub fn new(kafka: Kafka, topic: String, workload: Workload) -> Self {
        Self { kafka, topic, workload, steps_per_second: STEPS_PER_SECOND, writer: None }
    }

    /// Another pace, for faults that come at any moment: the more is under way, the more of them hit something.
    #[must_use]
    pub fn with_steps_per_second(mut self, steps: u32) -> Self {
        self.steps_per_second = steps;
        self
    }

    /// The records of one step.
    pub fn next_records(&mut self) -> Vec<OutgoingRecord> {
        self.workload.changes(CHANGES_PER_STEP)
    }

    /// After a failure all records are written again, because some may be there: a redelivery.
    pub fn write(&mut self, records: &[OutgoingRecord]) -> Result<()> {
        let mut attempt = 1;
        loop {
            match self.try_write(records) {
                Ok(()) => return Ok(()),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    fn try_write(&mut self, records: &[OutgoingRecord]) -> Result<()> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.kafka.writer()?,
        };
        writer.write(&self.topic, records)?;
        self.writer = Some(writer);
        Ok(())
    }
}

impl Work for TopicWork {
    fn steps_per_second(&self) -> u32 {
        self.steps_per_second
    }

    fn step(&mut self) -> Result<usize> {
        let records = self.next_records();
        self.write(&records)?;
        Ok(records.len())
    }

    fn rows(&self) -> Result<BTreeMap<String, Contribution>> {
        Ok(self.workload.rows())
    }

    fn seed(&self) -> u64 {
        self.workload.seed()
    }
}

/// Pieces by good over live rows.
pub fn sums(rows: &BTreeMap<String, Contribution>) -> BTreeMap<i64, i64> {
    let mut sums = BTreeMap::new();
    for Contribution { good, pieces } in rows.values() {
        *sums.entry(*good).or_default() += pieces;
    }
    sums
}

/// Work being done in a thread of its own, until it is finished or dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Box<dyn Work>>>>,
}

impl Load {
    /// Begins, at the pace that the work has.
    pub fn start(mut work: Box<dyn Work>) -> Result<Self> {
        let pause = Duration::from_secs(1) / work.steps_per_second();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                work.step()?;
                // Paced by what is due, not caught up with after an outage: the shop was closed meanwhile.
                due = (due + pause).max(Instant::now());
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(work)
        };
        let thread = std::thread::Builder::new().name("workload".into()).spawn(run).context("no thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether it ended by itself, which only a failure makes it do.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished) && !self.stop.load(Ordering::Relaxed)
    }

    /// Stops after the step that is under way, and returns the work with what has to remain.
    pub fn finish(mut self) -> Result<Box<dyn Work>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished already")?;
        thread.join().map_err(|_| anyhow!("the workload panicked"))?.context("the workload could not be written")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_events_and_another_one_others() {
        let values = |seed| -> Vec<_> {
            let mut workload = Workload::new(seed);
            workload.changes(200).into_iter().map(|record| (record.partition, record.key, record.value)).collect()
        };
        assert_eq!(values(7), values(7));
        assert_ne!(values(7), values(8));
    }

    #[test]
    fn a_row_goes_into_the_partition_it_is_meant_for_and_one_that_vanished_is_not_told() {
        let mut workload = Workload::new(5);
        for partition in [3, 3, 0, 4, 2] {
            let record = workload.insert_into(partition, 7);
            assert_eq!(record.partition, partition);
        }
        assert_eq!(workload.rows().len(), 5);
        workload.vanish(2);
        assert_eq!((workload.rows().len(), workload.snapshot().len()), (3, 3));
    }

    #[test]
    fn every_kind_of_change_appears_and_sums_are_those_of_the_live_rows() {
        let mut workload = Workload::new(3);
        let records: Vec<_> = (0..100).flat_map(|_| workload.changes(10)).collect();
        let text = |record: &OutgoingRecord| String::from_utf8(record.value.clone().unwrap_or_default()).unwrap();
        for op in ["c", "u", "d"] {
            assert!(records.iter().any(|record| text(record).contains(&format!(r#""op":"{op}""#))), "{op}");
        }
        assert!(records.iter().any(|record| record.value.is_none()), "no tombstone");
        let changes = 1_000;
        assert!(records.len() > changes + changes / 5, "hardly anything was delivered again: {}", records.len());
        let total: i64 = workload.rows().values().map(|row| row.pieces).sum();
        assert_eq!(total, workload.sums().values().sum::<i64>());
        assert_eq!(workload.snapshot().len(), workload.rows().len());
    }
}
