//! Everything worth logging or counting in the application, as typed events; adapters make log lines and metrics.
//!
//! Counts and sweep events are told after the commit, so they are exact: work that was aborted and done again is told
//! once. Only [`Event::Redelivered`] is told at once, per record, for debug logs; count by [`Counts`] instead.

use std::collections::BTreeMap;

use schemas::{Reason, RowId};

/// What one committed transaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Change events that were new.
    pub applied: u64,
    /// Change events at or below the stored position.
    pub redelivered: u64,
    /// Change events about ids that a sweep has proven gone.
    pub stale: u64,
    /// Null values after deletes.
    pub tombstones: u64,
    /// Dead letters by reason.
    pub dead_letters: BTreeMap<Reason, u64>,
    /// Goods whose movement was added here.
    pub local_movements: u64,
    /// Goods whose movement went to the repartition topic.
    pub repartitioned_movements: u64,
    /// Movements read from the repartition topic.
    pub received_movements: u64,
    /// Stock deltas written.
    pub stock_deltas: u64,
    /// Snapshot ends announced.
    pub announced_snapshots: u64,
}

/// Something the application did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A change event was recognised as a redelivery. Told at once and per record; may be told again after an abort.
    Redelivered {
        /// Source partition.
        partition: i32,
        /// Offset.
        offset: i64,
        /// The row.
        id: &'a RowId,
    },
    /// A transaction was committed.
    Committed(&'a Counts),
    /// A change event became a dead letter.
    DeadLettered {
        /// Source partition.
        partition: i32,
        /// Offset.
        offset: i64,
        /// Why.
        reason: Reason,
        /// What exactly.
        detail: &'a str,
    },
    /// This worker read the end of a complete initial snapshot and announced it to all partitions.
    SnapshotAnnounced {
        /// Source partition that holds the last record.
        partition: i32,
        /// The snapshot's lsn.
        snapshot_lsn: u64,
    },
    /// A sweep begins.
    SweepStarted {
        /// Source partition.
        partition: i32,
        /// The snapshot that proves rows gone.
        snapshot_lsn: u64,
        /// Live rows it removes at most.
        at_most: u64,
    },
    /// A sweep waits for an operator: it would remove too large a share.
    SweepHeld {
        /// Source partition.
        partition: i32,
        /// The snapshot; approve it by (partition, snapshot).
        snapshot_lsn: u64,
        /// Live rows it would remove at most.
        would_remove: u64,
        /// Live rows of the partition.
        live: u64,
    },
    /// One chunk of a sweep is done.
    SweepProgress {
        /// Source partition.
        partition: i32,
        /// The snapshot.
        snapshot_lsn: u64,
        /// Rows looked at in this chunk.
        scanned: u64,
        /// Live rows removed in this chunk.
        removed: u64,
    },
    /// A sweep is finished.
    SweepFinished {
        /// Source partition.
        partition: i32,
        /// The snapshot.
        snapshot_lsn: u64,
        /// Live rows removed in all.
        removed: u64,
        /// Delete markers removed in all.
        markers: u64,
        /// Rows kept because the new connector had touched them before this partition knew of the snapshot.
        lifted: u64,
    },
    /// An operator approved a snapshot that this partition does not know.
    ApprovalUnknown {
        /// Source partition.
        partition: i32,
        /// The snapshot named.
        snapshot_lsn: u64,
    },
    /// A control record was skipped: unreadable, or of a type of a newer version. Told for every partition.
    ControlSkipped {
        /// Offset in the control topic.
        offset: i64,
        /// Why.
        detail: &'a str,
    },
}

/// Receives events; must be cheap and must not fail.
pub trait ApplicationObserver {
    /// Something happened.
    fn observe(&mut self, event: &Event<'_>);
}

/// Ignores everything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl ApplicationObserver for Silent {
    fn observe(&mut self, _event: &Event<'_>) {}
}

/// What is told once the transaction is committed.
#[derive(Debug)]
pub(crate) enum Pending {
    DeadLettered { partition: i32, offset: i64, reason: Reason, detail: String },
    Other(Event<'static>),
}

impl Pending {
    pub(crate) fn tell(&self, observer: &mut impl ApplicationObserver) {
        match self {
            Self::DeadLettered { partition, offset, reason, detail } => observer.observe(&Event::DeadLettered {
                partition: *partition,
                offset: *offset,
                reason: *reason,
                detail,
            }),
            Self::Other(event) => observer.observe(event),
        }
    }
}
