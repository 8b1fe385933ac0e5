//! Where the schemas of change events in a registry's wire format come from.
//!
//! Owns the seam only. Asking a registry is an adapter's work, and waiting for it too: an adapter that knows which
//! schemas are at hand hands over no record that needs another one.

use std::fmt;
use std::sync::Arc;

use schemas::debezium::WriterSchema;

/// Why a schema is not at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaMissing {
    /// There is no registry to ask.
    NoRegistry,
    /// It is asked for; the record must be read again later.
    NotYetKnown,
}

/// The schemas at hand, by id. Answers at once.
pub trait Schemas: fmt::Debug {
    /// The schema of an id.
    fn schema(&mut self, id: u32) -> Result<Arc<WriterSchema>, SchemaMissing>;
}

/// No registry: events are plain JSON.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoRegistry;

impl Schemas for NoRegistry {
    fn schema(&mut self, _id: u32) -> Result<Arc<WriterSchema>, SchemaMissing> {
        Err(SchemaMissing::NoRegistry)
    }
}
