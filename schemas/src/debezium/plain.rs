//! The one form of envelope that a connector writes all day, read in one pass.
//!
//! `serde_json` is the authority on what a value means; reading every event through it costs 12,500 instructions, more
//! than all the rest of a change event together, and this here 7,500. It takes compact JSON whose strings need no
//! unescaping, in any order of fields, and leaves everything else (white space, escapes, nested unknown fields, a field
//! given twice, a wrapper, anything malformed) to `serde_json` by answering `None`. So it never refuses and never
//! guesses: whatever it does take, `serde_json` would take and read alike, which a property test holds against it.

use super::value::{RawEnvelope, RawRow, RawSource};

/// Reads an envelope in its plain form; `None` says nothing about the text.
pub(super) fn read(text: &str) -> Option<RawEnvelope<'_>> {
    let mut reader = Reader { text, at: 0 };
    let mut envelope = RawEnvelope::default();
    let (mut before, mut after, mut source) = (false, false, false);
    reader.object(|reader, name| match name {
        "before" => {
            once(&mut before)?;
            if !reader.null() {
                reader.object(|reader, name| reader.field((name == "id").then_some(&mut envelope.before_id)))?;
            }
            Some(())
        }
        "after" => {
            once(&mut after)?;
            if !reader.null() {
                let mut row = RawRow::default();
                reader.object(|reader, name| {
                    reader.field(match name {
                        "id" => Some(&mut row.id),
                        "good_id" => Some(&mut row.good_id),
                        "operation" => Some(&mut row.operation),
                        "pcs" => Some(&mut row.pcs),
                        _ => None,
                    })
                })?;
                envelope.after = Some(row);
            }
            Some(())
        }
        "source" => {
            once(&mut source)?;
            if !reader.null() {
                let mut block = RawSource::default();
                reader.object(|reader, name| {
                    reader.field(match name {
                        "sequence" => return set(&mut block.sequence, reader.sequence()?),
                        "snapshot" => Some(&mut block.snapshot),
                        "lsn" => Some(&mut block.lsn),
                        "ts_ms" => Some(&mut block.ts_ms),
                        _ => None,
                    })
                })?;
                envelope.source = Some(block);
            }
            Some(())
        }
        // Inside a wrapper is another envelope.
        "payload" => None,
        name => reader.field((name == "op").then_some(&mut envelope.op)),
    })?;
    (reader.at == text.len()).then_some(envelope)
}

/// Refuses a second time.
fn once(seen: &mut bool) -> Option<()> {
    (!std::mem::replace(seen, true)).then_some(())
}

/// Sets a field that must not have been set before.
fn set<'a>(field: &mut Option<&'a str>, value: &'a str) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

/// The same byte eight times.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Marks quotes, backslashes and control characters. A borrow can mark a byte above one that is rightly marked, so only
/// the lowest mark counts.
fn not_plain(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(eight(1)) & !word;
    let control = word.wrapping_sub(eight(0x20)) & !word;
    (zero(word ^ eight(b'"')) | zero(word ^ eight(b'\\')) | control) & eight(0x80)
}

/// Marks everything but digits.
fn no_digit(word: u64) -> u64 {
    let digits = word ^ eight(b'0');
    ((digits & eight(0x7f)).wrapping_add(eight(0x76)) | digits) & eight(0x80)
}

