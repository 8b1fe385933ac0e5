//! What happens to state after kills, power cuts, truncations and flipped bits: it is whole or discarded.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use processor_engine::Failure;
use processor_engine::store::{PartitionStore, StateStore};
use processor_store::{LocalStore, Options};
use support::*;

/// Set for the child process that is going to be killed.
const CHILD_DIRECTORY: &str = "STORE_TEST_CHILD_DIRECTORY";
const KEYS_PER_BATCH: u64 = 50;

/// Batch `n` adds its own keys, overwrites a counter and deletes the first key of the batch before the last.
fn batch(number: u64) -> Vec<Change> {
    let first = number * KEYS_PER_BATCH;
    let mut writes: Vec<_> =
        (first..first + KEYS_PER_BATCH).map(|key| put(id(key), number.to_be_bytes().repeat(4))).collect();
    writes.push(put("counter", number.to_string()));
    if number > 2 {
        writes.push((id((number - 2) * KEYS_PER_BATCH).to_vec(), None));
    }
    sorted(writes)
}

/// The whole of batches 1 to `last`, as it must be found.
fn whole(last: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = std::collections::BTreeMap::new();
    for number in 1..=last {
        for (key, value) in batch(number) {
            match value {
                Some(value) => all.insert(key, value),
                None => all.remove(&key),
            };
        }
    }
    all.into_iter().collect()
}

/// Opens partition 0 and requires it to hold exactly a prefix of the batches; says which.
fn prefix(options: Options) -> u64 {
    let store = LocalStore::open(options).unwrap();
    let state = open_partition(&store, 0);
    let sequence = state.progress().unwrap().map_or(0, |progress| progress.mark.sequence);
    assert_eq!(state.batches(), sequence);
    assert!(contents(&state) == whole(sequence), "not the whole of {sequence} batches");
    drop(state);
    sequence
}

/// Not a test of its own: the process that [`a_killed_process_loses_no_applied_batch`] kills.
#[test]
fn child_that_applies_until_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let store = open(Path::new(&directory));
    let mut state = open_partition(&store, 0);
    let mut number = state.progress().unwrap().map_or(0, |progress| progress.mark.sequence);
    loop {
        number += 1;
        apply(&mut state, &batch(number), &progress(number)).unwrap();
        println!("\napplied {number}");
    }
}

#[test]
fn a_killed_process_loses_no_applied_batch() {
    let directory = tempfile::tempdir().unwrap();
    let mut reached = 0;
    for round in 1..=8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_applies_until_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(number) = line.strip_prefix("applied ") {
                acknowledged = number.parse().unwrap();
                if acknowledged >= reached + 17 * round {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = prefix(options(directory.path()));
        assert!(found >= acknowledged, "{found} of {acknowledged}");
        reached = found;
    }
}

/// A directory with some batches in partition 0, closed or left as a crash leaves it.
fn filled(closed: bool) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut state = open_partition(&store, 0);
    for number in 1..=LAST {
        apply(&mut state, &batch(number), &progress(number)).unwrap();
    }
    drop(state);
    if closed {
        store.close().unwrap();
    }
    directory
}

const LAST: u64 = 40;

fn data_file(directory: &Path) -> PathBuf {
    directory.join(APPLICATION).join("source-0").join("data.mdb")
}

fn under_boot(directory: &Path, boot_id: Option<&str>) -> Options {
    Options { boot_id: boot_id.map(str::to_owned), ..options(directory) }
}

#[test]
fn after_a_restart_of_the_machine_only_a_closed_partition_is_used() {
    assert_eq!(prefix(options(filled(false).path())), LAST);
    assert_eq!(prefix(under_boot(filled(false).path(), Some("another boot"))), 0);
    assert_eq!(prefix(under_boot(filled(false).path(), None)), 0);
    assert_eq!(prefix(under_boot(filled(true).path(), Some("another boot"))), LAST);
    assert_eq!(prefix(under_boot(filled(true).path(), None)), LAST);
}

#[test]
fn a_closed_partition_opened_again_is_no_longer_closed() {
    let directory = filled(true);
    assert_eq!(prefix(options(directory.path())), LAST);
    assert_eq!(prefix(under_boot(directory.path(), Some("another boot"))), 0);
}

#[test]
fn a_file_without_a_readable_marker_is_discarded() {
    let directory = filled(true);
    fs::write(data_file(directory.path()).with_file_name("marker.json"), "{").unwrap();
    assert_eq!(prefix(options(directory.path())), 0);
}

