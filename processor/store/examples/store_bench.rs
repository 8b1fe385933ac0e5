//! Measures the store on the work it is made for: random ids, most of them new, one thread.
//!
//! `cargo run --release -p processor-store --example store_bench -- <ids> [partitions] [directory]`
//! writes `ids` random 16-byte ids with 24-byte values in batches of 10,000 look-ups, one in ten of them
//! seen before; every look-up is a `get`, every absent id a write. Then it looks ids up, and opens the
//! files again as after a crash.
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use processor_engine::Changes;
use processor_engine::StatePartition;
use processor_engine::mark::{Mark, Progress};
use processor_engine::store::{PartitionStore, StateStore};
use processor_engine::topology::Stage;
use processor_store::{LocalPartition, LocalStore, Options};

const BATCH: u64 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let ids: u64 = arguments.next().ok_or("how many ids?")?.parse()?;
    let partitions: u64 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let directory = arguments.next().map_or_else(|| std::env::temp_dir().join("store-bench"), PathBuf::from);

    let mut store = LocalStore::open(options(&directory))?;
    let mut states = open(&mut store, partitions)?;
    write(&mut states, ids)?;
    look_up(&states, ids)?;
    let keys = states.iter().map(LocalPartition::keys).sum::<Result<u64, _>>()?;
    let filters: usize = states.iter().map(LocalPartition::filter_memory).sum();
    println!(
        "{keys} ids: {:.1} bytes an id on disk, filters {:.1} MB, private memory {:.1} MB",
        store.disk_usage() as f64 / keys as f64,
        filters as f64 / 1e6,
        private_memory()? / 1e6
    );
    drop(states);
    drop(store);
    let started = Instant::now();
    let mut store = LocalStore::open(options(&directory))?;
    let states = open(&mut store, partitions)?;
    println!("opened and verified as after a crash in {:.2} s", started.elapsed().as_secs_f64());
    drop(states);
    let started = Instant::now();
    store.close()?;
    println!("synced and closed in {:.2} s", started.elapsed().as_secs_f64());
    drop(store);
    fs::remove_dir_all(directory.join("bench"))?;
    Ok(())
}

fn options(directory: &std::path::Path) -> Options {
    Options::new(directory, "bench", "none", ["source"])
}

fn open(store: &mut LocalStore, partitions: u64) -> Result<Vec<LocalPartition>, Box<dyn Error>> {
    (0..i32::try_from(partitions)?)
        .map(|partition| Ok(store.open(StatePartition { stage: Stage(0), partition })?))
        .collect()
}

/// Wall clock and the time this thread was on a processor: the latter tells more on a busy machine.
struct Stopwatch(Instant, f64);

impl Stopwatch {
    fn start() -> Result<Self, Box<dyn Error>> {
        Ok(Self(Instant::now(), processor_seconds()?))
    }

    fn rates(&self, operations: u64) -> Result<String, Box<dyn Error>> {
        let operations = operations as f64;
        let wall = operations / self.0.elapsed().as_secs_f64() / 1e6;
        let processor = operations / (processor_seconds()? - self.1) / 1e6;
        Ok(format!("{wall:.3} M a second, {processor:.3} M a processor second"))
    }
}

fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("no schedstat")?.parse::<f64>()? / 1e9)
}

fn partition_of(id: [u8; 16], partitions: usize) -> usize {
    usize::from(u16::from_be_bytes([id[14], id[15]])) % partitions
}

fn write(states: &mut [LocalPartition], ids: u64) -> Result<(), Box<dyn Error>> {
    let all = Stopwatch::start()?;
    let mut recent = Stopwatch::start()?;
    let (mut value, mut looked_up, mut next, mut batch) = (Vec::new(), 0_u64, 0_u64, 0_u64);
    while next < ids {
        batch += 1;
        let mut changes: Vec<Changes> = states.iter().map(|_| Changes::default()).collect();
        for _ in 0..BATCH {
            looked_up += 1;
            let seen_before = looked_up.is_multiple_of(10) && next > 0;
            let id = id(if seen_before { mix(looked_up) % next } else { next });
            next += u64::from(!seen_before);
            let partition = partition_of(id, states.len());
            if !states.get(partition).ok_or("no such partition")?.get(&id, &mut value)? {
                changes.get_mut(partition).ok_or("no such partition")?.insert(&id, Some(&[7; 24]));
            }
        }
        let mark = Mark { next_offset: i64::try_from(looked_up)?, sequence: batch };
        for (state, changes) in states.iter_mut().zip(changes) {
            state.apply(&changes.sorted(), &Progress { mark, ..Progress::default() })?;
        }
        if batch.is_multiple_of(250) {
            println!("{looked_up} events, {}", recent.rates(250 * BATCH)?);
            recent = Stopwatch::start()?;
        }
    }
    println!("{looked_up} events in all, {}", all.rates(looked_up)?);
    Ok(())
}

fn look_up(states: &[LocalPartition], ids: u64) -> Result<(), Box<dyn Error>> {
    const LOOK_UPS: u64 = 1_000_000;
    let mut value = Vec::new();
    for (what, offset) in [("present", 0), ("absent", 2 * ids)] {
        let stopwatch = Stopwatch::start()?;
        let mut found = 0_u64;
        for number in 0..LOOK_UPS {
            let id = id(offset + mix(number) % ids);
            let state = states.get(partition_of(id, states.len())).ok_or("no such partition")?;
            found += u64::from(state.get(&id, &mut value)?);
        }
        println!("looking up {what} ids ({found} found): {}", stopwatch.rates(LOOK_UPS)?);
    }
    Ok(())
}

fn id(number: u64) -> [u8; 16] {
    let (high, low) = (mix(number), mix(number ^ 0x5555_5555_5555_5555));
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

/// The finaliser of splitmix64: a permutation that looks random.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Memory of this process that is no page of a file.
fn private_memory() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
