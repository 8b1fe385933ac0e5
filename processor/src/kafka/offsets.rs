//! The group's offsets as of now: what open transactions hold is not waited for, as a member waits for it.
//!
//! Owns the client that asks; joins no group, commits nothing. Tells whether something is left to read, and an operator of
//! offsets that a transaction holds back for longer than any may last.

use std::time::{Duration, Instant};

use processor_engine::cluster::{LogEnds, LogReader, Read};
use processor_engine::{Failure, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::Context;
use super::ffi;
use super::reader::KafkaReader;
use super::topics::Topics;

/// How long the coordinator has for its answer.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// How long a reader may take to come to what lies behind an offset.
const ONE_LOOK: Duration = Duration::from_secs(15);
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// Asks the group's coordinator.
pub(super) struct GroupOffsets {
    client: BaseConsumer<Context>,
    topics: Topics,
}

impl GroupOffsets {
    /// `config` is that of a member of the group.
    pub(super) fn new(config: &ClientConfig, topics: Topics) -> Result<Self, Failure> {
        let mut config = config.clone();
        // What makes librdkafka not ask for stable offsets only (KIP-447).
        config.set("isolation.level", "read_uncommitted").remove("group.instance.id");
        let client = config
            .create_with_context(Context::new("offsets"))
            .map_err(|error| super::not_created("client for offsets", &error))?;
        Ok(Self { client, topics })
    }

    /// One offset for each partition, in order; none where the group has none.
    pub(super) fn as_of_now(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Failure> {
        // Without a subscription the client's only queue carries log lines: serve them, or they pile up.
        while self.client.poll(Duration::ZERO).is_some() {}
        let asking = |what: String| Failure::Rebuild(format!("asking for the group's offsets: {what}"));
        let answer = self.client.committed_offsets(self.topics.list(partitions), ONE_ANSWER);
        let elements = ffi::elements(&answer.map_err(|error| asking(error.to_string()))?);
        partitions
            .iter()
            .map(|partition| {
                let found = elements.iter().find(|element| self.topics.partition(element) == Some(*partition));
                match found.map(|element| (element.error, element.offset)) {
                    Some((None, offset)) => Ok((offset >= 0).then_some(offset)),
                    Some((Some(code), _)) => Err(asking(code.to_string())),
                    None => Err(asking(format!("no answer about {}", self.topics.describe(*partition)))),
                }
            })
            .collect()
    }
}

/// Whether a partition holds a record at or behind an offset, or a transaction that is not decided.
pub(super) fn holds_more(
    reader: &mut KafkaReader,
    partition: TopicPartition,
    offset: i64,
    ends: LogEnds,
) -> Result<bool, Failure> {
    if offset.max(ends.start) >= ends.high_watermark {
        return Ok(false);
    }
    // Control records and aborted ones are no records, and only reading tells.
    reader.add(partition, offset)?;
    let deadline = Instant::now() + ONE_LOOK;
    let mut found = None;
    while found.is_none() && Instant::now() < deadline {
        found = match reader.poll(POLL, &mut |_| ())? {
            Read::Record => Some(true),
            Read::End { partition: ended, position } if ended == partition => Some(position < ends.high_watermark),
            Read::End { .. } | Read::Idle => None,
        };
    }
    reader.remove(partition)?;
    found.ok_or_else(|| Failure::Rebuild("neither a record nor the end of a partition".into()))
}

/// Whether the coordinator answers for these partitions, of which it does not tell a member the offsets.
pub(super) fn are_held_back(config: &ClientConfig, topics: &Topics, partitions: &[TopicPartition]) -> bool {
    GroupOffsets::new(config, topics.clone()).and_then(|offsets| offsets.as_of_now(partitions)).is_ok()
}

/// Says that they are held back, and returns what was said. Only somebody with the right to alter the cluster can end a
/// transaction whose coordinator believes that it is over.
pub(super) fn tell_held_back(topics: &Topics, partitions: &[TopicPartition], patience: Duration) -> String {
    let places: Vec<String> = partitions.iter().map(|partition| topics.describe(*partition)).collect();
    let what = format!(
        "the group's offsets of {} are held back by a transaction for longer than {} s, and none may last that long",
        places.join(", "),
        patience.as_secs()
    );
    tracing::error!(
        code = "GROUP_OFFSETS_HELD_BACK",
        "{what}. Nothing is lost, and these partitions stand still. To do: kafka-transactions find-hanging names it in \
         __consumer_offsets, and kafka-transactions abort ends it; see docs/OPERATIONS.md under this code"
    );
    what
}
