//! A captured history as if its goods were texts, uuids among them and large ones that updates leave out, through to the
//! target.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use schemas::{GoodId, Scale, StockDelta};
use serde_json::Value;

use super::{Job, end_cleanly, tail};
use crate::client::{Connect, Format, History, Isolation, Replay, Sql, expected_remains, orders_connector_in};
use crate::stack::{ProgramSpec, RunningProgram, Stack, Viewpoint, wait_until};

/// Exit code of a program that would have to guess to go on.
const REFUSED: i32 = 3;

type Sums = BTreeMap<String, i128>;

/// Replays a history with text goods through two processors and a sink, one processor and its state lost half-way;
/// then neither program takes the same topics and target for ones of integers.
pub fn texts_end_exactly_in_the_target(stack: &dyn Stack, history: &str) -> Result<()> {
    let job = Job::new(stack, "texts")?;
    let expected: Sums =
        expected_remains(history)?.into_iter().map(|(good, sum)| (name(good), i128::from(sum))).collect();
    let mut records = History::load(history)?;
    let mut goods = Goods::default();
    for record in &mut records.records {
        let key = record.key.as_deref().unwrap_or_default();
        record.value = record.value.as_deref().map(|value| goods.rename(key, value)).transpose()?;
    }
    ensure!(goods.left_out > 10, "only {} goods left out", goods.left_out);
    let processor = |instance| job.processor(instance).flag("--good-type", "text");
    let mut programs = [stack.run(&processor(0))?, stack.run(&processor(1))?];
    let sink = job.sink(0)?.switch("--transaction-log");
    let mut sinks = [stack.run(&sink.clone().flag("--good-type", "text"))?];
    let mut replay = Replay::new(&job.kafka, &job.source_topic, &records)?;
    replay.write_next(records.records.len() / 2)?;
    wait_until("half of the history", || job.is_consumed())?;
    let [first, _] = &mut programs;
    first.kill()?;
    fs::remove_dir_all(stack.state_directory(first.name()))?;
    *first = stack.run(&processor(0))?;
    replay.write_rest()?;
    wait(&mut programs, "the sums of texts", || Ok(job.is_consumed()? && same(&newest(&job)?, &expected)))?;
    wait(&mut sinks, "the sums of texts in the target", || Ok(same(&in_target(&job, REMAINS)?, &expected)))?;
    wait(&mut sinks, "the transactions in the target", || Ok(same(&in_target(&job, TRANSACTIONS)?, &expected)))?;
    end_cleanly(&mut programs)?;
    end_cleanly(&mut sinks)?;
    is_refused(stack, &job.processor(0), "GOOD_TYPE_CHANGED")?;
    is_refused(stack, &sink, "SINK_GOOD_TYPE")
}

/// Another shop's table through the real connector: other names, goods that are texts, and so wide that they are kept
/// out of the row, whereupon updates leave them out. `stack` has no other of these; with a registry for all forms but
/// JSON; stock deltas and changelog are in Avro then, too.
pub fn of_another_table_end_equal_to_the_source(stack: &dyn Stack, name: &str, form: Format) -> Result<()> {
    let addresses = stack.addresses(Viewpoint::Host);
    let job = Job::named(stack, name, "warehouse.shop.movements".to_owned())?;
    let source = Sql::connect(&addresses.source_database_url.context("no source database")?)?;
    // With article and note a row is larger than the 2 KB from which on columns are moved out of it.
    source.execute(
        "CREATE SCHEMA shop;
         CREATE TABLE shop.movements (
             movement uuid PRIMARY KEY, article text NOT NULL, direction text NOT NULL, quantity int NOT NULL, note text);
         ALTER TABLE shop.movements ALTER article SET STORAGE EXTERNAL, ALTER note SET STORAGE MAIN;
         INSERT INTO shop.movements
         SELECT md5(n::text)::uuid, rpad('article ' || n % 20, 450, '#'), CASE n % 3 WHEN 0 THEN 'OUT' ELSE 'IN' END,
             n % 17, repeat('n', 1700)
         FROM generate_series(1, 300) AS n",
    )?;
    let inside = stack.addresses(Viewpoint::Stack);
    let registry = inside.registry_url.unwrap_or_default();
    let mut connector = orders_connector_in(&inside.source_database.context("no source")?, form, form, &registry);
    let settings = connector.as_object_mut().context("no settings")?;
    for (setting, value) in [
        ("table.include.list", "shop.movements"),
        ("message.key.columns", "shop.movements:movement"),
        // Another connector of the stack may have those of the default names.
        ("slot.name", "shop"),
        ("publication.name", "shop"),
    ] {
        settings.insert(setting.into(), value.into());
    }
    let connect = Connect::new(&addresses.connect_url.context("no Connect")?);
    connect.register("shop-connector", &connector)?;
    let processor = |instance| {
        let columns = [("id", "movement"), ("good", "article"), ("operation", "direction"), ("pieces", "quantity")];
        let names = columns.map(|(column, name)| (format!("--{column}-column"), name));
        let own = if form == Format::Json { "json" } else { "avro" };
        let processor = job.processor(instance).flag("--output-format", own).flag("--changelog-format", own);
        let processor = processor.flag("--good-type", "text").flag("--add-value", "IN").flag("--remove-value", "OUT");
        names.iter().fold(processor, |processor, (flag, name)| processor.flag(flag, name))
    };
    let mut programs =
        [stack.run(&processor(0))?, stack.run(&processor(1))?, stack.run(&job.sink(0)?.flag("--good-type", "text"))?];
    let equal = |programs: &mut [Box<dyn RunningProgram>]| {
        let expected = sums(source.rows(
            "SELECT article, sum(CASE direction WHEN 'IN' THEN quantity ELSE -quantity END) FROM shop.movements GROUP BY 1",
        )?)?;
        wait(programs, "output and target equal to the source", || {
            Ok(same(&newest(&job)?, &expected) && same(&in_target(&job, REMAINS)?, &expected))
        })
    };
    equal(&mut programs)?;
    for statement in [
        "UPDATE shop.movements SET quantity = quantity + 1 WHERE quantity % 2 = 1",
        "UPDATE shop.movements SET article = replace(article, '#', '+') WHERE quantity % 5 = 2",
        "UPDATE shop.movements SET quantity = quantity + 3 WHERE quantity % 3 = 1",
        "DELETE FROM shop.movements WHERE quantity % 11 = 4",
        "UPDATE shop.movements SET direction = 'OUT' WHERE quantity % 7 = 3",
    ] {
        source.execute(statement)?;
    }
    equal(&mut programs)?;
    let input = job.kafka.read(&job.source_topic, Isolation::ReadCommitted)?;
    let left_out = |value: &[u8]| String::from_utf8_lossy(value).contains("__debezium_unavailable_value");
    let left_out = input.iter().filter(|record| record.value.as_deref().is_some_and(left_out)).count();
    ensure!(left_out > 50, "the connector left {left_out} goods out");
    let letters = job.kafka.read(&job.topic("dead-letters"), Isolation::ReadCommitted)?;
    ensure!(letters.is_empty(), "{} dead letters", letters.len());
    end_cleanly(&mut programs)
}

