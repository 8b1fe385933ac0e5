//! Numbers as the connector writes them: JSON integers, or doubles (`decimal.handling.mode` = `double`).
//!
//! Whole ones, or quantities in units of a [`Scale`], read digit by digit. Decimals of other encodings are brought into
//! the same text first, exactly ([`Form`]).
//!
//! Works on the number's text instead of `serde_json`'s numbers: those silently turn integers beyond 64 bits into
//! doubles and fail the whole document on `1e400`, and a sum must not depend on either.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigInt;
use serde::Deserialize;

use crate::Scale;

/// The largest double below which every whole number has a double of its own: 2^53.
const EXACT_DOUBLE: f64 = 9_007_199_254_740_992.0;

/// The smallest number of units that a double may not tell from its neighbours. Below, a decimal has at most 15 digits
/// down to the last of the scale; two such never have the same double, and the shortest text of a double, which is what
/// connectors write, gives the decimal back that it was made of. From here on another one may have come to the same text.
const INEXACT_UNITS: i64 = 1_000_000_000_000_000;

/// What a JSON value is as a whole number, of pieces or of units.
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

/// How quantities are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Quantities {
    /// Digits behind the point.
    pub(super) scale: Scale,
    /// How they are written where no schema says it.
    pub(super) form: Form,
}

impl Quantities {
    /// Whether [`integer`] reads them, as it does nearly everywhere.
    pub(super) fn are_whole_numbers(&self) -> bool {
        self.scale.is_whole() && matches!(self.form, Form::AsWritten)
    }

    /// Reads the raw text of a JSON value in units of the scale; `raw` is valid JSON. `exact`: it is the text of what was
    /// no JSON number but a decimal or a text, so that no double has been in between.
    pub(super) fn read(self, raw: &str, exact: bool) -> Integer {
        match self.form.text(raw) {
            Some(text) => units(&text, self.scale, true),
            None => units(raw, self.scale, exact),
        }
    }

    /// How many digits behind the point a number has that is finer than the scale; `None` where it cannot be told.
    pub(super) fn needed(self, raw: &str) -> Option<u64> {
        let text = self.form.text(raw);
        let power = Decimal::of(text.as_deref().unwrap_or(raw))?.power;
        (power < 0).then(|| power.unsigned_abs())
    }
}

/// Reads a number's text in units of a scale, digit by digit.
fn units(raw: &str, scale: Scale, exact: bool) -> Integer {
    if scale.is_whole() {
        return integer(raw);
    }
    let Some(Decimal { negative, digits, power }) = Decimal::of(raw) else { return Integer::NotANumber };
    if digits.is_empty() {
        return Integer::Value(0);
    }
    let power = power.saturating_add(i64::from(scale.digits()));
    if power < 0 {
        return Integer::Fractional { negative };
    }
    let factor = u32::try_from(power).ok().and_then(|power| 10_i64.checked_pow(power));
    let value = factor.and_then(|factor| digits.parse::<i64>().ok()?.checked_mul(factor));
    let may_be_a_double = !exact && raw.contains(['.', 'e', 'E']);
    match value.filter(|value| !may_be_a_double || *value < INEXACT_UNITS) {
        Some(value) => Integer::Value(if negative { -value } else { value }),
        None if negative => Integer::TooSmall,
        None => Integer::TooLarge,
    }
}

/// A number's digits, without zeroes at either end, times 10^`power`.
struct Decimal {
    negative: bool,
    digits: String,
    power: i64,
}

impl Decimal {
    /// Takes the text of a JSON value apart; `None` if it is no number.
    fn of(raw: &str) -> Option<Self> {
        if !raw.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
            return None;
        }
        let (negative, unsigned) = raw.strip_prefix('-').map_or((false, raw), |unsigned| (true, unsigned));
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let digits = all.trim_end_matches('0');
        let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        // An exponent beyond 64 bits is beyond every range as well with any other number of digits that fits in memory.
        let beyond = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
        let exponent: i64 = exponent.parse().unwrap_or(beyond);
        let power = exponent.saturating_sub(length(fraction.len())).saturating_add(length(all.len() - digits.len()));
        Some(Self { negative, digits: digits.trim_start_matches('0').to_owned(), power })
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

/// How a column's numbers are written in JSON, as its schema says or an operator.
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
            // Columns without a scale bring it along.
            Self::Decimal { .. } if raw.starts_with('{') => Self::VariableScaleDecimal.text(raw),
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
    use proptest::prelude::*;

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

    fn scale(digits: u8) -> Scale {
        Scale::try_from(digits).unwrap()
    }

    #[test]
    fn quantities_are_read_in_units_of_their_scale() {
        for (raw, digits, expected) in [
            ("12.5", 3, Integer::Value(12_500)),
            ("12", 3, Integer::Value(12_000)),
            ("-0.05", 3, Integer::Value(-50)),
            ("1.25E-2", 4, Integer::Value(125)),
            ("1.0E7", 3, Integer::Value(10_000_000_000)),
            ("0.0", 3, Integer::Value(0)),
            ("-0", 3, Integer::Value(0)),
            ("0e400", 3, Integer::Value(0)),
            ("1.2345", 3, Integer::Fractional { negative: false }),
            ("-1.2345", 3, Integer::Fractional { negative: true }),
            ("1.2340", 3, Integer::Value(1_234)),
            ("1.25E-2", 3, Integer::Fractional { negative: false }),
            ("1e-400", 9, Integer::Fractional { negative: false }),
            ("1e-99999999999999999999", 9, Integer::Fractional { negative: false }),
            ("1e400", 3, Integer::TooLarge),
            ("-1e99999999999999999999", 3, Integer::TooSmall),
            ("9223372036854775807", 3, Integer::TooLarge),
            ("9223372036854775", 3, Integer::Value(9_223_372_036_854_775_000)),
            ("null", 3, Integer::NotANumber),
            ("\"12.5\"", 3, Integer::NotANumber),
        ] {
            assert_eq!(units(raw, scale(digits), false), expected, "{raw}");
        }
    }

