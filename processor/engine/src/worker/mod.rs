//! The loop of one worker, as a step function: a thread calls [`Worker::step`] for ever, a simulation
//! interleaves the steps of many.
//!
//! One worker owns its consumer, its two producers, its reader and the state of its partitions; nothing is
//! shared, nothing is locked. The pieces: [`mod@open`] (the open transaction), `commit` (how it ends),
//! `restore` (how a partition gets its state), `rebalance` (how partitions come and go), `broadcast` (what
//! every partition is told), `drained` (whether anything is left to do).
//!
//! It never decides what a record means (that is the [`Application`]) and never sleeps; where waiting is
//! wise it says so in its [`Step`].

mod broadcast;
mod commit;
mod drained;
mod open;
mod owned;
mod rebalance;
mod restore;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::commit::escalate;
use self::open::{Open, View};
use self::owned::{CaughtUp, Owned};
use crate::application::{Application, BroadcastRecord};
use crate::cluster::{Cluster, GroupConsumer, LogReader, Polled, Record, TransactionalProducer};
use crate::failure::{Failure, Stop};
use crate::observer::{Event, Observer};
use crate::store::{PartitionStore, StateStore};
use crate::topology::{StatePartition, TopicPartition, Topology};

/// Producers used in turn: after EndTxn is answered the broker still writes markers and refuses the same
/// producer's next transaction for 20 ms and more; the other one does not wait.
const PRODUCERS: usize = 2;

/// How often the store of a quiet partition is written all the same (a day).
const REFRESH_STATE_MS: u64 = 24 * 3_600_000;

/// When a transaction ends and how long things may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Input records per transaction.
    pub max_records: u64,
    /// Bytes of state changes per transaction.
    pub max_bytes: usize,
    /// Age at which an open transaction is committed even under load.
    pub commit_interval: Duration,
    /// How long an idle worker waits for a record before it looks around.
    pub idle_wait: Duration,
    /// Changelog records replayed per step, over all partitions.
    pub restore_records: u32,
    /// How often consumed records of repartition topics are deleted.
    pub purge_interval: Duration,
    /// A store not written for longer than this is rebuilt from the changelog instead of brought up to
    /// date; must be shorter than the changelog's `delete.retention.ms`.
    pub max_state_age: Duration,
    /// How long a leaving worker waits for the group to ask for its partitions.
    pub leave_wait: Duration,
    /// Fencings within [`Limits::fencing_window`] after which the worker gives up. Successful commits between them
    /// do not count: two processes of one identity fence each other in turn, and each commits in between.
    pub max_fencings: usize,
    /// See [`Limits::max_fencings`].
    pub fencing_window: Duration,
    /// For how long every look at a partition must lead to a refusal before the worker stops with it. One look proves
    /// nothing: offsets and ends are read one after the other, and a leader or a coordinator that was deposed while it
    /// slept tells old ones until it hears of it. At least two looks are taken.
    pub doubt: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_records: 10_000,
            max_bytes: 16 << 20,
            commit_interval: Duration::from_millis(100),
            idle_wait: Duration::from_millis(50),
            restore_records: 20_000,
            purge_interval: Duration::from_secs(30),
            max_state_age: Duration::from_secs(21 * 24 * 3600),
            leave_wait: Duration::from_secs(5),
            max_fencings: 3,
            fencing_window: Duration::from_secs(600),
            doubt: Duration::from_secs(20),
        }
    }
}

/// The engine rules that can be taken out, so that a test can show what breaks without each. All are on
/// by default and nothing outside tests changes them.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)]
pub struct Rules {
    pub rule1_offsets_of_touched: bool,
    pub rule2_replay_on_assignment: bool,
    pub rule3_resolve_before_revoke: bool,
    pub rule4_reread_on_rebalance: bool,
    pub rule5_check_restored_end: bool,
    pub rule6_rebuild_on_indefinite: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rule1_offsets_of_touched: true,
            rule2_replay_on_assignment: true,
            rule3_resolve_before_revoke: true,
            rule4_reread_on_rebalance: true,
            rule5_check_restored_end: true,
            rule6_rebuild_on_indefinite: true,
        }
    }
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something was done; step again at once.
    Worked,
    /// There was nothing to do (the poll has waited already).
    Idle,
    /// Something failed and will be tried again; wait a little first.
    Backoff(Duration),
    /// The worker has left the group and owns nothing any more.
    Left,
}

