//! How the demonstration speaks: plain lines on standard output, some 80 columns, the same with and without a terminal.

use std::fmt;
use std::io::Write as _;

/// Columns of a line of foreign output.
const COLUMNS: usize = 100;

/// Number of steps, for "step 3 of 8".
const STEPS: u8 = 8;

/// One line.
pub(super) fn say(text: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    // A reader that went away is no reason to fail: the exit code still tells.
    let _best_effort = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// The headline of a step.
pub(super) fn step(number: u8, title: &str) {
    say(format_args!("\n=== {number} of {STEPS}: {title}"));
}

/// Something that belongs to the step.
pub(super) fn tell(text: impl fmt::Display) {
    say(format_args!("    {text}"));
}

/// The first lines of what a program printed.
pub(super) fn quote(text: &str, lines: usize) {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    for line in all.iter().take(lines) {
        tell(format_args!("  | {}", shortened(line)));
    }
    if all.len() > lines {
        tell(format_args!("  | … {} more lines", all.len() - lines));
    }
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= COLUMNS {
        return line.to_owned();
    }
    line.chars().take(COLUMNS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(shortened("kurz"), "kurz");
        assert_eq!(shortened(&"ü".repeat(200)).chars().count(), COLUMNS);
    }
}
