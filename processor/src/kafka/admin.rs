//! Topics at start: created with what correctness needs, or checked when they exist.
//!
//! Guards invariant 6: a wrong partition count, cleanup policy or retention stops the program with a code and
//! a remedy; nothing is ever altered or deleted. Which topics there are and what each needs is data
//! ([`TopicSpec`]); the checks are pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use processor_engine::{Failure, Stop};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::config;
use super::context::Context;
use super::errors::{is_transient, is_unknown_topic, refusal};
use super::ffi::{TopicDescription, describe_topics};
use super::rights;

/// How long tombstones stay in a compacted changelog: a state directory left alone for longer than this must
/// be restored from nothing, or deleted keys would come back.
pub const DELETE_RETENTION: Duration = Duration::from_secs(28 * 24 * 60 * 60);
/// Least retention of tombstones accepted on an existing changelog.
const LEAST_DELETE_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// Room for the headers that a dead letter adds to the record it holds.
const DEAD_LETTER_MARGIN: i64 = 64 * 1024;
/// Largest record accepted by topics that hold whole input records.
const LARGE_MESSAGE_BYTES: i64 = 32 * 1024 * 1024;
/// Replicas of created topics, unless told otherwise.
const DEFAULT_REPLICAS: i32 = 3;
const REQUEST: Duration = Duration::from_secs(10);
const BACKOFF: Duration = Duration::from_millis(250);

/// What to provide.
#[derive(Debug, Clone)]
pub struct Provision {
    /// `host:port,…`.
    pub bootstrap_servers: String,
    /// `[kafka.admin]`.
    pub properties: BTreeMap<String, String>,
    /// The input topic; never created.
    pub source: String,
    /// Names of our own topics begin with this and a dot.
    pub prefix: String,
    /// Partitions of movements and deltas; the source's when `None`.
    pub movements_partitions: Option<u16>,
    /// Replicas of created topics; three when `None`.
    pub replication_factor: Option<u16>,
    /// How long to wait for brokers that do not answer and for leaders.
    pub patience: Duration,
}

/// What was found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provided {
    /// Id of the cluster, so that a state directory of another one is noticed.
    pub cluster_id: String,
    /// Partitions of the source, and so of the transactions changelog.
    pub source_partitions: u16,
    /// Partitions of movements and deltas.
    pub movements_partitions: u16,
    /// The shorter `delete.retention.ms` of the two changelogs, ms.
    pub delete_retention_ms: u64,
}

/// How a topic forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cleanup {
    /// Keeps the newest record per key.
    Compact,
    /// Keeps everything, or by time.
    Delete,
}

impl Cleanup {
    const fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Delete => "delete",
        }
    }
}

