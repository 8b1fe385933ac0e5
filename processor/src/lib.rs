//! Turns Debezium change events into exact per-good stock deltas with Kafka transactions.
//!
//! This crate is the outermost ring: the rdkafka adapter, settings, telemetry and the threads. What an event
//! means is in `processor-core`, the two steps in `processor-application`, transactions in
//! `processor-engine`, the disk in `processor-store`.
//!
//! # Layout
//! - [`settings`]: the command line
//! - [`program`]: from the command line to an exit code
//! - [`run`]: `processor run`, from settings to workers
//! - [`operator`]: `processor approve-sweep`, `processor source-emptied`
//! - [`telemetry`], [`metrics`]: events to log lines and counters
//! - [`registry`]: schemas of change events in a registry's wire format, and partitions that wait for one
//! - [`kafka`]: the engine's `Cluster` on real brokers

mod caught_up;
#[cfg(feature = "fail-points")]
pub mod fail_points;
pub mod kafka;
pub mod metrics;
pub mod operator;
pub mod program;
pub mod registry;
pub mod run;
pub mod settings;
pub mod telemetry;
