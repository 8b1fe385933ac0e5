//! The verbs with which an operator speaks to running processors: records on the control topic.
//!
//! Owns writing one control record and nothing else; every worker reads the topic and acts, or not, by its
//! own state. The record is idempotent: saying a thing twice changes nothing.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::Control;
use service::Coded;
use service::configuration::KafkaTables;

use crate::kafka::config::operator_properties;
use crate::settings::{ApproveSweep, Kafka, SourceEmptied};

/// How long the brokers may take to acknowledge the record.
const PATIENCE: Duration = Duration::from_secs(30);

/// Approves the held sweep of one snapshot in one source partition.
pub fn approve_sweep(arguments: &ApproveSweep, tables: &KafkaTables) -> Result<(), Coded> {
    let ApproveSweep { kafka, partition, snapshot_lsn } = arguments;
    announce(kafka, tables, Control::ApproveSweep { partition: *partition, snapshot_lsn: *snapshot_lsn })?;
    println!(
        "approved: the sweep of snapshot {snapshot_lsn} in partition {partition}; the processors' log tells what it removes"
    );
    Ok(())
}

/// Says that the source table was empty at a position.
pub fn source_emptied(arguments: &SourceEmptied, tables: &KafkaTables) -> Result<(), Coded> {
    let SourceEmptied { kafka, snapshot_lsn } = arguments;
    announce(kafka, tables, Control::SourceEmptied { snapshot_lsn: *snapshot_lsn })?;
    println!("announced: the source was empty at lsn {snapshot_lsn}; every older row is removed");
    Ok(())
}

fn announce(kafka: &Kafka, tables: &KafkaTables, control: Control) -> Result<(), Coded> {
    let topics = schemas::Topics::new(&kafka.topic_prefix)
        .map_err(|error| Coded::usage("TOPIC_PREFIX_INVALID", error.to_string(), "give another --topic-prefix"))?;
    let properties = operator_properties(tables)?;
    let mut config = ClientConfig::new();
    for (name, value) in &properties.producer {
        config.set(name, value);
    }
    config
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("enable.idempotence", "true")
        .set("allow.auto.create.topics", "false")
        .set("message.timeout.ms", PATIENCE.as_millis().to_string());
    let failed = |what: String| {
        Coded::refused("CONTROL_NOT_WRITTEN", what, "check --bootstrap-servers and --topic-prefix; then say it again")
    };
    let producer: BaseProducer =
        config.create().map_err(|error| failed(format!("the producer could not be built: {error}")))?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    control.encode_key(&mut key);
    control.encode(&mut value);
    producer
        .send(BaseRecord::to(&topics.control).partition(0).key(&key).payload(&value))
        .map_err(|(error, _)| failed(format!("{} did not take the record: {error}", topics.control)))?;
    producer.flush(PATIENCE).map_err(|error| failed(format!("{} did not acknowledge: {error}", topics.control)))
}
