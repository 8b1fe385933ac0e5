//! A reader of compact JSON in the form that machines write: no white space, no escapes, integers only.
//!
//! Every method answers `None` where the text is anything else, which says nothing about the text: the caller then asks
//! `serde_json`, the authority. It exists because this form is what is read all day, once per event and per replayed
//! record, and a general reader spends most of a worker's time on it.

use crate::{GoodId, Scale};

/// Sets a field that must not have been set before.
pub(crate) fn set<'a>(field: &mut Option<&'a str>, value: &'a str) -> Option<()> {
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

/// A position in the text.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of a text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Whether everything was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// What `read` reads, as written.
    pub(crate) fn taken(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<&'a str> {
        let start = self.at;
        read(self)?;
        self.text.get(start..self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes this byte.
    pub(crate) fn expect(&mut self, byte: u8) -> Option<()> {
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        found.then_some(())
    }

    /// Passes this text.
    pub(crate) fn literal(&mut self, literal: &str) -> Option<()> {
        let found = self.text.as_bytes().get(self.at..self.at + literal.len())? == literal.as_bytes();
        self.at += if found { literal.len() } else { 0 };
        found.then_some(())
    }

    /// Passes a null, if there is one.
    pub(crate) fn null(&mut self) -> bool {
        self.literal("null").is_some()
    }

    /// Hands each field's name to `field`, which must read its value.
    pub(crate) fn object(&mut self, mut field: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
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
    pub(crate) fn field(&mut self, known: Option<&mut Option<&'a str>>) -> Option<()> {
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
            b'n' => self.taken(|reader| reader.literal("null")),
            b't' => self.taken(|reader| reader.literal("true")),
            b'f' => self.taken(|reader| reader.literal("false")),
            _ => self.integer(),
        }
    }

    /// A string without escapes, quotes included.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.expect(b'"')?;
        self.pass(not_plain, |byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.expect(b'"')?;
        self.text.get(start..self.at)
    }

    /// An integer without fraction and exponent.
    pub(crate) fn integer(&mut self) -> Option<&'a str> {
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

    /// An integer that fits, or null.
    #[allow(clippy::option_option, reason = "the outer one belongs to the reader, the inner one to the record")]
    pub(crate) fn number_or_null<T: std::str::FromStr>(&mut self) -> Option<Option<T>> {
        if self.null() { Some(None) } else { self.number().map(Some) }
    }

    /// An integer that fits; `-0` is left to `serde_json`, which takes it for a fraction.
    pub(crate) fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.integer().filter(|text| *text != "-0")?.parse().ok()
    }

    /// A quantity that fits.
    #[inline]
    pub(crate) fn quantity<T: std::str::FromStr + TryFrom<i128>>(&mut self, scale: Scale) -> Option<T> {
        if scale.is_whole() {
            return self.number();
        }
        scale.units(self.with_point()?)
    }

    /// A number with digits behind a point, as written.
    fn with_point(&mut self) -> Option<&'a str> {
        self.taken(|reader| {
            reader.at += usize::from(reader.peek()? == b'-');
            reader.digits()?;
            reader.expect(b'.')?;
            reader.digits().map(drop)
        })
    }

    /// A quantity that fits, or null.
    #[allow(clippy::option_option, reason = "the outer one belongs to the reader, the inner one to the record")]
    pub(crate) fn quantity_or_null<T: std::str::FromStr + TryFrom<i128>>(&mut self, scale: Scale) -> Option<Option<T>> {
        if self.null() { Some(None) } else { self.quantity(scale).map(Some) }
    }

    /// A good, or null.
    #[allow(clippy::option_option, reason = "the outer one belongs to the reader, the inner one to the record")]
    pub(crate) fn good_or_null(&mut self) -> Option<Option<GoodId>> {
        match self.string() {
            Some(quoted) => GoodId::from_text(quoted.get(1..quoted.len() - 1)?).ok().map(Some),
            None => self.number_or_null().map(|number| number.map(GoodId::Integer)),
        }
    }

    /// At least one digit.
    pub(crate) fn digits(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.pass(no_digit, |byte| !byte.is_ascii_digit());
        self.text.get(start..self.at).filter(|digits| !digits.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
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
