//! Faults of Kafka Connect. The stack must be one of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::message::Message as _;

use super::super::{Job, end_cleanly};
use super::Trial;
use super::recovery::Output;
use super::shop::{CONNECTOR, INPUT, SHORT_OUTAGE, configuration, connect, source, trial, trial_with};
use super::trial::collector;
use crate::checker::{check, report};
use crate::client::{Connect, Isolation, NewTopic, Sql};
use crate::stack::{Component, PATIENCE, Stack, wait_until};

/// Where the connector is told to take further snapshots.
const SIGNALS: &str = "orders.debezium_signal";

/// Killed (−9) before its first offset flush, under load: it snapshots again, rows deleted meanwhile are simply missing,
/// and transactions are open across the snapshot. Killed once more soon after.
pub fn killed_under_load(stack: &dyn Stack) -> Result<()> {
    let mut trial = trial(stack, "connect-kill")?;
    for _ in 0..2 {
        killed_and_started(stack, &mut trial)?;
        trial.progress(150)?;
    }
    trial.finish()
}

/// Killed (−9) right after an offset flush: it goes on without a snapshot, and sends again what it had sent since. The
/// stack's Connect must flush often.
pub fn killed_after_an_offset_flush(stack: &dyn Stack) -> Result<()> {
    let mut trial = trial(stack, "connect-flush")?;
    let connect = connect(stack)?;
    for _ in 0..3 {
        until_flushed(&connect)?;
        let before = snapshot_records(&trial.job)?.values().sum::<usize>();
        killed_and_started(stack, &mut trial)?;
        trial.progress(150)?;
        let after = snapshot_records(&trial.job)?.values().sum::<usize>();
        ensure!(before == after, "it took a snapshot again: {before} records of snapshots, then {after}");
    }
    trial.finish()
}

/// Waits until the connector has stored two different offsets.
fn until_flushed(connect: &Connect) -> Result<()> {
    let mut first = None;
    wait_until("the offsets to be flushed", || {
        let now = connect.stored_offset(CONNECTOR)?;
        // Without the mark of a snapshot that is not complete.
        let now = now.filter(|offset| offset.get("lsn").is_some() && offset.get("snapshot").is_none());
        let moved = first.is_some() && now.is_some() && now != first;
        first = first.take().or(now);
        Ok(moved)
    })
}

/// Deleted and created again under load: with the offsets it had, then without, which makes it take a new snapshot. The
/// stack's Connect must flush often.
pub fn deleted_and_created_again(stack: &dyn Stack) -> Result<()> {
    let mut trial = trial(stack, "connect-again")?;
    let connect = connect(stack)?;
    for forgets in [false, true] {
        // What it stores when it is stopped may come too late for Connect.
        until_flushed(&connect)?;
        let before = snapshot_records(&trial.job)?.values().sum::<usize>();
        connect.stop(CONNECTOR)?;
        if forgets {
            connect.delete_offsets(CONNECTOR)?;
        }
        connect.delete(CONNECTOR)?;
        trial.for_the_length_of(SHORT_OUTAGE)?;
        connect.register(CONNECTOR, &configuration(stack)?)?;
        trial.progress(200)?;
        let after = |trial: &Trial<'_>| Ok::<_, anyhow::Error>(snapshot_records(&trial.job)?.values().sum::<usize>());
        if forgets {
            trial.until("a new snapshot", |trial| Ok(after(trial)? > before))?;
        } else {
            let after = after(&trial)?;
            ensure!(after == before, "{before} records of snapshots, then {after}, although no offsets were deleted");
        }
    }
    trial.finish()
}

