//! The bytes of a value, read from the front.

use super::{Field, Layout};

/// The bytes are not what the schema says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What is left of a value's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

/// A value that is not made of others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Integer(i64),
    Double(f64),
    Text(&'a str),
    /// Two's complement, most significant byte first, times 10^−`scale`.
    Decimal {
        unscaled: &'a [u8],
        scale: i64,
    },
    /// Anything else.
    Other,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed("it breaks off"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A zigzag variable-length integer.
    pub(crate) fn long(&mut self) -> Result<i64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte, rest @ ..] = self.rest else { return Err(Malformed("it breaks off")) };
            self.rest = rest;
            if shift == 63 && *byte > 1 {
                return Err(Malformed("an integer beyond 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err(Malformed("an integer beyond 64 bits"))
    }

    fn int(&mut self) -> Result<i64, Malformed> {
        let value = self.long()?;
        i32::try_from(value).map(i64::from).map_err(|_| Malformed("an int beyond 32 bits"))
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Malformed("a boolean that is neither 0 nor 1")),
        }
    }

    /// A union of null and one other type, in this order.
    pub(crate) fn or_null<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.long()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed("a union has no such variant")),
        }
    }

    /// Bytes with their length before them.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.long()?).map_err(|_| Malformed("a negative length"))?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    /// A decimal in at most 16 bytes, in units of its scale.
    pub(crate) fn units(&mut self) -> Result<i128, Malformed> {
        let bytes = self.bytes()?;
        let [first, ..] = bytes else { return Err(Malformed("a decimal without digits")) };
        let mut whole = if first & 0x80 == 0 { [0; 16] } else { [0xff; 16] };
        let start = whole.len().checked_sub(bytes.len()).ok_or(Malformed("a decimal beyond 128 bits"))?;
        whole.get_mut(start..).ok_or(Malformed("a decimal beyond 128 bits"))?.copy_from_slice(bytes);
        Ok(i128::from_be_bytes(whole))
    }

    /// The variant of a union that follows; any other layout is its own only variant.
    pub(crate) fn variant<'l>(&mut self, layout: &'l Layout) -> Result<&'l Layout, Malformed> {
        let Layout::Union(variants) = layout else { return Ok(layout) };
        let index = usize::try_from(self.long()?).ok();
        index.and_then(|index| variants.get(index)).ok_or(Malformed("a union has no such variant"))
    }

    /// Reads a value; one that is made of others is passed by as [`Scalar::Other`].
    pub(crate) fn scalar(&mut self, layout: &Layout) -> Result<Scalar<'a>, Malformed> {
        let layout = self.variant(layout)?;
        Ok(match layout {
            Layout::Null => Scalar::Null,
            Layout::Int => Scalar::Integer(self.int()?),
            Layout::Long => Scalar::Integer(self.long()?),
            Layout::Float => {
                let bytes = self.take(4)?.try_into().map_err(|_| Malformed("it breaks off"))?;
                Scalar::Double(f64::from(f32::from_le_bytes(bytes)))
            }
            Layout::Double => {
                let bytes = self.take(8)?.try_into().map_err(|_| Malformed("it breaks off"))?;
                Scalar::Double(f64::from_le_bytes(bytes))
            }
            Layout::Text => Scalar::Text(self.text()?),
            Layout::Decimal { scale, fixed } => {
                let unscaled = match fixed {
                    Some(size) => self.take(*size)?,
                    None => self.bytes()?,
                };
                Scalar::Decimal { unscaled, scale: *scale }
            }
            Layout::Record(fields) if is_variable_scale(fields) => {
                let scale = self.int()?;
                Scalar::Decimal { unscaled: self.bytes()?, scale }
            }
            other => {
                self.skip(other)?;
                Scalar::Other
            }
        })
    }

    /// Passes a value by.
    pub(crate) fn skip(&mut self, layout: &Layout) -> Result<(), Malformed> {
        match layout {
            Layout::Null => Ok(()),
            Layout::Boolean => self.boolean().map(drop),
            Layout::Int => self.int().map(drop),
            Layout::Long => self.long().map(drop),
            Layout::Float => self.take(4).map(drop),
            Layout::Double => self.take(8).map(drop),
            Layout::Bytes | Layout::Decimal { fixed: None, .. } => self.bytes().map(drop),
            Layout::Text => self.text().map(drop),
            Layout::Fixed(size) | Layout::Decimal { fixed: Some(size), .. } => self.take(*size).map(drop),
            Layout::Enum(symbols) => match usize::try_from(self.long()?) {
                Ok(index) if index < *symbols => Ok(()),
                _ => Err(Malformed("an enum has no such symbol")),
            },
            Layout::Union(_) => {
                let variant = self.variant(layout)?;
                self.skip(variant)
            }
            Layout::Record(fields) => fields.iter().try_for_each(|(_, field)| self.skip(field)),
            Layout::Array(items) => self.blocks(items.may_be_empty(), |input| input.skip(items)),
            Layout::Map(values) => self.blocks(false, |input| {
                input.text()?;
                input.skip(values)
            }),
        }
    }

    /// The blocks of an array or a map. Each item takes at least a byte, so that their number cannot be larger than
    /// what is left; items that take none are not looked at one by one.
    fn blocks(
        &mut self,
        items_are_empty: bool,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // With the block's length in bytes, so that it can be passed by whole.
                self.bytes()?;
            } else if !items_are_empty {
                for _ in 0..count {
                    item(self)?;
                }
            }
        }
    }
}

/// `io.debezium.data.VariableScaleDecimal`: a decimal that brings its scale along, for columns that have none.
fn is_variable_scale(fields: &[Field]) -> bool {
    matches!(fields, [(scale, Layout::Int), (value, Layout::Bytes)] if **scale == *"scale" && **value == *"value")
}
