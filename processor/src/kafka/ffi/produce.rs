//! Queueing records by topic handle.
//!
//! The crate's `send` hands librdkafka the topic's *name* with every record: a string to allocate, hash and look up
//! under a lock. A handle is resolved once per client.

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::IntoOpaque;
use rdkafka_sys as sys;

use super::outcome;
use crate::kafka::errors::NativeError;

/// A producer and the handles of its topics.
/// `Drop` releases the handles before the client is destroyed, which would otherwise wait for them for ever.
pub(in crate::kafka) struct Outbox<C: ProducerContext<NoCustomPartitioner> + 'static> {
    topics: Vec<NonNull<sys::rd_kafka_topic_t>>,
    producer: ThreadedProducer<C>,
}

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl<C: ProducerContext<NoCustomPartitioner> + Send + 'static> Send for Outbox<C> {}

/// What is queued.
pub(in crate::kafka) struct Outgoing<'a> {
    /// Position of the topic in the list the outbox was made with.
    pub(in crate::kafka) topic: usize,
    /// Partition.
    pub(in crate::kafka) partition: i32,
    /// Record key.
    pub(in crate::kafka) key: Option<&'a [u8]>,
    /// Record value; `None` is a tombstone.
    pub(in crate::kafka) value: Option<&'a [u8]>,
    /// Headers in order.
    pub(in crate::kafka) headers: &'a [(&'a str, &'a [u8])],
}

impl<C: ProducerContext<NoCustomPartitioner> + 'static> Outbox<C> {
    /// Resolves the topics.
    pub(in crate::kafka) fn new(producer: ThreadedProducer<C>, topics: &[String]) -> Result<Self, NativeError> {
        let mut outbox = Self { topics: Vec::with_capacity(topics.len()), producer };
        for name in topics {
            let invalid = || NativeError::local(RDKafkaErrorCode::InvalidTopic, format!("topic {name:?}"));
            let name = CString::new(name.as_str()).map_err(|_| invalid())?;
            // SAFETY: the client is live, the name lives during the call; a null configuration means the client's
            // default. The result is null or a reference that we own.
            let handle = unsafe {
                sys::rd_kafka_topic_new(outbox.client().client().native_ptr(), name.as_ptr(), ptr::null_mut())
            };
            outbox.topics.push(NonNull::new(handle).ok_or_else(invalid)?);
        }
        Ok(outbox)
    }

    /// The producer.
    pub(in crate::kafka) fn client(&self) -> &ThreadedProducer<C> {
        &self.producer
    }

    /// Queues a record; everything is copied. `opaque` comes back with its delivery report.
    pub(in crate::kafka) fn produce(
        &self,
        record: &Outgoing<'_>,
        opaque: C::DeliveryOpaque,
    ) -> Result<(), NativeError> {
        let unknown = || NativeError::local(RDKafkaErrorCode::InvalidTopic, "no such topic");
        let topic = self.topics.get(record.topic).ok_or_else(unknown)?;
        let opaque = opaque.into_ptr();
        // Few records have headers: their names are made C strings here, and live until the call returns.
        let names: Vec<CString> =
            record.headers.iter().map(|(name, _)| CString::new(*name).unwrap_or_default()).collect();
        let fixed = [
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, |value| value.rkt = topic.as_ptr()),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION, |value| value.i32_ = record.partition),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, |value| value.i = sys::RD_KAFKA_MSG_F_COPY),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, |value| value.mem = memory(record.key)),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, |value| value.mem = memory(record.value)),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE, |value| value.ptr = opaque),
        ];
        let with_headers;
        let arguments: &[sys::rd_kafka_vu_t] = if names.is_empty() {
            &fixed
        } else {
            let headers = names.iter().zip(record.headers).map(|(name, (_, bytes))| {
                let header = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
                    name: name.as_ptr(),
                    val: bytes.as_ptr().cast::<c_void>(),
                    // A slice is never longer than isize::MAX.
                    size: isize::try_from(bytes.len()).unwrap_or(isize::MAX),
                };
                argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADER, |value| value.header = header)
            });
            with_headers = fixed.into_iter().chain(headers).collect::<Vec<_>>();
            &with_headers
        };
        // SAFETY: client and topic are live; every pointer in the arguments lives during the call, which copies what
        // they point to; the error object is ours.
        let result = unsafe {
            outcome(sys::rd_kafka_produceva(self.producer.client().native_ptr(), arguments.as_ptr(), arguments.len()))
        };
        if result.is_err() {
            // SAFETY: not taken over by librdkafka, so it is still ours.
            drop(unsafe { C::DeliveryOpaque::from_ptr(opaque) });
        }
        result
    }
}

impl<C: ProducerContext<NoCustomPartitioner> + 'static> Drop for Outbox<C> {
    fn drop(&mut self) {
        for topic in self.topics.drain(..) {
            // SAFETY: our own references, not used afterwards; the client still lives.
            unsafe { sys::rd_kafka_topic_destroy(topic.as_ptr()) }
        }
    }
}

fn argument(
    vtype: sys::rd_kafka_vtype_t,
    set: impl FnOnce(&mut sys::rd_kafka_vu_s__bindgen_ty_1),
) -> sys::rd_kafka_vu_t {
    let mut value = sys::rd_kafka_vu_s__bindgen_ty_1 { ptr: ptr::null_mut() };
    set(&mut value);
    sys::rd_kafka_vu_t { vtype, u: value }
}

/// Null for `None`, so that librdkafka can tell a null value from an empty one.
fn memory(bytes: Option<&[u8]>) -> sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
    let (start, size) = bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut(), bytes.len()));
    sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: start.cast::<c_void>(), size }
}
