//! Owns which partitions this sink reads and from where: taken over, asked for, begun, compared, given up.
//!
//! Where to read is judged by [`crate::position`], purely; here the target and the brokers are asked, and the consumer
//! is sent there. Guards invariant 9: nothing is read that the target was not asked about.

use std::time::Instant;

use service::Coded;

use super::gathered::{Gathered, Slot};
use super::{AGAIN, Loop, Parts};
use crate::metrics::TopicPartition;
use crate::position::{Partition, Progress, Start};
use crate::postgres::{Advance, Failure};
use crate::work::Work;

impl<W: Work> Loop<W> {
    pub(super) fn assigned(&mut self, partitions: &[i32]) {
        tracing::info!(topic = self.parts.topic, ?partitions, "partitions taken over");
        self.joined = true;
        self.parts.membership.up();
        self.parts.source.accept(partitions);
        self.slots.extend(partitions.iter().map(|partition| (*partition, Slot::Waiting)));
        self.positions_after = Instant::now();
    }

    /// Everything is written before another sink asks the target from where to continue. What cannot be written any
    /// more is dropped; of a batch in flight the outcome is waited for even when the partitions are lost. (Were it not, the
    /// target's progress would still let only one of the two write; the other would have to go there again.)
    pub(super) fn revoked(&mut self, partitions: &[i32], lost: bool) -> Result<(), Coded> {
        tracing::info!(topic = self.parts.topic, ?partitions, lost, "partitions given up");
        let written = if lost { self.settle() } else { self.flush() };
        if !self.gathered.is_empty() {
            self.forget_positions();
        }
        self.parts.source.give_up(partitions);
        for partition in partitions {
            self.slots.remove(partition);
            self.stored.remove(partition);
            self.end_asked.remove(partition);
            self.parts.metrics.lag.remove(&TopicPartition { topic: self.parts.topic.clone(), partition: *partition });
        }
        written
    }

    /// Drops what is gathered; every partition waits until the target has been asked. Nothing is in flight then.
    pub(super) fn forget_positions(&mut self) {
        self.gathered = Gathered::default();
        let partitions: Vec<i32> = self.slots.keys().copied().collect();
        for partition in partitions {
            self.wait_for_position(partition);
        }
    }

    pub(super) fn wait_for_position(&mut self, partition: i32) {
        self.parts.source.pause(&[partition]);
        self.slots.insert(partition, Slot::Waiting);
        self.end_asked.remove(&partition);
    }

    /// Asks the target where the waiting partitions are, and the brokers what there is, and starts reading.
    pub(super) fn keep_positions(&mut self) -> Result<(), Coded> {
        let waits = |slot: &Slot| matches!(slot, Slot::Waiting);
        if !self.slots.values().any(waits) || Instant::now() < self.positions_after {
            return Ok(());
        }
        self.settle()?;
        if !self.parts.database.is_up() {
            return Ok(());
        }
        self.positions_after = Instant::now() + AGAIN;
        let waiting: Vec<i32> =
            self.slots.iter().filter(|(_, slot)| waits(slot)).map(|(partition, _)| *partition).collect();
        let Parts { database, topic, .. } = &mut self.parts;
        let rows = match database.step(async |target| Ok(target.progress(topic, &waiting).await?)) {
            Some(Ok(rows)) => rows,
            Some(Err(failure)) => return self.failed(failure),
            None => return Ok(()),
        };
        for (partition, progress) in rows {
            let (low, high) = match self.parts.source.bounds(partition) {
                Ok(bounds) => bounds,
                Err(error) => {
                    tracing::warn!(topic = self.parts.topic, partition, %error, "the brokers do not say what there is");
                    return Ok(());
                }
            };
            self.begin(partition, progress, low, high);
        }
        Ok(())
    }

    fn begin(&mut self, partition: i32, progress: Progress, low: i64, high: i64) {
        let topic = self.parts.topic.as_str();
        let (reading, start) = Partition::begin(progress, low, high);
        let next_offset = progress.next_offset;
        tracing::debug!(topic, partition, ?progress, ?start, "reading");
        if let Err(error) = self.parts.source.go_to(&[(partition, start)]) {
            tracing::debug!(topic, partition, %error, "not ready to be read yet");
            return;
        }
        if next_offset > high {
            tracing::warn!(topic, partition, next_offset, end = high, "the target is beyond the end of the log");
        } else if next_offset < low && next_offset > 0 {
            tracing::warn!(
                code = "SINK_BELOW_LOG_START",
                topic,
                partition,
                next_offset,
                low,
                "records were deleted before the target had them; in a compacted topic newer ones follow"
            );
        }
        self.stored.insert(partition, progress);
        self.slots.insert(partition, Slot::Reading(reading));
        self.show_lag(partition, high.saturating_sub(next_offset).max(0));
    }

    /// Seeks one partition; when that fails, it waits and the target is asked again.
    pub(super) fn go_to(&mut self, partition: i32, start: Start) {
        if let Err(error) = self.parts.source.go_to(&[(partition, start)]) {
            tracing::warn!(topic = self.parts.topic, partition, %error, "seeking failed, trying again");
            self.wait_for_position(partition);
            self.positions_after = Instant::now() + AGAIN;
        }
    }

    /// The log is a new one: the target's row is set back, then everything is read.
    pub(super) fn start_over(&mut self, partition: i32, to: Progress) -> Result<(), Coded> {
        self.flush()?;
        if !matches!(self.slots.get(&partition), Some(Slot::Reading(_))) {
            // Writing failed; the same record is met again once the target has been asked.
            return Ok(());
        }
        let from = self.stored.get(&partition).copied().unwrap_or_default();
        let advance = Advance { partition, from, to };
        let Parts { database, topic, .. } = &mut self.parts;
        match database.step(async |target| target.start_over::<W>(topic, advance).await) {
            None => {
                self.forget_positions();
                Ok(())
            }
            Some(Err(failure)) => self.failed(failure),
            Some(Ok(())) => {
                tracing::warn!(
                    topic = self.parts.topic,
                    partition,
                    known_epoch = from.epoch,
                    new_epoch = to.epoch,
                    "the topic was rebuilt: reading the partition from its beginning"
                );
                self.parts.metrics.start_overs.get_or_create(&self.label).inc();
                self.stored.insert(partition, to);
                self.slots.insert(partition, Slot::Reading(Partition::from_beginning(to)));
                if let Some(announcements) = &self.parts.announcements {
                    announcements.restart();
                }
                self.go_to(partition, Start::Beginning);
                Ok(())
            }
        }
    }

    /// While idle, compares the target's rows with what this sink believes: a target that was restored, or failed over
    /// with lost commits, is noticed although nothing is to be written. The same query shows that the database lives.
    pub(super) fn keep_comparing(&mut self) -> Result<(), Coded> {
        if self.has_unwritten() || !self.parts.database.is_up() || Instant::now() < self.compare_after {
            return Ok(());
        }
        self.compare_after = Instant::now() + self.parts.progress_check;
        let reads = |slot: &Slot| matches!(slot, Slot::Reading(_));
        let partitions: Vec<i32> =
            self.slots.iter().filter(|(_, slot)| reads(slot)).map(|(partition, _)| *partition).collect();
        let Parts { database, topic, .. } = &mut self.parts;
        match database.step(async |target| Ok(target.progress(topic, &partitions).await?)) {
            None => Ok(()),
            Some(Err(failure)) => self.failed(failure),
            Some(Ok(rows)) if rows.iter().all(|(partition, row)| self.stored.get(partition) == Some(row)) => Ok(()),
            Some(Ok(_)) => self.failed(Failure::Conflict),
        }
    }
}
