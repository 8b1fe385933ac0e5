//! Quantities as they stand in records and tables, whole or with digits behind the point.
//!
//! All of one job have as many, so they are compared as integers, in units of the last digit. With nothing of the
//! product's own, which does the same.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use serde_json::value::RawValue;

/// The units of a text that has all the digits of its job.
pub fn units(text: &str) -> Result<i128> {
    text.replacen('.', "", 1).parse().with_context(|| format!("{text} is no quantity"))
}

/// The same of a field of a record.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
    units(<&RawValue>::deserialize(deserializer)?.get()).map_err(de::Error::custom)
}

/// In units of 10^−`scale`, what a connector may have meant by a value: a number, a text with one, or a decimal in
/// base64 of that scale. A text can be both of the latter.
pub(crate) fn of_connector(value: &Value, scale: u32) -> Vec<i128> {
    match value {
        Value::Number(number) => decimal(&number.to_string(), scale).into_iter().collect(),
        Value::String(text) => decimal(text, scale).into_iter().chain(unscaled(text)).collect(),
        _ => Vec::new(),
    }
}

/// `None` unless it is a number with at most `scale` digits behind the point.
fn decimal(text: &str, scale: u32) -> Option<i128> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let power = exponent.parse::<i64>().ok()? + i64::from(scale) - i64::try_from(fraction.len()).ok()?;
    let factor = 10_i128.checked_pow(u32::try_from(power.unsigned_abs()).ok()?)?;
    if power < 0 { (digits % factor == 0).then_some(digits / factor) } else { digits.checked_mul(factor) }
}

fn unscaled(text: &str) -> Option<i128> {
    let bytes = STANDARD.decode(text).ok()?;
    let negative = bytes.first()? & 0x80 != 0;
    let mut whole = if negative { [0xff; 16] } else { [0; 16] };
    whole.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(&bytes);
    Some(i128::from_be_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_integers_of_their_last_digit_however_they_are_written() {
        assert_eq!(units("-0.050").unwrap(), -50);
        assert_eq!(units("12").unwrap(), 12);
        assert!(units("1.2.3").is_err() && units("1e3").is_err());
        for (value, expected) in [
            ("12.5", vec![12_500]),
            ("1.25E-2", vec![]),
            ("1.0E7", vec![10_000_000_000]),
            ("12", vec![12_000]),
            ("\"12.500\"", vec![12_500]),
            ("\"MNQ=\"", vec![12_500]),
            ("\"zw==\"", vec![-49]),
            ("\"1250\"", vec![1_250_000, -2_658_700]),
            ("null", vec![]),
        ] {
            assert_eq!(of_connector(&serde_json::from_str(value).unwrap(), 3), expected, "{value}");
        }
    }
}
