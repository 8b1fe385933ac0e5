//! One partition of a topic: what a broker stores and what it shows to whom.
//!
//! Owns offsets, transactional visibility, control markers, the last stable offset (LSO), log start and
//! compaction. Never decides who may append: epochs are the coordinator's business ([`crate::coordinator`]).
//! Guards invariant 3 of the system on the broker's side: a `read_committed` reader sees a transaction's
//! records after its commit marker or never, in offset order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Number a broker gives a producer when it initialises; stable for a transactional id.
pub type ProducerId = u64;

/// A record as a producer hands it over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredRecord {
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970, virtual.
    pub timestamp_ms: i64,
}

/// What stands at one offset.
#[derive(Debug, Clone)]
enum Entry {
    /// A record; `producer` for a transactional one.
    Record { record: Rc<StoredRecord>, producer: Option<ProducerId>, aborted: bool },
    /// A control marker: takes an offset, is never delivered.
    Marker,
    /// Removed by compaction; the offset stays taken.
    Removed,
}

/// What a `read_committed` reader finds from a position on.
#[derive(Debug, Clone)]
pub enum Next {
    /// A record, and its offset.
    Record(i64, Rc<StoredRecord>),
    /// Nothing more below the LSO; the position after every marker and aborted record passed.
    End(i64),
    /// The position lies before the log start.
    Truncated,
    /// The position lies beyond the high watermark: the log was cut or is another one.
    Beyond,
}

