//! Quantities: integers in units of 10^−scale pieces, and how they stand in JSON.
//!
//! Owns the [`Scale`] and its one written form: a JSON number with exactly so many digits behind the point, none and no
//! point where pieces are whole. So each quantity says which scale it has, and a reader that is told another one refuses
//! it. Everything is done with integers and the digits of a text: a double has no 0.1.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DecodeError, json};

/// How many digits quantities have behind the point. All of one system have as many; the processor keeps and compares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Scale(u8);

/// Not a number of digits up to [`Scale::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("quantities have 0 to {max} digits behind the point", max = Scale::MAX)]
pub struct NoScale;

/// Why a text is no quantity of a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    /// It is one of this scale.
    Other(Scale),
    /// It is none at all.
    Malformed,
}

impl Scale {
    /// No digits: pieces are whole.
    pub const WHOLE: Self = Self(0);
    /// Most digits: so that 64 bits of units have room for nine before the point.
    pub const MAX: Self = Self(9);

    /// How many digits.
    pub const fn digits(self) -> u8 {
        self.0
    }

    /// Whether pieces are whole.
    pub const fn is_whole(self) -> bool {
        self.0 == 0
    }

    /// So many units as decimal text: 12500 of scale 3 are `12.500`.
    pub fn text(self, units: i128) -> String {
        let mut out = Vec::new();
        self.push(&mut out, units);
        // Digits, a sign and a point.
        String::from_utf8(out).unwrap_or_default()
    }

    /// Appends the same text.
    #[inline]
    pub(crate) fn push(self, out: &mut Vec<u8>, units: impl itoa::Integer + Into<i128>) {
        if self.is_whole() { json::push_integer(out, units) } else { self.push_with_point(out, units.into()) }
    }

    /// Not where nearly all pieces are whole.
    #[cold]
    #[inline(never)]
    fn push_with_point(self, out: &mut Vec<u8>, units: i128) {
        let behind = usize::from(self.0);
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(units.unsigned_abs());
        if units < 0 {
            out.push(b'-');
        }
        // At least one digit before the point.
        let zeroes = (behind + 1).saturating_sub(digits.len());
        out.extend(std::iter::repeat_n(b'0', zeroes));
        out.extend_from_slice(digits.as_bytes());
        out.insert(out.len() - behind, b'.');
    }

    /// Reads what [`push`](Self::push) writes; `None` for anything else.
    pub(crate) fn units<T: TryFrom<i128>>(self, text: &str) -> Option<T> {
        self.parse(text).ok()?.try_into().ok()
    }

    /// Reads a field of a record, given as it is written: some JSON value.
    ///
    /// # Errors
    /// `PIECES_SCALE_CHANGED` for a quantity of another scale, `RECORD_MALFORMED` for anything else that
    /// [`push`](Self::push) does not write.
    pub(crate) fn read<T: FromStr + TryFrom<i128>>(
        self,
        record: &'static str,
        name: &str,
        text: &str,
    ) -> Result<T, DecodeError> {
        // Of JSON only an integer is read so; a zero with a sign is none that we write.
        if self.is_whole()
            && text != "-0"
            && let Ok(units) = text.parse()
        {
            return Ok(units);
        }
        let malformed = || {
            let shown = crate::rejection::excerpt(text.as_bytes());
            DecodeError::malformed(record, format!("field {name} is no quantity: {shown}"))
        };
        match self.parse(text) {
            Ok(units) => units.try_into().map_err(|_| malformed()),
            Err(Unreadable::Other(found)) => Err(DecodeError::Scale { record, found, wanted: self }),
            Err(Unreadable::Malformed) => Err(malformed()),
        }
    }

