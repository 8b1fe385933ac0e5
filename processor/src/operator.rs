//! The verbs with which an operator speaks to running processors: records on the control topic.
//!
//! Owns writing one control record and nothing else; every worker reads the topic and acts, or not, by its
//! own state. The record is idempotent: saying a thing twice changes nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use schemas::Control;
use service::Coded;
use service::configuration::KafkaTables;
use service_kafka::Reached;

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
    let properties = operator_properties(tables, &kafka.access)?;
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
    let first = crate::kafka::config::admin(&kafka.bootstrap_servers, "operator", &properties.admin);
    if let Reached::NotYet(reason) = service_kafka::reach(&first, &[], PATIENCE)? {
        return Err(failed(format!("no broker answers: {reason}")));
    }
    let producer: BaseProducer<Acknowledged> = config
        .create_with_context(Acknowledged::default())
        .map_err(|error| service_kafka::setting_refused("producer", &error))?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    control.encode_key(&mut key);
    control.encode(&mut value);
    producer
        .send(BaseRecord::to(&topics.control).partition(0).key(&key).payload(&value))
        .map_err(|(error, _)| not_written(&topics.control, &error, &failed))?;
    producer.flush(PATIENCE).map_err(|error| failed(format!("{} did not acknowledge: {error}", topics.control)))?;
    let outcome = producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match outcome {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(not_written(&topics.control, &error, &failed)),
        None => Err(failed(format!("{} did not acknowledge", topics.control))),
    }
}

/// A missing right has a code of its own.
fn not_written(topic: &str, error: &KafkaError, failed: &dyn Fn(String) -> Coded) -> Coded {
    let doing = format!("writing to {topic}");
    let refused = error.rdkafka_error_code().and_then(|code| service_kafka::refusal(code, &doing, ""));
    refused.unwrap_or_else(|| failed(format!("{doing}: {error}")))
}

/// What became of the one record.
#[derive(Default)]
struct Acknowledged(Mutex<Option<Result<(), KafkaError>>>);

impl ClientContext for Acknowledged {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {
        // The verb has no log; what matters comes back as an error.
    }
}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let outcome = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}