/// Snapshots on demand under load: an incremental one, another one with Connect killed (−9) in it, then a blocking one that
/// is killed half-way and not taken up again.
pub fn snapshots_on_demand(stack: &dyn Stack) -> Result<()> {
    const ROWS: u32 = 60_000;
    let signals = [("signal.data.collection", SIGNALS), ("incremental.snapshot.chunk.size", "200")];
    let source = source(stack)?;
    source.execute(&format!(
        "CREATE TABLE {SIGNALS} (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048))"
    ))?;
    let mut trial = trial_with(stack, "connect-demand", &signals, |job| {
        // Connect creates no topics here, and sends what it is told to there as well.
        job.kafka.create_topic(&NewTopic::new(format!("warehouse.{SIGNALS}"), 1))
    })?;
    trial.until("rows enough for a snapshot of several chunks", |_| {
        Ok(source.rows("SELECT FROM orders.transactions")?.len() >= 500)
    })?;
    ask_for(&source, "incremental")?;
    until_snapshot_records(&mut trial, "incremental", 200)?;
    // Before: a short one may be over by the time that its records are counted.
    let seen = count(&trial.job, "incremental")?;
    ask_for(&source, "incremental")?;
    until_snapshot_records(&mut trial, "incremental", seen + 100)?;
    killed_and_started(stack, &mut trial)?;
    trial.progress(150)?;

    super::super::live::write_rows(&source, 1, ROWS)?;
    trial.progress(20)?;
    until_sent(&mut trial, 3_000)?;
    trial.until_reached("records of the input", i64::from(ROWS), |trial| records(&trial.job))?;
    until_streaming_from_now(&mut trial, &source)?;
    let before = count(&trial.job, "full")?;
    ask_for(&source, "blocking")?;
    until_snapshot_records(&mut trial, "full", before + 1_000)?;
    stack.kill(Component::Connect)?;
    let sent = count(&trial.job, "full")? - before;
    ensure!(sent < usize::try_from(ROWS)?, "the snapshot was not cut short: {sent} records of it");
    started_again(stack, &mut trial)?;
    trial.progress(150)?;
    trial.finish()
}

/// Away before its first offset flush, while the only row of a partition is deleted: its new snapshot has nothing for that
/// partition, which learns of it by the announcement alone.
pub fn the_only_row_of_a_partition_deleted_while_away(stack: &dyn Stack) -> Result<()> {
    let job = Job::named(stack, "connect-only-row", INPUT.to_owned())?;
    let source = source(stack)?;
    super::super::live::write_rows(&source, 1, 6)?;
    let connect = connect(stack)?;
    connect.register(CONNECTOR, &configuration(stack)?)?;
    let mut programs = vec![job.start_processor(0)?, job.start_processor(1)?, job.start_sink(0)?, job.start_sink(1)?];
    job.wait_for_target(&source.source_sums()?)?;

    let mut by_partition: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for record in job.kafka.read(INPUT, Isolation::ReadCommitted)? {
        by_partition.entry(record.partition).or_default().push(record.key_text());
    }
    let alone = by_partition.values().find(|keys| keys.len() == 1).and_then(|keys| keys.first());
    let key: serde_json::Value = serde_json::from_str(alone.context("no row is alone in its partition")?)?;
    let id = key.get("id").and_then(serde_json::Value::as_str).context("a key without an id")?;
    stack.kill(Component::Connect)?;
    source.execute(&format!("DELETE FROM orders.transactions WHERE id = '{id}'"))?;
    stack.start(Component::Connect)?;
    stack.wait_healthy(Component::Connect)?;
    connect.wait_running(CONNECTOR)?;

    job.wait_for_target(&source.source_sums()?)?;
    end_cleanly(&mut programs)?;
    let collector = collector(&job);
    collector.wait_settled(PATIENCE)?;
    let mut facts = collector.collect(None)?;
    facts.read_source(&source)?;
    facts.read_target(job.target()?)?;
    let findings = check(&facts);
    ensure!(findings.is_empty(), "{}", report(&findings));
    Ok(())
}

fn killed_and_started(stack: &dyn Stack, trial: &mut Trial<'_>) -> Result<()> {
    stack.kill(Component::Connect)?;
    started_again(stack, trial)
}

