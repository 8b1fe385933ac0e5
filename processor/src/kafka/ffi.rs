//! The only module with `unsafe`: what librdkafka can do and the rdkafka crate does not wrap.
//!
//! Owns: the native commit and flush (the crate's commit waits a flat 100 ms), errors with their flags, group
//! metadata whose generation can be looked at, leader epochs (KIP-320) and metadata of partition lists, the
//! consumer's event queue (the crate's `poll` forgets which topic an error or an end of partition belongs
//! to), topic ids (KIP-516) and record deletion that does not block.
//! Never decides anything: it translates. Every pointer is wrapped by a type that destroys it, and no type
//! here outlives the client it came from.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka_sys as sys;

use super::errors::NativeError;

/// Milliseconds as librdkafka takes them: never negative, because −1 means "for ever".
fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

/// Copies a C string; empty for null.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that lives during the call.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and NUL-terminated by the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Takes an error object as librdkafka returns it: null is success, anything else is copied and destroyed.
///
/// # Safety
/// `error` is null or an error object that the caller owns and does not use afterwards.
unsafe fn outcome(error: *mut sys::rd_kafka_error_t) -> Result<(), NativeError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the pointer is a live error object owned by us; the string is copied before it is destroyed.
    unsafe {
        let copied = NativeError {
            code: sys::rd_kafka_error_code(error).into(),
            text: owned(sys::rd_kafka_error_string(error)),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            abortable: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(copied)
    }
}

// ---------------------------------------------------------------------------------------------- producer

/// Commits natively. The crate's `commit_transaction` polls in 100 ms quanta first; this call flushes at
/// once (linger is bypassed) while the producer's own thread serves delivery reports.
pub(super) fn commit_transaction<C>(producer: &ThreadedProducer<C>, timeout: Duration) -> Result<(), NativeError>
where
    C: ProducerContext<NoCustomPartitioner> + 'static,
{
    // SAFETY: the client lives as long as the borrow; the error object is ours.
    unsafe { outcome(sys::rd_kafka_commit_transaction(producer.client().native_ptr(), millis(timeout))) }
}

/// Waits until every queued record is delivered or failed and its report was handed to the context.
pub(super) fn flush<C>(producer: &ThreadedProducer<C>, timeout: Duration) -> Result<(), RDKafkaErrorCode>
where
    C: ProducerContext<NoCustomPartitioner> + 'static,
{
    // SAFETY: the client lives as long as the borrow.
    match unsafe { sys::rd_kafka_flush(producer.client().native_ptr(), millis(timeout)) } {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(code.into()),
    }
}

/// Adds offsets to the open transaction under the member's identity.
pub(super) fn send_offsets<C>(
    producer: &ThreadedProducer<C>,
    offsets: &TopicPartitionList,
    member: &GroupMetadata,
    timeout: Duration,
) -> Result<(), NativeError>
where
    C: ProducerContext<NoCustomPartitioner> + 'static,
{
    // SAFETY: all three pointers are live during the call; librdkafka copies list and metadata.
    unsafe {
        outcome(sys::rd_kafka_send_offsets_to_transaction(
            producer.client().native_ptr(),
            offsets.ptr(),
            member.0.as_ptr(),
            millis(timeout),
        ))
    }
}

// ------------------------------------------------------------------------------------------ group member

