//! Brokers killed again while they recover, on the native stack.
//!
//! A program of its own, and in no run unless asked for: with partitions without a leader it crashed in librdkafka 2.12 (as in #5280),
//! and with it the process that tests. `CHAOS_MINUTES` makes it longer.

use anyhow::Result;
use tests::native::NativeOptions;
use tests::scenario::faults::broker;

#[test]
#[ignore = "by hand: the process may crash, as in librdkafka#5280"]
fn brokers_killed_again_while_they_recover_lose_nothing_acknowledged() -> Result<()> {
    broker::killed_while_they_recover(&NativeOptions::brokers(3).with_target_database().start()?)
}
