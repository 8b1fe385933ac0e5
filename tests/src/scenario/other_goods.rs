//! A captured history as if its goods were texts, uuids among them, through to the target.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{CAUGHT_UP_WITHIN, Job, end_cleanly, tail};
use crate::client::{History, Replay, expected_remains};
use crate::stack::{ProgramSpec, RunningProgram, Stack, wait_until};

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
    for record in &mut records.records {
        record.value = record.value.as_deref().map(with_text_goods).transpose()?;
    }
    let processor = |instance| job.processor(instance).flag("--good-type", "text");
    let mut programs = [stack.run(&processor(0))?, stack.run(&processor(1))?];
    let sink = job.sink(0)?.switch("--transaction-log");
    let mut sinks = [stack.run(&sink.clone().flag("--good-type", "text"))?];
    let mut replay = Replay::new(&job.kafka, &job.source_topic, &records)?;
    replay.write_next(records.records.len() / 2)?;
    wait_until("half of the history", CAUGHT_UP_WITHIN, || job.is_consumed())?;
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

const REMAINS: &str = "SELECT good_id, cnt FROM remains.remains";
const TRANSACTIONS: &str = "SELECT good_id, sum(CASE operation WHEN 'add' THEN pcs ELSE -pcs END)
    FROM remains.transaction_log GROUP BY good_id";

/// A good's name: of two a uuid, of two a text that needs escaping.
fn name(good: i64) -> String {
    if good % 2 == 0 { format!("78c14186-0000-4000-8000-{good:012}") } else { format!("#\"{good}\" größe") }
}

/// The same event with names in place of numbers.
fn with_text_goods(event: &str) -> Result<String> {
    const FIELD: &str = "\"good_id\":";
    let mut parts = event.split(FIELD);
    let mut renamed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([',', '}']).context("an event that breaks off")?;
        let (number, rest) = part.split_at(end);
        let good = number.parse().map(name).with_context(|| format!("good {number}"))?;
        renamed.extend([FIELD, &serde_json::to_string(&good)?, rest]);
    }
    Ok(renamed)
}

/// What remains of each good by its newest stock delta.
fn newest(job: &Job<'_>) -> Result<Sums> {
    let mut newest: BTreeMap<String, (u64, i128)> = BTreeMap::new();
    for record in job.deltas()? {
        let delta: Value = serde_json::from_slice(record.value.as_deref().context("a tombstone")?)?;
        let good = delta.get("good_id").and_then(Value::as_str).context("a good that is no text")?;
        ensure!(good == record.key_text(), "good {good} under the key {}", record.key_text());
        let version = delta.get("version").and_then(Value::as_u64).context("no version")?;
        let remains = delta.get("remains").and_then(Value::as_i64).context("no remains")?;
        let before = newest.insert(good.to_owned(), (version, remains.into()));
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
    let pair = |row: Vec<Option<String>>| {
        let [good, sum] = <[Option<String>; 2]>::try_from(row).ok().context("not two columns")?;
        Ok((good.context("no good")?, sum.context("no sum")?.parse()?))
    };
    target.rows(sql)?.into_iter().map(pair).collect()
}

/// A good without rows counts as one that is not there.
fn same(actual: &Sums, expected: &Sums) -> bool {
    let left = |sums: &Sums| -> Sums {
        sums.iter().filter(|(_, sum)| **sum != 0).map(|(good, sum)| (good.clone(), *sum)).collect()
    };
    left(actual) == left(expected)
}

/// Waits; tells which program ended meanwhile.
fn wait(programs: &mut [Box<dyn RunningProgram>], what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_until(what.to_owned(), CAUGHT_UP_WITHIN, || {
        for program in programs.iter_mut() {
            if let Some(exit) = program.exit()? {
                bail!("{} ended with {exit}:\n{}", program.name(), tail(&program.log()?));
            }
        }
        done()
    })
}

/// That a program ends as one that would have to guess, with this code.
fn is_refused(stack: &dyn Stack, program: &ProgramSpec, code: &str) -> Result<()> {
    let mut running = stack.run(program)?;
    let exit = running.wait_exit(CAUGHT_UP_WITHIN)?;
    let log = running.log()?;
    ensure!(exit.code == Some(REFUSED) && log.contains(code), "{exit} without {code}:\n{}", tail(&log));
    Ok(())
}
