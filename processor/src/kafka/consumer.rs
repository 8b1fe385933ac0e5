//! The member of the consumer group on rdkafka.
//!
//! Owns subscription, assignment and positions; commits nothing. A rebalance is handed to the worker as an
//! ordinary event and answered later (librdkafka waits for as long as `max.poll.interval.ms`), because whole
//! transactions must be resolved first (engine rule 3). Never keeps a partition list alive: it would hold
//! librdkafka's partitions and hang the drop.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use processor_engine::cluster::{CommittedOffset, GroupConsumer, Polled, Rebalance, Record};
use processor_engine::{Failure, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use service::Shutdown;

use super::context::Context;
use super::errors::is_transient;
use super::ffi::{self, ConsumerError, GroupMetadata, Kind, Poller};
use super::offsets::InVain;
use super::poll::{self, Trouble};
use super::topics::Topics;

/// How long a seek or a look-up of log ends may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a look-up of stable offsets takes no notice of being told to stop, at first and at most: it is twice as long each
/// time, because an answer of a slow broker that was not waited for has to be asked for again.
const STABLE_FIRST: Duration = Duration::from_secs(1);
const STABLE_LONGEST: Duration = Duration::from_secs(10);
/// Pause between attempts.
const BACKOFF: Duration = Duration::from_millis(5);
/// librdkafka's `OFFSET_BEGINNING` and `OFFSET_END`.
const BEGINNING: i64 = -2;
const END: i64 = -1;

/// The group member; see [`GroupConsumer`].
pub struct KafkaConsumer {
    poller: Poller<Context>,
    context: Context,
    topics: Topics,
    /// Partitions being read and the offset each was started at. Whatever arrives for another partition, or
    /// from below that offset, was prefetched before a pause or a seek.
    started: HashMap<TopicPartition, i64>,
    /// A rebalance that was handed out and not answered yet; closing must answer it or it never ends.
    unanswered: Option<Rebalance>,
    /// What its client is told.
    config: ClientConfig,
    /// How long open transactions may hold stable offsets back.
    patience: Duration,
    in_vain: InVain,
    /// When waiting for them is given up, because the program has to end.
    shutdown: Shutdown,
}

impl KafkaConsumer {
    /// Builds the member and subscribes it to all inputs of the topology.
    pub(super) fn subscribe(
        config: &ClientConfig,
        topics: Topics,
        patience: Duration,
        shutdown: Shutdown,
    ) -> Result<Self, Failure> {
        let context = Context::new("consumer");
        let consumer: BaseConsumer<Context> =
            config.create_with_context(context.clone()).map_err(|error| super::not_created("consumer", &error))?;
        let inputs: Vec<&str> = topics.topology().stages.iter().map(|stage| topics.name(stage.input)).collect();
        consumer.subscribe(&inputs).map_err(|error| Failure::Rebuild(format!("subscribing: {error}")))?;
        let poller = Poller::new(consumer).ok_or_else(|| Failure::Rebuild("the consumer has no queue".into()))?;
        let (config, started) = (config.clone(), HashMap::new());
        let in_vain = InVain::default();
        Ok(Self { poller, context, topics, started, unanswered: None, config, patience, in_vain, shutdown })
    }

    fn client(&self) -> Result<&BaseConsumer<Context>, Failure> {
        self.poller.consumer().ok_or_else(|| Failure::Rebuild("the consumer is closed".into()))
    }

    /// Where to let new partitions stand until they are started: at their end, so that nothing is prefetched.
    /// An absolute offset on purpose: a logical one (`BEGINNING`) is looked up in the background, and a reply
    /// that a seek has overtaken makes librdkafka look it up again and jump to the log start 500 ms later
    /// (`rd_kafka_toppar_handle_Offset`). The guard in `started` would drop what that reads, but it is a waste.
    fn parked(&self, partitions: &[TopicPartition]) -> Result<TopicPartitionList, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut ends: HashMap<TopicPartition, i64> = HashMap::new();
        while ends.len() < partitions.len() {
            let missing: Vec<TopicPartition> =
                partitions.iter().filter(|partition| !ends.contains_key(partition)).copied().collect();
            let mut query = TopicPartitionList::with_capacity(missing.len());
            for partition in &missing {
                self.add(&mut query, *partition, END)?;
            }
            match self.client()?.offsets_for_times(query, deadline.saturating_duration_since(Instant::now())) {
                Ok(answer) => ends.extend(ffi::elements(&answer).iter().filter_map(|element| {
                    let found = element.error.is_none() && element.offset >= 0;
                    found.then(|| self.topics.partition(element)).flatten().map(|key| (key, element.offset))
                })),
                Err(error) => tracing::debug!(%error, "log ends of new partitions not known yet"),
            }
            if Instant::now() >= deadline {
                break;
            }
            if ends.len() < partitions.len() {
                std::thread::sleep(BACKOFF);
            }
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            self.add(&mut list, *partition, ends.get(partition).copied().unwrap_or(BEGINNING))?;
        }
        Ok(list)
    }

    fn add(&self, list: &mut TopicPartitionList, partition: TopicPartition, offset: i64) -> Result<(), Failure> {
        let name = self.topics.name(partition.topic);
        ffi::add_offset(list, name, partition.partition, offset, None, "")
            .map_err(|error| Failure::Rebuild(format!("offset {offset} of {name}: {error}")))
    }

    fn rebalance(&mut self, assign: bool, partitions: &[ffi::Element]) -> Rebalance {
        let known = partitions.iter().filter_map(|element| {
            let partition = self.topics.partition(element);
            if partition.is_none() {
                tracing::error!(topic = element.topic, "rebalance names a topic that was not subscribed to");
            }
            partition
        });
        let known: Vec<TopicPartition> = known.collect();
        let lost = self.poller.consumer().is_some_and(Consumer::assignment_lost);
        let rebalance = match (assign, lost) {
            (true, _) => Rebalance::Assign(known),
            (false, false) => Rebalance::Revoke(known),
            (false, true) => Rebalance::Lost(known),
        };
        self.unanswered = Some(rebalance.clone());
        rebalance
    }

    /// An error on the queue: `None` when librdkafka mends it by itself.
    fn trouble(&self, error: &ConsumerError) -> Option<Failure> {
        let consumer = self.poller.consumer()?;
        if poll::names_an_offset(error) && poll::is_stale(error, &self.topics, &self.started) {
            tracing::info!(text = error.text.trim(), "an error of a partition that is not read at that offset");
            return None;
        }
        match poll::judge(error, &self.topics, "INPUT") {
            Trouble::Passing => None,
            Trouble::UnknownTopic => poll::confirm_missing(consumer, &self.topics, error),
            Trouble::Serious(failure) => Some(failure),
        }
    }

    fn seek(&self, partition: TopicPartition, offset: i64, leader_epoch: Option<i32>) -> Result<(), Failure> {
        let what = || format!("seeking {} to {offset}", self.topics.describe(partition));
        let deadline = Instant::now() + PATIENCE;
        let mut before = None;
        loop {
            let list = self
                .topics
                .list_at(partition, offset, leader_epoch)
                .map_err(|error| Failure::Rebuild(format!("{}: {error}", what())))?;
            let left = deadline.saturating_duration_since(Instant::now());
            // A timeout above zero makes the seek a barrier: nothing prefetched before it is delivered after it.
            let result = self.client()?.seek_partitions(list, left.max(Duration::from_millis(1)));
            let error = match result {
                Ok(list) => match ffi::elements(&list).into_iter().find_map(|element| element.error) {
                    None => return Ok(()),
                    // The assignment is still being put into effect.
                    Some(
                        code @ (RDKafkaErrorCode::State
                        | RDKafkaErrorCode::PreviousInProgress
                        | RDKafkaErrorCode::UnknownPartition),
                    ) if Instant::now() < deadline => {
                        before = Some(code);
                        std::thread::sleep(BACKOFF);
                        continue;
                    }
                    // It fetches this partition no more: what it was read at, or parked at, had left the log.
                    Some(RDKafkaErrorCode::State) => return Err(poll::member_lost(what())),
                    Some(code) => code.to_string(),
                },
                // The last attempt has had no time left for its answer, which would have been the same.
                Err(_) if before == Some(RDKafkaErrorCode::State) => return Err(poll::member_lost(what())),
                Err(error) => error.to_string(),
            };
            return Err(Failure::Rebuild(format!("{}: {error}", what())));
        }
    }

    fn incremental(
        &self,
        doing: &str,
        partitions: &TopicPartitionList,
        call: impl FnOnce(&BaseConsumer<Context>, &TopicPartitionList) -> Result<(), KafkaError>,
    ) -> Result<(), Failure> {
        call(self.client()?, partitions).map_err(|error| Failure::Rebuild(format!("{doing}: {error}")))?;
        match ffi::elements(partitions).into_iter().find_map(|element| Some((element.error?, element))) {
            None => Ok(()),
            Some((code, element)) => {
                Err(Failure::Rebuild(format!("{doing}: {} [{}]: {code}", element.topic, element.partition)))
            }
        }
    }
}

