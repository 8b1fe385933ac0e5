//! Faults of the target database. The stack must be one of its own where the server is killed.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Trial;
use super::recovery::Output;
use super::sink::target_moves;
use crate::client::Sql;
use crate::stack::{Component, Stack, Viewpoint};

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
