//! Load on the source table itself, through the connector.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::Job;
use super::super::workload::{Work, Workload};
use super::Trial;
use crate::checker::{Contribution, Facts};
use crate::client::{Connect, Sql, orders_connector};
use crate::stack::{Stack, Viewpoint, wait_until};

/// The topic Debezium writes with the connector's configuration.
pub(super) const INPUT: &str = "warehouse.orders.transactions";

/// How long a server of the source is away: its length is part of the fault.
pub(super) const SHORT_OUTAGE: Duration = Duration::from_secs(3);

/// Name of the connector.
pub(super) const CONNECTOR: &str = "orders-connector";

/// Writes rows of the source table. What has to remain is what the table holds in the end.
struct TableWork {
    source: Sql,
    random: fastrand::Rng,
    seed: u64,
    next: u64,
}

/// A trial through the connector. The stack must be one of its own: the connector's topic has one name.
pub(super) fn trial<'a>(stack: &'a dyn Stack, name: &str) -> Result<Trial<'a>> {
    trial_with(stack, name, &[], |_| Ok(()))
}

/// As [`trial`], with the seed of everything that looks random, and the number of processors.
pub(super) fn trial_of<'a>(stack: &'a dyn Stack, name: &str, seed: u64, processors: u32) -> Result<Trial<'a>> {
    configured(stack, name, seed, processors, &[], |_| Ok(()))
}

/// As [`trial`], with further settings of the connector, and something to be done before it is registered.
pub(super) fn trial_with<'a>(
    stack: &'a dyn Stack,
    name: &str,
    settings: &[(&str, &str)],
    before: impl FnOnce(&Job<'a>) -> Result<()>,
) -> Result<Trial<'a>> {
    configured(stack, name, Workload::any_seed(), 2, settings, before)
}

fn configured<'a>(
    stack: &'a dyn Stack,
    name: &str,
    seed: u64,
    processors: u32,
    settings: &[(&str, &str)],
    before: impl FnOnce(&Job<'a>) -> Result<()>,
) -> Result<Trial<'a>> {
    let job = Job::named(stack, name, INPUT.to_owned())?;
    before(&job)?;
    let (source, random) = (source(stack)?, fastrand::Rng::with_seed(seed));
    let mut configuration = configuration(stack)?;
    for (name, value) in settings {
        configuration.as_object_mut().map(|own| own.insert((*name).to_owned(), (*value).into()));
    }
    connect(stack)?.register(CONNECTOR, &configuration)?;
    Trial::under(job, Box::new(TableWork { source, random, seed, next: 0 }), processors)
}

/// The source database.
pub(super) fn source(stack: &dyn Stack) -> Result<Sql> {
    Sql::connect(&stack.addresses(Viewpoint::Host).source_database_url.context("no source database")?)
}

/// The connector's configuration on this stack.
pub(super) fn configuration(stack: &dyn Stack) -> Result<serde_json::Value> {
    let seen_by_connect = stack.addresses(Viewpoint::Stack).source_database.context("no source database")?;
    Ok(orders_connector(&seen_by_connect))
}

/// Connect's REST interface.
pub(super) fn connect(stack: &dyn Stack) -> Result<Connect> {
    Ok(Connect::new(&stack.addresses(Viewpoint::Host).connect_url.context("no Connect")?))
}

impl TableWork {
    /// One statement of any kind; `row` is one of the rows that may exist.
    fn statement(&mut self) -> String {
        let row = format!("md5('{}-' || {})::uuid", self.seed, self.random.u64(..=self.next));
        let (good, pcs) = (self.random.i64(1..=20), self.random.i64(0..50));
        let table = "orders.transactions";
        match self.random.u8(..100) {
            0..60 => {
                self.next += 1;
                let operation = if self.random.u8(..4) > 0 { "add" } else { "remove" };
                let (seed, next) = (self.seed, self.next);
                // A transaction whose outcome was lost with the server is done again.
                format!(
                    "INSERT INTO {table} (id, good_id, operation, pcs)
                     VALUES (md5('{seed}-' || {next})::uuid, {good}, '{operation}', {pcs}) ON CONFLICT DO NOTHING"
                )
            }
            60..75 => format!("UPDATE {table} SET pcs = {pcs} WHERE id = {row}"),
            75..85 => format!("UPDATE {table} SET good_id = {good} WHERE id = {row}"),
            85..90 => format!("UPDATE {table} SET id = md5(id::text)::uuid WHERE id = {row}"),
            90..95 => format!("BEGIN; UPDATE {table} SET pcs = 1000 WHERE id = {row}; ROLLBACK"),
            _ => format!("DELETE FROM {table} WHERE id = {row}"),
        }
    }
}

impl Work for TableWork {
    /// A step is ten statements that are nothing to the source; the connector sends what several of them changed at once.
    fn steps_per_second(&self) -> u32 {
        10
    }

    fn step(&mut self) -> Result<usize> {
        let statements: Vec<String> = (0..10).map(|_| self.statement()).collect();
        let statements = statements.join(";\n");
        // The server may be down for a while.
        wait_until("the source database", || Ok(self.source.execute(&statements).is_ok()))?;
        Ok(10)
    }

    fn rows(&self) -> Result<BTreeMap<String, Contribution>> {
        let mut facts = Facts::default();
        facts.read_source(&self.source)?;
        facts.rows.context("no rows")
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}
