//! The only `unsafe` of the benchmarks: the commit that the rdkafka crate wraps with a flat wait of 100 ms.

#![allow(unsafe_code)]

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka_sys as sys;

/// Commits the open transaction, flushing at once; the producer's own thread serves delivery reports meanwhile.
pub(crate) fn commit_transaction<C>(producer: &ThreadedProducer<C>, timeout: Duration) -> Result<(), RDKafkaErrorCode>
where
    C: ProducerContext<NoCustomPartitioner> + 'static,
{
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as the borrow; an error object belongs to the caller, and it is read before it
    // is destroyed, once.
    unsafe {
        let error = sys::rd_kafka_commit_transaction(producer.client().native_ptr(), milliseconds);
        if error.is_null() {
            return Ok(());
        }
        let code = sys::rd_kafka_error_code(error);
        sys::rd_kafka_error_destroy(error);
        Err(code.into())
    }
}
