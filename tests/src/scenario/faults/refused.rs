//! Histories that no rule can repair: they are refused with a code, and following the remedy it names works.
//!
//! What happens, happens while no processor runs: nothing is noticed before the next start, which has to refuse.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::super::workload::{PARTITIONS, Workload};
use super::super::{Job, end_cleanly, tail};
use crate::checker::{Collector, check, report};
use crate::client::{NewTopic, OutgoingRecord, ResetTo};
use crate::native::NativeOptions;
use crate::stack::{Component, PATIENCE, Stack, wait_until};

/// Exit code of a program that would have to guess to go on.
const REFUSED: i32 = 3;

/// Changes that are applied before anything happens.
const CHANGES: usize = 300;

/// Records are gone that nobody has applied. Remedy: a new complete snapshot into a new topic, and a rebuild.
pub fn input_truncated_before_it_was_read(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "truncated")?;
    job.kafka.write(&job.source_topic, &workload.changes(CHANGES))?;
    for partition in 0..PARTITIONS {
        job.kafka.delete_records(&job.source_topic, partition, -1)?;
    }
    refused(&job, "INPUT_TRUNCATED")?;
    ends_exact_from_a_new_topic(job, &mut workload)
}

/// The input was deleted and created again; offsets begin anew. Remedy: a rebuild.
pub fn input_created_again(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "recreated")?;
    job.kafka.delete_topics(&[&job.source_topic])?;
    job.kafka.create_topic(&NewTopic::new(&job.source_topic, PARTITIONS))?;
    // More than before, so that offsets alone would not tell.
    job.kafka.write(&job.source_topic, &workload.snapshot())?;
    job.kafka.write(&job.source_topic, &workload.changes(2 * CHANGES))?;
    refused(&job, "INPUT_TOPIC_RECREATED")?;
    ends_exact(&job.rebuilt()?, &mut workload)
}

/// The changelog was deleted; found out by a state that remembers it, and by the group's offsets alone where the state
/// is gone, too. Remedy: a rebuild.
pub fn changelog_lost(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "changelog")?;
    job.kafka.delete_topics(&[&job.topic("transactions")])?;
    refused(&job, "CHANGELOG_TOPIC_RECREATED")?;
    std::fs::remove_dir_all(stack.state_directory(&job.processor(0).name))?;
    refused(&job, "CHANGELOG_BEHIND")?;
    ends_exact(&job.rebuilt()?, &mut workload)
}

/// Somebody set the group's offsets to the end. Remedy: to the beginning, which changes nothing.
pub fn offsets_moved_forward(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "forward")?;
    job.kafka.write(&job.source_topic, &workload.changes(CHANGES))?;
    job.kafka.reset_group_offsets(job.application_id(), &job.source_topic, ResetTo::End)?;
    refused(&job, "GROUP_OFFSET_AHEAD")?;
    job.kafka.reset_group_offsets(job.application_id(), &job.source_topic, ResetTo::Beginning)?;
    ends_exact(&job, &mut workload)
}

/// The input was made compact, which would take deletes away. Remedy: undo it.
pub fn input_made_compact(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "compact")?;
    job.kafka.set_topic_property(&job.source_topic, "cleanup.policy", "compact")?;
    refused(&job, "SOURCE_TOPIC_COMPACTED")?;
    job.kafka.set_topic_property(&job.source_topic, "cleanup.policy", "delete")?;
    ends_exact(&job, &mut workload)
}

/// The input was given more partitions, so that ids lie in others than their state. Remedy: a rebuild.
pub fn partition_count_changed(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "partitions")?;
    job.kafka.add_partitions(&job.source_topic, usize::try_from(PARTITIONS)? + 2)?;
    refused(&job, "TOPIC_WRONG_PARTITIONS")?;
    ends_exact(&job.rebuilt()?, &mut workload)
}

/// Record keys are written in another form: the converter's schemas were switched on. Remedy: back to what it was, a new
/// complete snapshot into a new topic, and a rebuild.
pub fn key_encoding_switched(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "keys")?;
    let wrapped = |record: OutgoingRecord| -> Result<OutgoingRecord> {
        let plain = String::from_utf8(record.key.clone().context("a record without a key")?)?;
        let key = format!(r#"{{"schema":{{"type":"struct","optional":false}},"payload":{plain}}}"#);
        Ok(OutgoingRecord { key: Some(key.into_bytes()), ..record })
    };
    let records = workload.changes(CHANGES).into_iter().map(wrapped).collect::<Result<Vec<_>>>()?;
    job.kafka.write(&job.source_topic, &records)?;
    refused(&job, "KEY_ENCODING_CHANGED")?;
    ends_exact_from_a_new_topic(job, &mut workload)
}

/// The group was empty for longer than the brokers keep its offsets. Remedy: to the beginning, which changes nothing. The
/// stack must be one of its own, with [`forgetful_options`].
pub fn group_offsets_expired(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "expired")?;
    let topics = [job.source_topic.clone(), job.topic("movements")];
    for topic in &topics {
        wait_until(format!("the offsets of {topic} to expire"), || {
            Ok(job.kafka.group_offsets(job.application_id(), topic)?.is_empty())
        })?;
    }
    refused(&job, "GROUP_OFFSETS_MISSING")?;
    for topic in &topics {
        job.kafka.reset_group_offsets(job.application_id(), topic, ResetTo::Beginning)?;
    }
    ends_exact(&job, &mut workload)
}

