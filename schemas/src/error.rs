//! Errors of reading our *own* records.
//!
//! Unlike a [`crate::Rejection`] these are not about the source's data: they mean that another version, or somebody
//! else, wrote a topic that belongs to us. The reader stops; it never guesses (invariant 6).

use crate::Scale;

/// A record of ours that cannot be read. Each has a stable [`code`](Self::code).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by a newer version in a form this one does not know.
    #[error(
        "FORMAT_NEWER: a {record} record has format {found}, this build reads up to {supported}; \
         run at least the version that wrote it"
    )]
    FormatNewer {
        /// Kind of record (`changelog`, `movement`, …).
        record: &'static str,
        /// The format found.
        found: u64,
        /// The newest format this build reads.
        supported: u64,
    },
    /// The value is not the JSON object it has to be.
    #[error(
        "RECORD_MALFORMED: a {record} record cannot be read ({detail}); \
         find out who else writes the topic, then restore it or rebuild from the input"
    )]
    Malformed {
        /// Kind of record (`changelog`, `movement`, …).
        record: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// The key is not of the record's form, or is not the one its value belongs to.
    #[error(
        "RECORD_KEY_MALFORMED: the key of a {record} record cannot be used ({detail}); \
         find out who else writes the topic, then restore it or rebuild from the input"
    )]
    Key {
        /// Kind of record (`changelog`, `movement`, …).
        record: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// Its quantities have another number of digits behind the point: the same digits would be other quantities.
    #[error(
        "PIECES_SCALE_CHANGED: a {record} record has quantities with {found} digits behind the point, and --pieces-scale \
         is {wanted}; give --pieces-scale {found}"
    )]
    Scale {
        /// Kind of record (`changelog`, `movement`, …).
        record: &'static str,
        /// The scale found.
        found: Scale,
        /// The scale it was to have.
        wanted: Scale,
    },
    /// A header that the record must carry is missing or not a decimal number.
    #[error("HEADER_MALFORMED: header {header} {detail}; find out who else writes the topic")]
    Header {
        /// The header's name.
        header: &'static str,
        /// What was wrong.
        detail: String,
    },
}

impl DecodeError {
    /// The stable code that operators and the documentation refer to.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::FormatNewer { .. } => "FORMAT_NEWER",
            Self::Malformed { .. } => "RECORD_MALFORMED",
            Self::Key { .. } => "RECORD_KEY_MALFORMED",
            Self::Scale { .. } => "PIECES_SCALE_CHANGED",
            Self::Header { .. } => "HEADER_MALFORMED",
        }
    }

    pub(crate) fn malformed(record: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { record, detail: detail.into() }
    }

    pub(crate) fn key(record: &'static str, detail: impl Into<String>) -> Self {
        Self::Key { record, detail: detail.into() }
    }
}
