//! What was measured, as lines and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Names a file to which every measurement is added, one a line, for a table over many tests: kind of fault, seconds
/// until the output moved, seconds until it had caught up, separated by tabs.
const FILE: &str = "RECOVERY_TIMES";

/// How the system came back after one fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// What the fault was.
    pub(crate) kind: String,
    /// Whether nothing else went wrong meanwhile, nor was still being recovered from, that could delay it.
    pub(crate) alone: bool,
    /// Until every partition had gone on.
    pub(crate) moves: Duration,
    /// Until everything that had come by then was through.
    pub(crate) caught_up: Duration,
}

/// Adds measurements to the file that the environment names, if it names one.
pub(super) fn keep(measured: &[Recovered]) -> Result<()> {
    let Some(path) = std::env::var_os(FILE) else { return Ok(()) };
    let mut lines = String::new();
    for Recovered { kind, moves, caught_up, .. } in measured {
        writeln!(lines, "{kind}\t{:.1}\t{:.1}", moves.as_secs_f64(), caught_up.as_secs_f64())?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("{FILE}={}", path.display()))?;
    // One write, so that tests that end at the same time do not mix their lines.
    file.write_all(lines.as_bytes())?;
    Ok(())
}

/// Median and largest by kind of fault, in seconds.
pub(crate) fn table<'a>(measured: impl IntoIterator<Item = &'a Recovered>) -> String {
    let mut kinds: BTreeMap<&str, (Vec<Duration>, Vec<Duration>)> = BTreeMap::new();
    for Recovered { kind, moves, caught_up, .. } in measured {
        let (all_moves, all_caught_up) = kinds.entry(kind).or_default();
        all_moves.push(*moves);
        all_caught_up.push(*caught_up);
    }
    let mut table = format!(
        "{:34} {:>5} {:>16} {:>8} {:>20} {:>8}\n",
        "seconds after a fault", "times", "moves: median", "largest", "caught up: median", "largest"
    );
    for (kind, (mut moves, mut caught_up)) in kinds {
        let times = moves.len();
        let (moves, caught_up) = (median_and_largest(&mut moves), median_and_largest(&mut caught_up));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{kind:34} {times:>5} {:>16.1} {:>8.1} {:>20.1} {:>8.1}",
            moves.0, moves.1, caught_up.0, caught_up.1
        );
    }
    table
}

/// Of an even number the lower of the two in the middle, in seconds.
fn median_and_largest(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let seconds = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64);
    (seconds(times.get((times.len().max(1) - 1) / 2)), seconds(times.last()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_a_line_with_median_and_largest() {
        let recovered = |kind: &str, moves, caught_up| Recovered {
            kind: kind.to_owned(),
            alone: true,
            moves: Duration::from_secs(moves),
            caught_up: Duration::from_secs(caught_up),
        };
        let table = table(&[recovered("b", 7, 7), recovered("a", 3, 9), recovered("a", 1, 4), recovered("a", 2, 5)]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a", "3", "2.0", "3.0", "5.0", "9.0"]);
        assert_eq!(lines[2], ["b", "1", "7.0", "7.0", "7.0", "7.0"]);
    }
}
