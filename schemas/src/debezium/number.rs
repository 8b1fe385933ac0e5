//! Whole numbers as the connector writes them: JSON integers, or doubles (`decimal.handling.mode` = `double`).
//!
//! Works on the number's text instead of `serde_json`'s numbers: those silently turn integers beyond 64 bits into
//! doubles and fail the whole document on `1e400`, and a sum must not depend on either.

/// The largest double below which every whole number has a double of its own: 2^53.
const EXACT_DOUBLE: f64 = 9_007_199_254_740_992.0;

/// What a JSON value is as a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integer {
    /// A whole number in 64 bits.
    Value(i64),
    /// A number with a fraction.
    Fractional {
        /// Below zero.
        negative: bool,
    },
    /// Above 64 bits, or a double above 2^53 (its exact value is lost).
    TooLarge,
    /// Below 64 bits, or a double below −2^53.
    TooSmall,
    /// No JSON number.
    NotANumber,
}

/// Reads the raw text of a JSON value; `raw` is valid JSON.
pub(super) fn integer(raw: &str) -> Integer {
    if let Ok(value) = raw.parse() {
        return Integer::Value(value);
    }
    let negative = raw.starts_with('-');
    if !raw.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
        return Integer::NotANumber;
    }
    if raw.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-')) {
        return if negative { Integer::TooSmall } else { Integer::TooLarge };
    }
    match raw.parse::<f64>() {
        Err(_) => Integer::NotANumber,
        Ok(value) if value > EXACT_DOUBLE => Integer::TooLarge,
        Ok(value) if value < -EXACT_DOUBLE => Integer::TooSmall,
        // Zero from other digits than zeroes is a number too small for a double, not nothing.
        Ok(value) if value.fract() != 0.0 || (value == 0.0 && !mantissa_is_zero(raw)) => {
            Integer::Fractional { negative }
        }
        // Whole and at most 2^53: its text without fraction is an i64.
        Ok(value) => format!("{value:.0}").parse().map_or(Integer::NotANumber, Integer::Value),
    }
}

fn mantissa_is_zero(raw: &str) -> bool {
    raw.split(['e', 'E']).next().is_some_and(|mantissa| !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_exact_in_both_notations() {
        for (raw, value) in [
            ("0", 0),
            ("-0", 0),
            ("5", 5),
            ("-5", -5),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("0.0", 0),
            ("-0.0", 0),
            ("0e400", 0),
            ("5.0", 5),
            ("-5.0", -5),
            ("1.5E1", 15),
            ("9.007199254740992E15", 9_007_199_254_740_992),
            ("-9.007199254740992E15", -9_007_199_254_740_992),
        ] {
            assert_eq!(integer(raw), Integer::Value(value), "{raw}");
        }
    }

    #[test]
    fn what_is_not_whole_or_not_exact_is_told_apart() {
        for (raw, expected) in [
            ("0.5", Integer::Fractional { negative: false }),
            ("-0.5", Integer::Fractional { negative: true }),
            ("1e-400", Integer::Fractional { negative: false }),
            ("9.007199254740994E15", Integer::TooLarge),
            ("9223372036854775808", Integer::TooLarge),
            ("1e400", Integer::TooLarge),
            ("-9223372036854775809", Integer::TooSmall),
            ("-1e400", Integer::TooSmall),
            ("null", Integer::NotANumber),
            ("true", Integer::NotANumber),
            ("\"5\"", Integer::NotANumber),
            ("\"\"", Integer::NotANumber),
            ("[5]", Integer::NotANumber),
            ("\"NaN\"", Integer::NotANumber),
        ] {
            assert_eq!(integer(raw), expected, "{raw}");
        }
    }
}
