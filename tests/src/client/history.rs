//! Captures of real change events, and replaying them into a topic.
//!
//! Owns reading `tests/data` and the promise that a replay is the capture: the same partitions, the same order in
//! each, and the same offsets when the topic was empty. A replay is done in slices, so that a scenario can kill
//! something between two of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;

use super::kafka::Kafka;
use super::records::OutgoingRecord;

/// One line of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturedRecord {
    /// Partition it was captured from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp: i64,
    /// Those headers of the connector that matter.
    pub headers: BTreeMap<String, String>,
    /// Key.
    pub key: Option<String>,
    /// Value; `None` is a tombstone.
    pub value: Option<String>,
}

/// A whole capture.
#[derive(Debug, Clone)]
pub struct History {
    /// Its records in an order in which they can be replayed: by offset within each partition, and across partitions
    /// by time, as they were written.
    pub records: Vec<CapturedRecord>,
}

/// `tests/data` of the project.
pub fn data_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// Reads `<name>.expected.csv` below [`data_directory`]: good → pieces over the rows alive at the end.
/// Goods that are not listed have no rows left, and remains of 0.
pub fn expected_remains(name: &str) -> Result<BTreeMap<i64, i64>> {
    let path = data_directory().join(format!("{name}.expected.csv"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (good, pieces) = line.split_once(',').with_context(|| format!("no good,pieces: {line}"))?;
            Ok((good.trim().parse()?, pieces.trim().parse()?))
        })
        .collect::<Result<_>>()
        .with_context(|| format!("{} is not good,pieces on each line", path.display()))
}

impl History {
    /// Reads a capture below [`data_directory`], e.g. `debezium-capture/history` (`.jsonl.gz`, `.jsonl` or `.json`).
    pub fn load(name: &str) -> Result<Self> {
        let candidates = ["jsonl.gz", "jsonl", "json"].map(|ending| data_directory().join(format!("{name}.{ending}")));
        let path =
            candidates.iter().find(|path| path.is_file()).with_context(|| format!("there is no capture {name}"))?;
        let file = File::open(path)?;
        let reader: Box<dyn Read> = if path.extension().is_some_and(|ending| ending == "gz") {
            Box::new(GzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut records = Vec::new();
        for line in BufReader::new(reader).lines() {
            let line = line.with_context(|| format!("cannot read {}", path.display()))?;
            records.push(serde_json::from_str(&line).with_context(|| format!("{} is damaged", path.display()))?);
        }
        Self::new(records).with_context(|| format!("{} cannot be replayed", path.display()))
    }

    /// Puts records into replay order; fails where a partition has a gap, because a replay could not have its offsets.
    pub fn new(records: Vec<CapturedRecord>) -> Result<Self> {
        let total = records.len();
        let mut partitions: BTreeMap<i32, VecDeque<CapturedRecord>> = BTreeMap::new();
        for record in records {
            let queue = partitions.entry(record.partition).or_default();
            if let Some(last) = queue.back() {
                ensure!(
                    record.offset == last.offset + 1,
                    "partition {} goes from offset {} to {}",
                    record.partition,
                    last.offset,
                    record.offset
                );
            }
            queue.push_back(record);
        }
        // A merge, not a sort: order within a partition must not depend on its timestamps.
        let mut merged = Vec::with_capacity(total);
        while let Some(record) = partitions
            .values_mut()
            .filter(|queue| !queue.is_empty())
            .min_by_key(|queue| queue.front().map(|record| record.timestamp))
            .and_then(VecDeque::pop_front)
        {
            merged.push(record);
        }
        Ok(Self { records: merged })
    }

    /// The same history with only the records of which `keep` is true. Offsets are no longer those of the capture.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&CapturedRecord) -> bool) -> Vec<OutgoingRecord> {
        self.records.iter().filter(|record| keep(record)).map(OutgoingRecord::from).collect()
    }
}

impl From<&CapturedRecord> for OutgoingRecord {
    fn from(record: &CapturedRecord) -> Self {
        Self {
            partition: record.partition,
            timestamp_ms: Some(record.timestamp),
            key: record.key.clone().map(String::into_bytes),
            value: record.value.clone().map(String::into_bytes),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), Some(value.clone().into_bytes())))
                .collect(),
        }
    }
}

