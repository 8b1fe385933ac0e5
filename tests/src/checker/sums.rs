//! Do rows, input, changelog, stock deltas and target say the same?

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Contribution, Facts};
use super::finding::{Code, Finding, find};
use super::records::{self, Changelog, place};
use super::versions::Newest;
use crate::client::Record;

pub(super) fn check(facts: &Facts, changelog: &Changelog, newest: &Newest, findings: &mut Vec<Finding>) {
    let refused = dead_letters(facts, findings);
    if let Some(rows) = &facts.rows {
        rows_are_counted(rows, changelog, findings);
    }
    input_is_known(facts, &refused, changelog, findings);
    sums_are_the_changelogs(changelog, newest, findings);
    target_is_the_output(facts, newest, findings);
}

fn rows_are_counted(rows: &BTreeMap<String, Contribution>, changelog: &Changelog, findings: &mut Vec<Finding>) {
    for (id, row) in rows {
        match changelog.get(id).copied().flatten() {
            None => find(findings, Code::RowLost, format!("row {id} ({row}) contributes nothing")),
            Some(counted) if counted != *row => {
                find(findings, Code::RowDiffers, format!("row {id} is {row} and counts as {counted}"));
            }
            Some(_) => {}
        }
    }
    for (id, counted) in changelog {
        if let Some(counted) = counted
            && !rows.contains_key(id)
        {
            find(findings, Code::RowInvented, format!("{id} counts as {counted} and is no row of the source"));
        }
    }
}

/// Checks the dead letters and returns the places of the input they hold: partition and offset.
fn dead_letters(facts: &Facts, findings: &mut Vec<Finding>) -> BTreeSet<(i32, i64)> {
    let input: BTreeMap<(i32, i64), &Record> =
        facts.input.committed.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let mut places = BTreeSet::new();
    for letter in &facts.dead_letters.committed {
        let at = place(&facts.dead_letters.name, letter);
        let Some(origin) = origin(letter) else {
            find(
                findings,
                Code::DeadLetterAltered,
                format!("the dead letter at {at} does not say where it comes from"),
            );
            continue;
        };
        if !places.insert(origin) {
            let sentence = format!("partition {} offset {} of the input is again at {at}", origin.0, origin.1);
            find(findings, Code::DeadLetterRepeated, sentence);
        }
        let start = facts.input.ends.get(&origin.0).map_or(0, |ends| ends.start);
        let same = match input.get(&origin) {
            Some(record) => record.key == letter.key && record.value == letter.value,
            None => origin.1 < start,
        };
        if !same {
            let sentence = format!("{at} is not the record at partition {} offset {}", origin.0, origin.1);
            find(findings, Code::DeadLetterAltered, sentence);
        }
    }
    places
}

/// Where a dead letter comes from. Of a header that occurs more than once the last counts.
fn origin(letter: &Record) -> Option<(i32, i64)> {
    let last = |name: &str| {
        let value = letter.headers.iter().rev().find(|(header, _)| header == name)?.1.as_deref()?;
        std::str::from_utf8(value).ok()
    };
    Some((last("dead-letter.partition")?.parse().ok()?, last("dead-letter.offset")?.parse().ok()?))
}

fn input_is_known(facts: &Facts, refused: &BTreeSet<(i32, i64)>, changelog: &Changelog, findings: &mut Vec<Finding>) {
    let said = records::input(&facts.input, facts.scale, refused);
    // Retention may have taken events whose effect is in the changelog.
    let whole = facts.input.ends.values().all(|ends| ends.start == 0);
    if !facts.changelog.compacted {
        for (id, _) in said.iter().filter(|(id, said)| said.named && !changelog.contains_key(*id)) {
            find(findings, Code::InputLost, format!("row {id} of the input is unknown to the changelog"));
        }
    }
    for (id, counted) in changelog {
        let Some(counted) = counted else { continue };
        if whole && !said.get(id).is_some_and(|said| said.contributions.contains(counted)) {
            let sentence = format!("row {id} counts as {counted}, which no event of the input says");
            find(findings, Code::ContributionInvented, sentence);
        }
    }
}

fn sums_are_the_changelogs(changelog: &Changelog, newest: &Newest, findings: &mut Vec<Finding>) {
    let mut sums: BTreeMap<i64, (i128, i64)> = BTreeMap::new();
    for counted in changelog.values().flatten() {
        let sum = sums.entry(counted.good).or_default();
        sum.0 += i128::from(counted.pieces);
        sum.1 += 1;
    }
    let goods: BTreeSet<i64> = sums.keys().chain(newest.keys()).copied().collect();
    for good in goods {
        let (pieces, rows) = sums.get(&good).copied().unwrap_or_default();
        let shown = newest.get(&good);
        let (remains, live) = shown.map_or((0, 0), |delta| (delta.remains, delta.transactions));
        if remains != pieces {
            let sentence = format!("good {good}: {remains} in the output, {pieces} over the changelog");
            find(findings, Code::SumDiffers, sentence);
        }
        if live != rows {
            let sentence = format!("good {good}: {live} live rows in the output, {rows} in the changelog");
            find(findings, Code::RowCountDiffers, sentence);
        }
    }
}

fn target_is_the_output(facts: &Facts, newest: &Newest, findings: &mut Vec<Finding>) {
    let Some(target) = &facts.target else { return };
    for (good, delta) in newest {
        // What does not fit the target's bigint, or numeric of 38 digits, is held there and keeps an older row.
        let remains = delta.remains;
        let fits =
            if facts.scale == 0 { i64::try_from(remains).is_ok() } else { remains.unsigned_abs() < 10_u128.pow(38) };
        if !fits {
            continue;
        }
        let Some(row) = target.get(good) else {
            find(findings, Code::TargetLost, format!("good {good} ({remains}) is not in the target"));
            continue;
        };
        if (row.cnt, row.epoch, row.version) != (remains, delta.epoch, delta.version) {
            let sentence = format!(
                "good {good}: the target shows {} (epoch {}, version {}), the output {remains} (epoch {}, version {})",
                row.cnt, row.epoch, row.version, delta.epoch, delta.version
            );
            find(findings, Code::TargetDiffers, sentence);
        }
    }
    for (good, row) in target.iter().filter(|(good, _)| !newest.contains_key(*good)) {
        find(findings, Code::TargetInvented, format!("good {good} ({}) is in the target only", row.cnt));
    }
}

impl std::fmt::Display for Contribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:+} pieces of good {}", self.pieces, self.good)
    }
}
