//! Quantities with digits behind the point, and another number of digits than what is stored has.

use processor_engine::application::Application;
use processor_engine::cluster::NoHeaders;
use processor_engine::{Changes, Failure, StatePartition};
use schemas::debezium::PiecesType;
use schemas::{Movement, Scale};

use super::inputs::value;
use super::restoring::check_restorable;
use super::world::{Open, Store, Told, World, Written, movements, of, record, settings, source};
use crate::{RecordFormat, Settings, StockApplication, Wiring};

fn scale(digits: u8) -> Scale {
    Scale::try_from(digits).unwrap()
}

fn with_digits(digits: u8) -> Settings {
    let mut settings = settings();
    settings.decoder.columns = settings.decoder.columns.with_pieces(PiecesType::Number, scale(digits));
    settings
}

/// Sends an event of row `number`, whose pieces are this JSON.
fn sent(world: &mut World, open: &mut Open, number: u64, lsn: u64, good: i64, pcs: &str) {
    let value = String::from_utf8(value("u", "false", number, lsn, good, 0)).unwrap();
    world.sent(open, number, value.replace(r#""pcs":0"#, &format!(r#""pcs":{pcs}"#)).as_bytes()).unwrap();
}

fn text(record: &Written) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap()).into_owned()
}

#[test]
fn quantities_are_summed_moved_and_restored_in_units_and_written_with_their_digits() {
    for format in [RecordFormat::Json, RecordFormat::Avro { schema_id: 7 }] {
        let mut world = World::with(Settings { output: format, changelog: format, ..with_digits(3) });
        let mut open = world.begin();
        sent(&mut world, &mut open, 1, 10, 2, "0.1");
        sent(&mut world, &mut open, 2, 11, 2, "0.2");
        sent(&mut world, &mut open, 3, 12, 3, "1.0E7");
        let written = world.commit(open);
        let rows = of(&written, Wiring::DEFAULT.transactions);
        assert!(rows.iter().any(|row| text(row).contains(r#","pieces_scale":3,"#)), "{rows:?}");
        assert_eq!(world.remains(), [(2, 300), (3, 10_000_000_000)].into());
        if format == RecordFormat::Json {
            assert!(rows.iter().any(|row| text(row).contains(r#""good_id":2,"pieces":0.100,"#)), "{rows:?}");
            let deltas = of(&written, Wiring::DEFAULT.deltas);
            let delta = r#"{"good_id":2,"delta":0.300,"remains":0.300,"transactions":2,"version":1,"epoch":1001}"#;
            assert!(deltas.iter().any(|it| text(it) == delta), "{deltas:?}");
        }
        check_restorable(&world);
        world.restart();
        let mut open = world.begin();
        sent(&mut world, &mut open, 2, 20, 2, "1.875");
        world.commit(open);
        assert_eq!(world.remains(), [(2, 1_975), (3, 10_000_000_000)].into());
    }
}

#[test]
fn more_digits_than_there_are_to_be_are_set_aside_and_the_row_keeps_what_it_was() {
    let mut world = World::with(with_digits(2));
    let mut open = world.begin();
    sent(&mut world, &mut open, 1, 10, 2, "0.25");
    sent(&mut world, &mut open, 1, 20, 2, "0.125");
    let letters = of(&world.commit(open), Wiring::DEFAULT.dead_letters);
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    let header = |wanted: &str| {
        let (_, value) = letter.headers.iter().find(|(name, _)| name == wanted).unwrap();
        String::from_utf8(value.clone()).unwrap()
    };
    assert_eq!(header("dead-letter.reason"), "fractional-pcs");
    assert_eq!(header("dead-letter.detail"), "pcs is finer than --pieces-scale 2, it takes 3: 0.125");
    assert_eq!(world.remains(), [(2, 25)].into());
}

#[test]
fn movements_travel_with_their_digits_and_those_of_another_scale_are_refused() {
    let mut here = World::with(with_digits(3));
    (0..super::world::PARTITIONS).for_each(|partition| here.stop(movements(partition)));
    let mut open = here.begin();
    sent(&mut here, &mut open, 1, 10, 2, "12.5");
    let sent = of(&here.commit(open), Wiring::DEFAULT.movements);
    let [movement] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(text(movement), r#"{"good_id":2,"delta":12.500,"transactions":1}"#);
    let mut there = World::with(with_digits(3));
    let mut open = there.begin();
    there.movement(&mut open, movement).unwrap();
    there.commit(open);
    assert_eq!(there.remains(), [(2, 12_500)].into());
    for digits in [0, 2, 4] {
        let mut other = World::with(with_digits(digits));
        let mut open = other.begin();
        assert_eq!(code(other.movement(&mut open, movement)), "PIECES_SCALE_CHANGED");
    }
    let movement = Movement { good_id: 2.into(), delta: 1, transactions: 1 };
    let mut value = Vec::new();
    movement.encode(Scale::WHOLE, &mut value);
    let mut open = there.begin();
    let whole = Written { value: Some(value), ..sent[0].clone() };
    assert_eq!(code(there.movement(&mut open, &whole)), "PIECES_SCALE_CHANGED");
}

fn code(result: Result<(), Failure>) -> String {
    let Err(Failure::Stop(stop)) = result else { panic!("{result:?}") };
    assert!(stop.remedy.contains("--pieces-scale"), "{}", stop.remedy);
    stop.code.to_owned()
}

#[test]
fn another_scale_than_the_state_has_is_refused() {
    for (before, after) in [(0, 3), (3, 0), (3, 2)] {
        let mut world = World::with(with_digits(before));
        let mut open = world.begin();
        sent(&mut world, &mut open, 1, 10, 2, "5");
        let written = world.commit(open);
        let delta = of(&written, Wiring::DEFAULT.deltas).first().unwrap().target.partition;
        let mut other = StockApplication::new(with_digits(after), Told::default());
        let empty = Store::default();
        let mut start =
            |partition: StatePartition| other.started(partition, world.state.get(&partition).unwrap_or(&empty));
        assert_eq!(code(start(source(0))), "PIECES_SCALE_CHANGED");
        assert_eq!(code(start(movements(delta))), "PIECES_SCALE_CHANGED");
        // Where nothing is there is nothing to contradict; what others send is looked at.
        start(source(1)).unwrap();
    }
}

#[test]
fn changelogs_of_another_scale_are_refused_when_state_is_restored_from_them() {
    let mut world = World::with(with_digits(3));
    let mut open = world.begin();
    sent(&mut world, &mut open, 1, 10, 2, "5");
    let written = world.commit(open);
    let mut other = StockApplication::new(settings(), Told::default());
    let mut refused = 0;
    for written in &written {
        let partition = match written.target.topic {
            topic if topic == Wiring::DEFAULT.transactions => source(written.target.partition),
            _ => movements(written.target.partition),
        };
        let (key, value) = (written.key.as_deref(), written.value.as_deref());
        let record = record(written.target.topic.0, partition.partition, 5, key, value, &NoHeaders);
        if let Err(stop) = other.restore(partition, &record, &mut Changes::default()) {
            assert_eq!(stop.code, "PIECES_SCALE_CHANGED");
            assert!(stop.what.contains("offset 5"), "{}", stop.what);
            refused += 1;
        }
    }
    // The row and the sum; the partition's record is compared when the partition starts.
    assert_eq!(refused, 2);
}
