//! Through the real connector: inserts, updates, key changes and deletes, Connect killed before its first offset
//! flush, a row deleted while it was away.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::{Job, end_cleanly};
use crate::client::{Connect, Sql, orders_connector};
use crate::stack::{Component, RunningProgram, Stack, Viewpoint, wait_until};

/// The topic Debezium writes with the connector's configuration.
pub(super) const INPUT: &str = "warehouse.orders.transactions";

/// Ends equal to the sums over the source's rows. `stack` must be one of its own: the connector's topic has one name.
///
/// Two processors and two sinks; `name` is the start of the job's names.
pub fn ends_equal_to_the_source(stack: &dyn Stack, name: &str) -> Result<()> {
    let addresses = stack.addresses(Viewpoint::Host);
    let job = Job::named(stack, name, INPUT.to_owned())?;
    let source = Sql::connect(&addresses.source_database_url.context("no source database")?)?;
    write_rows(&source, 1, 400)?;

    let seen_by_connect = stack.addresses(Viewpoint::Stack).source_database.context("no source database")?;
    let connect = Connect::new(&addresses.connect_url.context("no Connect")?);
    connect.register("orders-connector", &orders_connector(&seen_by_connect))?;
    let mut processors = vec![job.start_processor(0)?, job.start_processor(1)?];
    let mut sinks = [job.start_sink(0)?, job.start_sink(1)?];
    wait_equal(&job, &source, &mut processors)?;
    change_rows(&source)?;
    wait_equal(&job, &source, &mut processors)?;

    // Offsets are flushed once a minute: killed before, the connector knows nothing and takes a new snapshot, in
    // which the rows deleted meanwhile are simply missing.
    stack.kill(Component::Connect)?;
    source.execute("DELETE FROM orders.transactions WHERE good_id IN (3, 7)")?;
    write_rows(&source, 1_001, 1_100)?;
    stack.start(Component::Connect)?;
    stack.wait_healthy(Component::Connect)?;
    connect.wait_running("orders-connector")?;
    write_rows(&source, 2_001, 2_100)?;
    change_rows(&source)?;
    wait_equal(&job, &source, &mut processors)?;
    job.wait_for_target(&source.source_sums()?)?;
    end_cleanly(&mut processors)?;
    end_cleanly(&mut sinks)
}

/// Rows with ids derived from their number, spread over 20 goods.
pub(super) fn write_rows(source: &Sql, from: u32, to: u32) -> Result<()> {
    source.execute(&format!(
        "INSERT INTO orders.transactions (id, good_id, operation, pcs)
         SELECT md5(n::text)::uuid, n % 20, CASE WHEN n % 3 = 0 THEN 'remove' ELSE 'add' END, n % 17
         FROM generate_series({from}, {to}) AS n"
    ))?;
    Ok(())
}

/// Updates, key changes and deletes; each time on other rows.
pub(super) fn change_rows(source: &Sql) -> Result<()> {
    for statement in [
        "UPDATE orders.transactions SET pcs = pcs + 1 WHERE good_id % 4 = 1",
        "UPDATE orders.transactions SET good_id = (good_id + 5) % 20 WHERE pcs % 5 = 2",
        "UPDATE orders.transactions SET id = md5(id::text)::uuid WHERE pcs % 7 = 3",
        "DELETE FROM orders.transactions WHERE pcs % 11 = 4",
        "BEGIN; UPDATE orders.transactions SET pcs = 1000 WHERE good_id = 2; ROLLBACK",
    ] {
        source.execute(statement)?;
    }
    Ok(())
}

/// Waits until the output equals the sums over the source's rows, which stand still meanwhile.
fn wait_equal(job: &Job<'_>, source: &Sql, processors: &mut [Box<dyn RunningProgram>]) -> Result<()> {
    let expected: BTreeMap<i64, i64> = source.source_sums()?;
    // The connector may not have sent everything yet, so "consumed" alone proves nothing here.
    let mut last = String::new();
    let arrived = wait_until("output equal to the source", || match job.check(&expected) {
        Ok(()) => Ok(true),
        Err(error) => {
            last = format!("{error:#}");
            Ok(false)
        }
    });
    arrived.map_err(|error| error.context(last))?;
    job.wait_for(&expected, processors)
}
