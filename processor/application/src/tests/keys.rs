//! Ids that are whole record keys, and ids of another kind than those that have state.

use processor_core::ChunkLimits;
use processor_engine::application::Application;
use processor_engine::{Failure, StatePartition};
use schemas::IdType;
use schemas::debezium::{Columns, Names};

use super::inputs::{id, value};
use super::restoring::check_restorable;
use super::world::{Open, Store, Told, World, of, settings, source};
use crate::{Settings, StockApplication, Wiring};

/// A kind of ids: the columns, and what stands in them, as JSON, in the row of a number.
type Kind = (&'static [&'static str], fn(u64) -> String);

const INTEGERS: Kind = (&["id"], |number| format!(r#""id":{number}"#));
/// As long in the store as a uuid, some of them.
const TEXTS: Kind = (&["id"], |number| format!(r#""id":"{}-{number}""#, "x".repeat(10)));
const SEVERAL: Kind = (&["shop", "line"], |number| format!(r#""shop":{},"line":"A-{number}""#, number % 3));

fn keyed((columns, _): Kind) -> Settings {
    let mut settings = settings();
    let id = columns.iter().map(|column| (*column).to_owned()).collect();
    settings.decoder.columns = Columns::new(Names { id, id_type: IdType::Key, ..Names::default() }).unwrap();
    Settings { sweep_chunk: ChunkLimits { scanned: 7, changed: 4 }, ..settings }
}

/// An event of row `number`.
#[allow(clippy::too_many_arguments, reason = "an event in one line")]
fn sent(
    world: &mut World,
    open: &mut Open,
    (_, row): Kind,
    op: &str,
    snapshot: &str,
    number: u64,
    lsn: u64,
    pieces: i64,
) {
    let value = String::from_utf8(value(op, snapshot, number, lsn, 2, pieces)).unwrap();
    let value = value.replace(&format!(r#""id":"{}""#, id(number)), &row(number));
    world.event(open, 0, Some(format!("{{{}}}", row(number)).as_bytes()), Some(value.as_bytes())).unwrap();
}

#[test]
fn rows_under_any_key_are_counted_recognised_changed_deleted_and_restored() {
    for kind in [INTEGERS, TEXTS, SEVERAL] {
        let mut world = World::with(keyed(kind));
        let mut open = world.begin();
        for number in 1..=20 {
            sent(&mut world, &mut open, kind, "c", "false", number, number, 1);
        }
        world.commit(open);
        world.restart();
        let mut open = world.begin();
        // Again, changed, deleted, and a changed key: a delete and an insert of one lsn.
        sent(&mut world, &mut open, kind, "c", "false", 7, 7, 1);
        sent(&mut world, &mut open, kind, "u", "false", 8, 30, 5);
        sent(&mut world, &mut open, kind, "d", "false", 9, 31, 0);
        sent(&mut world, &mut open, kind, "d", "false", 10, 32, 0);
        sent(&mut world, &mut open, kind, "c", "false", 100, 32, 1);
        let written = world.commit(open);
        assert_eq!(world.remains()[&2], 20 + 4 - 1);
        check_restorable(&world);
        assert!(of(&written, Wiring::DEFAULT.dead_letters).is_empty());
        let keys: Vec<String> = of(&written, Wiring::DEFAULT.transactions)
            .into_iter()
            .map(|record| String::from_utf8(record.key.unwrap()).unwrap())
            .collect();
        let expected = match kind.0 {
            [_, _] => [r#"[2,"A-8"]"#, r#"[0,"A-9"]"#, r#"[1,"A-10"]"#, r#"[1,"A-100"]"#, "#partition"],
            _ if kind.1(8).contains('x') => {
                [r#""xxxxxxxxxx-8""#, r#""xxxxxxxxxx-9""#, r#""xxxxxxxxxx-10""#, r#""xxxxxxxxxx-100""#, "#partition"]
            }
            _ => ["8", "9", "10", "100", "#partition"],
        };
        assert_eq!(keys, expected);
    }
}

#[test]
fn a_sweep_of_rows_under_any_key_goes_on_where_it_was() {
    for kind in [INTEGERS, TEXTS, SEVERAL] {
        let mut world = World::with(keyed(kind));
        let mut open = world.begin();
        for number in 1..=200 {
            sent(&mut world, &mut open, kind, "c", "false", number, number, 1);
        }
        world.commit(open);
        let mut open = world.begin();
        for number in (1..=200).filter(|number| number % 9 == 0) {
            let marker = if number == 198 { "last" } else { "true" };
            sent(&mut world, &mut open, kind, "r", marker, number, 1_000, 1);
        }
        let written = world.commit(open);
        let announcement = of(&written, Wiring::DEFAULT.control).pop().unwrap().value.unwrap();
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
        assert_eq!(world.remains()[&2], 22);
        // And the partition's own record.
        assert_eq!(world.state[&source(0)].0.len(), 23);
        check_restorable(&world);
    }
}

#[test]
fn a_key_of_other_columns_is_set_aside() {
    let mut world = World::with(keyed(SEVERAL));
    let mut open = world.begin();
    for key in [&br#"{"shop":1}"#[..], br#"{"shop":1,"line":"A","x":1}"#, br#"{"shop":1.5,"line":"A"}"#] {
        world.event(&mut open, 0, Some(key), Some(&value("c", "false", 1, 10, 2, 1))).unwrap();
    }
    let letters = of(&world.commit(open), Wiring::DEFAULT.dead_letters);
    let reason = |name: &str, value: &[u8]| name == "dead-letter.reason" && value == b"key-not-the-id";
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|letter| letter.headers.iter().any(|(name, value)| reason(name, value))));
}

#[test]
fn other_ids_than_the_state_has_are_refused() {
    const REVERSED: Kind = (&["line", "shop"], |_| String::new());
    let uuids = || Settings { sweep_chunk: ChunkLimits { scanned: 7, changed: 4 }, ..settings() };
    let all = [uuids(), keyed(INTEGERS), keyed(SEVERAL), keyed(REVERSED)];
    for (before, kind) in [(uuids(), None), (keyed(INTEGERS), Some(INTEGERS)), (keyed(SEVERAL), Some(SEVERAL))] {
        let mut world = World::with(before.clone());
        let mut open = world.begin();
        match kind {
            None => world.streamed(&mut open, 1, 10, 2, 5),
            Some(kind) => sent(&mut world, &mut open, kind, "c", "false", 1, 10, 5),
        }
        world.commit(open);
        for after in &all {
            let mut other = StockApplication::new(after.clone(), Told::default());
            let empty = Store::default();
            let mut start =
                |partition: StatePartition| other.started(partition, world.state.get(&partition).unwrap_or(&empty));
            match start(source(0)) {
                Ok(()) => assert_eq!(*after, before),
                Err(Failure::Stop(stop)) => {
                    assert_ne!(*after, before);
                    assert_eq!(stop.code, "ID_TYPE_CHANGED");
                    assert!(stop.remedy.contains("--id-type"), "{}", stop.remedy);
                }
                Err(other) => panic!("{other:?}"),
            }
            start(source(1)).unwrap();
        }
    }
}
