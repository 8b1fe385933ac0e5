//! What a run is given and what it tells.
//!
//! Owns the trait of a scenario, the settings of a run, its counts and its violation. Does nothing itself.

use processor_engine::worker::{Limits, Rules};
use processor_engine::{Application, TopicIndex, Topology};

use crate::broker::Broker;
use crate::scheduler::{Faults, Random};

/// What is run, and what must hold.
pub trait Scenario {
    /// The stream program.
    type Application: Application + 'static;

    /// Builds the program for one worker.
    fn application(&self) -> Self::Application;

    /// Writes some input, now and then; `false` when there is no more.
    fn feed(&mut self, broker: &mut Broker, random: &mut Random) -> bool;

    /// Looks after every step; an error ends the run.
    fn observe(&mut self, broker: &Broker) -> Result<(), String>;

    /// Looks when everything has settled.
    fn finish(&mut self, broker: &Broker) -> Result<(), String>;
}

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Topics and stages.
    pub topology: Topology,
    /// Partition counts.
    pub partitions: Vec<(TopicIndex, i32)>,
    /// Limits of the workers.
    pub limits: Limits,
    /// Engine rules; all on unless a test shows what one of them is for.
    pub rules: Rules,
    /// Rates of the faults.
    pub faults: Faults,
    /// Number of instances.
    pub instances: usize,
    /// Instances to a process (they share its fate and its store).
    pub workers_per_process: usize,
    /// Steps with faults.
    pub steps: u64,
    /// Whether workers end once they find nothing left to do, after the last fault; then they are not started again.
    pub until_caught_up: bool,
    /// Codes of stops that end a worker without being a violation: it is started again, and counted.
    pub tolerated_stops: Vec<&'static str>,
}

/// How often what the model is for has happened; a run that never gets there proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Scheduler steps.
    pub steps: u64,
    /// Transactions committed.
    pub committed: u64,
    /// Transactions aborted.
    pub aborted: u64,
    /// Producers rebuilt.
    pub rebuilt: u64,
    /// Kept partitions that others had moved on.
    pub overtaken: u64,
    /// Partitions lost without a chance to commit.
    pub lost: u64,
    /// Partitions restored and started.
    pub started: u64,
    /// Changelog records replayed.
    pub replayed: u64,
    /// Processes killed.
    pub crashes: u64,
    /// Live members counted out.
    pub evictions: u64,
    /// Workers that ended by themselves (fenced again and again, no start possible) and were started again.
    pub exits: u64,
    /// Tolerated coded stops among them.
    pub tolerated: u64,
}

impl Counts {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.rebuilt += other.rebuilt;
        self.overtaken += other.overtaken;
        self.lost += other.lost;
        self.started += other.started;
        self.replayed += other.replayed;
        self.crashes += other.crashes;
        self.evictions += other.evictions;
        self.exits += other.exits;
        self.tolerated += other.tolerated;
    }
}

/// What broke, with the last lines of what happened when a trace was asked for.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The invariant and the figures.
    pub what: String,
    /// Trace, oldest line first.
    pub trace: Vec<String>,
}
