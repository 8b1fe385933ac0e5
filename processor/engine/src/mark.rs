//! What every commit says about a partition's progress, in the three places it is kept.
//!
//! - in the **store**: [`Progress`], applied in the same atomic batch as the state;
//! - in the **changelog**: [`Mark`], as headers of the last record of each partition of each transaction;
//! - in the **group's offsets**: [`CommitMetadata`], the metadata string of the committed offset.
//!
//! Engine rule 1: the sequence number grows by one with every transaction that touches the partition and
//! is the only thing that decides whether a commit happened; offsets may stand still.

/// Header that carries [`Mark::next_offset`], decimal text.
pub const NEXT_OFFSET_HEADER: &str = "next-offset";
/// Header that carries [`Mark::sequence`], decimal text.
pub const SEQUENCE_HEADER: &str = "sequence";

/// How far a partition's state has come, as written to the changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Next offset of the input partition: everything before it is applied.
    pub next_offset: i64,
    /// Number of transactions that have touched the partition since it was first created.
    pub sequence: u64,
}

/// A partition's row in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// How far the state has come.
    pub mark: Mark,
    /// Next offset of the changelog partition to replay from.
    pub changelog_next: i64,
    /// Epoch of the leader that wrote the last applied input record, if known.
    pub leader_epoch: Option<i32>,
    /// Id of the input topic the state was built from.
    pub input_topic_id: String,
    /// Id of the changelog topic.
    pub changelog_topic_id: String,
    /// When the row was written, ms since 1970. A store left alone for longer than the changelog keeps its
    /// tombstones must not be brought up to date by replaying: deleted keys would come back (KAFKA-19943).
    pub updated_at_ms: u64,
}

/// The metadata string of a committed offset: `v1;<sequence>;<writer>;<input topic id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitMetadata {
    /// See [`Mark::sequence`].
    pub sequence: u64,
    /// When the pair of producers that wrote it was built (hexadecimal ms since 1970): for a person who looks at the
    /// offsets. Never compared: two owners cannot both commit the same sequence number of a partition.
    pub writer: String,
    /// Id of the input topic.
    pub input_topic_id: String,
}

impl CommitMetadata {
    /// The string to commit.
    pub fn encode(&self) -> String {
        format!("v1;{};{};{}", self.sequence, self.writer, self.input_topic_id)
    }

    /// Reads a committed string; `None` for one this engine did not write (set by hand, another program).
    pub fn decode(text: &str) -> Option<Self> {
        let mut fields = text.split(';');
        if fields.next()? != "v1" {
            return None;
        }
        let sequence = fields.next()?.parse().ok()?;
        let writer = fields.next()?.to_owned();
        let input_topic_id = fields.next()?.to_owned();
        fields.next().is_none().then_some(Self { sequence, writer, input_topic_id })
    }
}

/// Reads a [`Mark`] from a changelog record's headers; `None` where it has none.
pub fn from_headers(headers: &dyn crate::cluster::Headers) -> Option<Mark> {
    let (mut next_offset, mut sequence) = (None, None);
    headers.for_each(&mut |name, value| {
        let text = std::str::from_utf8(value).ok();
        match name {
            NEXT_OFFSET_HEADER => next_offset = text.and_then(|text| text.parse().ok()),
            SEQUENCE_HEADER => sequence = text.and_then(|text| text.parse().ok()),
            _ => {}
        }
    });
    Some(Mark { next_offset: next_offset?, sequence: sequence? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_metadata_survives_the_round_trip_and_refuses_foreign_text() {
        let metadata = CommitMetadata { sequence: 7, writer: "ab".into(), input_topic_id: "T".into() };
        assert_eq!(CommitMetadata::decode(&metadata.encode()), Some(metadata));
        for foreign in ["", "x", "v1", "v1;x;y;z", "v1;1;w;t;more", "v2;1;w;t"] {
            assert_eq!(CommitMetadata::decode(foreign), None, "{foreign}");
        }
    }
}
