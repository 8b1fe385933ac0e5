//! How a key and a value share one input: the key's length in two bytes, key, value.

/// Key and value of an input.
pub(crate) fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<2>() else { return (&[], input) };
    rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()))
}

/// The input of a key, cut off at 64 KiB, and a value.
pub(crate) fn join(key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let key = key.get(..usize::from(length)).unwrap_or_default();
    [&length.to_le_bytes(), key, value].concat()
}
