//! Owns the loop that joins Kafka and the target: poll, collect, write, keep positions, keep the connection.
//!
//! One thread per topic owns consumer, connection and batch; nothing is shared and nothing is awaited beside it. The
//! database's steps are bounded, so the loop comes back to Kafka in time. Three rules:
//! - a partition is read only after the target said from where (invariant 9);
//! - what is collected is written at once when nothing more is waiting, or when the batch is full: an idle system
//!   shows a change without delay, a busy one writes large batches;
//! - after any doubt (connection lost, progress not as believed) the batch is dropped and the target asked again.

mod completing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use service::health::{Condition, Heartbeat};
use service::{Coded, Shutdown};

use crate::completion::Announced;
use crate::database::Database;
use crate::kafka::{Announcements, Event, Source};
use crate::metrics::{Metrics, Topic, TopicPartition};
use crate::position::{AtEnd, Contradiction, Partition, Progress, Start, Verdict};
use crate::postgres::{Advance, Failure};
use crate::work::{Record, Work, Written};

/// How long an idle loop waits for Kafka; a record ends the wait at once.
const IDLE: Duration = Duration::from_millis(100);
/// How long to wait before brokers or a peer are asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// What the loop needs from outside.
pub struct Parts<W> {
    /// The consumer.
    pub source: Source,
    /// The topic it reads.
    pub topic: String,
    /// The target.
    pub database: Database,
    /// What is made of records.
    pub work: W,
    /// Announcements of complete epochs; only the stock deltas have them.
    pub announcements: Option<Announcements>,
    /// Most records in one transaction.
    pub batch_records: usize,
    /// How often an idle loop compares its progress with the target's.
    pub progress_check: Duration,
    /// Asked to end.
    pub shutdown: Shutdown,
    /// Metrics.
    pub metrics: Metrics,
    /// Sign of life.
    pub heartbeat: Heartbeat,
    /// Readiness: member of the group.
    pub membership: Condition,
    /// Called once, when the target answers and the group has given this sink its (possibly empty) share.
    pub on_started: Arc<dyn Fn() + Send + Sync>,
}

/// One partition of this sink.
enum Slot {
    /// Paused until the target says from where to read.
    Waiting,
    Reading(Partition),
}

/// What came of one record.
enum Taken {
    /// It counts towards the batch.
    Collected,
    /// Nothing to write.
    Passed,
    StartOver(i32, Progress),
    Stop(Coded),
}

/// The loop's state.
pub struct Loop<W: Work> {
    parts: Parts<W>,
    label: Topic,
    slots: BTreeMap<i32, Slot>,
    /// What the target's rows say, as far as this sink knows.
    stored: BTreeMap<i32, Progress>,
    /// Progress of the batch that is not written yet.
    pending: BTreeMap<i32, Progress>,
    records: usize,
    announced: Announced,
    /// Partitions that were sent to their end once more: the next end they report lies behind what was asked for.
    end_asked: BTreeSet<i32>,
    positions_after: Instant,
    completions_after: Instant,
    compare_after: Instant,
    joined: bool,
    started: bool,
}

impl<W: Work> Loop<W> {
    /// A loop that has nothing yet.
    pub fn new(parts: Parts<W>) -> Self {
        let (now, label) = (Instant::now(), Topic { topic: parts.topic.clone() });
        parts.metrics.begin(&label);
        Self {
            parts,
            label,
            slots: BTreeMap::new(),
            stored: BTreeMap::new(),
            pending: BTreeMap::new(),
            records: 0,
            announced: Announced::default(),
            end_asked: BTreeSet::new(),
            positions_after: now,
            completions_after: now,
            compare_after: now,
            joined: false,
            started: false,
        }
    }

    /// Runs until the end is asked for, then writes what is collected and leaves the group.
    ///
    /// # Errors
    /// Whatever nobody but an operator can resolve.
    pub fn run(mut self) -> Result<(), Coded> {
        let result = self.until_stopped();
        self.parts.source.close();
        result
    }

