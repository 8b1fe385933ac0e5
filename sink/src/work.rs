//! Owns the seam between the loop, which knows positions and failures, and what is made of one topic's records.

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

/// What is made of one topic's records. An implementation keeps the batch that is not written yet.
#[expect(async_fn_in_trait, reason = "one thread runs each future to its end; nothing is spawned")]
pub trait Work {
    /// A record, read.
    type Item;

    /// Reads a record; never called for keys that begin with `#`, which are the processor's own.
    fn read(&self, record: &Record<'_>) -> Result<Self::Item, Unreadable>;

    /// The epoch the record carries, if the topic has epochs.
    fn epoch(&self, item: &Self::Item) -> Option<i64>;

    /// Adds an item to the batch.
    fn add(&mut self, item: Self::Item);

    /// Drops the batch.
    fn clear(&mut self);

    /// Writes the batch inside an open transaction; the batch stays until [`Work::clear`].
    async fn write(&self, connection: &mut PgConnection) -> Result<Written, sqlx::Error>;

    /// Inside an open transaction: the log of `partition` is a new one and will be read from its beginning.
    async fn start_over(&self, connection: &mut PgConnection, partition: i32) -> Result<(), sqlx::Error>;
}