/// Brokers that forget the offsets of a group that has been empty for two minutes: longer than anything here may take between
/// two members.
pub fn forgetful_options() -> NativeOptions {
    NativeOptions::brokers(1)
        .with_target_database()
        .broker_property("offsets.retention.minutes", "2")
        .broker_property("offsets.retention.check.interval.ms", "1000")
}

/// All brokers were killed, and their disks lost what was written last: to the input, then to the changelog. Both end before
/// what the state has seen. Remedy: a new complete snapshot into a new topic, and a rebuild. `brokers` is the directory
/// below which the brokers keep their logs.
pub fn brokers_lost_the_last_second(stack: &dyn Stack, brokers: &Path) -> Result<()> {
    for (suffix, code) in
        [("orders.transactions", "INPUT_SHORTER_THAN_STATE"), ("stock.transactions", "CHANGELOG_SHORTER_THAN_STATE")]
    {
        let (job, mut workload) = at_rest(stack, "lost-second")?;
        let topic = format!("{}.{suffix}", job.name);
        let before = job.kafka.log_ends(&topic)?;
        let all = [1, 2, 3].map(Component::Broker);
        all.into_iter().try_for_each(|broker| stack.kill(broker))?;
        cut(brokers, &topic)?;
        all.into_iter().try_for_each(|broker| stack.start(broker))?;
        stack.wait_all_healthy()?;
        let after = job.kafka.log_ends(&topic)?;
        let is_shorter =
            before.iter().any(|(partition, (_, _, end))| after.get(partition).is_some_and(|now| now.2 < *end));
        ensure!(is_shorter, "{topic} still ends at {after:?}");
        refused(&job, code)?;
        ends_exact_from_a_new_topic(job, &mut workload)?;
    }
    Ok(())
}

/// Takes the last quarter off every log file of a topic, on every replica.
fn cut(brokers: &Path, topic: &str) -> Result<()> {
    let (mut left, mut cut) = (vec![brokers.to_path_buf()], 0);
    while let Some(directory) = left.pop() {
        let of_topic = directory
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.rsplit_once('-').is_some_and(|(name, _)| name == topic));
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if of_topic && path.extension().is_some_and(|ending| ending == "log") {
                let length = path.metadata()?.len();
                std::fs::OpenOptions::new().write(true).open(&path)?.set_len(length / 4 * 3)?;
                cut += 1;
            }
        }
    }
    ensure!(cut > 0, "no log of {topic} lies below {}", brokers.display());
    Ok(())
}

/// A job that has applied some changes, also in the target, and whose programs have ended.
fn at_rest<'a>(stack: &'a dyn Stack, name: &str) -> Result<(Job<'a>, Workload)> {
    let job = Job::for_workload(stack, name)?;
    let mut workload = Workload::new(Workload::any_seed());
    let mut programs = [job.start_processor(0)?, job.start_sink(0)?];
    job.kafka.write(&job.source_topic, &workload.changes(CHANGES))?;
    job.wait_for(&workload.sums(), &mut programs)?;
    job.wait_for_target(&workload.sums())?;
    end_cleanly(&mut programs)?;
    Ok((job, workload))
}

/// The next start ends by itself, with the exit code of a refusal and the code in its log.
fn refused(job: &Job<'_>, code: &str) -> Result<()> {
    let mut processor = job.start_processor(0)?;
    let exit = processor.wait_exit();
    let log = processor.log()?;
    let exit = exit.with_context(|| format!("{code} is not refused:\n{}", tail(&log)))?;
    ensure!(exit.code == Some(REFUSED) && log.contains(code), "ended with {exit}, not for {code}:\n{}", tail(&log));
    Ok(())
}

/// The remedy for an input that cannot be used any more: a new complete snapshot into a new topic, and a rebuild.
fn ends_exact_from_a_new_topic(job: Job<'_>, workload: &mut Workload) -> Result<()> {
    let mut job = job.rebuilt()?;
    job.source_topic = format!("{}.again", job.source_topic);
    job.kafka.create_topic(&NewTopic::new(&job.source_topic, PARTITIONS))?;
    job.kafka.write(&job.source_topic, &workload.snapshot())?;
    ends_exact(&job, workload)
}

/// After the remedy: what is there and further changes end exact, in the target, too.
fn ends_exact(job: &Job<'_>, workload: &mut Workload) -> Result<()> {
    let mut programs = [job.start_processor(0)?, job.start_processor(1)?, job.start_sink(0)?];
    job.kafka.write(&job.source_topic, &workload.changes(CHANGES))?;
    job.wait_for_target(&workload.sums())?;
    wait_until("the input to be consumed", || job.is_consumed())?;
    end_cleanly(&mut programs)?;
    let collector = Collector::new(&job.kafka, &job.source_topic, &job.topic_prefix, job.application_id());
    collector.wait_settled(PATIENCE)?;
    let mut facts = collector.collect(None)?;
    facts.rows = Some(workload.rows());
    facts.read_target(job.target()?)?;
    let findings = check(&facts);
    ensure!(findings.is_empty(), "with WORKLOAD_SEED={}:\n{}", workload.seed(), report(&findings));
    Ok(())
}
