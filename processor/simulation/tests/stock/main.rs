//! The whole program without Kafka and disk: arbitrary histories of the source × arbitrary redelivery ×
//! arbitrary crash points. Invariants 1 (sums), 2 (versions) and 7 (nothing is refused that is right).

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod history;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use history::History;
use processor_application::{Settings, Silent, StockApplication, Wiring};
use processor_engine::TopicPartition;
use processor_engine::worker::{Limits, Rules};
use processor_simulation::broker::Broker;
use processor_simulation::log::Next;
use processor_simulation::{Counts, Faults, Random, Scenario, Setup, Simulation, Violation, run_seeds};
use schemas::{GoodId, GoodType, IdType, Scale, StockDelta, Topics};

const WIRING: Wiring = Wiring::DEFAULT;

struct Stock {
    source_partitions: u8,
    goods_partitions: i32,
    history: History,
    read_to: BTreeMap<i32, i64>,
    seen: BTreeMap<GoodId, StockDelta>,
}

impl Stock {
    fn see(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let delta = StockDelta::decode(key, value, self.history.scale)
            .map_err(|error| format!("unreadable stock delta: {error:?}"))?;
        let before = self.seen.get(&delta.good_id);
        let (version, remains) = before.map_or((0, 0), |before| (before.version, before.remains));
        if delta.version != version + 1 || delta.remains != remains + delta.delta {
            return Err(format!("invariant 2: {delta:?} follows {before:?}"));
        }
        if before.is_some_and(|before| before.epoch != delta.epoch) {
            return Err(format!("the epoch changed although nothing was rebuilt: {delta:?} follows {before:?}"));
        }
        self.seen.insert(delta.good_id.clone(), delta);
        Ok(())
    }
}

impl Scenario for Stock {
    type Application = StockApplication<Silent>;

    fn application(&self) -> Self::Application {
        let goods = NonZeroU32::new(u32::try_from(self.goods_partitions).unwrap()).unwrap();
        let sources = NonZeroU32::new(self.source_partitions.into()).unwrap();
        let mut settings = Settings::new("warehouse.orders.transactions", sources, goods, NonZeroU32::MIN);
        settings.decoder.columns = self.history.columns();
        StockApplication::new(settings, Silent)
    }

    fn feed(&mut self, broker: &mut Broker, random: &mut Random) -> bool {
        self.history.go_on(broker, random)
    }

    fn observe(&mut self, broker: &Broker) -> Result<(), String> {
        for partition in 0..self.goods_partitions {
            let log = broker.log(TopicPartition { topic: WIRING.deltas, partition }).ok_or("no output")?;
            loop {
                let position = self.read_to.get(&partition).copied().unwrap_or(0);
                match log.next_committed(position) {
                    Next::Record(offset, record) => {
                        self.read_to.insert(partition, offset + 1);
                        let (key, value) = (record.key.as_deref(), record.value.as_deref());
                        if !key.is_some_and(|key| key.starts_with(b"#")) {
                            self.see(key.unwrap_or_default(), value.unwrap_or_default())?;
                        }
                    }
                    Next::End(end) => {
                        self.read_to.insert(partition, end);
                        break;
                    }
                    Next::Truncated | Next::Beyond => return Err("the output lost records".into()),
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, broker: &Broker) -> Result<(), String> {
        self.observe(broker)?;
        let mut expected = BTreeMap::<GoodId, (i128, i64)>::new();
        for (good, pieces) in self.history.truth.values() {
            let (remains, rows) = expected.entry(self.history.good(*good)).or_default();
            *remains += i128::from(*pieces);
            *rows += 1;
        }
        let live = self.seen.values().filter(|delta| (delta.remains, delta.transactions) != (0, 0));
        let remains: BTreeMap<_, _> =
            live.map(|delta| (delta.good_id.clone(), (delta.remains, delta.transactions))).collect();
        if remains != expected {
            return Err(format!("invariant 1: remains and rows {remains:?}, expected {expected:?}"));
        }
        let dead_letters = broker.log(TopicPartition { topic: WIRING.dead_letters, partition: 0 });
        match dead_letters.map(|log| log.committed().count()) {
            Some(0) => Ok(()),
            other => Err(format!("{other:?} dead letters of a source that did nothing wrong")),
        }
    }
}

fn case(seed: u64, trace: bool) -> Result<Counts, Box<Violation>> {
    let mut random = Random::new(!seed);
    let sources = 1 + u8::try_from(random.below(3)).unwrap();
    let goods_partitions = 1 + i32::try_from(random.below(2)).unwrap();
    let topics = Topics::new("warehouse.stock").unwrap();
    let setup = Setup {
        topology: Wiring::topology("warehouse.orders.transactions", &topics, false),
        partitions: vec![
            (WIRING.source, sources.into()),
            (WIRING.transactions, sources.into()),
            (WIRING.movements, goods_partitions),
            (WIRING.deltas, goods_partitions),
        ],
        limits: Limits {
            max_records: 1 + u64::try_from(random.below(12)).unwrap(),
            purge_interval: Duration::from_millis(500),
            ..Limits::default()
        },
        rules: Rules::default(),
        faults: Faults::swarm(&mut random),
        instances: 1 + random.below(3),
        workers_per_process: 1,
        steps: 500,
        until_caught_up: false,
        tolerated_stops: Vec::new(),
    };
    let good_type = if seed % 4 == 3 { GoodType::Text } else { GoodType::Integer };
    let id_type = if seed % 3 == 2 { IdType::Key } else { IdType::Uuid };
    let scale = Scale::try_from(if seed % 8 < 6 { 0 } else { 3 }).unwrap();
    let history = History::new(WIRING.source, sources, 1 + random.below(40), good_type, id_type, scale);
    let scenario = Stock {
        source_partitions: sources,
        goods_partitions,
        history,
        read_to: BTreeMap::new(),
        seen: BTreeMap::new(),
    };
    Simulation::new(setup, scenario, seed, trace).run()
}

#[test]
fn remains_are_exact_for_arbitrary_histories_redelivery_and_crash_points() {
    let counts = run_seeds("stock", 0..10_000, case).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{counts:?}");
}
