//! JSON plumbing shared by all records: one object reader, one object writer.
//!
//! Reading: [`json_object!`] declares a struct that reads a JSON *object* with all fields optional and unknown fields
//! skipped. serde's derive lost for three reasons: it also takes an array in place of an object (a guess by
//! position), cannot tell `null` from absent without ceremony, and does not count unknown fields, which the record
//! key needs. Writing: [`ObjectWriter`] appends to the caller's buffer, cannot fail and does not allocate beyond
//! that buffer's growth; serde's serializer returns a `Result` that nobody could handle.

use std::borrow::Cow;

use serde::Deserialize;
use uuid::Uuid;

use crate::{DecodeError, FORMAT, GoodId, Scale};

/// Declares a struct of optional fields read from a JSON object; see the module documentation.
///
/// A field given twice is an error (which of the two would be true?). `unknown_fields` counts the skipped ones.
macro_rules! json_object {
    ($(#[$meta:meta])* struct $name:ident<$lt:lifetime> { $($field:ident $(as $wire:literal)? : $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(crate) struct $name<$lt> {
            $(pub(crate) $field: Option<$ty>,)*
            #[allow(dead_code, reason = "only the record key must have no other fields")]
            pub(crate) unknown_fields: usize,
            #[allow(dead_code, reason = "structs without a borrowed field need the lifetime too")]
            pub(crate) borrows: std::marker::PhantomData<&$lt ()>,
        }

        impl<'de: $lt, $lt> serde::Deserialize<'de> for $name<$lt> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[allow(non_camel_case_types, reason = "variants are the wire's own names")]
                enum Field { $($field,)* __Unknown }

                struct FieldVisitor;
                impl serde::de::Visitor<'_> for FieldVisitor {
                    type Value = Field;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a field name")
                    }
                    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Field, E> {
                        $(if name == crate::json::json_object!(@name $field $($wire)?) { return Ok(Field::$field); })*
                        Ok(Field::__Unknown)
                    }
                }
                impl<'de> serde::Deserialize<'de> for Field {
                    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        deserializer.deserialize_identifier(FieldVisitor)
                    }
                }

                struct ObjectVisitor<$lt>(std::marker::PhantomData<&$lt ()>);
                impl<'de: $lt, $lt> serde::de::Visitor<'de> for ObjectVisitor<$lt> {
                    type Value = $name<$lt>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a JSON object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        let mut object = $name::default();
                        while let Some(field) = map.next_key::<Field>()? {
                            match field {
                                $(Field::$field => {
                                    if object.$field.is_some() {
                                        return Err(serde::de::Error::duplicate_field(
                                            crate::json::json_object!(@name $field $($wire)?),
                                        ));
                                    }
                                    object.$field = Some(map.next_value::<$ty>()?);
                                })*
                                Field::__Unknown => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                    object.unknown_fields += 1;
                                }
                            }
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData))
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $wire:literal) => { $wire };
}
pub(crate) use json_object;

json_object! {
    /// The one field that every format of every record keeps.
    struct FormatOnly<'a> { format: u64, }
}

/// Reads one of our own records, refusing a newer `format` before any other complaint: a field missing from a newer
/// format is no sign of damage.
pub(crate) fn read<'a, T: Deserialize<'a>>(record: &'static str, value: &'a [u8]) -> Result<T, DecodeError> {
    // serde_json does not look at the encoding of strings it skips; a record of ours is text throughout.
    let text = std::str::from_utf8(value).map_err(|error| DecodeError::malformed(record, error.to_string()))?;
    serde_json::from_str(text).map_err(|error| {
        let format = serde_json::from_str::<FormatOnly<'_>>(text).ok().and_then(|only| only.format);
        match check_format(record, format) {
            Err(newer) => newer,
            Ok(()) => DecodeError::malformed(record, error.to_string()),
        }
    })
}

