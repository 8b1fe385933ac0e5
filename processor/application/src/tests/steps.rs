//! The two steps: what one transaction writes, and where movements go.

use processor_engine::application::Application;
use processor_engine::cluster::Headers;
use processor_engine::{Failure, TopicPartition};
use schemas::debezium::Decoder;
use schemas::partitioner::partition_for_good;
use schemas::{Movement, Scale, StockDelta};

use super::inputs::{key, value};
use super::world::{World, Written, decoded, movements, of, record, settings, source};
use crate::Wiring;

const TOPICS: Wiring = Wiring::DEFAULT;

fn text(bytes: Option<&Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap().clone()).unwrap()
}

fn partition_of(good_id: i64) -> i32 {
    partition_for_good(&good_id.into(), settings().movements_partitions)
}

fn code(failure: Failure) -> &'static str {
    match failure {
        Failure::Stop(stop) => stop.code,
        other => panic!("{other}"),
    }
}

#[test]
fn an_event_becomes_a_changelog_record_the_partitions_record_and_a_stock_delta() {
    let mut world = World::new();
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 30);
    let written = world.commit(open);
    assert_eq!(written.len(), 3, "nothing through the repartition topic: {written:?}");

    let changelog = of(&written, TOPICS.transactions);
    assert_eq!(text(changelog[0].key.as_ref()), "00000000-0000-0000-0000-000000000001");
    assert_eq!(
        text(changelog[0].value.as_ref()),
        r#"{"format":1,"good_id":2,"pieces":30,"generation":0,"streaming":true,"lsn":10,"commit_lsn":null,"ts_ms":10000}"#
    );
    assert_eq!((text(changelog[1].key.as_ref()).as_str(), changelog[1].marked), ("#partition", true));

    let delta = &of(&written, TOPICS.deltas)[0];
    assert_eq!((text(delta.key.as_ref()).as_str(), delta.target.partition), ("2", partition_of(2)));
    assert_eq!(
        text(delta.value.as_ref()),
        r#"{"good_id":2,"delta":30,"remains":30,"transactions":1,"version":1,"epoch":1001}"#
    );
    assert!(delta.marked);
}

#[test]
fn movements_of_one_transaction_are_coalesced_per_good() {
    let mut world = World::new();
    let mut open = world.begin();
    for row in 1..=5 {
        world.streamed(&mut open, row, 10 + row, 2, 10);
    }
    world.streamed(&mut open, 6, 20, 3, -4);
    let written = world.commit(open);
    let deltas = of(&written, TOPICS.deltas);
    assert_eq!(deltas.len(), 2);
    assert_eq!(world.remains().into_iter().collect::<Vec<_>>(), [(2, 50), (3, -4)]);
}

#[test]
fn versions_grow_by_one_and_the_epoch_stays() {
    let mut world = World::new();
    for lsn in 1..=5 {
        let mut open = world.begin();
        world.streamed(&mut open, 1, lsn, 2, i64::try_from(lsn).unwrap());
        world.commit(open);
        world.restart();
    }
    let deltas = world.deltas();
    assert_eq!(deltas.iter().map(|it| it.version).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(deltas.iter().all(|it| it.epoch == deltas[0].epoch));
    assert_eq!(world.remains()[&2], 5);
}

#[test]
fn a_redelivery_moves_nothing_and_only_the_partitions_progress_is_written() {
    let mut world = World::new();
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 30);
    world.commit(open);
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 30);
    world.streamed(&mut open, 1, 9, 2, 99);
    let written = world.commit(open);
    assert_eq!(written.iter().map(|it| text(it.key.as_ref())).collect::<Vec<_>>(), ["#partition"]);
    assert_eq!(world.application.observer().counts.redelivered, 2);
}

#[test]
fn a_tombstone_is_counted_and_moves_the_partitions_progress() {
    let mut world = World::new();
    let mut open = world.begin();
    world.event(&mut open, 0, Some(&key(1)), None).unwrap();
    let written = world.commit(open);
    assert_eq!((written.len(), written[0].marked), (1, true));
    assert_eq!(world.application.observer().counts.tombstones, 1);
}

