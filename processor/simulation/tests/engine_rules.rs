//! Engine rules 5, 6 and 7, each by the one interleaving it is for, stepped by hand: with the rule taken out
//! an invariant breaks or a refusal is missing. (Rules 1 to 4 are in `rules.rs`.)
//!
//! Rule 5: the first record after a replay lands where the replay ended; state, changelog and input fit.
//! Rule 6: after an indefinite answer new producers, initialised, before offsets are read; fenced again and
//! again means stop. Rule 7: no transaction before the end of the one before it is known.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use processor_engine::mark::{CommitMetadata, Mark, NEXT_OFFSET_HEADER, SEQUENCE_HEADER};
use processor_engine::worker::{Limits, Rules};
use processor_engine::{Stop, TopicIndex, TopicPartition};
use processor_simulation::broker::Broker;
use processor_simulation::counting::{
    COUNTS, Counting, CountingScenario, INPUT, MOVEMENTS, SUMS, partitions, topology,
};
use processor_simulation::directed::{ByHand, Directed, directed};
use processor_simulation::journal::Transition;
use processor_simulation::log::StoredRecord;
use processor_simulation::scheduler::{Call, Fate};
use processor_simulation::{Counts, Faults, Random, Scenario, Setup, Simulation, Violation, run_seeds};

fn setup(count: i32, rules: Rules) -> Setup {
    Setup {
        topology: topology(),
        partitions: partitions(count, count),
        limits: Limits { purge_interval: Duration::from_secs(3_600), doubt: Duration::ZERO, ..Limits::default() },
        rules,
        faults: Faults::default(),
        instances: 1,
        workers_per_process: 1,
        steps: 0,
        until_caught_up: false,
        tolerated_stops: Vec::new(),
    }
}

fn first(topic: TopicIndex) -> TopicPartition {
    TopicPartition { topic, partition: 0 }
}

/// One worker on a cluster with one partition of everything, and what must hold for it.
struct Bench<'d, 'y> {
    directed: &'d Directed<'y>,
    scenario: CountingScenario,
    worker: ByHand<'y, Counting>,
}

impl<'d, 'y> Bench<'d, 'y> {
    fn run<T: 'static>(rules: Rules, body: impl FnOnce(&mut Bench<'_, '_>) -> T + 'static) -> T {
        directed(setup(1, rules), 1, move |directed| body(&mut Bench::new(directed))).unwrap()
    }

    fn new(directed: &'d Directed<'y>) -> Self {
        let scenario = CountingScenario::new(1, true, 0, 0);
        let worker = directed.start("worker-0", scenario.application()).unwrap();
        Self { directed, scenario, worker }
    }

    /// The process ends and is started again.
    fn restart(self) -> Self {
        let Self { directed, scenario, worker } = self;
        drop(worker);
        let worker = directed.start("worker-0", scenario.application()).unwrap();
        Self { directed, scenario, worker }
    }

    fn broker<T>(&self, act: impl FnOnce(&mut Broker) -> T) -> T {
        act(&mut self.directed.world.broker.borrow_mut())
    }

    fn give(&mut self, topic: TopicIndex, amount: i64) {
        self.scenario.give(&mut self.directed.world.broker.borrow_mut(), first(topic), b"a", amount);
    }

    /// Gives input and lets the worker do it.
    fn feed(&mut self, amount: i64) -> Result<(), Stop> {
        self.give(INPUT, amount);
        self.worker.run()
    }

    fn script(&self, script: &[(Call, Fate)]) {
        self.directed.world.script.borrow_mut().extend(script);
    }

    fn check(&mut self) -> Result<(), String> {
        assert_eq!(*self.directed.world.script.borrow(), [], "not everything scripted has happened");
        self.scenario.finish(&self.directed.world.broker.borrow())
    }
}

// ---- rule 5 ----

/// What a zombie applied for the first movement while its successor had already replayed the changelog: a
/// produce that arrives late and ends up in a later transaction of the same producer, without its offsets.
fn late_record_of_a_zombie(broker: &mut Broker, commit: bool) {
    let mark = Mark { next_offset: 1, sequence: 2 };
    let headers = [(NEXT_OFFSET_HEADER, mark.next_offset.to_string()), (SEQUENCE_HEADER, mark.sequence.to_string())];
    let record = StoredRecord {
        key: Some(b"a".to_vec()),
        value: Some(b"7,2,2".to_vec()),
        headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).to_vec(),
        timestamp_ms: 0,
    };
    let zombie = broker.initialise("zombie");
    broker.produce(zombie, first(SUMS), Rc::new(record)).unwrap();
    broker.end(zombie, commit).unwrap();
    broker.write_all_markers();
}

