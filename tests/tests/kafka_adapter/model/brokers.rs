//! Scripts on real brokers, through the processor's own clients.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use processor::kafka::{GroupMetadata, KafkaCluster, KafkaProducer};
use processor_engine::Failure;
use processor_engine::cluster::{Cluster as _, GroupConsumer as _, OffsetToCommit, TransactionalProducer as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tests::client::Kafka;
use tests::stack::wait_until;

use super::requests::{Stable, stable_offset, transaction_state};
use super::script::{Action, Answer, Executor, Identity, Log, PARTITIONS, Who, text_of};
use crate::clients::{Bench, CHANGELOG, INPUT, PATIENCE, at, send};
use crate::cooperation::Member;

/// Instance of every producer; its transactional ids differ in the turn.
const INSTANCE: &str = "script";
/// How long a transaction of a script may last that is to time out.
const SHORT_TRANSACTION: Duration = Duration::from_secs(20);

/// Three brokers.
pub(super) struct Brokers<'a> {
    bench: &'a Bench,
    cluster: KafkaCluster,
    producers: BTreeMap<Who, Open>,
    members: BTreeMap<usize, Member>,
    joined: usize,
    former: BTreeMap<usize, (i32, String)>,
    readers: Readers,
}

/// Who looks at logs: kept, because to make a client takes longer than what it is asked.
struct Readers {
    committed: BaseConsumer,
    uncommitted: BaseConsumer,
}

impl Readers {
    fn new(kafka: &Kafka) -> Result<Self> {
        let reader = |isolation: &str| -> Result<BaseConsumer> {
            let mut config = kafka.config();
            config.set("group.id", "script-reader").set("enable.auto.commit", "false");
            config.set("isolation.level", isolation).set("enable.partition.eof", "true");
            Ok(config.set("fetch.wait.max.ms", "50").create()?)
        };
        Ok(Self { committed: reader("read_committed")?, uncommitted: reader("read_uncommitted")? })
    }