fn started_again(stack: &dyn Stack, trial: &mut Trial<'_>) -> Result<()> {
    trial.for_the_length_of(SHORT_OUTAGE)?;
    stack.start(Component::Connect)?;
    trial.recovers_from("Connect killed", Output::Topic);
    stack.wait_healthy(Component::Connect)?;
    connect(stack)?.keep_running(CONNECTOR)
}

/// Waits until the connector has sent something that came after this moment: no snapshot is under way, or is still due.
fn until_streaming_from_now(trial: &mut Trial<'_>, source: &Sql) -> Result<()> {
    let now = source.rows("SELECT pg_current_wal_lsn() - '0/0'")?;
    let now: u64 = now.into_iter().flatten().next().flatten().context("no LSN")?.parse()?;
    let consumer = trial.job.kafka.follow("streamed-records-without-group", [&INPUT.to_owned()])?;
    trial.until("changes to be streamed", |_| {
        while let Some(message) = consumer.poll(Duration::from_millis(50)) {
            let Ok(message) = message else { continue };
            let Some(value) = message.payload() else { continue };
            let event: serde_json::Value = serde_json::from_slice(value)?;
            let lsn = event.pointer("/source/lsn").and_then(serde_json::Value::as_u64);
            if snapshot_of(Some(value))?.is_none() && lsn.is_some_and(|lsn| lsn > now) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Tells the connector to take a snapshot.
fn ask_for(source: &Sql, kind: &str) -> Result<()> {
    let data = format!(r#"{{"data-collections":["orders.transactions"],"type":"{kind}"}}"#);
    source.execute(&format!("INSERT INTO {SIGNALS} VALUES (gen_random_uuid()::text, 'execute-snapshot', '{data}')"))?;
    Ok(())
}

/// Records of snapshots in the input, by `source.snapshot`: full ones together, incremental ones together.
fn snapshot_records(job: &Job<'_>) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for record in job.kafka.read(INPUT, Isolation::ReadCommitted)? {
        if let Some(kind) = snapshot_of(record.value.as_deref())? {
            *counts.entry(kind).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Whether a record is of a snapshot, and of which kind: `incremental` or `full`.
fn snapshot_of(value: Option<&[u8]>) -> Result<Option<String>> {
    let Some(value) = value else { return Ok(None) };
    let event: serde_json::Value = serde_json::from_slice(value)?;
    if event.get("op").and_then(serde_json::Value::as_str) != Some("r") {
        return Ok(None);
    }
    let kind = event.pointer("/source/snapshot").and_then(serde_json::Value::as_str).context("no snapshot")?;
    Ok(Some(if kind == "incremental" { kind } else { "full" }.to_owned()))
}

fn count(job: &Job<'_>, kind: &str) -> Result<usize> {
    Ok(snapshot_records(job)?.get(kind).copied().unwrap_or(0))
}

fn until_snapshot_records(trial: &mut Trial<'_>, kind: &str, least: usize) -> Result<()> {
    let consumer = trial.job.kafka.follow("snapshot-records-without-group", [&INPUT.to_owned()])?;
    let mut found = 0;
    trial.until(format!("{least} {kind} records"), |_| {
        // All that is there, not all of it anew with every look.
        while found < least
            && let Some(message) = consumer.poll(Duration::from_millis(50))
        {
            let Ok(message) = message else { continue };
            if snapshot_of(message.payload())?.as_deref() == Some(kind) {
                found += 1;
            }
        }
        Ok(found >= least)
    })
}

/// How many records the input holds.
pub(super) fn records(job: &Job<'_>) -> Result<i64> {
    Ok(job.kafka.log_ends(INPUT)?.values().map(|(start, _, end)| end - start).sum())
}

/// Waits until the connector has sent so many records more.
pub(super) fn until_sent(trial: &mut Trial<'_>, more: i64) -> Result<()> {
    let goal = records(&trial.job)? + more;
    trial.until_reached("records of the input", goal, |trial| records(&trial.job))
}
