//! Was every change counted exactly once? Collected facts in, findings out.
//!
//! Owns the judgement of a history after the fact: the workload's rows, the input, the changelog, movements, stock
//! deltas, dead letters, the group's offsets, the target, and what readers saw *while* things went wrong. [`check`] is pure;
//! [`Collector`] and [`LiveReader`] fetch what it judges and decide nothing.
//!
//! Guards invariants 1 (sum), 2 (monotone), 3 (atomic), 7 (nothing dropped) and 8 (target) from outside. Like
//! [`crate::client::check_remains`] it reads the records with types of its own: a field renamed on both sides of the
//! product would otherwise pass unnoticed. It knows the arithmetic and the record formats, and nothing of how the
//! processor comes to its results.
//!
//! Layout:
//! - [`Facts`]: what is judged
//! - [`Finding`], [`Code`]: what is wrong, with a stable name and a sentence
//! - `versions`: stock deltas of a good follow each other
//! - `sums`: rows, input, changelog, stock deltas and target say the same
//! - `movements`: what rows moved is what the stock deltas moved
//! - `progress`: group offsets and what was written for them say the same
//! - `visibility`: aborted records stay unseen, nothing is left open, live readers saw the log as it is

mod collect;
mod facts;
mod finding;
mod live;
mod movements;
mod progress;
mod records;
mod sums;
#[cfg(test)]
mod tests;
mod versions;
mod visibility;

pub use collect::{Collector, read_row_log};
pub use facts::{Contribution, Facts, LiveRead, LogEnds, TargetRow, Topic};
pub use finding::{Code, Finding, report};
pub use live::LiveReader;
pub(crate) use records::{Mark, is_own_state};
pub use versions::{follow, newest_of};

/// Judges a history at rest: nobody writes, every consumer has caught up. No finding means exactly once.
pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let newest = versions::check(&facts.deltas, &mut findings);
    let changelog = records::changelog(&facts.changelog, &mut findings);
    movements::check(facts, &mut findings);
    sums::check(facts, &changelog, &newest, &mut findings);
    progress::check(facts, &mut findings);
    visibility::check(facts, &mut findings);
    findings
}
