//! What the engine calls.
//!
//! Owns the dispatch by stage, the restoration of state from changelog records, and what is remembered within the
//! open transaction; the steps themselves are in the neighbouring modules.

use processor_core::{Partition, Sum};
use processor_engine::application::{Application, Background, BroadcastRecord};
use processor_engine::cluster::Record;
use processor_engine::{Changes, Failure, PartitionStore, StatePartition, Stop, Transaction};
use schemas::{DecodeError, StockDelta};

use crate::epochs::Epochs;
use crate::errors::unreadable;
use crate::movements::Movements;
use crate::observer::{ApplicationObserver, Counts, Event, Pending};
use crate::partitions::Partitions;
use crate::registry::{NoRegistry, Schemas};
use crate::source::Buffers;
use crate::wiring::{MOVEMENTS, SOURCE, Settings};

/// The stream program of one worker.
#[derive(Debug)]
pub struct StockApplication<O> {
    pub(crate) settings: Settings,
    pub(crate) observer: O,
    pub(crate) registry: Box<dyn Schemas>,
    pub(crate) partitions: Partitions,
    pub(crate) movements: Movements,
    pub(crate) epochs: Epochs,
    pub(crate) buffers: Buffers,
    /// What the open transaction has done so far.
    pub(crate) counts: Counts,
    /// What is told when it is committed.
    pub(crate) pending: Vec<Pending>,
}

impl<O: ApplicationObserver> StockApplication<O> {
    /// A program that runs no partition yet.
    pub fn new(settings: Settings, observer: O) -> Self {
        Self {
            observer,
            registry: Box::new(NoRegistry),
            partitions: Partitions::default(),
            movements: Movements::new(settings.output, settings.pieces_scale()),
            epochs: Epochs::default(),
            buffers: Buffers::new(&settings),
            settings,
            counts: Counts::default(),
            pending: Vec::new(),
        }
    }

    /// The same program with a registry to take schemas from.
    #[must_use]
    pub fn with_registry(self, registry: Box<dyn Schemas>) -> Self {
        Self { registry, ..self }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The observer, for what it has gathered.
    pub fn observer(&self) -> &O {
        &self.observer
    }

    /// The record of a running source partition.
    pub fn partition(&self, partition: i32) -> Option<&Partition> {
        self.partitions.get(partition)
    }
}

impl<O: ApplicationObserver> Application for StockApplication<O> {
    fn started(&mut self, partition: StatePartition, state: &dyn PartitionStore) -> Result<(), Failure> {
        match partition.stage {
            SOURCE => self.partitions.start(partition.partition, state, &self.settings),
            _ => self.movements.start(partition.partition, state, self.settings.good_type()),
        }
    }

    fn stopped(&mut self, partition: StatePartition) {
        if partition.stage == SOURCE {
            self.partitions.stop(partition.partition);
        } else {
            self.movements.stop(partition.partition);
            self.epochs.stop(partition.partition);
        }
    }

    fn restore(&mut self, partition: StatePartition, record: &Record<'_>, changes: &mut Changes) -> Result<(), Stop> {
        match partition.stage {
            SOURCE => self
                .buffers
                .restore_row(record, changes)
                .map_err(|error| unreadable("the transactions changelog", record, &error)),
            _ => self
                .restore_sum(partition, record, changes)
                .map_err(|error| unreadable("the deltas topic", record, &error)),
        }
    }

    fn process(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        record: &Record<'_>,
    ) -> Result<(), Failure> {
        match partition.stage {
            SOURCE => self.change_event(transaction, partition, record),
            _ => self.movement(partition, record),
        }
    }

    fn broadcast(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        record: &BroadcastRecord,
    ) -> Result<(), Failure> {
        if partition.stage == SOURCE {
            return self.control(transaction, partition.partition, record);
        }
        self.output_control(partition.partition, record);
        Ok(())
    }

    fn caught_up(&mut self, transaction: &mut dyn Transaction, partition: StatePartition) -> Result<(), Failure> {
        match partition.stage {
            SOURCE => self.source_caught_up(transaction, partition.partition),
            _ => Ok(()),
        }
    }

    fn has_background(&self) -> bool {
        self.partitions.sweeping().is_some() || self.epochs.has_announcements()
    }

    fn background(&mut self, transaction: &mut dyn Transaction) -> Result<Background, Failure> {
        self.announce_epochs(transaction)?;
        self.sweep_chunk(transaction)
    }

    fn complete(&mut self, transaction: &mut dyn Transaction) -> Result<(), Failure> {
        self.announce_epochs(transaction)?;
        self.complete_movements(transaction)?;
        for partition in transaction.touched() {
            if partition.stage == SOURCE {
                self.put_partition(transaction, partition.partition, true)?;
            }
        }
        Ok(())
    }

    fn committed(&mut self) {
        self.partitions.committed();
        self.movements.committed();
        self.epochs.committed();
        let counts = std::mem::take(&mut self.counts);
        if counts != Counts::default() {
            self.observer.observe(&Event::Committed(&counts));
        }
        for pending in self.pending.drain(..) {
            pending.tell(&mut self.observer);
        }
    }

    fn aborted(&mut self) {
        self.partitions.aborted();
        self.movements.aborted();
        self.epochs.aborted();
        self.counts = Counts::default();
        self.pending.clear();
    }
}

impl<O: ApplicationObserver> StockApplication<O> {
    /// Notes what a stock delta changes in the store.
    fn restore_sum(
        &mut self,
        partition: StatePartition,
        record: &Record<'_>,
        changes: &mut Changes,
    ) -> Result<(), DecodeError> {
        debug_assert_eq!(partition.stage, MOVEMENTS);
        let key = record.key.unwrap_or_default();
        let Some(value) = record.value else {
            let good_id = StockDelta::decode_key(key, self.settings.good_type())?;
            changes.insert(self.movements.store_key(&good_id), None);
            return Ok(());
        };
        let scale = self.settings.pieces_scale();
        let StockDelta { good_id, remains, transactions, version, epoch, .. } = StockDelta::decode(key, value, scale)?;
        self.movements.note_epoch(partition.partition, epoch);
        let mut value = Vec::with_capacity(Sum::ENCODED_BYTES);
        Sum { remains, transactions, version, epoch }.encode(scale, &mut value);
        changes.insert(self.movements.store_key(&good_id), Some(&value));
        Ok(())
    }
}
