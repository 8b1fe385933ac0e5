//! Ends or stops the process at a step of its loop that a test chooses; only with the feature `fail-points`.
//!
//! Owns the environment variable `FAIL_POINT`: `<name>:<kill|stop>:<n>`, at the n-th pass. The places are in the engine,
//! each named after the step that is just over. `kill` is SIGKILL, so that nothing is closed, flushed or told; `stop` is
//! SIGSTOP, so that all threads sleep, until somebody sends SIGCONT.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// Does what the environment says, if it says anything.
///
/// # Errors
/// What is wrong with the variable.
pub fn arm() -> Result<(), String> {
    let Ok(wanted) = std::env::var("FAIL_POINT") else { return Ok(()) };
    let mut parts = wanted.split(':');
    let (Some(name), Some(action), Some(pass), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(format!("{wanted:?} is not <name>:<kill|stop>:<n>"));
    };
    let signal = match action {
        "kill" => Signal::KILL,
        "stop" => Signal::STOP,
        other => return Err(format!("{other:?} is neither kill nor stop")),
    };
    let pass: u64 = pass.parse().map_err(|error| format!("{pass:?}: {error}"))?;
    let passes = AtomicU64::new(0);
    let text = format!("fail point {name}: {action}");
    fail::cfg_callback(name, move || {
        if passes.fetch_add(1, Ordering::Relaxed) + 1 == pass {
            eprintln!("{text}");
            if let Err(error) = kill_process(getpid(), signal) {
                eprintln!("{text} failed: {error}");
            }
        }
    })
}