/// One worker.
pub struct Worker<C: Cluster, S: StateStore, A: Application, O: Observer> {
    topology: Topology,
    limits: Limits,
    rules: Rules,
    cluster: C,
    stores: S,
    application: A,
    consumer: C::Consumer,
    producers: Vec<C::Producer>,
    reader: C::Reader,
    turn: usize,
    writer: String,
    owned: BTreeMap<StatePartition, Owned<S::Partition>>,
    /// Whether the group has ever assigned anything, be it nothing.
    assigned: bool,
    /// Assigned inputs whose state is not opened yet.
    untaken: Vec<TopicPartition>,
    open: Option<Open>,
    broadcasts: Vec<BroadcastRecord>,
    /// How far the broadcast topic is read, control records included.
    broadcasts_read_to: i64,
    recovery: Option<Failure>,
    failures: u32,
    /// When the last fencings were, ms since 1970.
    fencings: VecDeque<u64>,
    last_purge_ms: u64,
    /// Since when the worker is leaving the group, ms since 1970.
    leaving: Option<u64>,
    /// Last, so that a client that hangs while it is closed is still watched.
    observer: O,
}

impl<C: Cluster, S: StateStore, A: Application, O: Observer> Worker<C, S, A, O> {
    /// Initialises both producers first (whatever a predecessor left open is resolved before any offset is
    /// read), then joins the group.
    pub fn new(
        topology: Topology,
        limits: Limits,
        mut cluster: C,
        stores: S,
        application: A,
        observer: O,
    ) -> Result<Self, Failure> {
        let producers = build_producers(&mut cluster)?;
        let mut reader = cluster.reader()?;
        let broadcast = TopicPartition { topic: topology.broadcast, partition: 0 };
        reader.add(broadcast, 0)?;
        let consumer = cluster.consumer()?;
        let now = cluster.now_ms();
        Ok(Self {
            topology,
            limits,
            rules: Rules::default(),
            cluster,
            stores,
            application,
            observer,
            consumer,
            producers,
            reader,
            turn: 0,
            writer: format!("{now:x}"),
            owned: BTreeMap::new(),
            assigned: false,
            untaken: Vec::new(),
            open: None,
            broadcasts: Vec::new(),
            broadcasts_read_to: 0,
            recovery: None,
            failures: 0,
            fencings: VecDeque::new(),
            last_purge_ms: now,
            leaving: None,
        })
    }

