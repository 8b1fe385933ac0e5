//! One worker's view of a real Kafka cluster: builds its clients and answers questions about logs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use processor_engine::cluster::{Cluster, LogEnds};
use processor_engine::{Failure, TopicIndex, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::config::Settings;
use super::consumer::KafkaConsumer;
use super::context::Context;
use super::errors::{is_transient, is_unknown_topic, refusal};
use super::ffi::{self, AdminQueue, GroupMetadata, TopicDescription};
use super::producer::KafkaProducer;
use super::reader::KafkaReader;
use super::topics::Topics;
use super::unread::Unread;
use super::watermarks;

/// Beyond its own timeout, an orphaned transaction is found by the coordinator's sweep every 10 s; then
/// markers are written.
const ORPHAN_SWEEP: Duration = Duration::from_secs(25);
/// How long one client is asked for log ends: it may believe in a dead leader for minutes, where a new one asks whoever is
/// there and has the answer in milliseconds.
const PER_CLIENT: Duration = Duration::from_secs(5);
/// How long deleting consumed records may take; nobody waits for it.
const DELETE_RECORDS: Duration = Duration::from_secs(30);

/// A real cluster; see [`Cluster`].
pub struct KafkaCluster {
    settings: Settings,
    topics: Topics,
    queries: Option<Queries>,
    unread: Option<Unread>,
}

/// The client that asks. Field order matters: the queue goes before its client.
struct Queries {
    queue: AdminQueue,
    client: BaseConsumer<Context>,
}

impl KafkaCluster {
    /// Talks to nobody yet.
    pub fn new(settings: Settings) -> Self {
        let topics = Topics::new(std::sync::Arc::clone(&settings.topology));
        Self { settings, topics, queries: None, unread: None }
    }

    /// How long a predecessor's open transaction may stand in the way before Kafka itself resolves it.
    fn patience(&self) -> Duration {
        self.settings.transaction_timeout + ORPHAN_SWEEP
    }

    /// Why a partition that nobody answers for does not exist, if that is so; `None` for a mere outage.
    fn missing(&mut self, topic: &str, partition: i32) -> Result<Option<Failure>, Failure> {
        let queries = self.queries()?;
        let found = ffi::describe_topics(queries.client.client(), &[topic], Duration::from_secs(5));
        let Some(described) = found.ok().and_then(|topics| topics.into_iter().find(|found| found.name == topic)) else {
            return Ok(None);
        };
        let remedy = "restore the topic, or see docs/OPERATIONS.md";
        let gone = described.error.as_ref().is_some_and(|error| is_unknown_topic(error.code));
        if gone {
            return Ok(Some(Failure::stop("TOPIC_MISSING", format!("topic {topic} does not exist"), remedy)));
        }
        let has = described.partitions;
        if described.error.is_none() && usize::try_from(partition).is_ok_and(|partition| partition >= has) {
            let what = format!("topic {topic} has {has} partitions, but its counterpart has more than {partition}");
            let remedy = "a changed partition count moves keys away from their state: have the connector take a new complete \
                          snapshot into a new topic, and start under a new --topic-prefix and --application-id";
            return Ok(Some(Failure::stop("TOPIC_WRONG_PARTITIONS", what, remedy)));
        }
        Ok(None)
    }

    fn describe(&mut self, topic: TopicIndex) -> Result<TopicDescription, Failure> {
        let name = self.topics.name(topic).to_owned();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let queries = self.queries()?;
            let found = ffi::describe_topics(queries.client.client(), &[&name], Duration::from_secs(5));
            let error = match found.map(|topics| topics.into_iter().find(|topic| topic.name == name)) {
                Ok(Some(mut topic)) => match topic.error.take() {
                    None => return Ok(topic),
                    Some(error) => error,
                },
                Ok(None) => return Err(Failure::Rebuild(format!("the brokers did not describe topic {name}"))),
                Err(error) => error,
            };
            if let Some(stop) = refusal(error.code, "describing topics", &error.text) {
                return Err(stop);
            }
            let unknown = is_unknown_topic(error.code);
            if !(unknown || is_transient(error.code)) || Instant::now() >= deadline {
                let what = format!("topic {name} could not be described: {} ({})", error.text, error.code);
                return Err(if unknown {
                    Failure::stop("TOPIC_MISSING", what, "restore the topic, or see docs/OPERATIONS.md")
                } else {
                    Failure::Rebuild(what)
                });
            }
            // A client that knows a dead broker as the controller may ask nobody else for minutes; a new one asks whoever
            // is there.
            self.queries = None;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn queries(&mut self) -> Result<&Queries, Failure> {
        let queries = match self.queries.take() {
            Some(queries) => queries,
            None => Queries::new(&self.settings)?,
        };
        // Without a group the client's only queue carries log lines: serve them, or they pile up.
        while queries.client.poll(Duration::ZERO).is_some() {}
        Ok(self.queries.insert(queries))
    }
}

impl Queries {
    fn new(settings: &Settings) -> Result<Self, Failure> {
        let client: BaseConsumer<Context> = settings
            .queries()
            .create_with_context(Context::new("queries"))
            .map_err(|error| super::not_created("query client", &error))?;
        let queue = AdminQueue::new(client.client()).ok_or_else(|| Failure::Rebuild("no admin queue".into()))?;
        Ok(Self { queue, client })
    }
}

impl Cluster for KafkaCluster {
    type Metadata = GroupMetadata;
    type Consumer = KafkaConsumer;
    type Producer = KafkaProducer;
    type Reader = KafkaReader;

    fn consumer(&mut self) -> Result<KafkaConsumer, Failure> {
        let (config, shutdown) = (self.settings.consumer(), self.settings.shutdown.clone());
        KafkaConsumer::subscribe(&config, self.topics.clone(), self.patience(), shutdown)
    }

    fn producer(&mut self, turn: usize) -> Result<KafkaProducer, Failure> {
        let config = self.settings.producer(turn);
        KafkaProducer::start(&config, self.topics.clone(), self.settings.transaction_timeout, self.patience())
    }

    fn reader(&mut self) -> Result<KafkaReader, Failure> {
        KafkaReader::new(&self.settings.reader(), self.topics.clone())
    }

    fn log_ends(&mut self, partition: TopicPartition) -> Result<LogEnds, Failure> {
        let name = self.topics.name(partition.topic).to_owned();
        let deadline = Instant::now() + watermarks::PATIENCE;
        loop {
            let asked = Instant::now();
            let fetched = watermarks::fetch(&self.queries()?.client, &name, partition.partition, PER_CLIENT);
            let Err(Failure::Rebuild(what)) = fetched else { return fetched };
            self.queries = None;
            // An answer that came sooner is one that waiting does not change.
            if asked.elapsed() < PER_CLIENT || Instant::now() >= deadline {
                return Err(self.missing(&name, partition.partition)?.unwrap_or(Failure::Rebuild(what)));
            }
        }
    }

    fn has_unread(&mut self, input: TopicIndex, except: &BTreeSet<i32>) -> Result<bool, Failure> {
        let count = i32::try_from(self.describe(input)?.partitions).unwrap_or(i32::MAX);
        let of_input = |partition| TopicPartition { topic: input, partition };
        let partitions: Vec<TopicPartition> =
            (0..count).filter(|partition| !except.contains(partition)).map(of_input).collect();
        let mut unread = match self.unread.take() {
            Some(unread) => unread,
            None => Unread::new(&self.settings, self.topics.clone())?,
        };
        let found = unread.any(&self.queries()?.client, &partitions)?;
        self.unread = Some(unread);
        Ok(found)
    }

    fn topic_id(&mut self, topic: TopicIndex) -> Result<String, Failure> {
        self.describe(topic).map(|topic| topic.id)
    }

    fn delete_records(&mut self, partition: TopicPartition, before: i64) -> Result<(), Failure> {
        let topics = self.topics.clone();
        let list = topics
            .list_at(partition, before, None)
            .map_err(|error| Failure::Rebuild(format!("offset {before}: {error}")))?;
        let queries = self.queries()?;
        // Answers to earlier requests: nobody waits for them, because a broker that is slow to delete must not
        // hold up a worker, and what is not deleted now is deleted with the next request.
        while let Some(answer) = queries.queue.deleted() {
            match answer {
                Ok(deleted) => {
                    for (element, code) in deleted.iter().filter_map(|element| Some((element, element.error?))) {
                        tracing::warn!(topic = element.topic, partition = element.partition, %code,
                            "consumed records were not deleted");
                    }
                }
                Err(error) => tracing::warn!(code = %error.code, "consumed records were not deleted: {}", error.text),
            }
        }
        queries.queue.delete_records(queries.client.client(), &list, DELETE_RECORDS);
        Ok(())
    }

    fn now_ms(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
