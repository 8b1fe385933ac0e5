//! The open transaction: overlay of writes, touched partitions, limits.
//!
//! Guards engine rule 1: whatever touches a partition's state is noted here, and the commit names every
//! partition noted. Nothing here talks to the group or decides when to commit.

use std::collections::BTreeMap;

use super::owned::Owned;
use crate::changes::Changes;
use crate::cluster::{NewRecord, TransactionalProducer};
use crate::failure::Failure;
use crate::mark::{Mark, NEXT_OFFSET_HEADER, SEQUENCE_HEADER};
use crate::store::PartitionStore;
use crate::topology::{StatePartition, Topology};
use crate::transaction::{StateChange, Transaction};

/// A partition the transaction has touched.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Mark after the commit.
    pub(super) mark: Mark,
    /// Leader epoch belonging to it.
    pub(super) leader_epoch: Option<i32>,
    /// Whether an input record of the partition was processed.
    pub(super) read: bool,
    /// Whether a changelog record carries the mark.
    pub(super) marked: bool,
    /// State changes.
    pub(super) overlay: Changes,
}

/// The open transaction of a worker.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Whether the producer has begun a Kafka transaction (lazily, with the first record sent).
    pub(super) begun: bool,
    /// When the first record came, ms since 1970.
    pub(super) started_ms: u64,
    /// Input records processed.
    pub(super) records: u64,
    /// Bytes of state changes held in memory.
    pub(super) bytes: usize,
    /// Partitions touched.
    pub(super) touched: BTreeMap<StatePartition, Touched>,
}

impl Open {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { started_ms: now_ms, ..Self::default() }
    }

    /// Notes that a partition's state is part of this transaction.
    pub(super) fn touch<P>(&mut self, partition: StatePartition, owned: &Owned<P>) -> &mut Touched {
        self.touched.entry(partition).or_insert_with(|| Touched {
            mark: Mark { next_offset: owned.mark.next_offset, sequence: owned.mark.sequence + 1 },
            leader_epoch: owned.leader_epoch,
            ..Touched::default()
        })
    }

    /// Whether there is anything to commit.
    pub(super) fn is_empty(&self) -> bool {
        !self.begun && self.touched.is_empty()
    }
}

/// The application's view of [`Open`].
pub(super) struct View<'a, T, P> {
    pub(super) open: &'a mut Open,
    pub(super) producer: &'a mut T,
    pub(super) owned: &'a BTreeMap<StatePartition, Owned<P>>,
    pub(super) topology: &'a Topology,
}

impl<T: TransactionalProducer, P: PartitionStore> View<'_, T, P> {
    fn running(&self, partition: StatePartition) -> Result<&Owned<P>, Failure> {
        self.owned.get(&partition).filter(|owned| owned.is_running()).ok_or_else(|| {
            Failure::stop(
                "ENGINE_FOREIGN_PARTITION",
                format!("the application used {partition:?}, which this worker does not own"),
                "report this: it is a defect of the program",
            )
        })
    }

    fn send(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        if !self.open.begun {
            self.producer.begin()?;
            self.open.begun = true;
        }
        self.producer.send(record)
    }

    fn change(&mut self, partition: StatePartition, change: &StateChange<'_>, marked: bool) -> Result<(), Failure> {
        self.running(partition)?;
        // Proved by `running` just above; spelled out because the borrow ends there.
        let Some(owned) = self.owned.get(&partition) else { return Ok(()) };
        let Some(target) = self.topology.changelog_of(partition) else { return Ok(()) };
        let touched = self.open.touch(partition, owned);
        let mark = touched.mark;
        touched.marked |= marked;
        touched.overlay.insert(change.key, change.value);
        self.open.bytes += change.key.len() + change.value.map_or(0, <[u8]>::len);
        let (key, value) = (Some(change.changelog_key), change.changelog_value);
        if marked {
            let (next_offset, sequence) = (mark.next_offset.to_string(), mark.sequence.to_string());
            let headers = [(NEXT_OFFSET_HEADER, next_offset.as_bytes()), (SEQUENCE_HEADER, sequence.as_bytes())];
            self.send(&NewRecord { target, key, value, headers: &headers })
        } else {
            self.send(&NewRecord { target, key, value, headers: &[] })
        }
    }
}

impl<T: TransactionalProducer, P: PartitionStore> Transaction for View<'_, T, P> {
    fn is_running(&self, partition: StatePartition) -> bool {
        self.owned.get(&partition).is_some_and(Owned::is_running)
    }

    fn get(&mut self, partition: StatePartition, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        if let Some(own) = self.open.touched.get(&partition).and_then(|touched| touched.overlay.get(key)) {
            value.clear();
            return Ok(own.is_some_and(|own| {
                value.extend_from_slice(own);
                true
            }));
        }
        self.running(partition)?.store.get(key, value)
    }

    fn scan(
        &mut self,
        partition: StatePartition,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<bool, Failure> {
        self.running(partition)?.store.scan(after, visit)
    }

    fn put(&mut self, partition: StatePartition, change: &StateChange<'_>) -> Result<(), Failure> {
        self.change(partition, change, false)
    }

    fn put_marked(&mut self, partition: StatePartition, change: &StateChange<'_>) -> Result<(), Failure> {
        self.change(partition, change, true)
    }

    fn emit(&mut self, record: &NewRecord<'_>) -> Result<(), Failure> {
        self.send(record)
    }

    fn changelog_end(&self, partition: StatePartition) -> Option<i64> {
        self.owned.get(&partition).filter(|owned| owned.is_running()).map(|owned| owned.changelog_end)
    }

    fn touched(&self) -> Vec<StatePartition> {
        self.open.touched.keys().copied().collect()
    }

    fn now_ms(&self) -> u64 {
        self.open.started_ms
    }
}
