//! Turns the engine's events into log lines and metrics: one place per event, so that neither is forgotten.
//!
//! Levels by consequence: info for what an operator wants to have seen (partitions coming and going), warn
//! for what repeats only when something is wrong, debug for what happens all the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use processor_application::{ApplicationObserver, Counts, Event as ApplicationEvent};
use processor_engine::{Event, Observer, StatePartition, Topology};
use service::Health;
use service::health::{Condition, Heartbeat, Progress};

use crate::metrics::{Metrics, PartitionLabel, ReasonLabel, SourceLabel};

/// One worker's observer.
pub struct WorkerTelemetry {
    topology: Arc<Topology>,
    metrics: Metrics,
    health: Health,
    heartbeat: Heartbeat,
    membership: Condition,
    restoring: HashMap<StatePartition, Restore>,
    member: bool,
}

/// A replay under way, as `/startup` shows it.
struct Restore {
    progress: Progress,
    since: Instant,
}

impl WorkerTelemetry {
    /// Telemetry of one worker; the heartbeat's limit is the watchdog's.
    pub fn new(topology: Arc<Topology>, metrics: Metrics, health: Health, heartbeat: Heartbeat, worker: u16) -> Self {
        let membership = health.condition(format!("worker-{worker}"), "has not joined the consumer group yet");
        Self { topology, metrics, health, heartbeat, membership, restoring: HashMap::new(), member: false }
    }

    fn label(&self, partition: StatePartition) -> PartitionLabel {
        PartitionLabel { stage: self.topology.stage_name(partition.stage), partition: partition.partition }
    }

    /// Ready: a member whose partitions are all running.
    fn show_readiness(&self) {
        if !self.member {
            return;
        }
        if self.restoring.is_empty() {
            self.membership.up();
            self.health.set_started();
        } else {
            self.membership.down(format!("restoring {} partitions from their changelogs", self.restoring.len()));
        }
    }

    fn assigned(&mut self, partition: StatePartition) {
        let label = self.label(partition);
        tracing::info!(stage = label.stage, partition = label.partition, "partition assigned");
        let progress = self.health.progress(format!("restore {}-{}", label.stage, label.partition));
        self.restoring.insert(partition, Restore { progress, since: Instant::now() });
        self.metrics.running.get_or_create(&label).set(0);
    }

    fn restoring(&mut self, partition: StatePartition, position: i64, from: i64, end: i64) {
        let label = self.label(partition);
        if let Some(restore) = self.restoring.get(&partition) {
            let done = u64::try_from(position.saturating_sub(from)).unwrap_or(0);
            let total = u64::try_from(end.saturating_sub(from)).unwrap_or(0);
            restore.progress.set(done.min(total), total);
            let seconds = restore.since.elapsed().as_secs_f64().max(0.001);
            #[allow(clippy::cast_precision_loss)] // a rate for people
            let rate = done as f64 / seconds;
            tracing::info!(
                stage = label.stage,
                partition = label.partition,
                done,
                total,
                records_per_second = format_args!("{rate:.0}"),
                "restoring state from the changelog"
            );
        }
    }

    fn started(&mut self, partition: StatePartition, replayed: u64, next_offset: i64) {
        let label = self.label(partition);
        if let Some(restore) = self.restoring.remove(&partition) {
            restore.progress.finish();
        }
        self.metrics.restored.inc_by(replayed);
        self.metrics.running.get_or_create(&label).set(1);
        self.metrics.next_offset.get_or_create(&label).set(next_offset);
        tracing::info!(stage = label.stage, partition = label.partition, replayed, next_offset, "partition running");
    }

    fn revoked(&mut self, partition: StatePartition, lost: bool) {
        let label = self.label(partition);
        self.restoring.remove(&partition);
        self.metrics.running.remove(&label);
        self.metrics.next_offset.remove(&label);
        if lost {
            tracing::warn!(
                stage = label.stage,
                partition = label.partition,
                "partition lost: the group moved on without this worker"
            );
        } else {
            tracing::info!(stage = label.stage, partition = label.partition, "partition given up");
        }
    }

    fn overtaken(&mut self, partition: StatePartition) {
        let label = self.label(partition);
        let progress = self.health.progress(format!("restore {}-{}", label.stage, label.partition));
        self.restoring.insert(partition, Restore { progress, since: Instant::now() });
        tracing::warn!(
            stage = label.stage,
            partition = label.partition,
            "another member may have moved this partition on; restoring it"
        );
    }
}

impl Observer for WorkerTelemetry {
    fn alive(&mut self) {
        self.heartbeat.beat();
    }

