//! Owns the batch in flight: begun, waited for, and what its outcome means for it and for the connection. Guards invariant 9: one batch at a time,
//! each begun from the progress that the one before left, and after a failure none that was gathered on top of it.

use std::time::Instant;

use service::Coded;

use super::gathered::Slot;
use super::{Loop, Parts};
use crate::database::Running;
use crate::metrics::TopicPartition;
use crate::postgres::{Advance, Failure};
use crate::work::{Work, Written};

/// A batch that is being written beside the loop.
pub(super) struct InFlight {
    running: Running<(Written, u64)>,
    advances: Vec<Advance>,
    records: usize,
}

impl<W: Work> Loop<W> {
    /// Begins to write what is gathered, if anything, once the batch in flight is written.
    pub(super) fn write(&mut self) -> Result<(), Coded> {
        self.settle()?;
        // Also when that failed: then nothing is gathered any more.
        if self.gathered.is_empty() {
            return Ok(());
        }
        let (work, progress, records) = std::mem::take(&mut self.gathered).into_parts();
        let from = |partition: i32| self.stored.get(&partition).copied().unwrap_or_default();
        let advances: Vec<Advance> =
            progress.into_iter().map(|(partition, to)| Advance { partition, from: from(partition), to }).collect();
        let (topic, moves) = (self.parts.topic.clone(), advances.clone());
        let running = self.parts.database.start(move |mut target| async move {
            let result = target.apply(&topic, &work, &moves).await;
            (target, result)
        });
        match running {
            Some(running) => self.in_flight = Some(InFlight { running, advances, records }),
            None => self.forget_positions(),
        }
        Ok(())
    }

    /// Waits for the batch in flight, if there is one, and draws the consequences.
    pub(super) fn settle(&mut self) -> Result<(), Coded> {
        let Some(InFlight { running, advances, records }) = self.in_flight.take() else { return Ok(()) };
        self.parts.heartbeat.beat();
        match self.parts.database.finish(running) {
            Ok((written, retries)) => self.written(&advances, records, &written, retries),
            Err(failure) => self.failed(failure),
        }
    }

    /// Writes what is gathered and waits for it: afterwards the target has everything, or all positions are forgotten.
    pub(super) fn flush(&mut self) -> Result<(), Coded> {
        self.write()?;
        self.settle()
    }

    fn written(&mut self, advances: &[Advance], records: usize, written: &Written, retries: u64) -> Result<(), Coded> {
        let Parts { metrics, source, topic, .. } = &mut self.parts;
        metrics.batches.get_or_create(&self.label).inc();
        metrics.retries.get_or_create(&self.label).inc_by(retries);
        metrics.rows.get_or_create(&self.label).inc_by(written.rows);
        metrics.records.get_or_create(&self.label).inc_by(u64::try_from(records).unwrap_or(u64::MAX));
        tracing::debug!(topic = topic.as_str(), records, rows = written.rows, "batch written");
        for good_id in &written.held {
            tracing::error!(
                code = "SINK_REMAINS_TOO_LARGE",
                %good_id,
                "the remains of the good do not fit their column; its row keeps the last value that did, the true one is in \
                 remains.held_goods. To do: correct the good's transactions; its next fitting version is applied"
            );
        }
        source.show_progress(advances.iter().map(|advance| (advance.partition, advance.to.next_offset)));
        for advance in advances {
            self.stored.insert(advance.partition, advance.to);
            self.show_lag_after(advance);
        }
        self.compare_after = Instant::now() + self.parts.progress_check;
        if written.held.is_empty() && self.parts.metrics.held_goods.get() == 0 { Ok(()) } else { self.count_held() }
    }

    /// The last stable offset may lie behind markers, which are nobody's records: the end of the log means no lag.
    fn show_lag_after(&self, written: &Advance) {
        let partition = written.partition;
        let at_end = matches!(self.slots.get(&partition), Some(Slot::Reading(reading)) if reading.at_end());
        if at_end && !self.gathered.has(partition) {
            self.show_lag(partition, 0);
        } else if let Some(stable) = self.parts.source.stable_offset(partition) {
            self.show_lag(partition, stable.saturating_sub(written.to.next_offset).max(0));
        }
    }

    pub(super) fn show_lag(&self, partition: i32, lag: i64) {
        let label = TopicPartition { topic: self.parts.topic.clone(), partition };
        self.parts.metrics.lag.get_or_create(&label).set(lag);
    }

    pub(super) fn count_held(&mut self) -> Result<(), Coded> {
        match self.parts.database.step(async |target| Ok(target.held_goods().await?)) {
            Some(Ok(held)) => {
                self.parts.metrics.held_goods.set(held);
                Ok(())
            }
            Some(Err(failure)) => self.failed(failure),
            None => Ok(()),
        }
    }

    pub(super) fn keep_database(&mut self) -> Result<(), Coded> {
        match self.parts.database.keep() {
            Ok(false) => Ok(()),
            Ok(true) => {
                tracing::info!(topic = self.parts.topic, "connected to the target");
                self.parts.metrics.database_up.get_or_create(&self.label).set(1);
                self.positions_after = Instant::now();
                if self.parts.announcements.is_some() { self.count_held() } else { Ok(()) }
            }
            Err(failure) => self.failed(failure),
        }
    }

    /// Draws the consequences of a failure: what was gathered after it counts no more.
    pub(super) fn failed(&mut self, failure: Failure) -> Result<(), Coded> {
        match failure {
            Failure::Refused(error) => return Err(error),
            Failure::Conflict => {
                tracing::warn!(
                    topic = self.parts.topic,
                    "the target has another progress than this sink (restored, or another sink was faster): going there"
                );
                self.parts.metrics.rewinds.get_or_create(&self.label).inc();
            }
            Failure::Database(error) => {
                let pause = self.parts.database.lose(&error.to_string());
                tracing::warn!(
                    code = "SINK_DATABASE_DOWN",
                    topic = self.parts.topic,
                    %error,
                    pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    "the target is not usable; trying again, nothing is lost. To do: see to the database if it lasts"
                );
                self.parts.metrics.database_failures.get_or_create(&self.label).inc();
                self.parts.metrics.database_up.get_or_create(&self.label).set(0);
            }
        }
        self.forget_positions();
        Ok(())
    }
}
