//! The stream program: from change events to stock deltas, in two steps.
//!
//! Owns the wiring of the pure rule (`processor-core`) to the engine (`processor-engine`): which record becomes which
//! state change and which output. Knows no Kafka client, no clock and no disk; whatever it remembers between
//! transactions it can read again from the state. Guards invariants 2 and 7, and its part of 3: everything it writes
//! goes through the one open transaction.
//!
//! Layout:
//! - [`wiring`]: topics, stages and settings.
//! - [`application`]: [`StockApplication`], what the engine calls.
//! - `source`: the first step, change event → state of its id → movements.
//! - `partitions`: the partition records in memory, with their undo for an abort.
//! - `movements`: the second step, and where each movement goes.
//! - `epochs`: when an output partition has everything in its new epoch.
//! - `sweeping`: announcements and the sweep, chunk by chunk.
//! - [`registry`]: where schemas of events in a registry's wire format come from.
//! - [`observer`]: everything worth logging or counting.
//! - `errors`: the coded reasons to stop.

pub mod application;
mod epochs;
mod errors;
mod movements;
pub mod observer;
mod partitions;
pub mod registry;
mod source;
mod sweeping;
pub mod wiring;

pub use application::StockApplication;
pub use observer::{ApplicationObserver, Counts, Event, Silent};
pub use registry::{NoRegistry, SchemaMissing, Schemas};
pub use wiring::{MOVEMENTS, RecordFormat, SOURCE, Settings, Wiring};

#[cfg(test)]
mod tests;
