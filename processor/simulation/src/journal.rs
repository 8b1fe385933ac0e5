//! What producers did in order, and when stable offsets were read.
//!
//! Guards engine rules 6 and 7 from the outside: the engine is not asked whether it overlaps transactions,
//! its clients are. Never decides anything; a test asks [`Journal::overlap`] when a run is over.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::world::Process;

/// Producers a worker uses in turn.
const PRODUCERS: usize = 2;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The producer of this turn was built and initialised: whatever it had left open is resolved.
    Initialised(usize),
    /// Stable committed offsets were answered.
    OffsetsRead,
    /// The producer of this turn began a transaction.
    Begun(usize),
    /// The coordinator has decided, and the producer of this turn has heard of it.
    Ended {
        /// Which producer.
        turn: usize,
        /// Committed or aborted.
        commit: bool,
    },
}

/// All entries of a run, oldest first.
#[derive(Debug, Default)]
pub struct Journal(RefCell<Vec<(Rc<Process>, Transition)>>);

/// What is known of one process's last transaction.
#[derive(Debug, Default)]
struct Knowledge {
    /// How the last transaction ended. At first a predecessor's may be open.
    outcome_known: bool,
    /// Producers initialised since the last transaction began.
    initialised: BTreeSet<usize>,
}

impl Journal {
    pub(crate) fn note(&self, process: &Rc<Process>, transition: Transition) {
        self.0.borrow_mut().push((Rc::clone(process), transition));
    }

    /// Everything noted so far, whichever process did it.
    pub fn transitions(&self) -> Vec<Transition> {
        self.0.borrow().iter().map(|(_, transition)| *transition).collect()
    }

    /// The first transaction that was begun before its process knew how the one before it ended: by an
    /// acknowledged end, or by both producers being initialised (one alone does not resolve the other).
    pub fn overlap(&self) -> Option<String> {
        let mut processes = BTreeMap::<String, Knowledge>::new();
        for (index, (process, transition)) in self.0.borrow().iter().enumerate() {
            let known = processes.entry(process.name.clone()).or_default();
            match transition {
                Transition::Initialised(turn) => {
                    known.initialised.insert(*turn);
                    known.outcome_known |= known.initialised.len() == PRODUCERS;
                }
                Transition::Begun(_) if !known.outcome_known => {
                    return Some(format!("entry {index}: {process} {transition:?} before the last one had ended"));
                }
                Transition::Begun(_) => *known = Knowledge::default(),
                Transition::Ended { .. } => known.outcome_known = true,
                Transition::OffsetsRead => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {

    use super::Transition::{Begun, Ended, Initialised};
    use super::*;

    fn overlaps(transitions: &[Transition]) -> bool {
        let process = Rc::new(Process::new("worker-0/1".into()));
        let journal = Journal::default();
        for transition in transitions {
            journal.note(&process, *transition);
        }
        journal.overlap().is_some()
    }

    #[test]
    fn a_transaction_may_follow_an_acknowledged_end_or_two_initialised_producers() {
        let ended = Ended { turn: 0, commit: true };
        assert!(!overlaps(&[Initialised(0), Initialised(1), Begun(0), ended, Begun(1)]));
        assert!(!overlaps(&[Initialised(0), Initialised(1), Begun(0), Initialised(0), Initialised(1), Begun(0)]));
    }

    #[test]
    fn a_transaction_begun_in_doubt_about_the_last_one_is_an_overlap() {
        assert!(overlaps(&[Initialised(0), Begun(0)]), "a predecessor may have left the other id open");
        assert!(overlaps(&[Initialised(0), Initialised(1), Begun(0), Begun(1)]));
        assert!(overlaps(&[Initialised(0), Initialised(1), Begun(0), Initialised(1), Begun(1)]));
    }
}
