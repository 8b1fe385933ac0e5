//! The only module with `unsafe`: what librdkafka can do and the rdkafka crate does not wrap.
//!
//! Owns: the native commit and flush (the crate's commit waits a flat 100 ms), errors with their flags, group
//! metadata whose generation can be looked at, leader epochs (KIP-320) and metadata of partition lists, the
//! consumer's event queue (the crate's `poll` forgets which topic an error or an end of partition belongs
//! to), queueing records by topic handle, topic ids (KIP-516) and record deletion that does not block.
//! Never decides anything: it translates. Every pointer is wrapped by a type that destroys it, and no type
//! here outlives the client it came from.
//!
//! - `events`: the consumer's queue
//! - `produce`: queueing records by topic handle
//! - `admin`: topic descriptions, record deletion

#![allow(unsafe_code)]

mod admin;
mod events;
mod produce;

pub(super) use admin::{AdminQueue, Operation, TopicDescription, describe_topics};
pub(super) use events::{ConsumerError, Kind, Parts, Poller};
pub(super) use produce::{Outbox, Outgoing};

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

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
