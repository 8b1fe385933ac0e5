//! The one async runtime behind the blocking helpers.
//!
//! Owns nothing else. sqlx and rdkafka's admin client are async; a scenario never sees that.

use std::future::Future;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::{Builder, Runtime};

/// Runs a future to its end on the shared runtime.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|error| anyhow!(error.clone()))
        .context("cannot start the async runtime of the tests")?;
    Ok(runtime.block_on(future))
}