/// What one topic needs.
#[derive(Debug, Clone)]
struct TopicSpec {
    name: String,
    partitions: u16,
    cleanup: Cleanup,
    /// Set when the topic is created.
    set: Vec<(&'static str, i64)>,
    /// Least values on an existing topic; −1 there means "no limit" and passes.
    at_least: Vec<(&'static str, i64)>,
    /// Exact values on an existing topic.
    exactly: Vec<(&'static str, i64)>,
}

/// Configuration of a topic, by name.
type Configuration = BTreeMap<String, String>;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Our topics. `source_max_bytes`: the largest record the source accepts.
fn our_topics(
    prefix: &str,
    source_partitions: u16,
    movements_partitions: u16,
    source_max_bytes: i64,
) -> Vec<TopicSpec> {
    let named = |name: &str, partitions, cleanup| TopicSpec {
        name: format!("{prefix}.{name}"),
        partitions,
        cleanup,
        set: Vec::new(),
        at_least: Vec::new(),
        exactly: Vec::new(),
    };
    let changelog = |name, partitions| TopicSpec {
        set: vec![("delete.retention.ms", millis(DELETE_RETENTION))],
        at_least: vec![("delete.retention.ms", millis(LEAST_DELETE_RETENTION))],
        ..named(name, partitions, Cleanup::Compact)
    };
    // Records that the program purges itself, or reads from the beginning for ever: time must not touch them.
    let everything = vec![("retention.ms", -1), ("retention.bytes", -1)];
    let kept = |name, partitions| TopicSpec {
        set: everything.clone(),
        exactly: everything.clone(),
        ..named(name, partitions, Cleanup::Delete)
    };
    let dead_letter_bytes = LARGE_MESSAGE_BYTES.max(source_max_bytes.saturating_add(DEAD_LETTER_MARGIN));
    vec![
        changelog("transactions", source_partitions),
        kept("movements", movements_partitions),
        changelog("deltas", movements_partitions),
        kept("control", 1),
        TopicSpec {
            // How long to keep refused records is the operator's choice, so an existing topic may differ.
            set: vec![("retention.ms", -1), ("retention.bytes", -1), ("max.message.bytes", dead_letter_bytes)],
            at_least: vec![("max.message.bytes", source_max_bytes.saturating_add(DEAD_LETTER_MARGIN))],
            ..named("dead-letters", source_partitions, Cleanup::Delete)
        },
    ]
}

/// Whether an existing topic is what the program needs.
fn check(spec: &TopicSpec, partitions: usize, found: &Configuration) -> Result<(), Stop> {
    let refuse = |code, what, remedy: String| Err(Stop { code, what, remedy });
    let name = &spec.name;
    // Dead letters are spread by nothing but the partition they came from: more is harmless.
    let wanted = usize::from(spec.partitions);
    if partitions != wanted {
        let what = format!("topic {name} has {partitions} partitions and needs {wanted}");
        let remedy = "a changed partition count moves keys away from their state: restore the topic with the right \
                      count, or start under a new topic prefix and application id";
        return refuse("TOPIC_WRONG_PARTITIONS", what, remedy.into());
    }
    let policy = found.get("cleanup.policy").map_or("", String::as_str);
    if policy != spec.cleanup.name() {
        let wanted = spec.cleanup.name();
        let what = format!("topic {name} has cleanup.policy={policy} and needs {wanted}");
        let remedy = format!(
            "if nothing was lost yet: kafka-configs --alter --entity-type topics --entity-name {name} \
             --add-config cleanup.policy={wanted}"
        );
        return refuse("TOPIC_WRONG_CLEANUP_POLICY", what, remedy);
    }
    let value = |key: &str| found.get(key).and_then(|text| text.parse::<i64>().ok());
    let least = spec.at_least.iter().filter(|(key, least)| value(key).is_some_and(|have| have != -1 && have < *least));
    let exact = spec.exactly.iter().filter(|(key, exact)| value(key).is_some_and(|have| have != *exact));
    if let Some((key, wanted)) = least.chain(exact).next() {
        let have = value(key).unwrap_or_default();
        let what = format!("topic {name} has {key}={have} and needs {wanted}");
        let remedy =
            format!("kafka-configs --alter --entity-type topics --entity-name {name} --add-config {key}={wanted}");
        return refuse("TOPIC_WRONG_CONFIGURATION", what, remedy);
    }
    Ok(())
}

/// Whether the source can be read correctly at all.
fn check_source(name: &str, found: &Configuration) -> Result<(), Stop> {
    let policy = found.get("cleanup.policy").map_or("", String::as_str);
    if policy.contains("compact") {
        return Err(Stop {
            code: "SOURCE_TOPIC_COMPACTED",
            what: format!(
                "input topic {name} has cleanup.policy={policy}: delete events vanish, tombstones tell nothing"
            ),
            remedy: format!(
                "kafka-configs --alter --entity-type topics --entity-name {name} --add-config cleanup.policy=delete, \
                 then let the connector take a new snapshot"
            ),
        });
    }
    Ok(())
}

/// Creates and checks topics; blocks. Called once, before workers start.
///
/// # Errors
/// [`Failure::Stop`] for everything that an operator must change; [`Failure::Rebuild`] when the brokers do not
/// answer within the patience given.
pub fn provide(provision: &Provision) -> Result<Provided, Failure> {
    let admin = Admin::new(provision)?;
    let source = admin.describe(&provision.source)?.ok_or_else(|| {
        Failure::stop(
            "SOURCE_TOPIC_MISSING",
            format!("input topic {} does not exist", provision.source),
            "register the connector (it creates the topic), or create the topic with the partitions it shall have",
        )
    })?;
    rights::check([(&source, rights::OF_SOURCE)])?;
    let source_configuration = admin.configuration(&provision.source)?;
    check_source(&provision.source, &source_configuration)?;
    let source_partitions = count(&source)?;
    let movements_partitions = provision.movements_partitions.unwrap_or(source_partitions);
    let source_max_bytes = number(&source_configuration, "max.message.bytes").unwrap_or(1_048_588);
    let specs = our_topics(&provision.prefix, source_partitions, movements_partitions, source_max_bytes);
    for spec in &specs {
        admin.ensure(spec, provision.replication_factor)?;
    }
    let own: Vec<TopicDescription> = specs.iter().map(|spec| admin.described(&spec.name)).collect::<Result<_, _>>()?;
    rights::check(own.iter().map(|topic| (topic, rights::of_own(&topic.name))))?;
    let mut delete_retention_ms = u64::MAX;
    for (spec, described) in specs.iter().zip(&own) {
        let found = admin.configuration(&spec.name)?;
        check(spec, described.partitions, &found)?;
        if spec.cleanup == Cleanup::Compact {
            let retention = number(&found, "delete.retention.ms").and_then(|ms| u64::try_from(ms).ok());
            delete_retention_ms = delete_retention_ms.min(retention.unwrap_or(u64::MAX));
        }
    }
    let cluster_id = admin.cluster_id()?;
    Ok(Provided { cluster_id, source_partitions, movements_partitions, delete_retention_ms })
}

fn number(found: &Configuration, key: &str) -> Option<i64> {
    found.get(key)?.parse().ok()
}

fn count(topic: &TopicDescription) -> Result<u16, Failure> {
    u16::try_from(topic.partitions).map_err(|_| {
        let what = format!("topic {} has {} partitions", topic.name, topic.partitions);
        Failure::stop("TOPIC_WRONG_PARTITIONS", what, "use fewer than 65,536 partitions")
    })
}

/// Connected to the brokers.
struct Admin {
    client: AdminClient<Context>,
    deadline: Instant,
}

impl Admin {
    fn new(provision: &Provision) -> Result<Self, Failure> {
        let config = config::admin(&provision.bootstrap_servers, "admin", &provision.properties);
        let client: AdminClient<Context> = config
            .create_with_context(Context::new("admin"))
            .map_err(|error| super::not_created("admin client", &error))?;
        Ok(Self { client, deadline: Instant::now() + provision.patience })
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST))
    }

    /// Waits before the next attempt, or says that the patience is over.
    fn again(&self, code: RDKafkaErrorCode, doing: &str) -> Result<(), Failure> {
        if let Some(stop) = refusal(code, doing, "") {
            return Err(stop);
        }
        if Instant::now() >= self.deadline {
            return Err(Failure::Rebuild(format!("{doing}: {code}")));
        }
        tracing::info!(%code, "{doing}: trying again");
        std::thread::sleep(BACKOFF);
        Ok(())
    }

    /// A topic, with a leader for every partition; `None` when there is no such topic.
    fn describe(&self, name: &str) -> Result<Option<TopicDescription>, Failure> {
        let doing = format!("describing topic {name}");
        loop {
            let topics = match describe_topics(self.client.inner(), &[name], REQUEST) {
                Ok(topics) => topics,
                Err(error) => {
                    self.again(error.code, &doing)?;
                    continue;
                }
            };
            let Some(topic) = topics.into_iter().find(|topic| topic.name == name) else { return Ok(None) };
            match &topic.error {
                None if topic.leaderless == 0 && topic.partitions > 0 => return Ok(Some(topic)),
                None => self.again(RDKafkaErrorCode::LeaderNotAvailable, &doing)?,
                Some(error) if is_unknown_topic(error.code) => return Ok(None),
                Some(error) => self.again(error.code, &doing)?,
            }
        }
    }

    /// As [`Admin::describe`], for a topic that exists: waits until its metadata has spread.
    fn described(&self, name: &str) -> Result<TopicDescription, Failure> {
        loop {
            if let Some(topic) = self.describe(name)? {
                return Ok(topic);
            }
            self.again(RDKafkaErrorCode::UnknownTopicOrPartition, &format!("waiting for topic {name}"))?;
        }
    }

    fn configuration(&self, name: &str) -> Result<Configuration, Failure> {
        let doing = format!("reading the configuration of topic {name}");
        loop {
            let resource = [ResourceSpecifier::Topic(name)];
            let code = match block_on(self.client.describe_configs(&resource, &Self::options())) {
                Ok(results) => match results.into_iter().next() {
                    Some(Ok(resource)) => {
                        let entries = resource.entries.into_iter();
                        let found: Configuration =
                            entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
                        // A broker that has not heard of a new topic yet answers with nothing at all.
                        if found.contains_key("cleanup.policy") {
                            return Ok(found);
                        }
                        RDKafkaErrorCode::UnknownTopicOrPartition
                    }
                    Some(Err(code)) => code,
                    None => RDKafkaErrorCode::Fail,
                },
                Err(error) => code_of(&error),
            };
            self.again(code, &doing)?;
        }
    }

    /// Creates a topic unless it exists, and waits until every partition has a leader.
    fn ensure(&self, spec: &TopicSpec, replication_factor: Option<u16>) -> Result<(), Failure> {
        if self.describe(&spec.name)?.is_some() {
            return Ok(());
        }
        // Not "as many as there are brokers": at a start with a broker down that would be fewer for ever, in silence.
        let replicas = replication_factor.map_or(DEFAULT_REPLICAS, i32::from);
        let mut settings: Vec<(&str, String)> = vec![
            ("cleanup.policy", spec.cleanup.name().to_owned()),
            ("compression.type", "producer".to_owned()),
            ("unclean.leader.election.enable", "false".to_owned()),
            ("min.insync.replicas", if replicas >= 3 { "2" } else { "1" }.to_owned()),
        ];
        settings.extend(spec.set.iter().map(|(key, value)| (*key, value.to_string())));
        let mut topic = NewTopic::new(&spec.name, i32::from(spec.partitions), TopicReplication::Fixed(replicas));
        for (key, value) in &settings {
            topic = topic.set(key, value);
        }
        let doing = format!("creating topic {}", spec.name);
        loop {
            let code = match block_on(self.client.create_topics([&topic], &Self::options())) {
                Ok(results) => match results.into_iter().next() {
                    // Another instance may have been faster; what it made is checked like any existing topic.
                    Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => break,
                    Some(Err((_, code))) => code,
                    None => RDKafkaErrorCode::Fail,
                },
                Err(error) => code_of(&error),
            };
            if is_refused(code) {
                let what = format!("{doing} with {} partitions and {replicas} replicas: {code}", spec.partitions);
                let remedy = "create the topic by hand as docs/OPERATIONS.md lists it, or set --replication-factor (3 unless told otherwise; it needs as many brokers up)";
                return Err(Failure::stop("TOPIC_NOT_CREATED", what, remedy));
            }
            self.again(code, &doing)?;
        }
        tracing::info!(topic = spec.name, partitions = spec.partitions, replicas, "topic created");
        self.described(&spec.name).map(drop)
    }

    fn cluster_id(&self) -> Result<String, Failure> {
        self.client
            .inner()
            .fetch_cluster_id(REQUEST)
            .ok_or_else(|| Failure::Rebuild("the brokers told no cluster id".into()))
    }
}

fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    match error {
        KafkaError::AdminOp(code) => *code,
        other => other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
    }
}

