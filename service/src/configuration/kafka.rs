//! Owns the librdkafka properties that an operator may set, and refuses those on which the guarantees rest.
//!
//! It never interprets a property it lets through: librdkafka says itself when it does not know one.

use std::collections::BTreeMap;
use std::fmt;

use crate::errors::Coded;

/// The tables `[kafka.consumer]`, `[kafka.producer]` and `[kafka.admin]` of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KafkaTables {
    /// For every consumer of the program.
    pub consumer: Properties,
    /// For every producer of the program.
    pub producer: Properties,
    /// For the admin client.
    pub admin: Properties,
}

/// librdkafka properties by name. `Debug` shows the names only: values may be passwords or keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    table: String,
    entries: BTreeMap<String, String>,
}

/// A property that must stay as the program sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protected {
    /// librdkafka's name of the property, or an alias of it.
    pub property: &'static str,
    /// What would break, in half a sentence.
    pub because: &'static str,
}

const fn protected(property: &'static str, because: &'static str) -> Protected {
    Protected { property, because }
}

/// Protected in every client, the admin client included: they have settings of their own.
pub const CLIENT_GUARANTEES: &[Protected] = &[
    protected("bootstrap.servers", "it is the setting --bootstrap-servers"),
    protected("metadata.broker.list", "it is the setting --bootstrap-servers"),
];

/// Protected in every consumer.
pub const CONSUMER_GUARANTEES: &[Protected] = &[
    protected("isolation.level", "records of aborted transactions would be read, and offsets of open ones trusted"),
    protected("enable.auto.commit", "offsets would be committed apart from what was made of the records"),
    protected("auto.commit.enable", "offsets would be committed apart from what was made of the records"),
    protected("auto.commit.interval.ms", "offsets are never committed by time"),
    protected("enable.auto.offset.store", "offsets would be committed apart from what was made of the records"),
    protected("auto.offset.reset", "a truncated or recreated topic would be skipped or read again in silence"),
    protected("group.id", "it is derived from a setting of its own"),
    protected("group.instance.id", "it is derived from the instance's name"),
    protected("group.protocol", "rebalances are handled as the classic protocol makes them"),
    protected("group.remote.assignor", "rebalances are handled as the classic protocol makes them"),
    protected("partition.assignment.strategy", "partitions are given up and taken one by one (cooperative-sticky)"),
    protected("enable.partition.eof", "the end of a partition is part of how progress is known"),
    protected("check.crcs", "damaged records would be believed"),
];

/// Protected in every producer.
pub const PRODUCER_GUARANTEES: &[Protected] = &[
    protected("transactional.id", "it is derived from the application id and the instance; another one fences nothing"),
    protected("enable.idempotence", "records would be doubled or reordered on a retry"),
    protected("enable.gapless.guarantee", "it is decided by the transactions"),
    protected("acks", "a committed record could be lost with one broker"),
    protected("request.required.acks", "a committed record could be lost with one broker"),
    protected("max.in.flight", "records could be reordered on a retry"),
    protected("max.in.flight.requests.per.connection", "records could be reordered on a retry"),
    protected("retries", "a transaction would be given up on a passing failure"),
    protected("message.send.max.retries", "a transaction would be given up on a passing failure"),
    protected("transaction.timeout.ms", "it is chosen to fit the waits of the engine"),
    protected("message.timeout.ms", "a record would be given up before its transaction"),
    protected("delivery.timeout.ms", "a record would be given up before its transaction"),
    protected("partitioner", "readers find a good by Kafka's own partitioner (murmur2)"),
    protected("delivery.report.only.error", "the state's changelog offsets come from delivery reports"),
    protected("queuing.strategy", "records must leave in the order in which they were produced"),
];

impl Properties {
    pub(super) fn new(table: String, entries: BTreeMap<String, String>) -> Self {
        Self { table, entries }
    }

    /// These properties above `others`, which count where these say nothing.
    #[must_use]
    pub fn above(mut self, mut others: BTreeMap<String, String>) -> Self {
        others.append(&mut self.entries);
        Self { entries: others, ..self }
    }

    /// Name and value of every property, to be set on a client before the program's own.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Refuses the table when it names any of the `protected` properties.
    ///
    /// # Errors
    /// `CONFIG_PROTECTED_PROPERTY`, naming property and table.
    pub fn refuse<'a>(&self, protected: impl IntoIterator<Item = &'a Protected>) -> Result<(), Coded> {
        for Protected { property, because } in protected {
            // Exact names suffice: librdkafka itself refuses any other spelling as unknown.
            if self.entries.contains_key(*property) {
                let what = format!("[{}] sets {property}, on which the guarantees rest: {because}", self.table);
                return Err(Coded::usage("CONFIG_PROTECTED_PROPERTY", what, "remove the property from the file"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.entries.keys()).finish()
    }
}
