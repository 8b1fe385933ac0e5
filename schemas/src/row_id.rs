//! What rows of the source table are called: by a uuid, or by their whole record key, of one column or several.
//!
//! Owns the two forms, and the one text that each key has: the value of its column as JSON (`42`, `"A-7"`), of several
//! columns an array of the values in the order in which the columns are configured (`[1,"A-7"]`). There is one text for
//! each key because it is the key of the changelog and of the store, compared byte for byte. The texts of the two forms
//! have none in common, and none begins with `#`; still the ids of one system are of one [`IdType`], which the processor
//! keeps and compares.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::debezium::UNAVAILABLE;
use crate::json;

/// Longest text of a key in bytes: it must fit the store's longest key, 511 bytes.
pub const MAX_ID_BYTES: usize = 500;

/// Which ids a system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IdType {
    /// One column, a uuid.
    #[default]
    Uuid,
    /// The record key: one column or several, each a 64-bit integer or a text.
    Key,
}

impl fmt::Display for IdType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uuid => "uuid",
            Self::Key => "key",
        })
    }
}

/// The id of a row. Sorts as its bytes do. Copied without allocation: texts are shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowId {
    /// Of [`IdType::Uuid`].
    Uuid(Uuid),
    /// Of [`IdType::Key`]: the one text of the key.
    Key(Arc<str>),
}

impl RowId {
    /// Which of the two it is.
    pub const fn id_type(&self) -> IdType {
        match self {
            Self::Uuid(_) => IdType::Uuid,
            Self::Key(_) => IdType::Key,
        }
    }

    /// What the store has it under: the 16 bytes of a uuid, the text of a key.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Uuid(id) => id.as_bytes(),
            Self::Key(text) => text.as_bytes(),
        }
    }

    /// Reads what [`as_bytes`](Self::as_bytes) gave for an id of this type; `None` for anything else.
    pub fn from_bytes(bytes: &[u8], id_type: IdType) -> Option<Self> {
        match id_type {
            IdType::Uuid => Uuid::from_slice(bytes).ok().map(Self::Uuid),
            IdType::Key => Self::of_key_text(std::str::from_utf8(bytes).ok()?),
        }
    }

    /// Appends the text of the id, which is the key of its record in the changelog: a uuid in lower case and
    /// hyphenated, a key as it is.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Uuid(id) => json::push_uuid(out, *id),
            Self::Key(text) => out.extend_from_slice(text.as_bytes()),
        }
    }

    /// Reads the text of an id. Strictly: another text would be another key.
    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        match json::parse_canonical_uuid(text) {
            Some(id) => Some(Self::Uuid(id)),
            None => Self::of_key_text(std::str::from_utf8(text).ok()?),
        }
    }

    fn of_key_text(text: &str) -> Option<Self> {
        if !text.starts_with('[') {
            return Self::of_values(&[text]).ok();
        }
        let values: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        let values: Vec<&str> = values.into_iter().map(RawValue::get).collect();
        let id = Self::of_values(&values).ok().filter(|_| values.len() > 1)?;
        (id.as_bytes() == text.as_bytes()).then_some(id)
    }

    /// The id of a key with these values, each as it stands in JSON, in the order in which its columns are configured.
    /// Strictly again: Kafka has placed the record by their bytes.
    pub(crate) fn of_values(values: &[&str]) -> Result<Self, &'static str> {
        for value in values {
            if one_text(value)? != *value {
                return Err("a column of the id is in another form than the connector's converters write");
            }
        }
        let text: Arc<str> = match values {
            [value] => Arc::from(*value),
            values => Arc::from(joined(values.iter().copied())),
        };
        if text.len() > MAX_ID_BYTES { Err("the id is longer than 500 bytes") } else { Ok(Self::Key(text)) }
    }

    /// The id of a key whose only column is an integer, from its digits; `None` for anything else.
    #[inline]
    pub(crate) fn of_integer(digits: &[u8]) -> Option<Self> {
        json::parse_canonical_i64(digits)?;
        std::str::from_utf8(digits).ok().map(|digits| Self::Key(Arc::from(digits)))
    }
}

/// The one text of a value as it stands in JSON.
pub(crate) fn one_text(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    let Some(text) = json::text(raw) else {
        let integer = json::parse_canonical_i64(raw.as_bytes()).map(|_| Cow::Borrowed(raw));
        return integer.ok_or("a column of the id is neither a 64-bit integer nor a text");
    };
    if text == UNAVAILABLE {
        // Of many rows: taken for an id it would make one of them.
        return Err("a column of the id is unavailable");
    }
    let plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\');
    if matches!(text, Cow::Borrowed(_)) && text.bytes().all(plain) {
        return Ok(Cow::Borrowed(raw));
    }
    let quoted = quoted(&text);
    Ok(if quoted == raw { Cow::Borrowed(raw) } else { Cow::Owned(quoted) })
}

/// The text of several values.
pub(crate) fn joined<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::from("[");
    for (index, value) in values.enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(value);
    }
    text.push(']');
    text
}

/// A JSON string as Connect's JSON converters (that is, Jackson) write it: `serde_json` writes control characters with
/// other digits.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            // Writing to a text cannot fail.
            '\0'..='\u{1f}' => _ = write!(quoted, "\\u{:04X}", u32::from(character)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

impl From<Uuid> for RowId {
    fn from(id: Uuid) -> Self {
        Self::Uuid(id)
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(id) => id.fmt(f),
            Self::Key(text) => f.write_str(text),
        }
    }
}

