//! When an output partition has everything in its new epoch.
//!
//! A rebuilt output begins a new epoch; goods of the old one that no longer exist are never mentioned in the new one,
//! so somebody has to say when it is complete. Each source partition announces once in its life that it was read to its
//! end (`caught-up`), in the transaction that read it. An output partition that has read all movements written before
//! the announcements of *all* source partitions is complete, and says so (`epoch-complete`) with the offset before
//! which everything lies. The sink then removes rows of older epochs. Owns this bookkeeping; decides nothing about rows.

use std::collections::{BTreeMap, BTreeSet};

use processor_engine::application::BroadcastRecord;
use processor_engine::cluster::NewRecord;
use processor_engine::{Failure, StatePartition, TopicPartition, Transaction};
use schemas::{Control, ReceivedControl};

use crate::application::StockApplication;
use crate::observer::ApplicationObserver;
use crate::wiring::{MOVEMENTS, Wiring};

/// What each running output partition has heard since its assignment; control records come again after every one.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    /// Source partitions that have caught up, as this output partition has heard.
    caught_up: BTreeMap<i32, BTreeSet<i32>>,
    /// Complete as of the open transaction: announced once that is committed, because only then the end is known.
    complete: BTreeSet<i32>,
    /// Complete as of an earlier transaction.
    due: BTreeSet<i32>,
    /// Announced in the open transaction.
    announced: BTreeSet<i32>,
}

impl Epochs {
    pub(crate) fn has_announcements(&self) -> bool {
        !self.due.is_empty()
    }

    pub(crate) fn stop(&mut self, partition: i32) {
        self.caught_up.remove(&partition);
        self.complete.remove(&partition);
        self.due.remove(&partition);
        self.announced.remove(&partition);
    }

    pub(crate) fn committed(&mut self) {
        self.announced.clear();
        self.due.append(&mut self.complete);
    }

    /// The engine hands all control records over again, so what was heard in the open transaction may be forgotten.
    pub(crate) fn aborted(&mut self) {
        self.complete.clear();
        self.due.append(&mut self.announced);
    }
}

impl<O: ApplicationObserver> StockApplication<O> {
    /// Announces, once in its life, that a source partition was read to its end and has a complete snapshot behind it.
    ///
    /// The end alone proves nothing: a processor started before the connector sees the end of an empty topic, one that
    /// outruns a snapshot sees ends in the middle of it.
    pub(crate) fn source_caught_up(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: i32,
    ) -> Result<(), Failure> {
        if !self.partitions.change(partition)?.catch_up() {
            return Ok(());
        }
        emit(transaction, Control::CaughtUp { partition })?;
        self.put_partition(transaction, partition, false)
    }

    /// Notes what a control record tells an output partition.
    pub(crate) fn output_control(&mut self, partition: i32, record: &BroadcastRecord) {
        // Unreadable and unknown records are told by the source partitions, which hear them too.
        let Ok(ReceivedControl::Known(control)) = Control::decode(&record.value) else { return };
        match control {
            Control::CaughtUp { partition: source } => {
                let heard = self.epochs.caught_up.entry(partition).or_default();
                heard.insert(source);
                if u32::try_from(heard.len()).is_ok_and(|heard| heard >= self.settings.source_partitions.get()) {
                    self.epochs.complete.insert(partition);
                }
            }
            Control::EpochComplete { partition: output, epoch, .. } if output == partition => {
                self.movements.note_announced(partition, epoch);
                if self.movements.known_epoch(partition).is_none_or(|known| known <= epoch) {
                    self.epochs.complete.remove(&partition);
                    self.epochs.due.remove(&partition);
                }
            }
            _ => {}
        }
    }

    /// Announces output partitions that became complete in an earlier transaction.
    pub(crate) fn announce_epochs(&mut self, transaction: &mut dyn Transaction) -> Result<(), Failure> {
        for partition in std::mem::take(&mut self.epochs.due) {
            let state = StatePartition { stage: MOVEMENTS, partition };
            let Some(offset) = transaction.changelog_end(state) else { continue };
            let epoch = self.movements.epoch(partition, transaction.now_ms());
            emit(transaction, Control::EpochComplete { partition, epoch, offset })?;
            self.epochs.announced.insert(partition);
        }
        Ok(())
    }
}

fn emit(transaction: &mut dyn Transaction, control: Control) -> Result<(), Failure> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    control.encode_key(&mut key);
    control.encode(&mut value);
    let target = TopicPartition { topic: Wiring::DEFAULT.control, partition: 0 };
    transaction.emit(&NewRecord { target, key: Some(&key), value: Some(&value), headers: &[] })
}
