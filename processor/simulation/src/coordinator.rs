//! The transaction coordinator: transactional ids, epochs, open transactions, markers still to be written.
//!
//! Owns who may write (fencing) and when a transaction is decided. Never touches a log itself: it answers
//! which markers are due and [`crate::broker::Broker`] writes them, possibly much later than the
//! acknowledgement of the commit, as real brokers do.

use std::collections::{BTreeMap, BTreeSet};

use processor_engine::TopicPartition;

use crate::log::ProducerId;

/// A producer as the broker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Stable for the transactional id.
    pub producer: ProducerId,
    /// Grows with every initialisation; an older one is fenced.
    pub epoch: u32,
}

/// Why the coordinator refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A newer epoch exists (initialised again, or timed out).
    Fenced,
    /// No transaction is open.
    InvalidState,
    /// Markers of the same producer's previous transaction are not all written yet.
    Concurrent,
}

/// Where a marker goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarkerTarget {
    /// A partition written to.
    Partition(TopicPartition),
    /// The group's offsets.
    GroupOffsets,
}

#[derive(Debug)]
struct Open {
    since_ms: u64,
    targets: BTreeSet<MarkerTarget>,
}

#[derive(Debug)]
struct Ending {
    commit: bool,
    targets: Vec<MarkerTarget>,
}

#[derive(Debug)]
struct TransactionalId {
    identity: Identity,
    open: Option<Open>,
    ending: Option<Ending>,
}

/// All transactional ids.
#[derive(Debug, Default)]
pub struct Coordinator {
    ids: BTreeMap<String, ProducerId>,
    producers: BTreeMap<ProducerId, TransactionalId>,
}

impl Coordinator {
    /// Looks a transactional id up, creating it at first sight, and gives it a new epoch. The caller aborts
    /// what was open ([`Coordinator::end`]) and writes every marker due before it hands the identity out.
    pub fn initialise(&mut self, transactional_id: &str) -> Identity {
        let next = u64::try_from(self.producers.len()).unwrap_or(u64::MAX) + 1;
        let producer = *self.ids.entry(transactional_id.to_owned()).or_insert(next);
        let entry = self.producers.entry(producer).or_insert_with(|| TransactionalId {
            identity: Identity { producer, epoch: 0 },
            open: None,
            ending: None,
        });
        entry.identity.epoch += 1;
        entry.identity
    }

    fn checked(&mut self, identity: Identity) -> Result<&mut TransactionalId, Refusal> {
        let entry = self.producers.get_mut(&identity.producer).ok_or(Refusal::Fenced)?;
        if entry.identity.epoch == identity.epoch { Ok(entry) } else { Err(Refusal::Fenced) }
    }

    /// Adds a partition (or the group's offsets) to the open transaction, opening one if needed.
    pub fn add(&mut self, identity: Identity, target: MarkerTarget, now_ms: u64) -> Result<(), Refusal> {
        let entry = self.checked(identity)?;
        if entry.ending.is_some() {
            return Err(Refusal::Concurrent);
        }
        let open = entry.open.get_or_insert_with(|| Open { since_ms: now_ms, targets: BTreeSet::new() });
        open.targets.insert(target);
        Ok(())
    }

    /// Decides the open transaction; its markers are then due. Nothing open is no error for the broker's
    /// clients (they never ask), so it is refused.
    pub fn end(&mut self, identity: Identity, commit: bool) -> Result<(), Refusal> {
        let entry = self.checked(identity)?;
        let open = entry.open.take().ok_or(Refusal::InvalidState)?;
        entry.ending = Some(Ending { commit, targets: open.targets.into_iter().collect() });
        Ok(())
    }

    /// Whether this is the newest epoch of its producer.
    pub fn is_current(&self, identity: Identity) -> bool {
        self.producers.get(&identity.producer).is_some_and(|entry| entry.identity == identity)
    }

