//! Faults of the source database. The stack must be one of its own.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::Job;
use super::connect::until_sent;
use super::recovery::Output;
use super::shop::{CONNECTOR, SHORT_OUTAGE, connect, source, trial};
use crate::client::Sql;
use crate::stack::{Component, Stack};

/// Longer than Connect takes to be killed, started and to take its snapshot.
const LONG_TRANSACTION: Duration = Duration::from_secs(45);

/// Records that are under way while the load goes on.
const HARDLY_ANY: i64 = 2_000;

/// Killed (−9) in the middle of transactions; the connector's task fails and is restarted, as an operator would.
pub fn killed_under_load(stack: &dyn Stack) -> Result<()> {
    let mut trial = trial(stack, "source-kill")?;
    for _ in 0..2 {
        stack.kill(Component::SourceDatabase)?;
        trial.for_the_length_of(SHORT_OUTAGE)?;
        stack.start(Component::SourceDatabase)?;
        trial.recovers_from("source database killed", Output::Topic);
        stack.wait_healthy(Component::SourceDatabase)?;
        connect(stack)?.keep_running(CONNECTOR)?;
        trial.progress(150)?;
    }
    trial.finish()
}

/// A transaction is open from before Connect is killed (−9) until long after its new snapshot, while others commit; then
/// 100,000 rows are written in one, changed in one and deleted in part in one, with Connect killed in the middle of it.
pub fn long_and_large_transactions(stack: &dyn Stack) -> Result<()> {
    let mut trial = trial(stack, "source-long")?;
    let long = open_for_long(source(stack)?)?;
    killed(stack, &mut trial)?;
    trial.progress(150)?;
    trial.until("the long transaction to end", |_| Ok(long.is_finished()))?;
    long.join().map_err(|_| anyhow::anyhow!("the long transaction panicked"))??;
    trial.progress(150)?;

    let rows = "id IN (SELECT md5('large-' || n)::uuid FROM generate_series(1, 100000) AS n)";
    let large = [
        "INSERT INTO orders.transactions (id, good_id, operation, pcs)
         SELECT md5('large-' || n)::uuid, n % 50, CASE WHEN n % 3 = 0 THEN 'remove' ELSE 'add' END, n % 17
         FROM generate_series(1, 100000) AS n"
            .to_owned(),
        format!("UPDATE orders.transactions SET pcs = pcs + 1, good_id = good_id + 1 WHERE {rows}"),
        format!("DELETE FROM orders.transactions WHERE pcs % 2 = 0 AND {rows}"),
    ];
    let database = source(stack)?;
    for (round, statement) in large.iter().enumerate() {
        let changed = i64::try_from(database.execute(statement)?)?;
        if round == 1 {
            until_sent(&mut trial, changed / 10)?;
            killed(stack, &mut trial)?;
            // Some of it may have been sent, and its offsets stored, before the kill.
            until_sent(&mut trial, changed / 2)?;
        } else {
            until_sent(&mut trial, changed / 10 * 9)?;
        }
    }
    trial.until_reached("records still to be consumed, below zero", -HARDLY_ANY, |trial| Ok(-lag(&trial.job)?))?;
    trial.finish()
}

/// How many records of the input the group has not committed yet.
fn lag(job: &Job<'_>) -> Result<i64> {
    let offsets = job.kafka.group_offsets(job.application_id(), &job.source_topic)?;
    let ends = job.kafka.log_ends(&job.source_topic)?;
    let behind = |(partition, (_, _, end)): (i32, (i64, i64, i64))| {
        end - offsets.get(&partition).map_or(0, |committed| committed.offset)
    };
    Ok(ends.into_iter().map(behind).sum())
}

/// Writes, waits, changes and deletes in one transaction, in a thread of its own.
fn open_for_long(source: Sql) -> Result<std::thread::JoinHandle<Result<()>>> {
    let statements = format!(
        "BEGIN;
         INSERT INTO orders.transactions (id, good_id, operation, pcs)
         SELECT md5('long-' || n)::uuid, n % 20, 'add', n FROM generate_series(1, 500) AS n;
         SELECT pg_sleep({});
         UPDATE orders.transactions SET pcs = pcs + 1 WHERE id IN (SELECT md5('long-' || n)::uuid FROM generate_series(1, 400) AS n);
         DELETE FROM orders.transactions WHERE id IN (SELECT md5('long-' || n)::uuid FROM generate_series(1, 100) AS n);
         COMMIT",
        LONG_TRANSACTION.as_secs()
    );
    let run = move || source.execute(&statements).map(|_| ());
    std::thread::Builder::new().name("long-transaction".into()).spawn(run).context("no thread")
}

fn killed(stack: &dyn Stack, trial: &mut super::Trial<'_>) -> Result<()> {
    stack.kill(Component::Connect)?;
    trial.for_the_length_of(SHORT_OUTAGE)?;
    stack.start(Component::Connect)?;
    stack.wait_healthy(Component::Connect)?;
    connect(stack)?.keep_running(CONNECTOR)
}
