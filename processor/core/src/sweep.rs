//! The sweep: rows that a complete snapshot proves gone.
//!
//! A connector that lost its offsets sends every live row again; rows deleted meanwhile are simply missing, and no
//! delete ever comes. Once a *complete* snapshot S has been read past, every id still in an older generation no
//! longer exists, and its contribution is taken off. Owns which sweep may run, which row it takes, and how far it
//! has come; guards invariant 1.
//!
//! Bounded per transaction and resumable: the cursor is part of the partition's record. Two conditions the caller
//! keeps: a sweep is *started* in one transaction and scanned only in later ones (ids added before the start in the
//! same transaction would be missing from the scan), and each candidate is looked up again before it is settled.

use schemas::{Movement, RowId};

use crate::generations::Generation;
use crate::partition::{Held, Partition, Sweep};
use crate::row::Row;
use crate::rule::movements;

/// When a sweep may run without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepPolicy {
    /// Off: nothing is swept but what an operator approves.
    pub enabled: bool,
    /// A sweep that would remove more than this share of a partition's live rows, in percent, is held until an
    /// operator approves it. 100 never holds. It counts rows of older generations, so it never guesses too low.
    pub hold_above_percent: u8,
    /// Sweeps of at most this many rows are never held: in a small partition any share is reached by chance.
    pub hold_above_rows: u64,
}

impl Default for SweepPolicy {
    /// On; more than half of a partition and more than 1,000 rows are held. Half, because a shop that lost more than
    /// half its history unseen has rather a filtered or broken snapshot.
    fn default() -> Self {
        Self { enabled: true, hold_above_percent: 50, hold_above_rows: 1_000 }
    }
}

impl SweepPolicy {
    fn holds(&self, would_remove: u64, live: u64) -> bool {
        let share = u128::from(would_remove) * 100;
        would_remove > self.hold_above_rows && share > u128::from(live) * u128::from(self.hold_above_percent)
    }
}

/// What [`Partition::plan_sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing to start, or nothing new.
    Nothing,
    /// A sweep begins with the next transaction.
    Started {
        /// The snapshot.
        generation: u64,
        /// Live rows it removes at most.
        at_most: u64,
    },
    /// The newest one now waits for an operator (told once).
    Held(Held),
}

/// What became of an operator's approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// Noted.
    Accepted,
    /// Noted before, or swept already.
    Known,
    /// This partition knows no such snapshot.
    Unknown,
}

/// What a sweep does with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// In the swept generation or a newer one.
    Stays,
    /// The new connector touched it before this partition knew of its snapshot: it exists, in that generation.
    Lifted(Row),
    /// Proven gone (or the marker of a row that is gone).
    Gone,
}

/// A row's fate, put into effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What to do with the row.
    pub fate: Fate,
    /// What its removal moves.
    pub movement: Option<Movement>,
}

/// Bounds of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Rows looked at.
    pub scanned: usize,
    /// Rows changed.
    pub changed: usize,
}

impl Default for ChunkLimits {
    /// A few milliseconds of scanning, and a transaction no larger than a batch of events makes.
    fn default() -> Self {
        Self { scanned: 5_000, changed: 1_000 }
    }
}

/// One bounded piece of a scan: rows are offered in order of their id, and those that do not stay are noted.
#[derive(Debug)]
pub struct Chunk {
    limits: ChunkLimits,
    scanned: usize,
    candidates: Vec<RowId>,
    cursor: Option<RowId>,
}

impl Chunk {
    /// An empty chunk that continues after `cursor`.
    pub fn new(limits: ChunkLimits, cursor: Option<RowId>) -> Self {
        Self { limits, scanned: 0, candidates: Vec::new(), cursor }
    }

    /// Looks at one stored row; `false` when the chunk is full.
    pub fn offer(&mut self, partition: &Partition, id: RowId, row: &Row) -> bool {
        self.scanned += 1;
        if partition.fate(row) != Fate::Stays {
            self.candidates.push(id.clone());
        }
        self.cursor = Some(id);
        self.scanned < self.limits.scanned && self.candidates.len() < self.limits.changed
    }

    /// Ids whose rows do not stay, as far as the store tells.
    pub fn candidates(&self) -> &[RowId] {
        &self.candidates
    }

    /// The last id looked at: where the next chunk continues.
    pub fn cursor(&self) -> Option<&RowId> {
        self.cursor.as_ref()
    }

    /// Rows looked at.
    pub fn scanned(&self) -> usize {
        self.scanned
    }
}

impl Partition {
    /// Notes that an initial snapshot is complete; an unknown one becomes a generation here by this alone. `false`
    /// when nothing changed: announcements are read again after every assignment.
    pub fn announce(&mut self, snapshot_lsn: u64, ts_ms: i64) -> bool {
        if snapshot_lsn == 0 {
            return false;
        }
        // An announcement brings no row that would speak for it. One older by its time than the last sweep is a
        // remembered one of a forgotten snapshot, whatever its number: sweeping it again would remove everything.
        let swept_ts_ms = self.generations.get(self.swept).and_then(|generation| generation.ts_ms);
        let unknown = self.generations.get(snapshot_lsn).is_none();
        if unknown && swept_ts_ms.is_some_and(|swept| ts_ms <= swept) {
            return false;
        }
        let opened = self.open(snapshot_lsn, Some(ts_ms), true);
        match self.generations.get_mut(snapshot_lsn) {
            Some(generation) if !generation.complete => {
                generation.complete = true;
                true
            }
            _ => opened,
        }
    }

