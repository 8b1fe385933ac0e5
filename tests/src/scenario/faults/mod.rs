//! Faults under load: what is done to each component, and that every change counts exactly once nevertheless.
//!
//! One file per component; each function is one fault and one promise. All are written on [`Trial`], which keeps the
//! load running, restarts programs as an operator's restart policy would, and lets [`crate::checker`] judge the end.

pub mod broker;
pub mod connect;
pub mod disk;
pub mod fail_points;
pub mod hostile;
pub mod mix;
pub mod network;
pub mod outage;
mod phases;
pub mod processor;
mod recovery;
pub mod refused;
mod shop;
pub mod sink;
pub mod source;
pub mod target;
mod trial;
mod witness;
pub mod zombie;

use std::time::Duration;

pub use trial::{SESSION_TIMEOUT, Trial};

/// How many more minutes scenarios of random faults go on: `CHAOS_MINUTES`, otherwise none.
pub fn chaos() -> Duration {
    let minutes = std::env::var("CHAOS_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(0);
    Duration::from_secs(60 * minutes)
}
