//! Owns how long a first start takes: Debezium's snapshot of a table that is already large, from the source table to the
//! target table, at the connector's own pace; then the same topic once more by a processor that has only that to do
//! (`run --until-caught-up`), from the start of the process to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::tests::client::{Connect, NewTopic, Sql, orders_connector};
use ::tests::stack::wait_for_within;
use anyhow::Result;
use serde::Serialize;

use super::Sizes;
use crate::bench::{Bench, Source};
use crate::events::ExpectedSums;
use crate::load::PARTITIONS;
use crate::report::Report;
use crate::statistics::rate;
use crate::systems::{Application, System};
use crate::verify::{Reader, Verifier};

/// What the connector's topic prefix, schema and table make.
const SOURCE_TOPIC: &str = "warehouse.orders.transactions";
const CONNECTOR: &str = "orders-connector";
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(3_600);
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(1_800);

/// The part.
pub fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let rows = sizes.backfill;
    let source = bench.start_source()?;
    let sql = Sql::connect(&source.url)?;
    bench.say(format_args!("writing {rows} rows into the source table"));
    // Powers spread goods about as in a shop: each decade of goods has the same share of the rows.
    sql.execute(&format!(
        "INSERT INTO orders.transactions (id, good_id, operation, pcs)
         SELECT gen_random_uuid(), floor(power(100000, random())),
                CASE WHEN random() < 0.67 THEN 'add' ELSE 'remove' END, 1 + floor(random() * 100)
         FROM generate_series(1, {rows})"
    ))?;
    let sums = sql.source_sums()?;
    let mut expected = ExpectedSums::default();
    for (good_id, sum) in &sums {
        expected.add(u32::try_from(*good_id)?, *sum);
    }
    let live = from_table_to_table(bench, source, &sums, rows)?;
    bench.say(format_args!(
        "{:.0} rows/s from table to table in {:.1} s; the connector needed {:.1} s; processor {:.1} s CPU",
        rate(rows, live.table_to_table_s),
        live.table_to_table_s,
        live.snapshot_s,
        live.processor_cpu_s
    ));
    let caught_up = processed(bench, &Arc::new(expected), rows)?;
    bench.say(format_args!("--until-caught-up: {caught_up:.0} rows/s from the start of the process to its end"));
    bench.delete_topics_of(SOURCE_TOPIC)?;
    let figures = &mut report.figures;
    figures.backfill_rows_per_s = Some(rate(rows, live.table_to_table_s));
    figures.backfill_vs_connector = Some(live.table_to_table_s / live.snapshot_s);
    figures.backfill_processor_cpus = Some(live.processor_cpu_s / live.table_to_table_s);
    figures.until_caught_up_rows_per_s = Some(caught_up);
    report.details.insert("backfill_rows".to_owned(), rows.into());
    report.details.insert("backfill".to_owned(), serde_json::to_value(live)?);
    Ok(())
}

/// A snapshot with everything at work, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(clippy::struct_field_names)] // the unit, as in every other figure
struct Live {
    /// From the connector's creation to its last record on the topic.
    snapshot_s: f64,
    /// From the connector's creation to the last right sum in the target table.
    table_to_table_s: f64,
    /// CPU time of the processor until then.
    processor_cpu_s: f64,
    /// The same of the sink.
    sink_cpu_s: f64,
}

fn from_table_to_table(bench: &Bench, source: &Source, sums: &BTreeMap<i64, i64>, rows: u64) -> Result<Live> {
    let target = Sql::connect(&bench.target_url)?;
    target.execute("DROP SCHEMA IF EXISTS remains CASCADE")?;
    bench.kafka.create_topic(&NewTopic::new(SOURCE_TOPIC, PARTITIONS))?;
    let application = Application::new(bench, System::PROCESSOR, SOURCE_TOPIC, rows)?;
    let mut processor = application.start(None)?;
    let mut sink = application.start_sink(bench)?;
    bench.say("Debezium's snapshot");
    let began = Instant::now();
    let connect = Connect::new(&source.connect_url);
    connect.register(CONNECTOR, &orders_connector(&source.address))?;
    wait_for_within("the snapshot", SNAPSHOT_WITHIN, || Ok((events(bench)? >= rows).then_some(())))?;
    let snapshot_s = began.elapsed().as_secs_f64();
    wait_for_within("the target", CAUGHT_UP_WITHIN, || {
        processor.check_running()?;
        sink.check_running()?;
        Ok((target.remains()? == *sums).then_some(()))
    })?;
    let table_to_table_s = began.elapsed().as_secs_f64();
    let (processor_cpu_s, sink_cpu_s) = (processor.usage()?.cpu_s, sink.usage()?.cpu_s);
    sink.stop()?;
    processor.stop()?;
    drop((sink, processor));
    connect.delete(CONNECTOR)?;
    application.remove(bench)?;
    target.execute("DROP SCHEMA remains CASCADE")?;
    Ok(Live { snapshot_s, table_to_table_s, processor_cpu_s, sink_cpu_s })
}

/// Records of the source topic.
fn events(bench: &Bench) -> Result<u64> {
    let mut events = 0;
    for partition in 0..PARTITIONS {
        let (first, next) = bench.kafka.watermarks(SOURCE_TOPIC, partition)?;
        events += u64::try_from(next - first)?;
    }
    Ok(events)
}

fn processed(bench: &Bench, expected: &Arc<ExpectedSums>, rows: u64) -> Result<f64> {
    let application = Application::new(bench, System::PROCESSOR, SOURCE_TOPIC, rows)?.flag("--until-caught-up");
    let mut process = application.start(None)?;
    process.wait_success(CAUGHT_UP_WITHIN)?;
    let seconds = process.started().elapsed().as_secs_f64();
    let mut verifier = Verifier::new(application.system.format(), expected, rows)?;
    Reader::from_beginning(&bench.kafka, &application.output)?.follow(&mut verifier, || Ok(()))?;
    application.remove(bench)?;
    Ok(rate(rows, seconds))
}
