//! An input partition's own record: its generations, its sweep, the form its keys are written in, the columns of its
//! ids, the type of goods, and the scale of quantities.
//!
//! State like any other: kept in the store and, under the key `#partition`, in the changelog, as JSON (`"format":1`)
//! so that an operator can read it there. Owns that format and the bookkeeping; the decisions are in [`crate::rule`]
//! and [`crate::sweep`].

use schemas::debezium::{ChangeOperation, KeyEncoding, RowChange, Snapshot};
use schemas::{DecodeError, GoodType, IdType, RowId, Scale};
use serde::{Deserialize, Serialize};

use crate::generations::{Generation, Generations};

/// The newest format of the record that this build reads and writes.
const FORMAT: u64 = 1;

/// What is known of one input partition as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    pub(crate) key_encoding: Option<KeyEncoding>,
    pub(crate) good_type: GoodType,
    pub(crate) key_columns: Vec<String>,
    pub(crate) pieces_scale: Scale,
    pub(crate) generations: Generations,
    pub(crate) swept: u64,
    pub(crate) sweep: Option<Sweep>,
    pub(crate) held: Option<Held>,
    pub(crate) caught_up: bool,
}

/// A sweep in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// Rows of generations older than this snapshot go.
    pub generation: u64,
    /// Ids up to here are done; `None` at the beginning.
    pub after: Option<RowId>,
    /// Live rows removed so far.
    pub removed: u64,
    /// Delete markers removed so far.
    pub markers: u64,
    /// Rows kept because the new connector had touched them.
    pub lifted: u64,
}

/// A sweep that waits for an operator: it would remove a larger share than the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The snapshot.
    pub generation: u64,
    /// Live rows it would remove at most, as of when it was held.
    pub would_remove: u64,
    /// Live rows of the partition then.
    pub live: u64,
}

/// What a record key's form is to the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEncodingCheck {
    /// As always.
    Same,
    /// The first key seen here; the form is now part of the state.
    First,
    /// Another form than before: ids now hash to other partitions, away from their state. Nothing can repair that.
    Changed {
        /// The form until now.
        known: KeyEncoding,
    },
}

