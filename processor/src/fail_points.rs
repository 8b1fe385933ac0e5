//! Ends, stops or hangs the process at a step of its loop that a test chooses; only with the feature `fail-points`.
//!
//! Owns the environment variable `FAIL_POINT`: `<name>:<kill|stop|hang>:<n>[:<after>]`, several separated by commas. It
//! strikes at the n-th pass; with `<after>`, at the n-th pass since the place of that name was first passed. What follows a
//! semicolon counts passes only once something before it has struck. The places are in the engine, each named after the
//! step that is just over. `kill` is SIGKILL, so that nothing is closed, flushed or told; `stop` is SIGSTOP, so that all
//! threads sleep, until somebody sends SIGCONT; `hang` is a call that never returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::signal::{SIGKILL, SIGSTOP};
use signal_hook::low_level::raise;

/// What happens when it strikes.
#[derive(Clone, Copy)]
enum Action {
    Signal(i32),
    Hang,
}

/// Does what the environment says, if it says anything.
///
/// # Errors
/// What is wrong with the variable.
pub fn arm() -> Result<(), String> {
    let Ok(wanted) = std::env::var("FAIL_POINT") else { return Ok(()) };
    let phases_over = Arc::new(AtomicUsize::new(0));
    for (phase, points) in wanted.split(';').enumerate() {
        points.split(',').try_for_each(|point| arm_one(point, phase, &phases_over))?;
    }
    Ok(())
}

fn arm_one(wanted: &str, phase: usize, phases_over: &Arc<AtomicUsize>) -> Result<(), String> {
    let parts: Vec<&str> = wanted.split(':').collect();
    let (name, action, pass, after) = match parts.as_slice() {
        [name, action, pass] => (*name, *action, *pass, None),
        [name, action, pass, after] => (*name, *action, *pass, Some(*after)),
        _ => return Err(format!("{wanted:?} is not <name>:<kill|stop|hang>:<n>[:<after>]")),
    };
    let text = format!("fail point {name}: {action}");
    let action = match action {
        "kill" => Action::Signal(SIGKILL),
        "stop" => Action::Signal(SIGSTOP),
        "hang" => Action::Hang,
        other => return Err(format!("{other:?} is neither kill, stop nor hang")),
    };
    let pass: u64 = pass.parse().map_err(|error| format!("{pass:?}: {error}"))?;
    let counts = Arc::new(AtomicBool::new(after.is_none()));
    if let Some(after) = after {
        let begun = Arc::clone(&counts);
        fail::cfg_callback(after, move || begun.store(true, Ordering::Relaxed))?;
    }
    let passes = AtomicU64::new(0);
    let phases_over = Arc::clone(phases_over);
    fail::cfg_callback(name, move || {
        let counts = counts.load(Ordering::Relaxed) && phases_over.load(Ordering::Relaxed) >= phase;
        if counts && passes.fetch_add(1, Ordering::Relaxed) + 1 == pass {
            eprintln!("{text}");
            phases_over.fetch_max(phase + 1, Ordering::Relaxed);
            strike(action, &text);
        }
    })
}

fn strike(action: Action, text: &str) {
    match action {
        // To this thread. A stop sent to the process is for whichever of its threads comes to it first, and until that one does,
        // on a busy machine, this one went on: past its commit, and the test waited for an abort that could not come.
        Action::Signal(signal) => {
            if let Err(error) = raise(signal) {
                eprintln!("{text} failed: {error}");
            }
        }
        Action::Hang => loop {
            std::thread::sleep(Duration::from_secs(3_600));
        },
    }
}
