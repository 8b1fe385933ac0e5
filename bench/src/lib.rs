//! Measures this system beside a Kafka Streams application that does the same job and beside a raw transactional copy,
//! its sink beside Debezium's JDBC sink, on the real servers of the native stack, and verifies every result.
//!
//! Layout:
//! - [`events`], [`envelope`], [`load`]: the load, generated and written
//! - [`systems`]: what is measured, and how each is started
//! - [`process`], [`limit`]: a program under measurement, its CPU time and memory, and less of both than there is
//! - [`verify`]: what each system must have come to, read back by a read_committed reader
//! - [`run`]: one throughput run
//! - [`raw_copy`], `ffi`: the floor, a copy without any work in between
//! - [`parts`]: what is measured, one module each
//! - [`statistics`], [`report`], [`machine`]: figures, targets, where they were measured
//!
//! A figure counts only when its run was verified. Nothing here asserts on speed: missing a target is a line of the
//! table, an unverified result is an error.

// Product names such as PostgreSQL and KRaft are not code.
#![allow(clippy::doc_markdown)]

pub mod bench;
pub mod envelope;
pub mod events;
mod ffi;
pub mod limit;
pub mod load;
pub mod machine;
pub mod parts;
pub mod process;
pub mod raw_copy;
pub mod report;
pub mod run;
pub mod statistics;
pub mod systems;
pub mod verify;