/// Refuses a format newer than ours; records without the field are of format 1.
pub(crate) fn check_format(record: &'static str, format: Option<u64>) -> Result<(), DecodeError> {
    match format {
        Some(found) if found > FORMAT => Err(DecodeError::FormatNewer { record, found, supported: FORMAT }),
        _ => Ok(()),
    }
}

/// The field, or the error that names it.
pub(crate) fn required<T>(record: &'static str, name: &str, field: Option<T>) -> Result<T, DecodeError> {
    field.ok_or_else(|| DecodeError::malformed(record, format!("field {name} is missing")))
}

/// Appends one compact JSON object, field by field, to a buffer.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> ObjectWriter<'a> {
    /// Opens the object.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    /// `name` must need no escaping: all callers pass literals.
    fn name(&mut self, name: &'static str) {
        self.out.push(self.separator);
        self.separator = b',';
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(crate) fn integer(mut self, name: &'static str, value: impl itoa::Integer) -> Self {
        self.name(name);
        push_integer(self.out, value);
        self
    }

    pub(crate) fn integer_or_null(mut self, name: &'static str, value: Option<impl itoa::Integer>) -> Self {
        self.name(name);
        match value {
            Some(value) => push_integer(self.out, value),
            None => self.out.extend_from_slice(b"null"),
        }
        self
    }

    #[inline]
    pub(crate) fn quantity(mut self, name: &'static str, units: impl itoa::Integer + Into<i128>, scale: Scale) -> Self {
        self.name(name);
        scale.push(self.out, units);
        self
    }

    #[inline]
    pub(crate) fn quantity_or_null(
        mut self,
        name: &'static str,
        units: Option<impl itoa::Integer + Into<i128>>,
        scale: Scale,
    ) -> Self {
        self.name(name);
        match units {
            Some(units) => scale.push(self.out, units),
            None => self.out.extend_from_slice(b"null"),
        }
        self
    }

    pub(crate) fn good(mut self, name: &'static str, good: &GoodId) -> Self {
        self.name(name);
        push_good(self.out, good);
        self
    }

    pub(crate) fn good_or_null(mut self, name: &'static str, good: Option<&GoodId>) -> Self {
        self.name(name);
        match good {
            Some(good) => push_good(self.out, good),
            None => self.out.extend_from_slice(b"null"),
        }
        self
    }

    pub(crate) fn boolean(mut self, name: &'static str, value: bool) -> Self {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// `value` must need no escaping: all callers pass literals.
    pub(crate) fn literal(mut self, name: &'static str, value: &'static str) -> Self {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
        self
    }

    /// Closes the object.
    pub(crate) fn finish(self) {
        self.out.push(b'}');
    }
}

/// Appends an integer as decimal text.
pub(crate) fn push_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a good: an integer as a JSON number, a text as a JSON string.
pub(crate) fn push_good(out: &mut Vec<u8>, good: &GoodId) {
    match good {
        GoodId::Integer(value) => push_integer(out, *value),
        GoodId::Text(text) => {
            // Writing a text to memory cannot fail.
            let written = serde_json::to_writer(&mut *out, &**text);
            debug_assert!(written.is_ok());
        }
    }
}

/// Appends a uuid as lower-case hyphenated text.
pub(crate) fn push_uuid(out: &mut Vec<u8>, id: Uuid) {
    out.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
}

/// What a JSON string says; `None` for any other value.
pub(crate) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Reads a decimal integer in its one canonical form: no sign `+`, no leading zeroes, no spaces. Canonical because
/// the text is a record key: another text would be another key.
pub(crate) fn parse_canonical_i64(text: &[u8]) -> Option<i64> {
    let value: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(value).as_bytes() == text).then_some(value)
}

/// Reads a uuid in its one canonical form: 36 bytes, hyphenated, lower case.
pub(crate) fn parse_canonical_uuid(text: &[u8]) -> Option<Uuid> {
    if text.len() != uuid::fmt::Hyphenated::LENGTH || text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    Uuid::try_parse_ascii(text).ok()
}
