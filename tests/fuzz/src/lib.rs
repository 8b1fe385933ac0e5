//! What must hold of every decoder whatever bytes it is given: it does not panic, it does not allocate beyond what the input
//! is worth, and what it accepts it reads as one thing only.
//!
//! `make fuzz` hands the targets to libFuzzer, which looks for inputs that reach new code and keeps them in `corpus`;
//! `tests/corpus.rs` runs them on that corpus, and on mutations of it, in every test run.
#![allow(clippy::missing_panics_doc, reason = "a target fails by panicking")]

mod inputs;
pub mod seeds;
pub mod targets;

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One decoder, or several of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also that of its corpus.
    pub name: &'static str,
    /// Runs it; panics when something does not hold.
    pub run: fn(&[u8]),
    /// Inputs that are accepted, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "events_json", run: targets::events_json, seeds: seeds::events },
    Target { name: "events_avro", run: targets::events_avro, seeds: seeds::events_in_avro },
    Target { name: "events_json_schema", run: targets::events_json_schema, seeds: seeds::events },
    Target { name: "writer_schemas", run: targets::writer_schemas, seeds: seeds::schemas },
    Target { name: "changelog", run: targets::changelog, seeds: seeds::own_records },
    Target { name: "outputs", run: targets::outputs, seeds: seeds::own_records },
    Target { name: "state", run: targets::state, seeds: seeds::state },
    Target { name: "configuration", run: targets::configuration, seeds: seeds::configuration },
];

/// What the call allocates in all, freed again or not, must be within `allowed` bytes.
fn bounded<T>(what: &str, allowed: usize, call: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.total_allocated();
    let result = call();
    let allocated = ALLOCATOR.total_allocated() - before;
    assert!(allocated <= allowed, "{what} allocated {allocated} bytes, {allowed} are allowed");
    result
}
