//! Faults of the network between one of two processors and the brokers: silence, answers that are lost, requests that
//! arrive long after their sender has given up on them.
//!
//! A request that reaches the broker late finds the same producer at work on a later transaction, and the transaction
//! protocol that librdkafka speaks (v1) cannot tell the two apart, unless the producer was given a new epoch meanwhile.
//! Hence the promise that each of these guards: after any indefinite answer a producer is retired.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::super::Job;
use super::broker::coordinator;
use super::phases::{Control, controlled};
use super::recovery::Output;
use super::{SESSION_TIMEOUT, Trial};
use crate::proxy::{Api, Fate, Late, Proxy, Request, Rule};
use crate::stack::{PATIENCE, Program, ProgramSpec, Stack};

const PROCESSOR: Program = Program::Processor;

/// Longer than a transaction lives (20 s), and than the coordinator takes to notice.
const LONGER_THAN_A_TRANSACTION: Duration = Duration::from_secs(25);

/// Kafka's error code for a producer whose epoch is no longer the newest.
const INVALID_PRODUCER_EPOCH: i16 = 47;

/// Commits of both producers are kept back, and arrive in the middle of a later transaction, when some of its records
/// are written and its offsets are not: they must be refused. Their sender waits in vain, or sees the connection break.
pub fn commit_delivered_late(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    let mut trial = Trial::start_through(stack, "late-commit", proxy)?;
    for (turn, fate) in [(0, Fate::HeldAndBroken), (1, Fate::HeldAndBroken), (1, Fate::Held)] {
        let id = transactional_id(&trial, 0, turn);
        hold(&mut trial, proxy, &id, Api::Commit, fate)?;
        arrives_in_a_later_transaction(&mut trial, proxy, &id)?;
        trial.progress(100)?;
    }
    trial.finish()?;
    refused(proxy)
}

/// A processor is killed with its commit on the way; what its successor has begun is not touched by it.
pub fn commit_delivered_after_its_sender_was_killed(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    let mut trial = Trial::start_through(stack, "late-commit-kill", proxy)?;
    for turn in 0..2 {
        let id = transactional_id(&trial, 0, turn);
        hold(&mut trial, proxy, &id, Api::Commit, Fate::Held)?;
        trial.kill(PROCESSOR, 0)?;
        trial.up(PROCESSOR, 0)?;
        arrives_in_a_later_transaction(&mut trial, proxy, &id)?;
        trial.progress(100)?;
    }
    trial.finish()?;
    refused(proxy)
}

/// Records are kept back, then offsets, then the addition of partitions; each arrives in a later transaction.
pub fn anything_else_delivered_late(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    let mut trial = Trial::start_through(stack, "late-requests", proxy)?;
    for api in [Api::Produce, Api::TxnOffsetCommit, Api::AddPartitionsToTxn, Api::AddOffsetsToTxn] {
        for fate in [Fate::HeldAndBroken, Fate::Held] {
            let id = transactional_id(&trial, 0, 0);
            hold(&mut trial, proxy, &id, api, fate)?;
            arrives_in_a_later_transaction(&mut trial, proxy, &id)?;
            trial.progress(100)?;
        }
    }
    trial.finish()
}

