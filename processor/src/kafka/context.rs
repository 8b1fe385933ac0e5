//! What librdkafka tells about its clients, as log lines; and the answer to a rebalance while a consumer closes.
//!
//! Levels follow what an operator has to do, not librdkafka's own: a broken connection that it mends by
//! itself is a warning.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

/// Context of a client; `client` names it in log lines.
#[derive(Debug, Clone)]
pub(super) struct Context {
    client: &'static str,
}

impl Context {
    /// Context of a client of this kind.
    pub(super) fn new(client: &'static str) -> Self {
        Self { client }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.client;
        #[cfg(target_os = "linux")]
        if service_kafka::leader_discovery::is_told_of(facility, message) {
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", client, facility, "{message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", client, facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", client, facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", client, facility, "{message}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let client = self.client;
        tracing::debug!(target: "librdkafka::statistics", client, "{}", String::from_utf8_lossy(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", client = self.client, %error, "{reason}");
    }
}

impl ConsumerContext for Context {
    /// Only reached while the consumer is dropped: until then the queue is read directly and rebalances are
    /// answered by the worker. Closing waits for an answer, so it is given inline.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assign = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let answered = match (consumer.rebalance_protocol(), assign) {
            (RebalanceProtocol::Cooperative, true) => consumer.incremental_assign(partitions),
            (RebalanceProtocol::Cooperative, false) => consumer.incremental_unassign(partitions),
            (_, true) => consumer.assign(partitions),
            (_, false) => consumer.unassign(),
        };
        if let Err(error) = answered {
            tracing::warn!(target: "librdkafka", client = self.client, %error, "rebalance while closing not answered");
        }
    }
}
