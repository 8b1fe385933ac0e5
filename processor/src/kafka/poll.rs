//! What the group member and the log reader have in common: reading events, judging errors.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use processor_engine::cluster::Record;
use processor_engine::{Failure, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::context::Context;
use super::errors::{is_unknown_topic, refusal};
use super::ffi::{ConsumerError, Kind, Parts};
use super::topics::Topics;

/// How long a topic may be unknown before it counts as gone: metadata of a new topic, or of a broker that has
/// just started, spreads within seconds.
const UNKNOWN_TOPIC_GRACE: Duration = Duration::from_secs(15);

/// How long brokers have to say whether they know a topic.
const ONE_ANSWER: Duration = Duration::from_secs(5);

/// What an error on a consumer's queue asks for.
pub(super) enum Trouble {
    /// librdkafka mends it by itself; it was logged.
    Passing,
    /// A topic seems to be missing; see [`confirm_missing`].
    UnknownTopic,
    /// Somebody has to act.
    Serious(Failure),
}

/// Hands a record on, unless its partition is not being read or it lies below the offset it was started at.
pub(super) fn deliver(
    parts: &Parts<'_>,
    topics: &Topics,
    started: &HashMap<TopicPartition, i64>,
    on_record: &mut dyn FnMut(&Record<'_>),
) -> bool {
    let Some(topic) = topics.index(parts.topic) else { return false };
    let source = TopicPartition { topic, partition: parts.partition };
    if started.get(&source).is_none_or(|floor| parts.offset < *floor) {
        return false;
    }
    on_record(&Record {
        source,
        offset: parts.offset,
        timestamp_ms: parts.timestamp_ms,
        leader_epoch: parts.leader_epoch,
        key: parts.key,
        value: parts.value,
        headers: &parts.headers,
    });
    true
}

/// The end of a partition that is being read, and the position there (control records passed).
pub(super) fn end(
    error: &ConsumerError,
    topics: &Topics,
    started: &HashMap<TopicPartition, i64>,
) -> Option<(TopicPartition, i64)> {
    if error.code != RDKafkaErrorCode::PartitionEOF {
        return None;
    }
    let element = error.partition.as_ref()?;
    let partition = topics.partition(element)?;
    started.get(&partition).is_some_and(|floor| element.offset >= *floor).then_some((partition, element.offset))
}

/// Whether an error says that records at an offset cannot be had.
pub(super) fn names_an_offset(error: &ConsumerError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error.code, Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation)
}

/// Whether an error is that of a partition that is not being read (any more), or of a position before its start.
///
/// librdkafka drops outdated records by itself, but not outdated errors: they carry no version, outlive the loss of
/// a partition in its queue, and come out when it is assigned again (`rd_kafka_offset_reset`,
/// `rd_kafka_consumer_err`). A member that slept while others went on and purged finds one for each partition.
pub(super) fn is_stale(error: &ConsumerError, topics: &Topics, started: &HashMap<TopicPartition, i64>) -> bool {
    let Some(element) = error.partition.as_ref() else { return false };
    let Some(partition) = topics.partition(element) else { return false };
    started.get(&partition).is_none_or(|floor| (0..*floor).contains(&element.offset))
}

/// Passes log lines and statistics to the client's context.
pub(super) fn report(kind: &Kind<'_>, context: &Context) {
    match kind {
        Kind::Log(level, facility, text) => context.log(*level, facility, text.trim()),
        Kind::Stats(json) => context.stats_raw(json),
        Kind::Record(_) | Kind::Error(_) | Kind::Rebalance { .. } | Kind::Other => {}
    }
}

/// Judges an error. `role` begins the codes: `INPUT` or `CHANGELOG`.
pub(super) fn judge(error: &ConsumerError, topics: &Topics, role: &'static str) -> Trouble {
    use RDKafkaErrorCode as Code;
    let place = error.partition.as_ref().map_or_else(String::new, |element| {
        format!("{} [{}] at offset {}: ", element.topic, element.partition, element.offset)
    });
    let what = format!("{place}{} ({})", error.text.trim(), error.code);
    let input = role == "INPUT";
    match error.code {
        Code::PartitionEOF => Trouble::Passing,
        Code::LogTruncation => Trouble::Serious(truncated(input, what)),
        // librdkafka reports truncation through the reset as well; the text tells the two apart.
        Code::AutoOffsetReset | Code::OffsetOutOfRange if what.contains("truncation") => {
            Trouble::Serious(truncated(input, what))
        }
        // librdkafka fetches such a partition no more and refuses to seek it, so nothing less than a new client helps.
        Code::AutoOffsetReset | Code::OffsetOutOfRange => Trouble::Serious(Failure::stop(
            if input { "INPUT_OFFSET_OUT_OF_RANGE" } else { "CHANGELOG_OFFSET_OUT_OF_RANGE" },
            what,
            "start the process again: a member that slept while another one went on is merely late; if records are \
             really gone, the start says so with a code of its own",
        )),
        code if is_unknown_topic(code) => Trouble::UnknownTopic,
        code => {
            if let Some(stop) = refusal(code, "reading", &what) {
                return Trouble::Serious(stop);
            }
            if error.fatal {
                // librdkafka has unassigned everything without telling; only a new client can go on.
                return Trouble::Serious(member_lost(format!("the consumer failed for good: {what}")));
            }
            tracing::warn!(topics = topics.topology().topics.len(), "consumer: {what}");
            Trouble::Passing
        }
    }
}

/// Only a new client can go on.
pub(super) fn member_lost(what: String) -> Failure {
    Failure::stop(
        "KAFKA_MEMBER_LOST",
        what,
        "nothing at once: start the process again; if it repeats, look for another process of the same \
         --application-id and --instance",
    )
}

fn truncated(input: bool, what: String) -> Failure {
    Failure::stop(
        if input { "INPUT_LOG_TRUNCATED" } else { "CHANGELOG_LOG_TRUNCATED" },
        what,
        "the brokers lost records that were acknowledged (unclean leader election, or a restored disk): see \
         docs/OPERATIONS.md under this code",
    )
}

/// Asks the brokers until the topic is there again or the grace is over. librdkafka reports a missing topic
/// once, so the answer must be found now.
pub(super) fn confirm_missing(
    consumer: &BaseConsumer<Context>,
    topics: &Topics,
    error: &ConsumerError,
) -> Option<Failure> {
    let deadline = Instant::now() + UNKNOWN_TOPIC_GRACE;
    let named = error.partition.as_ref().map(|element| element.topic.clone());
    let suspects: Vec<String> = match named.filter(|name| topics.index(name.as_bytes()).is_some()) {
        Some(name) => vec![name],
        None => topics.topology().topics.clone(),
    };
    for name in suspects {
        let mut unknown_since = None;
        loop {
            let answer = consumer.fetch_metadata(Some(&name), ONE_ANSWER).map(|metadata| {
                metadata.topics().iter().any(|topic| {
                    topic.name() == name && topic.error().is_some_and(|code| is_unknown_topic(code.into()))
                })
            });
            match answer {
                Ok(true) => {
                    let since = *unknown_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= UNKNOWN_TOPIC_GRACE {
                        return Some(Failure::stop(
                            "TOPIC_MISSING",
                            format!("topic {name} does not exist: {}", error.text.trim()),
                            "create the topic again only if its data is not needed; otherwise restore it, then start again",
                        ));
                    }
                }
                Ok(false) => break,
                // Brokers that cannot be asked are an outage, not a missing topic; but they may answer in a moment.
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => unknown_since = None,
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }
    None
}