/// Identity of a group member within a generation. The crate's own type hides member id and generation.
#[derive(Debug)]
pub struct GroupMetadata(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

// SAFETY: a plain heap object without ties to a thread or a client.
unsafe impl Send for GroupMetadata {}

impl GroupMetadata {
    /// What the consumer is in its group now; `None` while it is no member (empty id or no generation).
    pub(super) fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the client lives as long as the borrow; the result is null or owned by us.
        let raw = unsafe { sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) };
        let metadata = Self(NonNull::new(raw)?);
        (metadata.generation() >= 0 && !metadata.member_id().is_empty()).then_some(metadata)
    }

    /// An identity made up of its parts, for tests of what the broker refuses.
    /// `None` when a text contains a NUL byte.
    pub fn forged(group: &str, generation: i32, member_id: &str) -> Option<Self> {
        let (group, member_id) = (CString::new(group).ok()?, CString::new(member_id).ok()?);
        // SAFETY: both strings live during the call, which copies them; a null instance id means "none".
        let raw = unsafe {
            sys::rd_kafka_consumer_group_metadata_new_with_genid(
                group.as_ptr(),
                generation,
                member_id.as_ptr(),
                ptr::null(),
            )
        };
        NonNull::new(raw).map(Self)
    }

    /// The generation (classic) or member epoch (KIP-848).
    pub fn generation(&self) -> i32 {
        // SAFETY: the object is live.
        unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr()) }
    }

    /// The id that the coordinator gave to the member.
    pub fn member_id(&self) -> String {
        // SAFETY: the object is live and so is its string.
        unsafe { owned(sys::rd_kafka_consumer_group_metadata_member_id(self.0.as_ptr())) }
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used afterwards.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

// --------------------------------------------------------------------------------------- partition lists

/// One element of a partition list, copied: a living list keeps librdkafka's partitions alive and makes
/// dropping the consumer hang (librdkafka#3796).
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) metadata: String,
    pub(super) error: Option<RDKafkaErrorCode>,
}

/// Copies a list.
pub(super) fn elements(list: &TopicPartitionList) -> Vec<Element> {
    // SAFETY: the list is live and `elems` holds `cnt` initialised elements; null only when empty.
    unsafe { copy_elements(list.ptr()) }
}

/// # Safety
/// `list` is null or a live list.
unsafe fn copy_elements(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Element> {
    // SAFETY: live by the caller's promise.
    let Some(list) = (unsafe { list.as_ref() }) else { return Vec::new() };
    let count = usize::try_from(list.cnt).unwrap_or(0);
    if count == 0 || list.elems.is_null() {
        return Vec::new();
    }
    // SAFETY: librdkafka keeps `cnt` initialised elements at `elems`.
    let raw = unsafe { std::slice::from_raw_parts(list.elems, count) };
    // SAFETY: each element belongs to the live list.
    raw.iter().map(|element| unsafe { copy_element(element) }).collect()
}

/// # Safety
/// `element` belongs to a live list or is live itself.
unsafe fn copy_element(element: &sys::rd_kafka_topic_partition_t) -> Element {
    let metadata = if element.metadata.is_null() || element.metadata_size == 0 {
        String::new()
    } else {
        // SAFETY: librdkafka keeps `metadata_size` bytes at `metadata`.
        let bytes = unsafe { std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) };
        String::from_utf8_lossy(bytes).into_owned()
    };
    let error = (element.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| element.err.into());
    Element {
        // SAFETY: a live element's topic is a NUL-terminated string.
        topic: unsafe { owned(element.topic) },
        partition: element.partition,
        offset: element.offset,
        metadata,
        error,
    }
}

/// Adds a partition with offset, metadata and leader epoch (of which the crate knows nothing).
pub(super) fn add_offset(
    list: &mut TopicPartitionList,
    topic: &str,
    partition: i32,
    offset: i64,
    leader_epoch: Option<i32>,
    metadata: &str,
) -> Result<(), KafkaError> {
    use rdkafka::topic_partition_list::Offset;
    {
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::from_raw(offset))?;
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    if let Some(epoch) = leader_epoch {
        // SAFETY: the list is live and exclusively ours; the last element was added just now, so `cnt` ≥ 1.
        unsafe {
            let raw = &*list.ptr();
            let newest = usize::try_from(raw.cnt).unwrap_or(1).saturating_sub(1);
            sys::rd_kafka_topic_partition_set_leader_epoch(raw.elems.add(newest), epoch);
        }
    }
    Ok(())
}

// ------------------------------------------------------------------------------------- consumer's events