/// A copy of the offsets of one transaction arrives in a later one of the same producer, behind that one's own: the broker
/// takes it, because nothing on the wire tells the two apart, and the group's offsets go back. Whoever starts from there
/// recognises what it reads again. A copy that arrives while no transaction is open is refused.
pub fn offsets_of_an_earlier_transaction_delivered_again(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    const RECOGNISED: &str = "recognised and skipped";
    let job = Job::for_workload(stack, "late-offsets")?;
    let (work, control) = controlled(&job);
    let processors = both_through(&job, proxy);
    let mut trial = Trial::of(job, work, processors)?;
    for _ in 0..2 {
        let reader = copied_offsets_arrive(&mut trial, proxy, &control)?;
        let before = trial.times_logged(PROCESSOR, RECOGNISED)?;
        trial.kill(PROCESSOR, reader)?;
        trial.up(PROCESSOR, reader)?;
        trial
            .until("older records to be recognised", |trial| Ok(trial.times_logged(PROCESSOR, RECOGNISED)? > before))?;
        control.work();
        trial.progress(200)?;
    }
    let (reader, _) = trial.reader_and_other()?;
    let id = transactional_id(&trial, reader, 0);
    hold(&mut trial, proxy, &id, Api::TxnOffsetCommit, Fate::Copied)?;
    control.rest()?;
    // No transaction is open then.
    trial.until("everything to be processed", |trial| trial.job.is_processed())?;
    let before = trial.job.kafka.group_offsets(trial.job.application_id(), &trial.job.source_topic)?;
    proxy.deliver_held()?;
    let refused = proxy.late().last().is_some_and(|late| late.error.is_some_and(|error| error != 0));
    ensure!(refused, "offsets without a transaction were taken: {:?}", proxy.late());
    let after = trial.job.kafka.group_offsets(trial.job.application_id(), &trial.job.source_topic)?;
    ensure!(before == after, "the group's offsets were changed from {before:?} to {after:?}");
    control.work();
    trial.progress(100)?;
    trial.finish()
}

/// Two processors, both of which come to the brokers through the proxy.
pub(super) fn both_through(job: &Job<'_>, proxy: &Proxy) -> Vec<ProgramSpec> {
    [0, 1].map(|instance| job.processor(instance).flag("--bootstrap-servers", proxy.bootstrap_servers())).to_vec()
}

/// With the load at rest at the end: the group is behind what was applied. Returns whose offsets they were. A copy from before a
/// rebalance is refused, as it should be, and one of a transaction without input sets nothing back: then another one is made.
fn copied_offsets_arrive(trial: &mut Trial<'_>, proxy: &Proxy, control: &Control) -> Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let (reader, _) = trial.reader_and_other()?;
        if copied_offsets_are_taken(trial, proxy, control, reader)? && !trial.job.is_consumed()? {
            return Ok(reader);
        }
        control.work();
    }
    bail!("no copy has set the group's offsets back within {PATIENCE:?}: {:?}", proxy.late())
}

fn copied_offsets_are_taken(trial: &mut Trial<'_>, proxy: &Proxy, control: &Control, reader: usize) -> Result<bool> {
    let id = transactional_id(trial, reader, 0);
    hold(trial, proxy, &id, Api::TxnOffsetCommit, Fate::Copied)?;
    trial.progress(300)?;
    control.rest()?;
    trial.until("the input to be consumed", |trial| trial.job.is_consumed())?;
    let late = proxy.late().len();
    proxy.add(Rule::once(Fate::AnsweredAfterHeld, move |request| {
        of(request, &id) && request.api == Api::TxnOffsetCommit
    }));
    // The producers take turns: of two transactions one is the copied one's.
    for _ in 0..4 {
        if proxy.late().len() > late {
            break;
        }
        // None, if the group has taken its partitions away meanwhile.
        let Some(read) = trial.runs(reader, "source")?.into_iter().next() else { break };
        let seen = trial.seen();
        control.write(move |workload| vec![workload.insert_into(read, 1)])?;
        trial.until("the new row's records", |trial| Ok(trial.seen() > seen))?;
    }
    proxy.forget_rules();
    let taken = proxy.late().get(late).is_some_and(|late| late.error == Some(0));
    proxy.deliver_held()?;
    Ok(taken)
}

/// Commits take effect, and nobody hears of it: twice in a row, once of each producer.
pub fn answers_to_commits_lost(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    let mut trial = Trial::start_through(stack, "lost-answer", proxy)?;
    for turn in [0, 1, 0] {
        let met = proxy.met();
        let id = transactional_id(&trial, 0, turn);
        let rule = Rule::once(Fate::AnswerLost, move |request| of(request, &id) && request.api == Api::Commit);
        proxy.add(rule.times(2));
        trial.until("the answers to two commits to be lost", |_| Ok(proxy.met() > met))?;
        proxy.forget_rules();
        trial.progress(100)?;
    }
    trial.finish()
}

/// Cut off from each broker in turn, for longer than a transaction lives; the brokers go on seeing each other.
pub fn cut_off_from_one_broker(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    let mut trial = Trial::start_through(stack, "cut-off-one", proxy)?;
    for broker in 1..=3 {
        cut_off(&mut trial, proxy, &[broker])?;
    }
    trial.finish()
}

