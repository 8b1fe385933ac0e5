//! Many seeds, on all cores; the first that fails is run again with its trace.
//!
//! Owns nothing but the loop. `SIMULATION_SEED` runs one seed alone and prints all of its trace when it
//! fails, `SIMULATION_CASES` changes how many there are.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::setup::{Counts, Violation};

/// Trace lines shown for a failing seed; all that were kept when it is run alone.
const SHOWN: usize = 250;

/// Runs `case` for every seed.
///
/// # Errors
/// The lowest failing seed found, what it violated and how to run it again.
pub fn run_seeds(
    name: &str,
    seeds: Range<u64>,
    case: impl Fn(u64, bool) -> Result<Counts, Box<Violation>> + Sync,
) -> Result<Counts, String> {
    if let Some(seed) = number("SIMULATION_SEED") {
        return case(seed, true).map_err(|violation| describe(name, seed, &violation));
    }
    let seeds = seeds.start..number("SIMULATION_CASES").map_or(seeds.end, |cases| seeds.start + cases);
    match first_violation(seeds, &case) {
        (counts, None) => Ok(counts),
        (_, Some(seed)) => match case(seed, true) {
            Err(violation) => Err(describe(name, seed, &violation)),
            Ok(_) => Err(format!("{name}: seed {seed} failed once and not again: the run is not deterministic")),
        },
    }
}

/// The lowest failing seed, if any, and the counts of all that passed.
pub fn first_violation(
    seeds: Range<u64>,
    case: impl Fn(u64, bool) -> Result<Counts, Box<Violation>> + Sync,
) -> (Counts, Option<u64>) {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let totals = Mutex::new(Counts::default());
    let work = || {
        let mut counts = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                break;
            }
            match case(seed, false) {
                Ok(run) => counts.add(&run),
                Err(_) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                }
            }
        }
        if let Ok(mut totals) = totals.lock() {
            totals.add(&counts);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let counts = totals.into_inner().unwrap_or_default();
    let failed = failed.into_inner();
    (counts, (failed != u64::MAX).then_some(failed))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn describe(name: &str, seed: u64, violation: &Violation) -> String {
    let shown = if number("SIMULATION_SEED").is_some() { usize::MAX } else { SHOWN };
    let from = violation.trace.len().saturating_sub(shown);
    let lines = violation.trace.get(from..).unwrap_or_default().join("\n");
    format!("{lines}\n{name}: seed {seed} violates: {}\nrun it again with SIMULATION_SEED={seed}", violation.what)
}
