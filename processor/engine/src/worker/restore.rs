//! How a partition gets its state: always the same way, whether it was assigned, overtaken, or its last
//! transaction's outcome is unknown.
//!
//! Engine rule 2, in this order: stable committed offset, then the changelog's high watermark, then replay
//! `read_committed` from the store's offset to that mark, even when nothing seems missing; then
//! [`crate::resume`] decides where the input starts. Several partitions are replayed at once by one reader,
//! a bounded number of records per step, so that running partitions go on.

use std::time::Duration;

use super::Worker;
use super::commit::escalate;
use super::owned::{CaughtUp, Owned, Phase, Restoring};
use crate::application::{Application, BroadcastRecord};
use crate::changes::Changes;
use crate::cluster::{Cluster, CommittedOffset, GroupConsumer, LogReader, Read, Record};
use crate::failure::{Failure, Stop};
use crate::mark::{Progress, from_headers};
use crate::observer::{Event, Observer};
use crate::resume::{Found, resume};
use crate::store::{Batch, PartitionStore, StateStore};
use crate::topology::{StatePartition, TopicPartition, Topology};

/// Keys held in memory before a replay writes them to the store.
const RESTORE_BATCH: usize = 20_000;

/// How long an otherwise idle worker waits for a changelog record.
const RESTORE_WAIT: Duration = Duration::from_millis(2);

/// Between two looks at a partition that is about to be refused.
const LOOK_AGAIN_MS: u64 = 1_000;

impl<C: Cluster, S: StateStore, A: Application, O: Observer> Worker<C, S, A, O> {
    /// Starts (or starts over) the replay of owned partitions; their input is paused until it is done.
    ///
    /// Half done is worse than not begun: any failure leads to a rebuild, which begins all of them again.
    pub(super) fn begin_restore(&mut self, partitions: &[StatePartition]) -> Result<(), Failure> {
        self.try_begin_restore(partitions).map_err(escalate)
    }

    fn try_begin_restore(&mut self, partitions: &[StatePartition]) -> Result<(), Failure> {
        if partitions.is_empty() {
            return Ok(());
        }
        let inputs: Vec<TopicPartition> =
            partitions.iter().filter_map(|partition| self.topology.input_of(*partition)).collect();
        self.consumer.pause(&inputs)?;
        for partition in partitions {
            self.application.stopped(*partition);
            if let Some(changelog) = self.topology.changelog_of(*partition)
                && self.owned.get(partition).is_some_and(|owned| !owned.is_running())
            {
                self.reader.remove(changelog)?;
            }
        }
        let committed = self.consumer.committed(&inputs)?;
        for (partition, committed) in partitions.iter().zip(committed) {
            self.begin_one(*partition, committed)?;
        }
        Ok(())
    }

    fn begin_one(&mut self, partition: StatePartition, committed: Option<CommittedOffset>) -> Result<(), Failure> {
        let Some(changelog) = self.topology.changelog_of(partition) else { return Ok(()) };
        let ends = self.cluster.log_ends(changelog)?;
        let changelog_topic_id = self.cluster.topic_id(changelog.topic)?;
        let now = self.cluster.now_ms();
        let max_age = u64::try_from(self.limits.max_state_age.as_millis()).unwrap_or(u64::MAX);
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let mut stored = owned.store.progress()?;
        if let Some(progress) = &stored {
            let checked =
                check_changelog(&self.topology, changelog, progress, &changelog_topic_id, ends.high_watermark);
            if let Err(stop) = checked {
                return self.doubt(partition, stop);
            }
            let too_old = now.saturating_sub(progress.updated_at_ms) >= max_age;
            if too_old || progress.changelog_next < ends.start {
                owned.store.clear()?;
                stored = None;
            }
        }
        let from = stored.as_ref().map_or(ends.start, |progress| progress.changelog_next);
        let from = if self.rules.rule2_replay_on_assignment || stored.is_none() { from } else { ends.high_watermark };
        owned.changelog_topic_id = changelog_topic_id;
        owned.restored_end = None;
        owned.phase = Phase::Restoring(Restoring {
            committed,
            from,
            end: ends.high_watermark,
            position: from,
            mark: stored.as_ref().map(|progress| progress.mark).filter(|mark| mark.sequence > 0),
            pending: Changes::default(),
            replayed: 0,
            leader_epoch: stored.and_then(|progress| progress.leader_epoch),
        });
        self.reader.add(changelog, from)
    }

