//! Other shops' tables, whose rows have no uuid: as their primary keys are, through the real connector, to the target
//! and to its log of transactions.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::other_goods::{is_refused, wait};
use super::{Job, end_cleanly};
use crate::client::{Connect, Format, Isolation, Sql, orders_connector, orders_connector_in};
use crate::stack::{ProgramSpec, RunningProgram, Stack, Viewpoint};

const CONNECTOR: &str = "shop-connector";

/// A table, in the words of SQL.
struct Table {
    name: &'static str,
    /// Definition of the columns of the primary key, and their names.
    columns: &'static str,
    key: &'static str,
    /// The key of row `n`.
    of_row: &'static str,
    /// Gives a row another key.
    changed: &'static str,
    /// The text that the row's id is to have.
    id: &'static str,
}

const TABLES: [Table; 2] = [
    Table {
        name: "sales",
        columns: "number bigint",
        key: "number",
        of_row: "n",
        changed: "number = number + 1000000000000",
        id: "number::text",
    },
    Table {
        name: "lines",
        columns: "branch bigint, line text",
        key: "branch,line",
        of_row: r#"n % 7 - 3, 'größe "' || n || '" \ ' || n % 3"#,
        changed: "branch = branch + 1, line = line || '+'",
        id: "'[' || branch || ',' || to_json(line)::text || ']'",
    },
];

/// A table and the job that reads it.
struct Shop<'a> {
    table: &'static Table,
    job: Job<'a>,
    source: Sql,
    programs: Vec<Box<dyn RunningProgram>>,
}

impl<'a> Shop<'a> {
    fn new(stack: &'a dyn Stack, source: &Sql, name: &str, table: &'static Table) -> Result<Self> {
        source.execute(&format!(
            "CREATE TABLE shop.{} ({}, good_id bigint NOT NULL, operation text NOT NULL, pcs int NOT NULL, PRIMARY KEY ({}))",
            table.name, table.columns, table.key
        ))?;
        let topic = format!("warehouse.shop.{}", table.name);
        let job = Job::named(stack, &format!("{name}-{}", table.name), topic)?;
        Ok(Self { table, job, source: source.clone(), programs: Vec::new() })
    }

    fn processor(&self) -> ProgramSpec {
        let processor = self.job.processor(0).flag("--workers", 2);
        processor.flag("--id-type", "key").flag("--id-column", self.table.key)
    }

    /// None without pieces: of such a row no state tells the operation.
    fn write_rows(&self, from: u32, to: u32) -> Result<()> {
        let Table { name, of_row, .. } = self.table;
        self.source.execute(&format!(
            "INSERT INTO shop.{name} SELECT {of_row}, n % 20, CASE WHEN n % 3 = 0 THEN 'remove' ELSE 'add' END, n % 17 + 1
             FROM generate_series({from}, {to}) AS n"
        ))?;
        Ok(())
    }

    /// Updates, key changes and deletes; each time on other rows.
    fn change_rows(&self) -> Result<()> {
        let Table { name, changed, .. } = self.table;
        for statement in [
            format!("UPDATE shop.{name} SET pcs = pcs + 1 WHERE good_id % 4 = 1"),
            format!("UPDATE shop.{name} SET good_id = (good_id + 5) % 20 WHERE pcs % 5 = 2"),
            format!("UPDATE shop.{name} SET {changed} WHERE pcs % 7 = 3"),
            format!("DELETE FROM shop.{name} WHERE pcs % 11 = 4"),
        ] {
            ensure!(self.source.execute(&statement)? > 0, "nothing was changed: {statement}");
        }
        Ok(())
    }

    /// Waits until output, target and log of transactions equal the source.
    fn wait_equal(&mut self) -> Result<()> {
        const LOG: &str = "SELECT id, good_id, operation, pcs FROM remains.transaction_log";
        let Self { table: Table { name, id, .. }, job, source, programs } = self;
        let rows = source.rows(&format!("SELECT {id}, good_id, operation, pcs FROM shop.{name}"))?;
        let expected = sums(&rows)?;
        // The connector may not have sent everything yet, so "consumed" alone proves nothing here.
        wait(programs, &format!("the output of {name} equal to the source"), || Ok(job.check(&expected).is_ok()))?;
        job.wait_for(&expected, programs)?;
        job.wait_for_target(&expected)?;
        let sorted = |mut rows: Vec<Vec<Option<String>>>| {
            rows.sort();
            rows
        };
        let rows = sorted(rows);
        let what = format!("the log of {name} equal to the source");
        wait(programs, &what, || Ok(sorted(job.target()?.rows(LOG)?) == rows))
    }

