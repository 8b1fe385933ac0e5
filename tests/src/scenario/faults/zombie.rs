//! Processors that sleep past their session with a transaction open, by what that transaction holds.
//!
//! Local movements and sweep chunks touch partitions of which nothing was read. A new owner learns of them by the offsets
//! that engine rule 1 adds, and, where their records are in the log already, by waiting for them in its replay. Records
//! that lie with a slow leader come after that replay.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::super::Job;
use super::Trial;
use super::network::both_through;
use super::phases::{Control, controlled};
use crate::client::OutgoingRecord;
use crate::proxy::{Api, Fate, Proxy, Request, Rule};
use crate::scenario::workload::{PARTITIONS, Workload};
use crate::stack::{FailAction, Program, Stack};

const PROCESSOR: Program = Program::Processor;

/// A processor that runs every partition sleeps before, between and after the offsets of its transaction and its commit:
/// all movements in it are local. Another one comes and takes everything over.
pub fn asleep_with_local_movements(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start_with(stack, "zombie-local", 1)?;
    for (round, step) in ["commit-completed", "commit-offsets-sent", "commit-flushed"].into_iter().enumerate() {
        trial.up_with_fail_point(0, step, FailAction::Stop, 60)?;
        until_asleep(&mut trial, 0, step)?;
        ensure!(!is_open(&trial.job, "movements")?, "not all movements were local");
        if round == 0 {
            trial.add_processor()?;
        } else {
            trial.up(PROCESSOR, 1)?;
        }
        trial.until_out_of_the_group(0)?;
        trial.progress(100)?;
        trial.running(PROCESSOR, 0)?.resume()?;
        trial.progress(100)?;
        trial.terminate(PROCESSOR, 1)?;
        trial.progress(50)?;
    }
    trial.finish()
}

/// A processor sleeps in a transaction that holds a chunk of a sweep and nothing else: no record was read for it.
pub fn asleep_with_a_sweep_chunk(stack: &dyn Stack) -> Result<()> {
    let job = Job::for_workload(stack, "zombie-sweep")?;
    let (work, control) = controlled(&job);
    let mut trial = Trial::under(job, work, 2)?;
    for step in ["commit-completed", "commit-offsets-sent", "commit-flushed"] {
        trial.progress(600)?;
        at_rest(&mut trial, &control)?;
        let (reader, _) = trial.reader_and_other()?;
        // The first one also holds what the announcement caused; the second is the next partition's chunk alone.
        trial.up_with_fail_points(reader, &format!("{step}:stop:2:background-begun"))?;
        trial.until_logged_times(PROCESSOR, reader, "partition running", usize::try_from(PARTITIONS)?)?;
        control.write(|workload| {
            workload.vanish(100);
            workload.snapshot()
        })?;
        until_asleep(&mut trial, reader, step)?;
        trial.until_out_of_the_group(reader)?;
        control.work();
        trial.progress(100)?;
        trial.running(PROCESSOR, reader)?.resume()?;
        trial.progress(100)?;
    }
    trial.finish()
}

/// A slow leader keeps the movements of a transaction, whose offsets are sent, until the other processor waits for its
/// end; then, in a second round, until the other one has timed it out and taken over.
pub fn asleep_with_repartitioned_movements(stack: &dyn Stack, proxy: &Proxy) -> Result<()> {
    let job = Job::for_workload(stack, "zombie-repartitioned")?;
    let (work, control) = controlled(&job);
    let processors = both_through(&job, proxy);
    let mut trial = Trial::of(job, work, processors)?;
    for until_taken_over in [false, true] {
        trial.progress(400)?;
        at_rest(&mut trial, &control)?;
        let (reader, other) = trial.reader_and_other()?;
        let foreign = foreign_goods(&mut trial, other)?;
        let read = trial.runs(reader, "source")?.into_iter().next().context("the reader reads nothing")?;
        let (held, met) = (proxy.held(), proxy.met());
        ensure!(held == 0, "{held} requests are held already");
        keep_records(&trial, reader, proxy);
        control.write(move |workload| movements_to(workload, read, &foreign))?;
        trial.until("records to be kept and offsets to be sent", |_| {
            Ok(proxy.held() > 0 && proxy.met() - met > proxy.held())
        })?;
        trial.running(PROCESSOR, reader)?.pause()?;
        trial.until_out_of_the_group(reader)?;
        if until_taken_over {
            let all = usize::try_from(PARTITIONS)?;
            trial.until_runs(other, "source", all)?;
        }
        proxy.forget_rules();
        proxy.deliver_held()?;
        trial.running(PROCESSOR, reader)?.resume()?;
        control.work();
        trial.progress(200)?;
    }
    trial.finish()
}

fn until_asleep(trial: &mut Trial<'_>, instance: usize, step: &str) -> Result<()> {
    trial.until_logged(PROCESSOR, instance, &format!("fail point {step}: {}", FailAction::Stop))
}

/// Whether a transaction is open on any partition of a topic.
fn is_open(job: &Job<'_>, topic: &str) -> Result<bool> {
    let ends = job.kafka.log_ends(&job.topic(topic))?;
    Ok(ends.values().any(|(_, last_stable, high_watermark)| last_stable < high_watermark))
}

/// No load, and everything of it consumed.
fn at_rest(trial: &mut Trial<'_>, control: &Control) -> Result<()> {
    control.rest()?;
    trial.until("the input to be consumed", |trial| trial.job.is_consumed())
}

/// Goods whose sums a processor keeps.
fn foreign_goods(trial: &mut Trial<'_>, instance: usize) -> Result<Vec<i64>> {
    let foreign = trial.runs(instance, "movements")?;
    let mut goods = BTreeMap::new();
    for record in trial.job.deltas()? {
        if foreign.contains(&record.partition) {
            goods.insert(record.key_text(), record.key_text().parse()?);
        }
    }
    // A single partition of five may well have but three of forty goods.
    ensure!(goods.len() > 2, "hardly any good is kept by the other processor");
    Ok(goods.into_values().collect())
}

fn movements_to(workload: &mut Workload, partition: i32, goods: &[i64]) -> Vec<OutgoingRecord> {
    goods.iter().map(|good| workload.insert_into(partition, *good)).collect()
}

/// Records of a processor get no further than to the proxy; its offsets are counted.
fn keep_records(trial: &Trial<'_>, instance: usize, proxy: &Proxy) {
    const ALL: usize = 1_000;
    let own = format!("{}-{instance}-0-", trial.job.application_id());
    let is_own = move |request: &Request<'_>| request.transactional_id.is_some_and(|id| id.starts_with(&own));
    let (records, offsets) = (is_own.clone(), is_own);
    let records = Rule::once(Fate::Held, move |request| request.api == Api::Produce && records(request));
    proxy.add(records.times(ALL));
    let offsets = move |request: &Request<'_>| request.api == Api::TxnOffsetCommit && offsets(request);
    proxy.add(Rule::once(Fate::Delayed(std::time::Duration::ZERO), offsets));
}
