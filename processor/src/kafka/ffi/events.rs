//! The consumer's event queue, read directly.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::{Element, copy_element, copy_elements, millis, owned};

/// A consumer and its event queue.
///
/// `BaseConsumer::poll` reports an end of partition without its topic and an error without its partition;
/// reading the same queue directly tells both, and hands rebalances to the caller instead of a callback.
/// Field order matters: the queue is released before the client is destroyed.
pub(in crate::kafka) struct Poller<C: ConsumerContext> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    consumer: Option<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues and clients may be used from any thread.
unsafe impl<C: ConsumerContext> Send for Poller<C> {}

impl<C: ConsumerContext> Poller<C> {
    /// Takes a consumer that has a `group.id`; `None` for one without.
    pub(in crate::kafka) fn new(consumer: BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the client is live; the result is null or a reference that we own.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Some(Self { queue: NonNull::new(queue)?, consumer: Some(consumer) })
    }

    /// The consumer.
    pub(in crate::kafka) fn consumer(&self) -> Option<&BaseConsumer<C>> {
        self.consumer.as_ref()
    }

    /// Waits up to `timeout` for one event.
    pub(in crate::kafka) fn poll(&mut self, timeout: Duration) -> Option<Event<'_>> {
        // SAFETY: the queue is live; the result is null or an event that we own.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), millis(timeout)) };
        Some(Event { event: NonNull::new(event)?, poller: PhantomData })
    }
}

impl<C: ConsumerContext> Drop for Poller<C> {
    fn drop(&mut self) {
        // SAFETY: our own reference, not used afterwards, released while the client still lives.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
        drop(self.consumer.take());
    }
}

/// One event; borrows the poller, so it cannot outlive the client.
pub(in crate::kafka) struct Event<'a> {
    event: NonNull<sys::rd_kafka_event_t>,
    poller: PhantomData<&'a ()>,
}

/// What an event is.
pub(in crate::kafka) enum Kind<'a> {
    /// A record.
    Record(Parts<'a>),
    /// An error, or an end of partition.
    Error(ConsumerError),
    /// The group protocol wants an answer.
    Rebalance {
        /// Partitions are given; otherwise taken.
        assign: bool,
        /// Which.
        partitions: Vec<Element>,
    },
    /// A log line of the library.
    Log(RDKafkaLogLevel, String, String),
    /// Statistics as JSON.
    Stats(Vec<u8>),
    /// Nothing of interest.
    Other,
}

/// An error on a consumer's queue.
#[derive(Debug)]
pub(in crate::kafka) struct ConsumerError {
    pub(in crate::kafka) code: RDKafkaErrorCode,
    pub(in crate::kafka) text: String,
    pub(in crate::kafka) fatal: bool,
    /// The partition it belongs to, if to one; its offset is where the error (or the end) is.
    pub(in crate::kafka) partition: Option<Element>,
}

