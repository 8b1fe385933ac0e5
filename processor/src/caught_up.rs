//! When a process that runs until it has caught up may end: all its workers have nothing left to do, together.
//!
//! One worker's last transaction may hold movements for another that had nothing to do a moment before. So the workers
//! agree in rounds: only a round that begins after everybody had nothing to do, and in which nobody did anything,
//! proves it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often an idle worker asks the brokers whether it has read everything.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What the workers of a process agree on.
#[derive(Debug)]
pub(crate) struct Rounds {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Workers that found nothing to do in this round.
    done: Vec<bool>,
    /// Whether anybody did anything since this round began.
    worked: bool,
}

impl Rounds {
    /// For this many workers.
    pub(crate) fn new(workers: u16) -> Self {
        Self { state: Mutex::new(State { done: vec![false; usize::from(workers)], worked: true }) }
    }

    /// A worker did something.
    fn worked(&self, worker: u16) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.worked = true;
        if let Some(done) = state.done.get_mut(usize::from(worker)) {
            *done = false;
        }
    }

    /// A worker has nothing left to do; `true` when that is so of all of them for good.
    fn done(&self, worker: u16) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = state.done.get_mut(usize::from(worker)) {
            *done = true;
        }
        if !state.done.iter().all(|done| *done) {
            return false;
        }
        if !state.worked {
            return true;
        }
        state.worked = false;
        state.done.fill(false);
        false
    }
}

/// One worker's side of it.
#[derive(Debug)]
pub(crate) struct CaughtUp<'a> {
    rounds: &'a Rounds,
    worker: u16,
    asked: Instant,
}

impl<'a> CaughtUp<'a> {
    /// For the worker of this number.
    pub(crate) fn new(rounds: &'a Rounds, worker: u16) -> Self {
        Self { rounds, worker, asked: Instant::now() }
    }

    /// Looks after a step: `idle` tells whether it found nothing to do, `is_drained` asks the brokers. `true` when the
    /// process may end.
    pub(crate) fn look<E>(&mut self, idle: bool, is_drained: impl FnOnce() -> Result<bool, E>) -> Result<bool, E> {
        if !idle {
            self.rounds.worked(self.worker);
            return Ok(false);
        }
        if self.asked.elapsed() < ASK_EVERY {
            return Ok(false);
        }
        let drained = is_drained();
        self.asked = Instant::now();
        Ok(drained? && self.rounds.done(self.worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_needs_a_whole_round_without_work() {
        let rounds = Rounds::new(1);
        assert!(!rounds.done(0), "it may have worked since it started");
        assert!(rounds.done(0));
    }

    #[test]
    fn work_of_one_makes_the_others_look_again() {
        let rounds = Rounds::new(2);
        assert!(!rounds.done(0));
        // The second worker's last transaction holds something for the first.
        rounds.worked(1);
        assert!(!rounds.done(1), "the first has to look again");
        rounds.worked(0);
        assert!(!rounds.done(1));
        assert!(!rounds.done(0));
        assert!(!rounds.done(0));
        assert!(rounds.done(1));
    }
}
