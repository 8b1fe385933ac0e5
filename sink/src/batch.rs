//! Owns what a batch of stock deltas comes to: the newest version of each good, as columns for one upsert.
//!
//! Pure: no clock, no I/O. Guards its half of invariant 8: within a batch, too, only the newest (epoch, version) of a
//! good counts, and a sum that does not fit the target's column is held back, never cut.

use std::collections::BTreeMap;

use schemas::{GoodId, Scale, StockDelta};

use crate::goods::Goods;
use crate::quantities::Quantities;

/// One version of a good, with epoch and version in the target's integer type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// The good.
    pub good_id: GoodId,
    /// Pieces that remain, in units of the scale; may exceed what the target can hold.
    pub remains: i128,
    /// Epoch of the output, ms since 1970.
    pub epoch: i64,
    /// Version of the good within the epoch.
    pub version: i64,
}

impl Remains {
    /// Takes from a stock delta what the target keeps.
    ///
    /// # Errors
    /// A text that names the field, when epoch or version exceed a signed 64-bit integer: no clock and no counter
    /// gets there, so another writer did.
    pub fn from_delta(delta: StockDelta) -> Result<Self, String> {
        let fit = |name: &str, value: u64| {
            i64::try_from(value).map_err(|_| format!("its {name} {value} is larger than any that can be"))
        };
        Ok(Self {
            good_id: delta.good_id,
            remains: delta.remains,
            epoch: fit("epoch", delta.epoch)?,
            version: fit("version", delta.version)?,
        })
    }

    fn is_newer_than(&self, other: &Self) -> bool {
        (self.epoch, self.version) > (other.epoch, other.version)
    }
}

/// The newest version of each good, ordered by good: concurrent upserts lock rows in the same order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    goods: BTreeMap<GoodId, Remains>,
}

/// Rows for the upsert, column by column, ordered by good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The goods.
    pub good_ids: Goods,
    /// Their remains.
    pub counts: Quantities,
    /// Their epochs.
    pub epochs: Vec<i64>,
    /// Their versions.
    pub versions: Vec<i64>,
}

impl Batch {
    /// Adds a version; an older one than the batch already has of the good changes nothing.
    pub fn add(&mut self, remains: Remains) {
        match self.goods.get_mut(&remains.good_id) {
            Some(kept) if remains.is_newer_than(kept) => *kept = remains,
            Some(_) => {}
            None => _ = self.goods.insert(remains.good_id.clone(), remains),
        }
    }

    /// What can be written, and the goods that must be held back because their remains, in units of this scale, do not fit
    /// the column.
    pub fn rows(&self, scale: Scale) -> (Rows, Vec<Remains>) {
        let mut rows = Rows { counts: Quantities::new(scale), ..Rows::default() };
        let mut held = Vec::new();
        for remains in self.goods.values() {
            if !rows.counts.push(remains.remains) {
                held.push(remains.clone());
                continue;
            }
            rows.good_ids.0.push(remains.good_id.clone());
            rows.epochs.push(remains.epoch);
            rows.versions.push(remains.version);
        }
        (rows, held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remains(good_id: i64, remains: i128, epoch: i64, version: i64) -> Remains {
        Remains { good_id: good_id.into(), remains, epoch, version }
    }

    #[test]
    fn the_newest_version_of_a_good_wins_in_whatever_order_they_come() {
        let versions = [remains(1, 10, 5, 1), remains(1, 20, 5, 2), remains(1, 7, 6, 1)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut batch = Batch::default();
            for index in order {
                batch.add(versions[index].clone());
            }
            let (rows, held) = batch.rows(Scale::WHOLE);
            assert_eq!((rows.counts, rows.epochs, rows.versions), (Quantities::Whole(vec![7]), vec![6], vec![1]));
            assert!(held.is_empty());
        }
    }

    #[test]
    fn rows_are_ordered_by_good_so_that_concurrent_upserts_lock_alike() {
        let mut batch = Batch::default();
        for good in [5, -3, i64::MAX, 0, i64::MIN] {
            batch.add(remains(good, 1, 1, 1));
        }
        assert_eq!(batch.rows(Scale::WHOLE).0.good_ids.0, [i64::MIN, -3, 0, 5, i64::MAX].map(GoodId::from));
    }

    #[test]
    fn a_sum_that_does_not_fit_is_held_back_and_the_others_go_on() {
        let mut batch = Batch::default();
        batch.add(remains(1, i128::from(i64::MAX), 1, 1));
        batch.add(remains(2, i128::from(i64::MAX) + 1, 1, 1));
        batch.add(remains(3, i128::from(i64::MIN) - 1, 1, 1));
        batch.add(remains(4, i128::from(i64::MIN), 1, 1));
        let (rows, held) = batch.rows(Scale::WHOLE);
        assert_eq!(rows.good_ids.0, [1, 4].map(GoodId::from));
        assert_eq!(held.into_iter().map(|held| held.good_id).collect::<Vec<_>>(), [2, 3].map(GoodId::from));
    }

    #[test]
    fn an_epoch_or_version_beyond_the_column_is_refused_by_name() {
        let delta =
            StockDelta { good_id: 1.into(), delta: 1, remains: 1, transactions: 1, version: 1, epoch: u64::MAX };
        assert!(Remains::from_delta(delta).unwrap_err().contains("epoch"));
    }
}