const REMAINS: &str = "SELECT good_id, cnt FROM remains.remains";
const TRANSACTIONS: &str = "SELECT good_id, sum(CASE operation WHEN 'add' THEN pcs ELSE -pcs END)
    FROM remains.transaction_log GROUP BY good_id";

/// A good's name: of two a uuid, of two a text that needs escaping.
fn name(good: i64) -> String {
    if good % 2 == 0 { format!("78c14186-0000-4000-8000-{good:012}") } else { format!("#\"{good}\" größe") }
}

/// The goods of a history on their way to other names.
#[derive(Default)]
struct Goods {
    /// The last of each record key.
    last: BTreeMap<String, i64>,
    /// How many were left out.
    left_out: usize,
}

impl Goods {
    /// The same event with a name in place of the number; an update that leaves the good as it was leaves it out.
    fn rename(&mut self, key: &str, event: &str) -> Result<String> {
        let mut event: Value = serde_json::from_str(event)?;
        let is_update = event.get("op").and_then(Value::as_str) == Some("u");
        let Some(after) = event.get_mut("after").and_then(Value::as_object_mut) else {
            self.last.remove(key);
            return Ok(event.to_string());
        };
        let good = after.get("good_id").and_then(Value::as_i64).context("a good that is no number")?;
        let unchanged = self.last.insert(key.to_owned(), good) == Some(good);
        let shown = if is_update && unchanged {
            self.left_out += 1;
            "__debezium_unavailable_value".to_owned()
        } else {
            name(good)
        };
        after.insert("good_id".to_owned(), shown.into());
        Ok(event.to_string())
    }
}

/// What remains of each good by its newest stock delta.
fn newest(job: &Job<'_>) -> Result<Sums> {
    let mut newest: BTreeMap<String, (u64, i128)> = BTreeMap::new();
    for record in job.deltas()? {
        let (key, value) = (record.key.as_deref().context("no key")?, record.value.as_deref().context("a tombstone")?);
        let StockDelta { good_id, version, remains, .. } = StockDelta::decode(key, value, Scale::WHOLE)?;
        let GoodId::Text(good) = good_id else { bail!("good {good_id} is no text") };
        let before = newest.insert(good.to_string(), (version, remains));
        ensure!(
            version == before.map_or(0, |(version, _)| version) + 1,
            "version {version} of {good} after {before:?}"
        );
    }
    Ok(newest.into_iter().map(|(good, (_, remains))| (good, remains)).collect())
}

fn in_target(job: &Job<'_>, sql: &str) -> Result<Sums> {
    let target = job.target()?;
    if target.rows("SELECT 1 WHERE to_regclass('remains.transaction_log') IS NOT NULL")?.is_empty() {
        return Ok(Sums::new());
    }
    sums(target.rows(sql)?)
}

fn sums(rows: Vec<Vec<Option<String>>>) -> Result<Sums> {
    let pair = |row: Vec<Option<String>>| {
        let [good, sum] = <[Option<String>; 2]>::try_from(row).ok().context("not two columns")?;
        Ok((good.context("no good")?, sum.context("no sum")?.parse()?))
    };
    rows.into_iter().map(pair).collect()
}

/// A good without rows counts as one that is not there.
fn same(actual: &Sums, expected: &Sums) -> bool {
    let left = |sums: &Sums| -> Sums {
        sums.iter().filter(|(_, sum)| **sum != 0).map(|(good, sum)| (good.clone(), *sum)).collect()
    };
    left(actual) == left(expected)
}

/// Waits; tells which program ended meanwhile.
pub(super) fn wait(
    programs: &mut [Box<dyn RunningProgram>],
    what: &str,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_until(what.to_owned(), || {
        for program in programs.iter_mut() {
            if let Some(exit) = program.exit()? {
                bail!("{} ended with {exit}:\n{}", program.name(), tail(&program.log()?));
            }
        }
        done()
    })
}

/// That a program ends as one that would have to guess, with this code.
pub(super) fn is_refused(stack: &dyn Stack, program: &ProgramSpec, code: &str) -> Result<()> {
    let mut running = stack.run(program)?;
    let exit = running.wait_exit()?;
    let log = running.log()?;
    ensure!(exit.code == Some(REFUSED) && log.contains(code), "{exit} without {code}:\n{}", tail(&log));
    Ok(())
}
