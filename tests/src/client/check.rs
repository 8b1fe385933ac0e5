//! Is the output right?
//!
//! Guards invariants 1 (sum) and 2 (monotone) from outside: it knows the record format and the arithmetic, and
//! nothing of how the processor comes to its results. It deliberately does not use the product's own types: a field
//! renamed on both sides would otherwise pass unnoticed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::records::Record;

/// The part of a stock-delta record that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Delta {
    /// The good.
    pub good_id: i64,
    /// Change made by this record, in pieces.
    pub delta: i128,
    /// Total after this record, in pieces.
    pub remains: i128,
    /// Live transactions of the good after this record.
    pub transactions: i64,
    /// Counts the records of a good within an epoch, from 1.
    pub version: u64,
    /// When the output partition was begun; a rebuilt one has a larger epoch.
    pub epoch: u64,
}

/// Checks a whole, never compacted read of the deltas topic, and returns the newest record of each good.
///
/// Within an epoch versions are 1, 2, 3, … without gap or repeat and `remains(v) = remains(v−1) + delta(v)`; a good stays
/// in one partition and its epochs only grow.
pub fn check_deltas(records: &[Record]) -> Result<BTreeMap<i64, Delta>> {
    let mut newest: BTreeMap<i64, (i32, Delta)> = BTreeMap::new();
    for record in records {
        let key = record.key_text();
        // Keys of this kind hold state of the partition itself.
        if key.starts_with('#') {
            continue;
        }
        let delta = parse(record, &key).with_context(|| place(record))?;
        let before = newest.get(&delta.good_id).copied();
        if let Some((partition, _)) = before {
            ensure!(partition == record.partition, "{}: good {key} was in partition {partition} before", place(record));
        }
        check_step(before.map(|(_, delta)| delta), delta).with_context(|| place(record))?;
        newest.insert(delta.good_id, (record.partition, delta));
    }
    Ok(newest.into_iter().map(|(good, (_, delta))| (good, delta)).collect())
}

fn parse(record: &Record, key: &str) -> Result<Delta> {
    let value = record.value.as_deref().context("a tombstone")?;
    let delta: Delta = serde_json::from_slice(value).with_context(|| String::from_utf8_lossy(value).into_owned())?;
    ensure!(delta.good_id.to_string() == key, "the key is {key}, the good {}", delta.good_id);
    Ok(delta)
}

fn check_step(before: Option<Delta>, delta: Delta) -> Result<()> {
    let good = delta.good_id;
    let (version, remains) = match before {
        Some(before) if before.epoch == delta.epoch => (before.version, before.remains),
        Some(before) if before.epoch > delta.epoch => {
            bail!("good {good}: epoch {} after {}", delta.epoch, before.epoch)
        }
        _ => (0, 0),
    };
    ensure!(delta.version == version + 1, "good {good}: version {} after {version}", delta.version);
    ensure!(
        remains.checked_add(delta.delta) == Some(delta.remains),
        "good {good}, version {}: {remains} + {} is not {}",
        delta.version,
        delta.delta,
        delta.remains
    );
    Ok(())
}

fn place(record: &Record) -> String {
    format!("partition {} offset {}", record.partition, record.offset)
}

/// Compares remains with what they have to be; a good missing on either side counts as 0.
///
/// The error names every good that differs (up to 20).
pub fn check_remains(
    actual: impl IntoIterator<Item = (i64, i128)>,
    expected: impl IntoIterator<Item = (i64, i128)>,
) -> Result<()> {
    let actual: BTreeMap<i64, i128> = actual.into_iter().collect();
    let expected: BTreeMap<i64, i128> = expected.into_iter().collect();
    let mut goods: Vec<i64> = actual.keys().chain(expected.keys()).copied().collect();
    goods.sort_unstable();
    goods.dedup();
    let of = |map: &BTreeMap<i64, i128>, good| map.get(&good).copied().unwrap_or(0);
    let wrong: Vec<String> = goods
        .into_iter()
        .filter(|good| of(&actual, *good) != of(&expected, *good))
        .map(|good| format!("good {good}: {} instead of {}", of(&actual, good), of(&expected, good)))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
    bail!("{} goods are wrong: {}", wrong.len(), shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, delta: i128, remains: i128, version: u64, epoch: u64) -> Record {
        let value = format!(
            r#"{{"good_id":2,"delta":{delta},"remains":{remains},"transactions":1,"version":{version},"epoch":{epoch}}}"#
        );
        Record {
            partition: 4,
            offset,
            timestamp_ms: None,
            key: Some(b"2".to_vec()),
            value: Some(value.into_bytes()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn right_records_pass_and_the_newest_is_returned() {
        let records = [record(0, 30, 30, 1, 7), record(1, -15, 15, 2, 7), record(2, 15, 15, 1, 9)];
        let newest = check_deltas(&records).unwrap();
        assert_eq!(newest[&2].remains, 15);
        assert_eq!(newest[&2].epoch, 9);
    }

    #[test]
    fn sums_beyond_64_bits_are_compared_exactly() {
        let big = i128::from(i64::MAX) * 4;
        assert!(check_deltas(&[record(0, big, big, 1, 7)]).is_ok());
        assert!(check_deltas(&[record(0, big, big - 1, 1, 7)]).is_err());
    }

    #[test]
    fn a_repeated_version_is_found() {
        let records = [record(0, 30, 30, 1, 7), record(1, 0, 30, 1, 7)];
        let error = format!("{:#}", check_deltas(&records).unwrap_err());
        assert_eq!(error, "partition 4 offset 1: good 2: version 1 after 1");
    }

    #[test]
    fn a_missing_version_is_found() {
        assert!(check_deltas(&[record(0, 30, 30, 1, 7), record(1, 1, 31, 3, 7)]).is_err());
        assert!(check_deltas(&[record(0, 30, 30, 2, 7)]).is_err());
    }

    #[test]
    fn an_older_epoch_after_a_newer_one_is_found() {
        assert!(check_deltas(&[record(0, 30, 30, 1, 7), record(1, 30, 30, 1, 6)]).is_err());
    }

    #[test]
    fn a_good_in_two_partitions_is_found() {
        let mut elsewhere = record(0, 5, 35, 2, 7);
        elsewhere.partition = 5;
        assert!(check_deltas(&[record(0, 30, 30, 1, 7), elsewhere]).is_err());
    }

    #[test]
    fn a_good_that_is_not_there_counts_as_zero() {
        check_remains([(1, 5), (2, 0)], [(1, 5), (3, 0)]).unwrap();
        let error = check_remains([(1, 5)], [(1, 6), (2, 1)]).unwrap_err();
        assert_eq!(error.to_string(), "2 goods are wrong: good 1: 5 instead of 6; good 2: 0 instead of 1");
    }
}