/// The sum of `a` is 5 in version 1 and the worker has replayed it; a movement of 2 waits, and a zombie has
/// applied it meanwhile.
fn after_a_zombies_record(rules: Rules, commit: bool) -> (Result<(), String>, Counts) {
    directed(setup(1, rules), 1, move |directed| {
        let mut bench = Bench::new(directed);
        bench.feed(5).unwrap();
        let mut bench = bench.restart();
        bench.worker.run().unwrap();
        bench.give(MOVEMENTS, 2);
        bench.broker(|broker| late_record_of_a_zombie(broker, commit));
        bench.worker.run().unwrap();
        bench.feed(1).unwrap();
        (bench.check(), bench.worker.counts())
    })
    .unwrap()
}

#[test]
fn rule_5_a_zombies_record_behind_the_replay_is_replayed_before_anything_is_committed_on_top() {
    let (sums, counts) = after_a_zombies_record(Rules::default(), true);
    assert_eq!(sums, Ok(()));
    assert_eq!(counts.aborted, 1, "committed on a state that missed the zombie's record");
}

#[test]
fn rule_5_without_it_a_zombies_record_is_overwritten_by_the_same_version_from_stale_state() {
    let (sums, counts) = after_a_zombies_record(Rules { rule5_check_restored_end: false, ..Rules::default() }, true);
    assert_eq!(sums, Err("invariant 2: version 2 of a follows 2".into()));
    assert_eq!(counts.aborted, 0);
}

#[test]
fn rule_5_a_zombies_aborted_record_costs_one_more_replay_and_nothing_else() {
    let (sums, counts) = after_a_zombies_record(Rules::default(), false);
    assert_eq!(sums, Ok(()));
    assert_eq!(counts.aborted, 1);
}

#[test]
fn rule_5_a_worker_that_nobody_interferes_with_replays_once() {
    Bench::run(Rules::default(), |bench| {
        for amount in 0..5 {
            bench.feed(amount).unwrap();
        }
        let counts = bench.worker.counts();
        assert_eq!((counts.started, counts.aborted, counts.rebuilt), (2, 0, 0));
        bench.check().unwrap();
    });
}

type Damage = fn(&mut Broker, &Directed<'_>);

fn cut(broker: &mut Broker, topic: TopicIndex) {
    broker.log_mut(first(topic)).unwrap().truncate(1);
}

/// Damages the cluster (while the worker is down, or under it) and answers the code of the stop.
fn stop_after(running: bool, damage: Damage) -> &'static str {
    directed(setup(1, Rules::default()), 1, move |directed| {
        let mut bench = Bench::new(directed);
        bench.feed(5).unwrap();
        bench.feed(2).unwrap();
        if running {
            damage(&mut directed.world.broker.borrow_mut(), directed);
        } else {
            drop(bench.worker);
            damage(&mut directed.world.broker.borrow_mut(), directed);
            bench.worker = directed.start("worker-0", bench.scenario.application()).unwrap();
        }
        bench.worker.run().map_or_else(|stop| stop.code, |()| "none")
    })
    .unwrap()
}

#[test]
fn rule_5_a_store_ahead_of_its_changelog_is_refused() {
    assert_eq!(stop_after(false, |broker, _| cut(broker, SUMS)), "CHANGELOG_SHORTER_THAN_STATE");
    assert_eq!(stop_after(false, |broker, _| cut(broker, COUNTS)), "CHANGELOG_SHORTER_THAN_STATE");
}

#[test]
fn rule_5_a_changelog_cut_under_a_running_worker_is_refused_before_anything_is_committed_on_it() {
    let code = directed(setup(1, Rules::default()), 1, |directed| {
        let mut bench = Bench::new(directed);
        bench.feed(5).unwrap();
        bench.feed(2).unwrap();
        cut(&mut directed.world.broker.borrow_mut(), SUMS);
        bench.feed(1).map_or_else(|stop| stop.code, |()| "none")
    });
    assert_eq!(code.unwrap(), "CHANGELOG_SHORTER_THAN_STATE");
}

#[test]
fn rule_5_a_changelog_cut_below_what_the_group_committed_is_refused_without_a_store_too() {
    let code = stop_after(false, |broker, directed| {
        cut(broker, SUMS);
        directed.machine.lose_everything();
    });
    assert_eq!(code, "CHANGELOG_BEHIND");
}

