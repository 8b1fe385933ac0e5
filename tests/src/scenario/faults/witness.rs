//! Watches brokers keep what they have acknowledged while they are killed, with clients that owe the product nothing.
//!
//! One transaction after the other writes its number to every partition of a topic, and to the offsets of a group. Meanwhile
//! others ask where the partitions end, and do what a processor does before it restores: the group's offset first, then the
//! ends. In the end everything is read: what was acknowledged must be there, whole, below every end told after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::client::{Isolation, Kafka, NewTopic, unique_name};
use crate::stack::POLL_INTERVAL;

const PARTITIONS: i32 = 3;

/// How long one request may take: a leader may be down.
const REQUEST: Duration = Duration::from_secs(3);

/// How long a transaction may take.
const TRANSACTION: Duration = Duration::from_secs(20);

/// Offset behind the record of a transaction, by partition.
type Ends = BTreeMap<i32, i64>;

/// Writes, asks and remembers until told to stop.
pub(super) struct Witness {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

struct Shared {
    kafka: Kafka,
    /// Name of topic, group and transactional id.
    name: String,
    gone: AtomicBool,
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    /// Transactions whose commit was acknowledged.
    committed: BTreeSet<i64>,
    /// Behind the last record known to be committed.
    ends: Ends,
    /// The lowest ends told after the group's offset was seen at a transaction.
    told: BTreeMap<i64, Ends>,
    answers: usize,
    findings: Vec<String>,
}

impl Witness {
    pub(super) fn start(kafka: &Kafka) -> Result<Self> {
        let name = unique_name("witness");
        kafka.create_topic(&NewTopic::new(&name, PARTITIONS))?;
        let shared =
            Arc::new(Shared { kafka: kafka.clone(), name, gone: AtomicBool::new(false), facts: Mutex::default() });
        let mut threads = Vec::new();
        let mut start = |work: fn(&Shared) -> Result<()>| -> Result<()> {
            let shared = Arc::clone(&shared);
            threads.push(std::thread::Builder::new().name("witness".into()).spawn(move || work(&shared))?);
            Ok(())
        };
        start(|shared| {
            shared.write();
            Ok(())
        })?;
        start(Shared::ask_with_one_client)?;
        start(Shared::ask_with_new_clients)?;
        start(Shared::look_as_a_restore_does)?;
        Ok(Self { shared, threads })
    }

    /// How many transactions were acknowledged, and how many times an end was told.
    pub(super) fn progress(&self) -> (usize, usize) {
        self.shared.with(|facts| (facts.committed.len(), facts.answers))
    }

