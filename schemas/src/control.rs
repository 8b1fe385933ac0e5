//! Control records: what every worker has to know.
//!
//! Topic `<prefix>.control`, one partition, so that all workers read the same announcements in the same order. A type
//! that this build does not know is reported as such and skipped by the reader: a newer instance of the same group
//! may announce more than an older one understands.

use crate::DecodeError;
use crate::json::{self, ObjectWriter, json_object};

const RECORD: &str = "control";

const SNAPSHOT_COMPLETE: &str = "snapshot-complete";
const EPOCH_COMPLETE: &str = "epoch-complete";
const CAUGHT_UP: &str = "caught-up";
const APPROVE_SWEEP: &str = "approve-sweep";
const SOURCE_EMPTIED: &str = "source-emptied";

/// One announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Control {
    /// The last record of a full snapshot was read: ids not in it may be swept.
    SnapshotComplete {
        /// The lsn all records of the snapshot carry.
        snapshot_lsn: u64,
        /// `source.ts_ms` of its last record, ms since 1970.
        ts_ms: i64,
    },
    /// An output partition has everything in its new epoch: goods of older epochs are gone.
    EpochComplete {
        /// Partition of the deltas topic.
        partition: i32,
        /// The complete epoch.
        epoch: u64,
        /// Offset of the deltas partition at and above which this holds.
        offset: i64,
    },
    /// An input partition was read to its end once.
    CaughtUp {
        /// Partition of the input topic.
        partition: i32,
    },
    /// An operator approved a held sweep.
    ApproveSweep {
        /// Partition of the input topic.
        partition: i32,
        /// The snapshot whose sweep is approved.
        snapshot_lsn: u64,
    },
    /// An operator says: the source table was empty at this position (an empty snapshot leaves no trace).
    SourceEmptied {
        /// Position at which the table was empty.
        snapshot_lsn: u64,
    },
}

/// A control record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceivedControl {
    /// One of ours.
    Known(Control),
    /// A type this build does not know: skip it, and say so.
    Unknown {
        /// Its `type`.
        kind: String,
    },
}

json_object! {
    struct Wire<'a> {
        format: u64,
        kind as "type": std::borrow::Cow<'a, str>,
        snapshot_lsn: &'a serde_json::value::RawValue,
        ts_ms: &'a serde_json::value::RawValue,
        partition: &'a serde_json::value::RawValue,
        epoch: &'a serde_json::value::RawValue,
        offset: &'a serde_json::value::RawValue,
    }
}

impl Control {
    /// The record's `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SnapshotComplete { .. } => SNAPSHOT_COMPLETE,
            Self::EpochComplete { .. } => EPOCH_COMPLETE,
            Self::CaughtUp { .. } => CAUGHT_UP,
            Self::ApproveSweep { .. } => APPROVE_SWEEP,
            Self::SourceEmptied { .. } => SOURCE_EMPTIED,
        }
    }

    /// Appends the record's key: the type and what the announcement is about.
    pub fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.kind().as_bytes());
        out.push(b'/');
        match *self {
            Self::SnapshotComplete { snapshot_lsn, .. } | Self::SourceEmptied { snapshot_lsn } => {
                json::push_integer(out, snapshot_lsn);
            }
            Self::EpochComplete { partition, .. } | Self::CaughtUp { partition } => json::push_integer(out, partition),
            Self::ApproveSweep { partition, snapshot_lsn } => {
                json::push_integer(out, partition);
                out.push(b'/');
                json::push_integer(out, snapshot_lsn);
            }
        }
    }

    /// Appends the record's value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let writer = ObjectWriter::new(out).literal("type", self.kind());
        match *self {
            Self::SnapshotComplete { snapshot_lsn, ts_ms } => {
                writer.integer("snapshot_lsn", snapshot_lsn).integer("ts_ms", ts_ms)
            }
            Self::EpochComplete { partition, epoch, offset } => {
                writer.integer("partition", partition).integer("epoch", epoch).integer("offset", offset)
            }
            Self::CaughtUp { partition } => writer.integer("partition", partition),
            Self::ApproveSweep { partition, snapshot_lsn } => {
                writer.integer("partition", partition).integer("snapshot_lsn", snapshot_lsn)
            }
            Self::SourceEmptied { snapshot_lsn } => writer.integer("snapshot_lsn", snapshot_lsn),
        }
        .finish();
    }

    /// Reads a record's value. The key only serves compaction; all that counts is in the value.
    pub fn decode(value: &[u8]) -> Result<ReceivedControl, DecodeError> {
        let wire: Wire<'_> = json::read(RECORD, value)?;
        json::check_format(RECORD, wire.format)?;
        let kind = json::required(RECORD, "type", wire.kind)?;
        let known = match &*kind {
            SNAPSHOT_COMPLETE => Self::SnapshotComplete {
                snapshot_lsn: number("snapshot_lsn", wire.snapshot_lsn)?,
                ts_ms: number("ts_ms", wire.ts_ms)?,
            },
            EPOCH_COMPLETE => Self::EpochComplete {
                partition: number("partition", wire.partition)?,
                epoch: number("epoch", wire.epoch)?,
                offset: number("offset", wire.offset)?,
            },
            CAUGHT_UP => Self::CaughtUp { partition: number("partition", wire.partition)? },
            APPROVE_SWEEP => Self::ApproveSweep {
                partition: number("partition", wire.partition)?,
                snapshot_lsn: number("snapshot_lsn", wire.snapshot_lsn)?,
            },
            SOURCE_EMPTIED => Self::SourceEmptied { snapshot_lsn: number("snapshot_lsn", wire.snapshot_lsn)? },
            _ => return Ok(ReceivedControl::Unknown { kind: kind.into_owned() }),
        };
        Ok(ReceivedControl::Known(known))
    }
}

/// Fields are read only once the type is known: an unknown type may use the same names otherwise.
fn number<T: std::str::FromStr>(
    name: &'static str,
    field: Option<&serde_json::value::RawValue>,
) -> Result<T, DecodeError> {
    let raw = json::required(RECORD, name, field)?;
    raw.get().parse().map_err(|_| DecodeError::malformed(RECORD, format!("field {name} is no number in its range")))
}