    /// Whether the transaction of this producer is open (not yet decided).
    pub fn is_open(&self, producer: ProducerId) -> bool {
        self.producers.get(&producer).is_some_and(|entry| entry.open.is_some())
    }

    /// Producers with an undecided transaction.
    pub fn open(&self) -> Vec<ProducerId> {
        self.producers.iter().filter(|(_, entry)| entry.open.is_some()).map(|(id, _)| *id).collect()
    }

    /// Producers whose transaction has been open since before `since_ms`.
    pub fn open_since_before(&self, since_ms: u64) -> Vec<ProducerId> {
        let old = |entry: &TransactionalId| entry.open.as_ref().is_some_and(|open| open.since_ms < since_ms);
        self.producers.iter().filter(|(_, entry)| old(entry)).map(|(id, _)| *id).collect()
    }

    /// Producers whose markers are not all written.
    pub fn ending(&self) -> Vec<ProducerId> {
        self.producers.iter().filter(|(_, entry)| entry.ending.is_some()).map(|(id, _)| *id).collect()
    }

    /// Whether nothing is undecided and no marker is due.
    pub fn is_quiet(&self) -> bool {
        self.producers.values().all(|entry| entry.open.is_none() && entry.ending.is_none())
    }

    /// Takes one due marker of a producer; `choice` picks which.
    pub fn take_marker(&mut self, producer: ProducerId, choice: usize) -> Option<(MarkerTarget, bool)> {
        let entry = self.producers.get_mut(&producer)?;
        let ending = entry.ending.as_mut()?;
        let commit = ending.commit;
        let target = (!ending.targets.is_empty()).then(|| ending.targets.swap_remove(choice % ending.targets.len()));
        if ending.targets.is_empty() {
            entry.ending = None;
        }
        target.map(|target| (target, commit))
    }

    /// The broker's timeout: aborts the open transaction and fences its producer.
    pub fn expire(&mut self, producer: ProducerId) {
        if let Some(entry) = self.producers.get_mut(&producer)
            && let Some(open) = entry.open.take()
        {
            entry.identity.epoch += 1;
            entry.ending = Some(Ending { commit: false, targets: open.targets.into_iter().collect() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialising_again_fences_the_older_producer() {
        let mut coordinator = Coordinator::default();
        let old = coordinator.initialise("a");
        coordinator.add(old, MarkerTarget::GroupOffsets, 0).unwrap();
        let new = coordinator.initialise("a");
        assert_eq!(new.producer, old.producer);
        assert_eq!(coordinator.end(old, true), Err(Refusal::Fenced));
        assert_eq!(coordinator.add(old, MarkerTarget::GroupOffsets, 0), Err(Refusal::Fenced));
    }

    #[test]
    fn markers_still_due_block_only_the_same_producer() {
        let mut coordinator = Coordinator::default();
        let (one, two) = (coordinator.initialise("a"), coordinator.initialise("b"));
        coordinator.add(one, MarkerTarget::GroupOffsets, 0).unwrap();
        coordinator.end(one, true).unwrap();
        assert_eq!(coordinator.add(one, MarkerTarget::GroupOffsets, 0), Err(Refusal::Concurrent));
        assert_eq!(coordinator.add(two, MarkerTarget::GroupOffsets, 0), Ok(()));
        assert_eq!(coordinator.take_marker(one.producer, 0), Some((MarkerTarget::GroupOffsets, true)));
        assert_eq!(coordinator.add(one, MarkerTarget::GroupOffsets, 0), Ok(()));
    }

    #[test]
    fn a_transaction_that_times_out_is_aborted_and_its_producer_fenced() {
        let mut coordinator = Coordinator::default();
        let one = coordinator.initialise("a");
        coordinator.add(one, MarkerTarget::GroupOffsets, 0).unwrap();
        coordinator.expire(one.producer);
        assert_eq!(coordinator.take_marker(one.producer, 0), Some((MarkerTarget::GroupOffsets, false)));
        assert_eq!(coordinator.end(one, true), Err(Refusal::Fenced));
    }
}