#[test]
fn rule_5_an_input_shorter_than_the_state_is_refused_at_the_start_and_while_running() {
    for running in [false, true] {
        assert_eq!(stop_after(running, |broker, _| cut(broker, INPUT)), "INPUT_SHORTER_THAN_STATE");
    }
}

#[test]
fn rule_5_a_recreated_topic_is_refused() {
    for running in [false, true] {
        assert_eq!(stop_after(running, |broker, _| broker.recreate(INPUT)), "INPUT_TOPIC_RECREATED");
    }
    let code = stop_after(false, |broker, directed| {
        broker.recreate(INPUT);
        for _ in 0..9 {
            broker.append(first(INPUT), Some(b"a"), Some(b"1"));
        }
        directed.machine.lose_everything();
    });
    assert_eq!(code, "INPUT_TOPIC_RECREATED", "long enough, and only the group's offsets tell");
    assert_eq!(stop_after(false, |broker, _| broker.recreate(SUMS)), "CHANGELOG_TOPIC_RECREATED");
    let code = stop_after(false, |broker, directed| {
        broker.recreate(SUMS);
        directed.machine.lose_everything();
    });
    assert_eq!(code, "CHANGELOG_BEHIND", "an empty changelog and no store are not a beginning");
}

/// What a worker says 19 virtual seconds, and then 21, after it has met a partition whose leader tells less than was
/// committed; `passes`: that leader hears meanwhile that another one was elected.
fn after_a_low_answer(topic: TopicIndex, stateless: bool, passes: bool) -> (&'static str, &'static str) {
    let mut setup = setup(1, Rules::default());
    setup.limits.doubt = Limits::default().doubt;
    directed(setup, 1, move |directed| {
        let mut bench = Bench::new(directed);
        bench.feed(5).unwrap();
        bench.feed(2).unwrap();
        drop(bench.worker);
        let whole = directed.world.broker.borrow().log(first(topic)).unwrap().clone();
        cut(&mut directed.world.broker.borrow_mut(), topic);
        if stateless {
            directed.machine.lose_everything();
        }
        bench.worker = directed.start("worker-0", bench.scenario.application()).unwrap();
        let mut outcome = |milliseconds: u64| {
            directed.world.broker.borrow_mut().now_ms += milliseconds;
            bench.worker.run().map_or_else(|stop| stop.code, |()| "none")
        };
        assert_eq!(outcome(0), "none", "one look is no verdict");
        let early = outcome(19_000);
        if passes {
            *directed.world.broker.borrow_mut().log_mut(first(topic)).unwrap() = whole;
        }
        let late = outcome(2_000);
        if passes {
            bench.feed(3).unwrap();
            bench.check().unwrap();
        }
        (early, late)
    })
    .unwrap()
}

#[test]
fn rule_5_a_low_answer_that_passes_is_waited_out_and_one_that_stays_is_the_verdict() {
    for (topic, stateless, code) in [
        (SUMS, true, "CHANGELOG_BEHIND"),
        (SUMS, false, "CHANGELOG_SHORTER_THAN_STATE"),
        (INPUT, false, "INPUT_SHORTER_THAN_STATE"),
    ] {
        assert_eq!(after_a_low_answer(topic, stateless, true), ("none", "none"), "{code}");
        assert_eq!(after_a_low_answer(topic, stateless, false), ("none", code));
    }
}

#[test]
fn rule_5_an_undamaged_cluster_is_not_refused() {
    assert_eq!(stop_after(false, |_, _| {}), "none");
    assert_eq!(stop_after(false, |_, directed| directed.machine.lose_everything()), "none");
}

// ---- rule 6 ----

/// The third transaction meets what is scripted; the second has passed the check of rule 5 already.
fn after_indefinite_answers(rules: Rules, script: &'static [(Call, Fate)]) -> Result<Vec<Transition>, String> {
    Bench::run(rules, move |bench| {
        bench.feed(5).unwrap();
        bench.feed(3).unwrap();
        let before = bench.directed.world.journal.transitions().len();
        bench.script(script);
        bench.feed(2).unwrap();
        bench.feed(1).unwrap();
        for (identity, commit) in bench.directed.world.late.take() {
            bench.broker(|broker| broker.end(identity, commit)).unwrap_err();
        }
        bench.check()?;
        Ok(bench.directed.world.journal.transitions().split_off(before))
    })
}

