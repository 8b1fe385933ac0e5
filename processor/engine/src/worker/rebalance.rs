//! How partitions come and go.
//!
//! Guards engine rules 3 and 4: before anything is given up, every transaction has a known outcome and is
//! whole; at every rebalance the stable offsets of the partitions kept are read again, because a member
//! that slept through an eviction may hold state that others have moved on.

use super::Worker;
use super::commit::escalate;
use super::owned::{Owned, Phase};
use crate::application::Application;
use crate::cluster::{Cluster, GroupConsumer, LogReader, Rebalance};
use crate::failure::Failure;
use crate::observer::{Event, Observer};
use crate::store::StateStore;
use crate::topology::{StatePartition, TopicPartition};

impl<C: Cluster, S: StateStore, A: Application, O: Observer> Worker<C, S, A, O> {
    /// Answers the group protocol.
    pub(super) fn rebalance(&mut self, rebalance: Rebalance) -> Result<(), Failure> {
        self.observer.observe(&Event::Rebalanced);
        match rebalance {
            Rebalance::Assign(inputs) => {
                // Follows every revoke, and what was revoked goes to its new owner only when it is answered: this
                // is rule 3 once more.
                if self.rules.rule3_resolve_before_revoke {
                    self.settle()?;
                }
                let answered = self.consumer.assign(&inputs);
                // While leaving they go back as they came, and a group being left may not even wait for the answer.
                if self.leaving.is_none() {
                    answered.map_err(|failure| member_lost(&failure))?;
                    self.assigned = true;
                    self.untaken.extend(inputs);
                }
                self.verify_kept()
            }
            Rebalance::Revoke(inputs) => {
                if self.rules.rule3_resolve_before_revoke {
                    self.settle()?;
                } else {
                    self.drop_from_open(&inputs);
                }
                fail_point!("revoke-settled");
                self.give_up(&inputs, false)
            }
            Rebalance::Lost(inputs) => {
                // Nothing may be committed for what is somebody else's already; a transaction is whole or not
                // at all, so the kept partitions' part goes with it.
                if let Err(failure) = self.abort("partitions were lost") {
                    self.recovery = Some(failure);
                    self.settle()?;
                }
                self.give_up(&inputs, true)
            }
        }
    }

    /// Opens the state of one newly assigned partition and begins its replay. What fails stays to be taken.
    ///
    /// One at a time: checking a large state after a crash takes a while, and the group must be polled between.
    pub(super) fn take_assigned(&mut self) -> Result<(), Failure> {
        let Some(input) = self.untaken.last().copied() else { return Ok(()) };
        if self.leaving.is_some() {
            // For whoever comes next: to take it over may mean to wait for an orphaned transaction.
            return Ok(());
        }
        // Opening may outlast the transaction's timeout.
        if self.open.as_ref().is_some_and(|open| !open.is_empty()) {
            self.commit()?;
        }
        if let Some(partition) = self.topology.state_of_input(input) {
            let store = match self.stores.open(partition) {
                Ok(store) => store,
                // It may be waiting for one of ours: go on polling, or neither would ever hear that it lost what
                // the other waits for. The next one may be free.
                Err(Failure::Busy(_)) => {
                    self.untaken.rotate_right(1);
                    return Ok(());
                }
                Err(failure) => return Err(escalate(failure)),
            };
            let owned = Owned::new(store).map_err(escalate)?;
            self.owned.insert(partition, owned);
            self.observer.observe(&Event::Assigned(partition));
            self.untaken.pop();
            fail_point!("assign-opened");
            return self.begin_restore(&[partition]);
        }
        self.untaken.pop();
        Ok(())
    }

    /// Closes the state of revoked partitions and answers; answers even when something fails on the way.
    fn give_up(&mut self, inputs: &[TopicPartition], lost: bool) -> Result<(), Failure> {
        let mut result = Ok(());
        self.untaken.retain(|input| !inputs.contains(input));
        for input in inputs {
            let Some(partition) = self.topology.state_of_input(*input) else { continue };
            let Some(owned) = self.owned.remove(&partition) else { continue };
            if let (false, Some(changelog)) = (owned.is_running(), self.topology.changelog_of(partition)) {
                let removed = self.reader.remove(changelog);
                result = result.and(removed);
            }
            self.application.stopped(partition);
            self.observer.observe(&Event::Revoked { partition, lost });
        }
        let answered = self.consumer.unassign(inputs);
        if self.leaving.is_none() {
            answered.map_err(|failure| member_lost(&failure))?;
            result?;
        }
        self.verify_kept()
    }

    /// Engine rule 4. A partition whose committed sequence number is not ours was moved on by another
    /// member while this one was out: its state is stale and is restored again, and so is one whose replay began before
    /// that. A member that leaves is no exception: until it has left, what it does with what it kept is committed.
    pub(super) fn verify_kept(&mut self) -> Result<(), Failure> {
        if !self.rules.rule4_reread_on_rebalance {
            return Ok(());
        }
        let kept: Vec<StatePartition> = self.owned.keys().copied().collect();
        if kept.is_empty() {
            return Ok(());
        }
        let inputs: Vec<TopicPartition> = kept.iter().filter_map(|kept| self.topology.input_of(*kept)).collect();
        let committed = self.consumer.committed(&inputs)?;
        let mut stale = Vec::new();
        for (partition, committed) in kept.iter().zip(committed) {
            let Some(owned) = self.owned.get(partition) else { continue };
            let is_stale = match &owned.phase {
                Phase::Running => owned.is_overtaken(committed.as_ref()),
                Phase::Restoring(restoring) => restoring.committed != committed,
                // Is looked at from the beginning.
                Phase::Doubted(_) => false,
            };
            if is_stale {
                self.observer.observe(&Event::Overtaken(*partition));
                stale.push(*partition);
            }
        }
        self.begin_restore(&stale)
    }

    /// Only with rule 3 taken out: forgets a revoked partition inside the open transaction.
    fn drop_from_open(&mut self, inputs: &[TopicPartition]) {
        for input in inputs {
            if let (Some(partition), Some(open)) = (self.topology.state_of_input(*input), self.open.as_mut()) {
                open.touched.remove(&partition);
            }
        }
    }
}

/// A rebalance that could not be answered is never asked again: the member would hold the group up, or hold
/// partitions nobody reads. Ending the process makes the group go on without it.
fn member_lost(failure: &Failure) -> Failure {
    Failure::stop(
        "KAFKA_MEMBER_LOST",
        format!("the group's request could not be answered: {failure}"),
        "nothing at once: start the process again; if it repeats, look at the brokers",
    )
}