    fn observe(&mut self, event: &Event<'_>) {
        match *event {
            Event::Rebalanced => self.member = true,
            Event::Assigned(partition) => self.assigned(partition),
            Event::Revoked { partition, lost } => self.revoked(partition, lost),
            Event::Restoring { partition, position, from, end } => self.restoring(partition, position, from, end),
            Event::Started { partition, replayed, next_offset } => self.started(partition, replayed, next_offset),
            Event::Overtaken(partition) => self.overtaken(partition),
            Event::Doubted { partition, stop, looking_for } => {
                let label = self.label(partition);
                tracing::warn!(
                    stage = label.stage,
                    partition = label.partition,
                    code = stop.code,
                    "not started: {}; brokers that have just come back may know better soon, so it is looked at again for {} s",
                    stop.what,
                    looking_for.as_secs()
                );
            }
            Event::Recognised { partition, offsets } => {
                let label = self.label(partition);
                self.metrics.recognised.inc_by(offsets);
                tracing::info!(
                    stage = label.stage,
                    partition = label.partition,
                    recognised = offsets,
                    "the group's offset was set back: records applied before are recognised and skipped"
                );
            }
            Event::Committed { records, partitions, took } => {
                self.metrics.records.inc_by(records);
                self.metrics.commits.inc();
                self.metrics.transaction_seconds.observe(took.as_secs_f64());
                tracing::debug!(records, partitions, took_ms = took.as_millis(), "transaction committed");
                return;
            }
            Event::Aborted { reason } => {
                self.metrics.aborts.inc();
                tracing::warn!(reason, "transaction aborted; its work is done again");
            }
            Event::Rebuilt { reason } => {
                self.metrics.rebuilds.inc();
                tracing::warn!(reason, "producers rebuilt; every partition is verified against its changelog");
            }
            Event::Purged { partition, before } => {
                tracing::debug!(partition = partition.partition, before, "consumed movements deleted");
                return;
            }
        }
        self.show_readiness();
    }
}

/// The application's observer of one worker.
#[derive(Debug, Clone)]
pub struct ApplicationTelemetry {
    metrics: Metrics,
}

impl ApplicationTelemetry {
    /// Counts into these metrics.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    fn count(&self, counts: &Counts) {
        self.metrics.applied.inc_by(counts.applied);
        self.metrics.redelivered.inc_by(counts.redelivered + counts.stale);
        for (reason, count) in &counts.dead_letters {
            self.metrics.dead_letters.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc_by(*count);
        }
    }
}

impl ApplicationObserver for ApplicationTelemetry {
    fn observe(&mut self, event: &ApplicationEvent<'_>) {
        match event {
            ApplicationEvent::Committed(counts) => self.count(counts),
            ApplicationEvent::Redelivered { partition, offset, id } => {
                tracing::debug!(partition, offset, %id, "redelivered: this change is applied already");
            }
            ApplicationEvent::DeadLettered { partition, offset, reason, detail } => {
                tracing::warn!(partition, offset, reason = reason.as_str(), detail, "event set aside as a dead letter");
            }
            ApplicationEvent::SnapshotAnnounced { partition, snapshot_lsn } => {
                tracing::info!(partition, snapshot_lsn, "a snapshot is complete; announced to every partition");
            }
            ApplicationEvent::SweepStarted { partition, snapshot_lsn, at_most } => {
                tracing::info!(
                    partition,
                    snapshot_lsn,
                    at_most,
                    "sweep started: rows the snapshot does not show are gone"
                );
            }
            ApplicationEvent::SweepHeld { partition, snapshot_lsn, would_remove, live } => {
                self.metrics.sweep_held.get_or_create(&SourceLabel { partition: *partition }).set(1);
                tracing::warn!(
                    partition,
                    snapshot_lsn,
                    would_remove,
                    live,
                    "SWEEP_HELD: it would remove too large a share; approve with `processor approve-sweep`, or have the \
                     connector take a new complete snapshot"
                );
            }
            ApplicationEvent::SweepProgress { partition, snapshot_lsn, scanned, removed } => {
                self.metrics.swept.inc_by(*removed);
                tracing::debug!(partition, snapshot_lsn, scanned, removed, "sweep goes on");
            }
            ApplicationEvent::SweepFinished { partition, snapshot_lsn, removed, markers, lifted } => {
                self.metrics.sweep_held.get_or_create(&SourceLabel { partition: *partition }).set(0);
                tracing::info!(partition, snapshot_lsn, removed, markers, lifted, "sweep finished");
            }
            ApplicationEvent::ApprovalUnknown { partition, snapshot_lsn } => {
                tracing::warn!(partition, snapshot_lsn, "a sweep was approved that this partition does not know of");
            }
            ApplicationEvent::ControlSkipped { offset, detail } => {
                tracing::warn!(offset, detail, "control record skipped");
            }
        }
    }
}
