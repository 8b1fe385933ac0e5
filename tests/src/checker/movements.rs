//! Do movements add up?
//!
//! A movement that stays with its worker leaves no record, so the sum over the movements topic alone says nothing. What a
//! good moved is the difference between each state of a row and the one before, over the whole changelog; its stock deltas
//! must have moved by as much. That holds whichever way a movement took, and says more than equal totals do: each change
//! is in the output as a change.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::facts::{Facts, Topic};
use super::finding::{Code, Finding, find};
use super::records::{is_own_state, place, row_state};
use crate::client::{Delta, Record, quantity};

#[derive(Deserialize)]
struct Movement {
    good_id: i64,
    #[serde(rename = "delta", deserialize_with = "quantity::deserialize")]
    _delta: i128,
    #[serde(rename = "transactions")]
    _transactions: i64,
}

pub(super) fn check(facts: &Facts, findings: &mut Vec<Finding>) {
    // Purged ones were seen by a live reader.
    let live = facts.live.iter().filter(|live| live.topic == facts.movements.name).flat_map(|live| &live.records);
    let mut seen = BTreeSet::new();
    for record in live.chain(&facts.movements.committed) {
        if seen.insert((record.partition, record.offset))
            && let Err(what) = readable(record)
        {
            find(findings, Code::RecordUnreadable, format!("{what} at {}", place(&facts.movements.name, record)));
        }
    }
    if facts.changelog.compacted || facts.deltas.compacted {
        return;
    }
    let (moved, shown) = (moved(&facts.changelog), shown(&facts.deltas));
    for good in moved.keys().chain(shown.keys()).copied().collect::<BTreeSet<i64>>() {
        let of = |sums: &BTreeMap<i64, i128>| sums.get(&good).copied().unwrap_or_default();
        if of(&moved) != of(&shown) {
            let sentence =
                format!("good {good}: its rows moved it by {}, its stock deltas by {}", of(&moved), of(&shown));
            find(findings, Code::MovementsDiffer, sentence);
        }
    }
}

fn readable(record: &Record) -> Result<(), String> {
    let Some(value) = record.value.as_deref() else { return Err("a tombstone".into()) };
    let movement: Movement = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let (key, good) = (record.key_text(), movement.good_id);
    if good.to_string() == key { Ok(()) } else { Err(format!("key {key} over good {good}")) }
}

/// Pieces by good: every state of every row, minus the one before.
fn moved(changelog: &Topic) -> BTreeMap<i64, i128> {
    let mut rows = BTreeMap::new();
    let mut sums: BTreeMap<i64, i128> = BTreeMap::new();
    for record in changelog.committed.iter().filter(|record| !is_own_state(record)) {
        // What cannot be read is found elsewhere.
        let Ok(state) = row_state(record) else { continue };
        if let Some(now) = state {
            *sums.entry(now.good).or_default() += i128::from(now.pieces);
        }
        if let Some(before) = rows.insert(record.key_text(), state).flatten() {
            *sums.entry(before.good).or_default() -= i128::from(before.pieces);
        }
    }
    sums
}

/// Pieces by good: every stock delta of its newest epoch.
fn shown(deltas: &Topic) -> BTreeMap<i64, i128> {
    let mut sums: BTreeMap<i64, (u64, i128)> = BTreeMap::new();
    for record in deltas.committed.iter().filter(|record| !is_own_state(record)) {
        let Some(delta) = record.value.as_deref().and_then(|value| serde_json::from_slice::<Delta>(value).ok()) else {
            continue;
        };
        let (epoch, sum) = sums.entry(delta.good_id).or_default();
        if delta.epoch > *epoch {
            (*epoch, *sum) = (delta.epoch, 0);
        }
        if delta.epoch == *epoch {
            *sum += delta.delta;
        }
    }
    sums.into_iter().map(|(good, (_, sum))| (good, sum)).collect()
}
