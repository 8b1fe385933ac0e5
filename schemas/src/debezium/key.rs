//! The record key: exactly the id of the row, nothing else.
//!
//! Kafka chose the record's partition by hashing the key's *bytes*. Another byte form of the same id (a schema
//! wrapper switched on, another converter) therefore sends the id to another partition, away from its state. So the
//! form itself is read too, as a [`KeyEncoding`] that the processor keeps per partition and compares.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::Write as _;

use uuid::Uuid;

use super::columns::{Columns, KEY_SUFFIX};
use super::row;
use crate::json::parse_canonical_uuid;
use crate::rejection::excerpt;
use crate::{Reason, Rejection};

const UUID_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;

/// A record key, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The row's id.
    pub id: Uuid,
    /// The byte form the id was written in.
    pub encoding: KeyEncoding,
}

/// The byte form of a record key with the id taken out.
///
/// Short forms are their own template, `{"id":"*"}`; longer ones are `json-schema:` (with schema wrapper) or `json:`,
/// those in a registry's wire format `json-registry:` or `avro:`, and a 64-bit FNV-1a hash of the template in
/// hexadecimal. The schema id is part of the template: another id is other bytes, hence other partitions. Equal texts
/// mean equal forms. Copied and compared as 32 bytes, never allocated: it is looked at for every record.
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

    /// Joins the parts; `None` when they do not fit.
    fn of_parts(parts: &[&[u8]]) -> Option<Self> {
        let mut text = [0; Self::MAX_BYTES];
        let mut length = 0;
        for part in parts {
            text.get_mut(length..length + part.len())?.copy_from_slice(part);
            length += part.len();
        }
        Some(Self { length: u8::try_from(length).ok()?, text })
    }

    /// The encoding of a key whose id lies between `before` and `after`.
    pub(super) fn of_template(before: &[u8], after: &[u8], family: Family) -> Self {
        if family == Family::Json
            && let Some(template) = Self::of_parts(&[before, b"*", after])
        {
            return template;
        }
        // FNV-1a: a dozen bytes of code and the same value for ever; the form is compared, not attacked.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in before.iter().chain(b"*").chain(after) {
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
    let (prefix, encoding) = columns.plain_key();
    let plain = key.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(KEY_SUFFIX)).and_then(parse_canonical_uuid);
    match plain {
        Some(id) => Ok(Key { id, encoding }),
        None => decode_other_forms(columns, key).map_err(|why| not_the_id(key, why)),
    }
}

#[cold]
fn decode_other_forms(columns: &Columns, key: &[u8]) -> Result<Key, &'static str> {
    let Found { id, start, family } = find_id(columns, key)?;
    let encoding = template(key, start, family).ok_or("id not found in the key")?;
    Ok(Key { id, encoding })
}

/// The encoding of a key whose id stands at `start`.
pub(super) fn template(key: &[u8], start: usize, family: Family) -> Option<KeyEncoding> {
    Some(KeyEncoding::of_template(key.get(..start)?, key.get(start + UUID_BYTES..)?, family))
}

/// Where in a JSON key the id stands.
pub(super) struct Found {
    pub(super) id: Uuid,
    /// Place of its first digit.
    pub(super) start: usize,
    pub(super) family: Family,
}

/// Looks for the id in any JSON key that holds it and nothing else.
pub(super) fn find_id(columns: &Columns, key: &[u8]) -> Result<Found, &'static str> {
    const NOT_JSON: &str = "not a JSON object of known form";
    let text = std::str::from_utf8(key).map_err(|_| "not JSON text")?;
    let mut fields = [(columns.id(), None), ("schema", None), ("payload", None)];
    let others = row::read(text, &mut fields).map_err(|_| NOT_JSON)?;
    let [id, schema, payload] = fields.map(|(_, value)| value);
    let (raw, family) = match (id, payload) {
        (Some(id), None) if others == 0 && schema.is_none() => (id, Family::Json),
        (None, Some(payload)) if others == 0 => {
            let mut inner = [(columns.id(), None)];
            let others = row::read(payload, &mut inner).map_err(|_| NOT_JSON)?;
            let [(_, id)] = inner;
            (id.filter(|_| others == 0).ok_or("not exactly the id column")?, Family::WrappedJson)
        }
        _ => return Err("not exactly the id column"),
    };
    let uuid_text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    let id = parse_canonical_uuid(uuid_text.as_bytes()).ok_or("id is no uuid in lower-case hyphenated form")?;
    // The raw text of the value is a slice of the key, so its address tells where the template is cut.
    let start = raw.as_ptr().addr().wrapping_sub(text.as_ptr().addr()) + 1;
    Ok(Found { id, start, family })
}

/// The refusal of a key that is not the id.
pub(super) fn not_the_id(key: &[u8], why: &str) -> Rejection {
    Rejection::new(Reason::KeyNotTheId, format!("{why}: the key is {}", excerpt(key)))
}
