//! Topics at start, on real brokers.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use processor::kafka::admin::{Provided, Provision, provide};
use processor_engine::Failure;
use tests::client::{Kafka, NewTopic, unique_name};
use tests::native::shared_brokers;
use tests::stack::{PATIENCE, Stack as _, Viewpoint};

use crate::clients::code;

fn kafka() -> Result<Kafka> {
    Ok(Kafka::new(shared_brokers()?.addresses(Viewpoint::Host).bootstrap_servers))
}

fn provision(kafka: &Kafka, prefix: &str) -> Provision {
    Provision {
        bootstrap_servers: kafka.bootstrap_servers().to_owned(),
        properties: BTreeMap::new(),
        source: format!("{prefix}.source"),
        prefix: prefix.to_owned(),
        movements_partitions: Some(2),
        replication_factor: None,
        patience: PATIENCE,
    }
}

fn refusal(outcome: Result<Provided, Failure>) -> &'static str {
    outcome.map_or_else(|failure| code(&failure), |_| "")
}

#[test]
fn topics_are_created_as_documented_and_accepted_afterwards() -> Result<()> {
    let kafka = kafka()?;
    let prefix = unique_name("provide");
    let provision = provision(&kafka, &prefix);
    ensure!(refusal(provide(&provision)) == "SOURCE_TOPIC_MISSING");
    kafka.create_topic(&NewTopic::new(&provision.source, 3))?;
    let provided = provide(&provision)?;
    ensure!((provided.source_partitions, provided.movements_partitions) == (3, 2), "{provided:?}");
    ensure!(provided.delete_retention_ms == 28 * 24 * 60 * 60 * 1_000, "{provided:?}");

    for (name, partitions, policy) in [
        ("transactions", 3, "compact"),
        ("movements", 2, "delete"),
        ("deltas", 2, "compact"),
        ("control", 1, "delete"),
        ("dead-letters", 3, "delete"),
    ] {
        let topic = format!("{prefix}.{name}");
        ensure!(kafka.partitions(&topic)?.len() == partitions, "{topic}");
        let properties = kafka.topic_properties(&topic)?;
        let property = |name: &str| properties.get(name).map_or("", String::as_str);
        ensure!(property("cleanup.policy") == policy, "{topic}: {properties:?}");
        ensure!(property("min.insync.replicas") == "2", "{topic}: {properties:?}");
        ensure!(policy == "compact" || property("retention.ms") == "-1", "{topic}: {properties:?}");
    }
    ensure!(provide(&provision)? == provided);
    Ok(())
}

#[test]
fn wrong_topics_are_refused_with_codes() -> Result<()> {
    let kafka = kafka()?;
    let source = |prefix: &str| kafka.create_topic(&NewTopic::new(format!("{prefix}.source"), 2));

    let prefix = unique_name("compacted");
    kafka.create_topic(&NewTopic::new(format!("{prefix}.source"), 2).property("cleanup.policy", "compact"))?;
    ensure!(refusal(provide(&provision(&kafka, &prefix))) == "SOURCE_TOPIC_COMPACTED");

    let prefix = unique_name("partitions");
    source(&prefix)?;
    kafka.create_topic(&NewTopic::new(format!("{prefix}.transactions"), 5).property("cleanup.policy", "compact"))?;
    ensure!(refusal(provide(&provision(&kafka, &prefix))) == "TOPIC_WRONG_PARTITIONS");

    let prefix = unique_name("policy");
    source(&prefix)?;
    kafka.create_topic(&NewTopic::new(format!("{prefix}.deltas"), 2))?;
    ensure!(refusal(provide(&provision(&kafka, &prefix))) == "TOPIC_WRONG_CLEANUP_POLICY");

    let prefix = unique_name("retention");
    source(&prefix)?;
    kafka.create_topic(&NewTopic::new(format!("{prefix}.movements"), 2).property("retention.ms", 3_600_000))?;
    ensure!(refusal(provide(&provision(&kafka, &prefix))) == "TOPIC_WRONG_CONFIGURATION");
    Ok(())
}

#[test]
fn instances_that_start_at_once_agree() -> Result<()> {
    let kafka = kafka()?;
    let prefix = unique_name("at-once");
    kafka.create_topic(&NewTopic::new(format!("{prefix}.source"), 2))?;
    let provision = provision(&kafka, &prefix);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| provide(&provision))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for outcome in outcomes {
        outcome.expect("no panic")?;
    }
    Ok(())
}
