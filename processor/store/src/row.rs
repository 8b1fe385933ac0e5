//! The bytes of what is stored: values with a checksum, and the progress row.
//!
//! LMDB has no checksums of its own. A value carries the CRC-32 of its key and itself, so that a flipped
//! bit is noticed instead of becoming a wrong sum. Four bytes and some nanoseconds each; a checksum of
//! whole pages would be cheaper on disk but LMDB writes its pages itself.

use processor_engine::mark::{Mark, Progress};
use serde::{Deserialize, Serialize};

/// Key of the one row in the progress database.
pub(crate) const PROGRESS_KEY: &[u8] = b"progress";

/// Appends the stored form of `value` to `row` (cleared first).
pub(crate) fn seal(key: &[u8], value: &[u8], row: &mut Vec<u8>) {
    row.clear();
    row.extend_from_slice(value);
    row.extend_from_slice(&checksum(key, value).to_le_bytes());
}

/// The value in a stored row; `None` when row and key do not belong together.
pub(crate) fn open<'row>(key: &[u8], row: &'row [u8]) -> Option<&'row [u8]> {
    let (value, stored) = row.split_last_chunk::<4>()?;
    (checksum(key, value) == u32::from_le_bytes(*stored)).then_some(value)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// The progress row as text, so that a person with `mdb_dump` can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgressRow {
    /// Number of batches applied to this file.
    pub(crate) batch: u64,
    next_offset: i64,
    sequence: u64,
    changelog_next: i64,
    leader_epoch: Option<i32>,
    input_topic_id: String,
    changelog_topic_id: String,
    updated_at_ms: u64,
}

impl ProgressRow {
    pub(crate) fn new(batch: u64, progress: &Progress) -> Self {
        Self {
            batch,
            next_offset: progress.mark.next_offset,
            sequence: progress.mark.sequence,
            changelog_next: progress.changelog_next,
            leader_epoch: progress.leader_epoch,
            input_topic_id: progress.input_topic_id.clone(),
            changelog_topic_id: progress.changelog_topic_id.clone(),
            updated_at_ms: progress.updated_at_ms,
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            mark: Mark { next_offset: self.next_offset, sequence: self.sequence },
            changelog_next: self.changelog_next,
            leader_epoch: self.leader_epoch,
            input_topic_id: self.input_topic_id.clone(),
            changelog_topic_id: self.changelog_topic_id.clone(),
            updated_at_ms: self.updated_at_ms,
        }
    }

    /// The stored form, checksum included.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let text = serde_json::to_vec(self)?;
        let mut row = Vec::with_capacity(text.len() + 4);
        seal(PROGRESS_KEY, &text, &mut row);
        Ok(row)
    }

    /// Reads the stored form; `None` for one that is not whole.
    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        serde_json::from_slice(open(PROGRESS_KEY, row)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_in_a_row_is_noticed() {
        let mut row = Vec::new();
        seal(b"key", b"some value", &mut row);
        assert_eq!(open(b"key", &row), Some(&b"some value"[..]));
        assert_eq!(open(b"kez", &row), None);
        for bit in 0..row.len() * 8 {
            let mut broken = row.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(b"key", &broken), None, "bit {bit}");
        }
        assert_eq!(open(b"key", b"abc"), None);
    }

    #[test]
    fn progress_survives_the_round_trip() {
        let progress = Progress {
            mark: Mark { next_offset: i64::MAX, sequence: u64::MAX },
            changelog_next: 7,
            leader_epoch: Some(3),
            input_topic_id: "a\"b".into(),
            changelog_topic_id: String::new(),
            updated_at_ms: u64::MAX,
        };
        let row = ProgressRow::new(9, &progress).encode().unwrap();
        let read = ProgressRow::decode(&row).unwrap();
        assert_eq!((read.batch, read.progress()), (9, progress));
    }
}
