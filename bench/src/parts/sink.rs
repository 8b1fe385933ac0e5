//! Owns how fast the sink works off a backlog: one stock delta of each of many goods, in no order, into an empty table;
//! beside it the same upsert in the same batches by a loop that has no Kafka to read and no progress to keep, and, on a
//! topic of the same deltas in Avro, Debezium's JDBC sink.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use ::tests::client::{NewTopic, Sql, unique_name};
use anyhow::{Context as _, Result, ensure};
use schemas::partitioner::partition_for_good;
use schemas::{Scale, StockDelta};
use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use super::{Sizes, jdbc_sink};
use crate::bench::Bench;
use crate::load::{PARTITIONS, Writer};
use crate::report::Report;
use crate::statistics::rate;
use crate::systems::{NEVER_CLEANED_MS, start_sink};

/// The sink's own default.
const BATCH: usize = 5_000;
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(300);
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the sink writes.
pub(super) const TABLE: &str = "remains.remains";

/// As the sink's, which keeps it to itself.
const UPSERT: &str = "INSERT INTO remains.remains AS kept (good_id, cnt, epoch, version, updated_at)
SELECT good_id, cnt, epoch, version, now()
FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS new (good_id, cnt, epoch, version)
ORDER BY good_id
ON CONFLICT (good_id) DO UPDATE
SET cnt = excluded.cnt, epoch = excluded.epoch, version = excluded.version, updated_at = excluded.updated_at
WHERE (kept.epoch, kept.version) < (excluded.epoch, excluded.version)";

/// A backlog worked off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Sunk {
    /// Goods, each with one delta.
    pub(super) goods: u64,
    /// From the first rows visible to all of them, s.
    pub(super) first_to_all_s: f64,
    /// Goods per second meanwhile.
    pub(super) rows_per_s: f64,
    /// From the start of the process to all rows visible, s.
    pub(super) start_to_all_s: f64,
    /// CPU time of the sink, s.
    pub(super) cpu_s: f64,
}

/// The part.
pub fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let goods: u32 = if sizes.full { 2_000_000 } else { 500_000 };
    let deltas = shuffled(goods);
    let prefix = unique_name("bench-sink");
    bench.say(format_args!("writing a backlog of {goods} stock deltas"));
    write_backlog(bench, &prefix, &deltas, |delta, value| {
        delta.encode(Scale::WHOLE, value);
        Ok(())
    })?;
    let sql = Sql::connect(&bench.target_url)?;
    sql.execute("DROP SCHEMA IF EXISTS remains CASCADE")?;
    let sunk = sink(bench, &sql, &prefix, u64::from(goods))?;
    check(&sql, TABLE, "cnt", &deltas).context("after the sink")?;
    // The same table, as the sink has made it; and its files as new as they were.
    sql.execute("TRUNCATE remains.remains")?;
    let seconds = upsert_all(&bench.target_url, &deltas)?;
    check(&sql, TABLE, "cnt", &deltas).context("after the loop without Kafka")?;
    let raw_rows_per_s = rate(u64::from(goods), seconds);
    bench.say(format_args!(
        "sink {:.0} goods/s ({:.1} s CPU), the same upsert without Kafka {:.0} goods/s",
        sunk.rows_per_s, sunk.cpu_s, raw_rows_per_s
    ));
    bench.delete_topics_of(&prefix)?;
    report.figures.sink_rows_per_s = Some(sunk.rows_per_s);
    report.figures.sink_vs_raw_upsert = Some(sunk.rows_per_s / raw_rows_per_s);
    report.details.insert("sink".to_owned(), serde_json::to_value(sunk)?);
    report.details.insert("raw_upsert_rows_per_s".to_owned(), raw_rows_per_s.into());
    match &bench.jdbc_sink {
        Ok(_) => jdbc_sink::compare(bench, &sql, &deltas, sizes, report)?,
        Err(why) => {
            report.notes.insert("sink".to_owned(), format!("Debezium's JDBC sink was not run: {why}"));
        }
    }
    sql.execute("DROP SCHEMA remains CASCADE").map(drop)
}

/// One delta of each good, in an order that has nothing to do with the goods' numbers.
fn shuffled(goods: u32) -> Vec<StockDelta> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut deltas: Vec<StockDelta> = (1..=goods)
        .map(|good| {
            let pieces = random.i32(-100..=100);
            let (delta, remains) = (i128::from(pieces), i128::from(pieces));
            StockDelta { good_id: i64::from(good).into(), delta, remains, transactions: 1, version: 1, epoch: 1 }
        })
        .collect();
    random.shuffle(&mut deltas);
    deltas
}

