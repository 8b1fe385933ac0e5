//! Owns the way out of calls that never return (librdkafka#5456: `send_offsets_to_transaction` may block for ever).
//!
//! A thread stuck in a foreign call cannot be ended from outside, so the process ends and is started again; that is
//! safe because every state that counts is committed in Kafka or `PostgreSQL`. It never tries to repair anything.

use std::thread;
use std::time::Duration;

use crate::errors::{Coded, Exit};
use crate::health::Health;

/// Starts the watching thread: when any heartbeat is overdue, the process ends with the watchdog's exit code.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(health: Health) -> Result<(), Coded> {
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(&health)).map(drop).map_err(|error| {
        Coded::unexpected("WATCHDOG_START", format!("the watchdog's thread cannot be started: {error}"))
    })
}

fn watch(health: &Health) {
    loop {
        thread::sleep(Duration::from_millis(500));
        let overdue = health.overdue();
        if !overdue.is_empty() {
            let error = Coded::new(
                Exit::Watchdog,
                "WATCHDOG",
                format!("no sign of life in time from: {}", overdue.join(", ")),
                "none at once: the process ends and is to be started again; if it repeats, look at the brokers' health",
            );
            error.report();
            Exit::Watchdog.now();
        }
    }
}
