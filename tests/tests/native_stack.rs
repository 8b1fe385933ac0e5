//! The native stack itself: real brokers, Connect and databases, started and mistreated as scenarios do it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::client::{
    Connect, History, Isolation, Kafka, NewTopic, Replay, ResetTo, Sql, orders_connector, unique_name,
};
use tests::native::{NativeStack, shared_brokers};
use tests::stack::{Component, Stack, Viewpoint, wait_until};

const INPUT: &str = "warehouse.orders.transactions";

/// The rows of the README, in order.
const ROWS: [(&str, i64, &str, i64); 5] = [
    ("63703d1f-0000-4000-8000-000000000001", 1, "add", 5),
    ("5d838899-0000-4000-8000-000000000002", 2, "add", 30),
    ("905ff7e7-0000-4000-8000-000000000003", 3, "add", 1),
    ("78c14186-0000-4000-8000-000000000004", 2, "remove", 15),
    ("b1f2c3d4-0000-4000-8000-000000000005", 2, "remove", 5),
];

fn shared_kafka() -> Result<Kafka> {
    Ok(Kafka::new(shared_brokers()?.addresses(Viewpoint::Host).bootstrap_servers))
}

#[test]
fn rows_written_by_the_shop_arrive_as_change_events() -> Result<()> {
    let stack = NativeStack::full()?;
    let addresses = stack.addresses(Viewpoint::Host);
    let kafka = Kafka::new(&addresses.bootstrap_servers);
    kafka.create_topic(&NewTopic::new(INPUT, 10))?;
    let seen_by_connect = stack.addresses(Viewpoint::Stack).source_database.context("no source database")?;
    let connect = Connect::new(&addresses.connect_url.context("no Connect")?);
    connect.register("orders-connector", &orders_connector(&seen_by_connect))?;
    let source = Sql::connect(&addresses.source_database_url.context("no source database")?)?;
    for (id, good, operation, pieces) in ROWS {
        source.execute(&format!(
            "INSERT INTO orders.transactions (id, good_id, operation, pcs) VALUES ('{id}', {good}, '{operation}', {pieces})"
        ))?;
    }

    let mut events = Vec::new();
    wait_until("five change events", || {
        events = kafka.read(INPUT, Isolation::ReadCommitted)?;
        Ok(events.len() >= ROWS.len())
    })?;

    for (id, good, operation, pieces) in ROWS {
        let key = format!(r#"{{"id":"{id}"}}"#);
        let event = events.iter().find(|event| event.key_text() == key).with_context(|| format!("no event {key}"))?;
        let value: Value = serde_json::from_slice(event.value.as_deref().context("a tombstone")?)?;
        let after = value.get("after").context("no after")?;
        ensure!(after.get("good_id") == Some(&good.into()), "{value}");
        ensure!(after.get("operation") == Some(&operation.into()), "{value}");
        ensure!(after.get("pcs") == Some(&pieces.into()), "{value}");
    }
    ensure!(source.source_sums()? == BTreeMap::from([(1, 5), (2, 10), (3, 1)]));
    Ok(())
}

#[test]
fn a_replayed_capture_has_the_offsets_of_the_original() -> Result<()> {
    let kafka = shared_kafka()?;
    let topic = unique_name("replay");
    kafka.create_topic(&NewTopic::new(&topic, 10))?;
    let history = History::load("debezium-capture/history")?;

    let mut replay = Replay::new(&kafka, &topic, &history)?;
    replay.write_next(1_000)?;
    replay.write_rest()?;

    let mut expected = history.records;
    expected.sort_by_key(|record| (record.partition, record.offset));
    let records = kafka.read(&topic, Isolation::ReadCommitted)?;
    ensure!(records.len() == expected.len());
    for (read, captured) in records.iter().zip(&expected) {
        ensure!((read.partition, read.offset) == (captured.partition, captured.offset));
        ensure!(read.key_text() == captured.key.clone().unwrap_or_default());
        ensure!(read.value.as_deref() == captured.value.as_deref().map(str::as_bytes));
        ensure!(read.timestamp_ms == Some(captured.timestamp));
        ensure!(read.headers.len() == captured.headers.len());
        for (name, value) in &captured.headers {
            ensure!(read.header(name) == Some(value.as_bytes()), "header {name}");
        }
    }
    kafka.delete_topics(&[&topic])
}

#[test]
fn group_offsets_are_reset_and_read_back() -> Result<()> {
    let kafka = shared_kafka()?;
    let (topic, group) = (unique_name("offsets"), unique_name("group"));
    kafka.create_topic(&NewTopic::new(&topic, 10))?;
    ensure!(kafka.group_offsets(&group, &topic)?.is_empty());
    let history = History::load("debezium-capture/straddling-transaction")?;
    Replay::new(&kafka, &topic, &history)?.write_rest()?;

    kafka.reset_group_offsets(&group, &topic, ResetTo::End)?;
    ensure!(kafka.group_offsets(&group, &topic)?.get(&3).context("no offset")?.offset == 10);
    kafka.reset_group_offsets(&group, &topic, ResetTo::Beginning)?;
    ensure!(kafka.group_offsets(&group, &topic)?.values().all(|committed| committed.offset == 0));
    ensure!(!kafka.group_has_members(&group)?);
    kafka.delete_group(&group)?;
    ensure!(kafka.group_offsets(&group, &topic)?.is_empty());
    Ok(())
}

#[test]
fn killed_and_paused_servers_come_back_with_their_data() -> Result<()> {
    let stack = NativeStack::full()?;
    let addresses = stack.addresses(Viewpoint::Host);
    let kafka = Kafka::new(&addresses.bootstrap_servers);
    kafka.create_topic(&NewTopic::new("kept", 3))?;
    let history = History::load("crafted/snapshot-without-a-row-here")?;
    let mut replay = Replay::new(&kafka, "kept", &history)?;
    replay.write_next(1)?;

    stack.kill(Component::Broker(2))?;
    replay.write_rest()?;
    stack.start(Component::Broker(2))?;
    stack.wait_healthy(Component::Broker(2))?;
    stack.pause(Component::Broker(3))?;
    ensure!(kafka.read("kept", Isolation::ReadCommitted)?.len() == history.records.len());
    stack.resume(Component::Broker(3))?;
    stack.stop(Component::Broker(1))?;
    stack.start(Component::Broker(1))?;
    stack.wait_all_healthy()?;
    ensure!(kafka.read("kept", Isolation::ReadCommitted)?.len() == history.records.len());

    let target = addresses.target_database_url.context("no target database")?;
    let connect = |within| Sql::connect_within(&target, Duration::from_secs(within));
    connect(60)?.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")?;
    stack.kill(Component::TargetDatabase)?;
    ensure!(connect(1).is_err(), "a killed database answers");
    stack.start(Component::TargetDatabase)?;
    stack.wait_healthy(Component::TargetDatabase)?;
    ensure!(connect(60)?.rows("SELECT n FROM kept")? == [[Some("1".to_owned())]]);

    stack.kill(Component::Connect)?;
    stack.start(Component::Connect)?;
    stack.wait_healthy(Component::Connect)
}

#[test]
fn nothing_is_left_of_a_stack_that_was_dropped() -> Result<()> {
    let stack = NativeStack::brokers(1)?;
    let directory = stack.directory().to_path_buf();
    let pid = stack.pid(Component::Broker(1)).context("no pid")?;
    ensure!(directory.join("broker-1/data").is_dir());
    drop(stack);
    wait_until("the directory to go", || Ok(!directory.exists()))?;
    ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the broker still runs");
    Ok(())
}
