//! State rebuilt from what was written equals the state.

use std::collections::BTreeMap;

use processor_engine::application::Application;
use processor_engine::cluster::NoHeaders;
use processor_engine::mark::Progress;
use processor_engine::{Changes, PartitionStore, StatePartition};

use schemas::GoodId;

use super::inputs::value;
use super::world::{Store, World, Written, movements, record, source};
use crate::{MOVEMENTS, SOURCE, StockApplication, Wiring};

/// Replays a log into empty stores with a fresh application.
pub(super) fn restored(world: &World, log: &[Written]) -> BTreeMap<StatePartition, Store> {
    let mut replaying = StockApplication::new(world.application.settings().clone(), crate::Silent);
    let mut rebuilt: BTreeMap<StatePartition, Store> = BTreeMap::new();
    for written in log {
        let stage = match written.target.topic {
            topic if topic == Wiring::DEFAULT.transactions => SOURCE,
            topic if topic == Wiring::DEFAULT.deltas => MOVEMENTS,
            _ => continue,
        };
        let partition = StatePartition { stage, partition: written.target.partition };
        let (key, value) = (written.key.as_deref(), written.value.as_deref());
        let record = record(written.target.topic.0, partition.partition, 0, key, value, &NoHeaders);
        let mut changes = Changes::default();
        replaying.restore(partition, &record, &mut changes).unwrap();
        rebuilt.entry(partition).or_default().apply(&changes.sorted(), &Progress::default()).unwrap();
    }
    rebuilt
}

/// The newest record of each key, as compaction leaves it.
pub(super) fn compacted(log: &[Written]) -> Vec<Written> {
    let mut newest = BTreeMap::new();
    for (position, written) in log.iter().enumerate() {
        newest.insert((written.target, written.key.clone()), position);
    }
    let mut positions: Vec<usize> = newest.into_values().collect();
    positions.sort_unstable();
    positions.into_iter().map(|position| log[position].clone()).collect()
}

pub(super) fn check_restorable(world: &World) {
    let mut state = world.state.clone();
    state.retain(|_, store| !store.0.is_empty());
    assert_eq!(restored(world, &world.log), state);
    assert_eq!(restored(world, &compacted(&world.log)), state);
}

#[test]
fn the_state_rebuilt_from_the_changelogs_equals_the_state_also_after_compaction() {
    let mut world = World::new();
    let mut open = world.begin();
    for row in 1..=20 {
        world.streamed(&mut open, row, 10 + row, i64::try_from(row % 4).unwrap() - 2, -7);
    }
    world.commit(open);
    let mut open = world.begin();
    world.deleted(&mut open, 3, 50);
    world.sent(&mut open, 4, &value("r", "last", 4, 100, i64::MIN, i64::MAX)).unwrap();
    world.commit(open);
    check_restorable(&world);
}

#[test]
fn the_epoch_is_found_again_in_the_restored_sums() {
    let mut world = World::new();
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 30);
    world.commit(open);
    world.state = restored(&world, &world.log);
    world.now_ms = 9_999;
    world.restart();
    // Another good of the same output partition.
    let partition = world.log.iter().find(|it| it.target.topic == Wiring::DEFAULT.deltas).unwrap().target.partition;
    let partitions = world.application.settings().movements_partitions;
    let other = (3..1_000)
        .find(|good| schemas::partitioner::partition_for_good(&GoodId::from(*good), partitions) == partition)
        .unwrap();
    let mut open = world.begin();
    world.streamed(&mut open, 2, 11, other, 1);
    world.commit(open);
    assert_eq!(world.deltas().iter().map(|it| it.epoch).collect::<Vec<_>>(), [1_001, 1_001]);
}

#[test]
fn a_changelog_record_that_cannot_be_read_stops_the_restore_with_its_code() {
    let mut application = StockApplication::new(super::world::settings(), crate::Silent);
    for (partition, key, value, code) in [
        (source(0), &b"#partition"[..], &br#"{"format":2}"#[..], "FORMAT_NEWER"),
        (source(0), b"#partition", b"x", "RECORD_MALFORMED"),
        (source(0), b"#other", b"{}", "RECORD_KEY_MALFORMED"),
        (source(0), b"00000000-0000-0000-0000-000000000001", b"{}", "RECORD_MALFORMED"),
        (movements(0), b"2", br#"{"format":2}"#, "FORMAT_NEWER"),
        (movements(0), b"x", b"{}", "RECORD_MALFORMED"),
    ] {
        let record = record(0, 0, 5, Some(key), Some(value), &NoHeaders);
        let stop = application.restore(partition, &record, &mut Changes::default()).unwrap_err();
        assert_eq!(stop.code, code, "{}", stop.what);
        assert!(stop.what.contains("offset 5"), "{}", stop.what);
    }
}

#[test]
fn damaged_state_stops_with_its_code_and_the_remedy() {
    let mut world = World::new();
    world.state.entry(source(0)).or_default().0.insert(super::inputs::id(1).as_bytes().to_vec(), vec![0xff]);
    let mut open = world.begin();
    let failure = world.sent(&mut open, 1, &value("c", "false", 1, 10, 2, 3)).unwrap_err();
    assert!(failure.to_string().starts_with("STATE_DAMAGED"), "{failure}");
}