/// Whether asking again cannot help.
fn is_refused(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    !is_transient(code)
        && matches!(
            code,
            Code::InvalidConfig
                | Code::InvalidPartitions
                | Code::InvalidReplicationFactor
                | Code::InvalidReplicaAssignment
                | Code::InvalidTopic
                | Code::InvalidRequest
                | Code::PolicyViolation
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Vec<TopicSpec> {
        our_topics("shop.stock", 10, 4, 1_048_588)
    }

    fn topic(name: &str) -> TopicSpec {
        topics().into_iter().find(|spec| spec.name.ends_with(name)).unwrap()
    }

    fn as_created(spec: &TopicSpec) -> Configuration {
        let mut found = Configuration::from([("cleanup.policy".into(), spec.cleanup.name().into())]);
        found.extend(spec.set.iter().map(|(key, value)| ((*key).to_owned(), value.to_string())));
        found
    }

    #[test]
    fn topics_as_created_are_accepted() {
        for spec in topics() {
            check(&spec, usize::from(spec.partitions), &as_created(&spec)).unwrap();
        }
    }

    #[test]
    fn changelogs_follow_the_partitions_of_their_inputs() {
        let counts: Vec<(String, u16)> = topics().into_iter().map(|spec| (spec.name, spec.partitions)).collect();
        let expected = [("transactions", 10), ("movements", 4), ("deltas", 4), ("control", 1), ("dead-letters", 10)];
        let expected = expected.map(|(name, count)| (format!("shop.stock.{name}"), count));
        assert_eq!(counts, expected);
    }

    #[test]
    fn another_partition_count_is_refused() {
        let spec = topic("transactions");
        assert_eq!(check(&spec, 12, &as_created(&spec)).unwrap_err().code, "TOPIC_WRONG_PARTITIONS");
    }

    #[test]
    fn a_changelog_that_is_not_compacted_or_compacted_and_deleted_is_refused() {
        let spec = topic("deltas");
        for policy in ["delete", "compact,delete"] {
            let mut found = as_created(&spec);
            found.insert("cleanup.policy".into(), policy.into());
            assert_eq!(check(&spec, 4, &found).unwrap_err().code, "TOPIC_WRONG_CLEANUP_POLICY", "{policy}");
        }
    }

    #[test]
    fn movements_with_a_retention_are_refused() {
        let spec = topic("movements");
        let mut found = as_created(&spec);
        found.insert("retention.ms".into(), "604800000".into());
        assert_eq!(check(&spec, 4, &found).unwrap_err().code, "TOPIC_WRONG_CONFIGURATION");
    }

    #[test]
    fn a_changelog_that_forgets_tombstones_soon_is_refused() {
        let spec = topic("transactions");
        let mut found = as_created(&spec);
        found.insert("delete.retention.ms".into(), "1000".into());
        assert_eq!(check(&spec, 10, &found).unwrap_err().code, "TOPIC_WRONG_CONFIGURATION");
    }

    #[test]
    fn dead_letters_take_more_than_the_source_and_any_retention() {
        let spec = topic("dead-letters");
        let mut found = as_created(&spec);
        found.insert("retention.ms".into(), "604800000".into());
        check(&spec, 10, &found).unwrap();
        found.insert("max.message.bytes".into(), "1048588".into());
        assert_eq!(check(&spec, 10, &found).unwrap_err().code, "TOPIC_WRONG_CONFIGURATION");
    }

    #[test]
    fn a_compacted_source_is_refused() {
        for policy in ["compact", "compact,delete", "delete,compact"] {
            let found = Configuration::from([("cleanup.policy".into(), policy.into())]);
            assert_eq!(check_source("s", &found).unwrap_err().code, "SOURCE_TOPIC_COMPACTED");
        }
        check_source("s", &Configuration::from([("cleanup.policy".into(), "delete".into())])).unwrap();
    }
}
