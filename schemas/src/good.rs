//! What goods are called: an integer, or a text.
//!
//! Owns the two forms and how each stands in a record key and in JSON. A uuid is a text, in the lower-case form in which
//! Debezium sends it. The integer 2 and the text `2` have the same record key, so the goods of one system are of one
//! [`GoodType`], which the processor keeps and compares; nothing here guesses it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::json;

/// Longest text in bytes: with a byte or two of its own it must fit the store's longest key, 511 bytes.
pub const MAX_GOOD_BYTES: usize = 500;

/// Which goods a system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoodType {
    /// 64-bit integers.
    #[default]
    Integer,
    /// Texts, uuids among them.
    Text,
}

impl fmt::Display for GoodType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integer => "integer",
            Self::Text => "text",
        })
    }
}

/// A good. Integers sort before texts. Copied without allocation: texts are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoodId {
    /// Of [`GoodType::Integer`].
    Integer(i64),
    /// Of [`GoodType::Text`]; see [`GoodId::from_text`] for what it may be.
    Text(Arc<str>),
}

/// Why a text is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoGood {
    /// A record key without bytes means nothing to some clients.
    #[error("it is empty")]
    Empty,
    /// Longer than [`MAX_GOOD_BYTES`].
    #[error("it has {0} bytes, the limit is {MAX_GOOD_BYTES}")]
    TooLong(usize),
    /// `PostgreSQL` has no such text, so no target could hold it.
    #[error("it contains a zero character")]
    Zero,
}

impl GoodId {
    /// A good that is a text.
    ///
    /// # Errors
    /// [`NoGood`]
    pub fn from_text(text: &str) -> Result<Self, NoGood> {
        match text.len() {
            0 => Err(NoGood::Empty),
            length if length > MAX_GOOD_BYTES => Err(NoGood::TooLong(length)),
            _ if text.contains('\0') => Err(NoGood::Zero),
            _ => Ok(Self::Text(text.into())),
        }
    }

    /// Which of the two it is.
    pub const fn good_type(&self) -> GoodType {
        match self {
            Self::Integer(_) => GoodType::Integer,
            Self::Text(_) => GoodType::Text,
        }
    }

    /// The integer, if it is one.
    pub const fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Text(_) => None,
        }
    }

    /// Hands over the bytes of its record key: the text as it is, the integer in decimal.
    pub fn with_key<T>(&self, with: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Integer(value) => with(itoa::Buffer::new().format(*value).as_bytes()),
            Self::Text(text) => with(text.as_bytes()),
        }
    }

    /// Reads a record key of goods of this type. Strictly: another text would be another key.
    pub fn from_key(key: &[u8], good_type: GoodType) -> Option<Self> {
        match good_type {
            GoodType::Integer => json::parse_canonical_i64(key).map(Self::Integer),
            GoodType::Text => Self::from_text(std::str::from_utf8(key).ok()?).ok(),
        }
    }
}

impl From<i64> for GoodId {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl PartialOrd for GoodId {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Written out because a transaction's goods are sorted: two integers are told apart by one comparison.
impl Ord for GoodId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(one), Self::Integer(other)) => one.cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Integer(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Integer(_)) => Ordering::Greater,
        }
    }
}

/// No mark of which of the two it is: a map's goods are of one type, and integers are hashed for every event.
impl Hash for GoodId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Integer(value) => value.hash(state),
            Self::Text(text) => text.hash(state),
        }
    }
}

/// For people: a text in quotes, so that it is told from an integer and shows what it is made of.
impl fmt::Display for GoodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for GoodId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Good;
        impl Visitor<'_> for Good {
            type Value = GoodId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a good: a 64-bit integer or a text")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<GoodId, E> {
                Ok(GoodId::Integer(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<GoodId, E> {
                i64::try_from(value).map(GoodId::Integer).map_err(|_| E::custom("a good beyond 64 bits"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoodId, E> {
                GoodId::from_text(text).map_err(|why| E::custom(format_args!("no good: {why}")))
            }
        }
        deserializer.deserialize_any(Good)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_that_no_key_or_target_can_hold_is_no_good() {
        assert_eq!(GoodId::from_text(""), Err(NoGood::Empty));
        assert_eq!(GoodId::from_text("a\0b"), Err(NoGood::Zero));
        assert_eq!(GoodId::from_text(&"x".repeat(501)), Err(NoGood::TooLong(501)));
        assert!(GoodId::from_text(&"x".repeat(500)).is_ok());
    }

    #[test]
    fn an_integer_and_its_text_are_two_goods_with_one_key() {
        let (integer, text) = (GoodId::from(2), GoodId::from_text("2").unwrap());
        assert_ne!(integer, text);
        assert_eq!(integer.with_key(<[u8]>::to_vec), text.with_key(<[u8]>::to_vec));
        assert_eq!((integer.to_string().as_str(), text.to_string().as_str()), ("2", "\"2\""));
        assert_eq!(GoodId::from_key(b"2", GoodType::Integer), Some(integer));
        assert_eq!(GoodId::from_key(b"2", GoodType::Text), Some(text));
        assert_eq!(GoodId::from_key(b"02", GoodType::Integer), None);
        assert_eq!(GoodId::from_key(b"\xff", GoodType::Text), None);
    }

    #[test]
    fn an_integer_costs_no_more_than_a_shared_text_has_room_for() {
        assert_eq!(size_of::<GoodId>(), 16);
    }

    proptest! {
        #[test]
        fn every_good_survives_the_way_through_json_and_through_its_key(number: i64, text in "\\PC{1,40}|[\u{1}-\u{7f}]{1,40}") {
            for good in [GoodId::from(number), GoodId::from_text(&text).unwrap()] {
                let mut out = Vec::new();
                json::push_good(&mut out, &good);
                prop_assert_eq!(&serde_json::from_slice::<GoodId>(&out).unwrap(), &good);
                let key = good.with_key(<[u8]>::to_vec);
                prop_assert_eq!(GoodId::from_key(&key, good.good_type()), Some(good));
            }
        }
    }
}
