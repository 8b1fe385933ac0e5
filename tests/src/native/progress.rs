//! What the stack tells a person while it works.
//!
//! Written to standard error itself: the test harness captures what goes through the print macros, and a first run
//! that downloads for half a minute without a word looks like one that hangs.

use std::fmt;
use std::io::Write as _;

/// Tells one line.
pub(super) fn tell(message: impl fmt::Display) {
    // A closed standard error is no reason to fail.
    let _best_effort = writeln!(std::io::stderr().lock(), "[stack] {message}");
}
