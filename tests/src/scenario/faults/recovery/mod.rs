//! How long it takes after a fault until the output moves again, and until it has caught up.
//!
//! Owns the measuring beside a trial and the table of what was measured. Judges nothing: no test fails for a figure here,
//! and a slow machine makes larger ones.
//!
//! Two times are taken for each fault, from its end (or from the kill of a program, whose work others take over):
//! - *moves*: every partition has gone on. Of the input for faults of processors and servers, of the output in the target
//!   for faults of sinks and of the target. One partition of ten that stands still is an output that stands still.
//! - *caught up*: everything that had come by then was through, from the input to the output, or into the target.
//!
//! Layout:
//! - `progress`: the arithmetic of partitions, pure
//! - `meter`: what watches the topics and the target, in threads of its own
//! - `table`: median and largest by kind of fault

mod meter;
mod progress;
mod table;

pub(super) use meter::Meter;
pub(super) use progress::Output;
pub(super) use table::{Recovered, table};
