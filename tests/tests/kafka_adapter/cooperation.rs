//! Two members of one group, cooperatively.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use processor::kafka::{KafkaCluster, KafkaConsumer, Settings};
use processor_engine::TopicPartition;
use processor_engine::cluster::{Cluster as _, GroupConsumer as _, Polled, Rebalance};

use crate::clients::{Bench, INPUT, PATIENCE, at};

/// A member and what it holds.
pub(crate) struct Member {
    pub(crate) consumer: KafkaConsumer,
    pub(crate) holds: BTreeSet<TopicPartition>,
    revoked: usize,
    lost: usize,
}

impl Member {
    pub(crate) fn join(bench: &Bench, instance: &str) -> Result<Self> {
        Ok(Self { consumer: bench.cluster(instance).consumer()?, holds: BTreeSet::new(), revoked: 0, lost: 0 })
    }

    /// As [`Member::join`], by static membership.
    fn join_statically(bench: &Bench, instance: &str) -> Result<Self> {
        let settings = Settings { static_membership: true, ..bench.settings(instance) };
        let consumer = KafkaCluster::new(settings).consumer()?;
        Ok(Self { consumer, holds: BTreeSet::new(), revoked: 0, lost: 0 })
    }

    /// Generation and member id.
    fn identity(&mut self) -> Result<(i32, String)> {
        let metadata = self.consumer.metadata()?.context("no member")?;
        Ok((metadata.generation(), metadata.member_id()))
    }

    /// One poll; rebalances are answered.
    pub(crate) fn turn(&mut self) -> Result<()> {
        match self.consumer.poll(Duration::from_millis(50), &mut |_| ())? {
            Polled::Rebalance(Rebalance::Assign(partitions)) => {
                self.consumer.assign(&partitions)?;
                self.holds.extend(partitions);
            }
            Polled::Rebalance(Rebalance::Revoke(partitions)) => {
                self.give_up(&partitions)?;
                self.revoked += partitions.len();
            }
            Polled::Rebalance(Rebalance::Lost(partitions)) => {
                self.give_up(&partitions)?;
                self.lost += partitions.len();
            }
            _ => {}
        }
        Ok(())
    }

    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.consumer.unassign(partitions)?;
        for partition in partitions {
            self.holds.remove(partition);
        }
        Ok(())
    }
}

/// Polls all members until `done`.
fn until(what: &str, members: &mut [&mut Member], done: impl Fn(&[&mut Member]) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for member in members.iter_mut() {
            member.turn()?;
        }
        if done(members) {
            return Ok(());
        }
    }
    let holds: Vec<_> = members.iter().map(|member| &member.holds).collect();
    bail!("{what}: not within {PATIENCE:?}: {holds:?}")
}

#[test]
fn members_share_leave_and_rejoin_without_giving_up_what_they_keep() -> Result<()> {
    let bench = Bench::new()?;
    let both = BTreeSet::from([at(INPUT, 0), at(INPUT, 1)]);
    let mut first = Member::join(&bench, "a")?;
    until("the first alone", &mut [&mut first], |members| members[0].holds == both)?;

    let mut second = Member::join(&bench, "b")?;
    until("one each", &mut [&mut first, &mut second], |members| {
        members.iter().all(|member| member.holds.len() == 1) && members[0].holds != members[1].holds
    })?;
    // Cooperative: the first gave up one partition, not both.
    assert_eq!((first.revoked, first.lost), (1, 0));

    first.consumer.leave()?;
    until("the second alone", &mut [&mut first, &mut second], |members| {
        members[0].holds.is_empty() && members[1].holds == both
    })?;
    assert_eq!((first.revoked, first.lost, second.revoked), (2, 0, 0));
    assert!(first.consumer.metadata()?.is_none(), "a member that left has no identity");
    drop(first);

    let mut third = Member::join(&bench, "a")?;
    until("one each again", &mut [&mut second, &mut third], |members| {
        members.iter().all(|member| member.holds.len() == 1)
    })?;
    // Without farewell, as far as the program is concerned: closing leaves the group too.
    drop(second);
    until("the third alone", &mut [&mut third], |members| members[0].holds == both)
}

#[test]
fn a_static_member_that_comes_back_within_its_session_causes_no_rebalance() -> Result<()> {
    let bench = Bench::new()?;
    let mut first = Member::join_statically(&bench, "a")?;
    let mut second = Member::join_statically(&bench, "b")?;
    until("one each", &mut [&mut first, &mut second], |members| members.iter().all(|member| member.holds.len() == 1))?;
    let (held, before) = (first.holds.clone(), (first.identity()?, second.identity()?, second.revoked));
    // Closing a static member does not leave the group.
    drop(first);
    let mut again = Member::join_statically(&bench, "a")?;
    until("the first one again", &mut [&mut again, &mut second], |members| members[0].holds == held)?;
    let ((generation, id), second_before, revoked) = before;
    assert_eq!((second.identity()?, second.revoked, second.lost), (second_before, revoked, 0));
    let (generation_now, id_now) = again.identity()?;
    assert_eq!(generation_now, generation);
    assert_ne!(id_now, id, "it is the same member by its instance id only");
    Ok(())
}