    /// For tests that show what a rule guards.
    #[doc(hidden)]
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The partitions owned and whether each is running.
    pub fn partitions(&self) -> impl Iterator<Item = (StatePartition, bool)> + '_ {
        self.owned.iter().map(|(partition, owned)| (*partition, owned.is_running()))
    }

    /// How far each running partition has read its input, control records included.
    pub fn positions(&self) -> impl Iterator<Item = (StatePartition, i64)> + '_ {
        self.owned.iter().filter(|(_, owned)| owned.is_running()).map(|(partition, owned)| (*partition, owned.read_to))
    }

    /// The application, for its counters.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// Does a bounded piece of work.
    ///
    /// # Errors
    /// A [`Stop`]: the process must end with the code it carries.
    pub fn step(&mut self) -> Result<Step, Stop> {
        self.observer.alive();
        let result = match self.recovery.take() {
            Some(failure) => self.recover(failure).map(|()| Step::Worked),
            None => self.turn(),
        };
        match result {
            Ok(step) => Ok(step),
            Err(Failure::Stop(stop)) => {
                // Readers of the outputs should not have to wait for the transaction to time out.
                let _ = self.abort("stopping");
                Err(stop)
            }
            Err(failure) => {
                self.failures += 1;
                let wait = Duration::from_millis(10) * 2_u32.saturating_pow(self.failures.min(8) - 1);
                self.recovery = Some(failure);
                Ok(Step::Backoff(wait))
            }
        }
    }

    /// Commits what is open and starts leaving the group; [`Worker::step`] then ends in [`Step::Left`].
    pub fn leave(&mut self) -> Result<(), Stop> {
        if self.leaving.is_none() {
            self.leaving = Some(self.cluster.now_ms());
            self.settle()?;
            if let Err(failure) = self.consumer.leave() {
                self.recovery = Some(failure);
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<Step, Failure> {
        // Polling comes first: whatever fails below, the group's requests are still heard.
        let drained = self.gather()?;
        self.take_assigned()?;
        self.look_again()?;
        let read = self.read_logs(drained)?;
        self.tell_caught_up()?;
        self.handle_broadcasts()?;
        self.background()?;
        let worked = self.commit_if_due(drained)?;
        self.purge_if_due();
        if self.has_left()? {
            return Ok(Step::Left);
        }
        Ok(if worked || read || !drained { Step::Worked } else { Step::Idle })
    }

    /// Whether a leaving worker may end: it owns nothing any more, or the group has not asked for its partitions in
    /// time (told to leave in the middle of a rebalance, it may never ask). Then everything is settled here, and
    /// closing the consumer leaves the group.
    fn has_left(&mut self) -> Result<bool, Failure> {
        let Some(since) = self.leaving else { return Ok(false) };
        if self.owned.is_empty() && self.untaken.is_empty() {
            return Ok(true);
        }
        let wait = u64::try_from(self.limits.leave_wait.as_millis()).unwrap_or(u64::MAX);
        if self.cluster.now_ms().saturating_sub(since) < wait {
            return Ok(false);
        }
        self.settle()?;
        Ok(true)
    }

    /// Whether something else than input waits to be done, so that polling must not wait.
    fn is_busy(&self) -> bool {
        self.leaving.is_some()
            || !self.untaken.is_empty()
            || self.open.as_ref().is_some_and(|open| !open.is_empty())
            || self.application.has_background()
            || self.owned.values().any(|owned| !owned.is_running() || owned.refresh_offset)
    }

    /// Polls records into the open transaction until it is full, old or the input is drained (`true`).
    fn gather(&mut self) -> Result<bool, Failure> {
        let mut wait = if self.is_busy() { Duration::ZERO } else { self.limits.idle_wait };
        loop {
            let Self { consumer, producers, open, owned, topology, application, cluster, turn, .. } = self;
            let Some(producer) = producers.get_mut(*turn) else {
                return Err(Failure::Rebuild("no producer".into()));
            };
            let mut outcome = Ok(());
            let polled = consumer.poll(wait, &mut |record| {
                let open = open.get_or_insert_with(|| Open::new(cluster.now_ms()));
                outcome = process(application, open, producer, owned, topology, record);
            })?;
            outcome?;
            wait = Duration::ZERO;
            match polled {
                Polled::Record => {
                    fail_point!("gather-processed");
                    if self.is_due() {
                        return Ok(false);
                    }
                }
                Polled::End { partition, position } => self.reached_end(partition, position),
                Polled::Idle => return Ok(true),
                Polled::Rebalance(rebalance) => {
                    self.rebalance(rebalance)?;
                    return Ok(false);
                }
            }
        }
    }

    fn reached_end(&mut self, partition: TopicPartition, position: i64) {
        let state = self.topology.state_of_input(partition);
        if let Some(owned) = state.and_then(|state| self.owned.get_mut(&state))
            && owned.is_running()
        {
            owned.read_to = owned.read_to.max(position);
            if owned.caught_up == CaughtUp::NotYet {
                owned.caught_up = CaughtUp::Seen;
            }
        }
    }

    /// Whether the open transaction is full or old.
    fn is_due(&mut self) -> bool {
        let Some(open) = &self.open else { return false };
        if open.records >= self.limits.max_records || open.bytes >= self.limits.max_bytes {
            return true;
        }
        // The clock is looked at every 64 records only: it costs as much as a record.
        open.records % 64 == 0 && self.is_old()
    }

    fn is_old(&mut self) -> bool {
        let now = self.cluster.now_ms();
        let interval = u64::try_from(self.limits.commit_interval.as_millis()).unwrap_or(u64::MAX);
        self.open.as_ref().is_some_and(|open| now.saturating_sub(open.started_ms) >= interval)
    }

    fn background(&mut self) -> Result<(), Failure> {
        if !self.application.has_background() {
            return Ok(());
        }
        let now = self.cluster.now_ms();
        let Self { producers, open, owned, topology, application, turn, .. } = self;
        let Some(producer) = producers.get_mut(*turn) else { return Err(Failure::Rebuild("no producer".into())) };
        let open = open.get_or_insert_with(|| Open::new(now));
        let mut view = View { open, producer, owned, topology };
        fail_point!("background-begun");
        application.background(&mut view).map(|_| ())
    }

    /// Deletes consumed records of repartition topics now and then; a failure is harmless and repeated.
    fn purge_if_due(&mut self) {
        let now = self.cluster.now_ms();
        let interval = u64::try_from(self.limits.purge_interval.as_millis()).unwrap_or(u64::MAX);
        if now.saturating_sub(self.last_purge_ms) < interval {
            return;
        }
        self.last_purge_ms = now;
        for (partition, owned) in &mut self.owned {
            if owned.is_running() && now.saturating_sub(owned.stored_ms) >= REFRESH_STATE_MS {
                // A quiet partition's store must not look abandoned; a failure is repeated with the next purge.
                let progress = owned.progress(owned.mark, owned.leader_epoch, owned.changelog_end, now);
                if owned.store.apply(&[], &progress).is_ok() {
                    owned.stored_ms = now;
                }
            }
            let purges = self.topology.stage(partition.stage).is_some_and(|stage| stage.purge_input);
            let before = owned.mark.next_offset;
            let Some(input) = self.topology.input_of(*partition) else { continue };
            let due = purges && owned.is_running() && before > owned.purged_to;
            if due && self.cluster.delete_records(input, before).is_ok() {
                fail_point!("purge-requested");
                owned.purged_to = before;
                self.observer.observe(&Event::Purged { partition: *partition, before });
            }
        }
    }

    /// Does what a failure asks for.
    fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        self.try_recover(failure).map_err(escalate)
    }

    fn try_recover(&mut self, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Stop(_) => Err(failure),
            Failure::Busy(_) => Ok(()),
            Failure::Abort(reason) => self.abort(&reason),
            Failure::Membership(reason) => {
                self.abort(&reason)?;
                self.verify_kept()
            }
            Failure::Rebuild(reason) if !self.rules.rule6_rebuild_on_indefinite => self.abort(&reason),
            Failure::Rebuild(reason) => self.rebuild(&reason),
            Failure::Fenced(reason) => {
                let now = self.cluster.now_ms();
                let window = u64::try_from(self.limits.fencing_window.as_millis()).unwrap_or(u64::MAX);
                self.fencings.retain(|then| now.saturating_sub(*then) < window);
                self.fencings.push_back(now);
                if self.fencings.len() > self.limits.max_fencings {
                    return Err(Failure::stop(
                        "FENCED",
                        format!("fenced {} times within minutes: {reason}", self.fencings.len()),
                        "another process runs with the same --application-id and --instance; give each its own --instance",
                    ));
                }
                self.rebuild(&reason)
            }
        }
    }

    /// New producers under the same transactional ids; then every partition is treated as freshly assigned,
    /// so that the changelog tells what became of the last transaction.
    fn rebuild(&mut self, reason: &str) -> Result<(), Failure> {
        self.open = None;
        self.application.aborted();
        self.producers.clear();
        self.producers = build_producers(&mut self.cluster)?;
        fail_point!("rebuild-initialised");
        self.writer = format!("{:x}", self.cluster.now_ms());
        self.turn = 0;
        self.reopen_all()?;
        self.observer.observe(&Event::Rebuilt { reason });
        Ok(())
    }

    /// Gives every store back and takes it again as if just assigned: a store that reported damage is thereby
    /// discarded and restored, which the same open handle could never do.
    fn reopen_all(&mut self) -> Result<(), Failure> {
        let all: Vec<StatePartition> = self.owned.keys().copied().collect();
        let inputs: Vec<TopicPartition> =
            all.iter().filter_map(|partition| self.topology.input_of(*partition)).collect();
        self.consumer.pause(&inputs)?;
        for partition in all {
            self.application.stopped(partition);
            if let Some(changelog) = self.topology.changelog_of(partition)
                && self.owned.get(&partition).is_some_and(|owned| !owned.is_running())
            {
                self.reader.remove(changelog)?;
            }
        }
        self.owned.clear();
        self.untaken.extend(inputs);
        Ok(())
    }
}

fn build_producers<C: Cluster>(cluster: &mut C) -> Result<Vec<C::Producer>, Failure> {
    // Both ids before any offset is read: a predecessor may have left a transaction open under either.
    (0..PRODUCERS).map(|turn| cluster.producer(turn)).collect()
}

/// Processes one input record, unless it was prefetched before a rewind or belongs to a paused partition.
fn process<T: TransactionalProducer, P: crate::store::PartitionStore, A: Application>(
    application: &mut A,
    open: &mut Open,
    producer: &mut T,
    owned: &mut BTreeMap<StatePartition, Owned<P>>,
    topology: &Topology,
    record: &Record<'_>,
) -> Result<(), Failure> {
    let Some(partition) = topology.state_of_input(record.source) else { return Ok(()) };
    let Some(state) = owned.get_mut(&partition).filter(|state| state.is_running()) else { return Ok(()) };
    if record.offset < state.read_to {
        return Ok(());
    }
    state.read_to = record.offset + 1;
    let touched = open.touch(partition, state);
    touched.mark.next_offset = record.offset + 1;
    touched.leader_epoch = record.leader_epoch;
    touched.read = true;
    open.records += 1;
    application.process(&mut View { open, producer, owned, topology }, partition, record)
}
