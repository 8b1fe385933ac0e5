//! A reference reader of one page: partitions, applied offsets, announcements, sweeps, sums. No Kafka, no engine.

use std::collections::BTreeMap;

use schemas::debezium::{self, RowChange};
use schemas::{GoodId, Movement, Rejection, RowId};

use crate::{Chunk, ChunkLimits, Fate, Outcome, Partition, Plan, Row, SnapshotComplete, SweepPolicy, apply};

/// One record of a log.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) change: Option<Result<RowChange, Rejection>>,
}

impl Logged {
    /// Reads one record as the application would.
    pub(super) fn read(partition: i32, offset: i64, timestamp: i64, key: Option<&str>, value: Option<&str>) -> Self {
        let record = debezium::Decoder::new(1 << 20).decode(key.map(str::as_bytes), value.map(str::as_bytes));
        let change = match record.change {
            Ok(change) => change.into_row(),
            Err(rejection) => Some(Err(rejection)),
        };
        Self { partition, offset, timestamp, change }
    }
}

/// One input partition.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) partition: Partition,
    pub(super) rows: BTreeMap<RowId, Row>,
    next_offset: i64,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) inputs: BTreeMap<i32, Input>,
    pub(super) sums: BTreeMap<GoodId, (i128, i64)>,
    pub(super) announced: Vec<SnapshotComplete>,
    pub(super) policy: SweepPolicy,
    pub(super) limits: ChunkLimits,
    pub(super) applied: usize,
    pub(super) redelivered: usize,
    pub(super) stale: usize,
    pub(super) refused: Vec<Rejection>,
    pub(super) recognised: usize,
    pub(super) removed: u64,
}

impl Replay {
    /// A reader that never holds a sweep, in tiny chunks.
    pub(super) fn new(partitions: i32) -> Self {
        let policy = SweepPolicy { hold_above_percent: 100, ..SweepPolicy::default() };
        let inputs = (0..partitions).map(|partition| (partition, Input::default())).collect();
        Self { inputs, policy, limits: ChunkLimits { scanned: 7, changed: 3 }, ..Self::default() }
    }

    /// Reads one record; `true` when it ended a snapshot.
    pub(super) fn read(&mut self, record: &Logged) -> bool {
        let input = self.inputs.entry(record.partition).or_default();
        if record.offset < input.next_offset {
            self.recognised += 1;
            return false;
        }
        input.next_offset = record.offset + 1;
        let change = match &record.change {
            None => return false,
            Some(Err(rejection)) => {
                self.refused.push(rejection.clone());
                return false;
            }
            Some(Ok(change)) => change,
        };
        let decision = apply(&mut input.partition, input.rows.get(&change.id), change);
        if let Some(row) = decision.row {
            input.rows.insert(change.id.clone(), row);
        }
        decision.movements.into_iter().flatten().for_each(|movement| add(&mut self.sums, movement));
        match decision.outcome {
            Outcome::Applied => self.applied += 1,
            Outcome::Redelivered => self.redelivered += 1,
            Outcome::Stale => self.stale += 1,
            Outcome::Refused(rejection) => self.refused.push(rejection),
        }
        self.announced.extend(decision.announce);
        decision.announce.is_some()
    }

    /// Hands all announcements to all partitions, as a worker does after an assignment, and sweeps.
    pub(super) fn sweep(&mut self) {
        for partition in self.inputs.keys().copied().collect::<Vec<_>>() {
            self.sweep_one(partition, usize::MAX);
        }
    }

    /// The same for one partition and the first announcements only.
    pub(super) fn sweep_one(&mut self, partition: i32, announcements: usize) {
        let Self { inputs, announced, policy, limits, sums, removed, .. } = self;
        let Some(input) = inputs.get_mut(&partition) else { return };
        for complete in announced.iter().take(announcements) {
            input.partition.announce(complete.snapshot_lsn, complete.ts_ms);
            while let Plan::Started { .. } = input.partition.plan_sweep(policy) {
                *removed += sweep_input(input, *limits, sums);
            }
        }
    }

    /// What remains, goods without rows left out; their sums must be nothing.
    pub(super) fn remains(&self) -> BTreeMap<i64, i128> {
        let empty = self.sums.iter().filter(|(_, (_, rows))| *rows == 0);
        for (good, (remains, _)) in empty {
            assert_eq!(*remains, 0, "good {good} has no rows but remains");
        }
        let live = self.sums.iter().filter(|(_, (_, rows))| *rows != 0);
        live.map(|(good, (remains, _))| (good.integer().unwrap(), *remains)).collect()
    }

    /// The books agree with the rows: live counters per generation, and no row in a forgotten generation.
    pub(super) fn check_books(&self) {
        for (number, input) in &self.inputs {
            let generations = input.partition.generations();
            let live = |generation: u64| {
                let rows = input.rows.values().filter(|row| row.content.is_some() && row.generation == generation);
                rows.count() as u64
            };
            assert_eq!(generations.before_snapshots, live(0), "partition {number}");
            for generation in generations.known() {
                assert_eq!(generation.live, live(generation.snapshot_lsn), "partition {number}, {generation:?}");
            }
            assert_eq!(generations.live(), input.rows.values().filter(|row| row.content.is_some()).count() as u64);
            assert!(input.rows.values().all(|row| generations.rank(row.generation).is_some()));
        }
    }
}

/// Runs the started sweep to its end, chunk by chunk; gives the number of rows removed.
fn sweep_input(input: &mut Input, limits: ChunkLimits, sums: &mut BTreeMap<GoodId, (i128, i64)>) -> u64 {
    loop {
        // The partition's record goes through its JSON between chunks, as after a crash.
        let mut value = Vec::new();
        input.partition.encode(&mut value);
        input.partition = Partition::decode(&value).unwrap();

        let cursor = input.partition.sweep().unwrap().after.clone();
        let mut chunk = Chunk::new(limits, cursor.clone());
        let after = |id: &RowId| cursor.as_ref().is_none_or(|cursor| id > cursor);
        let mut rows = input.rows.iter().filter(|(id, _)| after(id));
        let full = rows.any(|(id, row)| !chunk.offer(&input.partition, id.clone(), row));
        for id in chunk.candidates() {
            let settled = input.partition.settle(&input.rows[id]);
            match settled.fate {
                Fate::Stays => {}
                Fate::Lifted(row) => _ = input.rows.insert(id.clone(), row),
                Fate::Gone => _ = input.rows.remove(id),
            }
            settled.movement.into_iter().for_each(|movement| add(sums, movement));
        }
        input.partition.advance_sweep(chunk.cursor());
        if !full {
            return input.partition.finish_sweep().unwrap().removed;
        }
    }
}

fn add(sums: &mut BTreeMap<GoodId, (i128, i64)>, movement: Movement) {
    let sum = sums.entry(movement.good_id).or_default();
    sum.0 += movement.delta;
    sum.1 += movement.transactions;
}
