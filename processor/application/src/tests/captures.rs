//! The captures through the whole program: exact sums, versions without gap or repeat, whoever owns the movements.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::restoring::check_restorable;
use super::world::{World, Written, movements, of};
use crate::Wiring;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/");

struct Line {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

fn log(name: &str) -> Vec<Line> {
    let bytes =
        std::fs::read(format!("{DATA}{name}.jsonl")).or_else(|_| std::fs::read(format!("{DATA}{name}.jsonl.gz")));
    let bytes = bytes.unwrap();
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().map(|text| text.as_bytes().to_vec());
        Line {
            partition: i32::try_from(line["partition"].as_i64().unwrap()).unwrap(),
            key: text("key"),
            value: text("value"),
        }
    };
    text.lines().map(line).collect()
}

fn expected(name: &str) -> BTreeMap<i64, i128> {
    let text = std::fs::read_to_string(format!("{DATA}{name}.expected.csv")).unwrap();
    let pair = |line: &str| line.split_once(',').map(|(good, sum)| (good.parse().unwrap(), sum.parse().unwrap()));
    text.lines().filter_map(pair).collect()
}

/// Handles everything announced so far, as after reading to the end of the input.
fn settle(world: &mut World) {
    let announced: Vec<Written> = of(&world.log, Wiring::DEFAULT.control);
    for record in announced {
        world.broadcast(record.value.as_ref().unwrap());
        world.background();
    }
    deliver(world);
}

/// Reads what lies in the movements topic, as far as its partitions are run here.
fn deliver(world: &mut World) {
    let waiting = of(&world.log, Wiring::DEFAULT.movements);
    world.log.retain(|record| record.target.topic != Wiring::DEFAULT.movements);
    let mut open = world.begin();
    for record in &waiting {
        if world.running.contains(&movements(record.target.partition)) {
            world.movement(&mut open, record).unwrap();
        } else {
            world.log.push(record.clone());
        }
    }
    world.commit(open);
}

const EXACT: [&str; 7] = [
    "debezium-capture/history",
    "debezium-capture/history-concurrent",
    "debezium-capture/straddling-transaction",
    "crafted/blocking-snapshot-cut-short",
    "crafted/incremental-then-straddling",
    "crafted/late-batch-of-an-older-snapshot",
    "crafted/snapshot-without-a-row-here",
];

#[test]
fn every_capture_ends_exact_with_all_movements_local() {
    for name in EXACT {
        let mut world = World::new();
        for lines in log(name).chunks(500) {
            let mut open = world.begin();
            for line in lines {
                world.event(&mut open, line.partition, line.key.as_deref(), line.value.as_deref()).unwrap();
            }
            world.commit(open);
        }
        settle(&mut world);
        assert_eq!(world.remains(), expected(name), "{name}");
        assert_eq!(world.application.observer().counts.repartitioned_movements, 0);
        check_restorable(&world);
    }
}

#[test]
fn every_capture_ends_exact_while_movements_partitions_come_and_go_and_transactions_abort() {
    for name in EXACT {
        let mut world = World::new();
        let log = log(name);
        for (turn, lines) in log.chunks(97).enumerate() {
            let number = i32::try_from(turn % 10).unwrap();
            if world.running.contains(&movements(number)) {
                world.stop(movements(number));
            } else {
                world.start(movements(number));
            }
            for again in [true, false] {
                let mut open = world.begin();
                for line in lines {
                    world.event(&mut open, line.partition, line.key.as_deref(), line.value.as_deref()).unwrap();
                }
                if again && turn % 3 == 0 {
                    world.abort(open);
                } else {
                    world.commit(open);
                    break;
                }
            }
            if turn % 7 == 0 {
                deliver(&mut world);
            }
            if turn % 11 == 0 {
                world.restart();
            }
        }
        for partition in 0..10 {
            if !world.running.contains(&movements(partition)) {
                world.start(movements(partition));
            }
        }
        settle(&mut world);
        assert_eq!(world.remains(), expected(name), "{name}");
        check_restorable(&world);
    }
}
