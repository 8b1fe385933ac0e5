//! Waiting for a condition instead of sleeping for luck.
//!
//! Owns the one polling loop of the tests. A time-out is an upper bound that says "something is broken", never a
//! statement about speed.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Shortest pause between two looks at a condition.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Longest pause. Many a look asks brokers for whole topics, which has to leave them time for what is being waited for.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Of the time already waited, this part is the next pause: no wait becomes longer by more than that.
const PAUSE_PART: u32 = 10;

/// When waiting is given up. Far longer than anything takes that works: with seven stacks on two cores, three minutes were too
/// short for what takes a stack alone twenty seconds.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Looks until `look` returns a value, and returns it; gives up after [`PATIENCE`].
///
/// `what` completes the sentence "gave up waiting for …". An error of `look` ends the waiting at once: for
/// conditions that fail while a server is still starting, map the error to `Ok(None)`.
pub fn wait_for<T>(what: impl fmt::Display, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_for_within(what, PATIENCE, look)
}

/// As [`wait_for`], where something else is done when it did not come in time.
pub fn wait_for_within<T>(
    what: impl fmt::Display,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        let waited = began.elapsed();
        if waited >= timeout {
            bail!("gave up waiting for {what} after {timeout:?}");
        }
        thread::sleep((waited / PAUSE_PART).clamp(POLL_INTERVAL, LONGEST_PAUSE));
    }
}

/// Looks until `holds` is true; otherwise as [`wait_for`].
pub fn wait_until(what: impl fmt::Display, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, || Ok(holds()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_with_the_name_of_what_never_came() {
        let error = wait_for_within("a miracle", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("waiting for a miracle"), "{error}");
    }

    #[test]
    fn looks_at_least_once_even_without_time() {
        assert_eq!(wait_for_within("nothing", Duration::ZERO, || Ok(Some(7))).unwrap(), 7);
    }

    #[test]
    fn an_error_of_the_condition_ends_the_waiting() {
        let error = wait_until("anything", || bail!("it died")).unwrap_err();
        assert_eq!(error.to_string(), "it died");
    }
}
