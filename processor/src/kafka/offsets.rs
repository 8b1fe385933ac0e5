//! The group's offsets as seen by somebody who is no member.
//!
//! Owns the client that asks the coordinator; joins no group, commits nothing. Tells an operator of offsets that a transaction
//! holds back for longer than any may last.

use std::time::{Duration, Instant};

use processor_engine::{Failure, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::Context;
use super::ffi;
use super::topics::Topics;

/// How long the coordinator has for its answer.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// The same, where it has just answered others.
const NEXT_ANSWER: Duration = Duration::from_secs(1);

/// What is done about offsets of transactions that are not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undecided {
    /// They are waited for, as a member does (KIP-447).
    Awaited,
    /// They count for nothing.
    Ignored,
}

/// Asks the group's coordinator.
pub(super) struct GroupOffsets {
    client: BaseConsumer<Context>,
    topics: Topics,
}

impl GroupOffsets {
    /// `config` is that of a member of the group.
    pub(super) fn new(config: &ClientConfig, topics: Topics, undecided: Undecided) -> Result<Self, Failure> {
        // What makes librdkafka ask for stable offsets only.
        let isolation = match undecided {
            Undecided::Awaited => "read_committed",
            Undecided::Ignored => "read_uncommitted",
        };
        let mut config = config.clone();
        config.set("isolation.level", isolation).remove("group.instance.id");
        let client = config
            .create_with_context(Context::new("offsets"))
            .map_err(|error| super::not_created("client for offsets", &error))?;
        Ok(Self { client, topics })
    }

    /// One offset for each partition, in order; none where the group has none.
    pub(super) fn get(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Failure> {
        self.get_within(partitions, ONE_ANSWER)
    }

    fn get_within(&self, partitions: &[TopicPartition], time: Duration) -> Result<Vec<Option<i64>>, Failure> {
        // Without a subscription the client's only queue carries log lines: serve them, or they pile up.
        while self.client.poll(Duration::ZERO).is_some() {}
        let asking = |what: String| Failure::Rebuild(format!("asking for the group's offsets: {what}"));
        let answer = self.client.committed_offsets(self.topics.list(partitions), time);
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

/// Which of these partitions have offsets that a transaction holds back. None where that is not certain: a coordinator that is away,
/// or a member that asks another one, looks the same to the member.
pub(super) fn held_back(config: &ClientConfig, topics: &Topics, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
    let client = |undecided| GroupOffsets::new(config, topics.clone(), undecided);
    let (Ok(awaited), Ok(ignored)) = (client(Undecided::Awaited), client(Undecided::Ignored)) else {
        return Vec::new();
    };
    if awaited.get(partitions).is_ok() || ignored.get(partitions).is_err() {
        return Vec::new();
    }
    let is_held = |partition: &&TopicPartition| awaited.get_within(&[**partition], NEXT_ANSWER).is_err();
    partitions.iter().filter(is_held).copied().collect()
}

/// How long a member has waited for stable offsets in vain.
#[derive(Debug, Default)]
pub(super) struct InVain {
    since: Option<Instant>,
}

impl InVain {
    /// It has them.
    pub(super) fn over(&mut self) {
        self.since = None;
    }

    /// It has waited for as long as a transaction may last, with brokers away for some of the time perhaps. From the second time
    /// on that is told where a transaction is the reason.
    pub(super) fn again(
        &mut self,
        config: &ClientConfig,
        topics: &Topics,
        partitions: &[TopicPartition],
    ) -> Option<String> {
        let Some(since) = self.since else {
            self.since = Some(Instant::now());
            return None;
        };
        let places: Vec<String> =
            held_back(config, topics, partitions).into_iter().map(|partition| topics.describe(partition)).collect();
        (!places.is_empty()).then(|| tell(&places.join(", "), since.elapsed()))
    }
}

/// Only somebody with the right to alter the cluster can end a transaction whose coordinator believes that it is over.
fn tell(places: &str, time: Duration) -> String {
    let what = format!(
        "the group's offsets of {places} are held back by a transaction for more than {} s, longer than any of this program's lasts",
        time.as_secs()
    );
    tracing::error!(
        code = "GROUP_OFFSETS_HELD_BACK",
        "{what}. Nothing is lost, but this worker stands still. To do: kafka-transactions find-hanging names the transaction in \
         __consumer_offsets, and kafka-transactions abort ends it; see docs/OPERATIONS.md under this code"
    );
    what
}
