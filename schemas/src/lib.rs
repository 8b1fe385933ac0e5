//! The wire contract: every record the two programs read or write.
//!
//! Owns the byte form of what crosses Kafka: Debezium's change events coming in; changelog, movement, stock delta,
//! control record and dead letter going out; topic names, header names and the record partitioner. Never does I/O,
//! knows no Kafka client, reads no clock, and decides nothing about sums: it says what a record *is*, the processor
//! says what it *means*.
//!
//! Guards two promises of the system: nothing is dropped (a change event that cannot be read becomes a [`Rejection`]
//! with a stable [`Reason`], never a panic, never a guess), and an old program meeting a newer record stops with a
//! coded [`DecodeError`] instead of misreading it.
//!
//! Layout:
//! - [`debezium`]: record key and envelope of the input topic.
//! - [`changelog`], [`movement`], [`delta`], [`control`], [`dead_letter`]: our own records.
//! - [`good`]: what goods are called, in all of them; [`RowId`]: what rows are; [`quantity`]: how many digits quantities
//!   have behind the point.
//! - [`headers`], [`topics`], [`partitioner`]: what else both programs must agree on.
//!
//! The Avro and JSON Schema files beside the code (`schemas/avro`, `schemas/json`) and the golden files
//! (`schemas/golden`) describe the same records; a test keeps the three equal.

mod avro;
pub mod changelog;
pub mod control;
pub mod dead_letter;
pub mod debezium;
pub mod delta;
mod error;
pub mod good;
pub mod headers;
mod json;
pub mod movement;
pub mod partitioner;
pub mod quantity;
mod reader;
mod rejection;
mod row_id;
pub mod topics;

pub use changelog::{ChangelogKey, TransactionRecord};
pub use control::{Control, ReceivedControl};
pub use delta::StockDelta;
pub use error::DecodeError;
pub use good::{GoodId, GoodType, MAX_GOOD_BYTES};
pub use movement::Movement;
pub use quantity::Scale;
pub use rejection::{MAX_DETAIL_BYTES, Reason, Rejection};
pub use row_id::{IdType, MAX_ID_BYTES, RowId};
pub use topics::Topics;

/// The newest `format` of our own JSON records that this build writes and reads.
pub const FORMAT: u64 = 1;

/// What one live source row contributes to the sums: so many pieces of one good, in units of the system's [`Scale`].
///
/// Signed: a row of operation `add` counts up, `remove` counts down. Always the *whole* contribution of the row,
/// never a difference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Content {
    /// The good (`good_id` of the source row).
    pub good_id: GoodId,
    /// Signed pieces: `pcs` for `add`, `-pcs` for `remove`; in units of the scale, 12500 for 12.5 pieces of scale 3.
    pub pieces: i64,
}