    /// A look at a partition led to a refusal: it becomes the verdict when every look for [`super::Limits::doubt`] has.
    fn doubt(&mut self, partition: StatePartition, stop: Stop) -> Result<(), Failure> {
        let now = self.cluster.now_ms();
        let enough = u64::try_from(self.limits.doubt.as_millis()).unwrap_or(u64::MAX);
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        if owned.doubted_since_ms.is_some_and(|since| now.saturating_sub(since) >= enough) {
            return Err(stop.into());
        }
        let first = owned.doubted_since_ms.is_none();
        owned.doubted_since_ms.get_or_insert(now);
        // Once at once: what was read one after the other fits together the next time.
        owned.phase = Phase::Doubted(if first { now } else { now + LOOK_AGAIN_MS.min(enough) });
        if first {
            self.observer.observe(&Event::Doubted { partition, stop: &stop, looking_for: self.limits.doubt });
        }
        Ok(())
    }

    /// Begins the replay of doubted partitions again when it is time to.
    pub(super) fn look_again(&mut self) -> Result<(), Failure> {
        if !self.owned.values().any(|owned| matches!(owned.phase, Phase::Doubted(_))) {
            return Ok(());
        }
        let now = self.cluster.now_ms();
        let is_due = |owned: &Owned<_>| matches!(owned.phase, Phase::Doubted(due) if due <= now);
        let due: Vec<_> = self.owned.iter().filter(|(_, owned)| is_due(owned)).map(|(due, _)| *due).collect();
        self.begin_restore(&due)
    }

    /// Reads a bounded number of changelog and broadcast records; tells whether there were any.
    ///
    /// `idle`: the input brought nothing, so waiting a little for a replay is no loss.
    pub(super) fn read_logs(&mut self, idle: bool) -> Result<bool, Failure> {
        let mut any = false;
        let restoring = self.owned.values().any(|owned| !owned.is_running());
        let mut wait = if idle && restoring { RESTORE_WAIT } else { Duration::ZERO };
        for _ in 0..self.limits.restore_records {
            let Self { reader, application, owned, topology, broadcasts, .. } = self;
            let mut outcome = Ok(());
            let read = reader.poll(wait, &mut |record| {
                outcome = replay(application, owned, topology, broadcasts, record);
            })?;
            outcome?;
            wait = Duration::ZERO;
            match read {
                Read::Record => any = true,
                Read::End { partition, position } => {
                    any = true;
                    self.reached_changelog_end(partition, position)?;
                }
                Read::Idle => break,
            }
        }
        self.flush_restores()?;
        Ok(any)
    }

    /// Writes what replays have read into the stores as soon as one of them has read enough, and with it, since a store
    /// may write several at the same time, whatever others have read.
    fn flush_restores(&mut self) -> Result<(), Failure> {
        let full = |owned: &Owned<_>| matches!(&owned.phase, Phase::Restoring(restoring) if restoring.pending.len() >= RESTORE_BATCH);
        if !self.owned.values().any(full) {
            return Ok(());
        }
        let now = self.cluster.now_ms();
        let mut batches = Vec::new();
        for (partition, owned) in &mut self.owned {
            if let Phase::Restoring(restoring) = &owned.phase
                && !restoring.pending.is_empty()
                && let Some(progress) = owned.replayed(now)
            {
                owned.stored_ms = now;
                let (position, from, end) = (restoring.position, restoring.from, restoring.end);
                self.observer.observe(&Event::Restoring { partition: *partition, position, from, end });
                batches.push(Batch { store: &mut owned.store, changes: &restoring.pending, progress });
            }
        }
        self.stores.apply(batches)?;
        for owned in self.owned.values_mut() {
            if let Phase::Restoring(restoring) = &mut owned.phase {
                restoring.pending.clear();
            }
        }
        Ok(())
    }

    fn reached_changelog_end(&mut self, changelog: TopicPartition, position: i64) -> Result<(), Failure> {
        if changelog.topic == self.topology.broadcast {
            self.broadcasts_read_to = self.broadcasts_read_to.max(position);
            return Ok(());
        }
        let Some(partition) = self.topology.state_of_changelog(changelog) else { return Ok(()) };
        let now = self.cluster.now_ms();
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        match &mut owned.phase {
            // An end below the mark: an open transaction of a predecessor still holds the LSO back.
            Phase::Restoring(restoring) if position >= restoring.end => restoring.position = position,
            _ => return Ok(()),
        }
        flush(owned, now)?;
        fail_point!("restore-replayed");
        self.reader.remove(changelog)?;
        self.start(partition).map_err(escalate)
    }

