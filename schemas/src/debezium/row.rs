//! Objects whose fields are columns of the source table, as `serde_json` reads them.
//!
//! Owns the looking up of columns by their configured names. A field given twice is an error (which of the two would be
//! true?), fields of other names are skipped and counted.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::reader::Reader;

/// Reads an object into the fields called so, each value as it is written; returns how many others there are.
///
/// # Errors
/// What `serde_json` says, and of a field given twice.
pub(super) fn read<'a>(text: &'a str, fields: &mut [(&str, Option<&'a str>)]) -> Result<usize, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let others = Fields(fields).deserialize(&mut deserializer)?;
    deserializer.end().map(|()| others)
}

/// The same of compact JSON without objects in it, quicker; `None` says nothing about the text.
pub(super) fn read_plain<'a>(text: &'a str, fields: &mut [(&str, Option<&'a str>)]) -> Option<usize> {
    let mut others = 0;
    let mut reader = Reader::new(text);
    let read = reader.object(|reader, name| {
        let known = fields.iter_mut().find(|(field, _)| *field == name).map(|(_, value)| value);
        others += usize::from(known.is_none());
        reader.field(known)
    });
    if read.is_some() && reader.is_at_end() {
        return Some(others);
    }
    for (_, value) in fields {
        *value = None;
    }
    None
}

/// The same of a value that may be null or absent.
pub(super) fn read_or_null<'a>(
    raw: Option<&'a RawValue>,
    fields: &mut [(&str, Option<&'a str>)],
) -> Result<Option<usize>, serde_json::Error> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(text) => read(text, fields).map(Some),
    }
}

struct Fields<'f, 'n, 'a>(&'f mut [(&'n str, Option<&'a str>)]);

impl<'a> DeserializeSeed<'a> for Fields<'_, '_, 'a> {
    type Value = usize;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Fields<'_, '_, 'a> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<usize, A::Error> {
        let mut others = 0;
        while let Some(name) = map.next_key::<String>()? {
            match self.0.iter_mut().find(|(field, _)| **field == name) {
                Some((_, Some(_))) => return Err(A::Error::custom(format_args!("duplicate field `{name}`"))),
                Some((_, value)) => *value = Some(map.next_value::<&'a RawValue>()?.get()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    others += 1;
                }
            }
        }
        Ok(others)
    }
}
