//! Waiting for a condition instead of sleeping for luck.
//!
//! Owns the one polling loop of the tests. A time-out is an upper bound that says "something is broken", never a
//! statement about speed.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks at a condition.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Looks until `look` returns a value, and returns it.
///
/// `what` completes the sentence "gave up waiting for …". An error of `look` ends the waiting at once: for
/// conditions that fail while a server is still starting, map the error to `Ok(None)`.
pub fn wait_for<T>(
    what: impl fmt::Display,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("gave up waiting for {what} after {timeout:?}");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Looks until `holds` is true; otherwise as [`wait_for`].
pub fn wait_until(what: impl fmt::Display, timeout: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, timeout, || Ok(holds()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_with_the_name_of_what_never_came() {
        let error = wait_until("a miracle", Duration::ZERO, || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("waiting for a miracle"), "{error}");
    }

    #[test]
    fn looks_at_least_once_even_without_time() {
        assert_eq!(wait_for("nothing", Duration::ZERO, || Ok(Some(7))).unwrap(), 7);
    }

    #[test]
    fn an_error_of_the_condition_ends_the_waiting() {
        let error = wait_until("anything", Duration::from_secs(600), || bail!("it died")).unwrap_err();
        assert_eq!(error.to_string(), "it died");
    }
}
