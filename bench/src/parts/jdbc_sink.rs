//! Owns the comparison of the sink with Debezium's JDBC sink: the same backlog of stock deltas in Avro, worked off by one
//! and then by the other, into tables of the same form, each alone.
//!
//! It has what its documentation calls fastest: one statement per batch of 5,000 (`UNNEST`, which needs its reduction buffer),
//! batches as large as what one poll gives, and a virtual machine that has done the same once before. It writes what it
//! reads, without comparing versions.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Instant;

use ::tests::client::{Connect, Sql, unique_name};
use anyhow::{Context as _, Result, bail, ensure};
use schemas::partitioner::partition_for_good;
use schemas::{GoodType, Scale, StockDelta};
use serde::Serialize;
use serde_json::{Value, json};

use super::Sizes;
use super::sink::{LOOK_EVERY, Sunk, TABLE, WRITTEN_WITHIN, check, number, sink, write_backlog};
use crate::bench::{Bench, JdbcSink};
use crate::load::PARTITIONS;
use crate::report::Report;
use crate::statistics::rate;

const JDBC_TABLE: &str = "remains.jdbc";
/// Records of a batch and of a poll; the sink's own default.
const BATCH: &str = "5000";
/// Tasks of each run; the first run is there to have its code compiled.
const WARM_UP_TASKS: u8 = 1;
const TASKS: [u8; 2] = [1, 2];

/// A run of the JDBC sink.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct JdbcRun {
    /// Its `tasks.max`.
    tasks: u8,
    #[serde(flatten)]
    sunk: Sunk,
}

/// Both on the same topic.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Compared {
    /// Our sink.
    sink: Sunk,
    /// Debezium's.
    jdbc: Vec<JdbcRun>,
}

/// Measures both into the report; the tables of the sink must be there, and are left there.
pub(super) fn compare(
    bench: &Bench,
    sql: &Sql,
    deltas: &[StockDelta],
    sizes: &Sizes,
    report: &mut Report,
) -> Result<()> {
    let deltas = deltas.get(..if sizes.full { 1_000_000 } else { 300_000 }).unwrap_or(deltas);
    let prefix = unique_name("bench-jdbc");
    let topic = format!("{prefix}.deltas");
    bench.say("starting the registry and Connect for Debezium's JDBC sink");
    let servers = bench.start_jdbc_sink()?;
    let schema = register(&servers.schemas_url, &topic)?;
    bench.say(format_args!("writing a backlog of {} stock deltas in Avro", deltas.len()));
    write_backlog(bench, &prefix, deltas, |delta, value| Ok(delta.encode_avro(schema, Scale::WHOLE, value)?))?;
    sql.execute(&format!(
        "CREATE TABLE {JDBC_TABLE} (LIKE {TABLE} INCLUDING ALL);
         ALTER TABLE {JDBC_TABLE} RENAME cnt TO remains;
         ALTER TABLE {JDBC_TABLE} ALTER updated_at SET DEFAULT now()"
    ))?;
    let run = |tasks| jdbc(bench, servers, sql, &topic, deltas, tasks);
    run(WARM_UP_TASKS)?;
    let jdbc: Vec<JdbcRun> = TASKS.into_iter().map(run).collect::<Result<_>>()?;
    bench.stop_jdbc_sink()?;
    sql.execute("DROP SCHEMA remains CASCADE")?;
    let sink = sink(bench, sql, &prefix, u64::try_from(deltas.len())?)?;
    check(sql, TABLE, "cnt", deltas).context("after the sink, in Avro")?;
    bench.say(format_args!("sink {:.0} goods/s ({:.1} s CPU) on the same topic", sink.rows_per_s, sink.cpu_s));
    bench.delete_topics_of(&prefix)?;
    let best = jdbc.iter().map(|run| run.sunk.rows_per_s).max_by(f64::total_cmp).context("no run of the JDBC sink")?;
    report.figures.sink_vs_jdbc = Some(sink.rows_per_s / best);
    report.details.insert("sink_beside_jdbc".to_owned(), serde_json::to_value(Compared { sink, jdbc })?);
    Ok(())
}

/// Registers the schema of the deltas as the processor does; gives its id.
fn register(schemas_url: &str, topic: &str) -> Result<u32> {
    let url = format!("{schemas_url}/subjects/{topic}-value/versions");
    let schema = schemas::delta::avro_schema(GoodType::Integer, Scale::WHOLE);
    let schema = json!({ "schemaType": "AVRO", "schema": schema });
    let mut response = ureq::post(&url).send_json(schema).context("the registry does not take the schema")?;
    let registered: Value = response.body_mut().read_json()?;
    let id = registered.get("id").and_then(Value::as_u64).with_context(|| format!("no id in {registered}"))?;
    Ok(u32::try_from(id)?)
}