#[test]
fn a_movement_of_a_partition_owned_elsewhere_goes_through_the_repartition_topic() {
    let mut here = World::new();
    here.stop(movements(partition_of(2)));
    let mut open = here.begin();
    here.streamed(&mut open, 1, 10, 2, 30);
    here.streamed(&mut open, 2, 11, 2, -5);
    let written = here.commit(open);
    assert_eq!(of(&written, TOPICS.deltas), []);
    let sent = of(&written, TOPICS.movements);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].target, TopicPartition { topic: TOPICS.movements, partition: partition_of(2) });
    assert_eq!(decoded(&sent[0]), Movement { good_id: 2.into(), delta: 25, transactions: 2 });

    let mut there = World::new();
    let mut open = there.begin();
    there.movement(&mut open, &sent[0]).unwrap();
    there.commit(open);
    assert_eq!(there.remains()[&2], 25);
}

#[test]
fn movements_received_and_local_ones_of_a_good_make_one_version() {
    let mut world = World::new();
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 30);
    world.movement(&mut open, &sent(2, 5, 1)).unwrap();
    world.commit(open);
    let deltas = world.deltas();
    assert_eq!((deltas.len(), deltas[0].delta, deltas[0].transactions), (1, 35, 2));
}

#[test]
fn movements_that_cancel_out_still_leave_the_progress_in_the_changelog() {
    let mut world = World::new();
    let mut open = world.begin();
    world.movement(&mut open, &sent(2, 5, 1)).unwrap();
    world.commit(open);
    let mut open = world.begin();
    world.movement(&mut open, &sent(2, 7, 1)).unwrap();
    world.movement(&mut open, &sent(2, -7, -1)).unwrap();
    let written = world.commit(open);
    assert!(written[0].marked);
    let deltas = world.deltas();
    assert_eq!((deltas[1].delta, deltas[1].remains, deltas[1].version), (0, 5, 2));
}

#[test]
fn movements_of_different_rows_that_cancel_out_locally_write_no_delta() {
    let mut world = World::new();
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 30);
    world.deleted(&mut open, 1, 11);
    let written = world.commit(open);
    assert_eq!(of(&written, TOPICS.deltas), []);
}

#[test]
fn a_row_whose_pieces_change_sign_with_the_same_total_still_counts_rows() {
    let mut world = World::new();
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 5);
    world.streamed(&mut open, 2, 11, 2, -5);
    world.commit(open);
    let deltas = world.deltas();
    assert_eq!((deltas[0].delta, deltas[0].transactions), (0, 2));
}

fn sent(good_id: i64, delta: i128, transactions: i64) -> Written {
    let movement = Movement { good_id: good_id.into(), delta, transactions };
    let (mut key, mut value) = (Vec::new(), Vec::new());
    movement.encode_key(&mut key);
    movement.encode(Scale::WHOLE, &mut value);
    let target = TopicPartition { topic: TOPICS.movements, partition: partition_of(good_id) };
    Written { target, key: Some(key), value: Some(value), headers: Vec::new(), marked: false }
}

#[test]
fn a_movement_that_lies_in_another_goods_partition_stops_with_its_code() {
    let mut world = World::new();
    let mut open = world.begin();
    let mut misplaced = sent(2, 5, 1);
    misplaced.target.partition = (misplaced.target.partition + 1) % 10;
    assert_eq!(code(world.movement(&mut open, &misplaced).unwrap_err()), "MOVEMENT_MISPLACED");
}

