//! The live run in every form at once: the input in JSON, JSON Schema and Avro, and of each the output and the changelog in
//! JSON and in Avro.
//!
//! In a database of its own on the source server, with a connector for each form of the input, so that it runs beside
//! other scenarios; only Connect is hurt.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::live::{change_rows, write_rows};
use super::{Job, database_name, end_cleanly};
use crate::checker::is_own_state;
use crate::client::{Connect, Format, Isolation, Record, Sql, orders_connector_in, unique_name};
use crate::stack::{Component, RunningProgram, Stack, Viewpoint};

const INPUTS: [(&str, Format); 3] =
    [("json", Format::Json), ("json-schema", Format::JsonSchema), ("avro", Format::Avro)];
const OUTPUTS: [&str; 2] = ["json", "avro"];

/// A job that reads one form and writes one.
struct Cell<'a> {
    job: Job<'a>,
    input: Format,
    output: &'static str,
    processor: [Box<dyn RunningProgram>; 1],
    sink: [Box<dyn RunningProgram>; 1],
}

impl<'a> Cell<'a> {
    fn start(
        stack: &'a dyn Stack,
        prefix: &str,
        (input, output): (Format, &'static str),
        admit: &dyn Fn(&Job<'_>) -> Result<()>,
    ) -> Result<Self> {
        let job = Job::named(stack, &format!("{prefix}-to-{output}"), format!("{prefix}.orders.transactions"))?;
        admit(&job)?;
        let processor = job.processor(0).flag("--output-format", output).flag("--changelog-format", output);
        let processor = [stack.run(&processor)?];
        let sink = [job.start_sink(0)?];
        Ok(Self { job, input, output, processor, sink })
    }

    fn wait_equal(&mut self, source: &BTreeMap<i64, i64>) -> Result<()> {
        // The connector may not have sent everything yet, so the target comes first: "consumed" alone proves nothing.
        self.job.wait_for_target(source)?;
        self.job.wait_for(source, &mut self.processor)
    }

    /// What is on the topics is in the form that was asked for: programs and Connect may well agree on another.
    fn ensure_forms(&self) -> Result<()> {
        let input = self.job.kafka.read(&self.job.source_topic, Isolation::ReadCommitted)?;
        let output = self.job.deltas()?;
        let changelog = self.job.kafka.read(&self.job.topic("transactions"), Isolation::ReadCommitted)?;
        let in_avro = self.output == "avro";
        for (what, records, framed) in [
            ("input", &input, self.input != Format::Json),
            ("output", &output, in_avro),
            ("changelog", &changelog, in_avro),
        ] {
            ensure!(count_framed(records, framed) > 20, "few values of the {what} are in the form asked for");
            ensure!(count_framed(records, !framed) == 0, "values of the {what} are in another form");
        }
        let letters = self.job.kafka.read(&self.job.topic("dead-letters"), Isolation::ReadCommitted)?;
        ensure!(letters.is_empty(), "{} dead letters", letters.len());
        Ok(())
    }
}

/// Values that begin with a registry's zero byte, or those that do not. What the processor keeps of a partition is JSON
/// in either form.
fn count_framed(records: &[Record], framed: bool) -> usize {
    let of_a_row = |record: &&Record| record.value.is_some() && !is_own_state(record);
    records.iter().filter(of_a_row).filter(|record| record.is_framed() == framed).count()
}

/// Inserts, updates, changed keys and deletes, Connect killed before its first offset flush, a row deleted while it was
/// away: in every form topic and target end equal to the source. `admit` is called before the programs of a job start.
pub fn ends_equal_to_the_source(stack: &dyn Stack, name: &str, admit: &dyn Fn(&Job<'_>) -> Result<()>) -> Result<()> {
    let name = unique_name(name);
    let source = source_database(stack, &name)?;
    write_rows(&source, 1, 400)?;
    let connect = Connect::new(&stack.addresses(Viewpoint::Host).connect_url.context("no Connect")?);
    let mut cells = Vec::new();
    for (form, input) in INPUTS {
        let prefix = format!("{name}-{form}");
        // First, because a connector would create it with one partition.
        for output in OUTPUTS {
            cells.push(Cell::start(stack, &prefix, (input, output), admit)?);
        }
        register(stack, &connect, &name, &prefix, input)?;
    }
    let all_equal = |cells: &mut Vec<Cell<'_>>, when: &str| -> Result<()> {
        let sums = source.source_sums()?;
        for cell in cells {
            cell.wait_equal(&sums).with_context(|| format!("{:?} to {}, {when}", cell.input, cell.output))?;
        }
        Ok(())
    };
    all_equal(&mut cells, "the snapshot")?;
    change_rows(&source)?;
    all_equal(&mut cells, "changes")?;

    stack.kill(Component::Connect)?;
    source.execute("DELETE FROM orders.transactions WHERE good_id IN (3, 7)")?;
    write_rows(&source, 1_001, 1_100)?;
    stack.start(Component::Connect)?;
    stack.wait_healthy(Component::Connect)?;
    for (form, _) in INPUTS {
        connect.keep_running(&format!("{name}-{form}"))?;
    }
    change_rows(&source)?;
    all_equal(&mut cells, "the snapshot after Connect was killed")?;
    for mut cell in cells {
        cell.ensure_forms().with_context(|| format!("{:?} to {}", cell.input, cell.output))?;
        end_cleanly(&mut cell.processor)?;
        end_cleanly(&mut cell.sink)?;
    }
    INPUTS.iter().try_for_each(|(form, _)| connect.delete(&format!("{name}-{form}")))
}

/// The shop's database once more, under another name.
fn source_database(stack: &dyn Stack, name: &str) -> Result<Sql> {
    let server = stack.addresses(Viewpoint::Host).source_database_url.context("no source database")?;
    let database = database_name(name);
    Sql::connect(&server)?.execute(&format!("CREATE DATABASE {database}"))?;
    let (server, _) = server.rsplit_once('/').context("no database in the URL")?;
    let sql = Sql::connect(&format!("{server}/{database}"))?;
    sql.execute(include_str!("../../../deploy/postgres/source-init.sql"))?;
    Ok(sql)
}

/// A connector of that database that writes keys and values in one form, with a slot and a publication of its own.
fn register(stack: &dyn Stack, connect: &Connect, name: &str, prefix: &str, form: Format) -> Result<()> {
    let inside = stack.addresses(Viewpoint::Stack);
    let database = inside.source_database.context("no source database")?;
    let mut connector = orders_connector_in(&database, form, form, &inside.registry_url.context("no registry")?);
    let settings = connector.as_object_mut().context("no settings")?;
    let own = database_name(prefix);
    for (setting, value) in [
        ("database.dbname", database_name(name)),
        ("topic.prefix", prefix.to_owned()),
        ("slot.name", own.clone()),
        ("publication.name", own),
        ("publication.autocreate.mode", "filtered".to_owned()),
    ] {
        settings.insert(setting.to_owned(), value.into());
    }
    connect.register(prefix, &connector)
}
