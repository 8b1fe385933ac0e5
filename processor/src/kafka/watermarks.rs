//! Asking a partition's leader where its log begins and ends.

use std::time::{Duration, Instant};

use processor_engine::Failure;
use processor_engine::cluster::LogEnds;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::errors::{is_transient, is_unknown_topic, refusal};

/// How long to wait for a leader (elections take seconds).
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for word of who leads.
const METADATA: Duration = Duration::from_secs(2);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// Log start and end, as the consumer's isolation level sees the end. Asks again for as long as `patience`.
///
/// # Errors
/// [`Failure::Stop`] when the topic may not be read, [`Failure::Rebuild`] when no leader answers.
pub(super) fn fetch<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    patience: Duration,
) -> Result<LogEnds, Failure> {
    let began = Instant::now();
    // A leader that was deposed and has not heard of it goes on answering with the end it knows, and nothing in such an
    // answer makes librdkafka ask who leads now. Of two words it believes the one with the newer leader epoch; without
    // any it asks whom it knows.
    let _believed = consumer.fetch_metadata(Some(topic), METADATA);
    loop {
        let code = match consumer.fetch_watermarks(topic, partition, REQUEST) {
            Ok((start, high_watermark)) => return Ok(LogEnds { start, high_watermark }),
            Err(error) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
        };
        let what = format!("log ends of {topic} [{partition}]: {code}");
        if let Some(stop) = refusal(code, "asking for log ends", &what) {
            return Err(stop);
        }
        // "Unknown" proves nothing here: librdkafka says so of a partition without a leader, too, and a broker that
        // has just come back says so of everything.
        let passing = is_transient(code) || is_unknown_topic(code);
        if !passing || began.elapsed() >= patience {
            return Err(Failure::Rebuild(what));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
