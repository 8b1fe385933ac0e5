//! Histories that no rule can repair: they are refused with a code, and following the remedy it names works.
//!
//! What happens, happens while no processor runs: nothing is noticed before the next start, which has to refuse.

use anyhow::{Context as _, Result, ensure};

use super::super::workload::Workload;
use super::super::{CAUGHT_UP_WITHIN, INPUT_PARTITIONS, Job, end_cleanly, tail};
use crate::checker::{Collector, check, report};
use crate::client::{NewTopic, ResetTo};
use crate::stack::{Stack, wait_until};

/// Exit code of a program that would have to guess to go on.
const REFUSED: i32 = 3;

/// Changes that are applied before anything happens.
const CHANGES: usize = 300;

/// Records are gone that nobody has applied. Remedy: a new complete snapshot into a new topic, and a rebuild.
pub fn input_truncated_before_it_was_read(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "truncated")?;
    job.kafka.write(&job.source_topic, &workload.changes(CHANGES))?;
    for partition in 0..INPUT_PARTITIONS {
        job.kafka.delete_records(&job.source_topic, partition, -1)?;
    }
    refused(&job, "INPUT_TRUNCATED")?;
    let mut job = job.rebuilt()?;
    job.source_topic = format!("{}.again", job.source_topic);
    job.kafka.create_topic(&NewTopic::new(&job.source_topic, INPUT_PARTITIONS))?;
    job.kafka.write(&job.source_topic, &workload.snapshot())?;
    ends_exact(&job, &mut workload)
}

/// The input was deleted and created again; offsets begin anew. Remedy: a rebuild.
pub fn input_created_again(stack: &dyn Stack) -> Result<()> {
    let (job, mut workload) = at_rest(stack, "recreated")?;
    job.kafka.delete_topics(&[&job.source_topic])?;
    job.kafka.create_topic(&NewTopic::new(&job.source_topic, INPUT_PARTITIONS))?;
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

/// A job that has applied some changes, also in the target, and whose programs have ended.
fn at_rest<'a>(stack: &'a dyn Stack, name: &str) -> Result<(Job<'a>, Workload)> {
    let job = Job::new(stack, name)?;
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
    let exit = processor.wait_exit(CAUGHT_UP_WITHIN);
    let log = processor.log()?;
    let exit = exit.with_context(|| format!("{code} is not refused:\n{}", tail(&log)))?;
    ensure!(exit.code == Some(REFUSED) && log.contains(code), "ended with {exit}, not for {code}:\n{}", tail(&log));
    Ok(())
}

/// After the remedy: what is there and further changes end exact, in the target, too.
fn ends_exact(job: &Job<'_>, workload: &mut Workload) -> Result<()> {
    let mut programs = [job.start_processor(0)?, job.start_processor(1)?, job.start_sink(0)?];
    job.kafka.write(&job.source_topic, &workload.changes(CHANGES))?;
    job.wait_for_target(&workload.sums())?;
    wait_until("the input to be consumed", CAUGHT_UP_WITHIN, || job.is_consumed())?;
    end_cleanly(&mut programs)?;
    let collector = Collector::new(&job.kafka, &job.source_topic, &job.topic_prefix, job.application_id());
    collector.wait_settled(CAUGHT_UP_WITHIN)?;
    let mut facts = collector.collect(None)?;
    facts.rows = Some(workload.rows());
    facts.read_target(job.target()?)?;
    let findings = check(&facts);
    ensure!(findings.is_empty(), "with WORKLOAD_SEED={}:\n{}", workload.seed(), report(&findings));
    Ok(())
}