/// Cut off from the coordinator of the group, then from that of its transactions.
pub fn cut_off_from_the_coordinators(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    let mut trial = Trial::start_through(stack, "cut-off-coordinator", proxy)?;
    let group = trial.job.application_id().to_owned();
    let id = transactional_id(&trial, 0, 0);
    for (topic, id) in [("__consumer_offsets", group), ("__transaction_state", id)] {
        let broker = coordinator(&trial.job.kafka, topic, &id)?;
        cut_off(&mut trial, proxy, &[broker])?;
    }
    trial.finish()
}

/// Cut off from all brokers, for longer than its session lasts and for longer than its transaction lives.
pub fn cut_off_from_all_brokers(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    let mut trial = Trial::start_through(stack, "cut-off-all", proxy)?;
    for silence in [2 * SESSION_TIMEOUT, LONGER_THAN_A_TRANSACTION] {
        proxy.cut_off(1..=3);
        trial.for_the_length_of(silence)?;
        // The other one has taken over.
        trial.progress(100)?;
        proxy.reconnect();
        trial.recovers_from("processor cut off from all brokers", Output::Topic);
        trial.progress(100)?;
    }
    trial.finish()
}

fn cut_off(trial: &mut Trial<'_>, proxy: &Proxy, brokers: &[u8]) -> Result<()> {
    proxy.cut_off(brokers.iter().copied());
    trial.for_the_length_of(LONGER_THAN_A_TRANSACTION)?;
    proxy.reconnect();
    trial.recovers_from("processor cut off from a broker", Output::Topic);
    trial.progress(200)
}

/// The transactional id of one of the two producers of a processor.
fn transactional_id(trial: &Trial<'_>, instance: usize, turn: u8) -> String {
    format!("{}-{instance}-0-{turn}", trial.job.application_id())
}

fn of(request: &Request<'_>, transactional_id: &str) -> bool {
    request.transactional_id == Some(transactional_id)
}

/// Keeps the next such request of a producer back.
fn hold(trial: &mut Trial<'_>, proxy: &Proxy, transactional_id: &str, api: Api, fate: Fate) -> Result<()> {
    let id = transactional_id.to_owned();
    proxy.add(Rule::once(fate, move |request| of(request, &id) && request.api == api));
    trial.until(format!("a request of {transactional_id} to be held"), |_| Ok(proxy.held() == 1))
}

/// Whatever the sender has made of it: what is held arrives as soon as some records of its next transaction are written.
fn arrives_in_a_later_transaction(trial: &mut Trial<'_>, proxy: &Proxy, transactional_id: &str) -> Result<()> {
    let late = proxy.late().len();
    let id = transactional_id.to_owned();
    // The held transaction may write more, on other connections: what comes after its end is a later one.
    let ended = id.clone();
    proxy.add(Rule::once(Fate::Delayed(Duration::ZERO), move |request| {
        of(request, &ended) && matches!(request.api, Api::Commit | Api::Abort | Api::InitProducerId)
    }));
    let met = proxy.met();
    trial.until("the end of the transaction", |_| Ok(proxy.met() > met))?;
    let records = |request: &Request<'_>, id: &str| of(request, id) && request.api == Api::Produce;
    let rest = id.clone();
    proxy.add(Rule::once(Fate::AnsweredAfterHeld, move |request| records(request, &id)));
    // To the other brokers, so that some of the transaction is written and some is not.
    proxy.add(Rule::once(Fate::Delayed(Duration::from_secs(1)), move |request| records(request, &rest)).times(2));
    trial.until(format!("a late request of {transactional_id} to arrive"), |_| Ok(proxy.late().len() > late))
}

/// Everything that came late was refused for the epoch of its producer.
fn refused(proxy: &Proxy) -> Result<()> {
    let late = proxy.late();
    let refused = |late: &Late| late.error == Some(INVALID_PRODUCER_EPOCH);
    ensure!(!late.is_empty() && late.iter().all(refused), "not everything late was refused: {late:?}");
    Ok(())
}