    #[test]
    fn a_double_counts_up_to_where_it_may_be_another_decimals() {
        // 16 digits; the last is what the double of 100000000000000.01 is written as.
        for (raw, exact) in [("999999999999.9991", 4), ("1.0E14", 2), ("100000000000000.02", 2)] {
            assert_eq!(units(raw, scale(exact), false), Integer::TooLarge, "{raw}");
            assert!(matches!(units(raw, scale(exact), true), Integer::Value(_)), "{raw}");
        }
        assert_eq!(units("999999999999.999", scale(3), false), Integer::Value(999_999_999_999_999));
        assert_eq!(units("9223372036854775.807", scale(3), true), Integer::Value(i64::MAX));
    }

    #[test]
    fn quantities_in_texts_and_decimals_are_read_as_the_operator_says() {
        let read = |form, raw| Quantities { scale: scale(3), form }.read(raw, false);
        let decimal = Form::Decimal { scale: 3 };
        for (form, raw, expected) in [
            (Form::AsWritten, "\"12.5\"", Integer::NotANumber),
            (Form::Text, "\"12.500\"", Integer::Value(12_500)),
            (Form::Text, "\"9223372036854775.807\"", Integer::Value(i64::MAX)),
            (Form::Text, "\"1.0005\"", Integer::Fractional { negative: false }),
            (Form::Text, "\"NaN\"", Integer::NotANumber),
            (Form::Text, "12.5", Integer::Value(12_500)),
            (decimal, "\"MNQ=\"", Integer::Value(12_500)),
            (decimal, r#"{"scale":1,"value":"fQ=="}"#, Integer::Value(12_500)),
            (decimal, "\"12.500\"", Integer::NotANumber),
            (decimal, "null", Integer::NotANumber),
        ] {
            assert_eq!(read(form, raw), expected, "{form:?} {raw}");
        }
        assert_eq!(Quantities { scale: scale(3), form: decimal }.needed(r#"{"scale":4,"value":"AQ=="}"#), Some(4));
    }

    /// What `units` has to say, by arithmetic with integers of any size.
    fn reference(negative: bool, digits: u64, exponent: i32, scale: Scale) -> Integer {
        let power = exponent + i32::from(scale.digits());
        let (value, rest) = if let Ok(power) = u32::try_from(power) {
            (BigInt::from(digits) * BigInt::from(10).pow(power), BigInt::ZERO)
        } else {
            let divisor = BigInt::from(10).pow(power.unsigned_abs());
            (BigInt::from(digits) / &divisor, BigInt::from(digits) % divisor)
        };
        let signed = if negative { -value } else { value };
        match i64::try_from(signed) {
            _ if rest != BigInt::ZERO => Integer::Fractional { negative },
            Ok(value) if value != i64::MIN => Integer::Value(value),
            _ if negative => Integer::TooSmall,
            _ => Integer::TooLarge,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// In the notation of a decimal, with zeroes around it, and with an exponent.
        #[test]
        fn every_number_is_read_as_exact_arithmetic_has_it(
            negative: bool,
            digits in prop_oneof![0..10_000_u64, any::<u64>()],
            behind in 0..25_u8,
            exponent in -12..12_i32,
            zeroes in 0..4_usize,
            scale in (1..=Scale::MAX.digits()).prop_map(|digits| Scale::try_from(digits).unwrap()),
        ) {
            let behind = usize::from(behind);
            let padded = format!("{digits:0>width$}", width = behind + 1);
            let (whole, fraction) = padded.split_at(padded.len() - behind);
            let sign = if negative { "-" } else { "" };
            let point = if behind + zeroes > 0 { "." } else { "" };
            let plain = format!("{sign}{whole}{point}{fraction}{:0<zeroes$}", "");
            let behind = i32::try_from(behind).unwrap();
            prop_assert_eq!(units(&plain, scale, true), reference(negative, digits, -behind, scale), "{}", plain);
            let with_exponent = format!("{plain}E{exponent}");
            let expected = reference(negative, digits, exponent - behind, scale);
            prop_assert_eq!(units(&with_exponent, scale, true), expected, "{}", with_exponent);
        }

        /// A decimal of up to 15 digits is what is read of the double that it became; a larger one is refused.
        #[test]
        fn what_is_read_of_a_double_is_the_decimal_it_was_made_of(
            value in prop_oneof![1..2 * INEXACT_UNITS, 1..1_000_000_i64],
            scale in (1..=Scale::MAX.digits()).prop_map(|digits| Scale::try_from(digits).unwrap()),
            with_exponent: bool,
        ) {
            let double: f64 = scale.text(value.into()).parse().unwrap();
            let written = if with_exponent { format!("{double:E}") } else { format!("{double:?}") };
            let expected = if value < INEXACT_UNITS { Integer::Value(value) } else { Integer::TooLarge };
            let read = units(&written, scale, false);
            // Too many digits for the scale may be what the double of a large one has.
            let other = value >= INEXACT_UNITS && read == Integer::Fractional { negative: false };
            prop_assert!(read == expected || other, "{} {:?}", written, read);
        }
    }
}