    /// The replay is complete: decide where the input starts, and start it.
    fn start(&mut self, partition: StatePartition) -> Result<(), Failure> {
        let (Some(input), Some(spec)) = (self.topology.input_of(partition), self.topology.stage(partition.stage))
        else {
            return Ok(());
        };
        let ends = self.cluster.log_ends(input)?;
        let input_topic_id = self.cluster.topic_id(input.topic)?;
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let Phase::Restoring(restoring) = &owned.phase else { return Ok(()) };
        if !owned.input_topic_id.is_empty() && owned.input_topic_id != input_topic_id && restoring.mark.is_some() {
            let stop = topic_changed("INPUT_TOPIC_RECREATED", self.topology.topic_name(input.topic));
            return self.doubt(partition, stop);
        }
        let decision = resume(&Found {
            input: &format!("{}-{}", self.topology.topic_name(input.topic), input.partition),
            changelog: self.topology.topic_name(spec.changelog),
            state: restoring.mark,
            committed: restoring.committed.as_ref(),
            ends,
            input_topic_id: &input_topic_id,
            accept_truncated_input: spec.accept_truncated_input,
        });
        let start = match decision {
            Ok(start) => start,
            Err(stop) => return self.doubt(partition, stop),
        };
        owned.doubted_since_ms = None;
        let (replayed, position) = (restoring.replayed, restoring.position);
        owned.leader_epoch = restoring.leader_epoch.filter(|_| restoring.replayed == 0);
        owned.mark = start.mark;
        owned.restored_end = Some(position);
        owned.changelog_end = position;
        owned.caught_up = CaughtUp::NotYet;
        owned.read_to = start.mark.next_offset;
        owned.broadcasts_handled = 0;
        owned.broadcast_boundary = None;
        owned.refresh_offset = start.recognised > 0;
        owned.input_topic_id = input_topic_id;
        owned.phase = Phase::Running;
        self.application.started(partition, &owned.store)?;
        self.consumer.start(input, start.mark.next_offset, owned.leader_epoch)?;
        if start.recognised > 0 {
            self.observer.observe(&Event::Recognised { partition, offsets: start.recognised });
        }
        fail_point!("restore-started");
        self.observer.observe(&Event::Started { partition, replayed, next_offset: start.mark.next_offset });
        Ok(())
    }
}

/// Engine rule 5: a store ahead of its changelog was not built from it.
fn check_changelog(
    topology: &Topology,
    changelog: TopicPartition,
    stored: &Progress,
    topic_id: &str,
    high_watermark: i64,
) -> Result<(), Stop> {
    let name = topology.topic_name(changelog.topic);
    if stored.changelog_topic_id != topic_id {
        return Err(topic_changed("CHANGELOG_TOPIC_RECREATED", name));
    }
    if stored.changelog_next > high_watermark {
        return Err(Stop {
            code: "CHANGELOG_SHORTER_THAN_STATE",
            what: format!(
                "{name}-{} ends at offset {high_watermark}, but the state directory has applied it up to {}",
                changelog.partition, stored.changelog_next
            ),
            remedy: "the brokers lost acknowledged records, or the state directory belongs to another cluster; if the \
                     directory is foreign, remove it (the state is restored from the changelog); otherwise rebuild from the \
                     source with a new --topic-prefix and --application-id"
                .into(),
        });
    }
    Ok(())
}

fn topic_changed(code: &'static str, name: &str) -> Stop {
    Stop {
        code,
        what: format!("topic {name} was deleted and created again since the state was written"),
        remedy:
            "rebuild from the source: a new complete snapshot, a new --topic-prefix and --application-id, an empty \
                 state directory"
                .into(),
    }
}

/// Takes one record of the reader: a broadcast, or one changelog record of a restoring partition.
fn replay<A: Application, P>(
    application: &mut A,
    owned: &mut std::collections::BTreeMap<StatePartition, Owned<P>>,
    topology: &Topology,
    broadcasts: &mut Vec<BroadcastRecord>,
    record: &Record<'_>,
) -> Result<(), Failure> {
    if record.source.topic == topology.broadcast {
        if broadcasts.last().is_none_or(|last| last.offset < record.offset) {
            let (key, value) = (record.key.unwrap_or_default().to_vec(), record.value.unwrap_or_default().to_vec());
            broadcasts.push(BroadcastRecord { offset: record.offset, key, value });
        }
        return Ok(());
    }
    let Some(partition) = topology.state_of_changelog(record.source) else { return Ok(()) };
    let Some(owned) = owned.get_mut(&partition) else { return Ok(()) };
    let Phase::Restoring(restoring) = &mut owned.phase else { return Ok(()) };
    if record.offset < restoring.position {
        return Ok(());
    }
    application.restore(partition, record, &mut restoring.pending)?;
    if let Some(mark) = from_headers(record.headers) {
        restoring.mark = Some(mark);
        restoring.leader_epoch = None;
    }
    restoring.position = record.offset + 1;
    restoring.replayed += 1;
    Ok(())
}

/// Applies the pending part of a replay. A prefix of a transaction may thereby be in the store for a while;
/// harmless, since a partition never runs before its replay has reached the end.
fn flush<P: PartitionStore>(owned: &mut Owned<P>, now_ms: u64) -> Result<(), Failure> {
    let Some(progress) = owned.replayed(now_ms) else { return Ok(()) };
    owned.stored_ms = now_ms;
    let Phase::Restoring(restoring) = &mut owned.phase else { return Ok(()) };
    let applied = owned.store.apply(&restoring.pending.sorted(), &progress);
    restoring.pending.clear();
    applied
}
