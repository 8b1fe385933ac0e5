//! Header names of our own records, and their decimal text.
//!
//! Every record of the deltas topic, and the last changelog record of a partition in a Kafka transaction, says up to
//! where its input partition was applied. The engine owns what the numbers mean; here is only how they are written.

use crate::DecodeError;

/// Next offset of the input partition, decimal text.
pub const NEXT_OFFSET: &str = "next-offset";
/// Sequence number of the transaction in its partition, decimal text.
pub const SEQUENCE: &str = "sequence";

/// Writes a header's number; the buffer is the caller's so that nothing is allocated.
pub fn format_decimal(buffer: &mut itoa::Buffer, value: impl itoa::Integer) -> &[u8] {
    buffer.format(value).as_bytes()
}

/// Reads [`NEXT_OFFSET`].
pub fn parse_next_offset(value: Option<&[u8]>) -> Result<i64, DecodeError> {
    parse(NEXT_OFFSET, value)
}

/// Reads [`SEQUENCE`].
pub fn parse_sequence(value: Option<&[u8]>) -> Result<u64, DecodeError> {
    parse(SEQUENCE, value)
}

fn parse<T: std::str::FromStr>(header: &'static str, value: Option<&[u8]>) -> Result<T, DecodeError> {
    let missing = || DecodeError::Header { header, detail: "is missing".to_owned() };
    let value = value.ok_or_else(missing)?;
    // Rust's own parsing also takes a sign, which nobody of us writes; -1 is no offset but Kafka's "none".
    let digits = Some(value).filter(|value| value.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.ok_or_else(|| DecodeError::Header {
        header,
        detail: format!("is no decimal number in its range: {}", crate::rejection::excerpt(value)),
    })
}
