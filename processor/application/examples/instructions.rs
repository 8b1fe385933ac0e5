//! The stream program on a fixed sequence of change events, without clients and store: what `tests/instructions.sh` counts
//! the instructions of.
//!
//! `instructions process N` processes N events in transactions of 10,000; `instructions generate N` only makes them, so
//! that the difference is the program's own work; `instructions restore N` also replays the changelog it wrote.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::num::NonZeroU32;

use processor_application::{MOVEMENTS, SOURCE, Settings, Silent, StockApplication, Wiring};
use processor_engine::cluster::{NewRecord, NoHeaders, Record};
use processor_engine::mark::Progress;
use processor_engine::store::Write;
use processor_engine::transaction::StateChange;
use processor_engine::{Application, Changes, Failure, PartitionStore, StatePartition, TopicPartition, Transaction};

const PARTITIONS: i32 = 10;
const GOODS: u64 = 20_000;
const PER_TRANSACTION: u64 = 10_000;

/// A record of the changelog: whose, its key, its value.
type Logged = (StatePartition, Vec<u8>, Vec<u8>);

/// State in memory: what is committed, and what the open transaction changes.
#[derive(Default)]
struct Memory {
    committed: BTreeMap<StatePartition, Changes>,
    open: BTreeMap<StatePartition, Changes>,
    touched: BTreeSet<StatePartition>,
    /// Changelog of the first step, when it is to be replayed.
    log: Option<Vec<Logged>>,
    bytes: usize,
}

impl Memory {
    fn commit(&mut self) {
        for (partition, changes) in &mut self.open {
            let committed = self.committed.entry(*partition).or_default();
            for Write { key, value } in changes.sorted() {
                committed.insert(key, value);
            }
            changes.clear();
        }
        self.touched.clear();
    }

    fn change(&mut self, partition: StatePartition, change: &StateChange<'_>) {
        self.touched.insert(partition);
        self.open.entry(partition).or_default().insert(change.key, change.value);
        self.bytes += change.changelog_key.len() + change.changelog_value.map_or(0, <[u8]>::len);
        if let (Some(log), Some(value), SOURCE) = (&mut self.log, change.changelog_value, partition.stage) {
            log.push((partition, change.changelog_key.to_vec(), value.to_vec()));
        }
    }
}

impl Transaction for Memory {
    fn is_running(&self, _partition: StatePartition) -> bool {
        true
    }

    fn get(&mut self, partition: StatePartition, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        value.clear();
        let own = self.open.get(&partition).and_then(|changes| changes.get(key));
        let found = own.or_else(|| self.committed.get(&partition).and_then(|changes| changes.get(key))).flatten();
        found.inspect(|found| value.extend_from_slice(found));
        Ok(found.is_some())
    }

    fn scan(
        &mut self,
        _partition: StatePartition,
        _after: Option<&[u8]>,
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<bool, Failure> {
        Ok(true)
    }

    fn put(&mut self, partition: StatePartition, change: &StateChange<'_>) -> Result<(), Failure> {
        self.change(partition, change);
        Ok(())
    }

    fn put_marked(&mut self, partition: StatePartition, change: &StateChange<'_>) -> Result<(), Failure> {
        self.change(partition, change);
        Ok(())
    }

    fn emit(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        self.bytes += record.value.map_or(0, <[u8]>::len);
        Ok(())
    }

    fn changelog_end(&self, _partition: StatePartition) -> Option<i64> {
        Some(0)
    }

    fn touched(&self) -> Vec<StatePartition> {
        self.touched.iter().copied().collect()
    }

    fn now_ms(&self) -> u64 {
        1_800_000_000_000
    }
}

/// A store that holds nothing.
struct Empty;

impl PartitionStore for Empty {
    fn progress(&self) -> Result<Option<Progress>, Failure> {
        Ok(None)
    }

    fn get(&self, _key: &[u8], _value: &mut Vec<u8>) -> Result<bool, Failure> {
        Ok(false)
    }

