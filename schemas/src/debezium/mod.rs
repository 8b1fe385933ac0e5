//! Change events as Debezium's connector for `PostgreSQL` writes them, read without a guess.
//!
//! Owns the form of the input topic: the record key ([`key`]), the envelope with and without the `schema`/`payload`
//! wrapper ([`value`]), and both as Avro or JSON behind the id of a schema in a registry ([`registered`]). Never decides whether an event is new, and never uses `before`: with the default replica
//! identity it is null or made of zeroes, so the old contribution comes from the processor's state.
//!
//! Guards invariant 7: every record becomes a [`Change`] or a [`Rejection`] that says why not.

mod envelope;
pub mod key;
mod number;
mod plain;
pub mod registered;
pub mod value;

pub use key::{Key, KeyEncoding};
pub use registered::{WriterSchema, decode_registered, schema_id};
pub use value::{Change, ChangeOperation, RowChange, Snapshot, Source};

use crate::Rejection;

/// One record of the input topic, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The id and the form its key was written in; `None` when the key is absent or unusable.
    pub key: Option<Key>,
    /// What happened, or why that cannot be said.
    pub change: Result<Change, Rejection>,
}

/// Reads one record of the input topic. `max_value_bytes`: a longer value is refused (but still looked into for the
/// row's position).
pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>, max_value_bytes: usize) -> Record {
    match key::decode(key) {
        Ok(key) => Record { key: Some(key), change: value::decode(key.id, value, max_value_bytes) },
        // A TRUNCATE has no key: say what it is, not what it lacks.
        Err(_) if value::is_truncate(value) => Record { key: None, change: Ok(Change::Truncate) },
        Err(rejection) => Record { key: None, change: Err(rejection) },
    }
}
