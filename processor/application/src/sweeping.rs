//! Announcements and the sweep, chunk by chunk.
//!
//! Owns what a control record does to a source partition and the scanning; which row goes is `processor-core`'s
//! decision. Everything here is idempotent: control records come again after every assignment.

use processor_core::{Approval, Chunk, Fate, Plan, Row};
use processor_engine::application::{Background, BroadcastRecord};
use processor_engine::{Failure, StatePartition, Transaction};
use schemas::{Control, ReceivedControl, RowId};

use crate::application::StockApplication;
use crate::errors::damaged;
use crate::observer::{ApplicationObserver, Event, Pending};
use crate::wiring::SOURCE;

impl<O: ApplicationObserver> StockApplication<O> {
    /// Handles one control record for one source partition, which has read past where its input ended when the record
    /// was seen.
    ///
    /// A record that cannot be read is skipped and told: operators write here by hand too, and one mistyped approval
    /// must not stop every worker. Nothing is lost by it: control records are read again at every assignment.
    pub(crate) fn control(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: i32,
        record: &BroadcastRecord,
    ) -> Result<(), Failure> {
        if record.value.is_empty() {
            return Ok(());
        }
        let offset = record.offset;
        let control = match Control::decode(&record.value) {
            Ok(ReceivedControl::Known(control)) => control,
            Ok(ReceivedControl::Unknown { kind }) => {
                let detail = format!("type {kind} is not known to this version");
                self.observer.observe(&Event::ControlSkipped { offset, detail: &detail });
                return Ok(());
            }
            Err(error) => {
                self.observer.observe(&Event::ControlSkipped { offset, detail: &error.to_string() });
                return Ok(());
            }
        };
        let books = self.partitions.change(partition)?;
        let noted = match control {
            Control::SnapshotComplete { snapshot_lsn, ts_ms } => books.announce(snapshot_lsn, ts_ms),
            Control::SourceEmptied { snapshot_lsn } => books.announce_emptied(snapshot_lsn),
            Control::ApproveSweep { partition: approved, snapshot_lsn } if approved == partition => {
                let approval = books.approve(snapshot_lsn);
                if approval == Approval::Unknown {
                    self.observer.observe(&Event::ApprovalUnknown { partition, snapshot_lsn });
                }
                approval == Approval::Accepted
            }
            // For the output partitions and the sink: see `epochs`.
            Control::ApproveSweep { .. } | Control::EpochComplete { .. } | Control::CaughtUp { .. } => return Ok(()),
        };
        // This partition has now read what it holds of the snapshot.
        self.source_caught_up(transaction, partition)?;
        let planned = self.plan_sweep(partition)?;
        if noted || planned { self.put_partition(transaction, partition, false) } else { Ok(()) }
    }

    /// Starts or holds a sweep if one is due; tells whether the partition's record changed.
    fn plan_sweep(&mut self, partition: i32) -> Result<bool, Failure> {
        match self.partitions.change(partition)?.plan_sweep(&self.settings.sweep_policy) {
            Plan::Nothing => Ok(false),
            Plan::Started { generation, at_most } => {
                self.partitions.sweep_started(partition);
                let event = Event::SweepStarted { partition, snapshot_lsn: generation, at_most };
                self.pending.push(Pending::Other(event));
                Ok(true)
            }
            Plan::Held(held) => {
                self.pending.push(Pending::Other(Event::SweepHeld {
                    partition,
                    snapshot_lsn: held.generation,
                    would_remove: held.would_remove,
                    live: held.live,
                }));
                Ok(true)
            }
        }
    }

    /// Does one chunk of one partition's sweep.
    pub(crate) fn sweep_chunk(&mut self, transaction: &mut dyn Transaction) -> Result<Background, Failure> {
        let Some(number) = self.partitions.sweeping() else { return Ok(Background::Done) };
        let partition = StatePartition { stage: SOURCE, partition: number };
        let (chunk, reached_end) = self.scan(transaction, partition)?;
        let mut removed = 0;
        for id in chunk.candidates() {
            // Again, own writes of this transaction included: an event may have touched the row since.
            let Some(row) = self.buffers.row(transaction, partition, id)? else { continue };
            let settled = self.partitions.change(number)?.settle(&row);
            match settled.fate {
                Fate::Stays => {}
                Fate::Lifted(lifted) => self.buffers.put_row(transaction, partition, id, Some(&lifted))?,
                Fate::Gone => {
                    removed += u64::from(row.content.is_some());
                    self.buffers.put_row(transaction, partition, id, None)?;
                }
            }
            if let Some(movement) = settled.movement {
                self.movements.add(&movement)?;
            }
        }
        self.sweep_advanced(transaction, number, &chunk, removed, reached_end)?;
        Ok(if self.partitions.sweeping().is_some() { Background::More } else { Background::Done })
    }

    fn scan(&mut self, transaction: &mut dyn Transaction, partition: StatePartition) -> Result<(Chunk, bool), Failure> {
        let books = self.partitions.change(partition.partition)?;
        let cursor = books.sweep().and_then(|sweep| sweep.after.clone());
        let mut chunk = Chunk::new(self.settings.sweep_chunk, cursor.clone());
        let mut outcome = Ok(());
        let (after, id_type) = (cursor.as_ref().map(RowId::as_bytes), books.id_type());
        let reached_end = transaction.scan(partition, after, &mut |key, value| {
            // The partition's own record lies among the rows; its key is that of none.
            let Some(id) = RowId::from_bytes(key, id_type) else { return true };
            match Row::decode(value) {
                Ok(row) => chunk.offer(books, id, &row),
                Err(error) => {
                    outcome = Err(damaged(partition, error));
                    false
                }
            }
        })?;
        outcome.map(|()| (chunk, reached_end))
    }

    fn sweep_advanced(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: i32,
        chunk: &Chunk,
        removed: u64,
        reached_end: bool,
    ) -> Result<(), Failure> {
        let books = self.partitions.change(partition)?;
        let snapshot_lsn = books.sweep().map_or(0, |sweep| sweep.generation);
        books.advance_sweep(chunk.cursor());
        let finished = if reached_end { books.finish_sweep() } else { None };
        let scanned = u64::try_from(chunk.scanned()).unwrap_or(u64::MAX);
        self.pending.push(Pending::Other(Event::SweepProgress { partition, snapshot_lsn, scanned, removed }));
        if let Some(sweep) = finished {
            self.pending.push(Pending::Other(Event::SweepFinished {
                partition,
                snapshot_lsn,
                removed: sweep.removed,
                markers: sweep.markers,
                lifted: sweep.lifted,
            }));
            self.plan_sweep(partition)?;
        }
        self.put_partition(transaction, partition, false)
    }
}
