//! The group coordinator: members, generations, assignment, and offsets with their pending half.
//!
//! The classic protocol with cooperative assignment, reduced to what exactly-once depends on: a join
//! barrier that raises the generation, partitions withheld until their old owner has let go, commits
//! checked against member and generation — and, as on real brokers, *not* against partition ownership,
//! while a commit with an empty member id passes unchecked. Offsets of an undecided transaction make a
//! stable fetch wait; of several committed ones the one appended last wins, in whatever order their
//! markers arrive. Never speaks to a client: [`crate::member`] is the other half.

use std::collections::{BTreeMap, BTreeSet};

use processor_engine::TopicPartition;
use processor_engine::cluster::CommittedOffset;

use crate::log::ProducerId;

/// Id the coordinator gives a member; never used twice.
pub type MemberId = u64;

/// What a member sends with its commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberIdentity {
    /// The member; 0 stands for the empty member id.
    pub member: MemberId,
    /// The generation it knows.
    pub generation: i32,
}

#[derive(Debug, Default)]
struct Member {
    joined: bool,
    /// What it holds, and the generation in which it got it.
    claimed: BTreeSet<TopicPartition>,
    claimed_in: i32,
    assigned: BTreeSet<TopicPartition>,
}

#[derive(Debug, Clone)]
struct Offset {
    appended: u64,
    committed: CommittedOffset,
}

/// One consumer group.
#[derive(Debug, Default)]
pub struct Group {
    inputs: Vec<TopicPartition>,
    generation: i32,
    preparing: bool,
    members: BTreeMap<MemberId, Member>,
    next_member: MemberId,
    appended: u64,
    offsets: BTreeMap<TopicPartition, Offset>,
    pending: BTreeMap<ProducerId, BTreeMap<TopicPartition, Offset>>,
}

impl Group {
    /// A group whose members all subscribe to `inputs`.
    pub fn new(inputs: Vec<TopicPartition>) -> Self {
        Self { inputs, ..Self::default() }
    }

    /// Everything the group reads.
    pub fn inputs(&self) -> &[TopicPartition] {
        &self.inputs
    }

    /// Current generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Whether a rebalance waits for members to join.
    pub fn is_preparing(&self) -> bool {
        self.preparing
    }

