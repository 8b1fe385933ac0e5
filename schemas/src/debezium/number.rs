//! Whole numbers as the connector writes them: JSON integers, or doubles (`decimal.handling.mode` = `double`).
//!
//! Decimals of other encodings are brought into the same text first, exactly ([`Form`]).
//!
//! Works on the number's text instead of `serde_json`'s numbers: those silently turn integers beyond 64 bits into
//! doubles and fail the whole document on `1e400`, and a sum must not depend on either.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigInt;
use serde::Deserialize;

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
    // Told from the digits: a double has no room for a fraction far behind the point.
    let fraction = raw.split_once('.').map(|(_, fraction)| fraction).filter(|fraction| !fraction.contains(['e', 'E']));
    if fraction.is_some_and(|fraction| fraction.bytes().any(|byte| byte != b'0')) {
        return Integer::Fractional { negative };
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

/// More digits than any count has: such a decimal is written as a number beyond every range, because turning a million
/// digits into text takes minutes.
const MAX_DECIMAL_BYTES: usize = 1_024;
/// PostgreSQL's limit of digits behind the point, rounded up.
const MAX_SCALE: i64 = 16_384;

/// How a column's numbers are written in JSON whose schema is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    /// As numbers.
    #[default]
    AsWritten,
    /// As a text with the number in it.
    Text,
    /// In base64: two's complement, times 10^−scale.
    Decimal {
        /// Digits behind the point.
        scale: i64,
    },
    /// An object with `scale` and `value`, the latter in base64.
    VariableScaleDecimal,
}

#[derive(Deserialize)]
struct VariableScaleDecimal<'a> {
    scale: i64,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

impl Form {
    /// The number's own text; `None` where that is what is written, or what is written is not of this form.
    pub(super) fn text(self, raw: &str) -> Option<String> {
        match self {
            Self::AsWritten => None,
            Self::Text => serde_json::from_str::<Cow<'_, str>>(raw).ok().map(|inner| text(&inner).into_owned()),
            Self::Decimal { scale } => {
                let unscaled = serde_json::from_str::<Cow<'_, str>>(raw).ok()?;
                Some(decimal(&STANDARD.decode(unscaled.as_bytes()).ok()?, scale).into_owned())
            }
            Self::VariableScaleDecimal => {
                let VariableScaleDecimal { scale, value } = serde_json::from_str(raw).ok()?;
                Some(decimal(&STANDARD.decode(value.as_bytes()).ok()?, scale).into_owned())
            }
        }
    }
}

/// A number that is written as a text: without the zeroes at the end of its fraction, so that a whole number is one
/// whatever the column's scale. Any other text is quoted and thereby no number.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return Cow::Owned(quoted(text));
    }
    if !text.contains('.') {
        return Cow::Borrowed(text);
    }
    Cow::Borrowed(text.trim_end_matches('0').trim_end_matches('.'))
}

/// A decimal as text: whole without a point, else with its fraction.
pub(super) fn decimal(unscaled: &[u8], scale: i64) -> Cow<'static, str> {
    if unscaled.is_empty() {
        // No converter writes it, and it is no number.
        return Cow::Borrowed("null");
    }
    if unscaled.len() > MAX_DECIMAL_BYTES || !(-MAX_SCALE..=MAX_SCALE).contains(&scale) {
        let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
        return Cow::Borrowed(if negative { "-1e400" } else { "1e400" });
    }
    let number = BigInt::from_signed_bytes_be(unscaled);
    let digits = number.magnitude().to_string();
    let sign = if number.sign() == num_bigint::Sign::Minus { "-" } else { "" };
    let Ok(scale) = usize::try_from(scale) else {
        let zeroes = usize::try_from(scale.unsigned_abs()).unwrap_or_default();
        return Cow::Owned(if digits == "0" { digits } else { format!("{sign}{digits}{:0<zeroes$}", "") });
    };
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    Cow::Owned(format!("{sign}{whole}{point}{fraction}"))
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        return format!("\"{text}\"");
    }
    // A text can always be written as JSON.
    serde_json::to_string(text).unwrap_or_default()
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
            ("5.00000000000000000000000001", Integer::Fractional { negative: false }),
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

    #[test]
    fn decimals_are_exact_whatever_their_scale() {
        for (unscaled, scale, expected) in [
            (&[0x01, 0xf4][..], 2, "5"),
            (&[0x02, 0x71], 2, "6.25"),
            (&[0xff], 0, "-1"),
            (&[0xff], 3, "-0.001"),
            (&[0x00], 5, "0"),
            (&[0x05], -2, "500"),
            (&[0x00], -2, "0"),
            (&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 0, "9223372036854775807"),
            (&[0x00, 0x80, 0, 0, 0, 0, 0, 0, 0], 0, "9223372036854775808"),
            (&[], 0, "null"),
            (&[1; MAX_DECIMAL_BYTES + 1], 0, "1e400"),
            (&[0x80; MAX_DECIMAL_BYTES + 1], 0, "-1e400"),
            (&[1], i64::MAX, "1e400"),
            (&[1], i64::MIN, "1e400"),
        ] {
            assert_eq!(decimal(unscaled, scale), expected, "{unscaled:?} {scale}");
        }
    }

    #[test]
    fn numbers_in_texts_are_exact_and_anything_else_is_no_number() {
        for (raw, expected) in [
            ("5", Integer::Value(5)),
            ("-5", Integer::Value(-5)),
            ("5.00", Integer::Value(5)),
            ("100", Integer::Value(100)),
            ("9223372036854775807.000", Integer::Value(i64::MAX)),
            ("9223372036854775808.0", Integer::TooLarge),
            ("5.50", Integer::Fractional { negative: false }),
            ("0.00", Integer::Value(0)),
            ("", Integer::NotANumber),
            ("NaN", Integer::NotANumber),
            ("5.", Integer::NotANumber),
            (".5", Integer::NotANumber),
            ("1e3", Integer::NotANumber),
            ("+5", Integer::NotANumber),
            (" 5", Integer::NotANumber),
            ("\"", Integer::NotANumber),
        ] {
            assert_eq!(integer(&text(raw)), expected, "{raw}");
        }
    }

    #[test]
    fn every_form_gives_the_same_number() {
        assert_eq!(Form::AsWritten.text("5"), None);
        assert_eq!(Form::Text.text(r#""5.0""#).as_deref(), Some("5"));
        assert_eq!(Form::Decimal { scale: 2 }.text(r#""AfQ=""#).as_deref(), Some("5"));
        assert_eq!(Form::VariableScaleDecimal.text(r#"{"scale":2,"value":"AfQ="}"#).as_deref(), Some("5"));
        for form in [Form::Text, Form::Decimal { scale: 2 }, Form::VariableScaleDecimal] {
            assert_eq!(form.text("null"), None, "{form:?}: as it is written, and thereby no number");
            assert_eq!(form.text("7"), None, "{form:?}");
        }
        assert_eq!(Form::Decimal { scale: 0 }.text(r#""!""#), None);
    }
}
