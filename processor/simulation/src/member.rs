//! The client's half of the group protocol: what a consumer library does in the background.
//!
//! Owns the identity a commit is sent with and the queue of rebalance events the application must answer.
//! Joining and heartbeats go on while the application is busy, as librdkafka's own thread does, so a
//! paused worker may stay in the group (or be counted out) at any moment. Never joins again while an event
//! is unanswered.

use std::collections::{BTreeSet, VecDeque};

use processor_engine::TopicPartition;
use processor_engine::cluster::Rebalance;

use crate::group::{Group, MemberId, MemberIdentity};

/// One consumer as its own client library sees it.
// Independent facts about one client, not a state machine in disguise.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Default)]
pub struct MemberClient {
    member: Option<MemberId>,
    generation: Option<i32>,
    /// A membership that comes into force when its event is answered (see [`MemberClient::rejoin_quietly`]).
    hidden: Option<(MemberId, i32)>,
    held: BTreeSet<TopicPartition>,
    held_since: i32,
    queue: VecDeque<Rebalance>,
    unanswered: bool,
    must_rejoin: bool,
    quiet: bool,
    leaving: bool,
    /// The process is gone: nothing happens in the background any more.
    pub dead: bool,
    /// The process is stopped as a whole (`SIGSTOP`, a dead machine): nothing happens in the background now.
    pub stalled: bool,
    /// Name of the process.
    pub owner: String,
}

impl MemberClient {
    /// Identity to commit with; `None` without a generation.
    pub fn identity(&self) -> Option<MemberIdentity> {
        Some(MemberIdentity { member: self.member?, generation: self.generation? })
    }

    /// The coordinator's member id, known or still hidden from the application.
    pub fn member(&self) -> Option<MemberId> {
        self.member.or_else(|| self.hidden.map(|(member, _)| member))
    }

    /// What the application holds.
    pub fn held(&self) -> &BTreeSet<TopicPartition> {
        &self.held
    }

    /// Starts leaving.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// From now on an eviction is not reported as lost partitions: the client joins again as a new member
    /// claiming what it held, and the application sees only the difference. No client should, but the
    /// engine's rule 4 (re-read stable offsets at every rebalance, kept partitions too) must survive one.
    pub fn rejoin_quietly(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// One round of heartbeat, join and sync. Bounded and idempotent; call it as often as you like.
    pub fn background(&mut self, group: &mut Group) {
        if self.dead || self.stalled {
            return;
        }
        self.notice_eviction(group);
        if self.unanswered || !self.queue.is_empty() {
            return;
        }
        if self.leaving {
            self.go_on_leaving(group);
            return;
        }
        let Some(member) = self.member() else {
            let member = group.join(None, &self.held, self.held_since);
            self.must_rejoin = false;
            self.hidden = Some((member, -1));
            return self.sync(group);
        };
        if self.must_rejoin || (group.is_preparing() && !group.has_joined(member)) {
            self.must_rejoin = false;
            group.join(Some(member), &self.held, self.held_since);
        }
        self.sync(group);
    }

    fn notice_eviction(&mut self, group: &Group) {
        let Some(member) = self.member() else { return };
        if group.has(member) {
            return;
        }
        self.member = None;
        self.generation = None;
        self.hidden = None;
        self.must_rejoin = false;
        if !self.quiet || self.unanswered {
            self.queue.clear();
            self.queue.push_back(Rebalance::Lost(Vec::new()));
        } else if !self.queue.is_empty() {
            // What was queued belongs to the membership that ended; nothing of it was delivered.
            self.queue.clear();
        }
    }

    fn go_on_leaving(&mut self, group: &mut Group) {
        if !self.held.is_empty() {
            self.queue.push_back(Rebalance::Revoke(self.held.iter().copied().collect()));
        } else if let Some(member) = self.member() {
            group.remove(member);
            self.member = None;
            self.generation = None;
            self.hidden = None;
        }
    }

    /// `SyncGroup`: learns the new generation's assignment and queues the differences.
    fn sync(&mut self, group: &Group) {
        let Some(member) = self.member() else { return };
        let Some((generation, assigned)) = group.assignment(member) else { return };
        if self.generation == Some(generation) {
            return;
        }
        let revoked: Vec<_> = self.held.difference(assigned).copied().collect();
        let added: Vec<_> = assigned.difference(&self.held).copied().collect();
        if self.member.is_some() {
            self.generation = Some(generation);
            self.held_since = generation;
        } else {
            self.hidden = Some((member, generation));
        }
        if !revoked.is_empty() {
            // What a quiet rejoin could not keep is somebody else's already; nothing is left to be given up.
            let lost = self.member.is_none();
            self.queue.push_back(if lost { Rebalance::Lost(revoked) } else { Rebalance::Revoke(revoked) });
            self.must_rejoin = true;
        }
        self.queue.push_back(Rebalance::Assign(added));
    }

    /// The next event for the application, which must answer it before it polls again.
    pub fn deliver(&mut self) -> Option<Rebalance> {
        if self.unanswered {
            return None;
        }
        let mut event = self.queue.pop_front()?;
        if let Rebalance::Lost(lost) = &mut event
            && lost.is_empty()
        {
            // Everything held now: what was taken between the eviction and now is lost as well.
            lost.extend(&self.held);
        }
        self.unanswered = true;
        Some(event)
    }

    /// The application took partitions.
    pub fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.held.extend(partitions);
        self.answered();
    }