/// Lets it work the topic off into its empty table.
fn jdbc(
    bench: &Bench,
    servers: &JdbcSink,
    sql: &Sql,
    topic: &str,
    deltas: &[StockDelta],
    tasks: u8,
) -> Result<JdbcRun> {
    sql.execute(&format!("TRUNCATE {JDBC_TABLE}"))?;
    // A name is a consumer group: it begins at the beginning.
    let name = unique_name("jdbc-sink");
    let connect = Connect::new(&servers.connect_url);
    let cpu_before = bench.connect_cpu_s()?;
    let began = Instant::now();
    connect.put_config(&name, &configuration(servers, &bench.target_url, topic, tasks)?)?;
    let (first, before) = first_rows(&connect, &name, sql)?;
    wait_all(&connect, &name, sql, deltas)?;
    let all = Instant::now();
    let cpu_s = bench.connect_cpu_s()? - cpu_before;
    connect.delete(&name)?;
    check(sql, JDBC_TABLE, "remains", deltas).context("after Debezium's JDBC sink")?;
    let goods = u64::try_from(deltas.len())?;
    let first_to_all_s = all.duration_since(first).as_secs_f64();
    // What the first look found was written before the clock ran.
    let rows_per_s = rate(goods.saturating_sub(before), first_to_all_s);
    bench.say(format_args!("JDBC sink, {tasks} task(s): {rows_per_s:.0} goods/s ({cpu_s:.1} s CPU of Connect)"));
    let start_to_all_s = all.duration_since(began).as_secs_f64();
    Ok(JdbcRun { tasks, sunk: Sunk { goods, first_to_all_s, rows_per_s, start_to_all_s, cpu_s } })
}

fn configuration(servers: &JdbcSink, target_url: &str, topic: &str, tasks: u8) -> Result<Value> {
    let (user, password, database) = parts(target_url).context("the target database has an unexpected URL")?;
    Ok(json!({
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": tasks.to_string(),
        "topics": topic,
        "connection.url": format!("jdbc:postgresql://{database}?reWriteBatchedInserts=true"),
        "connection.username": user,
        "connection.password": password,
        "insert.mode": "upsert",
        "primary.key.mode": "record_value",
        "primary.key.fields": "good_id",
        "field.include.list": "good_id,remains,epoch,version",
        "collection.name.format": JDBC_TABLE,
        "schema.evolution": "none",
        "batch.size": BATCH,
        "use.reduction.buffer": "true",
        "dialect.postgres.unnest.insert.enabled": "true",
        "consumer.override.auto.offset.reset": "earliest",
        "consumer.override.max.poll.records": BATCH,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "io.apicurio.registry.utils.converter.AvroConverter",
        "value.converter.apicurio.registry.url": format!("{}/apis/registry/v2", servers.registry_url),
        "value.converter.apicurio.registry.as-confluent": "true",
        "value.converter.apicurio.registry.use-id": "contentId",
        "value.converter.apicurio.registry.headers.enabled": "false",
    }))
}

/// User, password, and the rest of `postgres://user:password@host:port/database`.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (credentials, database) = url.strip_prefix("postgres://")?.split_once('@')?;
    let (user, password) = credentials.split_once(':')?;
    Some((user, password, database))
}

/// When rows were first seen, and how many.
fn first_rows(connect: &Connect, name: &str, sql: &Sql) -> Result<(Instant, u64)> {
    let mut rows = 0;
    watch(connect, name, || {
        rows = count(sql, &format!("SELECT count(*) FROM {JDBC_TABLE}"))?;
        Ok(rows > 0)
    })?;
    Ok((Instant::now(), rows))
}

/// Waits for the last good of each partition: a partition is written in its order, and to count all rows again and
/// again would slow down what is measured.
fn wait_all(connect: &Connect, name: &str, sql: &Sql, deltas: &[StockDelta]) -> Result<()> {
    let partitions = NonZeroU32::new(PARTITIONS.unsigned_abs()).context("no partitions")?;
    let last: BTreeMap<_, i64> =
        deltas.iter().map(|delta| (partition_for_good(&delta.good_id, partitions), number(delta))).collect();
    let goods: Vec<String> = last.values().map(i64::to_string).collect();
    let there = format!("SELECT count(*) FROM {JDBC_TABLE} WHERE good_id IN ({})", goods.join(","));
    let all = u64::try_from(goods.len())?;
    watch(connect, name, || Ok(count(sql, &there)? == all))
}

fn count(sql: &Sql, query: &str) -> Result<u64> {
    let value = sql.rows(query)?.into_iter().flatten().next().flatten().context("no count")?;
    Ok(value.parse()?)
}

/// Looks until it is so, and at times whether the connector still runs.
fn watch(connect: &Connect, name: &str, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    let mut looks: u32 = 0;
    while !look()? {
        ensure!(began.elapsed() < WRITTEN_WITHIN, "the JDBC sink is not done after {WRITTEN_WITHIN:?}");
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(200)
            && let Some(trace) = connect.state(name)?.and_then(|state| state.trace)
        {
            bail!("the JDBC sink has failed: {trace}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_the_target_is_taken_apart_for_jdbc() {
        assert_eq!(
            parts("postgres://me:secret@127.0.0.1:5432/remains"),
            Some(("me", "secret", "127.0.0.1:5432/remains"))
        );
        assert_eq!(parts("postgres://127.0.0.1/remains"), None);
    }
}
