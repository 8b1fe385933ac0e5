//! Arbitrary histories of a source, sent by a connector that crashes, redelivers, loses its offsets and snapshots
//! again, read with arbitrary lag: the sums end at the truth.
//!
//! The model of the source and its connector follows what was seen on real servers: lsns in order of changes,
//! records in order of commits, transactions that straddle a snapshot, rows deleted while nobody was looking, late
//! batches of an older connector.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use schemas::debezium::{ChangeOperation, RowChange, Snapshot, Source};
use schemas::{Content, Movement};

use super::events::id;
use super::replay::{Logged, Replay};

const PARTITIONS: usize = 3;
/// This row always lives, so that every snapshot has an end (an empty table leaves no trace on the topic).
const ANCHOR: u8 = 0;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A row is written (or deleted) and committed at once.
    Change { row: u8, content: Option<(u8, i8)> },
    /// The same inside a transaction that stays open.
    OpenChange { row: u8, content: Option<(u8, i8)> },
    /// The open transaction commits.
    Commit,
    /// The connector stops; what is committed from now on waits, or is lost with the offsets.
    Stop,
    /// It starts again from its stored offset: what waited is sent, and some of what was sent already.
    Restart { again: u8 },
    /// It starts without offsets: a new snapshot, complete or cut short.
    Snapshot { complete: bool },
    /// An incremental snapshot of all rows.
    Incremental,
    /// Records of an older connector's last snapshot arrive late.
    LateSnapshotRecords { count: u8 },
    /// Streamed records of an older connector arrive late.
    LateStreamed { count: u8 },
    /// The producer sends the end of one partition again: its last request was answered too late.
    Retry { partition: u8, count: u8 },
    /// The reader reads everything and sweeps.
    CatchUp,
    /// The reader reads on in one partition.
    Read { partition: u8, count: u8 },
    /// The reader handles announcements where it may, and sweeps.
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let content = || proptest::option::weighted(0.7, (0_u8..3, any::<i8>()));
    prop_oneof![
        8 => (1_u8..8, content()).prop_map(|(row, content)| Step::Change { row, content }),
        3 => (1_u8..8, content()).prop_map(|(row, content)| Step::OpenChange { row, content }),
        2 => Just(Step::Commit),
        2 => Just(Step::Stop),
        2 => (0_u8..6).prop_map(|again| Step::Restart { again }),
        3 => any::<bool>().prop_map(|complete| Step::Snapshot { complete }),
        1 => Just(Step::Incremental),
        1 => (1_u8..4).prop_map(|count| Step::LateSnapshotRecords { count }),
        1 => (1_u8..4).prop_map(|count| Step::LateStreamed { count }),
        1 => (0_u8..3, 1_u8..5).prop_map(|(partition, count)| Step::Retry { partition, count }),
        3 => Just(Step::CatchUp),
        6 => (0_u8..3, 1_u8..10).prop_map(|(partition, count)| Step::Read { partition, count }),
        2 => Just(Step::Sweep),
    ]
}

