//! What the tests of the store share.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use processor_engine::mark::{Mark, Progress};
use processor_engine::store::{PartitionStore, StateStore, Write};
use processor_engine::topology::Stage;
use processor_engine::{Failure, StatePartition};
use processor_store::{LocalPartition, LocalStore, Options};

pub(crate) const APPLICATION: &str = "stock";
pub(crate) const CLUSTER: &str = "cluster-a";

pub(crate) fn options(directory: &Path) -> Options {
    let mut options = Options::new(directory, APPLICATION, CLUSTER, ["source", "goods"]);
    options.map_size = 1 << 30;
    options
}

pub(crate) fn open(directory: &Path) -> LocalStore {
    LocalStore::open(options(directory)).unwrap()
}

pub(crate) fn partition(number: i32) -> StatePartition {
    StatePartition { stage: Stage(0), partition: number }
}

pub(crate) fn open_partition(store: &LocalStore, number: i32) -> LocalPartition {
    store.clone().open(partition(number)).unwrap()
}

pub(crate) fn progress(sequence: u64) -> Progress {
    Progress {
        mark: Mark { next_offset: i64::try_from(sequence).unwrap() * 10, sequence },
        changelog_next: i64::try_from(sequence).unwrap() * 20,
        leader_epoch: Some(4),
        input_topic_id: "input".into(),
        changelog_topic_id: "changelog".into(),
        updated_at_ms: 1_700_000_000_000 + sequence,
    }
}

/// The 16 bytes of an id: spread over the key space, different for every number.
pub(crate) fn id(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    id
}

/// A key and its new value; `None` deletes it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

pub(crate) fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Change {
    (key.into(), Some(value.into()))
}

pub(crate) fn sorted(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort();
    changes
}

/// Applies changes that are sorted and unique already.
pub(crate) fn apply(state: &mut LocalPartition, changes: &[Change], progress: &Progress) -> Result<(), Failure> {
    let writes: Vec<_> = changes.iter().map(|(key, value)| Write { key, value: value.as_deref() }).collect();
    state.apply(&writes, progress)
}

pub(crate) fn get(partition: &LocalPartition, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = b"left over".to_vec();
    partition.get(key, &mut value).unwrap().then_some(value)
}

/// Keys and values, in order.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

pub(crate) fn contents(partition: &LocalPartition) -> Rows {
    try_contents(partition).unwrap()
}

pub(crate) fn try_contents(partition: &LocalPartition) -> Result<Rows, Failure> {
    let mut all = Vec::new();
    let ended = partition.scan(None, &mut |key, value| {
        all.push((key.to_vec(), value.to_vec()));
        true
    })?;
    assert!(ended);
    Ok(all)
}

pub(crate) fn stop_code(result: Result<LocalStore, Failure>) -> &'static str {
    match result {
        Err(Failure::Stop(stop)) => stop.code,
        other => panic!("a coded stop was expected, not {other:?}"),
    }
}
