//! What is judged: plain data, however it was come by.

use std::collections::BTreeMap;

use crate::client::{GroupOffset, Record};

/// What one live source row contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contribution {
    /// The good.
    pub good: i64,
    /// Signed pieces: positive for `add`, negative for `remove`; units of a piece where they are not whole.
    pub pieces: i64,
}

/// Ends of a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnds {
    /// First offset that is still there.
    pub start: i64,
    /// Last stable offset: no transaction is open before it.
    pub last_stable: i64,
    /// Next offset to be written.
    pub high_watermark: i64,
}

/// A topic, read twice.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What a `read_committed` reader gets, by partition and offset.
    pub committed: Vec<Record>,
    /// What a `read_uncommitted` reader gets, by partition and offset.
    pub uncommitted: Vec<Record>,
    /// Where each partition begins and ends.
    pub ends: BTreeMap<i32, LogEnds>,
    /// Whether compaction may have removed records. Gaps in versions are then no finding.
    pub compacted: bool,
}

/// What one `read_committed` reader received while the system ran, in the order of arrival.
#[derive(Debug, Clone, Default)]
pub struct LiveRead {
    /// Name of the topic.
    pub topic: String,
    /// The records. Offsets of one partition must come in order.
    pub records: Vec<Record>,
}

/// A row of `remains.remains`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRow {
    /// Pieces, or units of a piece.
    pub cnt: i128,
    /// Epoch of the output the row comes from, ms since 1970.
    pub epoch: u64,
    /// Version of the good within the epoch.
    pub version: u64,
}

/// Everything about one job, collected while nothing moved.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// How many digits quantities have behind the point.
    pub scale: u32,
    /// What the source ended with, by row id: the workload's own log, or the source table. `None` = not known.
    pub rows: Option<BTreeMap<String, Contribution>>,
    /// The input topic.
    pub input: Topic,
    /// `<prefix>.transactions`.
    pub changelog: Topic,
    /// `<prefix>.movements`.
    pub movements: Topic,
    /// `<prefix>.deltas`.
    pub deltas: Topic,
    /// `<prefix>.dead-letters`.
    pub dead_letters: Topic,
    /// The processor group's offsets of the input, by partition.
    pub input_offsets: BTreeMap<i32, GroupOffset>,
    /// The processor group's offsets of the movements, by partition.
    pub movement_offsets: BTreeMap<i32, GroupOffset>,
    /// What live readers received.
    pub live: Vec<LiveRead>,
    /// The target's rows by good. `None` = not looked at.
    pub target: Option<BTreeMap<i64, TargetRow>>,
}

impl Facts {
    /// All topics, input first.
    pub fn topics(&self) -> [&Topic; 5] {
        [&self.input, &self.changelog, &self.movements, &self.deltas, &self.dead_letters]
    }
}
