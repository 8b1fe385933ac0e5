//! The trait a stream program implements to be run by the engine.
//!
//! An application keeps no state of its own between transactions except caches it can rebuild: everything
//! durable goes through [`Transaction`], so that aborting is forgetting. It knows no clock and no client.

use crate::changes::Changes;
use crate::cluster::Record;
use crate::failure::{Failure, Stop};
use crate::store::PartitionStore;
use crate::topology::StatePartition;
use crate::transaction::Transaction;

/// What is left to do in the background (bounded chunks between batches).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// Nothing.
    Done,
    /// More chunks wait.
    More,
}

/// A stream program: what happens to records, as pure as its own crates allow.
pub trait Application {
    /// A partition's state is restored and its records will follow.
    fn started(&mut self, partition: StatePartition, state: &dyn PartitionStore) -> Result<(), Failure>;

    /// A partition is given up, or will be restored again: forget caches of it.
    fn stopped(&mut self, partition: StatePartition);

    /// Notes what one changelog record changes in the store.
    fn restore(&mut self, partition: StatePartition, record: &Record<'_>, changes: &mut Changes) -> Result<(), Stop>;

    /// Processes one input record of a partition this worker owns.
    fn process(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        record: &Record<'_>,
    ) -> Result<(), Failure>;

    /// Handles one broadcast record for one partition. Called for every broadcast record since the
    /// beginning of that topic after each assignment, so it must be idempotent; called only once the
    /// partition has read past where its input ended when the record was first seen.
    fn broadcast(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        record: &BroadcastRecord,
    ) -> Result<(), Failure>;

    /// The partition has been read to its end for the first time since its assignment.
    fn caught_up(&mut self, transaction: &mut dyn Transaction, partition: StatePartition) -> Result<(), Failure>;

    /// Whether [`Application::background`] has anything to do for the partitions now running.
    fn has_background(&self) -> bool;

    /// Does one bounded chunk of background work.
    fn background(&mut self, transaction: &mut dyn Transaction) -> Result<Background, Failure>;

    /// Writes everything that was coalesced. After this each touched partition must have at least one
    /// marked changelog record (see [`Transaction::put_marked`]).
    fn complete(&mut self, transaction: &mut dyn Transaction) -> Result<(), Failure>;

    /// The transaction is committed and its writes are in the store.
    fn committed(&mut self);

    /// The transaction is aborted: forget what was coalesced.
    fn aborted(&mut self);
}

/// A record of the broadcast topic, kept by every worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroadcastRecord {
    /// Its offset.
    pub offset: i64,
    /// Key bytes.
    pub key: Vec<u8>,
    /// Value bytes; empty for a tombstone.
    pub value: Vec<u8>,
}
