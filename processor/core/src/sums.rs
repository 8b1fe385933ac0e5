//! One good's running total.
//!
//! Owns the arithmetic of the second step and guards invariant 2: every change makes the next version, and the total
//! is exact or an error, never wrapped.

use schemas::Scale;

use crate::encoding::Damaged;

/// What is known of one good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Pieces that remain, in units of the system's scale. Negative where the source says so.
    pub remains: i128,
    /// Live source rows of the good. Signed: a row that moves from one input partition to another may be taken off
    /// before it is added.
    pub transactions: i64,
    /// 1, 2, 3, … for every change; 0 = never changed.
    pub version: u64,
    /// When the output partition was first written, ms since 1970.
    pub epoch: u64,
}

/// A total that leaves its range. No sequence of real rows gets there (10^19 rows of the largest value would be
/// needed), so this is a damaged or foreign record, and the operator has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sum leaves its range: {remains} units {delta:+}, {transactions} rows {rows:+}, version {version}")]
pub struct SumOverflow {
    /// Total before.
    pub remains: i128,
    /// The change, in the same units.
    pub delta: i128,
    /// Live rows before.
    pub transactions: i64,
    /// The change, in rows.
    pub rows: i64,
    /// Version before.
    pub version: u64,
}

/// Low four bits of the first byte: version of the encoding. The high ones are the scale of the sum, because nothing
/// else in an output partition's state says it: an output partition has no record of its own, and units of another scale
/// are another quantity.
const VERSION: u8 = 1;
const SCALE_SHIFT: u32 = 4;

impl Sum {
    /// Length of an encoded sum in bytes.
    pub const ENCODED_BYTES: usize = 41;

    /// The sum after a change; its version is one higher, also for a change of nothing.
    ///
    /// # Errors
    /// [`SumOverflow`], and the sum is as before.
    pub fn apply(&self, delta: i128, transactions: i64) -> Result<Self, SumOverflow> {
        let overflow = SumOverflow {
            remains: self.remains,
            delta,
            transactions: self.transactions,
            rows: transactions,
            version: self.version,
        };
        Ok(Self {
            remains: self.remains.checked_add(delta).ok_or(overflow)?,
            transactions: self.transactions.checked_add(transactions).ok_or(overflow)?,
            version: self.version.checked_add(1).ok_or(overflow)?,
            epoch: self.epoch,
        })
    }

    /// Appends the value kept in the store: a byte of version and scale, and fixed-width little-endian fields (goods are
    /// few).
    pub fn encode(&self, scale: Scale, out: &mut Vec<u8>) {
        out.push(first_byte(scale));
        out.extend_from_slice(&self.remains.to_le_bytes());
        out.extend_from_slice(&self.transactions.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
    }

    /// The scale of a value of the store, for comparing it once with the one that is configured.
    ///
    /// # Errors
    /// [`Damaged`] for anything [`Sum::encode`] of this version did not write.
    pub fn scale(value: &[u8]) -> Result<Scale, Damaged> {
        let first = value.first().filter(|first| *first & !(u8::MAX << SCALE_SHIFT) == VERSION);
        let scale = first.and_then(|first| Scale::try_from(first >> SCALE_SHIFT).ok());
        scale.ok_or(Damaged { what: "sum", length: value.len() })
    }

    /// Reads a value of the store, of a sum of this scale.
    ///
    /// # Errors
    /// [`Damaged`] for anything [`Sum::encode`] of this version did not write.
    pub fn decode(value: &[u8], scale: Scale) -> Result<Self, Damaged> {
        Self::parse(value, scale).ok_or(Damaged { what: "sum", length: value.len() })
    }

    fn parse(value: &[u8], scale: Scale) -> Option<Self> {
        let rest = value.strip_prefix(&[first_byte(scale)])?;
        let (remains, rest) = rest.split_first_chunk()?;
        let (transactions, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let epoch = rest.try_into().ok()?;
        Some(Self {
            remains: i128::from_le_bytes(*remains),
            transactions: i64::from_le_bytes(*transactions),
            version: u64::from_le_bytes(*version),
            epoch: u64::from_le_bytes(epoch),
        })
    }
}

const fn first_byte(scale: Scale) -> u8 {
    VERSION | (scale.digits() << SCALE_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_makes_the_next_version() {
        let first = Sum { epoch: 7, ..Sum::default() }.apply(30, 1).unwrap();
        assert_eq!(first, Sum { remains: 30, transactions: 1, version: 1, epoch: 7 });
        assert_eq!(first.apply(-15, 1).unwrap(), Sum { remains: 15, transactions: 2, version: 2, epoch: 7 });
    }

    #[test]
    fn a_total_beyond_its_range_is_an_error_and_never_wraps() {
        let full = Sum { remains: i128::MAX, ..Sum::default() };
        assert_eq!(full.apply(1, 0).unwrap_err().delta, 1);
        assert_eq!(full.apply(0, 0).unwrap().version, 1);
        assert!(Sum { transactions: i64::MIN, ..Sum::default() }.apply(0, -1).is_err());
        assert!(Sum { version: u64::MAX, ..Sum::default() }.apply(0, 0).is_err());
    }

    #[test]
    fn the_store_form_survives_the_round_trip_and_refuses_anything_else() {
        let sum = Sum { remains: i128::MIN, transactions: -3, version: u64::MAX, epoch: 1 };
        let mut value = Vec::new();
        sum.encode(Scale::WHOLE, &mut value);
        assert_eq!((value.len(), value[0]), (Sum::ENCODED_BYTES, 1));
        assert_eq!(Sum::decode(&value, Scale::WHOLE), Ok(sum));
        for length in 0..value.len() {
            assert!(Sum::decode(&value[..length], Scale::WHOLE).is_err());
        }
        value.push(0);
        assert!(Sum::decode(&value, Scale::WHOLE).is_err());
        value[0] = 2;
        assert!(Sum::decode(&value[..41], Scale::WHOLE).is_err() && Sum::scale(&value).is_err());
    }

    #[test]
    fn a_sum_says_its_scale_and_is_read_as_no_other() {
        let sum = Sum { remains: -12_500, transactions: 3, version: 2, epoch: 1 };
        let scales = (0..=Scale::MAX.digits()).map(|digits| Scale::try_from(digits).unwrap());
        for scale in scales.clone() {
            let mut value = Vec::new();
            sum.encode(scale, &mut value);
            assert_eq!((value.len(), Sum::scale(&value)), (Sum::ENCODED_BYTES, Ok(scale)));
            for other in scales.clone() {
                assert_eq!(Sum::decode(&value, other).is_ok(), other == scale, "{scale} as {other}");
            }
        }
        assert!(Sum::scale(&[]).is_err() && Sum::scale(&[0xa1]).is_err());
    }
}