#[test]
fn a_movement_that_cannot_be_read_stops_with_its_code() {
    let mut world = World::new();
    for (value, expected) in [
        (Some(b"{}".to_vec()), "RECORD_MALFORMED"),
        (Some(br#"{"format":2}"#.to_vec()), "FORMAT_NEWER"),
        (None, "RECORD_MALFORMED"),
    ] {
        let mut open = world.begin();
        let record = Written { value, ..sent(2, 5, 1) };
        assert_eq!(code(world.movement(&mut open, &record).unwrap_err()), expected);
        world.abort(open);
    }
}

#[test]
fn a_sum_beyond_its_range_stops_with_its_code() {
    let mut world = World::new();
    let mut open = world.begin();
    world.movement(&mut open, &sent(2, i128::MAX, 1)).unwrap();
    assert_eq!(code(world.movement(&mut open, &sent(2, 1, 1)).unwrap_err()), "SUM_OVERFLOW");
    world.abort(open);
    let mut open = world.begin();
    world.movement(&mut open, &sent(2, i128::MAX, 1)).unwrap();
    world.commit(open);
    let mut open = world.begin();
    world.movement(&mut open, &sent(2, 1, 1)).unwrap();
    assert_eq!(code(world.application.complete(&mut open).unwrap_err()), "SUM_OVERFLOW");
}

struct Two;

impl Headers for Two {
    fn for_each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        visit("__debezium.newkey", b"\x00\xff");
        visit("", b"");
    }
}

#[test]
fn bad_input_becomes_a_dead_letter_byte_for_byte_and_the_rest_goes_on() {
    let mut world = World::new();
    let bad: [(&[u8], &[u8], &str); 5] = [
        (&key(1), b"\xff\xfe not text", "invalid-utf8"),
        (&key(1), b"{", "not-json"),
        (b"no key", &value("c", "false", 1, 10, 2, 3), "key-not-the-id"),
        (&key(2), &value("c", "false", 1, 10, 2, 3), "key-value-disagree"),
        (&key(1), br#"{"op":"t"}"#, "truncate"),
    ];
    for (key, value, reason) in bad {
        let mut open = world.begin();
        let record = record(TOPICS.source.0, 7, 42, Some(key), Some(value), &Two);
        open.touch(source(7));
        world.application.process(&mut open, source(7), &record).unwrap();
        let written = world.commit(open);
        let letters = of(&written, TOPICS.dead_letters);
        assert_eq!(letters.len(), 1, "{reason}");
        let letter = &letters[0];
        assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(key), Some(value)));
        assert_eq!(letter.target.partition, 7 % 3);
        let headers: Vec<(&str, &[u8])> =
            letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        assert_eq!(headers[..2], [("__debezium.newkey", &b"\x00\xff"[..]), ("", b"")]);
        assert_eq!(headers[2], ("dead-letter.topic", super::world::SOURCE_TOPIC.as_bytes()));
        assert_eq!(headers[3..5], [("dead-letter.partition", &b"7"[..]), ("dead-letter.offset", b"42")]);
        assert_eq!(headers[5], ("dead-letter.reason", reason.as_bytes()));
        assert_eq!((headers[6].0, headers.len()), ("dead-letter.detail", 7));
    }
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 30);
    world.commit(open);
    assert_eq!(world.remains()[&2], 30);
}

#[test]
fn a_value_above_the_limit_becomes_a_dead_letter_and_its_row_is_marked_as_seen() {
    let mut world = World::with(crate::Settings { decoder: Decoder::new(500), ..settings() });
    let mut open = world.begin();
    let mut long = value("c", "false", 1, 10, 2, 3);
    long.extend_from_slice(&[b' '; 500]);
    world.sent(&mut open, 1, &long).unwrap();
    let written = world.commit(open);
    assert_eq!(of(&written, TOPICS.dead_letters)[0].value.as_ref(), Some(&long));
    assert_eq!(text(of(&written, TOPICS.transactions)[0].key.as_ref()), "00000000-0000-0000-0000-000000000001");
}

#[test]
fn another_form_of_record_keys_stops_with_its_code() {
    let mut world = World::new();
    let mut open = world.begin();
    world.streamed(&mut open, 1, 10, 2, 30);
    let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{}}}"#, String::from_utf8(key(1)).unwrap());
    let event = value("u", "false", 1, 11, 2, 30);
    let failure = world.event(&mut open, 0, Some(wrapped.as_bytes()), Some(&event)).unwrap_err();
    assert_eq!(code(failure), "KEY_ENCODING_CHANGED");
    world.abort(open);
    // Nothing of the aborted transaction is left: this partition has not seen a key yet.
    let mut open = world.begin();
    world.event(&mut open, 0, Some(wrapped.as_bytes()), Some(&event)).unwrap();
    world.commit(open);
}

#[test]
fn an_abort_forgets_everything_and_the_work_done_again_counts_once() {
    let mut world = World::new();
    let work = |world: &mut World| {
        let mut open = world.begin();
        world.sent(&mut open, 1, &value("r", "first", 1, 100, 2, 30)).unwrap();
        world.sent(&mut open, 2, &value("r", "last", 2, 100, 2, 12)).unwrap();
        open
    };
    let open = work(&mut world);
    world.abort(open);
    assert_eq!(world.application.partition(0).unwrap().generations().known(), []);
    let mut open = work(&mut world);
    world.application.complete(&mut open).unwrap();
    world.abort(open);
    let open = work(&mut world);
    world.commit(open);
    assert_eq!(
        world.deltas(),
        [StockDelta { good_id: 2.into(), delta: 42, remains: 42, transactions: 2, version: 1, epoch: 1003 }]
    );
    assert_eq!(world.application.partition(0).unwrap().generations().live(), 2);
    let told = &world.application.observer();
    assert_eq!((told.counts.applied, told.events.len()), (2, 1), "{:?}", told.events);
}
