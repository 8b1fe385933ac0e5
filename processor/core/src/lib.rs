//! The pure rule: change events in, decisions out.
//!
//! Owns what an event *means*: whether it is new, what it moves, which rows a complete snapshot proves gone, and how
//! a good's sum grows. Never reads a clock, never does I/O, knows neither Kafka nor the engine: everything here is a
//! function of its arguments. Guards invariant 1 (the sum is exact) and the half of invariant 7 that is about
//! deciding (an event that cannot be applied is refused with a reason, never skipped).
//!
//! Layout, in reading order:
//! - [`row`]: what is known of one transaction id, and its position.
//! - [`generations`], [`partition`]: the snapshots an input partition has seen, and its own record in the changelog.
//! - [`rule`]: one event against one stored row. **Start here.**
//! - [`sweep`]: rows that a complete snapshot proves gone.
//! - [`sums`]: one good's running total.

mod encoding;
pub mod generations;
pub mod partition;
pub mod row;
pub mod rule;
pub mod sums;
pub mod sweep;

pub use encoding::Damaged;
pub use generations::{Generation, Generations};
pub use partition::{KeyEncodingCheck, Partition};
pub use row::Row;
pub use rule::{Decision, Outcome, SnapshotComplete, apply};
pub use sums::{Sum, SumOverflow};
pub use sweep::{Approval, Chunk, ChunkLimits, Fate, Plan, Settled, SweepPolicy};

#[cfg(test)]
mod tests;
