//! Owns how long a first start takes: Debezium's snapshot of a table that is already large, then the processor reading
//! all of it (`run --until-caught-up`), from the start of the process to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::tests::client::{Connect, NewTopic, Sql, orders_connector};
use ::tests::stack::wait_until;
use anyhow::Result;

use super::Sizes;
use crate::bench::Bench;
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
    let expected = expected(&sql)?;
    bench.kafka.create_topic(&NewTopic::new(SOURCE_TOPIC, PARTITIONS))?;
    bench.say("Debezium's snapshot");
    let began = Instant::now();
    Connect::new(&source.connect_url).register(CONNECTOR, &orders_connector(&source.address))?;
    wait_until("the snapshot", SNAPSHOT_WITHIN, || Ok(events(bench)? >= rows))?;
    let snapshot = rate(rows, began.elapsed().as_secs_f64());
    bench.say(format_args!("{snapshot:.0} rows/s; now the processor until it has caught up"));
    let caught_up = processed(bench, &expected, rows)?;
    bench.say(format_args!("{caught_up:.0} rows/s from the start of the process to its end"));
    report.figures.backfill_rows_per_s = Some(caught_up);
    report.details.insert("backfill_rows".to_owned(), rows.into());
    report.details.insert("backfill_snapshot_rows_per_s".to_owned(), snapshot.into());
    Connect::new(&source.connect_url).delete(CONNECTOR)?;
    bench.delete_topics_of(SOURCE_TOPIC)
}

/// What remains of each good, by the source table itself.
fn expected(sql: &Sql) -> Result<Arc<ExpectedSums>> {
    let mut expected = ExpectedSums::default();
    for (good_id, sum) in sql.source_sums()? {
        expected.add(u32::try_from(good_id)?, sum);
    }
    Ok(Arc::new(expected))
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