/// A position in the text. Every method gives `None` where the text is not plain.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        found.then_some(())
    }

    fn literal(&mut self, literal: &str) -> Option<&'a str> {
        let found = self.text.get(self.at..self.at + literal.len())?;
        (found == literal).then(|| {
            self.at += literal.len();
            found
        })
    }

    fn null(&mut self) -> bool {
        self.literal("null").is_some()
    }

    /// Hands each field's name to `field`, which must read its value.
    fn object(&mut self, mut field: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.expect(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.string()?;
            let name = name.get(1..name.len() - 1)?;
            self.expect(b':')?;
            field(self, name)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Reads a field's value into a known field, or skips it.
    fn field(&mut self, known: Option<&mut Option<&'a str>>) -> Option<()> {
        let value = self.scalar()?;
        match known {
            Some(field) => set(field, value),
            None => Some(()),
        }
    }

    /// Passes all bytes up to the first that `mark` marks with its highest bit in a word of eight, and `is` names in
    /// single ones at the end of the text. Eight at a time, because looking at each byte was half of the reading.
    fn pass(&mut self, mark: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) {
        let mut rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        while let Some((word, after)) = rest.split_first_chunk::<8>() {
            let marks = mark(u64::from_le_bytes(*word));
            if marks != 0 {
                // At most 7: a lossless conversion.
                self.at += usize::try_from(marks.trailing_zeros() / 8).unwrap_or_default();
                return;
            }
            self.at += 8;
            rest = after;
        }
        self.at += rest.iter().position(|byte| is(*byte)).unwrap_or(rest.len());
    }

    /// A string, an integer, `null`, `true` or `false`, as written.
    fn scalar(&mut self) -> Option<&'a str> {
        match self.peek()? {
            b'"' => self.string(),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            _ => self.integer(),
        }
    }

    /// A string without escapes, quotes included.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.expect(b'"')?;
        self.pass(not_plain, |byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.expect(b'"')?;
        self.text.get(start..self.at)
    }

    /// An integer without fraction and exponent.
    fn integer(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at += usize::from(self.peek()? == b'-');
        let digits = self.digits()?;
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        match self.peek() {
            Some(b'.' | b'e' | b'E') => None,
            _ => self.text.get(start..self.at),
        }
    }

    /// At least one digit.
    fn digits(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.pass(no_digit, |byte| !byte.is_ascii_digit());
        self.text.get(start..self.at).filter(|digits| !digits.is_empty())
    }

    /// `source.sequence`: null, or a string with the escaped array of two in it, each null or a string of digits.
    fn sequence(&mut self) -> Option<&'a str> {
        let start = self.at;
        if self.null() {
            return self.text.get(start..self.at);
        }
        self.literal("\"[")?;
        self.escaped_element()?;
        self.expect(b',')?;
        self.escaped_element()?;
        self.literal("]\"")?;
        self.text.get(start..self.at)
    }

    fn escaped_element(&mut self) -> Option<()> {
        if self.null() {
            return Some(());
        }
        self.literal("\\\"")?;
        self.digits()?;
        self.literal("\\\"").map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::debezium::value::parse_any;

    const EVENT: &str = r#"{"before":{"id":"5","good_id":0},"after":{"id":"63703d1f-0000-4000-8000-000000000001","good_id":-7,"operation":"add","pcs":5,"created_at":"2026-11-22T09:49:46.480123Z"},"source":{"version":"3.6.0.Final","name":"lager-größe","ts_ms":1795333786480,"snapshot":"false","db":"goods_db","sequence":"[\"26370000\",\"26370200\"]","txId":730,"lsn":26370200,"xmin":null,"wal":true},"transaction":null,"op":"u","ts_ms":1795333786480}"#;

    /// What the reader takes `serde_json` takes, and reads alike.
    fn agrees(text: &str) -> bool {
        read(text).is_none_or(|envelope| parse_any(text).is_ok_and(|other| other == Some(envelope)))
    }

    #[test]
    fn the_plain_form_is_read() {
        let envelope = read(EVENT).unwrap();
        assert_eq!(envelope.before_id, Some("\"5\""));
        assert_eq!(envelope.after.as_ref().and_then(|row| row.good_id), Some("-7"));
        assert_eq!(envelope.source.as_ref().and_then(|source| source.lsn), Some("26370200"));
        assert!(agrees(EVENT));
        for nulls in [r#"{"before":null,"after":null,"source":null,"op":null}"#, "{}", r#"{"after":{},"source":{}}"#] {
            assert!(read(nulls).is_some() && agrees(nulls), "{nulls}");
        }
    }

    #[test]
    fn everything_else_is_left_to_serde_json() {
        for text in [
            "",
            "null",
            "[]",
            r#"{"op":"c"} "#,
            r#"{ "op":"c"}"#,
            r#"{"op":"c","op":"d"}"#,
            r#"{"source":{"lsn":1,"lsn":2}}"#,
            r#"{"after":null,"after":{}}"#,
            r#"{"payload":null}"#,
            r#"{"op":"\u0063"}"#,
            r#"{"after":{"pcs":5.0}}"#,
            r#"{"after":{"pcs":05}}"#,
            r#"{"after":{"pcs":-}}"#,
            r#"{"x":[1]}"#,
            r#"{"x":+1}"#,
            r#"{"op":"c",}"#,
            "{\"op\":\"\t\"}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Of an event with some bytes replaced, removed, doubled or moved.
        #[test]
        fn what_it_takes_serde_json_reads_alike(
            edits in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
            bytes in prop::collection::vec(prop::sample::select(b"\"\\{}[]:,.-+0159eEnull\x00\x1f \x7f\xc3".to_vec()), 4),
        ) {
            let mut text = EVENT.as_bytes().to_vec();
            for ((kind, at, other), byte) in edits.iter().zip(bytes) {
                let (at, other) = (at.index(text.len()), other.index(text.len()));
                match kind {
                    0 => text[at] = byte,
                    1 => _ = text.remove(at),
                    2 => text.insert(at, byte),
                    _ => {
                        let (from, to) = (at.min(other), at.max(other));
                        let part = text[from..to].to_vec();
                        text.splice(to..to, part);
                    }
                }
            }
            if let Ok(text) = std::str::from_utf8(&text) {
                prop_assert!(agrees(text), "{text}");
            }
        }

        #[test]
        fn words_of_eight_are_marked_like_single_bytes(word in any::<[u8; 8]>()) {
            let first = |is: fn(u8) -> bool| word.iter().position(|byte| is(*byte)).map(|at| u32::try_from(at).unwrap());
            let lowest = |marks: u64| (marks != 0).then(|| marks.trailing_zeros() / 8);
            let number = u64::from_le_bytes(word);
            prop_assert_eq!(lowest(not_plain(number)), first(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)));
            prop_assert_eq!(lowest(no_digit(number)), first(|byte| !byte.is_ascii_digit()));
        }
    }
}
