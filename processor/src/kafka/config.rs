//! The librdkafka properties of every client: ours, the operator's, and those nobody may touch.
//!
//! Guards the settings that the guarantee depends on: `read_committed`, `auto.offset.reset=error`, no automatic
//! commits, idempotence, the transactional id. The operator's tables are applied over our defaults, and these
//! settings over the operator's. Nothing here talks to a broker.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use processor_engine::Topology;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use service::configuration::{
    CLIENT_GUARANTEES, CONSUMER_GUARANTEES, KafkaAccess, KafkaTables, PRODUCER_GUARANTEES, Properties,
};
use service::{Coded, Shutdown};

/// How long a broker waits before it aborts a transaction that its producer neither commits nor aborts. An
/// orphan blocks `read_committed` readers of the touched partitions for that long.
pub const DEFAULT_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// librdkafka properties from the operator: how brokers are spoken to, and above that what the configuration file passes
/// through. `Debug` shows the names only: values may be passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientProperties {
    /// `[kafka.consumer]`: the group member and the changelog reader.
    pub consumer: BTreeMap<String, String>,
    /// `[kafka.producer]`.
    pub producer: BTreeMap<String, String>,
    /// `[kafka.admin]`: topic creation, descriptions, watermarks, record deletion.
    pub admin: BTreeMap<String, String>,
}

impl fmt::Debug for ClientProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |table: &BTreeMap<String, String>| table.keys().cloned().collect::<Vec<_>>();
        let [consumer, producer, admin] = [&self.consumer, &self.producer, &self.admin].map(names);
        write!(formatter, "ClientProperties(consumer: {consumer:?}, producer: {producer:?}, admin: {admin:?})")
    }
}

/// Takes the operator's settings over, unless they touch what the guarantee depends on.
///
/// # Errors
/// `CONFIG_PROTECTED_PROPERTY`, naming the property; `KAFKA_ACCESS_SETTING`.
pub fn operator_properties(tables: &KafkaTables, access: &KafkaAccess) -> Result<ClientProperties, Coded> {
    tables.consumer.refuse(CLIENT_GUARANTEES.iter().chain(CONSUMER_GUARANTEES))?;
    tables.producer.refuse(CLIENT_GUARANTEES.iter().chain(PRODUCER_GUARANTEES))?;
    tables.admin.refuse(CLIENT_GUARANTEES)?;
    // One way to the brokers for all clients; a table may still say otherwise for its own.
    let access = access.properties()?;
    let owned = |properties: &Properties| {
        let properties = properties.clone().above(access.clone());
        properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    Ok(ClientProperties {
        consumer: owned(&tables.consumer),
        producer: owned(&tables.producer),
        admin: owned(&tables.admin),
    })
}

/// Everything a worker's clients need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port,…`.
    pub bootstrap_servers: String,
    /// Consumer group and first part of transactional ids.
    pub application_id: String,
    /// Name of this process among those of the group; stable across restarts, unique at any time.
    pub instance: String,
    /// Number of the worker thread within the process.
    pub worker: usize,
    /// Topics and stages.
    pub topology: Arc<Topology>,
    /// See [`DEFAULT_TRANSACTION_TIMEOUT`].
    pub transaction_timeout: Duration,
    /// Join the group as a static member (KIP-345) named after instance and worker: a restart within the
    /// session timeout takes its partitions back at once, but a stopped member's partitions idle until then.
    pub static_membership: bool,
    /// Properties passed through.
    pub properties: ClientProperties,
    /// Asked for when the program has to end: nothing is waited for then that may take as long as a transaction.
    pub shutdown: Shutdown,
}

impl Settings {
    /// The transactional id of a worker's producer: `{application}-{instance}-{worker}-{turn}`.
    pub fn transactional_id(&self, turn: usize) -> String {
        format!("{}-{turn}", self.member())
    }

    fn member(&self) -> String {
        format!("{}-{}-{}", self.application_id, self.instance, self.worker)
    }

    fn base(&self, role: &str) -> ClientConfig {
        base(&self.bootstrap_servers, &format!("{}-{role}", self.member()))
    }