    /// How many rows were swept.
    fn swept(&self) -> Result<u64> {
        let processor = self.programs.first().context("no processor")?;
        let removed = |line: &str| -> Option<u64> {
            let after = line.split_once("sweep finished").map(|_| line.split_once("removed"))??.1;
            let digits = after.trim_start_matches(|character: char| !character.is_ascii_digit());
            digits.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
        };
        Ok(processor.log()?.lines().filter_map(removed).sum())
    }
}

/// Tables with a key of one integer and with one of an integer and a text: rows changed, deleted and given other keys;
/// the state lost; and a new snapshot after the connector's offsets were deleted, with rows deleted meanwhile.
pub fn end_equal_to_the_source(stack: &dyn Stack, name: &str, format: Format) -> Result<()> {
    let addresses = stack.addresses(Viewpoint::Host);
    let source = Sql::connect(&addresses.source_database_url.context("no source database")?)?;
    source.execute("CREATE SCHEMA shop")?;
    let shops = TABLES.iter().map(|table| Shop::new(stack, &source, name, table));
    let mut shops = shops.collect::<Result<Vec<_>>>()?;
    let connect = Connect::new(&addresses.connect_url.context("no Connect")?);
    for shop in &shops {
        shop.write_rows(1, 300)?;
    }
    connect.register(CONNECTOR, &configuration(stack, format)?)?;
    for shop in &mut shops {
        let sink = shop.job.sink(0)?.switch("--transaction-log").flag("--id-type", "key");
        shop.programs = vec![stack.run(&shop.processor())?, stack.run(&sink)?];
    }
    for shop in &mut shops {
        shop.wait_equal().with_context(|| format!("the connector: {:?}", connect.state(CONNECTOR)))?;
        shop.change_rows()?;
    }
    for shop in &mut shops {
        shop.wait_equal()?;
        // Its ids come back from the changelog.
        let again = shop.processor();
        let processor = shop.programs.first_mut().context("no processor")?;
        processor.kill()?;
        fs::remove_dir_all(stack.state_directory(processor.name()))?;
        *processor = stack.run(&again)?;
        shop.change_rows()?;
    }
    for shop in &mut shops {
        shop.wait_equal()?;
    }
    connect.stop(CONNECTOR)?;
    connect.delete_offsets(CONNECTOR)?;
    for shop in &shops {
        source.execute(&format!("DELETE FROM shop.{} WHERE good_id IN (3, 7)", shop.table.name))?;
        shop.write_rows(1_001, 1_100)?;
    }
    connect.resume(CONNECTOR)?;
    connect.wait_running(CONNECTOR)?;
    for shop in &mut shops {
        shop.write_rows(2_001, 2_100)?;
        shop.change_rows()?;
        shop.wait_equal()?;
    }
    for shop in &mut shops {
        ensure!(shop.swept()? > 0, "no row of {} was taken off by a sweep", shop.table.name);
        let letters = shop.job.kafka.read(&shop.job.topic("dead-letters"), Isolation::ReadCommitted)?;
        ensure!(letters.is_empty(), "{} dead letters", letters.len());
        end_cleanly(&mut shop.programs)?;
        is_refused(stack, &shop.job.processor(0), "ID_TYPE_CHANGED")?;
        is_refused(stack, &shop.job.sink(0)?.switch("--transaction-log"), "SINK_ID_TYPE")?;
    }
    connect.delete(CONNECTOR)
}

/// Keys are left to the connector, which takes primary keys. Names of its own, so that it may run beside another one.
fn configuration(stack: &dyn Stack, format: Format) -> Result<Value> {
    let inside = stack.addresses(Viewpoint::Stack);
    let database = inside.source_database.context("no source database")?;
    let mut configuration = match (format, inside.registry_url) {
        (Format::Json, _) => orders_connector(&database),
        (format, Some(registry)) => orders_connector_in(&database, format, format, &registry),
        (_, None) => bail!("no registry"),
    };
    let settings = configuration.as_object_mut().context("no settings")?;
    settings.remove("message.key.columns");
    let tables: Vec<String> = TABLES.iter().map(|table| format!("shop.{}", table.name)).collect();
    for (name, value) in
        [("table.include.list", tables.join(",").as_str()), ("slot.name", "shop"), ("publication.name", "shop")]
    {
        settings.insert(name.to_owned(), value.into());
    }
    Ok(configuration)
}

/// What remains of each good, by rows of id, good, operation and pieces.
fn sums(rows: &[Vec<Option<String>>]) -> Result<BTreeMap<i64, i64>> {
    let mut sums = BTreeMap::new();
    for row in rows {
        let [_, Some(good), Some(operation), Some(pieces)] = row.as_slice() else { bail!("not four columns: {row:?}") };
        let pieces: i64 = pieces.parse()?;
        *sums.entry(good.parse()?).or_default() += if operation == "add" { pieces } else { -pieces };
    }
    Ok(sums)
}
