//! Captured histories through the whole processor, on the native stack.

use anyhow::Result;
use tests::native::shared_brokers;
use tests::scenario::histories;

#[test]
fn a_crafted_history_ends_exactly() -> Result<()> {
    histories::ends_exactly(shared_brokers()?, "crafted/late-batch-of-an-older-snapshot", 1)
}