    /// Whether the coordinator still counts this member in.
    pub fn has(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    /// Whether the member has joined the rebalance that is being prepared.
    pub fn has_joined(&self, member: MemberId) -> bool {
        self.members.get(&member).is_some_and(|member| member.joined)
    }

    /// All members.
    pub fn members(&self) -> Vec<MemberId> {
        self.members.keys().copied().collect()
    }

    /// What the current generation gives to a member, once the barrier has passed.
    pub fn assignment(&self, member: MemberId) -> Option<(i32, &BTreeSet<TopicPartition>)> {
        let found = self.members.get(&member)?;
        (!self.preparing).then_some((self.generation, &found.assigned))
    }

    fn prepare(&mut self) {
        if !self.preparing {
            self.preparing = true;
            for member in self.members.values_mut() {
                member.joined = false;
            }
        }
    }

    /// `JoinGroup`: a new member (`None`) or a known one, with what it holds since generation `held_since`.
    pub fn join(&mut self, member: Option<MemberId>, held: &BTreeSet<TopicPartition>, held_since: i32) -> MemberId {
        self.prepare();
        let id = member.unwrap_or_else(|| {
            self.next_member += 1;
            self.next_member
        });
        let entry = self.members.entry(id).or_default();
        entry.joined = true;
        entry.claimed.clone_from(held);
        entry.claimed_in = held_since;
        self.complete_if_joined();
        id
    }

    /// A member leaves or its session ends: the others rebalance.
    pub fn remove(&mut self, member: MemberId) {
        if self.members.remove(&member).is_some() {
            self.prepare();
            self.complete_if_joined();
        }
    }

    fn complete_if_joined(&mut self) {
        if self.preparing && self.members.values().all(|member| member.joined) {
            self.preparing = false;
            self.generation += 1;
            self.assign();
        }
    }

    /// Sticky and cooperative: members keep what they hold up to their quota; what moves is withheld until
    /// its holder has given it up and joined again.
    fn assign(&mut self) {
        let count = self.members.len();
        if count == 0 {
            return;
        }
        let quota = self.inputs.len().div_ceil(count);
        let holders = self.holders();
        let mut target: BTreeMap<MemberId, BTreeSet<TopicPartition>> =
            self.members.keys().map(|id| (*id, BTreeSet::new())).collect();
        let mut homeless = Vec::new();
        for input in &self.inputs {
            match holders.get(input).and_then(|holder| target.get_mut(holder)) {
                Some(set) if set.len() < quota => {
                    set.insert(*input);
                }
                _ => homeless.push(*input),
            }
        }
        for input in homeless {
            if let Some(set) = target.values_mut().min_by_key(|set| set.len()) {
                set.insert(input);
            }
        }
        for (id, member) in &mut self.members {
            let wanted = target.remove(id).unwrap_or_default();
            member.assigned =
                wanted.into_iter().filter(|input| holders.get(input).is_none_or(|holder| holder == id)).collect();
        }
    }

    /// Who holds what; of two claims the one of the later generation counts.
    fn holders(&self) -> BTreeMap<TopicPartition, MemberId> {
        let mut holders = BTreeMap::<TopicPartition, (i32, MemberId)>::new();
        for (id, member) in &self.members {
            for input in &member.claimed {
                let claim = (member.claimed_in, *id);
                holders.entry(*input).and_modify(|known| *known = claim.max(*known)).or_insert(claim);
            }
        }
        holders.into_iter().map(|(input, (_, id))| (input, id)).collect()
    }

    /// `TxnOffsetCommit`: `false` when the membership is stale. The offsets wait for the marker.
    pub fn commit_in_transaction(
        &mut self,
        producer: ProducerId,
        identity: MemberIdentity,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> bool {
        let anonymous = identity.member == 0;
        let current = self.has(identity.member) && identity.generation == self.generation;
        if !(anonymous || current) {
            return false;
        }
        let pending = self.pending.entry(producer).or_default();
        for (input, committed) in offsets {
            self.appended += 1;
            pending.insert(*input, Offset { appended: self.appended, committed: committed.clone() });
        }
        true
    }

    /// The marker of a transaction arrives at the group's offsets.
    pub fn decide(&mut self, producer: ProducerId, commit: bool) {
        let Some(pending) = self.pending.remove(&producer) else { return };
        if !commit {
            return;
        }
        for (input, offset) in pending {
            let newer = self.offsets.get(&input).is_none_or(|known| known.appended < offset.appended);
            if newer {
                self.offsets.insert(input, offset);
            }
        }
    }

    /// An operator's reset, possible at any time in the model.
    pub fn reset(&mut self, input: TopicPartition, offset: i64) {
        self.appended += 1;
        let committed = CommittedOffset { offset, metadata: String::new() };
        self.offsets.insert(input, Offset { appended: self.appended, committed });
    }

    /// Producers whose undecided transactions make the offset of one of `inputs` unstable.
    pub fn unstable(&self, inputs: &[TopicPartition]) -> Vec<ProducerId> {
        let holds = |pending: &BTreeMap<TopicPartition, Offset>| inputs.iter().any(|input| pending.contains_key(input));
        self.pending.iter().filter(|(_, pending)| holds(pending)).map(|(producer, _)| *producer).collect()
    }

    /// The committed offset of an input, pending ones not counted.
    pub fn committed(&self, input: TopicPartition) -> Option<&CommittedOffset> {
        self.offsets.get(&input).map(|offset| &offset.committed)
    }
}

#[cfg(test)]
mod tests {
    use processor_engine::TopicIndex;

    use super::*;

    fn input(partition: i32) -> TopicPartition {
        TopicPartition { topic: TopicIndex(0), partition }
    }

    fn group() -> Group {
        Group::new((0..4).map(input).collect())
    }

    fn offset(offset: i64) -> CommittedOffset {
        CommittedOffset { offset, metadata: String::new() }
    }

    #[test]
    fn a_moving_partition_is_withheld_until_its_holder_has_joined_without_it() {
        let mut group = group();
        let none = BTreeSet::new();
        let first = group.join(None, &none, 0);
        let all = group.assignment(first).unwrap().1.clone();
        assert_eq!(all.len(), 4);
        let second = group.join(None, &none, 0);
        assert!(group.assignment(first).is_none(), "the barrier waits for the first member");
        group.join(Some(first), &all, 1);
        let kept = group.assignment(first).unwrap().1.clone();
        assert_eq!((kept.len(), group.assignment(second).unwrap().1.len()), (2, 0));
        group.join(Some(first), &kept, 2);
        group.join(Some(second), &none, 2);
        assert_eq!(group.assignment(second).unwrap().1.len(), 2);
    }

    #[test]
    fn commits_are_checked_by_generation_but_not_by_ownership_nor_for_an_empty_member_id() {
        let mut group = group();
        let first = group.join(None, &BTreeSet::new(), 0);
        let old = MemberIdentity { member: first, generation: group.generation() };
        let second = group.join(None, &BTreeSet::new(), 0);
        assert!(group.commit_in_transaction(1, old, &[]), "the old generation counts until the barrier passes");
        group.join(Some(first), &BTreeSet::new(), 1);
        assert!(!group.commit_in_transaction(1, old, &[]));
        let current = MemberIdentity { member: second, generation: group.generation() };
        for partition in 0..4 {
            assert!(group.commit_in_transaction(1, current, &[(input(partition), offset(1))]));
        }
        assert!(group.commit_in_transaction(1, MemberIdentity { member: 0, generation: -1 }, &[]));
        group.remove(second);
        assert!(!group.commit_in_transaction(1, current, &[]));
    }

    #[test]
    fn of_two_commits_the_one_appended_last_wins_whatever_the_order_of_their_markers() {
        let mut group = group();
        let member = group.join(None, &BTreeSet::new(), 0);
        let identity = MemberIdentity { member, generation: group.generation() };
        assert!(group.commit_in_transaction(1, identity, &[(input(0), offset(5))]));
        assert!(group.commit_in_transaction(2, identity, &[(input(0), offset(9))]));
        assert_eq!(group.unstable(&[input(0)]), [1, 2]);
        group.decide(2, true);
        group.decide(1, true);
        assert_eq!(group.committed(input(0)), Some(&offset(9)));
        assert!(group.unstable(&[input(0)]).is_empty());
    }
}
