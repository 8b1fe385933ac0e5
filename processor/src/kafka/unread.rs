//! Whether an input holds anything that the group has not committed yet, whoever has its partitions.
//!
//! Owns the two clients that look; they belong to no group. One look ends within [`LOOK`], because a worker that looks hears
//! nothing of its group meanwhile. Decides nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use processor_engine::cluster::{LogReader, Read};
use processor_engine::{Failure, TopicPartition};
use rdkafka::consumer::BaseConsumer;
use service::Shutdown;

use super::config::Settings;
use super::context::Context;
use super::offsets::{GroupOffsets, Undecided};
use super::reader::KafkaReader;
use super::topics::Topics;
use super::watermarks;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(15);
/// How long one partition's leader has to say where it ends.
const ONE_ANSWER: Duration = Duration::from_secs(3);
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(50);
/// After something was found it is not looked for again for so long: it is another member's, which takes its time.
const FOUND_HOLDS: Duration = Duration::from_secs(2);
/// How often it is told what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Looks for it.
pub(super) struct Unread {
    offsets: GroupOffsets,
    reader: KafkaReader,
    topics: Topics,
    shutdown: Shutdown,
    found: Option<Instant>,
    told: Option<Instant>,
}

impl Unread {
    pub(super) fn new(settings: &Settings, topics: Topics) -> Result<Self, Failure> {
        Ok(Self {
            offsets: GroupOffsets::new(&settings.consumer(), topics.clone(), Undecided::Ignored)?,
            reader: KafkaReader::new(&settings.reader(), topics.clone())?,
            topics,
            shutdown: settings.shutdown.clone(),
            found: None,
            told: None,
        })
    }

    /// Whether any of these partitions holds a record behind the group's offset, or a transaction that is not decided. `queries`:
    /// the client that asks leaders for ends.
    pub(super) fn any(
        &mut self,
        queries: &BaseConsumer<Context>,
        partitions: &[TopicPartition],
    ) -> Result<bool, Failure> {
        if partitions.is_empty() {
            return Ok(false);
        }
        if self.found.is_some_and(|found| found.elapsed() < FOUND_HOLDS) {
            return Ok(true);
        }
        let found = self.look(queries, partitions)?;
        self.found = found.map(|_| Instant::now());
        if let Some(partition) = found
            && self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY)
        {
            self.told = Some(Instant::now());
            let place = self.topics.describe(partition);
            tracing::info!("not ending yet: {place} has something left to read, which may be another process's");
        }
        Ok(found.is_some())
    }

    fn look(
        &mut self,
        queries: &BaseConsumer<Context>,
        partitions: &[TopicPartition],
    ) -> Result<Option<TopicPartition>, Failure> {
        let deadline = Instant::now() + LOOK;
        let offsets = self.offsets.get(partitions)?;
        let mut behind = Vec::new();
        for (partition, offset) in partitions.iter().zip(offsets) {
            self.go_on(deadline)?;
            let ends = watermarks::fetch(queries, self.topics.name(partition.topic), partition.partition, ONE_ANSWER)?;
            let from = offset.unwrap_or(0).max(ends.start);
            if from < ends.high_watermark {
                behind.push((*partition, from, ends.high_watermark));
            }
        }
        // Control records and aborted ones are no records, and only reading tells.
        self.reader.add_all(behind.iter().map(|(partition, from, _)| (*partition, *from)))?;
        let mut left: BTreeSet<TopicPartition> = behind.iter().map(|(partition, ..)| *partition).collect();
        let mut found = None;
        while found.is_none() && !left.is_empty() {
            self.go_on(deadline)?;
            let mut source = None;
            match self.reader.poll(POLL, &mut |record| source = Some(record.source))? {
                Read::Record => found = source,
                Read::End { partition, position } => {
                    let is_undecided = behind.iter().any(|(ended, _, end)| *ended == partition && position < *end);
                    found = is_undecided.then_some(partition);
                    left.remove(&partition);
                }
                Read::Idle => {}
            }
        }
        for (partition, ..) in behind {
            self.reader.remove(partition)?;
        }
        Ok(found)
    }

    fn go_on(&self, deadline: Instant) -> Result<(), Failure> {
        if Instant::now() >= deadline || self.shutdown.requested() {
            return Err(Failure::Rebuild(format!("what is left to read was not known within {LOOK:?}")));
        }
        Ok(())
    }
}
