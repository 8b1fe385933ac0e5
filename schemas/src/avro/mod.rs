//! Avro, read strictly against the schema it was written with.
//!
//! Owns the byte form of Avro values: [`Layout`] is a schema made ready for reading, [`Input`] the bytes still to be
//! read. Parsing schemas is the crate `apache-avro`'s work; reading values is not, because it takes a value that breaks
//! off in the middle of a text or a boolean for null, resolves names again for every value, and allocates for
//! fields nobody asks for. Here a value is either read to its last byte as its schema says or refused, texts are
//! borrowed, and nothing is allocated: a length is only ever compared with what is left.
//!
//! Guards invariant 7 on this encoding: bytes that are not what their schema says become a refusal, never a guess.

mod input;
mod layout;
pub(crate) mod own;
pub(crate) mod write;

pub(crate) use input::{Input, Malformed, Scalar};
pub use layout::UnusableSchema;
pub(crate) use layout::{Field, Layout};
