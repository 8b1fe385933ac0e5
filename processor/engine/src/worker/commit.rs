//! How a transaction ends: committed whole with everything it touched, or aborted whole and rewound.
//!
//! Order of a commit, each step for a reason:
//! 1. the application writes what it coalesced (marks are final now);
//! 2. the next offset and new sequence number of *every* touched partition go into the transaction
//!    (engine rule 1), with group metadata fetched this moment (KIP-447);
//! 3. all delivery reports are waited for: they tell the changelog offsets, and the first record after a
//!    replay must have landed exactly where the replay ended (engine rule 5);
//! 4. EndTxn;
//! 5. the store, one atomic batch per partition. A crash before it costs a replay of the gap, no more.

use std::time::Duration;

use super::open::{Open, View};
use super::owned::CaughtUp;
use super::{PRODUCERS, Worker};
use crate::application::Application;
use crate::cluster::{Cluster, Delivered, GroupConsumer, OffsetToCommit, TransactionalProducer};
use crate::failure::{Failure, Stop};
use crate::mark::CommitMetadata;
use crate::observer::{Event, Observer};
use crate::store::{Batch, StateStore};
use crate::topology::StatePartition;

impl<C: Cluster, S: StateStore, A: Application, O: Observer> Worker<C, S, A, O> {
    /// Commits when the batch is full, old, or the input is drained; tells whether it did.
    pub(super) fn commit_if_due(&mut self, drained: bool) -> Result<bool, Failure> {
        let refreshing = self.owned.values().any(|owned| owned.refresh_offset && owned.is_running());
        let something = self.open.as_ref().is_some_and(|open| !open.is_empty());
        if !something && !refreshing {
            // Nothing of it goes to Kafka, but for the application a transaction ends all the same.
            if self.open.take().is_some() {
                self.application.committed();
            }
            return Ok(false);
        }
        if drained || self.is_due() || self.is_old() {
            self.commit()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Commits the open transaction, if there is one.
    pub(super) fn commit(&mut self) -> Result<(), Failure> {
        let now = self.cluster.now_ms();
        let mut open = self.open.take().unwrap_or_else(|| Open::new(now));
        let result = self.commit_open(&mut open);
        if result.is_err() {
            // Kept for `abort`, which needs to know what to rewind.
            self.open = Some(open);
        }
        result
    }

    fn commit_open(&mut self, open: &mut Open) -> Result<(), Failure> {
        let turn = self.turn;
        fail_point!("commit-begun");
        self.complete(open)?;
        let offsets = self.offsets(open)?;
        fail_point!("commit-completed");
        if offsets.is_empty() && !open.begun {
            self.application.committed();
            return Ok(());
        }
        let Some(producer) = self.producers.get_mut(turn) else { return Err(Failure::Rebuild("no producer".into())) };
        if !open.begun {
            producer.begin()?;
            open.begun = true;
        }
        if !offsets.is_empty() {
            let Some(member) = self.consumer.metadata()? else {
                return Err(Failure::Membership("the member has no generation".into()));
            };
            producer.send_offsets(&offsets, &member)?;
        }
        fail_point!("commit-offsets-sent");
        let delivered = producer.flush()?;
        self.check_restored_ends(&delivered)?;
        fail_point!("commit-flushed");
        let Some(producer) = self.producers.get_mut(turn) else { return Err(Failure::Rebuild("no producer".into())) };
        producer.commit()?;
        fail_point!("commit-acknowledged");
        self.apply(open, &delivered)
    }

    fn complete(&mut self, open: &mut Open) -> Result<(), Failure> {
        let Self { producers, owned, topology, application, turn, .. } = self;
        let Some(producer) = producers.get_mut(*turn) else { return Err(Failure::Rebuild("no producer".into())) };
        application.complete(&mut View { open: &mut *open, producer, owned, topology })?;
        match open.touched.iter().find(|(_, touched)| !touched.marked) {
            None => Ok(()),
            Some((partition, _)) => Err(Failure::stop(
                "ENGINE_UNMARKED_PARTITION",
                format!("the application touched {partition:?} without a marked changelog record"),
                "report this: it is a defect of the program",
            )),
        }
    }

    /// The offsets the transaction commits: every touched partition, and those whose group offset stands
    /// below the mark although nothing changed (their sequence number stays).
    fn offsets(&self, open: &Open) -> Result<Vec<OffsetToCommit>, Failure> {
        let mut offsets = Vec::with_capacity(open.touched.len());
        for (partition, touched) in &open.touched {
            if self.rules.rule1_offsets_of_touched || touched.read {
                offsets.push(self.offset(
                    *partition,
                    touched.mark.next_offset,
                    touched.mark.sequence,
                    touched.leader_epoch,
                )?);
            }
        }
        // A transaction that only emits (an announcement) would commit without any offset, and so without the
        // group checking our generation: it repeats the offsets of what we run.
        let only_emits = open.begun && offsets.is_empty();
        for (partition, owned) in &self.owned {
            let repeat = only_emits || owned.refresh_offset;
            if repeat && owned.is_running() && !open.touched.contains_key(partition) {
                offsets.push(self.offset(
                    *partition,
                    owned.mark.next_offset,
                    owned.mark.sequence,
                    owned.leader_epoch,
                )?);
            }
        }
        Ok(offsets)
    }

    fn offset(
        &self,
        partition: StatePartition,
        offset: i64,
        sequence: u64,
        leader_epoch: Option<i32>,
    ) -> Result<OffsetToCommit, Failure> {
        let (Some(owned), Some(input)) = (self.owned.get(&partition), self.topology.input_of(partition)) else {
            return Err(Failure::Rebuild(format!("{partition:?} was given up with a transaction open")));
        };
        let input_topic_id = owned.input_topic_id.clone();
        let metadata = CommitMetadata { sequence, writer: self.writer.clone(), input_topic_id }.encode();
        Ok(OffsetToCommit { input, offset, leader_epoch, metadata })
    }

    /// Engine rule 5: somebody else's record between the end of the replay and our first one means that the
    /// replay missed something.
    fn check_restored_ends(&self, delivered: &[Delivered]) -> Result<(), Failure> {
        if !self.rules.rule5_check_restored_end {
            return Ok(());
        }
        for delivered in delivered {
            let owned = self.topology.state_of_changelog(delivered.target).and_then(|state| self.owned.get(&state));
            if let Some(end) = owned.map(|owned| owned.changelog_end).filter(|end| delivered.first < *end) {
                return Err(Failure::stop(
                    "CHANGELOG_SHORTER_THAN_STATE",
                    format!(
                        "a record written to {}-{} landed at {}, but the state holds everything before {end}",
                        self.topology.topic_name(delivered.target.topic),
                        delivered.target.partition,
                        delivered.first
                    ),
                    "the brokers lost acknowledged records (an unclean leader election?); rebuild from the source with a \
                     new --topic-prefix and --application-id",
                ));
            }
            if let Some(end) = owned.and_then(|owned| owned.restored_end)
                && end != delivered.first
            {
                return Err(Failure::Abort(format!(
                    "changelog {}-{} was replayed to {end}, but the first record landed at {}",
                    self.topology.topic_name(delivered.target.topic),
                    delivered.target.partition,
                    delivered.first
                )));
            }
        }
        Ok(())
    }

    /// The commit is acknowledged: bring the store up to it.
    fn apply(&mut self, open: &Open, delivered: &[Delivered]) -> Result<(), Failure> {
        let now = self.cluster.now_ms();
        let mut batches = Vec::with_capacity(open.touched.len());
        for (partition, owned) in &mut self.owned {
            let Some(touched) = open.touched.get(partition) else { continue };
            let changelog = self.topology.changelog_of(*partition);
            let last =
                delivered.iter().find(|delivered| Some(delivered.target) == changelog).map(|delivered| delivered.last);
            let Some(last) = last else { continue };
            owned.mark = touched.mark;
            owned.leader_epoch = touched.leader_epoch;
            owned.restored_end = None;
            owned.changelog_end = last + 1;
            owned.stored_ms = now;
            let progress = owned.progress(touched.mark, touched.leader_epoch, last + 1, now);
            batches.push(Batch { store: &mut owned.store, changes: &touched.overlay, progress });
        }
        let applied = self.stores.apply(batches);
        fail_point!("store-applied");
        for owned in self.owned.values_mut().filter(|owned| owned.is_running()) {
            owned.refresh_offset = false;
        }
        self.turn = (self.turn + 1) % PRODUCERS;
        self.failures = 0;
        self.application.committed();
        let took = Duration::from_millis(now.saturating_sub(open.started_ms));
        self.observer.observe(&Event::Committed { records: open.records, partitions: open.touched.len(), took });
        // The commit stands; a store that missed it is behind and must be brought up from the changelog.
        applied.map_err(escalate)
    }

    /// Aborts the open transaction and rewinds every partition it touched to its mark.
    pub(super) fn abort(&mut self, reason: &str) -> Result<(), Failure> {
        let open = self.open.take();
        self.application.aborted();
        if let Some(open) = open {
            if open.begun {
                let Some(producer) = self.producers.get_mut(self.turn) else {
                    return Err(Failure::Rebuild("no producer".into()));
                };
                producer.abort().map_err(escalate)?;
            }
            fail_point!("abort-acknowledged");
            self.observer.observe(&Event::Aborted { reason });
            self.rewind(open.touched.keys().copied().collect())?;
        }
        for owned in self.owned.values_mut() {
            // Whatever a broadcast or a first end caused may have been part of it; again is harmless.
            if owned.caught_up == CaughtUp::Told {
                owned.caught_up = CaughtUp::Seen;
            }
            owned.broadcasts_handled = 0;
            owned.broadcast_boundary = None;
        }
        Ok(())
    }

    fn rewind(&mut self, touched: Vec<StatePartition>) -> Result<(), Failure> {
        let mut unverified = Vec::new();
        for partition in touched {
            let Some(input) = self.topology.input_of(partition) else { continue };
            let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.is_running()) else { continue };
            if owned.restored_end.is_some() {
                // Our own aborted records have moved the end, so the check of rule 5 needs a new replay.
                unverified.push(partition);
                continue;
            }
            owned.read_to = owned.mark.next_offset;
            owned.caught_up = CaughtUp::NotYet;
            self.consumer.start(input, owned.mark.next_offset, owned.leader_epoch).map_err(escalate)?;
        }
        self.begin_restore(&unverified)
    }

    /// Gives every open transaction a known outcome (engine rule 3): committed, aborted, or resolved by
    /// initialising new producers. Returns only when that is so.
    pub(super) fn settle(&mut self) -> Result<(), Stop> {
        let mut result = match self.recovery.take() {
            Some(failure) => Err(failure),
            None => self.commit(),
        };
        while let Err(failure) = result {
            self.observer.alive();
            result = match failure {
                Failure::Stop(stop) => return Err(stop),
                failure => self.recover(failure),
            };
        }
        Ok(())
    }
}

/// A failure while recovering is worse than the one recovered from.
pub(super) fn escalate(failure: Failure) -> Failure {
    match failure {
        Failure::Abort(reason) | Failure::Membership(reason) => Failure::Rebuild(reason),
        other => other,
    }
}
