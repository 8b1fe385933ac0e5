//! Asking a partition's leader where its log begins and ends.

use std::time::{Duration, Instant};

use processor_engine::Failure;
use processor_engine::cluster::LogEnds;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::errors::{is_transient, is_unknown_topic, refusal};

/// How long to wait for a leader (elections take seconds).
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long a topic may be unknown (metadata of a new one spreads within seconds).
const UNKNOWN_GRACE: Duration = Duration::from_secs(10);

/// Log start and end, as the consumer's isolation level sees the end.
///
/// # Errors
/// [`Failure::Stop`] when topic or partition do not exist or may not be read, [`Failure::Rebuild`] when no
/// leader answers.
pub(super) fn fetch<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Result<LogEnds, Failure> {
    let began = Instant::now();
    loop {
        let code = match consumer.fetch_watermarks(topic, partition, REQUEST) {
            Ok((start, high_watermark)) => return Ok(LogEnds { start, high_watermark }),
            Err(error) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
        };
        let what = format!("log ends of {topic} [{partition}]: {code}");
        if let Some(stop) = refusal(code, "asking for log ends", &what) {
            return Err(stop);
        }
        let unknown = is_unknown_topic(code);
        if unknown && began.elapsed() >= UNKNOWN_GRACE {
            return Err(Failure::stop(
                "TOPIC_MISSING",
                what,
                "the topic or partition does not exist: restore it, or see docs/OPERATIONS.md under this code",
            ));
        }
        if !unknown && (!is_transient(code) || began.elapsed() >= PATIENCE) {
            return Err(Failure::Rebuild(what));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
