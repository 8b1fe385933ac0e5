//! Change events as Debezium's connector for `PostgreSQL` writes them, read without a guess.
//!
//! Owns the form of the input topic: the record key (`key`), the envelope with and without the `schema`/`payload`
//! wrapper (`value`), and both as Avro or JSON behind the id of a schema in a registry (`registered`). Never decides whether an event is new, and never uses `before`: with the default replica
//! identity it is null or made of zeroes, so the old contribution comes from the processor's state.
//!
//! Guards invariant 7: every record becomes a [`Change`] or a [`Rejection`] that says why not.

mod columns;
mod envelope;
mod id;
mod key;
mod number;
mod plain;
pub(crate) mod registered;
mod row;
mod value;

pub use columns::{Columns, Names, NamesInvalid, PiecesType};
pub use key::{Key, KeyEncoding};
pub use registered::{UnusableSchema, WriterSchema, schema_id};
pub use value::{Change, ChangeOperation, Partial, RowChange, Snapshot, Source, UNAVAILABLE};

use crate::{Rejection, RowId};

/// One record of the input topic, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The id and the form its key was written in; `None` when the key is absent or unusable.
    pub key: Option<Key>,
    /// What happened, or why that cannot be said.
    pub change: Result<Change, Rejection>,
}

/// How the records of one input topic are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoder {
    /// Names of the source table's columns.
    pub columns: Columns,
    /// Longest value in bytes; a longer one is refused (but still looked into for the row's position).
    pub max_value_bytes: usize,
}

impl Decoder {
    /// For the table of this project.
    pub fn new(max_value_bytes: usize) -> Self {
        Self { columns: Columns::default(), max_value_bytes }
    }

    /// Reads one record.
    pub fn decode(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
        match self.decode_key(key) {
            Ok(key) => {
                let change = self.decode_value(&key.id, value);
                Record { key: Some(key), change }
            }
            // A TRUNCATE has no key: say what it is, not what it lacks.
            Err(_) if value::is_truncate(&self.columns, value) => Record { key: None, change: Ok(Change::Truncate) },
            Err(rejection) => Record { key: None, change: Err(rejection) },
        }
    }

    /// Reads a record key. Refused: no key ([`Reason::NoId`](crate::Reason::NoId)) and any key that is not exactly the
    /// id ([`Reason::KeyNotTheId`](crate::Reason::KeyNotTheId)): a uuid in lower-case hyphenated form, or the columns
    /// of the id, each a 64-bit integer or a text.
    pub fn decode_key(&self, key: Option<&[u8]>) -> Result<Key, Rejection> {
        key::decode(&self.columns, key)
    }

    /// Reads the value of the record whose key names `id`.
    pub fn decode_value(&self, id: &RowId, value: Option<&[u8]>) -> Result<Change, Rejection> {
        value::decode(self, id, value)
    }
}
