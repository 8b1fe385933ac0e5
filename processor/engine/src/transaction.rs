//! What an application may do inside the open transaction.
//!
//! Reads see the transaction's own writes first (the overlay), then the store. Every write goes to the
//! changelog in the same Kafka transaction and to the store only after the commit. Touching a partition's
//! state makes the commit carry that partition's next offset and a new sequence number (engine rule 1).

use crate::cluster::NewRecord;
use crate::failure::Failure;
use crate::topology::StatePartition;

/// A change of one key of a partition's state, with the changelog record that makes it durable.
#[derive(Debug, Clone, Copy)]
pub struct StateChange<'a> {
    /// Key in the store.
    pub key: &'a [u8],
    /// New value in the store; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// Key of the changelog record.
    pub changelog_key: &'a [u8],
    /// Value of the changelog record; `None` is a tombstone.
    pub changelog_value: Option<&'a [u8]>,
}

/// The open transaction, as an application sees it.
pub trait Transaction {
    /// Whether this worker owns the partition and its state is restored (only then may it be touched).
    fn is_running(&self, partition: StatePartition) -> bool;

    /// Copies the value of a key into `value` (cleared first), own writes included; `false` when absent.
    fn get(&mut self, partition: StatePartition, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure>;

    /// Visits stored keys greater than `after` in byte order, own writes of this transaction *not* included
    /// ([`Transaction::get`] tells about those), until `visit` returns `false`. `true`: the end was reached.
    fn scan(
        &mut self,
        partition: StatePartition,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<bool, Failure>;

    /// Changes state and writes the changelog record.
    fn put(&mut self, partition: StatePartition, change: &StateChange<'_>) -> Result<(), Failure>;

    /// As [`Transaction::put`], and the record carries the partition's mark in its headers. Only from
    /// [`crate::Application::complete`], when nothing more will be read: the mark is then final.
    fn put_marked(&mut self, partition: StatePartition, change: &StateChange<'_>) -> Result<(), Failure>;

    /// Writes a record that is no state: to a repartition, broadcast or dead-letter topic.
    fn emit(&mut self, record: &NewRecord<'_>) -> Result<(), Failure>;

    /// The offset in the partition's changelog before which lies everything that was committed before this
    /// transaction; `None` for a partition that is not running here.
    fn changelog_end(&self, partition: StatePartition) -> Option<i64>;

    /// State partitions touched so far, in order.
    fn touched(&self) -> Vec<StatePartition>;

    /// Milliseconds since 1970, as of the beginning of the transaction.
    fn now_ms(&self) -> u64;
}
