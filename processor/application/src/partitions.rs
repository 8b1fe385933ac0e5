//! The records of the source partitions this worker runs, in memory.
//!
//! A cache of the state, never more: read when a partition starts, written to the state in every transaction that
//! touches the partition, put back as it was when the transaction is aborted.

use std::collections::BTreeMap;

use processor_core::Partition;
use processor_engine::{Failure, PartitionStore};
use schemas::changelog::PARTITION_KEY;

use crate::errors::{damaged_partition, good_type_changed, id_type_changed, pieces_scale_changed};
use crate::wiring::Settings;

/// Key of a partition's record, in the store as in the changelog. It is that of no row: uuids have 16 bytes there, and
/// no text of a key begins so.
pub(crate) const PARTITION_STORE_KEY: &[u8] = PARTITION_KEY.as_bytes();

/// One partition's record.
#[derive(Debug, Default)]
struct Cached {
    record: Partition,
    /// As it was before the open transaction changed it.
    before: Option<Partition>,
    /// A sweep was started in the open transaction: it scans from the next one on, because ids added earlier in this
    /// one are not in the scan.
    sweep_is_new: bool,
}

/// The running source partitions.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    running: BTreeMap<i32, Cached>,
}

impl Partitions {
    /// Reads a partition's record; a partition without one begins with nothing. Its goods must be of the type that is set,
    /// its ids of the columns, and its quantities of the scale.
    pub(crate) fn start(
        &mut self,
        partition: i32,
        state: &dyn PartitionStore,
        settings: &Settings,
    ) -> Result<(), Failure> {
        let (good_type, key_columns, scale) = (settings.good_type(), settings.key_columns(), settings.pieces_scale());
        let mut value = Vec::new();
        let record = if state.get(PARTITION_STORE_KEY, &mut value)? {
            Partition::decode(&value).map_err(|error| damaged_partition(partition, &error))?
        } else {
            Partition::with_goods(good_type).with_ids(key_columns).with_scale(scale)
        };
        let place = || format!("the state of source partition {partition}");
        if record.good_type() != good_type {
            return Err(good_type_changed(&place(), record.good_type(), good_type));
        }
        if record.key_columns() != key_columns {
            return Err(id_type_changed(&place(), record.key_columns(), key_columns));
        }
        if record.pieces_scale() != scale {
            return Err(pieces_scale_changed(&place(), record.pieces_scale(), scale).into());
        }
        self.running.insert(partition, Cached { record, ..Cached::default() });
        Ok(())
    }

    pub(crate) fn stop(&mut self, partition: i32) {
        self.running.remove(&partition);
    }

    pub(crate) fn get(&self, partition: i32) -> Option<&Partition> {
        self.running.get(&partition).map(|cached| &cached.record)
    }

    /// The record, to be changed: remembers how it was before the open transaction.
    pub(crate) fn change(&mut self, partition: i32) -> Result<&mut Partition, Failure> {
        let cached = self.running.get_mut(&partition).ok_or_else(|| not_running(partition))?;
        if cached.before.is_none() {
            cached.before = Some(cached.record.clone());
        }
        Ok(&mut cached.record)
    }

    /// Notes that a sweep was started in the open transaction.
    pub(crate) fn sweep_started(&mut self, partition: i32) {
        if let Some(cached) = self.running.get_mut(&partition) {
            cached.sweep_is_new = true;
        }
    }

    /// A partition whose sweep may scan now.
    pub(crate) fn sweeping(&self) -> Option<i32> {
        let sweeping = |cached: &Cached| cached.record.sweep().is_some() && !cached.sweep_is_new;
        self.running.iter().find(|(_, cached)| sweeping(cached)).map(|(partition, _)| *partition)
    }

    pub(crate) fn committed(&mut self) {
        for cached in self.running.values_mut() {
            cached.before = None;
            cached.sweep_is_new = false;
        }
    }

    pub(crate) fn aborted(&mut self) {
        for cached in self.running.values_mut() {
            if let Some(before) = cached.before.take() {
                cached.record = before;
            }
            cached.sweep_is_new = false;
        }
    }
}

fn not_running(partition: i32) -> Failure {
    Failure::stop(
        "ENGINE_FOREIGN_PARTITION",
        format!("the engine handed over a record of source partition {partition}, which was not started"),
        "report this: it is a defect of the program",
    )
}