    /// Reads everything and judges. The brokers must be healthy.
    pub(super) fn end(self) -> Result<()> {
        self.shared.gone.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a witness panicked")??;
        }
        let mut written: BTreeMap<i32, BTreeMap<i64, i64>> = (0..PARTITIONS).map(|p| (p, BTreeMap::new())).collect();
        for record in self.shared.kafka.read(&self.shared.name, Isolation::ReadCommitted)? {
            let number = record.key_text().parse().context("a record that nobody wrote")?;
            let again = written.entry(record.partition).or_default().insert(number, record.offset);
            ensure!(again.is_none(), "transaction {number} is there twice in partition {}", record.partition);
        }
        let facts = std::mem::take(&mut *self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut findings = facts.findings;
        let all: BTreeSet<i64> = written.values().flat_map(BTreeMap::keys).copied().chain(facts.committed).collect();
        for number in &all {
            let partitions = written.iter().filter(|(_, records)| !records.contains_key(number)).map(|(p, _)| p);
            let missing: Vec<_> = partitions.collect();
            if !missing.is_empty() {
                findings.push(format!("transaction {number} is missing in partitions {missing:?}"));
            }
        }
        for (number, ends) in &facts.told {
            for (partition, end) in ends {
                let offset = written.get(partition).and_then(|records| records.get(number));
                if offset.is_none_or(|offset| offset >= end) {
                    findings.push(format!(
                        "the group was at {number} when partition {partition} was said to end at {end}; {number} is at {offset:?}"
                    ));
                }
            }
        }
        ensure!(findings.is_empty(), "{}: {}", self.shared.name, findings.join("\n"));
        Ok(())
    }
}

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut Facts) -> T) -> T {
        look(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_over(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// What fails has an unknown outcome, and its number is not used again.
    fn write(&self) {
        let mut number = 0;
        while !self.is_over() {
            let Ok(producer) = Writer::start(self) else { continue };
            while !self.is_over() {
                number += 1;
                let Ok(ends) = producer.transaction(number) else { break };
                self.with(|facts| {
                    facts.committed.insert(number);
                    facts.ends = ends;
                });
            }
        }
    }

    fn ask_with_one_client(&self) -> Result<()> {
        let client = self.asking(self.kafka.bootstrap_servers())?;
        while !self.is_over() {
            self.ask(&client, "one client");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Each of them knows one broker only, whatever that one believes.
    fn ask_with_new_clients(&self) -> Result<()> {
        let brokers: Vec<&str> = self.kafka.bootstrap_servers().split(',').collect();
        for broker in brokers.into_iter().cycle() {
            if self.is_over() {
                break;
            }
            let client = self.asking(broker)?;
            self.ask(&client, broker);
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// A client that is told the high watermark: the last stable offset may lag behind an acknowledged commit.
    fn asking(&self, brokers: &str) -> Result<BaseConsumer> {
        let mut config = self.kafka.config();
        config.set("log_level", "0").set("bootstrap.servers", brokers).set("isolation.level", "read_uncommitted");
        Ok(config.create()?)
    }

    fn ask(&self, client: &BaseConsumer, who: &str) {
        for partition in 0..PARTITIONS {
            let known = self.with(|facts| facts.ends.get(&partition).copied().unwrap_or_default());
            // Without a leader there is no answer, and nothing to find.
            let Ok((_, end)) = client.fetch_watermarks(&self.name, partition, REQUEST) else { continue };
            self.with(|facts| {
                facts.answers += 1;
                if end < known {
                    facts.findings.push(format!("{who}: partition {partition} ends at {end}, acknowledged: {known}"));
                }
            });
        }
    }

    fn look_as_a_restore_does(&self) -> Result<()> {
        while !self.is_over() {
            let client: BaseConsumer = self
                .kafka
                .config()
                .set("log_level", "0")
                .set("group.id", &self.name)
                .set("isolation.level", "read_committed")
                .create()?;
            let ends = self.asking(self.kafka.bootstrap_servers())?;
            // Clients are replaced as a processor's are after trouble.
            while !self.is_over() && self.look(&client, &ends).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn look(&self, group: &BaseConsumer, client: &BaseConsumer) -> Result<()> {
        let known = self.with(|facts| facts.committed.last().copied());
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, 0);
        let committed = group.committed_offsets(list, REQUEST)?;
        let element = committed.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset);
        let number = match element {
            Some(Offset::Offset(number)) => number,
            _ if known.is_none() => return Ok(()),
            other => bail!("no offset but {other:?}"),
        };
        if known.is_some_and(|known| number < known) {
            self.with(|facts| facts.findings.push(format!("the group is at {number}, acknowledged: {known:?}")));
        }
        for partition in 0..PARTITIONS {
            let (_, end) = client.fetch_watermarks(&self.name, partition, REQUEST)?;
            self.with(|facts| {
                let told = facts.told.entry(number).or_default().entry(partition).or_insert(end);
                *told = end.min(*told);
            });
        }
        Ok(())
    }
}

/// A transactional producer, until something goes wrong with it.
struct Writer<'a> {
    producer: ThreadedProducer<Reports>,
    group: BaseConsumer,
    reports: Reports,
    name: &'a str,
}

impl<'a> Writer<'a> {
    fn start(shared: &'a Shared) -> Result<Self> {
        let reports = Reports::default();
        let producer: ThreadedProducer<Reports> = shared
            .kafka
            .config()
            .set("log_level", "0")
            .set("transactional.id", &shared.name)
            .set("transaction.timeout.ms", "20000")
            .set("linger.ms", "0")
            .create_with_context(reports.clone())?;
        let group = shared.kafka.config().set("log_level", "0").set("group.id", &shared.name).create()?;
        producer.init_transactions(TRANSACTION)?;
        Ok(Self { producer, group, reports, name: &shared.name })
    }

    fn transaction(&self, number: i64) -> Result<Ends> {
        self.reports.with(Vec::clear);
        self.producer.begin_transaction()?;
        let key = number.to_string();
        for partition in 0..PARTITIONS {
            let record: BaseRecord<'_, str, str> =
                BaseRecord::to(self.name).partition(partition).key(key.as_str()).payload("");
            self.producer.send(record).map_err(|(error, _)| error)?;
        }
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(self.name, 0, Offset::Offset(number))?;
        let member = self.group.group_metadata().context("no group")?;
        self.producer.send_offsets_to_transaction(&offsets, &member, TRANSACTION)?;
        self.producer.commit_transaction(TRANSACTION)?;
        let ends: Ends = self.reports.with(|reports| reports.iter().cloned().collect::<Result<_, _>>())?;
        ensure!(ends.len() == usize::try_from(PARTITIONS)?, "committed without a delivery report");
        Ok(ends)
    }
}

/// The offset behind each record as reported.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<Report>>>);

type Report = Result<(i32, i64), KafkaError>;

impl Reports {
    fn with<T>(&self, look: impl FnOnce(&mut Vec<Report>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let report = match result {
            Ok(message) => Ok((message.partition(), message.offset() + 1)),
            Err((error, _)) => Err(error.clone()),
        };
        self.with(|reports| reports.push(report));
    }
}