    /// The application gave partitions up.
    pub fn unassigned(&mut self, partitions: &[TopicPartition]) {
        self.held.retain(|held| !partitions.contains(held));
        self.answered();
    }

    /// A new membership is in force from its first answered event on, and not before: what is open then
    /// belongs to the old one.
    fn answered(&mut self) {
        self.unanswered = false;
        if let Some((member, generation)) = self.hidden.take() {
            self.member = Some(member);
            self.generation = (generation >= 0).then_some(generation);
            self.held_since = self.held_since.max(generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use processor_engine::TopicIndex;

    use super::*;

    fn inputs() -> Vec<TopicPartition> {
        (0..4).map(|partition| TopicPartition { topic: TopicIndex(0), partition }).collect()
    }

    fn started(group: &mut Group) -> MemberClient {
        let mut client = MemberClient::default();
        client.background(group);
        let Some(Rebalance::Assign(added)) = client.deliver() else { panic!("no assignment") };
        client.assigned(&added);
        client
    }

    #[test]
    fn an_evicted_member_has_no_identity_until_it_has_given_everything_up() {
        let mut group = Group::new(inputs());
        let mut client = started(&mut group);
        group.remove(client.member().unwrap());
        client.background(&mut group);
        assert_eq!(client.identity(), None);
        let Some(Rebalance::Lost(lost)) = client.deliver() else { panic!("not lost") };
        assert_eq!(lost.len(), 4);
        client.background(&mut group);
        assert_eq!(client.identity(), None, "unanswered");
        client.unassigned(&lost);
        client.background(&mut group);
        let Some(Rebalance::Assign(added)) = client.deliver() else { panic!("no assignment") };
        assert_eq!(added.len(), 4);
        client.assigned(&added);
        assert!(client.identity().is_some());
    }

    #[test]
    fn a_quiet_rejoin_shows_only_the_difference_and_no_identity_before_it() {
        let mut group = Group::new(inputs());
        let mut client = started(&mut group);
        client.rejoin_quietly(true);
        group.remove(client.member().unwrap());
        client.background(&mut group);
        assert_eq!(client.identity(), None);
        assert_eq!(client.deliver(), Some(Rebalance::Assign(Vec::new())));
        assert_eq!(client.identity(), None, "what is open belongs to the old membership");
        client.assigned(&[]);
        assert!(client.identity().is_some());
        assert_eq!(client.held().len(), 4);
    }

    #[test]
    fn leaving_gives_everything_up_first() {
        let mut group = Group::new(inputs());
        let mut client = started(&mut group);
        client.leave();
        client.background(&mut group);
        let Some(Rebalance::Revoke(all)) = client.deliver() else { panic!("nothing revoked") };
        client.unassigned(&all);
        client.background(&mut group);
        assert!(group.members().is_empty());
        assert_eq!(client.deliver(), None);
    }
}
