//! The sink: writes the newest stock delta of every good into `PostgreSQL`, idempotently.
//!
//! # Layout
//! - [`position`] (pure): where to read a partition, and whether its log is still the one the target knows.
//! - [`batch`] (pure): many stock deltas → the newest version of each good.
//! - [`completion`] (pure): when rows of an older epoch may go.
//! - [`work`]: what is made of a topic's records: [`deltas`], and [`transaction_log`] when it is switched on.
//! - [`kafka`] and [`postgres`]: the adapters. [`run`]: the loop that joins them, one thread per
//!   topic, and the one batch that is written beside it.
//! - [`settings`], [`metrics`]: what an operator sets and sees.
//!
//! Invariants it guards (numbers as in `docs/ARCHITECTURE.md`): 8, no good ever goes backwards; 9, progress lives in
//! the target, in the same transaction as the rows; 6, what contradicts both stops it with a code.

pub mod batch;
mod columns;
pub mod completion;
pub mod database;
pub mod deltas;
pub mod goods;
pub mod ids;
pub mod kafka;
pub mod metrics;
pub mod position;
pub mod postgres;
pub mod quantities;
pub mod run;
pub mod settings;
pub mod transaction_log;
pub mod work;