    fn look(&self, topic: &str, partition: i32) -> Result<Log> {
        let (start, high_watermark) = self.uncommitted.fetch_watermarks(topic, partition, PATIENCE)?;
        let (_, last_stable) = self.committed.fetch_watermarks(topic, partition, PATIENCE)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(start))?;
        self.committed.assign(&list)?;
        let mut visible = Vec::new();
        loop {
            match self.committed.poll(PATIENCE).context("neither a record nor the end")? {
                Ok(record) => {
                    let value = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
                    visible.push((record.offset(), value));
                }
                Err(KafkaError::PartitionEOF(_)) => {
                    self.committed.unassign()?;
                    return Ok(Log { start, last_stable, high_watermark, visible });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

struct Open {
    producer: KafkaProducer,
    begun: bool,
}

impl<'a> Brokers<'a> {
    /// Topics and a group on which nothing has happened. `expires`: whether a transaction is to time out.
    pub(super) fn new(bench: &'a Bench, expires: bool) -> Result<Self> {
        let mut settings = bench.settings(INSTANCE);
        if expires {
            settings.transaction_timeout = SHORT_TRANSACTION;
            // librdkafka wants no request to outlast the transaction.
            settings.properties.producer.insert("socket.timeout.ms".into(), "10000".into());
        }
        let cluster = KafkaCluster::new(settings);
        let (producers, members, former) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let readers = Readers::new(&bench.kafka)?;
        Ok(Self { bench, cluster, producers, members, joined: 0, former, readers })
    }

    fn open(&mut self, who: Who) -> Result<&mut KafkaProducer> {
        let open = self.producers.get_mut(&who).with_context(|| format!("{who:?} was never initialised"))?;
        if !open.begun {
            open.producer.begin()?;
            open.begun = true;
        }
        Ok(&mut open.producer)
    }

    fn initialise(&mut self, id: usize) -> Result<()> {
        let [newest, zombie] = [false, true].map(|is_zombie| Who { id, is_zombie });
        let producer = self.cluster.producer(id)?;
        if let Some(before) = self.producers.insert(newest, Open { producer, begun: false }) {
            self.producers.insert(zombie, before);
        }
        Ok(())
    }

    fn produce(&mut self, who: Who, partition: i32, text: &str) -> Result<Answer> {
        let target = at(CHANGELOG, partition);
        let producer = self.open(who)?;
        match send(producer, target, text).and_then(|()| producer.flush()) {
            Ok(delivered) => {
                let here = delivered.iter().find(|delivered| delivered.target == target);
                Ok(Answer::At(here.context("no delivery report")?.last))
            }
            Err(Failure::Abort(_) | Failure::Fenced(_)) => Ok(Answer::NotWritten),
            Err(other) => Err(other.into()),
        }
    }

    fn send_offset(&mut self, who: Who, member: &GroupMetadata, offset: OffsetToCommit) -> Result<Answer> {
        match self.open(who)?.send_offsets(&[offset], member) {
            Ok(()) => Ok(Answer::Done),
            Err(Failure::Membership(_)) => Ok(Answer::NotAMember),
            Err(other) => fenced(other),
        }
    }

    fn end(&mut self, who: Who, commit: bool) -> Result<Answer> {
        let producer = self.open(who)?;
        let ended = if commit { producer.commit() } else { producer.abort() };
        if let Err(failure) = ended {
            return fenced(failure);
        }
        if let Some(open) = self.producers.get_mut(&who) {
            open.begun = false;
        }
        self.markers_written(who.id)?;
        Ok(Answer::Done)
    }

    /// An acknowledged end is decided; its markers, which make it visible, follow.
    fn markers_written(&self, id: usize) -> Result<()> {
        let transactional_id = self.bench.settings(INSTANCE).transactional_id(id);
        wait_until("the markers of a transaction", || {
            let state = transaction_state(&self.bench.kafka, &transactional_id)?;
            Ok(matches!(state.as_str(), "CompleteCommit" | "CompleteAbort" | "Empty"))
        })
    }

    fn identity(&mut self, identity: Identity) -> Result<GroupMetadata> {
        let (generation, member) = match identity {
            Identity::Member(number) => self.present(number)?,
            Identity::Former(number) => self.former.get(&number).cloned().context("no such member")?,
            Identity::Stranger => {
                let any = self.members.keys().next().copied();
                let generation = any.map_or(Ok(1), |number| Ok::<_, anyhow::Error>(self.present(number)?.0))?;
                (generation, "somebody else".to_owned())
            }
            Identity::Nobody => (-1, String::new()),
        };
        GroupMetadata::forged(&self.bench.application, generation, &member).context("no identity")
    }

    fn present(&mut self, number: usize) -> Result<(i32, String)> {
        let member = self.members.get_mut(&number).context("no such member")?;
        let metadata = member.consumer.metadata()?.context("the member has no generation")?;
        Ok((metadata.generation(), metadata.member_id()))
    }

    fn note_former(&mut self) -> Result<()> {
        let numbers: Vec<usize> = self.members.keys().copied().collect();
        self.former = numbers.into_iter().map(|number| Ok((number, self.present(number)?))).collect::<Result<_>>()?;
        Ok(())
    }

    /// Polls until every member holds its share in the same generation.
    fn come_to_rest(&mut self) -> Result<()> {
        let inputs = usize::try_from(PARTITIONS)?;
        let share = inputs.checked_div(self.members.len()).unwrap_or(inputs);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut generations = Vec::new();
            for member in self.members.values_mut() {
                member.turn()?;
                generations.push(member.consumer.metadata()?.map(|metadata| metadata.generation()));
            }
            let first = generations.first().copied().flatten();
            let agreed = generations.iter().all(|generation| generation.is_some() && *generation == first);
            if agreed && self.members.values().all(|member| member.holds.len() == share) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the group does not come to rest: {generations:?}");
        }
    }
}

impl Executor for Brokers<'_> {
    fn act(&mut self, step: usize, action: Action) -> Result<Answer> {
        match action {
            Action::Initialise(id) => self.initialise(id)?,
            Action::Produce(who, partition) => return self.produce(who, partition, &text_of(step)),
            Action::SendOffset(who, identity, partition, offset) => {
                let member = self.identity(identity)?;
                let (input, metadata) = (at(INPUT, partition), text_of(step));
                return self.send_offset(who, &member, OffsetToCommit { input, offset, leader_epoch: None, metadata });
            }
            Action::Commit(who) => return self.end(who, true),
            Action::Abort(who) => return self.end(who, false),
            Action::Expire(id) => self.markers_written(id)?,
            Action::Join => {
                self.note_former()?;
                let member = Member::join(self.bench, &format!("member-{}", self.joined))?;
                self.members.insert(self.joined, member);
                self.joined += 1;
                self.come_to_rest()?;
            }
            Action::Leave(number) => {
                self.note_former()?;
                // Closing leaves the group.
                self.members.remove(&number).context("no such member")?;
                if self.members.is_empty() {
                    self.bench.until_nobody_is_left()?;
                }
                self.come_to_rest()?;
            }
            Action::DeleteTo(partition, offset) => {
                self.bench.kafka.delete_records(self.bench.name(CHANGELOG), partition, offset)?;
            }
            Action::LookAtLog(partition) => {
                return Ok(Answer::Log(self.readers.look(self.bench.name(CHANGELOG), partition)?));
            }
            Action::LookAtOffset(partition) => {
                let (kafka, input) = (&self.bench.kafka, self.bench.name(INPUT));
                return Ok(match stable_offset(kafka, &self.bench.application, input, partition)? {
                    Stable::Committed(committed) => Answer::Offset(committed),
                    Stable::Unstable => Answer::Unstable,
                });
            }
        }
        Ok(Answer::Done)
    }
}

fn fenced(failure: Failure) -> Result<Answer> {
    match failure {
        Failure::Fenced(_) => Ok(Answer::Fenced),
        other => bail!("neither taken nor fenced: {other}"),
    }
}