    /// The group member.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut config = self.base("consumer");
        set(&mut config, FETCH);
        let operator = &self.properties.consumer;
        let classic = operator.get("group.protocol").is_none_or(|protocol| protocol == "classic");
        if classic {
            // Cooperative: partitions that stay are not interrupted. The session timeout is how long the
            // partitions of a killed member stand still; 10 s still survives a coordinator's restart.
            set(&mut config, &[("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "2000")]);
        }
        apply(&mut config, operator);
        if classic {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        if self.static_membership {
            config.set("group.instance.id", self.member());
        }
        config.set("group.id", &self.application_id).set("enable.partition.eof", "true");
        set(&mut config, READ_COMMITTED);
        config
    }

    /// The reader of changelogs and of the broadcast topic: no member of any group. It carries the group's id
    /// only because librdkafka assigns nothing without one, and because that id is already authorised.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.base("reader");
        set(&mut config, FETCH);
        apply(&mut config, &self.properties.consumer);
        for group_only in ["session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms", "group.protocol"] {
            config.remove(group_only);
        }
        config.set("group.id", &self.application_id).set("enable.partition.eof", "true");
        set(&mut config, READ_COMMITTED);
        config
    }

    /// The client that asks about logs: no group, and `read_uncommitted`, because a changelog must be restored
    /// to the high watermark (the LSO may lag behind a commit that was already acknowledged).
    pub(super) fn queries(&self) -> ClientConfig {
        let mut config = self.base("queries");
        apply(&mut config, &self.properties.admin);
        config.set("isolation.level", "read_uncommitted").set("allow.auto.create.topics", "false");
        config
    }

    /// One of the two transactional producers.
    pub(super) fn producer(&self, turn: usize) -> ClientConfig {
        let mut config = self.base(&format!("producer-{turn}"));
        set(&mut config, PRODUCE);
        apply(&mut config, &self.properties.producer);
        // Every broken connection, and not only those that librdkafka finds worth a line: the producer counts them.
        let debug = config.get("debug").map_or_else(|| "broker".to_owned(), |own| format!("{own},broker"));
        config.set_log_level(RDKafkaLogLevel::Debug);
        config
            .set("debug", debug)
            .set("transactional.id", self.transactional_id(turn))
            .set("transaction.timeout.ms", self.transaction_timeout.as_millis().to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("delivery.report.only.error", "false")
            .set("allow.auto.create.topics", "false");
        config
    }
}

/// The client that creates and checks topics.
pub(crate) fn admin(bootstrap_servers: &str, client_id: &str, operator: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = base(bootstrap_servers, client_id);
    apply(&mut config, operator);
    config
}

fn base(bootstrap_servers: &str, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", client_id);
    // Come back within seconds after an outage of any length (librdkafka's cap is 10 s).
    set(&mut config, &[("reconnect.backoff.max.ms", "2000"), ("socket.keepalive.enable", "true")]);
    config.set("bootstrap.servers", bootstrap_servers);
    config
}

/// Latency of an idle system first, then memory: a rewind discards everything prefetched.
const FETCH: &[(&str, &str)] = &[
    ("fetch.wait.max.ms", "100"),
    // The default of 1 s is a visible stall whenever the prefetch limit is hit (librdkafka#2879).
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.error.backoff.ms", "100"),
    // A few hundred ms of work; four times as much bought no speed and 100 MB of memory.
    ("queued.min.messages", "10000"),
    ("queued.max.messages.kbytes", "16384"),
];

const READ_COMMITTED: &[(&str, &str)] = &[
    // Also what makes librdkafka ask for stable offsets (KIP-447).
    ("isolation.level", "read_committed"),
    // `earliest` would hide truncation, `latest` would lose records.
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("allow.auto.create.topics", "false"),
    ("check.crcs", "true"),
];

const PRODUCE: &[(&str, &str)] = &[
    ("compression.type", "lz4"),
    // The commit flushes at once, so lingering only ever batches within a transaction. A request holds records of one
    // partition, and every request costs the brokers the same: 5 ms cost a third of the throughput, 1 s gave no more.
    ("linger.ms", "50"),
    ("batch.size", "1000000"),
    ("batch.num.messages", "100000"),
    // A transaction of 10,000 inputs with several outputs each must fit, or producing stalls.
    ("queue.buffering.max.messages", "500000"),
    ("queue.buffering.max.kbytes", "262144"),
    // A dead letter is larger than the input it holds.
    ("message.max.bytes", "33554432"),
    // CONCURRENT_TRANSACTIONS while the previous markers are written: ask again soon.
    ("retry.backoff.ms", "10"),
    ("retry.backoff.max.ms", "200"),
    ("socket.timeout.ms", "10000"),
    // Sending offsets ignores its timeout while the group's dead coordinator is cached, until any connection changes its
    // state (librdkafka#5456, #5511): an idle one is closed this soon, well before the transaction times out.
    ("connections.max.idle.ms", "10000"),
];

fn set(config: &mut ClientConfig, properties: &[(&str, &str)]) {
    for (key, value) in properties {
        config.set(*key, *value);
    }
}

fn apply(config: &mut ClientConfig, operator: &BTreeMap<String, String>) {
    for (key, value) in operator {
        config.set(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use processor_engine::TopicIndex;
    use rdkafka::consumer::BaseConsumer;

    fn settings() -> Settings {
        Settings {
            bootstrap_servers: "localhost:1".into(),
            application_id: "stock".into(),
            instance: "a".into(),
            worker: 3,
            topology: Arc::new(Topology { topics: Vec::new(), stages: Vec::new(), broadcast: TopicIndex(0) }),
            transaction_timeout: DEFAULT_TRANSACTION_TIMEOUT,
            static_membership: false,
            properties: ClientProperties::default(),
            shutdown: Shutdown::new(),
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn brokers_that_die_do_not_crash_a_program_linked_as_this_one_is() {
        assert!(service_kafka::leader_discovery::is_mended());
    }

    #[test]
    fn transactional_ids_name_application_instance_worker_and_turn() {
        assert_eq!(settings().transactional_id(1), "stock-a-3-1");
    }

    #[test]
    fn what_the_guarantee_depends_on_wins_over_the_operator() {
        let mut settings = settings();
        for (key, value) in [("isolation.level", "read_uncommitted"), ("auto.offset.reset", "latest")] {
            settings.properties.consumer.insert(key.into(), value.into());
        }
        settings.properties.producer.insert("acks".into(), "1".into());
        for config in [settings.consumer(), settings.reader()] {
            assert_eq!(config.get("isolation.level"), Some("read_committed"));
            assert_eq!(config.get("auto.offset.reset"), Some("error"));
        }
        assert_eq!(settings.producer(0).get("acks"), Some("all"));
    }

    #[test]
    fn the_operator_wins_over_defaults() {
        let mut settings = settings();
        settings.properties.producer.insert("linger.ms".into(), "20".into());
        settings.properties.consumer.insert("session.timeout.ms".into(), "30000".into());
        assert_eq!(settings.producer(0).get("linger.ms"), Some("20"));
        assert_eq!(settings.consumer().get("session.timeout.ms"), Some("30000"));
    }

    #[test]
    fn the_reader_is_built_whatever_the_operator_says_of_the_group() {
        let mut settings = settings();
        // The second is less than the default of the first, which the reader would be left with.
        for (key, value) in [("session.timeout.ms", "5000"), ("max.poll.interval.ms", "10000")] {
            settings.properties.consumer.insert(key.into(), value.into());
        }
        let _reader: BaseConsumer = settings.reader().create().unwrap();
    }

    #[test]
    fn every_client_is_let_in_by_the_same_settings_and_shows_none_of_them() {
        let access = KafkaAccess {
            kafka_security_protocol: Some(service::configuration::SecurityProtocol::SaslSsl),
            kafka_sasl_mechanism: Some(service::configuration::SaslMechanism::ScramSha512),
            kafka_user: Some("me".into()),
            kafka_password: Some("hunter2".parse().unwrap()),
            ..KafkaAccess::default()
        };
        let properties = operator_properties(&KafkaTables::default(), &access).unwrap();
        let settings = Settings { properties, ..settings() };
        let admin = admin("localhost:1", "admin", &settings.properties.admin);
        for config in [settings.consumer(), settings.reader(), settings.queries(), settings.producer(0), admin] {
            assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
            assert_eq!(config.get("sasl.password"), Some("hunter2"));
            config.create_native_config().unwrap();
        }
        let shown = format!("{settings:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn librdkafka_knows_every_property() {
        let mut settings = settings();
        for config in [settings.consumer(), settings.reader(), settings.queries(), settings.producer(0)] {
            config.create_native_config().unwrap();
        }
        settings.properties.consumer.insert("group.protocol".into(), "consumer".into());
        settings.consumer().create_native_config().unwrap();
        assert_eq!(settings.consumer().get("session.timeout.ms"), None);
    }
}
