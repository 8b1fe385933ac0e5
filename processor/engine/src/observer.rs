//! Everything worth logging or counting, as typed events; adapters turn each into a log line and metrics.

use std::time::Duration;

use crate::failure::Stop;
use crate::topology::StatePartition;

/// Something the engine did.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The group protocol asked for something, maybe for nothing: this worker is a member.
    Rebalanced,
    /// The group gave this worker a partition.
    Assigned(StatePartition),
    /// A partition was given up (`lost`: without a chance to commit).
    Revoked {
        /// Which one.
        partition: StatePartition,
        /// Whether it was already somebody else's.
        lost: bool,
    },
    /// Progress of replaying a changelog.
    Restoring {
        /// Which partition.
        partition: StatePartition,
        /// Next changelog offset to replay.
        position: i64,
        /// Where the replay began.
        from: i64,
        /// Where it will end.
        end: i64,
    },
    /// A partition is restored and is read from `next_offset` on.
    Started {
        /// Which partition.
        partition: StatePartition,
        /// Changelog records replayed.
        replayed: u64,
        /// Next input offset.
        next_offset: i64,
    },
    /// A look at a partition led to a refusal. It is looked at again; the worker stops when this goes on.
    Doubted {
        /// Which partition.
        partition: StatePartition,
        /// What it will stop with.
        stop: &'a Stop,
        /// For how long it looks again before it does.
        looking_for: Duration,
    },
    /// The group's offset stood below what the state has applied: these records are recognised and skipped.
    Recognised {
        /// Which partition.
        partition: StatePartition,
        /// Number of offsets skipped.
        offsets: u64,
    },
    /// A transaction was committed.
    Committed {
        /// Input records processed.
        records: u64,
        /// State partitions touched.
        partitions: usize,
        /// From begin to acknowledged commit.
        took: Duration,
    },
    /// A transaction was aborted and its work will be done again.
    Aborted {
        /// Why.
        reason: &'a str,
    },
    /// Producers were dropped and built anew; every partition is verified against Kafka.
    Rebuilt {
        /// Why.
        reason: &'a str,
    },
    /// A kept partition was moved on by another member, or may have been (its offset was set by hand); it is restored again.
    Overtaken(StatePartition),
    /// Consumed records of a repartition topic were deleted.
    Purged {
        /// Which partition.
        partition: StatePartition,
        /// Everything before this offset.
        before: i64,
    },
}

/// Receives events; must be cheap and must not fail.
pub trait Observer {
    /// Something happened.
    fn observe(&mut self, event: &Event<'_>);

    /// Called at least once per loop turn; a watchdog notices when it stays away.
    fn alive(&mut self) {}
}

/// Ignores everything.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&mut self, _event: &Event<'_>) {}
}