/// One partition's log.
#[derive(Debug, Clone, Default)]
pub struct PartitionLog {
    start: i64,
    entries: VecDeque<Entry>,
    /// Open transactions: offsets of their records, in order.
    open: BTreeMap<ProducerId, Vec<i64>>,
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl PartitionLog {
    /// First offset still there.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Offset after the last entry, markers and open transactions included.
    pub fn high_watermark(&self) -> i64 {
        self.start + length(self.entries.len())
    }

    /// Everything before this offset is decided: committed or aborted.
    pub fn last_stable_offset(&self) -> i64 {
        self.open.values().filter_map(|offsets| offsets.first()).min().copied().unwrap_or_else(|| self.high_watermark())
    }

    /// Whether this producer has an undecided transaction here.
    pub fn has_open(&self, producer: ProducerId) -> bool {
        self.open.contains_key(&producer)
    }

    /// Whether any transaction is undecided here.
    pub fn has_any_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn index(&self, offset: i64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.start)?).ok()
    }

    /// Appends a record; transactional when `producer` is given. Returns its offset.
    pub fn append(&mut self, record: Rc<StoredRecord>, producer: Option<ProducerId>) -> i64 {
        let offset = self.high_watermark();
        self.entries.push_back(Entry::Record { record, producer, aborted: false });
        if let Some(producer) = producer {
            self.open.entry(producer).or_default().push(offset);
        }
        offset
    }

    /// Decides a producer's open transaction by a control marker. Without one a marker is written all the
    /// same, as brokers do for a partition that was added to a transaction but never written to.
    pub fn append_marker(&mut self, producer: ProducerId, commit: bool) {
        let offsets = self.open.remove(&producer).unwrap_or_default();
        if !commit {
            for offset in offsets {
                let index = self.index(offset);
                if let Some(Entry::Record { aborted, .. }) = index.and_then(|index| self.entries.get_mut(index)) {
                    *aborted = true;
                }
            }
        }
        self.entries.push_back(Entry::Marker);
    }

    /// Finds the next record a `read_committed` reader gets at or after `position`.
    pub fn next_committed(&self, position: i64) -> Next {
        if position < self.start {
            return Next::Truncated;
        }
        if position > self.high_watermark() {
            return Next::Beyond;
        }
        let end = self.last_stable_offset();
        let mut offset = position;
        while offset < end {
            match self.index(offset).and_then(|index| self.entries.get(index)) {
                Some(Entry::Record { record, aborted: false, .. }) => return Next::Record(offset, Rc::clone(record)),
                Some(_) => offset += 1,
                None => break,
            }
        }
        Next::End(offset)
    }

    /// Deletes everything before `offset`, at most up to the high watermark.
    pub fn delete_before(&mut self, offset: i64) {
        let offset = offset.min(self.high_watermark());
        while self.start < offset && self.entries.pop_front().is_some() {
            self.start += 1;
        }
    }

    /// Cuts the log back to `offset`, as an unclean leader election does. Later records are gone.
    pub fn truncate(&mut self, offset: i64) {
        let keep = self.index(offset).unwrap_or(0);
        self.entries.truncate(keep);
        self.open.clear();
    }

    /// Removes, below both `below` and the LSO, aborted records, markers and records that have a newer one
    /// of the same key. Offsets stay, tombstones stay (their retention is weeks, engine rule 8), and the
    /// newest entry stays so that the end of the log remains visible.
    pub fn compact(&mut self, below: i64) {
        let end = below.min(self.last_stable_offset());
        let Some(count) = self.index(end) else { return };
        let mut seen = BTreeSet::<Vec<u8>>::new();
        for index in (0..count).rev() {
            let Some(entry) = self.entries.get_mut(index) else { continue };
            let keep = match entry {
                Entry::Record { aborted: true, .. } | Entry::Marker | Entry::Removed => false,
                Entry::Record { record, .. } => record.key.as_ref().is_none_or(|key| seen.insert(key.clone())),
            };
            if !keep {
                *entry = Entry::Removed;
            }
        }
    }

    /// Every record a `read_committed` reader can see now, from the log start.
    pub fn committed(&self) -> impl Iterator<Item = (i64, &Rc<StoredRecord>)> {
        let end = self.last_stable_offset();
        (self.start..end).zip(&self.entries).filter_map(|(offset, entry)| match entry {
            Entry::Record { record, aborted: false, .. } => Some((offset, record)),
            _ => None,
        })
    }

    /// Number of records whose transaction was aborted.
    pub fn aborted_records(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Record { aborted: true, producer: Some(_), .. }))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str) -> Rc<StoredRecord> {
        Rc::new(StoredRecord { key: Some(key.into()), ..StoredRecord::default() })
    }

    fn visible(log: &PartitionLog) -> Vec<i64> {
        log.committed().map(|(offset, _)| offset).collect()
    }

    #[test]
    fn an_open_transaction_holds_back_later_committed_records() {
        let mut log = PartitionLog::default();
        log.append(record("a"), Some(1));
        log.append(record("b"), Some(2));
        log.append_marker(2, true);
        assert_eq!((log.last_stable_offset(), log.high_watermark()), (0, 3));
        assert!(matches!(log.next_committed(0), Next::End(0)));
        log.append_marker(1, true);
        assert_eq!(visible(&log), [0, 1]);
        assert!(matches!(log.next_committed(2), Next::End(4)), "markers are passed");
    }

    #[test]
    fn aborted_records_are_skipped_and_keep_their_offsets() {
        let mut log = PartitionLog::default();
        log.append(record("a"), Some(1));
        log.append_marker(1, false);
        log.append(record("b"), Some(1));
        log.append_marker(1, true);
        assert_eq!(visible(&log), [2]);
        assert!(matches!(log.next_committed(0), Next::Record(2, _)));
    }

    #[test]
    fn compaction_keeps_the_newest_record_per_key_and_every_offset() {
        let mut log = PartitionLog::default();
        for key in ["a", "b", "a"] {
            log.append(record(key), Some(1));
            log.append_marker(1, true);
        }
        log.append(record("b"), Some(2));
        log.compact(i64::MAX);
        assert_eq!(visible(&log), [2, 4], "the open record of b supersedes nothing yet");
        assert_eq!(log.high_watermark(), 7);
    }

    #[test]
    fn positions_outside_the_log_are_told_apart() {
        let mut log = PartitionLog::default();
        for _ in 0..3 {
            log.append(record("a"), None);
        }
        log.delete_before(2);
        assert!(matches!(log.next_committed(1), Next::Truncated));
        assert!(matches!(log.next_committed(2), Next::Record(2, _)));
        assert!(matches!(log.next_committed(4), Next::Beyond));
    }
}