const COMMITTED_UNHEARD: &[(Call, Fate)] = &[(Call::Commit, Fate::ReplyLost)];
/// The batch of the second stage's store is lost, that of the first is not.
const BATCH_LOST: &[(Call, Fate)] = &[(Call::Apply, Fate::Whole), (Call::Apply, Fate::RequestLost)];
const ABORTED_UNHEARD: &[(Call, Fate)] = &[(Call::Flush, Fate::ReplyLost), (Call::Abort, Fate::ReplyLost)];
const INDEFINITE: [&[(Call, Fate)]; 5] = [
    COMMITTED_UNHEARD,
    &[(Call::Commit, Fate::RequestLost)],
    &[(Call::Commit, Fate::RequestLate)],
    ABORTED_UNHEARD,
    BATCH_LOST,
];

#[test]
fn rule_6_whatever_answer_is_lost_nothing_is_done_twice_or_lost() {
    for script in INDEFINITE {
        if let Err(violation) = after_indefinite_answers(Rules::default(), script) {
            panic!("{script:?}: {violation}");
        }
    }
}

#[test]
fn rule_6_both_producers_are_initialised_before_offsets_are_read_and_anything_is_begun() {
    use Transition::{Begun, Initialised, OffsetsRead};
    for script in INDEFINITE {
        let transitions = after_indefinite_answers(Rules::default(), script).unwrap();
        let rebuilt = transitions.iter().position(|it| *it == Initialised(0)).unwrap();
        let order = [Initialised(0), Initialised(1), OffsetsRead];
        assert_eq!(transitions[rebuilt..rebuilt + 3], order, "{script:?}: {transitions:?}");
        let begun = transitions[..rebuilt].iter().filter(|it| matches!(it, Begun(_))).count();
        assert_eq!(begun, 1, "{script:?}: another transaction was begun in doubt: {transitions:?}");
    }
}

#[test]
fn rule_6_without_it_a_commit_whose_answer_is_lost_is_done_again() {
    let rules = Rules { rule6_rebuild_on_indefinite: false, ..Rules::default() };
    let violation = after_indefinite_answers(rules, COMMITTED_UNHEARD).unwrap_err();
    assert_eq!(violation, "invariant 2: version 3 of a follows 3");
}

#[test]
fn rule_6_without_it_a_store_that_missed_its_batch_goes_on_with_stale_state() {
    let rules = Rules { rule6_rebuild_on_indefinite: false, ..Rules::default() };
    let violation = after_indefinite_answers(rules, BATCH_LOST).unwrap_err();
    assert_eq!(violation, "invariant 2: version 3 of a follows 3");
}

/// Another process takes both transactional ids before each of ten transactions, `apart` ms after each other:
/// how often the worker comes through, and how it ends.
fn fenced_every(apart: u64) -> (u32, Option<&'static str>) {
    Bench::run(Rules::default(), move |bench| {
        for round in 0..10 {
            bench.broker(|broker| {
                broker.now_ms += apart;
                broker.initialise("worker-0-0");
                broker.initialise("worker-0-1");
            });
            if let Err(stop) = bench.feed(1) {
                return (round, Some(stop.code));
            }
            bench.check().unwrap();
        }
        (10, None)
    })
}

#[test]
fn rule_6_fenced_again_and_again_the_worker_stops_although_it_commits_in_between() {
    let allowed = u32::try_from(Limits::default().max_fencings).unwrap();
    assert_eq!(fenced_every(1_000), (allowed, Some("FENCED")));
}

#[test]
fn rule_6_fenced_now_and_then_the_worker_goes_on() {
    let window = u64::try_from(Limits::default().fencing_window.as_millis()).unwrap();
    assert_eq!(fenced_every(window), (10, None));
}

#[test]
fn rule_6_of_two_workers_with_one_identity_one_stops_and_the_sums_stay_exact() {
    directed(setup(2, Rules::default()), 1, |directed| {
        let mut scenario = CountingScenario::new(2, true, 0, 0);
        let mut workers = vec![];
        for _ in 0..2 {
            workers.push(directed.start("worker-0", scenario.application()).unwrap());
        }
        let mut stopped = None;
        for round in 0..200 {
            let target = TopicPartition { topic: INPUT, partition: round % 2 };
            scenario.give(&mut directed.world.broker.borrow_mut(), target, b"a", 1);
            let index = usize::try_from(round).unwrap() % workers.len();
            if let Err(stop) = workers[index].run() {
                assert_eq!(stopped.replace(stop.code), None, "the other one has nobody to be fenced by");
                workers.remove(index);
            }
        }
        assert_eq!(stopped, Some("FENCED"));
        workers[0].run().unwrap();
        scenario.finish(&directed.world.broker.borrow()).unwrap();
    })
    .unwrap();
}