#[derive(Default)]
struct Model {
    clock: u64,
    truth: BTreeMap<u8, Content>,
    open: Vec<RowChange>,
    locked: BTreeSet<u8>,
    /// Committed and not sent: the connector is down.
    waiting: Vec<RowChange>,
    down: bool,
    /// Streamed by this connector since its snapshot; what a restart may send again.
    sent: Vec<RowChange>,
    last_commit: Option<u64>,
    snapshot_records: Vec<RowChange>,
    older_snapshot_records: Vec<RowChange>,
    older_sent: Vec<RowChange>,
    /// Something was lost since the last complete snapshot: only another one can tell.
    unproven: bool,
    logs: [Vec<RowChange>; PARTITIONS],
    read: [usize; PARTITIONS],
    /// Where the records of the present connector begin.
    connector_from: [usize; PARTITIONS],
    reader: Replay,
    /// Announcements with the ends of the partitions as of when each was read.
    boundaries: Vec<[usize; PARTITIONS]>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self { reader: Replay::new(3), ..Self::default() };
        model.reader.announced.clear();
        model.truth.insert(ANCHOR, Content { good_id: 9.into(), pieces: 1 });
        model.snapshot(true);
        model
    }

    fn tick(&mut self) -> u64 {
        self.clock += 10;
        self.clock
    }

    fn append(&mut self, change: RowChange) {
        let partition = usize::from(change.id.as_bytes()[15]) % PARTITIONS;
        self.logs[partition].push(change);
    }

    fn append_all(&mut self, changes: Vec<RowChange>) {
        for change in changes {
            self.append(change);
        }
    }

    fn change(&mut self, row: u8, content: Option<(u8, i8)>) -> Option<RowChange> {
        if self.locked.contains(&row) || content.is_none() && !self.truth.contains_key(&row) {
            return None;
        }
        let lsn = self.tick();
        let content = content.map(|(good, pieces)| Content { good_id: i64::from(good).into(), pieces: pieces.into() });
        let operation = if content.is_some() { ChangeOperation::Update } else { ChangeOperation::Delete };
        let source = Source { snapshot: Snapshot::Streaming, lsn: Some(lsn), commit_lsn: None, ts_ms: 0 };
        Some(RowChange { operation, id: id(row.into()), content: content.map(Ok), partial: None, source })
    }

    fn commit(&mut self, changes: Vec<RowChange>) {
        let commit_lsn = self.tick();
        for mut change in changes {
            change.source.ts_ms = i64::try_from(commit_lsn).unwrap();
            let row = change.id.as_bytes()[15];
            match &change.content {
                Some(content) => _ = self.truth.insert(row, content.clone().unwrap()),
                None => _ = self.truth.remove(&row),
            }
            self.waiting.push(change);
        }
        if !self.down {
            self.send_waiting(commit_lsn);
        }
    }

    fn send_waiting(&mut self, commit_lsn: u64) {
        for mut change in std::mem::take(&mut self.waiting) {
            change.source.commit_lsn = self.last_commit;
            self.sent.push(change.clone());
            self.append(change);
        }
        self.last_commit = Some(commit_lsn);
    }

    fn snapshot(&mut self, complete: bool) {
        let lsn = self.tick();
        self.unproven |= !self.waiting.is_empty() || !complete;
        self.unproven &= !complete;
        self.waiting.clear();
        self.down = false;
        self.last_commit = None;
        self.connector_from = self.logs.each_ref().map(Vec::len);
        self.older_sent = std::mem::take(&mut self.sent);
        let mut records: Vec<RowChange> = self
            .truth
            .iter()
            .map(|(row, content)| RowChange {
                operation: ChangeOperation::Read,
                id: id((*row).into()),
                content: Some(Ok(content.clone())),
                partial: None,
                source: Source {
                    snapshot: Snapshot::Part,
                    lsn: Some(lsn),
                    commit_lsn: None,
                    ts_ms: i64::try_from(lsn).unwrap(),
                },
            })
            .collect();
        if complete {
            records.last_mut().unwrap().source.snapshot = Snapshot::Last;
        } else {
            records.truncate(records.len() / 2);
        }
        self.append_all(records.clone());
        self.older_snapshot_records = std::mem::replace(&mut self.snapshot_records, records);
        if !complete {
            // A snapshot cut short is never streamed from: the connector begins again.
            self.down = true;
        }
    }

    fn happen(&mut self, step: &Step) {
        match *step {
            Step::Change { row, content } => {
                if let Some(change) = self.change(row, content) {
                    self.commit(vec![change]);
                }
            }
            Step::OpenChange { row, content } => {
                if let Some(change) = self.change(row, content) {
                    self.locked.insert(row);
                    self.open.push(change);
                }
            }
            Step::Commit => {
                self.locked.clear();
                let open = std::mem::take(&mut self.open);
                self.commit(open);
            }
            Step::Stop => self.down = true,
            Step::Restart { again } => {
                if self.down && self.snapshot_is_complete() {
                    self.down = false;
                    let from = self.sent.len().saturating_sub(again.into());
                    let again: Vec<RowChange> = self.sent[from..].to_vec();
                    self.append_all(again);
                    let now = self.clock;
                    self.send_waiting(now);
                }
            }
            Step::Snapshot { complete } => self.snapshot(complete),
            Step::Incremental => self.incremental(),
            Step::LateSnapshotRecords { count } => {
                let late: Vec<RowChange> = self.older_snapshot_records.iter().take(count.into()).cloned().collect();
                self.append_all(late);
            }
            Step::LateStreamed { count } => {
                let known = |change: &&RowChange| change.source.commit_lsn.is_some();
                let late: Vec<RowChange> = self.older_sent.iter().filter(known).take(count.into()).cloned().collect();
                self.append_all(late);
            }
            Step::Retry { partition, count } => {
                // Of this connector alone: one request holds nothing of two.
                let partition = usize::from(partition);
                let log = &mut self.logs[partition];
                let from = log.len().saturating_sub(count.into()).max(self.connector_from[partition]);
                log.extend_from_within(from..);
            }
            Step::CatchUp => self.catch_up(),
            Step::Read { partition, count } => self.read(partition.into(), count.into()),
            Step::Sweep => self.sweep(),
        }
    }

    fn snapshot_is_complete(&self) -> bool {
        self.snapshot_records.last().is_some_and(|record| record.source.snapshot == Snapshot::Last)
    }

    fn incremental(&mut self) {
        if self.down {
            return;
        }
        let ts_ms = i64::try_from(self.tick()).unwrap();
        for (row, content) in self.truth.clone() {
            let source = Source { snapshot: Snapshot::Incremental, lsn: None, commit_lsn: self.last_commit, ts_ms };
            let content = Some(Ok(content));
            self.append(RowChange {
                operation: ChangeOperation::Read,
                id: id(row.into()),
                content,
                partial: None,
                source,
            });
        }
    }

    fn read(&mut self, partition: usize, count: usize) {
        for _ in 0..count {
            let offset = self.read[partition];
            let Some(change) = self.logs[partition].get(offset).cloned() else { return };
            self.read[partition] += 1;
            let record = Logged {
                partition: i32::try_from(partition).unwrap(),
                offset: i64::try_from(offset).unwrap(),
                timestamp: 0,
                change: Some(Ok(change)),
            };
            if self.reader.read(&record) {
                self.boundaries.push(self.logs.each_ref().map(Vec::len));
            }
        }
    }

    /// Handles announcements as a worker does: per partition, in order, each only once read past its boundary.
    fn sweep(&mut self) {
        for partition in 0..PARTITIONS {
            let due = self.boundaries.iter().take_while(|ends| self.read[partition] >= ends[partition]).count();
            self.reader.sweep_one(i32::try_from(partition).unwrap(), due);
        }
        self.reader.check_books();
    }

    fn finish(&mut self) {
        self.happen(&Step::Commit);
        if self.unproven || self.down {
            self.snapshot(true);
        }
        self.catch_up();
    }

    fn catch_up(&mut self) {
        (0..PARTITIONS).for_each(|partition| self.read(partition, usize::MAX));
        self.sweep();
    }

    fn expected(&self) -> BTreeMap<i64, i128> {
        let mut sums = BTreeMap::new();
        for content in self.truth.values() {
            let movement = Movement { good_id: content.good_id.clone(), delta: content.pieces.into(), transactions: 1 };
            *sums.entry(movement.good_id.integer().unwrap()).or_default() += movement.delta;
        }
        sums
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Invariant 1, for the rule alone.
    #[test]
    fn every_history_ends_at_the_truth(steps in proptest::collection::vec(step(), 0..60)) {
        let mut model = Model::new();
        for step in &steps {
            model.happen(step);
        }
        model.finish();
        prop_assert_eq!(model.reader.remains(), model.expected());
        prop_assert_eq!(&model.reader.refused, &[]);
    }
}