/// Writes the deltas to the topic a sink with this prefix reads; `encode` appends a value.
pub(super) fn write_backlog(
    bench: &Bench,
    prefix: &str,
    deltas: &[StockDelta],
    encode: impl Fn(&StockDelta, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let topic = format!("{prefix}.deltas");
    let compacted = NewTopic::new(&topic, PARTITIONS).property("cleanup.policy", "compact");
    bench.kafka.create_topic(&compacted.property("min.compaction.lag.ms", NEVER_CLEANED_MS))?;
    bench.kafka.create_topic(&NewTopic::new(format!("{prefix}.control"), 1))?;
    let writer = Writer::bulk(&bench.kafka, &topic)?.without_headers();
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for delta in deltas {
        key.clear();
        value.clear();
        delta.encode_key(&mut key);
        encode(delta, &mut value)?;
        writer.send(&key, &value)?;
    }
    writer.finish()
}

/// Lets the sink work it off; the rows' number is read from its progress, which moves with them.
pub(super) fn sink(bench: &Bench, sql: &Sql, prefix: &str, goods: u64) -> Result<Sunk> {
    let mut process = start_sink(bench, prefix)?;
    let deadline = Instant::now() + WRITTEN_WITHIN;
    let mut first = None;
    let (all, first, before) = loop {
        process.check_running()?;
        let rows = progress(sql)?;
        let now = Instant::now();
        if rows > 0 && first.is_none() {
            first = Some((now, rows));
        }
        if let (Some((first, before)), true) = (first, rows >= goods) {
            break (now, first, before);
        }
        ensure!(now < deadline, "the sink has written {rows} of {goods} goods in {WRITTEN_WITHIN:?}");
        std::thread::sleep(LOOK_EVERY);
    };
    let usage = process.usage()?;
    let start_to_all_s = all.duration_since(process.started()).as_secs_f64();
    process.stop()?;
    let first_to_all_s = all.duration_since(first).as_secs_f64();
    // What the first look found was written before the clock ran.
    let rows_per_s = rate(goods.saturating_sub(before), first_to_all_s);
    Ok(Sunk { goods, first_to_all_s, rows_per_s, start_to_all_s, cpu_s: usage.cpu_s })
}

/// Records applied, over all partitions; 0 while there is no such table.
fn progress(sql: &Sql) -> Result<u64> {
    if sql.rows("SELECT 1 WHERE to_regclass('remains.progress') IS NOT NULL")?.is_empty() {
        return Ok(0);
    }
    let rows = sql.rows("SELECT coalesce(sum(next_offset), 0)::bigint FROM remains.progress")?;
    let value = rows.into_iter().flatten().next().flatten().context("no progress")?;
    Ok(value.parse()?)
}

/// The number of a delta's good: all of them are integers here.
pub(super) fn number(delta: &StockDelta) -> i64 {
    delta.good_id.integer().unwrap_or_default()
}

/// The rows of `table` are exactly the deltas; `remains` is the column of what remains.
pub(super) fn check(sql: &Sql, table: &str, remains: &str, deltas: &[StockDelta]) -> Result<()> {
    let rows = sql.rows(&format!(
        "SELECT count(*), sum({remains})::bigint, sum({remains} * (good_id % 1000))::bigint, sum(version)::bigint FROM {table}"
    ))?;
    let found: Vec<i128> =
        rows.into_iter().flatten().map(|value| Ok(value.context("an empty table")?.parse()?)).collect::<Result<_>>()?;
    let count = i128::try_from(deltas.len())?;
    let sum: i128 = deltas.iter().map(|delta| delta.remains).sum();
    let weighted: i128 = deltas.iter().map(|delta| delta.remains * i128::from(number(delta) % 1_000)).sum();
    ensure!(found == [count, sum, weighted, count], "the table holds {found:?} and not {count} goods of {sum} pieces");
    Ok(())
}

/// Upserts everything in the sink's batches and in the order in which it gets it: one partition after the other.
fn upsert_all(url: &str, deltas: &[StockDelta]) -> Result<f64> {
    let partitions = NonZeroU32::new(PARTITIONS.unsigned_abs()).context("no partitions")?;
    let mut deltas = deltas.to_vec();
    deltas.sort_by_key(|delta| partition_for_good(&delta.good_id, partitions));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        let began = Instant::now();
        for batch in deltas.chunks_mut(BATCH) {
            batch.sort_unstable_by_key(number);
            let goods: Vec<i64> = batch.iter().map(number).collect();
            let counts: Vec<i64> =
                batch.iter().map(|delta| i64::try_from(delta.remains)).collect::<std::result::Result<_, _>>()?;
            let ones = vec![1_i64; batch.len()];
            let query = sqlx::query(UPSERT).bind(goods).bind(counts).bind(&ones).bind(&ones);
            let mut transaction = connection.begin().await?;
            query.execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        Ok(began.elapsed().as_secs_f64())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_good_has_one_delta_and_they_are_not_in_order() {
        let deltas = shuffled(1_000);
        let mut goods: Vec<i64> = deltas.iter().map(number).collect();
        assert!(!goods.is_sorted());
        goods.sort_unstable();
        assert!(goods.into_iter().eq(1..=1_000));
    }
}