// ---- rule 7 ----

/// A commit is reported done while its `EndTxn` is still on its way, and the next transaction is committed on
/// top of it before the broker's timeout aborts the first.
fn overlapped(hasty: bool) -> (Result<(), String>, Option<String>) {
    Bench::run(Rules::default(), move |bench| {
        bench.feed(5).unwrap();
        if hasty {
            bench.script(&[(Call::Commit, Fate::AnsweredEarly)]);
        }
        bench.feed(3).unwrap();
        bench.feed(2).unwrap();
        bench.broker(|broker| {
            for producer in broker.coordinator.open() {
                broker.expire_transaction(producer);
            }
            broker.write_all_markers();
        });
        (bench.check(), bench.directed.world.journal.overlap())
    })
}

#[test]
fn rule_7_without_it_a_transaction_outlives_the_undecided_one_it_was_built_on() {
    let (sums, overlap) = overlapped(true);
    assert_eq!(sums, Err("invariant 2: version 3 of a follows 1".into()));
    assert!(overlap.unwrap().contains("before the last one had ended"));
    assert_eq!(overlapped(false), (Ok(()), None), "without the hasty client");
}

/// The counting program, and every offset the engine commits at or above the one before.
struct Offsets {
    counting: CountingScenario,
    last: BTreeMap<TopicPartition, (i64, u64)>,
}

impl Scenario for Offsets {
    type Application = Counting;

    fn application(&self) -> Counting {
        self.counting.application()
    }

    fn feed(&mut self, broker: &mut Broker, random: &mut Random) -> bool {
        self.counting.feed(broker, random)
    }

    fn observe(&mut self, broker: &Broker) -> Result<(), String> {
        for input in broker.group.inputs() {
            let Some(committed) = broker.group.committed(*input) else { continue };
            // An operator's reset carries no metadata and goes backwards by intent.
            let Some(metadata) = CommitMetadata::decode(&committed.metadata) else { continue };
            let (offset, sequence) =
                self.last.insert(*input, (committed.offset, metadata.sequence)).unwrap_or_default();
            if committed.offset < offset || metadata.sequence < sequence {
                return Err(format!("{input:?} went back from {offset} ({sequence}) to {committed:?}"));
            }
        }
        self.counting.observe(broker)
    }

    fn finish(&mut self, broker: &Broker) -> Result<(), String> {
        self.observe(broker)?;
        self.counting.finish(broker)
    }
}

#[test]
fn rule_7_no_schedule_overlaps_transactions_or_moves_the_offsets_of_two_producers_back() {
    let commits: [AtomicUsize; 2] = Default::default();
    let case = |seed: u64, trace: bool| {
        let mut random = Random::new(!seed);
        let setup = Setup {
            limits: Limits { max_records: 1 + u64::try_from(random.below(4)).unwrap(), ..Limits::default() },
            // Others go on, and the offsets are looked at, between any two calls.
            faults: Faults { suspend_per_call: 10_000, ..Faults::swarm(&mut random) },
            instances: 1 + random.below(3),
            steps: 2_500,
            until_caught_up: false,
            ..setup(2, Rules::default())
        };
        let scenario = Offsets { counting: CountingScenario::new(2, true, 80, 1), last: BTreeMap::new() };
        let simulation = Simulation::new(setup, scenario, seed, trace);
        let world = Rc::clone(simulation.world());
        let counts = simulation.run()?;
        if let Some(overlap) = world.journal.overlap() {
            return Err(Box::new(Violation { what: format!("rule 7: {overlap}"), trace: world.trace.take() }));
        }
        for transition in world.journal.transitions() {
            if let Transition::Ended { turn, commit: true } = transition {
                commits[turn].fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(counts)
    };
    let counts = run_seeds("rule 7", 0..2_000, case).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{counts:?}, committed by turn {commits:?}");
    assert!(commits.iter().all(|commits| commits.load(Ordering::Relaxed) > 1_000), "{commits:?}");
    assert!(counts.rebuilt > 100 && counts.aborted > 100, "{counts:?}");
}
