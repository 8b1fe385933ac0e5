//! Owns the few numbers that are made of many: percentiles, medians, spreads, rates. Pure.

use std::time::Duration;

use serde::Serialize;

/// A count as a number to divide; exact up to 2^53, which no count here reaches.
#[allow(clippy::cast_precision_loss)]
pub const fn number(count: u64) -> f64 {
    count as f64
}

/// Events per second; 0 when no time passed.
pub fn rate(events: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { number(events) / seconds } else { 0.0 }
}

/// Milliseconds with their fraction.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value below or at which `percent` of the values lie (nearest rank); `None` without values.
/// `sorted` must be in ascending order.
pub fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The middle value, or the mean of the two in the middle; `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (lower, upper) = (sorted.get((sorted.len().checked_sub(1)?) / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*lower, *upper))
}

/// A median with the least and the greatest value it was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// The least value.
    pub least: f64,
    /// The greatest value.
    pub greatest: f64,
}

/// Median and spread; `None` without values.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let median = median(values)?;
    let least = values.iter().copied().reduce(f64::min)?;
    let greatest = values.iter().copied().reduce(f64::max)?;
    Some(Spread { median, least, greatest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_hundred() -> Vec<Duration> {
        (1..=100).map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = to_hundred();
        for percent in [1, 50, 90, 99, 100] {
            let expected = Duration::from_millis(u64::try_from(percent).unwrap());
            assert_eq!(percentile(&values, percent), Some(expected));
        }
        assert_eq!(percentile(&values[..1], 99), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&values[..3], 50), Some(Duration::from_millis(2)));
    }

    #[test]
    fn nothing_measured_has_no_percentile_and_no_median() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn the_median_does_not_follow_an_outlier() {
        assert_eq!(median(&[3.0, 1000.0, 1.0]), Some(3.0));
        assert_eq!(median(&[4.0, 2.0]), Some(3.0));
        assert_eq!(spread(&[5.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, greatest: 5.0 }));
    }
}
