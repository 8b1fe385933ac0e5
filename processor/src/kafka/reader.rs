//! Reads changelogs and the broadcast topic outside the group.
//!
//! Owns manual assignments; belongs to no group, commits nothing. Reports the end of a partition with the
//! position behind control records, because no record can tell that a log has been read to its end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use processor_engine::cluster::{LogReader, Read, Record};
use processor_engine::{Failure, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::Context;
use super::ffi::{ConsumerError, Kind, Poller};
use super::poll::{self, Trouble};
use super::topics::Topics;
use super::watermarks;

/// The reader; see [`LogReader`].
pub struct KafkaReader {
    poller: Poller<Context>,
    context: Context,
    topics: Topics,
    /// Partitions being read and where each was started.
    started: HashMap<TopicPartition, i64>,
}

impl KafkaReader {
    /// Builds the client.
    pub(super) fn new(config: &ClientConfig, topics: Topics) -> Result<Self, Failure> {
        let context = Context::new("reader");
        let consumer: BaseConsumer<Context> =
            config.create_with_context(context.clone()).map_err(|error| super::not_created("reader", &error))?;
        let poller = Poller::new(consumer).ok_or_else(|| Failure::Rebuild("the reader has no queue".into()))?;
        Ok(Self { poller, context, topics, started: HashMap::new() })
    }

    fn client(&self) -> Result<&BaseConsumer<Context>, Failure> {
        self.poller.consumer().ok_or_else(|| Failure::Rebuild("the reader is closed".into()))
    }

    /// Starts reading partitions at offsets that their logs have.
    pub(super) fn add_all(&mut self, starts: impl Iterator<Item = (TopicPartition, i64)>) -> Result<(), Failure> {
        for (partition, from) in starts {
            let what =
                |error| Failure::Rebuild(format!("reading {} from {from}: {error}", self.topics.describe(partition)));
            let list = self.topics.list_at(partition, from, None).map_err(what)?;
            self.client()?.incremental_assign(&list).map_err(what)?;
            self.started.insert(partition, from);
        }
        Ok(())
    }

    fn trouble(&self, error: &ConsumerError) -> Option<Failure> {
        if poll::is_stale(error, &self.topics, &self.started) {
            return None;
        }
        match poll::judge(error, &self.topics, "CHANGELOG") {
            Trouble::Passing => None,
            Trouble::UnknownTopic => poll::confirm_missing(self.poller.consumer()?, &self.topics, error),
            Trouble::Serious(failure) => Some(failure),
        }
    }
}

impl LogReader for KafkaReader {
    fn add(&mut self, partition: TopicPartition, offset: i64) -> Result<(), Failure> {
        self.remove(partition)?;
        let name = self.topics.name(partition.topic);
        let ends = watermarks::fetch(self.client()?, name, partition.partition, watermarks::PATIENCE)?;
        self.add_all(std::iter::once((partition, offset.max(ends.start))))
    }

    fn remove(&mut self, partition: TopicPartition) -> Result<(), Failure> {
        if self.started.remove(&partition).is_none() {
            return Ok(());
        }
        let list = self.topics.list(&[partition]);
        self.client()?
            .incremental_unassign(&list)
            .map_err(|error| Failure::Rebuild(format!("stopping {}: {error}", self.topics.describe(partition))))
    }

    fn poll(&mut self, timeout: Duration, on_record: &mut dyn FnMut(&Record<'_>)) -> Result<Read, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(event) = self.poller.poll(left) else { return Ok(Read::Idle) };
            match event.kind() {
                Kind::Record(parts) => {
                    if poll::deliver(&parts, &self.topics, &self.started, on_record) {
                        return Ok(Read::Record);
                    }
                }
                Kind::Error(error) => {
                    drop(event);
                    if let Some((partition, position)) = poll::end(&error, &self.topics, &self.started) {
                        return Ok(Read::End { partition, position });
                    }
                    if let Some(failure) = self.trouble(&error) {
                        return Err(failure);
                    }
                }
                other => poll::report(&other, &self.context),
            }
            if left.is_zero() {
                return Ok(Read::Idle);
            }
        }
    }
}
