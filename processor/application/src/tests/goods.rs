//! Goods that are texts, and goods of another type than those that have state.

use processor_engine::application::Application;
use processor_engine::{Failure, StatePartition};
use schemas::{GoodId, GoodType, Movement, Scale};

use super::inputs::value;
use super::restoring::check_restorable;
use super::world::{Open, Store, Told, World, Written, movements, of, settings, source};
use crate::{Settings, StockApplication, Wiring};

fn text_goods() -> Settings {
    let mut settings = settings();
    settings.decoder.columns = settings.decoder.columns.with_goods(GoodType::Text);
    settings
}

fn text(good: &str) -> GoodId {
    GoodId::from_text(good).unwrap()
}

/// Sends an event of row `number`, whose good is this JSON.
fn sent(world: &mut World, open: &mut Open, number: u64, lsn: u64, good: &str, pieces: i64) {
    let value = String::from_utf8(value("u", "false", number, lsn, 0, pieces)).unwrap();
    let value = value.replace(r#""good_id":0,"#, &format!(r#""good_id":{good},"#));
    world.sent(open, number, value.as_bytes()).unwrap();
}

/// What remains of each good by the last of its deltas.
fn remains(world: &World) -> Vec<(GoodId, i128, u64)> {
    let mut newest = std::collections::BTreeMap::new();
    for delta in world.deltas() {
        newest.insert(delta.good_id, (delta.remains, delta.version));
    }
    newest.into_iter().map(|(good, (remains, version))| (good, remains, version)).collect()
}

#[test]
fn goods_that_are_texts_are_summed_moved_and_restored_like_integers() {
    let mut world = World::with(text_goods());
    let uuid = "78c14186-0000-4000-8000-00000000000a";
    let mut open = world.begin();
    sent(&mut world, &mut open, 1, 10, "\"2\"", 5);
    // As long in the store's key as an integer, and with what JSON escapes.
    sent(&mut world, &mut open, 2, 11, "\"bolt-m8\"", 7);
    sent(&mut world, &mut open, 3, 12, r#""M8 \"A2\"\\\n\u00e4""#, 1);
    sent(&mut world, &mut open, 4, 13, &format!("\"{uuid}\""), -4);
    world.commit(open);
    let mut open = world.begin();
    sent(&mut world, &mut open, 1, 20, "\"bolt-m8\"", 5);
    sent(&mut world, &mut open, 4, 21, &format!("\"{uuid}\""), 6);
    let written = world.commit(open);
    let uuid_delta =
        of(&written, Wiring::DEFAULT.deltas).into_iter().find(|it| it.key.as_deref() == Some(uuid.as_bytes()));
    assert_eq!(
        String::from_utf8(uuid_delta.unwrap().value.unwrap()).unwrap(),
        format!(r#"{{"good_id":"{uuid}","delta":10,"remains":6,"transactions":1,"version":2,"epoch":1001}}"#)
    );
    let mut expected =
        [(text("2"), 0, 2), (text("bolt-m8"), 12, 2), (text("M8 \"A2\"\\\nä"), 1, 1), (text(uuid), 6, 2)];
    expected.sort();
    assert_eq!(remains(&world), expected);
    check_restorable(&world);
    world.restart();
    let mut open = world.begin();
    sent(&mut world, &mut open, 2, 30, "\"bolt-m8\"", 8);
    world.commit(open);
    assert!(remains(&world).contains(&(text("bolt-m8"), 13, 3)), "{:?}", remains(&world));
}

#[test]
fn movements_of_texts_travel_under_their_own_key() {
    let mut here = World::with(text_goods());
    (0..super::world::PARTITIONS).for_each(|partition| here.stop(movements(partition)));
    let mut open = here.begin();
    sent(&mut here, &mut open, 1, 10, "\"nut\"", 5);
    let sent = of(&here.commit(open), Wiring::DEFAULT.movements);
    let [movement] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(movement.key.as_deref(), Some(&b"nut"[..]));
    assert_eq!(movement.value.as_deref(), Some(&br#"{"good_id":"nut","delta":5,"transactions":1}"#[..]));
    let mut there = World::with(text_goods());
    let mut open = there.begin();
    there.movement(&mut open, movement).unwrap();
    there.commit(open);
    assert_eq!(remains(&there), [(text("nut"), 5, 1)]);
}

#[test]
fn a_row_whose_good_is_of_the_other_type_is_set_aside_and_keeps_what_it_was() {
    for (settings, right, wrong) in
        [(settings(), "2", ["\"2\"", "\"two\"", "null"]), (text_goods(), "\"2\"", ["2", "\"\"", "2.0"])]
    {
        let mut world = World::with(settings);
        let mut open = world.begin();
        sent(&mut world, &mut open, 1, 10, right, 5);
        for (lsn, good) in (20..).zip(wrong) {
            sent(&mut world, &mut open, 1, lsn, good, 9);
        }
        let letters = of(&world.commit(open), Wiring::DEFAULT.dead_letters);
        let reasons: Vec<&[u8]> = letters.iter().map(reason).collect();
        assert_eq!(reasons, [b"good-id-invalid"; 3]);
        assert_eq!(remains(&world).iter().map(|(_, remains, _)| *remains).collect::<Vec<_>>(), [5]);
    }
}

fn reason(letter: &Written) -> &[u8] {
    letter.headers.iter().find(|(name, _)| name == "dead-letter.reason").map(|(_, value)| value.as_slice()).unwrap()
}

fn code(result: Result<(), Failure>) -> String {
    let Err(Failure::Stop(stop)) = result else { panic!("{result:?}") };
    assert!(stop.remedy.contains("--good-type"), "{}", stop.remedy);
    stop.code.to_owned()
}

#[test]
fn another_type_of_goods_than_the_state_has_is_refused() {
    for (before, after, good) in [(settings(), text_goods(), "2"), (text_goods(), settings(), "\"bolt-m8\"")] {
        let mut world = World::with(before);
        let mut open = world.begin();
        sent(&mut world, &mut open, 1, 10, good, 5);
        let written = world.commit(open);
        let delta = of(&written, Wiring::DEFAULT.deltas).first().unwrap().target.partition;
        let mut other = StockApplication::new(after, Told::default());
        let empty = Store::default();
        let mut start =
            |partition: StatePartition| other.started(partition, world.state.get(&partition).unwrap_or(&empty));
        assert_eq!(code(start(source(0))), "GOOD_TYPE_CHANGED");
        assert_eq!(code(start(movements(delta))), "GOOD_TYPE_CHANGED");
        // Where nothing is there is nothing to contradict; what others send is looked at.
        start(source(1)).unwrap();
    }
}

#[test]
fn a_movement_of_the_other_type_of_goods_is_refused() {
    let movement = Movement { good_id: text("2"), delta: 1, transactions: 1 };
    let (mut key, mut value) = (Vec::new(), Vec::new());
    movement.encode_key(&mut key);
    movement.encode(Scale::WHOLE, &mut value);
    let partition = schemas::partitioner::partition_for_good(&movement.good_id, settings().movements_partitions);
    let target = processor_engine::TopicPartition { topic: Wiring::DEFAULT.movements, partition };
    let written = Written { target, key: Some(key), value: Some(value), headers: Vec::new(), marked: false };
    let mut world = World::new();
    let mut open = world.begin();
    assert_eq!(code(world.movement(&mut open, &written)), "GOOD_TYPE_CHANGED");
}

#[test]
fn an_event_that_cannot_be_read_makes_what_is_stored_doubtful() {
    const LEFT_OUT: &str = "\"__debezium_unavailable_value\"";
    let mut world = World::with(text_goods());
    let mut open = world.begin();
    sent(&mut world, &mut open, 1, 10, "\"nut\"", 5);
    sent(&mut world, &mut open, 1, 20, LEFT_OUT, 6);
    world.commit(open);
    assert_eq!(remains(&world), [(text("nut"), 6, 1)]);
    let mut open = world.begin();
    // It may have given the row another good.
    world.sent(&mut open, 1, b"not JSON").unwrap();
    sent(&mut world, &mut open, 1, 40, LEFT_OUT, 7);
    let letters = of(&world.commit(open), Wiring::DEFAULT.dead_letters);
    let reasons: Vec<&[u8]> = letters.iter().map(reason).collect();
    assert_eq!(reasons, [&b"not-json"[..], b"unavailable-value"]);
    check_restorable(&world);
    world.restart();
    let mut open = world.begin();
    sent(&mut world, &mut open, 1, 50, LEFT_OUT, 8);
    sent(&mut world, &mut open, 1, 60, "\"bolt\"", 9);
    sent(&mut world, &mut open, 1, 70, LEFT_OUT, 10);
    let letters = of(&world.commit(open), Wiring::DEFAULT.dead_letters);
    assert_eq!(letters.len(), 1, "still in doubt after a restart, until the row is known again");
    assert_eq!(remains(&world), [(text("bolt"), 10, 1), (text("nut"), 0, 2)]);
}