    /// Strictly: another text of the same number was not written by us.
    fn parse(self, text: &str) -> Result<i128, Unreadable> {
        let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |unsigned| (true, unsigned));
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (unsigned, None),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !digits(whole) || leading_zero || !fraction.is_none_or(digits) {
            return Err(Unreadable::Malformed);
        }
        let fraction = fraction.unwrap_or_default();
        let found = u8::try_from(fraction.len()).ok().and_then(|digits| Self::try_from(digits).ok());
        match found {
            Some(found) if found == self => {}
            Some(other) => return Err(Unreadable::Other(other)),
            None => return Err(Unreadable::Malformed),
        }
        self.joined(negative, whole, fraction).ok_or(Unreadable::Malformed)
    }

    /// The units of these digits; `None` for zero with a sign, and beyond 128 bits.
    fn joined(self, negative: bool, whole: &str, fraction: &str) -> Option<i128> {
        let whole: u128 = whole.parse().ok()?;
        let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let magnitude = whole.checked_mul(10_u128.pow(u32::from(self.0)))?.checked_add(fraction)?;
        if negative && magnitude == 0 {
            return None;
        }
        if negative { 0_i128.checked_sub_unsigned(magnitude) } else { i128::try_from(magnitude).ok() }
    }
}

impl TryFrom<u8> for Scale {
    type Error = NoScale;

    fn try_from(digits: u8) -> Result<Self, NoScale> {
        if digits > Self::MAX.0 { Err(NoScale) } else { Ok(Self(digits)) }
    }
}

impl FromStr for Scale {
    type Err = NoScale;

    fn from_str(digits: &str) -> Result<Self, NoScale> {
        digits.parse::<u8>().map_err(|_| NoScale)?.try_into()
    }
}

impl From<Scale> for u8 {
    fn from(scale: Scale) -> Self {
        scale.0
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Half of them whole, as most systems' are.
    pub(crate) fn any_scale() -> impl Strategy<Value = Scale> {
        prop_oneof![Just(Scale::WHOLE), (0..=Scale::MAX.0).prop_map(|digits| Scale::try_from(digits).unwrap())]
    }

    fn scale(digits: u8) -> Scale {
        Scale::try_from(digits).unwrap()
    }

    #[test]
    fn a_quantity_has_exactly_the_digits_of_its_scale() {
        for (digits, units, text) in [
            (0, 12, "12"),
            (0, 0, "0"),
            (3, 12_500, "12.500"),
            (3, -50, "-0.050"),
            (3, 0, "0.000"),
            (1, i128::MIN, "-17014118346046923173168730371588410572.8"),
            (9, i128::MAX, "170141183460469231731687303715.884105727"),
        ] {
            assert_eq!(scale(digits).text(units), text);
            assert_eq!(scale(digits).units(text), Some(units), "{text}");
        }
        for digits in ["10", "-1", "x", "256"] {
            assert_eq!(
                digits.parse::<Scale>().unwrap_err().to_string(),
                "quantities have 0 to 9 digits behind the point"
            );
        }
    }

    #[test]
    fn a_quantity_of_another_scale_is_told_from_what_is_none() {
        let read = |text| scale(3).read::<i64>("delta", "remains", text).unwrap_err().code();
        for text in ["12", "-12", "12.50", "12.5000", "0", "9223372036854775808"] {
            assert_eq!(read(text), "PIECES_SCALE_CHANGED", "{text}");
        }
        for text in [
            "",
            "-",
            ".500",
            "-.500",
            "012.500",
            "-0.000",
            "+1.500",
            "1.5e0",
            "1e3",
            "\"12.500\"",
            "null",
            "1.0000000000",
            "9223372036854775.808",
            "340282366920938463463374607431768211456.000",
        ] {
            assert_eq!(read(text), "RECORD_MALFORMED", "{text}");
        }
        assert_eq!(Scale::WHOLE.read::<i64>("delta", "remains", "-0").unwrap_err().code(), "RECORD_MALFORMED");
        assert_eq!(Scale::WHOLE.read::<i64>("delta", "remains", "5.0").unwrap_err().code(), "PIECES_SCALE_CHANGED");
    }

    proptest! {
        #[test]
        fn every_quantity_survives_the_round_trip_and_is_read_by_no_other_scale(
            units: i128,
            digits in 0..=Scale::MAX.0,
            other in 0..=Scale::MAX.0,
        ) {
            let text = scale(digits).text(units);
            prop_assert_eq!(scale(digits).units(&text), Some(units));
            prop_assert_eq!(scale(other).units(&text), (other == digits).then_some(units));
            prop_assert_eq!(text.replace('.', "").parse(), Ok(units));
            prop_assert!(serde_json::from_str::<serde_json::Number>(&text).is_ok(), "{text} is JSON");
        }
    }
}
