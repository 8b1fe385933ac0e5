//! From the last record of a snapshot to the last removed row.

use processor_core::ChunkLimits;
use processor_engine::TopicPartition;
use processor_engine::application::Application;

use super::inputs::{id, value};
use super::restoring::check_restorable;
use super::world::{World, of, settings, source};
use crate::{Settings, Wiring};

/// Rows 1–50 streamed; a snapshot that shows only rows 1–10. Gives the announcement.
fn vanished(world: &mut World) -> Vec<u8> {
    let mut open = world.begin();
    for row in 1..=50 {
        world.streamed(&mut open, row, row, 2, 1);
    }
    world.commit(open);
    let mut open = world.begin();
    for row in 1..=10 {
        let marker = if row == 10 { "last" } else { "true" };
        world.sent(&mut open, row, &value("r", marker, row, 100, 2, 1)).unwrap();
    }
    let written = world.commit(open);
    let control = of(&written, Wiring::DEFAULT.control);
    assert_eq!(control.len(), 1);
    assert_eq!(control[0].target, TopicPartition { topic: Wiring::DEFAULT.control, partition: 0 });
    assert_eq!(control[0].key.as_deref(), Some(&b"snapshot-complete/100"[..]));
    control[0].value.clone().unwrap()
}

fn small_chunks() -> Settings {
    Settings { sweep_chunk: ChunkLimits { scanned: 7, changed: 4 }, ..settings() }
}

#[test]
fn rows_missing_from_a_complete_snapshot_are_taken_off_in_bounded_chunks() {
    let mut world = World::with(small_chunks());
    let announcement = vanished(&mut world);
    assert_eq!(world.remains()[&2], 50);
    world.broadcast(&announcement);
    let chunks = world.background();
    assert!(chunks > 10, "{chunks}");
    assert_eq!(world.remains()[&2], 10);
    let rows = world.state[&source(0)].0.keys().filter(|key| key.len() == 16).count();
    assert_eq!(rows, 10);
    for partition in 0..10 {
        assert_eq!(world.application.partition(partition).unwrap().swept(), 100, "idle partitions too");
    }
    check_restorable(&world);
    let told = world.application.observer().events.join("\n");
    assert!(told.contains("SweepFinished { partition: 0, snapshot_lsn: 100, removed: 40, markers: 0, lifted: 0 }"));
}

#[test]
fn an_announcement_read_again_writes_nothing() {
    let mut world = World::with(small_chunks());
    let announcement = vanished(&mut world);
    world.broadcast(&announcement);
    assert_eq!(world.broadcast(&announcement), [], "before the sweep");
    world.background();
    assert_eq!(world.broadcast(&announcement), [], "after it");
    world.restart();
    assert_eq!(world.broadcast(&announcement), [], "after a restart");
    assert_eq!(world.background(), 0);
}

#[test]
fn a_sweep_goes_on_where_it_was_after_a_crash_and_after_an_abort() {
    let mut world = World::with(small_chunks());
    let announcement = vanished(&mut world);
    world.broadcast(&announcement);
    while world.application.has_background() {
        let mut open = world.begin();
        world.application.background(&mut open).unwrap();
        world.abort(open);
        let mut open = world.begin();
        world.application.background(&mut open).unwrap();
        world.commit(open);
        world.restart();
    }
    assert_eq!(world.remains()[&2], 10);
    check_restorable(&world);
}

#[test]
fn ids_added_in_the_transaction_that_starts_a_sweep_are_swept_too() {
    let mut world = World::new();
    let announcement = vanished(&mut world);
    world.stop(source(0));
    world.state.remove(&source(0));
    world.start(source(0));
    // An older connector's event of a row that is gone, and the start of the sweep, in one transaction.
    let mut open = world.begin();
    world.streamed(&mut open, 99, 5, 2, 1);
    let record = processor_engine::application::BroadcastRecord { offset: 0, key: Vec::new(), value: announcement };
    world.application.broadcast(&mut open, source(0), &record).unwrap();
    assert!(!world.application.has_background(), "scans from the next transaction on");
    world.commit(open);
    assert!(world.application.has_background());
    world.background();
    assert!(!world.state[&source(0)].0.contains_key(id(99).as_bytes().as_slice()));
}

#[test]
fn a_row_that_comes_back_during_the_sweep_stays() {
    let mut world = World::with(small_chunks());
    let announcement = vanished(&mut world);
    world.broadcast(&announcement);
    let mut open = world.begin();
    world.streamed(&mut open, 12, 200, 2, 1);
    world.streamed(&mut open, 50, 201, 2, 1);
    // The same transaction does a chunk: what it has just written counts.
    world.application.background(&mut open).unwrap();
    world.commit(open);
    world.background();
    assert_eq!(world.remains()[&2], 12);
}

#[test]
fn too_large_a_sweep_waits_for_its_approval_and_then_runs() {
    let mut settings = settings();
    settings.sweep_policy.hold_above_rows = 10;
    let mut world = World::with(settings);
    let announcement = vanished(&mut world);
    world.broadcast(&announcement);
    world.background();
    assert_eq!(world.remains()[&2], 50);
    assert!(world.application.observer().events.iter().any(|it| it.starts_with("SweepHeld { partition: 0")));
    world.broadcast(br#"{"type":"approve-sweep","partition":1,"snapshot_lsn":100}"#);
    world.broadcast(br#"{"type":"approve-sweep","partition":0,"snapshot_lsn":77}"#);
    assert_eq!(world.background(), 0, "another partition, another snapshot");
    assert!(world.application.observer().events.iter().any(|it| it.starts_with("ApprovalUnknown { partition: 0")));
    world.broadcast(br#"{"type":"approve-sweep","partition":0,"snapshot_lsn":100}"#);
    world.background();
    assert_eq!(world.remains()[&2], 10);
}

#[test]
fn an_operators_word_that_the_source_is_empty_takes_everything_off() {
    let mut world = World::new();
    vanished(&mut world);
    world.broadcast(br#"{"type":"source-emptied","snapshot_lsn":500}"#);
    world.background();
    assert!(world.remains().is_empty());
    check_restorable(&world);
}

#[test]
fn control_records_that_cannot_be_read_are_skipped_and_told() {
    let mut world = World::new();
    for value in
        [&b"{"[..], b"\xff", br#"{"type":"of-the-future"}"#, br#"{"type":"approve-sweep","partition":"x"}"#, b""]
    {
        assert_eq!(world.broadcast(value), []);
    }
    assert_eq!(world.application.observer().events.iter().filter(|it| it.starts_with("ControlSkipped")).count(), 40);
}
