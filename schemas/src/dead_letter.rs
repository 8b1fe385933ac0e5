//! Dead letters: change events that could not be applied.
//!
//! Topic `<prefix>.dead-letters`. Key, value and headers are byte for byte those of the input record; where it lay
//! and why it was refused is added in headers only, so that a corrected copy can be produced back unchanged.

use crate::{Reason, Rejection};

/// Header: topic of the refused record.
pub const TOPIC: &str = "dead-letter.topic";
/// Header: its partition, decimal text.
pub const PARTITION: &str = "dead-letter.partition";
/// Header: its offset, decimal text.
pub const OFFSET: &str = "dead-letter.offset";
/// Header: the stable code, see [`Reason`].
pub const REASON: &str = "dead-letter.reason";
/// Header: what exactly was wrong, UTF-8 text of at most 1,000 bytes.
pub const DETAIL: &str = "dead-letter.detail";

/// Where a refused record lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// The headers to append *after* the record's own. A record that was a dead letter before keeps its old headers;
/// readers take the last of a name.
pub fn headers(origin: Origin<'_>, rejection: &Rejection) -> [(&'static str, Vec<u8>); 5] {
    [
        (TOPIC, origin.topic.as_bytes().to_vec()),
        (PARTITION, origin.partition.to_string().into_bytes()),
        (OFFSET, origin.offset.to_string().into_bytes()),
        (REASON, rejection.reason().as_str().as_bytes().to_vec()),
        (DETAIL, rejection.detail().as_bytes().to_vec()),
    ]
}

/// The reason among a dead letter's headers: the last one of the name; `None` if absent or unknown to this build.
pub fn reason<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Reason> {
    let code = headers.into_iter().filter(|(name, _)| *name == REASON).last()?.1;
    Reason::from_code(std::str::from_utf8(code).ok()?)
}
