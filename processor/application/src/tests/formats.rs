//! Change events in a registry's wire format.

use std::collections::BTreeMap;
use std::sync::Arc;

use processor_engine::Failure;
use schemas::debezium::{Columns, WriterSchema};

use super::inputs::{id, key, value};
use super::world::{Told, World};
use crate::StockApplication;
use crate::registry::{SchemaMissing, Schemas};

/// Schemas by id; id 1 is a key in Avro, id 2 and 3 values in JSON.
#[derive(Debug)]
struct Known(BTreeMap<u32, Arc<WriterSchema>>);

impl Known {
    fn new() -> Self {
        let key = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}"#;
        let key = WriterSchema::avro(key, &[]).unwrap();
        let json = WriterSchema::json(&Columns::default(), "{}").unwrap();
        Self([(1, key.clone()), (2, json.clone()), (3, json), (4, key)].map(|(id, it)| (id, Arc::new(it))).into())
    }
}

impl Schemas for Known {
    fn schema(&mut self, id: u32) -> Result<Arc<WriterSchema>, SchemaMissing> {
        self.0.get(&id).cloned().ok_or(SchemaMissing::NotYetKnown)
    }
}

fn framed(schema: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, schema], payload].concat()
}

fn avro_key(schema: u8, number: u64) -> Vec<u8> {
    framed(schema, &[&[72][..], id(number).to_string().as_bytes()].concat())
}

fn code(failure: &Failure) -> &str {
    match failure {
        Failure::Stop(stop) => stop.code,
        Failure::Abort(_) => "abort",
        other => panic!("{other}"),
    }
}

fn world() -> World {
    let mut world = World::new();
    let settings = world.application.settings().clone();
    world.application = StockApplication::new(settings, Told::default()).with_registry(Box::new(Known::new()));
    for partition in world.running.clone() {
        world.start(partition);
    }
    world
}

#[test]
fn values_may_change_over_from_one_form_to_another_in_mid_partition() {
    let mut world = world();
    let mut open = world.begin();
    world.sent(&mut open, 1, &value("c", "false", 1, 10, 2, 30)).unwrap();
    world.sent(&mut open, 1, &framed(2, &value("u", "false", 1, 11, 2, 31))).unwrap();
    world.sent(&mut open, 1, &framed(3, &value("u", "false", 1, 12, 2, 32))).unwrap();
    world.sent(&mut open, 1, &value("u", "false", 1, 13, 2, 33)).unwrap();
    world.sent(&mut open, 1, &framed(2, &value("u", "false", 1, 12, 2, 99))).unwrap();
    world.commit(open);
    assert_eq!(world.remains(), BTreeMap::from([(2, 33)]), "a redelivery is one in any form");
}

#[test]
fn keys_of_avro_are_accepted_from_the_start_and_a_change_stops_with_its_code() {
    let event = |lsn| framed(2, &value("u", "false", 1, lsn, 2, 30));
    for (first, second) in [
        (avro_key(1, 1), key(1)),
        (key(1), avro_key(1, 1)),
        (avro_key(1, 1), avro_key(4, 1)),
        (avro_key(1, 1), framed(2, &key(1))),
        (framed(2, &key(1)), framed(3, &key(1))),
    ] {
        let mut world = world();
        let mut open = world.begin();
        world.event(&mut open, 0, Some(&first), Some(&event(10))).unwrap();
        world.event(&mut open, 0, Some(&first), Some(&event(11))).unwrap();
        let failure = world.event(&mut open, 0, Some(&second), Some(&event(12))).unwrap_err();
        assert_eq!(code(&failure), "KEY_ENCODING_CHANGED", "{first:?} {second:?}");
    }
}

#[test]
fn without_a_registry_a_record_of_one_stops_and_becomes_no_dead_letter() {
    let mut world = World::new();
    let mut open = world.begin();
    let failure = world.sent(&mut open, 1, &framed(2, &value("c", "false", 1, 10, 2, 30))).unwrap_err();
    assert_eq!(code(&failure), "SCHEMA_REGISTRY_MISSING");
    let failure = world.event(&mut open, 0, Some(&avro_key(1, 1)), None).unwrap_err();
    assert_eq!(code(&failure), "SCHEMA_REGISTRY_MISSING");
    world.abort(open);
    assert_eq!(world.log, []);
}

#[test]
fn a_record_whose_schema_is_not_known_yet_is_neither_applied_nor_set_aside() {
    let mut world = world();
    let mut open = world.begin();
    let failure = world.sent(&mut open, 1, &framed(9, b"{}")).unwrap_err();
    assert_eq!(code(&failure), "abort");
    world.abort(open);
    assert_eq!(world.log, []);
}