/// A capture on its way into a topic.
#[derive(Debug)]
pub struct Replay<'a> {
    kafka: &'a Kafka,
    topic: String,
    remaining: &'a [CapturedRecord],
    /// By partition: offset in the topic minus offset in the capture.
    shift: BTreeMap<i32, i64>,
}

impl<'a> Replay<'a> {
    /// Prepares a replay to the present end of `topic`, which must have all partitions of the capture.
    pub fn new(kafka: &'a Kafka, topic: &str, history: &'a History) -> Result<Self> {
        let mut shift = BTreeMap::new();
        for record in &history.records {
            if let Entry::Vacant(entry) = shift.entry(record.partition) {
                let (_, end) = kafka.watermarks(topic, record.partition)?;
                entry.insert(end - record.offset);
            }
        }
        Ok(Self { kafka, topic: topic.to_owned(), remaining: &history.records, shift })
    }

    /// How many records are still to come.
    pub fn remaining(&self) -> usize {
        self.remaining.len()
    }

    /// Writes the next `count` records (or those that are left) and waits until they are stored.
    pub fn write_next(&mut self, count: usize) -> Result<()> {
        let (slice, rest) = self.remaining.split_at(count.min(self.remaining.len()));
        let outgoing: Vec<OutgoingRecord> = slice.iter().map(OutgoingRecord::from).collect();
        let offsets = self.kafka.write(&self.topic, &outgoing)?;
        for (record, offset) in slice.iter().zip(offsets) {
            let expected = record.offset + self.shift.get(&record.partition).context("a partition nobody counted")?;
            if offset != expected {
                bail!(
                    "record {} of partition {} was stored at {offset}, not at {expected}: somebody else writes to {}",
                    record.offset,
                    record.partition,
                    self.topic
                );
            }
        }
        self.remaining = rest;
        Ok(())
    }

    /// Writes everything that is left.
    pub fn write_rest(&mut self) -> Result<()> {
        self.write_next(self.remaining.len())
    }

    /// Writes everything that is left at about `per_second` records a second.
    pub fn write_rest_paced(&mut self, per_second: usize) -> Result<()> {
        const SLICES_PER_SECOND: u32 = 20;
        let slice = (per_second / usize::try_from(SLICES_PER_SECOND)?).max(1);
        let mut due = Instant::now();
        while self.remaining() > 0 {
            self.write_next(slice)?;
            due += Duration::from_secs(1) / SLICES_PER_SECOND;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64, timestamp: i64) -> CapturedRecord {
        CapturedRecord { partition, offset, timestamp, headers: BTreeMap::new(), key: None, value: None }
    }

    #[test]
    fn partitions_are_interleaved_by_time_and_keep_their_own_order() {
        let history =
            History::new(vec![record(0, 0, 10), record(0, 1, 5), record(0, 2, 30), record(1, 0, 7), record(1, 1, 20)])
                .unwrap();
        let order: Vec<_> = history.records.iter().map(|record| (record.partition, record.offset)).collect();
        assert_eq!(order, [(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]);
    }

    #[test]
    fn a_capture_with_a_gap_is_refused() {
        let error = History::new(vec![record(3, 7, 1), record(3, 9, 2)]).unwrap_err();
        assert_eq!(error.to_string(), "partition 3 goes from offset 7 to 9");
    }

    #[test]
    fn every_capture_of_the_project_loads() {
        let counts = [
            ("debezium-capture/every-kind", 16),
            ("debezium-capture/straddling-transaction", 13),
            ("debezium-capture/incremental-snapshot", 1),
            ("debezium-capture/history", 9_261),
            ("debezium-capture/history-concurrent", 14_668),
            ("crafted/blocking-snapshot-cut-short", 5),
            ("crafted/incremental-then-straddling", 7),
            ("crafted/late-batch-of-an-older-snapshot", 5),
            ("crafted/snapshot-without-a-row-here", 4),
        ];
        for (name, count) in counts {
            assert_eq!(History::load(name).unwrap().records.len(), count, "{name}");
        }
        assert_eq!(expected_remains("debezium-capture/history").unwrap().len(), 156);
        assert_eq!(expected_remains("debezium-capture/straddling-transaction").unwrap(), BTreeMap::from([(1, 119)]));
    }
}
