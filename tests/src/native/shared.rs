//! One stack for all tests of a test binary.
//!
//! Starting brokers costs more than most tests; they share them and keep apart by unique topic prefixes
//! ([`crate::client::unique_name`]). A test that kills or pauses servers must start a stack of its own.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use super::options::NativeOptions;
use super::stack::NativeStack;

type Shared = OnceLock<std::result::Result<NativeStack, String>>;

/// Three brokers, shared by this process.
pub fn shared_brokers() -> Result<&'static NativeStack> {
    static STACK: Shared = OnceLock::new();
    get(&STACK, NativeOptions::brokers(3))
}

/// One broker, Connect and both databases, shared by this process.
pub fn shared_full() -> Result<&'static NativeStack> {
    static STACK: Shared = OnceLock::new();
    get(&STACK, NativeOptions::with_one_broker())
}

fn get(stack: &'static Shared, options: NativeOptions) -> Result<&'static NativeStack> {
    // The first failure is kept: starting again for every further test would only repeat it, slowly.
    stack
        .get_or_init(|| options.start().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("the shared stack did not start: {error}"))
}
