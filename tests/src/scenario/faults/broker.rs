//! Faults of brokers. The stack must be one of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::MetadataPartition;

use super::Trial;
use super::chaos;
use super::recovery::Output;
use super::witness::Witness;
use crate::client::Kafka;
use crate::stack::{Component, PATIENCE, Stack, wait_for};

const BROKERS: [Component; 3] = [Component::Broker(1), Component::Broker(2), Component::Broker(3)];

/// Times that brokers are killed while they recover, unless it is to go on for longer.
const ROUNDS_OF_RECOVERING: usize = 3;

/// Longer than a controller waits for a silent broker (9 s).
const LONGER_THAN_A_BROKER_SESSION: Duration = Duration::from_secs(12);

/// Longer than the programs' session timeout and than a transaction lives (20 s).
const LONGER_THAN_A_TRANSACTION: Duration = Duration::from_secs(25);

/// Each killed (−9) in turn; the others go on, and it comes back with what it had.
pub fn each_killed_in_turn(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "broker-kill")?;
    for broker in BROKERS {
        stack.kill(broker)?;
        trial.recovers_from("one broker killed", Output::Topic);
        trial.progress(150)?;
        stack.start(broker)?;
        stack.wait_healthy(broker)?;
    }
    trial.progress(100)?;
    trial.finish()
}

/// Each stopped in good order and started again, as an upgrade does it.
pub fn rolling_restart(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "broker-rolling")?;
    for broker in BROKERS {
        stack.stop(broker)?;
        trial.progress(100)?;
        stack.start(broker)?;
        stack.wait_healthy(broker)?;
        trial.progress(100)?;
    }
    trial.finish()
}

/// The group's coordinator killed, then the one of a processor's transactions.
pub fn coordinators_killed(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "coordinator-kill")?;
    let group = trial.job.application_id().to_owned();
    for (topic, id) in [
        ("__consumer_offsets", group.clone()),
        ("__transaction_state", format!("{group}-0-0-0")),
        ("__transaction_state", format!("{group}-1-0-1")),
    ] {
        let coordinator = Component::Broker(coordinator(&trial.job.kafka, topic, &id)?);
        stack.kill(coordinator)?;
        trial.recovers_from("coordinator killed", Output::Topic);
        trial.progress(150)?;
        stack.start(coordinator)?;
        stack.wait_healthy(coordinator)?;
    }
    trial.finish()
}

/// Two of three killed, for longer than a transaction lives: nothing can be committed, and nothing is lost.
pub fn two_of_three_down(stack: &dyn Stack) -> Result<()> {
    down(stack, "brokers-two-down", &BROKERS[..2], "two brokers down")
}

/// All killed, for longer than a transaction lives.
pub fn all_down(stack: &dyn Stack) -> Result<()> {
    down(stack, "brokers-all-down", &BROKERS, "all brokers down")
}

fn down(stack: &dyn Stack, name: &str, brokers: &[Component], fault: &'static str) -> Result<()> {
    let mut trial = Trial::start(stack, name)?;
    brokers.iter().try_for_each(|broker| stack.kill(*broker))?;
    trial.for_the_length_of(LONGER_THAN_A_TRANSACTION)?;
    brokers.iter().try_for_each(|broker| stack.start(*broker))?;
    trial.recovers_from(fault, Output::Topic);
    stack.wait_all_healthy()?;
    trial.progress(300)?;
    trial.finish()
}

/// Two killed, then the third or all of them at any moment of their recovery, again and again: leaders are elected when no
/// replica counts as in sync any more. Nothing acknowledged is lost, and no end is told that lies below it.
pub fn killed_while_they_recover(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "brokers-recovering")?;
    let witness = Witness::start(&trial.job.kafka)?;
    let (began, enough) = (Instant::now(), chaos());
    let mut rounds = 0;
    while rounds < ROUNDS_OF_RECOVERING || began.elapsed() < enough {
        let mut order = BROKERS;
        fastrand::shuffle(&mut order);
        let [first, second, third] = order;
        let mut told = vec![format!("{first} and {second} killed")];
        let pause = |trial: &mut Trial<'_>, up_to: u64| {
            let length = Duration::from_millis(fastrand::u64(..up_to));
            trial.for_the_length_of(length)
        };
        stack.kill(first)?;
        pause(&mut trial, 1_000)?;
        stack.kill(second)?;
        pause(&mut trial, 6_000)?;
        stack.start(first)?;
        pause(&mut trial, 2_000)?;
        stack.start(second)?;
        // From before they have come to their logs until they are in sync again.
        pause(&mut trial, 25_000)?;
        let mut again = if fastrand::bool() { vec![third, first, second] } else { vec![third] };
        told.push(format!("then {again:?}"));
        for broker in &again {
            stack.kill(*broker)?;
            if fastrand::bool() {
                pause(&mut trial, 1_500)?;
            }
        }
        pause(&mut trial, 3_000)?;
        fastrand::shuffle(&mut again);
        for broker in again {
            stack.start(broker)?;
            pause(&mut trial, 2_000)?;
        }
        if fastrand::bool() {
            stack.wait_all_healthy()?;
            trial.progress(100)?;
        } else {
            pause(&mut trial, 25_000)?;
        }
        rounds += 1;
        eprintln!("round {rounds} after {:?}: {} {:?}", began.elapsed(), told.join(", "), witness.progress());
    }
    stack.wait_all_healthy()?;
    trial.progress(100)?;
    witness.end()?;
    trial.finish()
}

/// Stopped (SIGSTOP) until the cluster has gone on without it, then set going again: it believes to lead for a moment.
pub fn paused(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "broker-pause")?;
    for broker in [Component::Broker(2), Component::Broker(1)] {
        stack.pause(broker)?;
        trial.for_the_length_of(LONGER_THAN_A_BROKER_SESSION)?;
        trial.progress(100)?;
        stack.resume(broker)?;
        trial.recovers_from("broker asleep", Output::Topic);
        stack.wait_healthy(broker)?;
        trial.progress(100)?;
    }
    trial.finish()
}

/// The broker that coordinates an id: it leads the partition of the internal topic that the id hashes to.
pub(super) fn coordinator(kafka: &Kafka, topic: &str, id: &str) -> Result<u8> {
    let consumer: BaseConsumer = kafka.config().create()?;
    wait_for(format!("the coordinator of {id}"), || {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let partitions = metadata.topics().first().context("no such topic")?.partitions();
        let count = i32::try_from(partitions.len())?;
        let number = java_hash(id).checked_rem(count).context("a topic without partitions")?;
        let leader = partitions.iter().find(|partition| partition.id() == number).map(MetadataPartition::leader);
        Ok(leader.and_then(|leader| u8::try_from(leader).ok()))
    })
}

/// Java's `String.hashCode` without its sign, as coordinators use it.
fn java_hash(text: &str) -> i32 {
    let hash = text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash & i32::MAX
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_are_javas() {
        assert_eq!(super::java_hash("abc"), 96_354);
        assert_eq!(super::java_hash("polygenelubricants"), 0);
    }
}