    fn scan(&self, _after: Option<&[u8]>, _visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<bool, Failure> {
        Ok(true)
    }

    fn apply(&mut self, _writes: &[Write<'_>], _progress: &Progress) -> Result<(), Failure> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// A fixed sequence of pseudo-random numbers (splitmix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Writes event `number` as Debezium does; one in ten is the one eight before it once more.
fn event(number: u64, key: &mut String, value: &mut String) -> Result<(), std::fmt::Error> {
    let number = if number % 10 == 9 { number - 8 } else { number };
    let (high, low) = (mix(2 * number), mix(2 * number + 1));
    let id = uuid::Uuid::from_u64_pair(high, low);
    let (good, pieces, lsn) = (mix(number + 7) % GOODS + 1, mix(number + 11) % 100 + 1, 26_370_000 + 200 * number);
    let operation = if number % 3 == 0 { "remove" } else { "add" };
    let ms = 1_795_333_786_480 + number / 10;
    key.clear();
    value.clear();
    write!(key, r#"{{"id":"{id}"}}"#)?;
    write!(
        value,
        r#"{{"before":null,"after":{{"id":"{id}","good_id":{good},"operation":"{operation}","pcs":{pieces},"created_at":"2026-11-22T09:49:46.480123Z"}},"source":{{"version":"3.6.0.Final","connector":"postgresql","name":"warehouse","ts_ms":{ms},"snapshot":"false","db":"goods_db","sequence":"[\"{before}\",\"{lsn}\"]","ts_us":{ms}123,"ts_ns":{ms}123000,"schema":"orders","table":"transactions","txId":{transaction},"lsn":{lsn},"xmin":null,"origin":null,"origin_lsn":null}},"transaction":null,"op":"c","ts_ms":{ms},"ts_us":{ms}473,"ts_ns":{ms}473598}}"#,
        before = lsn - 200,
        transaction = 730 + number,
    )
}

fn process(events: u64, memory: &mut Memory) -> Result<(), Box<dyn Error>> {
    let mut application = application()?;
    for partition in 0..PARTITIONS {
        for stage in [SOURCE, MOVEMENTS] {
            application.started(StatePartition { stage, partition }, &Empty)?;
        }
    }
    let (mut key, mut value) = (String::new(), String::new());
    for number in 0..events {
        event(number, &mut key, &mut value)?;
        let partition = i32::try_from(mix(number - if number % 10 == 9 { 8 } else { 0 }) % 10)?;
        let source = StatePartition { stage: SOURCE, partition };
        memory.touched.insert(source);
        application.process(memory, source, &record(partition, number, key.as_bytes(), value.as_bytes())?)?;
        if number % PER_TRANSACTION == PER_TRANSACTION - 1 {
            application.complete(memory)?;
            memory.commit();
            application.committed();
        }
    }
    Ok(())
}

fn restore(memory: &mut Memory) -> Result<(), Box<dyn Error>> {
    let mut application = application()?;
    let mut changes = Changes::default();
    for (partition, key, value) in memory.log.take().unwrap_or_default() {
        application.restore(partition, &record(partition.partition, 0, &key, &value)?, &mut changes)?;
        if changes.len() == 20_000 {
            black_box(changes.sorted());
            changes.clear();
        }
    }
    Ok(())
}

fn application() -> Result<StockApplication<Silent>, Box<dyn Error>> {
    let partitions = NonZeroU32::try_from(u32::try_from(PARTITIONS)?)?;
    Ok(StockApplication::new(Settings::new("source", partitions, partitions, partitions), Silent))
}

fn record<'a>(partition: i32, offset: u64, key: &'a [u8], value: &'a [u8]) -> Result<Record<'a>, Box<dyn Error>> {
    Ok(Record {
        source: TopicPartition { topic: Wiring::DEFAULT.source, partition },
        offset: i64::try_from(offset)?,
        timestamp_ms: None,
        leader_epoch: None,
        key: Some(key),
        value: Some(value),
        headers: &NoHeaders,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, events] = arguments.as_slice() else { return Err("generate|process|restore N".into()) };
    let events: u64 = events.parse()?;
    let mut memory = Memory::default();
    match mode.as_str() {
        "generate" => {
            let (mut key, mut value) = (String::new(), String::new());
            for number in 0..events {
                event(number, &mut key, &mut value)?;
                black_box((&key, &value));
            }
        }
        "process" => process(events, &mut memory)?,
        "restore" => {
            memory.log = Some(Vec::new());
            process(events, &mut memory)?;
            restore(&mut memory)?;
        }
        other => return Err(format!("{other}: generate|process|restore").into()),
    }
    println!("{} bytes written", memory.bytes);
    Ok(())
}
