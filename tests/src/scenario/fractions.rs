//! Quantities with digits behind the point, in every way in which the connector writes `numeric`, through to the target.

use anyhow::{Context as _, Result, ensure};

use super::end_cleanly;
use super::formats::Run;
use super::other_goods::is_refused;
use crate::checker::{self, Collector, report};
use crate::client::{Format, Isolation, Sql};
use crate::stack::{PATIENCE, ProgramSpec, RunningProgram, Stack, wait_until};

/// Digits behind the point of the source's column.
const SCALE: u32 = 3;

/// How the connector writes values and their decimals, and what the processor is told of them.
const PHASES: [(Format, &str, &str); 4] = [
    // The schema says it: nothing is told.
    (Format::Avro, "precise", "number"),
    (Format::Json, "precise", "decimal"),
    (Format::Json, "string", "text"),
    (Format::Json, "double", "number"),
];

/// A table whose pieces are `numeric(12, 3)` ends equal to the source in topic and target, also after each change of the
/// form in mid-topic, and with stock deltas and the changelog in Avro; other digits are refused. `stack` must be one of its own, with a registry.
pub fn end_equal_to_the_source(stack: &dyn Stack, name: &str) -> Result<()> {
    let run = Run::new(stack, name)?;
    let table = format!("ALTER TABLE orders.transactions ALTER pcs TYPE numeric(12, {SCALE})");
    run.source.execute(&table)?;
    let sink = run.job.sink(0)?.flag("--pieces-scale", SCALE).switch("--transaction-log");
    let mut sinks = [stack.run(&sink)?];
    // For the snapshot.
    write_rows(&run.source, 0)?;
    for (from, (format, mode, pieces_type)) in (1_000..).step_by(1_000).zip(PHASES) {
        run.write_decimals_in(format, mode)?;
        write_rows(&run.source, from)?;
        // The newest event of every row is in this form.
        run.source.execute("UPDATE orders.transactions SET pcs = pcs + 0.001")?;
        let start = |instance| stack.run(&processor(&run, instance).flag("--pieces-type", pieces_type));
        let mut processors = vec![start(0)?, start(1)?];
        run.wait_equal(&mut processors).with_context(|| format!("{mode} in {format:?}"))?;
        change_rows(&run.source)?;
        run.wait_equal(&mut processors).with_context(|| format!("{mode} in {format:?}, changed"))?;
        end_cleanly(&mut processors)?;
    }
    run.no_dead_letters()?;
    every_quantity_has_all_digits(&run)?;
    wait_for_target(&run, &mut sinks)?;
    nothing_is_found(&run)?;

    let mut processors =
        vec![stack.run(&processor(&run, 0).flag("--output-format", "avro").flag("--changelog-format", "avro"))?];
    write_rows(&run.source, 10_000)?;
    change_rows(&run.source)?;
    wait_for_target(&run, &mut sinks).context("with stock deltas and the changelog in Avro")?;
    end_cleanly(&mut processors)?;
    end_cleanly(&mut sinks)?;
    is_refused(stack, &run.job.processor(0).flag("--pieces-scale", SCALE - 1), "PIECES_SCALE_CHANGED")?;
    is_refused(stack, &run.job.processor(0), "PIECES_SCALE_CHANGED")?;
    is_refused(stack, &run.job.sink(0)?, "SINK_PIECES_SCALE")
}

fn processor(run: &Run<'_>, instance: u32) -> ProgramSpec {
    run.job.processor(instance).flag("--pieces-scale", SCALE)
}

/// Small, large, whole and none, in numbers that a double writes with and without an exponent.
fn write_rows(source: &Sql, from: u32) -> Result<()> {
    source.execute(&format!(
        "INSERT INTO orders.transactions (id, good_id, operation, pcs)
         SELECT md5(n::text)::uuid, n % 20, CASE WHEN n % 3 = 0 THEN 'remove' ELSE 'add' END,
             CASE n % 6 WHEN 0 THEN n % 17 WHEN 1 THEN 0.001 WHEN 2 THEN 0 WHEN 3 THEN 999999900.125 + n / 1000.0
                 WHEN 4 THEN 12345678.9 ELSE n * 7 / 1000.0 END
         FROM generate_series({from}, {from} + 299) AS n"
    ))?;
    Ok(())
}

/// Updates, key changes, goods and deletes; each time of other rows.
fn change_rows(source: &Sql) -> Result<()> {
    for statement in [
        "UPDATE orders.transactions SET pcs = pcs + 0.125 WHERE good_id % 4 = 1",
        "UPDATE orders.transactions SET good_id = (good_id + 5) % 20 WHERE (pcs * 1000) % 5 = 2",
        "UPDATE orders.transactions SET id = md5(id::text)::uuid WHERE (pcs * 1000) % 7 = 3",
        "DELETE FROM orders.transactions WHERE (pcs * 1000) % 11 = 4",
        "UPDATE orders.transactions SET operation = 'remove' WHERE (pcs * 1000) % 13 = 6",
    ] {
        source.execute(statement)?;
    }
    Ok(())
}

/// As a person sees them who looks at the topic.
fn every_quantity_has_all_digits(run: &Run<'_>) -> Result<()> {
    let deltas = run.job.kafka.read(&run.job.topic("deltas"), Isolation::ReadCommitted)?;
    for record in &deltas {
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        for field in ["\"delta\":", "\"remains\":"] {
            let quantity = value.split_once(field).and_then(|(_, rest)| rest.split_once(',')).map(|(text, _)| text);
            let digits = quantity.and_then(|text| text.split_once('.')).map_or(0, |(_, behind)| behind.len());
            ensure!(digits == usize::try_from(SCALE)?, "{value}");
        }
    }
    ensure!(deltas.len() > 100, "only {} stock deltas", deltas.len());
    Ok(())
}

/// Rows and transactions there are those of the source.
fn wait_for_target(run: &Run<'_>, sinks: &mut [Box<dyn RunningProgram>]) -> Result<()> {
    const SOURCE: &str = "SELECT id, good_id, operation, pcs FROM orders.transactions ORDER BY id";
    const TARGET: &str = "SELECT id, good_id, operation, pcs FROM remains.transaction_log WHERE pcs <> 0 ORDER BY id";
    run.job.wait_for_target(&run.source.source_sums()?)?;
    // Of a row of nothing the sign is not known, and thereby not its operation.
    let expected = run.source.rows(&SOURCE.replace("ORDER", "WHERE pcs <> 0 ORDER"))?;
    wait_until("the transactions in the target", || {
        for sink in sinks.iter_mut() {
            ensure!(sink.exit()?.is_none(), "{} ended:\n{}", sink.name(), sink.log()?);
        }
        Ok(run.job.target()?.rows(TARGET)? == expected)
    })
}

fn nothing_is_found(run: &Run<'_>) -> Result<()> {
    let job = &run.job;
    let collector = Collector::new(&job.kafka, &job.source_topic, &job.topic_prefix, job.application_id()).scale(SCALE);
    collector.wait_settled(PATIENCE)?;
    let mut facts = collector.collect(None)?;
    facts.read_source(&run.source)?;
    facts.read_target(job.target()?)?;
    let findings = checker::check(&facts);
    ensure!(findings.is_empty(), "{}", report(&findings));
    Ok(())
}
