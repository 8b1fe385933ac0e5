//! Faults of the target database. The stack must be one of its own where the server is killed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::Job;
use super::recovery::Output;
use super::sink::target_moves;
use super::trial::topic_work;
use super::{SESSION_TIMEOUT, Trial};
use crate::client::Sql;
use crate::stack::{Component, Program, Stack, Viewpoint};

/// Longer than the sinks' session timeout.
const LONG: Duration = Duration::from_secs(15);

/// Killed (−9) in the middle of upserts, again and again, and down for long once.
pub fn killed_and_down_for_long(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "target-kill")?;
    for outage in [Duration::ZERO, Duration::ZERO, LONG] {
        target_moves(&mut trial)?;
        stack.kill(Component::TargetDatabase)?;
        trial.for_the_length_of(outage)?;
        stack.start(Component::TargetDatabase)?;
        trial.recovers_from("target database killed", Output::Target);
        stack.wait_healthy(Component::TargetDatabase)?;
    }
    target_moves(&mut trial)?;
    trial.finish()
}

/// Silent, then down, for longer than `max.poll.interval.ms`: a sink that waits for it is put out of the group.
pub fn away_for_longer_than_a_poll_may_last(stack: &dyn Stack) -> Result<()> {
    let poll = 2 * SESSION_TIMEOUT;
    let job = Job::for_workload(stack, "target-away")?;
    let work = topic_work(&job);
    let processors = vec![job.processor(0), job.processor(1)];
    let lines = format!("\"max.poll.interval.ms\" = \"{}\"\n", poll.as_millis());
    let mut trial = Trial::configured(job, work, processors, SESSION_TIMEOUT, &lines)?;
    target_moves(&mut trial)?;
    stack.pause(Component::TargetDatabase)?;
    trial.for_the_length_of(2 * poll)?;
    stack.resume(Component::TargetDatabase)?;
    target_moves(&mut trial)?;
    stack.kill(Component::TargetDatabase)?;
    trial.for_the_length_of(2 * poll)?;
    stack.start(Component::TargetDatabase)?;
    stack.wait_healthy(Component::TargetDatabase)?;
    target_moves(&mut trial)?;
    trial.finish()
}

/// Fails over to a copy that has not got the last second of commits: what a standby that follows asynchronously, or a
/// server that does not wait for its disk, has lost when it is killed (−9).
pub fn failed_over_with_the_last_commits_lost(stack: &dyn Stack) -> Result<()> {
    const KILLS: usize = 5;
    let server = Sql::connect(&stack.addresses(Viewpoint::Host).target_database_url.context("no target database")?)?;
    let lazily = ["synchronous_commit = off", "wal_writer_delay = '10s'", "wal_writer_flush_after = '1GB'"]
        .map(|setting| server.execute(&format!("ALTER SYSTEM SET {setting}")));
    lazily.into_iter().collect::<Result<Vec<_>>>()?;
    server.execute("SELECT pg_reload_conf()")?;
    let mut trial = Trial::start(stack, "target-failover")?;
    let mut lost = 0;
    for _ in 0..KILLS {
        target_moves(&mut trial)?;
        target_moves(&mut trial)?;
        let before = versions(&trial)?;
        stack.kill(Component::TargetDatabase)?;
        // The sinks must not have written it again already.
        let up = [0, 1].map(|sink| trial.running(Program::Sink, sink).and_then(|sink| sink.pause()));
        up.into_iter().collect::<Result<Vec<_>>>()?;
        stack.start(Component::TargetDatabase)?;
        stack.wait_healthy(Component::TargetDatabase)?;
        lost += usize::from(versions(&trial)? < before);
        for sink in 0..2 {
            trial.running(Program::Sink, sink)?.resume()?;
        }
        target_moves(&mut trial)?;
    }
    trial.finish()?;
    server.execute("ALTER SYSTEM RESET ALL")?;
    server.execute("SELECT pg_reload_conf()")?;
    ensure!(lost > 0, "none of {KILLS} kills lost a commit: nothing was tried");
    Ok(())
}

/// Sum of the versions of all goods in the target.
fn versions(trial: &Trial<'_>) -> Result<u64> {
    let rows = trial.job.target()?.rows("SELECT coalesce(sum(version), 0) FROM remains.remains")?;
    let sum = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().context("no sum")?;
    Ok(sum.parse()?)
}

/// Replaced by an earlier copy of itself under running sinks, which are not told.
pub fn restored_from_an_earlier_copy(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "target-restore")?;
    let server = Sql::connect(&stack.addresses(Viewpoint::Host).target_database_url.context("no target database")?)?;
    let database = trial.job.database();
    target_moves(&mut trial)?;
    let copy = format!("CREATE DATABASE {database}_copy TEMPLATE {database}");
    alone(&server, &database, &[copy])?;
    target_moves(&mut trial)?;
    trial.progress(200)?;
    let replace = [format!("DROP DATABASE {database}"), format!("ALTER DATABASE {database}_copy RENAME TO {database}")];
    alone(&server, &database, &replace)?;
    target_moves(&mut trial)?;
    trial.finish()
}

/// Runs statements while nobody is connected to the database, and lets clients back to whatever bears its name then.
fn alone(server: &Sql, database: &str, statements: &[String]) -> Result<()> {
    server.execute(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"))?;
    server.execute(&format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
    ))?;
    for statement in statements {
        server.execute(statement)?;
    }
    server.execute(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"))?;
    Ok(())
}
