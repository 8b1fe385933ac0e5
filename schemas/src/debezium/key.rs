//! The record key: exactly the id of the row, nothing else.
//!
//! Kafka chose the record's partition by hashing the key's *bytes*. Another byte form of the same id (a schema
//! wrapper switched on, another converter) therefore sends the id to another partition, away from its state. So the
//! form itself is read too, as a [`KeyEncoding`] that the processor keeps per partition and compares.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::ops::Range;

use super::columns::Columns;
use super::row;
use crate::json::parse_canonical_uuid;
use crate::rejection::excerpt;
use crate::{IdType, Reason, Rejection, RowId};

/// A record key, read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The row's id.
    pub id: RowId,
    /// The byte form the id was written in.
    pub encoding: KeyEncoding,
}

/// The byte form of a record key with the values of the id taken out.
///
/// Short forms are their own template, `{"id":"*"}` (of a uuid or another text), `{"id":*}` (of an integer); longer ones
/// are `json-schema:` (with schema wrapper) or `json:`, those in a registry's wire format `json-registry:` or `avro:`, and
/// a 64-bit FNV-1a hash of the template in hexadecimal. The schema id is part of the template: another id is other bytes,
/// hence other partitions. Equal texts mean equal forms. Copied and compared as 32 bytes, never allocated: it is looked at
/// for every record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyEncoding {
    length: u8,
    text: [u8; Self::MAX_BYTES],
}

impl KeyEncoding {
    /// Longest text of an encoding in bytes.
    pub const MAX_BYTES: usize = 31;

    /// `{"id":"*"}`: the JSON converter with schemas switched off.
    pub const PLAIN: Self = {
        let mut text = [0; Self::MAX_BYTES];
        let plain = b"{\"id\":\"*\"}";
        let (head, _) = text.split_at_mut(plain.len());
        head.copy_from_slice(plain);
        Self { length: 10, text }
    };

    /// The encoding as it is kept in the partition's state.
    pub fn as_str(&self) -> &str {
        self.text.get(..usize::from(self.length)).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    /// Reads the text that [`as_str`](Self::as_str) gave; `None` if it is too long to be one.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::of_parts(&[text.as_bytes()])
    }

    /// Joins the parts with stars; `None` when they do not fit.
    fn of_parts(parts: &[&[u8]]) -> Option<Self> {
        let mut text = [0; Self::MAX_BYTES];
        let mut length = 0;
        for part in with_stars(parts) {
            text.get_mut(length..length + part.len())?.copy_from_slice(part);
            length += part.len();
        }
        Some(Self { length: u8::try_from(length).ok()?, text })
    }

    /// The encoding of a key in whose gaps between these parts the values of the id stand.
    pub(super) fn of_template(parts: &[&[u8]], family: Family) -> Self {
        if family == Family::Json
            && let Some(template) = Self::of_parts(parts)
        {
            return template;
        }
        // FNV-1a: a dozen bytes of code and the same value for ever; the form is compared, not attacked.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in with_stars(parts).flatten() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let family = match family {
            Family::Json => "json",
            Family::WrappedJson => "json-schema",
            Family::RegisteredJson => "json-registry",
            Family::Avro => "avro",
        };
        let mut text = [0; Self::MAX_BYTES];
        let mut rest = text.as_mut_slice();
        // 13 + 1 + 16 bytes fit; were they cut, the encoding would still be another than PLAIN and stay the same.
        let _ = write!(rest, "{family}:{hash:016x}");
        let length = Self::MAX_BYTES - rest.len();
        Self { length: u8::try_from(length).unwrap_or_default(), text }
    }
}

/// The parts with a star in each gap.
fn with_stars<'a>(parts: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    let stars = std::iter::once(&b""[..]).chain(std::iter::repeat(&b"*"[..]));
    parts.iter().zip(stars).flat_map(|(part, star)| [star, *part])
}

/// Which converter writes such a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// JSON without a schema.
    Json,
    /// JSON with its schema in it.
    WrappedJson,
    /// JSON behind a schema id.
    RegisteredJson,
    /// Avro behind a schema id.
    Avro,
}

impl fmt::Debug for KeyEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyEncoding({})", self.as_str())
    }
}

impl fmt::Display for KeyEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Hash for KeyEncoding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl serde::Serialize for KeyEncoding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for KeyEncoding {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom("longer than any key encoding"))
    }
}

/// See [`super::Decoder::decode_key`].
pub(super) fn decode(columns: &Columns, key: Option<&[u8]>) -> Result<Key, Rejection> {
    let key = key.ok_or_else(|| Rejection::new(Reason::NoId, "the record has no key"))?;
    match plain(columns, key) {
        Some(key) => Ok(key),
        None => decode_other_forms(columns, key).map_err(|why| not_the_id(key, why)),
    }
}