    fn until_stopped(&mut self) -> Result<(), Coded> {
        while !self.parts.shutdown.requested() {
            self.parts.heartbeat.beat();
            self.keep_database()?;
            self.keep_positions()?;
            self.keep_completions()?;
            self.keep_comparing()?;
            self.turn()?;
            self.note_start();
        }
        self.write()
    }

    /// One poll and what follows from it.
    fn turn(&mut self) -> Result<(), Coded> {
        let timeout = if self.records > 0 { Duration::ZERO } else { IDLE };
        let Parts { source, work, topic, .. } = &mut self.parts;
        let (slots, pending) = (&mut self.slots, &mut self.pending);
        let event = source.poll(timeout, |record| take(work, topic, slots, pending, &record))?;
        match event {
            Event::Record(Taken::Collected) => {
                self.records += 1;
                if self.records >= self.parts.batch_records { self.write() } else { Ok(()) }
            }
            Event::Record(Taken::Passed) => Ok(()),
            Event::Record(Taken::StartOver(partition, progress)) => self.start_over(partition, progress),
            Event::Record(Taken::Stop(error)) => {
                self.parts.metrics.unreadable_records.get_or_create(&self.label).inc();
                self.write()?;
                Err(error)
            }
            Event::End(partition) => self.end(partition),
            Event::Assigned(partitions) => {
                self.assigned(&partitions);
                Ok(())
            }
            Event::Revoked { partitions, lost } => self.revoked(&partitions, lost),
            Event::OutOfRange => {
                tracing::warn!(topic = self.parts.topic, "a position is outside its log: asking the target again");
                self.forget_positions();
                Ok(())
            }
            Event::Idle => self.write(),
        }
    }

    fn assigned(&mut self, partitions: &[i32]) {
        tracing::info!(topic = self.parts.topic, ?partitions, "partitions taken over");
        self.joined = true;
        self.parts.membership.up();
        self.parts.source.accept(partitions);
        self.slots.extend(partitions.iter().map(|partition| (*partition, Slot::Waiting)));
        self.positions_after = Instant::now();
    }

