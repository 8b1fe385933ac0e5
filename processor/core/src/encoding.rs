//! Variable-length integers and texts of the store's values.
//!
//! Owns the byte form only: LEB128, signed numbers zigzagged. Rows are millions, and most of their numbers are small
//! or close to each other, so that a row takes about 20 bytes instead of 50. JSON stays where people read (changelog).

/// A stored value that this build cannot read: damaged, or written by a newer build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored {what} of {length} bytes cannot be read (damaged, or written by a newer build)")]
pub struct Damaged {
    /// What it was to be.
    pub what: &'static str,
    /// Its length in bytes.
    pub length: usize,
}

/// Appends an unsigned integer.
pub(crate) fn push(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends a signed integer: small magnitudes are short.
pub(crate) fn push_signed(out: &mut Vec<u8>, value: i64) {
    push(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a text, its length before it.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    // No text in memory is longer than a u64 counts.
    push(out, u64::try_from(text.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(text.as_bytes());
}

/// Takes a text off the front.
pub(crate) fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(take(input)?).ok()?;
    let (text, rest) = input.split_at_checked(length)?;
    *input = rest;
    std::str::from_utf8(text).ok()
}

/// Takes an unsigned integer off the front.
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a signed integer off the front.
pub(crate) fn take_signed(input: &mut &[u8]) -> Option<i64> {
    let value = take(input)?;
    Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_survives_the_round_trip(unsigned: u64, signed: i64, text: String) {
            let mut out = Vec::new();
            push_text(&mut out, &text);
            push(&mut out, unsigned);
            push_signed(&mut out, signed);
            let mut rest = out.as_slice();
            prop_assert_eq!(take_text(&mut rest), Some(text.as_str()));
            prop_assert_eq!(take(&mut rest), Some(unsigned));
            prop_assert_eq!(take_signed(&mut rest), Some(signed));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_text_that_breaks_off_or_is_none_is_refused() {
        assert_eq!(take_text(&mut &[3, b'a', b'b'][..]), None);
        assert_eq!(take_text(&mut &[1, 0xff][..]), None);
    }

    #[test]
    fn an_integer_that_never_ends_or_does_not_fit_is_refused() {
        assert_eq!(take(&mut &[0x80_u8; 20][..]), None);
        assert_eq!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]), None);
        assert_eq!(take(&mut &[][..]), None);
    }
}