#[inline]
fn plain(columns: &Columns, key: &[u8]) -> Option<Key> {
    let plain = columns.plain_key()?;
    let value = key.strip_prefix(plain.prefix.as_bytes())?.strip_suffix(plain.suffix.as_bytes())?;
    let id = match columns.id_type() {
        IdType::Uuid => parse_canonical_uuid(value).map(RowId::Uuid),
        IdType::Key => RowId::of_integer(value),
    };
    Some(Key { id: id?, encoding: plain.encoding })
}

#[cold]
fn decode_other_forms(columns: &Columns, key: &[u8]) -> Result<Key, &'static str> {
    let Found { values, family } = find(columns, key)?;
    of_values(columns, key, &values, family)
}

/// The key with these values, in the order in which their columns are configured; `values` are slices of it.
pub(super) fn of_values(columns: &Columns, key: &[u8], values: &[&str], family: Family) -> Result<Key, &'static str> {
    let id = match (columns.id_type(), values) {
        (IdType::Uuid, [value]) => {
            let text = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
            parse_canonical_uuid(text.as_bytes()).map(RowId::Uuid).ok_or(NO_UUID)?
        }
        (IdType::Uuid, _) => return Err(NO_UUID),
        (IdType::Key, values) => RowId::of_values(values)?,
    };
    let gaps = values.iter().map(|value| {
        // The raw text of a value is a slice of the key, so its address tells where the template is cut.
        let start = value.as_ptr().addr().wrapping_sub(key.as_ptr().addr());
        let quote = usize::from(value.starts_with('"'));
        start + quote..start + value.len() - quote
    });
    let encoding = encoding(key, gaps.collect(), family).ok_or("id not found in the key")?;
    Ok(Key { id, encoding })
}

/// Why a value is no id where ids are uuids.
pub(super) const NO_UUID: &str = "id is no uuid in lower-case hyphenated form";

/// The encoding of a key in whose gaps the values of the id stand.
pub(super) fn encoding(key: &[u8], mut gaps: Vec<Range<usize>>, family: Family) -> Option<KeyEncoding> {
    gaps.sort_unstable_by_key(|gap| gap.start);
    let mut parts = Vec::with_capacity(gaps.len() + 1);
    let mut from = 0;
    for gap in gaps {
        parts.push(key.get(from..gap.start)?);
        from = gap.end;
    }
    parts.push(key.get(from..)?);
    Some(KeyEncoding::of_template(&parts, family))
}

/// What a JSON key holds.
pub(super) struct Found<'k> {
    /// The values of the id's columns, in the order in which these are configured.
    pub(super) values: Vec<&'k str>,
    pub(super) family: Family,
}

/// Looks for the id in any JSON key that holds it and nothing else.
pub(super) fn find<'k>(columns: &Columns, key: &'k [u8]) -> Result<Found<'k>, &'static str> {
    let text = std::str::from_utf8(key).map_err(|_| "not JSON text")?;
    let ids = || columns.id_columns().iter().map(|name| (name.as_str(), None));
    let mut fields: Vec<(&str, Option<&str>)> =
        [("schema", None), ("payload", None)].into_iter().chain(ids()).collect();
    let others = match row::read_plain(text, &mut fields) {
        Some(others) => others,
        None => row::read(text, &mut fields).map_err(|_| NOT_JSON)?,
    };
    let mut fields = fields.into_iter().map(|(_, value)| value);
    let (schema, payload) = (fields.next().flatten(), fields.next().flatten());
    let values: Vec<Option<&str>> = fields.collect();
    match payload {
        None if others == 0 && schema.is_none() => {
            let values = values.into_iter().collect::<Option<_>>().ok_or_else(|| not_exactly(columns))?;
            Ok(Found { values, family: Family::Json })
        }
        Some(payload) if others == 0 && values.iter().all(Option::is_none) => {
            let mut inner: Vec<_> = ids().collect();
            let others = row::read(payload, &mut inner).map_err(|_| NOT_JSON)?;
            let values = inner.into_iter().map(|(_, value)| value).collect::<Option<_>>();
            let values = values.filter(|_| others == 0).ok_or_else(|| not_exactly(columns))?;
            Ok(Found { values, family: Family::WrappedJson })
        }
        _ => Err(not_exactly(columns)),
    }
}

const NOT_JSON: &str = "not a JSON object of known form";

/// Why a key is not the id when it holds anything else, or lacks something.
pub(super) fn not_exactly(columns: &Columns) -> &'static str {
    match columns.other_ids() {
        [] => "not exactly the id column",
        _ => "not exactly the columns of the id",
    }
}

/// The refusal of a key that is not the id.
pub(super) fn not_the_id(key: &[u8], why: &str) -> Rejection {
    Rejection::new(Reason::KeyNotTheId, format!("{why}: the key is {}", excerpt(key)))
}