impl Event<'_> {
    /// Takes an event; `None` for null.
    ///
    /// # Safety
    /// `event` is null or owned by the caller, and its client outlives `'a` as inferred there.
    pub(super) unsafe fn from_raw(event: *mut sys::rd_kafka_event_t) -> Option<Self> {
        Some(Event { event: NonNull::new(event)?, poller: PhantomData })
    }

    /// The event, alive as long as `self`.
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.event.as_ptr()
    }

    /// Reads the event.
    pub(in crate::kafka) fn kind(&self) -> Kind<'_> {
        let event = self.event.as_ptr();
        // SAFETY: the event is live until `self` is dropped; each accessor is called for its own type only.
        unsafe {
            match sys::rd_kafka_event_type(event) {
                sys::RD_KAFKA_EVENT_FETCH => NonNull::new(sys::rd_kafka_event_message_next(event).cast_mut())
                    .map_or(Kind::Other, |message| Kind::Record(parts(message))),
                sys::RD_KAFKA_EVENT_ERROR => Kind::Error(self.error()),
                sys::RD_KAFKA_EVENT_REBALANCE => Kind::Rebalance {
                    assign: sys::rd_kafka_event_error(event)
                        == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS,
                    // The list belongs to the event: copied, never kept.
                    partitions: copy_elements(sys::rd_kafka_event_topic_partition_list(event)),
                },
                sys::RD_KAFKA_EVENT_LOG => self.log(),
                sys::RD_KAFKA_EVENT_STATS => {
                    let json = sys::rd_kafka_event_stats(event);
                    if json.is_null() { Kind::Other } else { Kind::Stats(CStr::from_ptr(json).to_bytes().to_vec()) }
                }
                _ => Kind::Other,
            }
        }
    }

    /// # Safety
    /// The event is an error event.
    unsafe fn error(&self) -> ConsumerError {
        let event = self.event.as_ptr();
        // SAFETY: live event of the right type; the partition is a copy that we own and destroy.
        unsafe {
            let raw = sys::rd_kafka_event_topic_partition(event);
            let partition = raw.as_ref().map(|element| copy_element(element));
            if !raw.is_null() {
                sys::rd_kafka_topic_partition_destroy(raw);
            }
            ConsumerError {
                code: sys::rd_kafka_event_error(event).into(),
                text: owned(sys::rd_kafka_event_error_string(event)),
                fatal: sys::rd_kafka_event_error_is_fatal(event) != 0,
                partition,
            }
        }
    }

    /// # Safety
    /// The event is a log event.
    unsafe fn log(&self) -> Kind<'static> {
        let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: live event of the right type; the strings belong to it and are copied.
        unsafe {
            if sys::rd_kafka_event_log(self.event.as_ptr(), &raw mut facility, &raw mut text, &raw mut level) != 0 {
                return Kind::Other;
            }
            Kind::Log(log_level(level), owned(facility), owned(text))
        }
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used afterwards.
        unsafe { sys::rd_kafka_event_destroy(self.event.as_ptr()) }
    }
}

/// Syslog level to the crate's enum (its own conversion is private).
fn log_level(level: c_int) -> RDKafkaLogLevel {
    match level {
        ..=0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    }
}

/// The parts of a record, borrowed from its event.
pub(in crate::kafka) struct Parts<'a> {
    pub(in crate::kafka) topic: &'a [u8],
    pub(in crate::kafka) partition: i32,
    pub(in crate::kafka) offset: i64,
    pub(in crate::kafka) timestamp_ms: Option<i64>,
    pub(in crate::kafka) leader_epoch: Option<i32>,
    pub(in crate::kafka) key: Option<&'a [u8]>,
    pub(in crate::kafka) value: Option<&'a [u8]>,
    pub(in crate::kafka) headers: MessageHeaders<'a>,
}

/// # Safety
/// `message` belongs to an event that lives for `'a`.
unsafe fn parts<'a>(message: NonNull<sys::rd_kafka_message_t>) -> Parts<'a> {
    // SAFETY: the message lives for `'a`; key and payload pointers are null or hold as many bytes as their length
    // says; the topic handle is alive as long as the message.
    unsafe {
        let raw = message.as_ref();
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp = sys::rd_kafka_message_timestamp(message.as_ptr(), &raw mut kind);
        let known = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && timestamp >= 0;
        let epoch = sys::rd_kafka_message_leader_epoch(message.as_ptr());
        Parts {
            topic: CStr::from_ptr(sys::rd_kafka_topic_name(raw.rkt)).to_bytes(),
            partition: raw.partition,
            offset: raw.offset,
            timestamp_ms: known.then_some(timestamp),
            leader_epoch: (epoch >= 0).then_some(epoch),
            key: bytes(raw.key, raw.key_len),
            value: bytes(raw.payload, raw.len),
            headers: MessageHeaders { message, event: PhantomData },
        }
    }
}

/// # Safety
/// `start` is null or points to `length` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

/// Headers of a record; parsed by librdkafka only when looked at.
pub(in crate::kafka) struct MessageHeaders<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    event: PhantomData<&'a ()>,
}

impl processor_engine::cluster::Headers for MessageHeaders<'_> {
    fn for_each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive as long as `self`; names and values belong to it.
        unsafe {
            if sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut headers)
                != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                return;
            }
            for index in 0.. {
                let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
                if sys::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size)
                    != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
                {
                    return;
                }
                visit(&CStr::from_ptr(name).to_string_lossy(), bytes(value, size).unwrap_or_default());
            }
        }
    }
}
