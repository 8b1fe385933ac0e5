//! Captured and crafted histories, replayed into the input topic.

use anyhow::{Result, ensure};

use super::{Job, end_cleanly};
use crate::client::{History, Replay, ResetTo, expected_remains};
use crate::stack::{RunningProgram, Stack};

/// Replays a history with a number of processors and checks every good.
pub fn ends_exactly(stack: &dyn Stack, history: &str, processors: u32) -> Result<()> {
    let job = Job::new(stack, "history")?;
    let mut programs = start(&job, processors)?;
    Replay::new(&job.kafka, &job.source_topic, &History::load(history)?)?.write_rest()?;
    job.wait_for(&expected_remains(history)?, &mut programs)
}

/// The same history as if the table and its operations had other names.
pub fn ends_exactly_with_other_columns(stack: &dyn Stack, history: &str) -> Result<()> {
    let renamed = |text: &str| {
        let names = [("id", "movement_uuid"), ("good_id", "article"), ("operation", "direction"), ("pcs", "quantity")];
        let text = names.iter().fold(text.to_owned(), |text, (name, other)| {
            text.replace(&format!("\"{name}\":"), &format!("\"{other}\":"))
        });
        text.replace("\"direction\":\"add\"", "\"direction\":\"IN\"")
            .replace("\"direction\":\"remove\"", "\"direction\":\"OUT\"")
    };
    let job = Job::new(stack, "columns")?;
    let processor = job
        .processor(0)
        .flag("--id-column", "movement_uuid")
        .flag("--good-column", "article")
        .flag("--operation-column", "direction")
        .flag("--pieces-column", "quantity")
        .flag("--add-value", "IN")
        .flag("--remove-value", "OUT");
    let mut programs = [stack.run(&processor)?];
    let mut records = History::load(history)?;
    for record in &mut records.records {
        record.key = record.key.as_deref().map(renamed);
        record.value = record.value.as_deref().map(renamed);
    }
    Replay::new(&job.kafka, &job.source_topic, &records)?.write_rest()?;
    job.wait_for(&expected_remains(history)?, &mut programs)
}

/// As [`ends_exactly`], with processors killed (−9) in turn on the way.
pub fn ends_exactly_despite_kills(stack: &dyn Stack, history: &str, processors: u32, kills: usize) -> Result<()> {
    let job = Job::new(stack, "kills")?;
    let mut programs = start(&job, processors)?;
    let history_records = History::load(history)?;
    let slice = history_records.records.len() / (kills + 1) + 1;
    let mut replay = Replay::new(&job.kafka, &job.source_topic, &history_records)?;
    for kill in 0..kills {
        replay.write_next(slice)?;
        let victim = kill % programs.len();
        // Mid-work: some deltas of this slice are out, others are not.
        let before = job.deltas()?.len();
        crate::stack::wait_until("some of the slice to be processed", || {
            Ok(job.deltas()?.len() > before || job.is_consumed()?)
        })?;
        if let Some(program) = programs.get_mut(victim) {
            program.kill()?;
            *program = job.start_processor(u32::try_from(victim)?)?;
        }
    }
    replay.write_rest()?;
    job.wait_for(&expected_remains(history)?, &mut programs)
}

/// Several workers in each of two processes; one process is killed and one told to stop on the way, and both come back.
pub fn ends_exactly_with_several_workers(stack: &dyn Stack, history: &str, workers: u32) -> Result<()> {
    let job = Job::new(stack, "workers")?;
    let run = |instance: u32| stack.run(&job.processor(instance).flag("--workers", workers));
    let records = History::load(history)?;
    let mut replay = Replay::new(&job.kafka, &job.source_topic, &records)?;
    let [mut first, mut second] = [run(0)?, run(1)?];
    replay.write_next(records.records.len() / 3)?;
    crate::stack::wait_until("a third of the history", || job.is_consumed())?;
    first.kill()?;
    replay.write_next(records.records.len() / 3)?;
    first = run(0)?;
    let mut stopped = [second];
    end_cleanly(&mut stopped)?;
    second = run(1)?;
    replay.write_rest()?;
    job.wait_for(&expected_remains(history)?, &mut [first, second])
}