/// A consumer and its event queue.
///
/// `BaseConsumer::poll` reports an end of partition without its topic and an error without its partition;
/// reading the same queue directly tells both, and hands rebalances to the caller instead of a callback.
/// Field order matters: the queue is released before the client is destroyed.
pub(super) struct Poller<C: ConsumerContext> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    consumer: Option<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues and clients may be used from any thread.
unsafe impl<C: ConsumerContext> Send for Poller<C> {}

impl<C: ConsumerContext> Poller<C> {
    /// Takes a consumer that has a `group.id`; `None` for one without.
    pub(super) fn new(consumer: BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the client is live; the result is null or a reference that we own.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Some(Self { queue: NonNull::new(queue)?, consumer: Some(consumer) })
    }

    /// The consumer.
    pub(super) fn consumer(&self) -> Option<&BaseConsumer<C>> {
        self.consumer.as_ref()
    }

    /// Waits up to `timeout` for one event.
    pub(super) fn poll(&mut self, timeout: Duration) -> Option<Event<'_>> {
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
pub(super) struct Event<'a> {
    event: NonNull<sys::rd_kafka_event_t>,
    poller: PhantomData<&'a ()>,
}

/// What an event is.
pub(super) enum Kind<'a> {
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
pub(super) struct ConsumerError {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
    pub(super) fatal: bool,
    /// The partition it belongs to, if to one; its offset is where the error (or the end) is.
    pub(super) partition: Option<Element>,
}

impl Event<'_> {
    /// Reads the event.
    pub(super) fn kind(&self) -> Kind<'_> {
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
pub(super) struct Parts<'a> {
    pub(super) topic: &'a [u8],
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) leader_epoch: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: MessageHeaders<'a>,
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
pub(super) struct MessageHeaders<'a> {
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

// ----------------------------------------------------------------------------------------- administration

/// What a broker says about one topic.
#[derive(Debug, Clone)]
pub(super) struct TopicDescription {
    /// Name.
    pub(super) name: String,
    /// Topic id (KIP-516), base64.
    pub(super) id: String,
    /// Number of partitions.
    pub(super) partitions: usize,
    /// Partitions without a leader.
    pub(super) leaderless: usize,
    /// Set when the topic could not be described, for example because there is none.
    pub(super) error: Option<NativeError>,
}

/// A queue of our own for answers to administrative requests.
pub(super) struct AdminQueue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for AdminQueue {}

impl AdminQueue {
    /// A queue on this client; must be dropped before the client (librdkafka waits for it otherwise).
    pub(super) fn new<C: ClientContext>(client: &Client<C>) -> Option<Self> {
        // SAFETY: the client is live; the result is owned by us.
        NonNull::new(unsafe { sys::rd_kafka_queue_new(client.native_ptr()) }).map(Self)
    }

    fn poll(&self, timeout: Duration) -> Option<Event<'_>> {
        // SAFETY: the queue is live; the result is null or an event that we own.
        let event = unsafe { sys::rd_kafka_queue_poll(self.0.as_ptr(), millis(timeout)) };
        Some(Event { event: NonNull::new(event)?, poller: PhantomData })
    }

    /// Asks for descriptions of topics and waits for them.
    pub(super) fn describe_topics<C: ClientContext>(
        &self,
        client: &Client<C>,
        names: &[&str],
        timeout: Duration,
    ) -> Result<Vec<TopicDescription>, NativeError> {
        let names: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the strings live until the end of the function; collection and options are copied by the request
        // and destroyed here; every pointer is live when used.
        unsafe {
            let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let options = options(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
            sys::rd_kafka_DescribeTopics(client.native_ptr(), collection, options, self.0.as_ptr());
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(collection);
        }
        // The request ends by itself after `timeout`; a second more lets its own answer win.
        let Some(event) = self.poll(timeout + Duration::from_secs(1)) else {
            return Err(NativeError::local(RDKafkaErrorCode::OperationTimedOut, "DescribeTopics got no answer"));
        };
        event.topic_descriptions()
    }

    /// Starts deleting records before an offset, without waiting.
    pub(super) fn delete_records<C: ClientContext>(
        &self,
        client: &Client<C>,
        before: &TopicPartitionList,
        timeout: Duration,
    ) {
        // SAFETY: list and client are live; request and options are copied and destroyed here.
        unsafe {
            let mut request = sys::rd_kafka_DeleteRecords_new(before.ptr());
            let options = options(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETERECORDS, timeout);
            sys::rd_kafka_DeleteRecords(client.native_ptr(), &raw mut request, 1, options, self.0.as_ptr());
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_DeleteRecords_destroy(request);
        }
    }

    /// Takes the next answer to [`AdminQueue::delete_records`], if one is there: partitions with their new log
    /// start or error.
    pub(super) fn deleted(&self) -> Option<Result<Vec<Element>, NativeError>> {
        let event = self.poll(Duration::ZERO)?;
        event.deleted_records()
    }
}

