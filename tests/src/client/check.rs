//! A stock delta as a reader sees it, and the comparison of remains.
//!
//! Deliberately not the product's own types: a field renamed on both sides would otherwise pass unnoticed. Everything
//! that takes more than remains to be judged is in [`crate::checker`].

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::quantity;

/// The part of a stock-delta record that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Delta {
    /// The good.
    pub good_id: i64,
    /// Change made by this record, in pieces or units of a piece.
    #[serde(deserialize_with = "quantity::deserialize")]
    pub delta: i128,
    /// Total after this record, in the same.
    #[serde(deserialize_with = "quantity::deserialize")]
    pub remains: i128,
    /// Live transactions of the good after this record.
    pub transactions: i64,
    /// Counts the records of a good within an epoch, from 1.
    pub version: u64,
    /// When the output partition was begun; a rebuilt one has a larger epoch.
    pub epoch: u64,
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

    #[test]
    fn a_good_that_is_not_there_counts_as_zero() {
        check_remains([(1, 5), (2, 0)], [(1, 5), (3, 0)]).unwrap();
        let error = check_remains([(1, 5)], [(1, 6), (2, 1)]).unwrap_err();
        assert_eq!(error.to_string(), "2 goods are wrong: good 1: 5 instead of 6; good 2: 0 instead of 1");
    }
}