impl GroupConsumer for KafkaConsumer {
    type Metadata = GroupMetadata;

    fn poll(&mut self, timeout: Duration, on_record: &mut dyn FnMut(&Record<'_>)) -> Result<Polled, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(event) = self.poller.poll(left) else { return Ok(Polled::Idle) };
            match event.kind() {
                Kind::Record(parts) => {
                    if poll::deliver(&parts, &self.topics, &self.started, on_record) {
                        return Ok(Polled::Record);
                    }
                }
                Kind::Rebalance { assign, partitions } => {
                    drop(event);
                    return Ok(Polled::Rebalance(self.rebalance(assign, &partitions)));
                }
                Kind::Error(error) => {
                    drop(event);
                    if let Some((partition, position)) = poll::end(&error, &self.topics, &self.started) {
                        return Ok(Polled::End { partition, position });
                    }
                    if let Some(failure) = self.trouble(&error) {
                        return Err(failure);
                    }
                }
                other => poll::report(&other, &self.context),
            }
            if left.is_zero() {
                return Ok(Polled::Idle);
            }
        }
    }

    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        for partition in partitions {
            self.started.remove(partition);
        }
        let list = self.parked(partitions)?;
        self.incremental("taking partitions", &list, Consumer::incremental_assign)?;
        self.unanswered = None;
        self.pause(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        for partition in partitions {
            self.started.remove(partition);
        }
        let list = self.topics.list(partitions);
        self.incremental("giving partitions up", &list, Consumer::incremental_unassign)?;
        self.unanswered = None;
        Ok(())
    }