    /// Another sink continues from the target's rows, so a batch that cannot be written any more is simply dropped.
    fn revoked(&mut self, partitions: &[i32], lost: bool) -> Result<(), Coded> {
        tracing::info!(topic = self.parts.topic, ?partitions, lost, "partitions given up");
        let written = if lost { Ok(()) } else { self.write() };
        if !self.pending.is_empty() {
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

    /// The end of a partition: everything that was there is read, or something is wrong with the log.
    fn end(&mut self, partition: i32) -> Result<(), Coded> {
        let Some(Slot::Reading(reading)) = self.slots.get_mut(&partition) else { return Ok(()) };
        match reading.end() {
            AtEnd::CaughtUp => {
                self.write()?;
                self.show_lag(partition, 0);
                Ok(())
            }
            AtEnd::ReadFromBeginning => {
                tracing::warn!(
                    topic = self.parts.topic,
                    partition,
                    "the last applied record is gone: reading the partition from its beginning"
                );
                self.go_to(partition, Start::Beginning);
                Ok(())
            }
            AtEnd::Stop(contradiction) => Err(contradicted(&self.parts.topic, partition, contradiction)),
        }
    }

    /// Writes the batch, if there is one.
    fn write(&mut self) -> Result<(), Coded> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let from = |partition: &i32| self.stored.get(partition).copied().unwrap_or_default();
        let advances: Vec<Advance> = self
            .pending
            .iter()
            .map(|(partition, to)| Advance { partition: *partition, from: from(partition), to: *to })
            .collect();
        let Parts { database, topic, work, .. } = &mut self.parts;
        match database.step(async |target| target.apply(topic, work, &advances).await) {
            None => {
                self.forget_positions();
                Ok(())
            }
            Some(Ok((written, retries))) => self.written(&advances, &written, retries),
            Some(Err(failure)) => self.failed(failure),
        }
    }

    fn written(&mut self, advances: &[Advance], written: &Written, retries: u64) -> Result<(), Coded> {
        let Parts { metrics, source, topic, work, .. } = &mut self.parts;
        metrics.batches.get_or_create(&self.label).inc();
        metrics.retries.get_or_create(&self.label).inc_by(retries);
        metrics.rows.get_or_create(&self.label).inc_by(written.rows);
        metrics.records.get_or_create(&self.label).inc_by(u64::try_from(self.records).unwrap_or(u64::MAX));
        tracing::debug!(topic = topic.as_str(), records = self.records, rows = written.rows, "batch written");
        for good_id in &written.held {
            tracing::error!(
                code = "SINK_REMAINS_TOO_LARGE",
                %good_id,
                "the remains of the good do not fit 64 bits; its row keeps the last value that did, the true one is in \
                 remains.held_goods. To do: correct the good's transactions; its next fitting version is applied"
            );
        }
        work.clear();
        self.records = 0;
        self.pending.clear();
        for advance in advances {
            self.stored.insert(advance.partition, advance.to);
            if let Some(stable) = source.stable_offset(advance.partition) {
                let label = TopicPartition { topic: topic.clone(), partition: advance.partition };
                metrics.lag.get_or_create(&label).set(stable.saturating_sub(advance.to.next_offset).max(0));
            }
        }
        source.show_progress(advances.iter().map(|advance| (advance.partition, advance.to.next_offset)));
        self.compare_after = Instant::now() + self.parts.progress_check;
        if written.held.is_empty() && self.parts.metrics.held_goods.get() == 0 { Ok(()) } else { self.count_held() }
    }

    fn count_held(&mut self) -> Result<(), Coded> {
        match self.parts.database.step(async |target| Ok(target.held_goods().await?)) {
            Some(Ok(held)) => {
                self.parts.metrics.held_goods.set(held);
                Ok(())
            }
            Some(Err(failure)) => self.failed(failure),
            None => Ok(()),
        }
    }

    /// The log is a new one: the target's row is set back, then everything is read.
    fn start_over(&mut self, partition: i32, to: Progress) -> Result<(), Coded> {
        self.write()?;
        if !matches!(self.slots.get(&partition), Some(Slot::Reading(_))) {
            // Writing failed; the same record is met again once the target has been asked.
            return Ok(());
        }
        let from = self.stored.get(&partition).copied().unwrap_or_default();
        let advance = Advance { partition, from, to };
        let Parts { database, topic, work, .. } = &mut self.parts;
        match database.step(async |target| target.start_over(topic, work, advance).await) {
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

    /// Seeks one partition; when that fails, it waits and the target is asked again.
    fn go_to(&mut self, partition: i32, start: Start) {
        if let Err(error) = self.parts.source.go_to(&[(partition, start)]) {
            tracing::warn!(topic = self.parts.topic, partition, %error, "seeking failed, trying again");
            self.wait_for_position(partition);
            self.positions_after = Instant::now() + AGAIN;
        }
    }

    fn failed(&mut self, failure: Failure) -> Result<(), Coded> {
        match failure {
            Failure::Refused(error) => Err(error),
            Failure::Conflict => {
                tracing::warn!(
                    topic = self.parts.topic,
                    "the target has another progress than this sink (restored, or another sink was faster): going there"
                );
                self.parts.metrics.rewinds.get_or_create(&self.label).inc();
                self.forget_positions();
                Ok(())
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
                self.forget_positions();
                Ok(())
            }
        }
    }

    fn keep_database(&mut self) -> Result<(), Coded> {
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

    /// Drops the batch; every partition waits until the target has been asked.
    fn forget_positions(&mut self) {
        self.parts.work.clear();
        self.pending.clear();
        self.records = 0;
        let reading: Vec<i32> = self.slots.keys().copied().collect();
        for partition in reading {
            self.wait_for_position(partition);
        }
    }

    fn wait_for_position(&mut self, partition: i32) {
        self.parts.source.pause(&[partition]);
        self.slots.insert(partition, Slot::Waiting);
        self.end_asked.remove(&partition);
    }

    /// Asks the target where the waiting partitions are, and the brokers what there is, and starts reading.
    fn keep_positions(&mut self) -> Result<(), Coded> {
        let waiting: Vec<i32> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Waiting))
            .map(|(partition, _)| *partition)
            .collect();
        if waiting.is_empty() || !self.parts.database.is_up() || Instant::now() < self.positions_after {
            return Ok(());
        }
        self.positions_after = Instant::now() + AGAIN;
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

    /// While idle, compares the target's rows with what this sink believes: a target that was restored, or failed over
    /// with lost commits, is noticed although nothing is to be written. The same query shows that the database lives.
    fn keep_comparing(&mut self) -> Result<(), Coded> {
        if !self.pending.is_empty() || !self.parts.database.is_up() || Instant::now() < self.compare_after {
            return Ok(());
        }
        self.compare_after = Instant::now() + self.parts.progress_check;
        let partitions: Vec<i32> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Reading(_)))
            .map(|(partition, _)| *partition)
            .collect();
        let Parts { database, topic, .. } = &mut self.parts;
        match database.step(async |target| Ok(target.progress(topic, &partitions).await?)) {
            None => Ok(()),
            Some(Err(failure)) => self.failed(failure),
            Some(Ok(rows)) if rows.iter().all(|(partition, row)| self.stored.get(partition) == Some(row)) => Ok(()),
            Some(Ok(_)) => self.failed(Failure::Conflict),
        }
    }

    fn show_lag(&self, partition: i32, lag: i64) {
        let label = TopicPartition { topic: self.parts.topic.clone(), partition };
        self.parts.metrics.lag.get_or_create(&label).set(lag);
    }

    fn note_start(&mut self) {
        if !self.started && self.joined && self.parts.database.is_up() {
            self.started = true;
            (self.parts.on_started)();
        }
    }
}

/// Judges one record and collects it.
fn take<W: Work>(
    work: &mut W,
    topic: &str,
    slots: &mut BTreeMap<i32, Slot>,
    pending: &mut BTreeMap<i32, Progress>,
    record: &Record<'_>,
) -> Taken {
    let Some(Slot::Reading(reading)) = slots.get_mut(&record.partition) else { return Taken::Passed };
    if record.key.is_some_and(|key| work.is_processors_own(key)) {
        return Taken::Passed;
    }
    let item = match work.read(record) {
        Ok(item) => item,
        Err(unreadable) => return Taken::Stop(unreadable.stop(topic, record.partition, record.offset)),
    };
    match reading.judge(record.offset, work.epoch(&item)) {
        Verdict::Apply(progress) => {
            work.add(item);
            pending.insert(record.partition, progress);
            Taken::Collected
        }
        Verdict::Obsolete(progress) => {
            pending.insert(record.partition, progress);
            Taken::Collected
        }
        Verdict::Known => Taken::Passed,
        Verdict::StartOver(progress) => Taken::StartOver(record.partition, progress),
        Verdict::Stop(contradiction) => Taken::Stop(contradicted(topic, record.partition, contradiction)),
    }
}

fn contradicted(topic: &str, partition: i32, contradiction: Contradiction) -> Coded {
    let code = match contradiction {
        Contradiction::LostRecords { .. } => "SINK_TOPIC_LOST_RECORDS",
        Contradiction::OlderEpoch { .. } => "SINK_TOPIC_OLDER_THAN_TARGET",
    };
    Coded::refused(
        code,
        format!("{topic}, partition {partition}: {contradiction}"),
        "check that --bootstrap-servers, --topic-prefix and --database-url belong together; if brokers lost data, have \
         the processor rebuild its output (a new epoch); if this topic is right and the target is not, empty \
         remains.remains, remains.held_goods and remains.progress in one transaction and start again",
    )
}
