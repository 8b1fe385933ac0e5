//! Why a change event was refused.
//!
//! Owns the stable reason codes that travel in the `dead-letter.reason` header and the bounded text beside them.
//! Guards invariant 7 (nothing is dropped): whatever cannot be applied has exactly one of these reasons.

use std::fmt;

/// Longest detail text in bytes: it travels in a record header and in logs, and the offending value is in the dead
/// letter anyway.
pub const MAX_DETAIL_BYTES: usize = 1_000;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $remedy:literal;)*) => {
        /// The stable code of a refusal. Codes are a contract with operators' alerts and tools: never rename one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it stands in the `dead-letter.reason` header: kebab-case, stable.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What an operator does about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            /// The reason of a code, `None` for a code this build does not know.
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The value is not JSON (or not complete).
    NotJson = "not-json", "find out who else writes this topic; only the connector's JSON converter may";
    /// The value is not UTF-8.
    InvalidUtf8 = "invalid-utf8", "find out who else writes this topic; only the connector's JSON converter may";
    /// The value is not what its schema in the registry says.
    NotAvro = "not-avro", "find out who else writes this topic; only the connector's converter may";
    /// Readable, but not a Debezium change event (wrong shape, a field twice).
    NotAnEnvelope = "not-an-envelope", "remove transforms that flatten the event; the whole envelope is needed";
    /// The value is longer than the configured limit.
    ValueTooLarge = "value-too-large", "raise the limit, or exclude the large column from the connector";
    /// No record key, or the row carries no usable `id`.
    NoId = "no-id", "set message.key.columns to orders.transactions:id and keep the id column included";
    /// The record key is not exactly the id in the form the connector writes it, or the id is too long.
    KeyNotTheId = "key-not-the-id", "set message.key.columns to orders.transactions:id and a JSON or Avro key converter; is the id a uuid (--id-type)?";
    /// The id in the row is another one than in the record key.
    KeyValueDisagree = "key-value-disagree", "remove transforms that rewrite keys or rows";
    /// `op` is missing or none of `r`, `c`, `u`, `d`, `t`.
    UnknownOp = "unknown-op", "check the connector's version against the supported ones";
    /// A TRUNCATE: it reaches one partition only and cannot be applied.
    Truncate = "truncate", "take a new complete snapshot: it shows which rows are gone";
    /// A snapshot, insert or update event without the row.
    MissingRow = "missing-row", "correct the row in the source; the next event of the row replaces this one";
    /// `operation` is neither `add` nor `remove`.
    UnknownOperation = "unknown-operation", "correct the row in the source";
    /// `good_id` is missing, not of the type of this system's goods, or a text that is empty, too long or holds a zero.
    GoodIdInvalid = "good-id-invalid", "correct the row in the source; are its goods integers or texts (--good-type)?";
    /// `pcs` is missing or no number.
    PcsInvalid = "pcs-invalid", "correct the row in the source";
    /// `pcs` is below zero.
    NegativePcs = "negative-pcs", "correct the row in the source: direction belongs into operation";
    /// `pcs` has more digits behind the point than the processor was told; none, unless it was told.
    FractionalPcs = "fractional-pcs", "correct the row in the source; if its pieces are not whole, see --pieces-scale";
    /// `pcs` does not fit 64 bits (in units of the scale), or is a double whose exact value is lost.
    PcsOutOfRange = "pcs-out-of-range", "correct the row in the source, or make the column bigint; for numeric, see decimal.handling.mode";
    /// A column holds `__debezium_unavailable_value`, and nothing is stored to take its value from.
    UnavailableValue = "unavailable-value", "have an incremental snapshot show the row; REPLICA IDENTITY FULL on the table prevents it";
    /// `source` lacks a usable `lsn`, `sequence` or `ts_ms`.
    NoPosition = "no-position", "check the connector's version; keep source.lsn, source.sequence and source.ts_ms";
    /// `source.snapshot` has a value this build does not know.
    UnknownSnapshotMarker = "unknown-snapshot-marker", "check the connector's version against the supported ones";
    /// Older position but later time than what is stored: the source database was rebuilt and its lsns began again.
    SourceRebuilt = "source-rebuilt", "follow the procedure for a rebuilt source database";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: the stable reason and what exactly was wrong, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejection {
    reason: Reason,
    detail: Box<str>,
}

impl Rejection {
    /// A refusal; a `detail` above [`MAX_DETAIL_BYTES`] is cut at a character boundary.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary_at(MAX_DETAIL_BYTES));
        Self { reason, detail: detail.into_boxed_str() }
    }

    /// The stable code.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What exactly was wrong; at most [`MAX_DETAIL_BYTES`] bytes.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// A short, printable excerpt of input text for a detail: untrusted, possibly huge, possibly binary.
pub(crate) fn excerpt(input: &[u8]) -> String {
    const SHOWN: usize = 80;
    let (shown, more) = match input.split_at_checked(SHOWN) {
        Some((head, rest)) if !rest.is_empty() => (head, rest.len()),
        _ => (input, 0),
    };
    let text: String =
        String::from_utf8_lossy(shown).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if more == 0 { text } else { format!("{text}… (+{more} bytes)") }
}

/// `str::floor_char_boundary` is younger than our minimum Rust version.
trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
}

impl FloorCharBoundary for String {
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        if index >= self.len() {
            return self.len();
        }
        (0..=index).rev().find(|&at| self.is_char_boundary(at)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_kebab_case_code_and_reads_back() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert!(seen.insert(reason.as_str()));
            assert_eq!(Reason::from_code(reason.as_str()), Some(*reason));
            assert!(!reason.remedy().is_empty());
        }
        assert_eq!(Reason::from_code("no such"), None);
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character_boundary() {
        let rejection = Rejection::new(Reason::NotJson, "ä".repeat(501) + "x");
        assert_eq!(rejection.detail().len(), 1_000);
        let rejection = Rejection::new(Reason::NotJson, format!("x{}", "ä".repeat(501)));
        assert_eq!(rejection.detail().len(), 999);
    }

    #[test]
    fn an_excerpt_is_short_and_printable_whatever_it_is_given() {
        assert_eq!(excerpt(b"short"), "short");
        assert_eq!(excerpt(&[0xff, 0x00]), "\u{fffd}\u{fffd}");
        assert!(excerpt(&[b'x'; 5_000]).ends_with("… (+4920 bytes)"));
    }
}