impl Serialize for RowId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str> as Deserialize>::deserialize(deserializer)?;
        Self::from_text(text.as_bytes()).ok_or_else(|| D::Error::custom("no id"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(values: &[&str]) -> RowId {
        RowId::of_values(values).unwrap()
    }

    #[test]
    fn one_column_is_its_value_and_several_are_an_array() {
        assert_eq!(key(&["42"]).to_string(), "42");
        assert_eq!(key(&["\"42\""]).to_string(), "\"42\"");
        assert_eq!(key(&["1", "\"A-7\""]).to_string(), "[1,\"A-7\"]");
        assert_eq!(key(&[r#""\u001Fgröße\n""#]).to_string(), r#""\u001Fgröße\n""#);
        assert_eq!(RowId::of_integer(b"-9223372036854775808"), Some(key(&["-9223372036854775808"])));
    }

    #[test]
    fn what_is_no_integer_and_no_text_or_has_two_forms_is_no_id() {
        let refused = |raw: &str| RowId::of_values(&[raw]).unwrap_err();
        let neither = "a column of the id is neither a 64-bit integer nor a text";
        for raw in ["1.0", "1e3", "-0", "9223372036854775808", "null", "true", "{}", "[1]", ""] {
            assert_eq!(refused(raw), neither, "{raw}");
        }
        for raw in [r#""\u0041""#, r#""\u001f""#, r#""\/""#] {
            assert_eq!(refused(raw), "a column of the id is in another form than the connector's converters write");
        }
        assert_eq!(refused("\"__debezium_unavailable_value\""), "a column of the id is unavailable");
        assert!(RowId::of_values(&[&format!("\"{}\"", "x".repeat(498))]).is_ok());
        assert_eq!(refused(&format!("\"{}\"", "x".repeat(499))), "the id is longer than 500 bytes");
        assert!(RowId::of_values(&["1", &format!("\"{}\"", "x".repeat(495))]).is_err(), "with the array around it");
        for digits in ["", "01", "+1", "1.0", "9223372036854775808", "1,\"b\":2"] {
            assert_eq!(RowId::of_integer(digits.as_bytes()), None, "{digits}");
        }
    }

    #[test]
    fn only_the_one_text_of_an_id_is_read() {
        for text in ["[1]", "[]", "[1, 2]", "[1,2] ", " 1", "[1,[2]]", "[1,null]", "#partition", "a", "", "\"a\"b\""] {
            assert_eq!(RowId::from_text(text.as_bytes()), None, "{text}");
        }
        let uuid = "78c14186-0000-4000-8000-000000000004";
        assert_eq!(RowId::from_text(uuid.as_bytes()).unwrap().id_type(), IdType::Uuid);
        assert_eq!(RowId::from_text(uuid.to_uppercase().as_bytes()), None);
        // As a text it is another id, with another text.
        assert_eq!(RowId::from_text(format!("\"{uuid}\"").as_bytes()).unwrap().id_type(), IdType::Key);
        // As long as a uuid in the store.
        assert_eq!(RowId::from_bytes(b"\"abcdefgh-ijklm\"", IdType::Key), Some(key(&["\"abcdefgh-ijklm\""])));
        assert_eq!(RowId::from_bytes(b"#partition", IdType::Key), None);
        assert_eq!(RowId::from_bytes(b"#partition", IdType::Uuid), None);
    }

    #[test]
    fn a_uuid_costs_no_more_than_a_shared_text_has_room_for() {
        assert_eq!(size_of::<RowId>(), 24);
    }

    fn value() -> impl Strategy<Value = String> {
        let text = "\\PC{0,20}|[\u{0}-\u{7f}]{0,20}".prop_map(|text| quoted(&text));
        prop_oneof![any::<i64>().prop_map(|number| number.to_string()), text]
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text_its_bytes_and_its_json(
            uuid: u128,
            values in prop::collection::vec(value(), 1..5),
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            for id in [RowId::Uuid(Uuid::from_u128(uuid)), key(&values)] {
                let mut text = Vec::new();
                id.encode(&mut text);
                prop_assert_eq!(String::from_utf8_lossy(&text), id.to_string());
                prop_assert!(!text.starts_with(b"#"));
                prop_assert_eq!(RowId::from_text(&text), Some(id.clone()));
                prop_assert_eq!(RowId::from_bytes(id.as_bytes(), id.id_type()), Some(id.clone()));
                let json = serde_json::to_string(&id).unwrap();
                prop_assert_eq!(serde_json::from_str::<RowId>(&json).unwrap(), id);
            }
        }

        /// `serde_json` reads every text that is written here as the text it was made of.
        #[test]
        fn quoted_texts_are_json(text in "\\PC{0,20}|[\u{0}-\u{7f}]{0,20}") {
            prop_assert_eq!(serde_json::from_str::<String>(&quoted(&text)).unwrap(), text);
        }

        #[test]
        fn keys_of_other_values_have_other_texts(
            one in prop::collection::vec(value(), 1..4),
            other in prop::collection::vec(value(), 1..4),
        ) {
            let id = |values: &Vec<String>| key(&values.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(id(&one) == id(&other), one == other);
        }
    }
}
