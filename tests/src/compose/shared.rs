//! One compose stack for all tests of a test binary.
//!
//! Starting it costs most of a minute; tests share it and keep apart by unique topic prefixes. A test that kills,
//! pauses or cuts off servers may use it too where it leaves them healthy, else it starts a stack of its own.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use super::options::ComposeOptions;
use super::stack::ComposeStack;

/// Three brokers, Connect and both databases, shared by this process.
pub fn shared_full() -> Result<&'static ComposeStack> {
    static STACK: OnceLock<std::result::Result<ComposeStack, String>> = OnceLock::new();
    // The first failure is kept: starting again for every further test would only repeat it, slowly.
    STACK
        .get_or_init(|| ComposeOptions::full().start().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("the shared compose stack did not start: {error}"))
}