/// The record's JSON.
#[derive(Serialize, Deserialize)]
struct Wire {
    format: u64,
    key_encoding: Option<KeyEncoding>,
    /// Absent in the records of most, and in those of before there were others than integers.
    #[serde(default, skip_serializing_if = "is_integer")]
    good_type: GoodType,
    /// Absent where ids are uuids, and so in the records of before there were others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    key_columns: Vec<String>,
    /// Absent where pieces are whole, as in all records of before they could be anything else.
    #[serde(default, skip_serializing_if = "is_whole")]
    pieces_scale: Scale,
    before_snapshots: u64,
    generations: Vec<Generation>,
    swept: u64,
    sweep: Option<Sweep>,
    held: Option<Held>,
    /// Read to its end once.
    #[serde(default)]
    caught_up: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_integer(good_type: &GoodType) -> bool {
    *good_type == GoodType::Integer
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_whole(scale: &Scale) -> bool {
    scale.is_whole()
}

/// Read first, so that a newer format is called newer and not malformed.
#[derive(Deserialize)]
struct FormatOnly {
    format: Option<u64>,
}

impl Partition {
    /// A partition of which nothing is known but of which type its goods are.
    pub fn with_goods(good_type: GoodType) -> Self {
        Self { good_type, ..Self::default() }
    }

    /// The same with ids that are keys of these columns, in this order; uuids, where there are none.
    #[must_use]
    pub fn with_ids(self, key_columns: &[String]) -> Self {
        Self { key_columns: key_columns.to_vec(), ..self }
    }

    /// The columns whose values the ids are, in this order; none, where ids are uuids.
    pub fn key_columns(&self) -> &[String] {
        &self.key_columns
    }

    /// Of which type the ids are.
    pub fn id_type(&self) -> IdType {
        if self.key_columns.is_empty() { IdType::Uuid } else { IdType::Key }
    }

    /// The same partition with quantities of this scale. Nothing else here is about it: the rows are, which hold units.
    #[must_use]
    pub fn with_scale(self, pieces_scale: Scale) -> Self {
        Self { pieces_scale, ..self }
    }

    /// How many digits behind the point the quantities of all its rows have.
    pub fn pieces_scale(&self) -> Scale {
        self.pieces_scale
    }

    /// Of which type the goods of all its rows are.
    pub fn good_type(&self) -> GoodType {
        self.good_type
    }

    /// The generations known here.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// The newest snapshot whose sweep is finished; 0 = none.
    pub fn swept(&self) -> u64 {
        self.swept
    }

    /// The sweep in progress.
    pub fn sweep(&self) -> Option<&Sweep> {
        self.sweep.as_ref()
    }

    /// The sweep that waits for an operator.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Notes that the partition was read to its end; `true` the first time in its life that this is so with a complete
    /// snapshot known.
    pub fn catch_up(&mut self) -> bool {
        let proven = self.generations.known.iter().any(|generation| generation.complete);
        proven && !std::mem::replace(&mut self.caught_up, true)
    }

    /// Compares a key's form with the one seen before, and keeps the first.
    pub fn check_key_encoding(&mut self, encoding: KeyEncoding) -> KeyEncodingCheck {
        match self.key_encoding {
            Some(known) if known == encoding => KeyEncodingCheck::Same,
            Some(known) => KeyEncodingCheck::Changed { known },
            None => {
                self.key_encoding = Some(encoding);
                KeyEncodingCheck::First
            }
        }
    }

    /// The rank of the newest generation that is swept or being swept: whatever is older and absent is proven gone.
    pub(crate) fn swept_rank(&self) -> usize {
        let sweeping = self.sweep.as_ref().map_or(0, |sweep| sweep.generation);
        let rank = |generation| self.generations.rank(generation).unwrap_or(0);
        rank(self.swept).max(rank(sweeping))
    }

    /// Opens the generation of a full-snapshot record that this partition has not seen yet. One that would be older
    /// than the last sweep is not opened: its rows are either here in a newer generation or proven gone.
    pub(crate) fn learn(&mut self, change: &RowChange) {
        let Some(snapshot_lsn) = full_snapshot(change) else { return };
        self.open(snapshot_lsn, Some(change.source.ts_ms), false);
    }

    /// Adds an unknown snapshot to the generations; `false` when it is known or older than the last sweep.
    pub(crate) fn open(&mut self, snapshot_lsn: u64, ts_ms: Option<i64>, announced: bool) -> bool {
        if self.generations.rank(snapshot_lsn).is_some() {
            return false;
        }
        let rank = self.generations.place(snapshot_lsn, ts_ms);
        if rank <= self.swept_rank() {
            return false;
        }
        self.generations.insert(rank, Generation { announced, ..Generation::new(snapshot_lsn, ts_ms) });
        true
    }

    /// Appends the record's JSON value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let wire = Wire {
            format: FORMAT,
            key_encoding: self.key_encoding,
            good_type: self.good_type,
            key_columns: self.key_columns.clone(),
            pieces_scale: self.pieces_scale,
            before_snapshots: self.generations.before_snapshots,
            generations: self.generations.known.clone(),
            swept: self.swept,
            sweep: self.sweep.clone(),
            held: self.held,
            caught_up: self.caught_up,
        };
        // Writing such a struct to memory cannot fail: no maps with odd keys, no I/O.
        let written = serde_json::to_writer(&mut *out, &wire);
        debug_assert!(written.is_ok());
    }

    /// Reads the record's JSON value.
    ///
    /// # Errors
    /// [`DecodeError`] for a newer format or anything that is not such a record.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        const RECORD: &str = "partition";
        let malformed = |error: serde_json::Error| DecodeError::Malformed { record: RECORD, detail: error.to_string() };
        let found = serde_json::from_slice::<FormatOnly>(value).map_err(malformed)?.format.unwrap_or(FORMAT);
        if found > FORMAT {
            return Err(DecodeError::FormatNewer { record: RECORD, found, supported: FORMAT });
        }
        let wire: Wire = serde_json::from_slice(value).map_err(malformed)?;
        Ok(Self {
            key_encoding: wire.key_encoding,
            good_type: wire.good_type,
            key_columns: wire.key_columns,
            pieces_scale: wire.pieces_scale,
            generations: Generations { before_snapshots: wire.before_snapshots, known: wire.generations },
            swept: wire.swept,
            sweep: wire.sweep,
            held: wire.held,
            caught_up: wire.caught_up,
        })
    }
}

/// The snapshot's lsn, if the change is a record of a full snapshot: `op` = `r` and not incremental, nothing else.
pub(crate) fn full_snapshot(change: &RowChange) -> Option<u64> {
    let full =
        change.operation == ChangeOperation::Read && matches!(change.source.snapshot, Snapshot::Part | Snapshot::Last);
    // lsn 0 is no position in PostgreSQL, and names the time before any snapshot here.
    if full { change.source.lsn.filter(|lsn| *lsn != 0) } else { None }
}