/// The group's offsets are set back to the beginning, at rest: nothing is written, and the log says how many records
/// were recognised.
pub fn recognised_after_offset_reset(stack: &dyn Stack, history: &str) -> Result<()> {
    let job = Job::new(stack, "reset")?;
    let expected = expected_remains(history)?;
    let records = History::load(history)?;
    let mut programs = start(&job, 1)?;
    Replay::new(&job.kafka, &job.source_topic, &records)?.write_rest()?;
    job.wait_for(&expected, &mut programs)?;
    end_cleanly(&mut programs)?;
    let before = job.deltas()?.len();

    job.kafka.reset_group_offsets(job.application_id(), &job.source_topic, ResetTo::Beginning)?;
    let mut programs = start(&job, 1)?;
    job.wait_for(&expected, &mut programs)?;
    ensure!(job.deltas()?.len() == before, "records appeared on the deltas topic after a reset");
    // What a container has logged comes to the log file by another process.
    crate::stack::wait_until("the log to tell what was recognised", || {
        let logs: Vec<String> = programs.iter().map(|program| program.log()).collect::<Result<_>>()?;
        Ok(logs.iter().any(|log| log.contains("recognised")))
    })?;
    end_cleanly(&mut programs)
}

/// The same under load: half of the history is processed, the offsets are set back, and the rest arrives while the
/// first half is recognised. Every version appears once.
pub fn recognised_after_offset_reset_under_load(stack: &dyn Stack, history: &str) -> Result<()> {
    let job = Job::new(stack, "reset-load")?;
    let records = History::load(history)?;
    let mut replay = Replay::new(&job.kafka, &job.source_topic, &records)?;
    let mut programs = start(&job, 2)?;
    replay.write_next(records.records.len() / 2)?;
    crate::stack::wait_until("half of the history", || job.is_consumed())?;
    for program in &mut programs {
        program.kill()?;
    }
    replay.write_next(records.records.len() / 4)?;
    job.kafka.reset_group_offsets(job.application_id(), &job.source_topic, ResetTo::Beginning)?;
    let mut programs = start(&job, 2)?;
    replay.write_rest()?;
    job.wait_for(&expected_remains(history)?, &mut programs)
}

/// Through to the target database, with a number of processors and two sinks, all killed once on the way.
pub fn ends_exactly_in_the_target(stack: &dyn Stack, history: &str, processors: u32) -> Result<()> {
    let job = Job::new(stack, "target")?;
    let expected = expected_remains(history)?;
    let records = History::load(history)?;
    let mut replay = Replay::new(&job.kafka, &job.source_topic, &records)?;
    let mut programs = start(&job, processors)?;
    let mut sinks = [job.start_sink(0)?, job.start_sink(1)?];
    replay.write_next(records.records.len() / 2)?;
    crate::stack::wait_until("something in the target", || Ok(!job.target()?.remains()?.is_empty()))?;
    for (instance, program) in programs.iter_mut().enumerate() {
        program.kill()?;
        *program = job.start_processor(u32::try_from(instance)?)?;
    }
    for (instance, sink) in sinks.iter_mut().enumerate() {
        sink.kill()?;
        *sink = job.start_sink(u32::try_from(instance)?)?;
    }
    replay.write_rest()?;
    job.wait_for(&expected, &mut programs)?;
    job.wait_for_target(&expected)?;
    end_cleanly(&mut programs)?;
    end_cleanly(&mut sinks)
}

fn start(job: &Job<'_>, processors: u32) -> Result<Vec<Box<dyn RunningProgram>>> {
    (0..processors).map(|instance| job.start_processor(instance)).collect()
}
