//! Schemas from a registry with the Confluent-compatible API, without ever making known records wait.
//!
//! Owns which schemas are at hand, the one thread that asks for others, and which partitions wait for one. Decoding is
//! `schemas`' work, what an event means the application's.
//!
//! A record whose schema is not at hand is not given to the worker: its partition is held where the record lies
//! ([`hold`]), and read on from there once the schema has arrived. Everything else goes on. So a registry that is down delays
//! what is new to this process and stops nothing else; nothing is dropped and nothing reordered within a partition.
//! Schemas never change under their id, so what was fetched once is kept for as long as the process runs.
//!
//! Rejected: asking within the worker's step (a registry that does not answer would stop every partition, and at length the
//! group membership), and aborting the transaction for a retry (one unknown schema would undo the others' work
//! each time).
//!
//! # Layout
//! - [`cache`]: the schemas at hand and those asked for; the thread
//! - `client`: questions to the registry
//! - [`output`]: the schemas of our own records
//! - [`hold`]: the engine's consumer with partitions held back

pub mod cache;
mod client;
pub mod hold;
pub mod output;

pub use cache::{CachedSchemas, SchemaCache};
pub use hold::RegistryCluster;