    /// Notes an operator's word that the source table was empty at a position: an empty snapshot leaves no trace on
    /// the topic. Everything older goes, without a guard; the operator has been asked.
    pub fn announce_emptied(&mut self, at_lsn: u64) -> bool {
        if at_lsn == 0 || at_lsn <= self.generations.current() && self.generations.get(at_lsn).is_none() {
            return false;
        }
        let opened = self.open(at_lsn, None, true);
        self.approve(at_lsn) == Approval::Accepted || opened
    }

    /// Notes an operator's approval of one snapshot's sweep.
    pub fn approve(&mut self, snapshot_lsn: u64) -> Approval {
        let swept = self.swept_rank();
        let rank = self.generations.rank(snapshot_lsn).unwrap_or(0);
        match self.generations.get_mut(snapshot_lsn) {
            None => Approval::Unknown,
            Some(generation) if generation.approved || rank <= swept => Approval::Known,
            Some(generation) => {
                generation.approved = true;
                Approval::Accepted
            }
        }
    }

    /// Starts the newest sweep that may run, unless one is running. If the newest complete snapshot may not, it is
    /// held, and the next older one is considered: what that one removes is gone in any case.
    pub fn plan_sweep(&mut self, policy: &SweepPolicy) -> Plan {
        if self.sweep.is_some() {
            return Plan::Nothing;
        }
        let live = self.generations.live();
        let mut held = None;
        let mut start = None;
        let swept = self.swept_rank();
        for (index, generation) in self.generations.known().iter().enumerate().skip(swept).rev() {
            let at_most = self.generations.live_below(index + 1);
            if generation.approved || generation.complete && policy.enabled && !policy.holds(at_most, live) {
                start = Some((generation.snapshot_lsn, at_most));
                break;
            }
            if generation.complete && policy.enabled && held.is_none() {
                held = Some(Held { generation: generation.snapshot_lsn, would_remove: at_most, live });
            }
        }
        let news = held.map(|held| held.generation) != self.held.map(|held| held.generation);
        if news {
            self.held = held;
        }
        if let Some((generation, at_most)) = start {
            self.sweep = Some(Sweep { generation, after: None, removed: 0, markers: 0, lifted: 0 });
            return Plan::Started { generation, at_most };
        }
        held.filter(|_| news).map_or(Plan::Nothing, Plan::Held)
    }

    /// What the running sweep does with a row.
    pub fn fate(&self, row: &Row) -> Fate {
        let Some(sweep) = &self.sweep else { return Fate::Stays };
        let rank = |generation| self.generations.rank(generation).unwrap_or(0);
        if rank(row.generation) >= rank(sweep.generation) {
            return Fate::Stays;
        }
        if self.generations.get(sweep.generation).is_some_and(|swept| touched_after(row, swept)) {
            return Fate::Lifted(Row { generation: sweep.generation, ..row.clone() });
        }
        Fate::Gone
    }

    /// Decides a candidate's fate and keeps the books. `row` as it stands now, own writes of the transaction included.
    pub fn settle(&mut self, row: &Row) -> Settled {
        let fate = self.fate(row);
        let live_in = row.content.as_ref().map(|_| row.generation);
        let Some(sweep) = &mut self.sweep else { return Settled { fate, movement: None } };
        let mut movement = None;
        match &fate {
            Fate::Stays => {}
            Fate::Lifted(lifted) => {
                sweep.lifted += 1;
                self.generations.count(live_in, live_in.map(|_| lifted.generation));
            }
            Fate::Gone => {
                match row.content {
                    Some(_) => sweep.removed += 1,
                    None => sweep.markers += 1,
                }
                self.generations.count(live_in, None);
                [movement, _] = movements(row.content.as_ref(), None);
            }
        }
        Settled { fate, movement }
    }

    /// Notes how far the scan has come.
    pub fn advance_sweep(&mut self, cursor: Option<&RowId>) {
        if let Some(sweep) = &mut self.sweep {
            sweep.after = cursor.cloned();
        }
    }

    /// Notes that the scan has reached the end; gives the finished sweep. Generations that no row can be in any more
    /// are forgotten.
    pub fn finish_sweep(&mut self) -> Option<Sweep> {
        let finished = self.sweep.take()?;
        self.swept = finished.generation;
        let swept = self.swept_rank();
        let rank = |generation| self.generations.rank(generation).unwrap_or(0);
        if self.held.is_some_and(|held| rank(held.generation) <= swept) {
            self.held = None;
        }
        self.generations.prune(self.swept);
        Some(finished)
    }
}

/// Whether an event of the connector that took the snapshot has touched the row, although the row is in an older
/// generation: possible where the partition had no row of the snapshot and so did not know of it yet.
///
/// It is certain when the connector had seen a commit at or after S, or the change itself lies there. A straddling
/// change sent before the connector has seen any commit has neither; only its commit time tells it, and that is
/// trusted only where the snapshot became known by announcement: elsewhere its rows came first, and later events got
/// its generation.
fn touched_after(row: &Row, swept: &Generation) -> bool {
    let by_commit = row.commit_lsn.is_some_and(|commit_lsn| commit_lsn >= swept.snapshot_lsn);
    let by_lsn = row.streaming && row.lsn >= swept.snapshot_lsn;
    let by_time = swept.announced
        && row.streaming
        && row.commit_lsn.is_none()
        && swept.ts_ms.is_some_and(|ts_ms| row.ts_ms >= ts_ms);
    by_commit || by_lsn || by_time
}
