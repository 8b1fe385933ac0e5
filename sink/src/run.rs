//! Owns the loop that joins Kafka and the target: gather a batch, have it written, keep positions, keep the connection.
//!
//! One thread per topic owns the consumer and what is gathered. A batch that is complete moves, with the connection, to
//! a task beside the loop, and comes back as a result; meanwhile the next one is gathered. So there are at most two
//! batches, nothing is shared, and everything else that the database is asked waits for that result. All waits are
//! bounded, so the loop comes back to Kafka in time. Four rules:
//! - a partition is read only after the target said from where (invariant 9);
//! - what is gathered is written at once when nothing more is waiting, or when the batch is full: an idle system
//!   shows a change without delay, a busy one writes large batches;
//! - the outcome of the batch in flight is known before the next one is begun, or a partition is given up;
//! - after any doubt (connection lost, progress not as believed) nothing gathered is written: the target is asked again.
//!
//! # Layout
//! [`gathered`]: the batch that grows. [`writing`]: the batch in flight. [`positions`]: which partitions are read, and
//! from where. [`completing`]: removing older epochs.

mod completing;
mod gathered;
mod positions;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use service::health::{Condition, Heartbeat};
use service::{Coded, Shutdown};

use self::gathered::{Gathered, Slot, Taken};
use self::writing::InFlight;
use crate::completion::Announced;
use crate::database::Database;
use crate::kafka::{Announcements, Event, Source};
use crate::metrics::{Metrics, Topic};
use crate::position::{AtEnd, Contradiction, Progress, Start};
use crate::work::{Types, Work};

/// How long an idle loop waits for Kafka; a record ends the wait at once.
const IDLE: Duration = Duration::from_millis(100);
/// How long to wait before brokers or a peer are asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// What the loop needs from outside.
pub struct Parts {
    /// The consumer.
    pub source: Source,
    /// The topic it reads.
    pub topic: String,
    /// The target.
    pub database: Database,
    /// What its goods, ids and quantities are.
    pub types: Types,
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

/// The loop's state; `W` is what is made of records.
pub struct Loop<W: Work> {
    parts: Parts,
    label: Topic,
    slots: BTreeMap<i32, Slot>,
    /// What the target's rows say, as far as this sink knows: without the batch in flight.
    stored: BTreeMap<i32, Progress>,
    gathered: Gathered<W>,
    in_flight: Option<InFlight>,
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
    pub fn new(parts: Parts) -> Self {
        let (now, label) = (Instant::now(), Topic { topic: parts.topic.clone() });
        parts.metrics.begin(&label);
        Self {
            parts,
            label,
            slots: BTreeMap::new(),
            stored: BTreeMap::new(),
            gathered: Gathered::default(),
            in_flight: None,
            announced: Announced::default(),
            end_asked: BTreeSet::new(),
            positions_after: now,
            completions_after: now,
            compare_after: now,
            joined: false,
            started: false,
        }
    }

    /// Runs until the end is asked for, then writes what is gathered and leaves the group.
    ///
    /// # Errors
    /// Whatever nobody but an operator can resolve.
    pub fn run(mut self) -> Result<(), Coded> {
        let result = self.until_stopped();
        // Also after an error: who takes over asks the target, which must not change afterwards.
        let settled = self.settle();
        self.parts.source.close();
        result.and(settled)
    }

    fn until_stopped(&mut self) -> Result<(), Coded> {
        while !self.parts.shutdown.requested() {
            self.parts.heartbeat.beat();
            self.keep_database()?;
            self.keep_positions()?;
            self.keep_completions()?;
            self.keep_comparing()?;
            self.gather()?;
            self.note_start();
        }
        self.flush()
    }

    /// Takes records, as many as a batch has at most, until there is something else to see to.
    fn gather(&mut self) -> Result<(), Coded> {
        for _ in 0..self.parts.batch_records {
            let timeout = if self.has_unwritten() { Duration::ZERO } else { IDLE };
            let Parts { source, topic, types, .. } = &mut self.parts;
            let (slots, gathered) = (&mut self.slots, &mut self.gathered);
            match source.poll(timeout, |record| gathered.take(topic, *types, slots, &record))? {
                Event::Record(Taken::Passed) => {}
                Event::Record(Taken::Collected) if self.gathered.records() < self.parts.batch_records => {}
                event => return self.handle(event),
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event<Taken>) -> Result<(), Coded> {
        match event {
            Event::Record(Taken::Passed) => Ok(()),
            Event::Record(Taken::StartOver(partition, progress)) => self.start_over(partition, progress),
            Event::Record(Taken::Stop(error)) => {
                self.parts.metrics.unreadable_records.get_or_create(&self.label).inc();
                self.flush()?;
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
                self.settle()?;
                self.forget_positions();
                Ok(())
            }
            // Nothing more to gather, so there is nothing to do beside a batch in flight. One wait per poll.
            Event::Idle if self.in_flight.is_some() => self.settle(),
            Event::Idle | Event::Record(Taken::Collected) => self.write(),
        }
    }

    /// The end of a partition: everything that was there is read, or something is wrong with the log.
    fn end(&mut self, partition: i32) -> Result<(), Coded> {
        let Some(Slot::Reading(reading)) = self.slots.get_mut(&partition) else { return Ok(()) };
        match reading.end() {
            AtEnd::CaughtUp => {
                if !self.has_unwritten() {
                    self.show_lag(partition, 0);
                }
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

    /// Whether a batch is gathered or in flight.
    fn has_unwritten(&self) -> bool {
        !self.gathered.is_empty() || self.in_flight.is_some()
    }

    fn note_start(&mut self) {
        if !self.started && self.joined && self.parts.database.is_up() {
            self.started = true;
            (self.parts.on_started)();
        }
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
