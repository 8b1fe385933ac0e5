//! The counting program under arbitrary schedules: invariants 1, 2 and 3 hold with every engine rule on.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use processor_engine::worker::{Limits, Rules};
use processor_simulation::counting::{CountingScenario, partitions, topology};
use processor_simulation::{Counts, Faults, Random, Setup, Simulation, Violation, run_seeds};

fn case(seed: u64, trace: bool, workers_per_process: usize, until_caught_up: bool) -> Result<Counts, Box<Violation>> {
    let mut random = Random::new(!seed);
    let sums = 1 + i32::try_from(random.below(3)).unwrap();
    let sources = 1 + i32::try_from(random.below(3)).unwrap();
    let mut faults = Faults::swarm(&mut random);
    if workers_per_process > 1 {
        // Two workers that both hide an eviction hold each other's stores open for ever.
        faults.quiet_rejoin = 0;
    }
    let setup = Setup {
        topology: topology(),
        partitions: partitions(sources, sums),
        limits: limits(&mut random),
        rules: Rules::default(),
        faults,
        instances: 1 + random.below(3),
        workers_per_process,
        steps: 600,
        until_caught_up,
        tolerated_stops: Vec::new(),
    };
    let local = random.chance(8_000);
    let broadcasts = if random.chance(3_000) { 2 } else { 0 };
    let scenario = CountingScenario::new(sums, local, 20 + random.below(60), broadcasts);
    Simulation::new(setup, scenario, seed, trace).run()
}

fn limits(random: &mut Random) -> Limits {
    Limits {
        max_records: 1 + u64::try_from(random.below(12)).unwrap(),
        purge_interval: Duration::from_millis(200),
        restore_records: 1 + u32::try_from(random.below(20)).unwrap(),
        ..Limits::default()
    }
}

#[test]
fn sums_and_versions_are_exact_under_arbitrary_faults() {
    let counts = run_seeds("counting", 0..10_000, |seed, trace| case(seed, trace, 1, false))
        .unwrap_or_else(|violation| panic!("{violation}"));
    println!("{counts:?}");
}

#[test]
fn two_workers_of_one_process_hand_their_stores_to_each_other_under_arbitrary_faults() {
    let case = |seed, trace| case(seed, trace, 2, false);
    let counts = run_seeds("two workers", 0..10_000, case).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{counts:?}");
}

/// Each of them ends by itself. What one of them writes last may be for partitions of another one that has ended already, and
/// that nobody has been given yet.
#[test]
fn workers_that_end_once_they_have_caught_up_leave_nothing_undone() {
    let case = |seed, trace| case(seed, trace, 1, true);
    let counts = run_seeds("until caught up", 0..2_000, case).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{counts:?}");
}
