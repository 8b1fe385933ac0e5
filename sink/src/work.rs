//! Owns the seam between the loop, which knows positions and failures, and what is made of one topic's records.

use std::future::Future;

use service::Coded;
use sqlx::PgConnection;

/// A record that is not what its topic holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong with it.
    pub detail: String,
}

impl Unreadable {
    /// A coded stop: on a topic of our own an unreadable record means a newer format or a foreign writer, and passing
    /// it by would leave the target silently wrong.
    pub fn stop(&self, topic: &str, partition: i32, offset: i64) -> Coded {
        Coded::refused(
            "SINK_RECORD_UNREADABLE",
            format!("{topic}, partition {partition}, offset {offset}: {}", self.detail),
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
    pub held: Vec<i64>,
}

/// A batch of one topic's records, and what is made of them. It is moved: the loop gathers one, the next begins as the
/// default, while the one before is written beside the loop.
pub trait Work: Default + Send + Sync + 'static {
    /// A record, read.
    type Item;

    /// Reads a record; never called for keys that begin with `#`, which are the processor's own.
    fn read(record: &Record<'_>) -> Result<Self::Item, Unreadable>;

    /// The epoch the record carries, if the topic has epochs.
    fn epoch(item: &Self::Item) -> Option<i64>;

    /// Adds an item to the batch.
    fn add(&mut self, item: Self::Item);

    /// Writes the batch inside an open transaction; may be called again after that one failed.
    fn write(&self, connection: &mut PgConnection) -> impl Future<Output = Result<Written, sqlx::Error>> + Send;

    /// Inside an open transaction: the log of `partition` is a new one and will be read from its beginning.
    fn start_over(
        connection: &mut PgConnection,
        partition: i32,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}