#[test]
fn a_truncated_file_is_whole_or_discarded_even_when_it_was_closed() {
    let directory = filled(true);
    let file = data_file(directory.path());
    let marker = file.with_file_name("marker.json");
    let (content, closed) = (fs::read(&file).unwrap(), fs::read(&marker).unwrap());
    let mut random = Random(7);
    let lengths = (0..60).map(|_| random.below(content.len()));
    let mut kept = 0;
    for length in [0, 1, 100, 4096, 8191, 8192, content.len() - 1].into_iter().chain(lengths) {
        fs::write(&file, &content[..length]).unwrap();
        fs::write(&marker, &closed).unwrap();
        let found = prefix(options(directory.path()));
        assert!(found == 0 || found == LAST, "{length} bytes: {found}");
        kept += u64::from(found == LAST);
    }
    assert!(kept < 10, "{kept}");
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless_after_a_crash() {
    flip_bits_one_by_one(&filled(false));
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless_in_a_closed_file() {
    flip_bits_one_by_one(&filled(true));
}

fn flip_bits_one_by_one(directory: &tempfile::TempDir) {
    let file = data_file(directory.path());
    let marker = file.with_file_name("marker.json");
    let left = fs::read(&marker).unwrap();
    let content = fs::read(&file).unwrap();
    let mut random = Random(11);
    let (mut discarded, mut flips) = (0, Vec::new());
    // Every bit of both headers' fields, and of some pages' headers, and random ones anywhere.
    flips.extend((0..2).flat_map(|page| (0..152 * 8).step_by(13).map(move |bit| page * 4096 * 8 + bit)));
    flips.extend((2..content.len() / 4096).flat_map(|page| [64, 80, 96, 112].map(|bit| page * 4096 * 8 + bit)));
    flips.extend((0..250).map(|_| random.below(content.len() * 8)));
    for &flip in &flips {
        let mut broken = content.clone();
        broken[flip / 8] ^= 1 << (flip % 8);
        fs::write(&file, &broken).unwrap();
        fs::write(&marker, &left).unwrap();
        let found = prefix(options(directory.path()));
        assert!([0, LAST - 1, LAST].contains(&found), "bit {flip}: {found}");
        discarded += usize::from(found == 0);
    }
    assert!(discarded * 4 > flips.len(), "{discarded} of {}", flips.len());
}

/// Breaks the values that a batch has written, and nothing else.
fn flip_values_of(file: &Path, number: u64) {
    let content = fs::read(file).unwrap();
    let needle = number.to_be_bytes().repeat(4);
    let disk = OpenOptions::new().write(true).open(file).unwrap();
    for (at, _) in content.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle) {
        disk.write_all_at(&[1], u64::try_from(at).unwrap()).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_a_value_of_an_open_file_is_reported_and_the_partition_discarded() {
    let directory = filled(true);
    let store = open(directory.path());
    let state = open_partition(&store, 0);
    flip_values_of(&data_file(directory.path()), LAST);
    assert!(matches!(state.get(&id(LAST * KEYS_PER_BATCH), &mut Vec::new()), Err(Failure::Rebuild(_))));
    drop(state);
    let mut state = store.clone().open(partition(0)).unwrap();
    assert_eq!((state.progress().unwrap(), contents(&state)), (None, Vec::new()));
    apply(&mut state, &batch(1), &progress(1)).unwrap();
    drop(state);
    drop(store);
    assert_eq!(prefix(options(directory.path())), 1);
}

#[test]
fn whatever_the_store_writes_passes_verification() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random(3);
    for round in 1..=25 {
        let store = open(directory.path());
        let mut state = open_partition(&store, 0);
        let expected = (round > 1).then(|| progress(round - 1));
        assert_eq!(state.progress().unwrap(), expected, "round {round}");
        let mut writes = std::collections::BTreeMap::new();
        for _ in 0..random.below(3_000) {
            let length = if random.below(50) == 0 { random.below(20_000) } else { random.below(60) };
            let value = (random.below(3) > 0).then(|| vec![1; length]);
            writes.insert(id(u64::try_from(random.below(5_000)).unwrap()).to_vec(), value);
        }
        let writes: Vec<_> = writes.into_iter().collect();
        apply(&mut state, &writes, &progress(round)).unwrap();
        drop(state);
        store.close().unwrap();
    }
}

/// A small generator, so that a failing case is the same one every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}