impl Drop for AdminQueue {
    fn drop(&mut self) {
        // SAFETY: owned by us and not used afterwards.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// The result must be destroyed.
unsafe fn options<C: ClientContext>(
    client: &Client<C>,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
) -> *mut sys::rd_kafka_AdminOptions_t {
    // SAFETY: the client is live; a null error buffer of length 0 is allowed; a refused value keeps the default.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(client.native_ptr(), operation);
        let _ = sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
        options
    }
}

impl Event<'_> {
    /// The event's own error, if any.
    fn failure(&self) -> Option<NativeError> {
        let event = self.event.as_ptr();
        // SAFETY: the event is live.
        unsafe {
            let code = sys::rd_kafka_event_error(event);
            (code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
                .then(|| NativeError::local(code.into(), owned(sys::rd_kafka_event_error_string(event))))
        }
    }

    fn topic_descriptions(&self) -> Result<Vec<TopicDescription>, NativeError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        // SAFETY: the event is live; a null result (another type of event) is checked; arrays hold as many pointers
        // as their count says and belong to the event.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.event.as_ptr());
            if result.is_null() {
                return Err(NativeError::local(RDKafkaErrorCode::Fail, "unexpected answer to DescribeTopics"));
            }
            let mut count = 0;
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            if topics.is_null() {
                return Ok(Vec::new());
            }
            Ok(std::slice::from_raw_parts(topics, count).iter().map(|topic| describe(*topic)).collect())
        }
    }

    fn deleted_records(&self) -> Option<Result<Vec<Element>, NativeError>> {
        if let Some(failure) = self.failure() {
            return Some(Err(failure));
        }
        // SAFETY: the event is live; a null result (another type of event) is checked; the list belongs to it.
        unsafe {
            let result = sys::rd_kafka_event_DeleteRecords_result(self.event.as_ptr());
            if result.is_null() {
                return None;
            }
            Some(Ok(copy_elements(sys::rd_kafka_DeleteRecords_result_offsets(result))))
        }
    }
}

/// # Safety
/// `topic` is a live description.
unsafe fn describe(topic: *const sys::rd_kafka_TopicDescription_t) -> TopicDescription {
    // SAFETY: everything read belongs to the live description; null results are checked.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        } else {
            sys::rd_kafka_error_code(error)
        };
        let failed = code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let partitions = if partitions.is_null() { &[] } else { std::slice::from_raw_parts(partitions, count) };
        let leaderless = partitions.iter().filter(|partition| {
            let leader = sys::rd_kafka_TopicPartitionInfo_leader(**partition);
            leader.is_null() || sys::rd_kafka_Node_id(leader) < 0
        });
        let leaderless = leaderless.count();
        TopicDescription {
            name: owned(sys::rd_kafka_TopicDescription_name(topic)),
            id: if id.is_null() { String::new() } else { owned(sys::rd_kafka_Uuid_base64str(id)) },
            partitions: count,
            leaderless,
            error: failed.then(|| NativeError::local(code.into(), owned(sys::rd_kafka_error_string(error)))),
        }
    }
}
