//! Administrative requests that the crate lacks, or can only wait for.

use std::ffi::{CString, c_char};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka_sys as sys;

use super::events::Event;
use super::{Element, NativeError, copy_elements, millis, outcome, owned};

/// What a broker says about one topic.
#[derive(Debug, Clone)]
pub(in crate::kafka) struct TopicDescription {
    /// Name.
    pub(in crate::kafka) name: String,
    /// Topic id (KIP-516), base64.
    pub(in crate::kafka) id: String,
    /// Number of partitions.
    pub(in crate::kafka) partitions: usize,
    /// Partitions without a leader.
    pub(in crate::kafka) leaderless: usize,
    /// What this principal may do with the topic (everything where brokers check no rights); `None` where they do not tell.
    pub(in crate::kafka) allowed: Option<Vec<Operation>>,
    /// Set when the topic could not be described, for example because there is none.
    pub(in crate::kafka) error: Option<NativeError>,
}

/// A right on a topic that this program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) enum Operation {
    Read,
    Write,
    Delete,
    DescribeConfigs,
}

impl Operation {
    /// `None` for one that nothing here needs.
    fn of(operation: sys::rd_kafka_AclOperation_t) -> Option<Self> {
        use sys::rd_kafka_AclOperation_t as Native;
        match operation {
            Native::RD_KAFKA_ACL_OPERATION_READ => Some(Self::Read),
            Native::RD_KAFKA_ACL_OPERATION_WRITE => Some(Self::Write),
            Native::RD_KAFKA_ACL_OPERATION_DELETE => Some(Self::Delete),
            Native::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Self::DescribeConfigs),
            _ => None,
        }
    }
}

/// A queue of our own for answers to administrative requests of one kind.
pub(in crate::kafka) struct AdminQueue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for AdminQueue {}

impl AdminQueue {
    /// A queue on this client; must be dropped before the client (librdkafka waits for it otherwise).
    pub(in crate::kafka) fn new<C: ClientContext>(client: &Client<C>) -> Option<Self> {
        // SAFETY: the client is live; the result is owned by us.
        NonNull::new(unsafe { sys::rd_kafka_queue_new(client.native_ptr()) }).map(Self)
    }

    fn poll(&self, timeout: Duration) -> Option<Event<'_>> {
        // SAFETY: the queue is live; the result is null or an event that we own.
        let event = unsafe { sys::rd_kafka_queue_poll(self.0.as_ptr(), millis(timeout)) };
        // SAFETY: as said; the borrow keeps the queue alive.
        unsafe { Event::from_raw(event) }
    }

    /// Starts deleting records before an offset, without waiting.
    pub(in crate::kafka) fn delete_records<C: ClientContext>(
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
    pub(in crate::kafka) fn deleted(&self) -> Option<Result<Vec<Element>, NativeError>> {
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

/// Asks for descriptions of topics and waits for them.
///
/// On a queue of its own: an answer that comes after its request was given up, or one to another kind of request, would
/// be taken for the answer to the next, and every answer after it, too.
pub(in crate::kafka) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<TopicDescription>, NativeError> {
    let Some(answers) = AdminQueue::new(client) else {
        return Err(NativeError::local(RDKafkaErrorCode::Fail, "no queue for DescribeTopics"));
    };
    let names: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the strings live until the end of the function; collection and options are copied by the request
    // and destroyed here; every pointer is live when used.
    unsafe {
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = options(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
        // Refused for other kinds of requests only; null is success.
        let _ = outcome(sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1));
        sys::rd_kafka_DescribeTopics(client.native_ptr(), collection, options, answers.0.as_ptr());
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(collection);
    }
    // The request ends by itself after `timeout`; a second more lets its own answer win.
    let Some(event) = answers.poll(timeout + Duration::from_secs(1)) else {
        return Err(NativeError::local(RDKafkaErrorCode::OperationTimedOut, "DescribeTopics got no answer"));
    };
    event.topic_descriptions()
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
        let event = self.as_ptr();
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
            let result = sys::rd_kafka_event_DescribeTopics_result(self.as_ptr());
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
            let result = sys::rd_kafka_event_DeleteRecords_result(self.as_ptr());
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
        let mut rights = 0;
        let allowed = sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut rights);
        let allowed = (!allowed.is_null()).then(|| std::slice::from_raw_parts(allowed, rights));
        TopicDescription {
            allowed: allowed.map(|all| all.iter().filter_map(|operation| Operation::of(*operation)).collect()),
            name: owned(sys::rd_kafka_TopicDescription_name(topic)),
            id: if id.is_null() { String::new() } else { owned(sys::rd_kafka_Uuid_base64str(id)) },
            partitions: count,
            leaderless,
            error: failed.then(|| NativeError::local(code.into(), owned(sys::rd_kafka_error_string(error)))),
        }
    }
}
