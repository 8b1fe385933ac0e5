//! Owns the loop's part in removing rows of older epochs: hearing announcements and doing what they demand.
//!
//! When something is demanded is decided by [`crate::completion`], purely; that nothing is removed on a stale belief
//! about the progress is guarded by the compare-and-set of every step (invariant 9).

use std::time::Instant;

use service::Coded;

use super::gathered::Slot;
use super::{AGAIN, Loop, Parts};
use crate::completion::{Announced, Demand};
use crate::position::{Partition, Progress, Start};
use crate::postgres::Advance;
use crate::work::{Record, Unreadable, Work};

impl<W: Work> Loop<W> {
    /// Removes rows of older epochs where the announcements, and what was read, allow it.
    pub(super) fn keep_completions(&mut self) -> Result<(), Coded> {
        let Some(announcements) = &self.parts.announcements else { return Ok(()) };
        let announced = &mut self.announced;
        announcements.poll(|record| hear(announced, announcements.topic(), &record))?;
        if !self.parts.database.is_up() || Instant::now() < self.completions_after || self.demands().is_empty() {
            return Ok(());
        }
        // What is demanded is decided anew, on what the target then has.
        self.flush()?;
        for (partition, epoch, offset, demand) in self.demands() {
            match demand {
                Demand::Nothing => {}
                Demand::Remove => self.remove_older(partition, epoch)?,
                Demand::ConfirmEnd => self.confirm_end(partition, offset),
                Demand::ReadFromBeginning => {
                    let Some(Slot::Reading(reading)) = self.slots.get(&partition) else { continue };
                    let progress = Progress { next_offset: 0, ..reading.progress() };
                    self.slots.insert(partition, Slot::Reading(Partition::from_beginning(progress)));
                    self.go_to(partition, Start::Beginning);
                }
            }
        }
        Ok(())
    }

    /// Partition, epoch and offset announced, and what that demands now, where it demands something.
    fn demands(&self) -> Vec<(i32, i64, i64, Demand)> {
        let demand = |(partition, slot): (&i32, &Slot)| {
            let (Slot::Reading(reading), Some(complete)) = (slot, self.announced.of(*partition)) else { return None };
            let demand = complete.demand(reading, self.end_asked.contains(partition));
            (demand != Demand::Nothing).then_some((*partition, complete.epoch, complete.offset, demand))
        };
        self.slots.iter().filter_map(demand).collect()
    }

    /// When the log really ends at or behind `offset`, reads to its end once more: a seek makes librdkafka report the
    /// end again, and then everything below `offset` was read.
    fn confirm_end(&mut self, partition: i32, offset: i64) {
        self.completions_after = Instant::now() + AGAIN;
        let Some(Slot::Reading(reading)) = self.slots.get_mut(&partition) else { return };
        match self.parts.source.bounds(partition) {
            Ok((_, high)) if high >= offset => {
                reading.await_end();
                let start = match reading.progress().next_offset {
                    next if next <= high && next > 0 => Start::Offset(next),
                    _ => Start::Beginning,
                };
                self.end_asked.insert(partition);
                self.go_to(partition, start);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(topic = self.parts.topic, partition, %error, "the end is unknown"),
        }
    }

    fn remove_older(&mut self, partition: i32, epoch: i64) -> Result<(), Coded> {
        let Ok(Some(partitions)) = self.parts.source.partition_count() else {
            self.completions_after = Instant::now() + AGAIN;
            return Ok(());
        };
        let from = self.stored.get(&partition).copied().unwrap_or_default();
        let known = from.epoch == Some(epoch);
        // Nothing of the new epoch was read: the row's offset belongs to the old log.
        let next_offset = if known { from.next_offset } else { 0 };
        let to = Progress { epoch: Some(epoch), next_offset, completed_epoch: Some(epoch) };
        let (mut after, mut rows) = (None, 0);
        loop {
            self.parts.heartbeat.beat();
            let Parts { database, topic, .. } = &mut self.parts;
            let advance = Advance { partition, from, to };
            match database.step(async |target| target.remove_older(topic, advance, partitions, after.as_ref()).await) {
                None => return Ok(()),
                Some(Err(failure)) => return self.failed(failure),
                Some(Ok(removed)) => {
                    rows += removed.rows;
                    after = removed.next;
                }
            }
            if after.is_none() {
                break;
            }
        }
        tracing::info!(topic = self.parts.topic, partition, epoch, rows, "the epoch is complete: older rows removed");
        self.parts.metrics.removed_rows.inc_by(rows);
        self.stored.insert(partition, to);
        if let Some(Slot::Reading(reading)) = self.slots.get_mut(&partition) {
            if known { reading.complete(to) } else { *reading = Partition::from_beginning(to) }
        }
        self.count_held()
    }
}

fn hear(announced: &mut Announced, topic: &str, record: &Record<'_>) -> Result<(), Coded> {
    let Some(value) = record.value else { return Ok(()) };
    let of_interest = record.key.is_some_and(|key| key.starts_with(b"epoch-complete/"));
    if !of_interest {
        return Ok(());
    }
    announced.hear(value).map_err(|error| {
        Unreadable::Malformed { detail: error.to_string() }.stop(topic, record.partition, record.offset)
    })
}
