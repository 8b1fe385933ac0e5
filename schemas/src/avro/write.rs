//! Writing the few types that our own records are made of.

/// Appends a zigzag variable-length integer.
pub(crate) fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    loop {
        let low = rest.to_le_bytes()[0] & 0x7f;
        rest >>= 7;
        if rest == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Appends a text, its length before it.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    // No text in memory is longer than an i64 counts.
    long(out, i64::try_from(text.len()).unwrap_or_default());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a boolean.
pub(crate) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Appends a union of null and one other type, in this order.
pub(crate) fn or_null<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    long(out, i64::from(value.is_some()));
    if let Some(value) = value {
        write(out, value);
    }
}

/// Appends a decimal in units of its scale: two's complement in as few bytes as hold it, with their number before them.
pub(crate) fn decimal(out: &mut Vec<u8>, value: i128) {
    let bytes = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    // A leading byte says nothing if the next one has the same sign.
    let redundant = |pair: &&[u8]| matches!(pair, [first, next] if *first == sign && (next ^ sign) & 0x80 == 0);
    let skipped = bytes.windows(2).take_while(redundant).count();
    let kept = bytes.get(skipped..).unwrap_or_default();
    // At most 16.
    long(out, i64::try_from(kept.len()).unwrap_or_default());
    out.extend_from_slice(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_take_as_few_bytes_as_hold_them() {
        for (value, expected) in [
            (0, &[2, 0][..]),
            (-1, &[2, 0xff]),
            (127, &[2, 127]),
            (128, &[4, 0, 128]),
            (-128, &[2, 128]),
            (-129, &[4, 0xff, 0x7f]),
            (500, &[4, 1, 0xf4]),
        ] {
            let mut out = Vec::new();
            decimal(&mut out, value);
            assert_eq!(out, expected, "{value}");
        }
        let mut out = Vec::new();
        decimal(&mut out, i128::MIN);
        assert_eq!((out.len(), out[0]), (17, 32));
    }
}
