//! The snapshot generations an input partition knows, in order.
//!
//! A generation is named by its snapshot's lsn S; 0 stands for "before any snapshot". Which of two is newer is told
//! by their *order in this list* and never by comparing the numbers: a source database that was rebuilt starts its
//! lsns again. Owns the order and the counters of live rows; decides nothing about rows.

use serde::{Deserialize, Serialize};

/// Generations older than the last sweep that are still remembered. No row is in any of them; they only let a very
/// late record of such a snapshot be recognised by name. Older ones are recognised by number and time (see
/// [`Generations::place`]), so forgetting them is safe unless the source was rebuilt more often than this between two
/// of a producer's retries.
pub const REMEMBERED_SWEPT: usize = 16;

/// One snapshot, as one input partition knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The lsn all its records carry.
    pub snapshot_lsn: u64,
    /// `source.ts_ms` of the first record (or the announcement) it became known by, ms since 1970; `None` when an
    /// operator named it.
    pub ts_ms: Option<i64>,
    /// Live ids whose position is in it.
    pub live: u64,
    /// Its last record was seen, in whichever partition: what it does not show does not exist.
    #[serde(default)]
    pub complete: bool,
    /// An operator approved its sweep.
    #[serde(default)]
    pub approved: bool,
    /// It became known by announcement: no row of it had come to this partition, so events of the new connector may
    /// have been applied here under an older generation.
    #[serde(default)]
    pub announced: bool,
}

impl Generation {
    /// A generation without rows.
    pub fn new(snapshot_lsn: u64, ts_ms: Option<i64>) -> Self {
        Self { snapshot_lsn, ts_ms, live: 0, complete: false, approved: false, announced: false }
    }
}

/// All generations of one partition, oldest first, and the one before any snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Generations {
    /// Live ids seen before any snapshot.
    pub(crate) before_snapshots: u64,
    /// Oldest first.
    pub(crate) known: Vec<Generation>,
}

impl Generations {
    /// The newest generation; 0 before any snapshot.
    pub fn current(&self) -> u64 {
        self.known.last().map_or(0, |generation| generation.snapshot_lsn)
    }

    /// All known snapshots, oldest first.
    pub fn known(&self) -> &[Generation] {
        &self.known
    }

    /// A known snapshot.
    pub fn get(&self, snapshot_lsn: u64) -> Option<&Generation> {
        self.known.iter().rev().find(|generation| generation.snapshot_lsn == snapshot_lsn)
    }

    pub(crate) fn get_mut(&mut self, snapshot_lsn: u64) -> Option<&mut Generation> {
        self.known.iter_mut().rev().find(|generation| generation.snapshot_lsn == snapshot_lsn)
    }

    /// Its place in the order: 0 = before any snapshot, then 1, 2, …; `None` for an unknown one.
    pub fn rank(&self, snapshot_lsn: u64) -> Option<usize> {
        if snapshot_lsn == 0 {
            return Some(0);
        }
        self.known.iter().rposition(|generation| generation.snapshot_lsn == snapshot_lsn).map(|index| index + 1)
    }

    /// The rank an unknown snapshot would get: newest, except where a known one is newer by number *and* by time.
    /// Then it is the late batch of an older snapshot that this partition has not seen, and goes before it. Both are
    /// asked for: the number alone is wrong for a rebuilt source, the time alone for a connector's clock set back.
    /// Without a time (an operator's word) the number alone decides.
    pub fn place(&self, snapshot_lsn: u64, ts_ms: Option<i64>) -> usize {
        let older_than = |known: &Generation| {
            let earlier = match (ts_ms, known.ts_ms) {
                (Some(ts_ms), Some(known)) => ts_ms < known,
                _ => true,
            };
            snapshot_lsn < known.snapshot_lsn && earlier
        };
        self.known.iter().position(older_than).unwrap_or(self.known.len()) + 1
    }

    /// Adds an unknown snapshot at the rank [`Generations::place`] gave.
    pub(crate) fn insert(&mut self, rank: usize, generation: Generation) {
        self.known.insert(rank.saturating_sub(1).min(self.known.len()), generation);
    }

    /// The newest snapshot not above `commit_lsn` by number, else 0: the generation an event of an older incarnation
    /// of the connector belongs to.
    pub fn as_of(&self, commit_lsn: u64) -> u64 {
        let not_above = |generation: &&Generation| generation.snapshot_lsn <= commit_lsn;
        self.known.iter().rev().find(not_above).map_or(0, |generation| generation.snapshot_lsn)
    }

    /// Live ids of the partition.
    pub fn live(&self) -> u64 {
        self.known.iter().fold(self.before_snapshots, |sum, generation| sum.saturating_add(generation.live))
    }

    /// Live ids in generations older than the one of this rank: what its sweep would remove at most.
    pub fn live_below(&self, rank: usize) -> u64 {
        if rank == 0 {
            return 0;
        }
        let older = self.known.iter().take(rank - 1);
        older.fold(self.before_snapshots, |sum, generation| sum.saturating_add(generation.live))
    }

    /// Moves a live id between generations; `None` = not live. Saturating: the counters only feed the guard of the
    /// sweep, and a guard that stops the stream over its own arithmetic would be worse than one that is off by one.
    pub(crate) fn count(&mut self, from: Option<u64>, to: Option<u64>) {
        if from == to {
            return;
        }
        if let Some(live) = from.and_then(|generation| self.live_mut(generation)) {
            *live = live.saturating_sub(1);
        }
        if let Some(live) = to.and_then(|generation| self.live_mut(generation)) {
            *live = live.saturating_add(1);
        }
    }

    fn live_mut(&mut self, generation: u64) -> Option<&mut u64> {
        if generation == 0 {
            return Some(&mut self.before_snapshots);
        }
        self.get_mut(generation).map(|generation| &mut generation.live)
    }

    /// Forgets all but the newest [`REMEMBERED_SWEPT`] generations older than `swept`, which no row is in any more.
    pub(crate) fn prune(&mut self, swept: u64) {
        let older = self.rank(swept).unwrap_or(0).saturating_sub(1);
        self.known.drain(..older.saturating_sub(REMEMBERED_SWEPT));
    }
}