    fn start(&mut self, partition: TopicPartition, offset: i64, leader_epoch: Option<i32>) -> Result<(), Failure> {
        self.seek(partition, offset, leader_epoch)?;
        self.started.insert(partition, offset);
        let list = self.topics.list(&[partition]);
        self.incremental("resuming", &list, Consumer::resume)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        if partitions.is_empty() {
            return Ok(());
        }
        for partition in partitions {
            self.started.remove(partition);
        }
        let list = self.topics.list(partitions);
        self.incremental("pausing", &list, Consumer::pause)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Failure> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + self.patience;
        let mut longest = STABLE_FIRST;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(longest);
            let code = match self.client()?.committed_offsets(self.topics.list(partitions), left) {
                Ok(list) => {
                    let elements = ffi::elements(&list);
                    match elements.iter().find_map(|element| element.error) {
                        None => {
                            self.in_vain.over();
                            return Ok(self.in_order(partitions, &elements));
                        }
                        Some(code) => code,
                    }
                }
                Err(error) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
            };
            if let Some(stop) = super::errors::refusal(code, "fetching committed offsets", "") {
                return Err(stop);
            }
            let is_over = Instant::now() >= deadline;
            if is_over && let Some(what) = self.in_vain.again(&self.config, &self.topics, partitions) {
                return Err(Failure::Rebuild(what));
            }
            if !is_transient(code) || is_over || self.shutdown.requested() {
                return Err(Failure::Rebuild(format!("fetching committed offsets: {code}")));
            }
            longest = (2 * longest).min(STABLE_LONGEST);
            std::thread::sleep(BACKOFF);
        }
    }

    fn metadata(&mut self) -> Result<Option<GroupMetadata>, Failure> {
        Ok(GroupMetadata::of(self.client()?))
    }

    fn leave(&mut self) -> Result<(), Failure> {
        self.client()?.unsubscribe();
        Ok(())
    }
}

impl KafkaConsumer {
    fn in_order(&self, partitions: &[TopicPartition], found: &[ffi::Element]) -> Vec<Option<CommittedOffset>> {
        let offsets: HashMap<TopicPartition, &ffi::Element> =
            found.iter().filter_map(|element| Some((self.topics.partition(element)?, element))).collect();
        let offset_of = |partition| {
            let element: &&ffi::Element = offsets.get(partition)?;
            let committed = CommittedOffset { offset: element.offset, metadata: element.metadata.clone() };
            (element.offset >= 0).then_some(committed)
        };
        partitions.iter().map(offset_of).collect()
    }
}

impl Drop for KafkaConsumer {
    /// Closing ends only when an open rebalance is answered; partitions then go back with the departure.
    fn drop(&mut self) {
        let answered = match self.unanswered.take() {
            None => Ok(()),
            Some(Rebalance::Assign(_)) => {
                let none = TopicPartitionList::new();
                self.incremental("closing", &none, Consumer::incremental_assign)
            }
            Some(Rebalance::Revoke(partitions) | Rebalance::Lost(partitions)) => {
                let list = self.topics.list(&partitions);
                self.incremental("closing", &list, Consumer::incremental_unassign)
            }
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "the open rebalance could not be answered");
        }
    }
}
