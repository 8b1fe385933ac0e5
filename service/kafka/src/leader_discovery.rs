//! Mends a defect of librdkafka 2.12 by which brokers that die end their clients, too: its issue #5280.
//!
//! A broker that is asked for records of partitions it no longer leads names their new leaders (KIP-951). librdkafka counts
//! all that are named, leaves out those led by nobody, and then reads as many as it has counted: memory that was never
//! written, taken for partition numbers and leaders. It may read and write anywhere then.
//!
//! Owns what that memory says instead: partitions that no topic has, which librdkafka logs and skips. The linker passes calls of the
//! function that lays the memory out through the one here (`--wrap`): every package with a program or a test that talks to
//! brokers asks for it in its `build.rs`. Another copy of librdkafka's sources in this repository, or a fork of the crate that
//! carries them, would have been ten megabytes for one line.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::hint::black_box;

use rdkafka_sys::{RD_KAFKA_VERSION, rd_kafka_metadata, rd_kafka_metadata_partition};

/// Whoever updates librdkafka looks whether #5280 is mended there; if not, whether the function below still is the same.
const _: () = assert!(RD_KAFKA_VERSION == 0x02_0c_01_ff, "another librdkafka: see service_kafka::leader_discovery");

/// `rd_kafka_Uuid_t`, which is passed by value.
#[repr(C)]
struct Uuid {
    most_significant: i64,
    least_significant: i64,
    base64: [c_char; 23],
}

// Where nobody asks for `--wrap`, there is none, and nobody calls what needs it.
core::arch::global_asm!(".weak __real_rd_kafkap_leader_discovery_set_topic");

unsafe extern "C" {
    /// Where the linker takes calls of this name to.
    fn rd_kafkap_leader_discovery_set_topic();

    /// librdkafka's own. Takes room for `partitions` partitions from `buffer`, and leaves it as it is.
    fn __real_rd_kafkap_leader_discovery_set_topic(
        buffer: *mut c_void,
        metadata: *mut rd_kafka_metadata,
        topic: c_int,
        id: Uuid,
        name: *mut c_char,
        partitions: c_int,
    );
}

/// Called instead of librdkafka's own: what it leaves unwritten says afterwards that it is nothing.
///
/// # Safety
/// As librdkafka calls its own: with valid pointers, and a topic that `metadata` has. (`rd_kafka_metadata_internal_t` begins with
/// the public `rd_kafka_metadata_t`, "so that the pointer can be cast".)
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafkap_leader_discovery_set_topic(
    buffer: *mut c_void,
    metadata: *mut rd_kafka_metadata,
    topic: c_int,
    id: Uuid,
    name: *mut c_char,
    partitions: c_int,
) {
    // SAFETY: what we were called with, for what it was meant for.
    unsafe { __real_rd_kafkap_leader_discovery_set_topic(buffer, metadata, topic, id, name, partitions) };
    let (Ok(topic), Ok(partitions)) = (usize::try_from(topic), usize::try_from(partitions)) else { return };
    for partition in 0..partitions {
        // SAFETY: the topic is one of `metadata`, and now it has room for so many partitions, which nobody knows of yet.
        unsafe { (*(*metadata).topics.add(topic)).partitions.add(partition).write(NONE) };
    }
}

/// A partition that no topic has.
const NONE: rd_kafka_metadata_partition = rd_kafka_metadata_partition {
    id: i32::MAX,
    err: rdkafka_sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
    leader: -1,
    replica_cnt: 0,
    replicas: std::ptr::null_mut(),
    isr_cnt: 0,
    isrs: std::ptr::null_mut(),
};

/// Whether librdkafka logs of a partition that was none before this mend: it does so at every skip, and no operator can do
/// anything about it.
pub fn is_told_of(facility: &str, message: &str) -> bool {
    facility == "METADATAUPDATE" && message.contains("[2147483647]")
}

/// Whether this program was linked with `--wrap`, as it has to be.
pub fn is_mended() -> bool {
    let called = rd_kafkap_leader_discovery_set_topic as *const ();
    let ours = __wrap_rd_kafkap_leader_discovery_set_topic as *const ();
    // Two names are two functions to the compiler, who knows nothing of `--wrap`: it must not answer.
    std::ptr::eq(black_box(called), black_box(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    type SetTopic = unsafe extern "C" fn(*mut c_void, *mut rd_kafka_metadata, c_int, Uuid, *mut c_char, c_int);

    /// `rd_tmpabuf_t`.
    #[repr(C)]
    struct Buffer {
        size: usize,
        used: usize,
        memory: *mut u8,
        failed: c_int,
        asserts: u8,
    }

    #[test]
    fn partitions_that_librdkafka_leaves_out_are_none_of_any_topic() {
        const GARBAGE: u64 = u64::MAX - 6;
        assert!(is_mended(), "linked without --wrap");
        let mut memory = [GARBAGE; 512];
        let mut buffer =
            Buffer { size: size_of_val(&memory), used: 0, memory: memory.as_mut_ptr().cast(), failed: 0, asserts: 0 };
        // The topic as librdkafka's own type has it, and as the public one does: both are pointed to from here.
        let (mut internal, mut topics) = ([0_u64; 64], [0_u64; 64]);
        let mut metadata = [std::ptr::null_mut::<c_void>(); 64];
        metadata.fill(internal.as_mut_ptr().cast());
        let metadata: *mut rd_kafka_metadata = metadata.as_mut_ptr().cast();
        let id = Uuid { most_significant: 1, least_significant: 2, base64: [0; 23] };
        // SAFETY: the address is that of a function of this type.
        let called: SetTopic =
            unsafe { std::mem::transmute::<*const (), SetTopic>(rd_kafkap_leader_discovery_set_topic as *const ()) };
        let buffer: *mut Buffer = &raw mut buffer;
        // SAFETY: the memory is larger than anything that is written into it.
        let partitions = unsafe {
            (*metadata).topics = topics.as_mut_ptr().cast();
            called(buffer.cast(), metadata, 0, id, std::ptr::null_mut(), 3);
            let topic = *(*metadata).topics;
            std::slice::from_raw_parts(topic.partitions, usize::try_from(topic.partition_cnt).unwrap())
        };
        let seen: Vec<(i32, i32)> = partitions.iter().map(|partition| (partition.id, partition.leader)).collect();
        assert_eq!(seen, [(i32::MAX, -1); 3]);
    }
}
