//! Owns the seam between the loop, which knows positions and failures, and what is made of one topic's records.

use std::future::Future;

use schemas::{DecodeError, GoodId, GoodType, IdType, RowId, Scale};
use service::Coded;
use sqlx::PgConnection;

/// What the processor was told about goods, ids and quantities, and the target's columns are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Types {
    /// Of which type the goods are.
    pub goods: GoodType,
    /// Of which the ids of the transaction log; `None` where it is not kept.
    pub ids: Option<IdType>,
    /// How many digits quantities have behind the point.
    pub pieces: Scale,
}

/// A record that is not what its topic holds, or not for this target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It cannot be read.
    Malformed {
        /// What is wrong with it.
        detail: String,
    },
    /// Its good is of another type than those of the target.
    GoodType {
        /// Of this one.
        found: GoodType,
    },
    /// Its id is of another type than those of the target.
    IdType {
        /// Of this one.
        found: IdType,
    },
    /// Its quantities have another scale than those of the target.
    PiecesScale {
        /// This one.
        found: Scale,
    },
}

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Scale { found, .. } => Self::PiecesScale { found },
            error => Self::Malformed { detail: error.to_string() },
        }
    }
}

/// Refuses a good of another type than the target's.
///
/// # Errors
/// [`Unreadable::GoodType`]
pub(crate) fn check_type(good: &GoodId, good_type: GoodType) -> Result<(), Unreadable> {
    match good.good_type() {
        found if found == good_type => Ok(()),
        found => Err(Unreadable::GoodType { found }),
    }
}

/// The same of an id.
///
/// # Errors
/// [`Unreadable::IdType`]
pub(crate) fn check_id_type(id: &RowId, id_type: Option<IdType>) -> Result<(), Unreadable> {
    match id.id_type() {
        found if Some(found) == id_type => Ok(()),
        found => Err(Unreadable::IdType { found }),
    }
}

impl Unreadable {
    /// A coded stop: on a topic of our own an unreadable record means a newer format or a foreign writer, and passing
    /// it by would leave the target silently wrong.
    pub fn stop(&self, topic: &str, partition: i32, offset: i64) -> Coded {
        let place = format!("{topic}, partition {partition}, offset {offset}");
        let detail = match self {
            Self::Malformed { detail } => detail,
            Self::GoodType { found } => {
                return Coded::refused(
                    "SINK_GOOD_TYPE",
                    format!("{place}: its good is of type {found}, and --good-type is another"),
                    "give --good-type the same value as the processor's, and a target of its own",
                );
            }
            Self::IdType { found } => {
                return Coded::refused(
                    "SINK_ID_TYPE",
                    format!("{place}: its id is of type {found}, and --id-type is another"),
                    "give --id-type the same value as the processor's, and a target of its own",
                );
            }
            Self::PiecesScale { found } => {
                return Coded::refused(
                    "SINK_PIECES_SCALE",
                    format!(
                        "{place}: its quantities have {found} digits behind the point, and --pieces-scale is another"
                    ),
                    "give --pieces-scale the same value as the processor's, and a target of its own",
                );
            }
        };
        Coded::refused(
            "SINK_RECORD_UNREADABLE",
            format!("{place}: {detail}"),
            "if the processor is newer, update the sink; else find out who writes this topic besides the processor, \
             and have the processor rebuild it",
        )
    }
}

/// A record as Kafka gave it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key, if any.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// What writing a batch came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows inserted, changed or deleted; less than the batch had where the target was newer already.
    pub rows: u64,
    /// Goods held back in this batch.
    pub held: Vec<GoodId>,
}

/// A batch of one topic's records, and what is made of them. It is moved: the loop gathers one, the next begins as the
/// default, while the one before is written beside the loop.
pub trait Work: Default + Send + Sync + 'static {
    /// A record, read.
    type Item;

    /// Whether a record of this key is the processor's own and passed by.
    fn is_processors_own(key: &[u8], types: Types) -> bool;

    /// Reads a record, for a target with such goods, ids and quantities.
    fn read(record: &Record<'_>, types: Types) -> Result<Self::Item, Unreadable>;

    /// The epoch the record carries, if the topic has epochs.
    fn epoch(item: &Self::Item) -> Option<i64>;

    /// Adds an item to the batch.
    fn add(&mut self, item: Self::Item);

    /// Writes the batch, whose quantities are of this scale, inside an open transaction; may be called again after that
    /// one failed.
    fn write(
        &self,
        connection: &mut PgConnection,
        scale: Scale,
    ) -> impl Future<Output = Result<Written, sqlx::Error>> + Send;

    /// Inside an open transaction: the log of `partition` is a new one and will be read from its beginning.
    fn start_over(
        connection: &mut PgConnection,
        partition: i32,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}
