//! The rdkafka adapter: the engine's [`Cluster`](processor_engine::Cluster) on real brokers.
//!
//! Translates, and decides nothing about goods or transactions. On librdkafka the guarantee is "exactly-once
//! v2 (KIP-447) with transaction protocol V1": KIP-890's per-transaction epochs are not supported, which is
//! why a producer is retired after any request that timed out.
//!
//! # Layout
//! - [`config`]: properties of every client, and those the operator may not set
//! - [`cluster`]: builds the clients, answers questions about logs
//! - [`consumer`], [`producer`], [`reader`]: the engine's traits
//! - [`admin`]: topics at start: created or checked
//! - [`errors`]: which error means what
//! - `ffi`: the only module with `unsafe`
//! - `rights`: which ACLs are needed, and which are missing
//! - `poll`, `topics`, `watermarks`, `context`: shared parts

pub mod admin;
pub mod cluster;
pub mod config;
pub mod consumer;
mod context;
pub mod errors;
mod ffi;
mod offsets;
mod poll;
pub mod producer;
pub mod reader;
mod rights;
mod topics;
mod unread;
mod watermarks;

pub use cluster::KafkaCluster;
pub use config::{ClientProperties, Settings};
pub use consumer::KafkaConsumer;
pub use ffi::GroupMetadata;
pub use producer::KafkaProducer;
pub use reader::KafkaReader;

use processor_engine::Failure;
use rdkafka::error::KafkaError;
use service::Coded;

/// A client that librdkafka refuses to build: always the configuration.
fn not_created(client: &str, error: &KafkaError) -> Failure {
    stop(service_kafka::setting_refused(client, error))
}

/// The engine's form of a refusal.
fn stop(refused: Coded) -> Failure {
    Failure::stop(refused.code, refused.what, refused.remedy)
}
