//! Everything random, from one seed: which worker goes on, what fails, what is late.
//!
//! Owns the random numbers, the rates of the faults and the trace that is printed for a failing seed. No
//! clock, no thread, no global: the same seed gives the same run on every machine.

use std::cell::RefCell;
use std::collections::VecDeque;

/// Lines of the trace kept for printing.
const TRACE_LINES: usize = 1_000_000;

/// Seeded random numbers.
#[derive(Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    /// Starts from a seed. Neighbouring seeds give unrelated runs.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)))
    }

    /// A number below `bound` (0 for a bound of 0).
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.usize(0..bound) }
    }

    /// A number from `low` up to and including `high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        self.0.i64(low..=high)
    }

    /// True in `rate` of 10,000 cases.
    pub fn chance(&mut self, rate: u32) -> bool {
        rate > 0 && self.0.u32(0..10_000) < rate
    }

    /// One of the choices.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        choices.get(self.below(choices.len())).copied()
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }
}

/// How often each fault strikes, of 10,000 scheduler steps (of 10,000 calls where it says so).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Calls before which a worker is suspended; while it is, it is a zombie to be.
    pub suspend_per_call: u32,
    /// Calls whose request or reply is lost.
    pub lost_per_call: u32,
    /// Process killed (`kill -9`).
    pub crash: u32,
    /// Of the crashes: power cuts that take back unsynced batches of the store.
    pub crash_loses_newest: u32,
    /// Of the crashes: the disk is lost.
    pub crash_loses_disk: u32,
    /// Members counted out although they live.
    pub evict: u32,
    /// Of the consumers: those that hide an eviction from the application.
    pub quiet_rejoin: u32,
    /// Transactions timed out by the broker.
    pub expire: u32,
    /// Processes that leave in good order.
    pub leave: u32,
    /// Changelogs compacted.
    pub compact: u32,
    /// Decided transactions whose markers come late.
    pub late_markers: u32,
    /// Steps that suspend one worker for long, while its client goes on in the background.
    pub freeze: u32,
    /// Steps that stop a whole process for longer than its session, and let it go on afterwards: a zombie.
    pub stall: u32,
    /// The call before which a process must stand to be stopped; any place when `None`.
    pub stall_at: Option<Call>,
}

impl Faults {
    /// Nothing fails; workers still interleave.
    pub fn none() -> Self {
        Self { suspend_per_call: 2_000, late_markers: 2_000, ..Self::default() }
    }

    /// Each fault at a rate of its own, often none at all: runs in which one thing happens often find what
    /// runs in which everything happens a little do not.
    pub fn swarm(random: &mut Random) -> Self {
        let mut rate = |rates: &[u32]| random.pick(rates).unwrap_or(0);
        Self {
            suspend_per_call: rate(&[300, 1_000, 3_000, 10_000]),
            lost_per_call: rate(&[0, 0, 10, 50, 150]),
            crash: rate(&[0, 10, 30, 100]),
            crash_loses_newest: rate(&[0, 3_000]),
            crash_loses_disk: rate(&[0, 0, 2_000]),
            evict: rate(&[0, 0, 20, 100]),
            quiet_rejoin: rate(&[0, 0, 5_000, 10_000]),
            expire: rate(&[0, 0, 10, 50]),
            leave: rate(&[0, 0, 20, 50]),
            compact: rate(&[0, 0, 30]),
            late_markers: rate(&[0, 5_000, 10_000]),
            freeze: rate(&[0, 20, 100]),
            stall: rate(&[0, 0, 20, 80]),
            stall_at: None,
        }
    }
}

/// A call of the engine that talks to the cluster or the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Consumer poll.
    Poll,
    /// A local call of the consumer.
    Consumer,
    /// Stable committed offsets.
    Committed,
    /// Producer initialisation.
    Initialise,
    /// Records on their way to the brokers.
    Produce,
    /// Offsets into the transaction.
    SendOffsets,
    /// Waiting for delivery reports.
    Flush,
    /// EndTxn, commit.
    Commit,
    /// EndTxn, abort.
    Abort,
    /// Changelog reader poll.
    Read,
    /// Questions about topics.
    Describe,
    /// Deleting records.
    Delete,
    /// A batch of the store.
    Apply,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It does what it should.
    Whole,
    /// The request never arrives.
    RequestLost,
    /// The request never arrives in time: its effect comes later, if the broker still takes it.
    RequestLate,
    /// It has its effect, and the caller never hears of it.
    ReplyLost,
    /// Never by chance: a commit reported before it is decided, as a client that overlaps transactions would.
    /// Its effect comes later, if the broker still takes it.
    AnsweredEarly,
}

/// The last lines of what happened, kept only when asked for.
#[derive(Debug)]
pub struct Trace(Option<RefCell<VecDeque<String>>>);

impl Trace {
    /// Keeps lines only when `on`: formatting them costs more than the run itself.
    pub fn new(on: bool) -> Self {
        Self(on.then(RefCell::default))
    }

    /// Adds a line.
    pub fn line(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            let mut lines = lines.borrow_mut();
            if lines.len() == TRACE_LINES {
                lines.pop_front();
            }
            lines.push_back(line());
        }
    }

    /// Takes the lines out.
    pub fn take(&self) -> Vec<String> {
        self.0.as_ref().map_or_else(Vec::new, |lines| lines.borrow_mut().drain(..).collect())
    }
}
