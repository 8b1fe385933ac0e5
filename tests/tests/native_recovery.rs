//! Brokers killed again while they recover, on the native stack.
//!
//! In no run unless asked for: brokers may lose the marker of a transaction (docs/GUARANTEES.md), and then it stands still until
//! somebody ends that transaction. `CHAOS_MINUTES` makes it longer.

use anyhow::Result;
use tests::native::NativeOptions;
use tests::scenario::faults::broker;

#[test]
#[ignore = "by hand: brokers may leave a transaction that nobody ends"]
fn brokers_killed_again_while_they_recover_lose_nothing_acknowledged() -> Result<()> {
    broker::killed_while_they_recover(&NativeOptions::brokers(3).with_target_database().start()?)
}
