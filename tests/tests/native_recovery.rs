//! Brokers killed again while they recover, on the native stack.
//!
//! A program of its own, and in no run unless asked for: partitions without a leader crash librdkafka 2.12 now and then (#5280),
//! and with it the process that tests. `CHAOS_MINUTES` makes it longer.

use anyhow::Result;
use tests::native::NativeOptions;
use tests::scenario::faults::broker;

#[test]
#[ignore = "librdkafka#5280 may crash the process"]
fn brokers_killed_again_while_they_recover_lose_nothing_acknowledged() -> Result<()> {
    broker::killed_while_they_recover(&NativeOptions::brokers(3).with_target_database().start()?)
}
