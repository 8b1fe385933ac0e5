//! Scripts on the simulation's in-memory cluster.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use processor_engine::Topology;
use processor_engine::cluster::{CommittedOffset, Rebalance};
use processor_simulation::broker::Broker;
use processor_simulation::coordinator::{Identity as Producer, Refusal};
use processor_simulation::group::MemberIdentity;
use processor_simulation::log::{PartitionLog, StoredRecord};
use processor_simulation::member::MemberClient;

use super::script::{Action, Answer, Executor, Identity, Log, PARTITIONS, Who, text_of};
use crate::clients::{CHANGELOG, INPUT, at};

/// Rounds of heartbeats after which a group of two is at rest.
const ROUNDS: usize = 20;

/// The model.
pub(super) struct Simulated {
    broker: Broker,
    producers: BTreeMap<Who, Producer>,
    members: Vec<usize>,
    former: BTreeMap<usize, MemberIdentity>,
}

impl Simulated {
    /// A cluster on which nothing has happened.
    pub(super) fn new(topology: &Topology) -> Self {
        let broker = Broker::new(topology, &[(INPUT, PARTITIONS), (CHANGELOG, PARTITIONS)]);
        Self { broker, producers: BTreeMap::new(), members: Vec::new(), former: BTreeMap::new() }
    }

    /// Numbers of the present members.
    pub(super) fn members(&self) -> std::vec::IntoIter<usize> {
        self.members.clone().into_iter()
    }

    /// Numbers of the members there were before the last change.
    pub(super) fn former_members(&self) -> std::vec::IntoIter<usize> {
        self.former.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// Where a `read_committed` reader has to stop.
    pub(super) fn last_stable(&self, partition: i32) -> i64 {
        self.broker.log(at(CHANGELOG, partition)).map_or(0, PartitionLog::last_stable_offset)
    }

    fn producer(&self, who: Who) -> Result<Producer> {
        self.producers.get(&who).copied().with_context(|| format!("{who:?} was never initialised"))
    }

    fn initialise(&mut self, id: usize) {
        let [newest, zombie] = [false, true].map(|is_zombie| Who { id, is_zombie });
        let identity = self.broker.initialise(&id.to_string());
        if let Some(before) = self.producers.insert(newest, identity) {
            self.producers.insert(zombie, before);
        }
    }

    fn identity(&self, identity: Identity) -> Result<MemberIdentity> {
        let generation = self.broker.group.generation();
        let found = match identity {
            Identity::Member(number) => self.broker.clients.get(number).and_then(MemberClient::identity),
            Identity::Former(number) => self.former.get(&number).copied(),
            Identity::Stranger => Some(MemberIdentity { member: u64::MAX, generation }),
            Identity::Nobody => Some(MemberIdentity { member: 0, generation: -1 }),
        };
        found.with_context(|| format!("there is no {identity:?}"))
    }

    fn end(&mut self, who: Who, commit: bool) -> Result<Answer> {
        let producer = self.producer(who)?;
        let ended = self.broker.end(producer, commit);
        self.broker.write_markers(producer.producer);
        ended.map_or_else(refused, |()| Ok(Answer::Done))
    }

    fn change_group(&mut self, change: impl FnOnce(&mut Self)) {
        let identity = |number: &usize| Some((*number, self.broker.clients.get(*number)?.identity()?));
        self.former = self.members.iter().filter_map(identity).collect();
        change(self);
        let clients = self.broker.clients.len();
        for number in (0..ROUNDS).flat_map(|_| 0..clients) {
            self.broker.background(number);
            let Some(client) = self.broker.clients.get_mut(number) else { continue };
            match client.deliver() {
                Some(Rebalance::Assign(partitions)) => client.assigned(&partitions),
                Some(Rebalance::Revoke(partitions) | Rebalance::Lost(partitions)) => client.unassigned(&partitions),
                None => {}
            }
        }
    }

    fn look_at_log(&self, partition: i32) -> Result<Log> {
        let log = self.broker.log(at(CHANGELOG, partition)).context("no such partition")?;
        let text = |record: &StoredRecord| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into();
        Ok(Log {
            start: log.start(),
            last_stable: log.last_stable_offset(),
            high_watermark: log.high_watermark(),
            visible: log.committed().map(|(offset, record)| (offset, text(record))).collect(),
        })
    }
}

impl Executor for Simulated {
    fn act(&mut self, step: usize, action: Action) -> Result<Answer> {
        match action {
            Action::Initialise(id) => self.initialise(id),
            Action::Produce(who, partition) => {
                let record = StoredRecord { value: Some(text_of(step).into_bytes()), ..StoredRecord::default() };
                let written = self.broker.produce(self.producer(who)?, at(CHANGELOG, partition), Rc::new(record));
                return Ok(written.map_or(Answer::NotWritten, Answer::At));
            }
            Action::SendOffset(who, identity, partition, offset) => {
                let (producer, member) = (self.producer(who)?, self.identity(identity)?);
                let committed = CommittedOffset { offset, metadata: text_of(step) };
                return match self.broker.commit_offsets(producer, member, &[(at(INPUT, partition), committed)]) {
                    Ok(true) => Ok(Answer::Done),
                    Ok(false) => Ok(Answer::NotAMember),
                    Err(refusal) => refused(refusal),
                };
            }
            Action::Commit(who) => return self.end(who, true),
            Action::Abort(who) => return self.end(who, false),
            Action::Expire(id) => {
                let producer = self.producer(Who { id, is_zombie: false })?.producer;
                self.broker.expire_transaction(producer);
                self.broker.write_markers(producer);
            }
            Action::Join => self.change_group(|model| {
                model.members.push(model.broker.clients.len());
                model.broker.clients.push(MemberClient::default());
            }),
            Action::Leave(number) => self.change_group(|model| {
                model.members.retain(|member| *member != number);
                if let Some(client) = model.broker.clients.get_mut(number) {
                    client.leave();
                }
            }),
            Action::DeleteTo(partition, offset) => {
                self.broker.log_mut(at(CHANGELOG, partition)).context("no such partition")?.delete_before(offset);
            }
            Action::LookAtLog(partition) => return Ok(Answer::Log(self.look_at_log(partition)?)),
            Action::LookAtOffset(partition) => {
                let input = at(INPUT, partition);
                if !self.broker.group.unstable(&[input]).is_empty() {
                    return Ok(Answer::Unstable);
                }
                let committed = self.broker.group.committed(input);
                return Ok(Answer::Offset(committed.map(|found| (found.offset, found.metadata.clone()))));
            }
        }
        Ok(Answer::Done)
    }
}

fn refused(refusal: Refusal) -> Result<Answer> {
    match refusal {
        Refusal::Fenced => Ok(Answer::Fenced),
        other => bail!("the model refuses with {other:?}, which no script should come to"),
    }
}
