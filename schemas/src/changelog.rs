//! The changelog of the first step: what is known of each transaction id.
//!
//! Topic `<prefix>.transactions`, compacted. Key: the text of the id ([`RowId`]). Value: [`TransactionRecord`]; a null
//! value means the id left the state. Besides the ids one record per partition, of key [`PARTITION_KEY`],
//! holds the partition's own state, whose shape belongs to the processor's core.
//!
//! In JSON or in Avro, as the processor is told; a topic may hold both, and readers need no registry.

mod avro;

use serde_json::value::RawValue;

pub use self::avro::avro_schema;
use crate::debezium::registered::payload;
use crate::json::{self, ObjectWriter, json_object};
use crate::reader::Reader;
use crate::{Content, DecodeError, FORMAT, GoodId, RowId, Scale};

const RECORD: &str = "changelog";

/// Key of the partition's own record. `#` cannot begin an id.
pub const PARTITION_KEY: &str = "#partition";

/// The state of one transaction id: its contribution, or the mark that it was deleted, and its position.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransactionRecord {
    /// What the row contributes now; `None` = deleted, kept so that late redeliveries are recognised.
    pub content: Option<Content>,
    /// Snapshot generation in which the id was last seen, named by the lsn of its snapshot; 0 = before any snapshot.
    pub generation: u64,
    /// Whether the last applied event came from streaming (true) or from a full snapshot (false).
    pub streaming: bool,
    /// WAL position of the last applied event, in bytes.
    pub lsn: u64,
    /// WAL position of the last commit the connector had seen before (first of `source.sequence`).
    pub commit_lsn: Option<u64>,
    /// `source.ts_ms` of the last applied event, ms since 1970.
    pub ts_ms: i64,
    /// `source.ts_ms` of the last incremental snapshot record applied, ms since 1970: the connector's own clock.
    pub incremental_ts_ms: Option<i64>,
    /// A later event was refused: what the content says may not be what the row was last.
    pub outdated: bool,
}

json_object! {
    struct Wire<'a> {
        format: u64,
        good_id: Option<GoodId>,
        pieces: Option<&'a RawValue>,
        generation: u64,
        streaming: bool,
        lsn: u64,
        commit_lsn: Option<u64>,
        ts_ms: i64,
        incremental_ts_ms: Option<i64>,
        outdated: bool,
    }
}

impl TransactionRecord {
    /// Appends the record's value; pieces are in units of `scale`.
    pub fn encode(&self, scale: Scale, out: &mut Vec<u8>) {
        let mut writer = ObjectWriter::new(out)
            .integer("format", FORMAT)
            .good_or_null("good_id", self.content.as_ref().map(|content| &content.good_id))
            .quantity_or_null("pieces", self.content.as_ref().map(|content| content.pieces), scale)
            .integer("generation", self.generation)
            .boolean("streaming", self.streaming)
            .integer("lsn", self.lsn)
            .integer_or_null("commit_lsn", self.commit_lsn)
            .integer("ts_ms", self.ts_ms);
        if let Some(ts_ms) = self.incremental_ts_ms {
            writer = writer.integer("incremental_ts_ms", ts_ms);
        }
        if self.outdated {
            writer = writer.boolean("outdated", true);
        }
        writer.finish();
    }

    /// Reads a record's value, in either form; its pieces must be of this scale.
    pub fn decode(value: &[u8], scale: Scale) -> Result<Self, DecodeError> {
        if let Some(payload) = payload(value) {
            return Self::decode_avro(payload, scale);
        }
        match std::str::from_utf8(value).ok().and_then(|text| Self::read_as_written(text, scale)) {
            Some(record) => Ok(record),
            None => Self::decode_any(value, scale),
        }
    }

    /// Exactly the form that [`encode`](Self::encode) writes; a restore reads millions of them.
    fn read_as_written(text: &str, scale: Scale) -> Option<Self> {
        let mut reader = Reader::new(text);
        reader.literal(r#"{"format":1,"good_id":"#)?;
        let good_id = reader.good_or_null()?;
        reader.literal(r#","pieces":"#)?;
        let pieces: Option<i64> = reader.quantity_or_null(scale)?;
        reader.literal(r#","generation":"#)?;
        let generation = reader.number()?;
        reader.literal(r#","streaming":"#)?;
        let streaming = reader.literal("true").is_some();
        if !streaming {
            reader.literal("false")?;
        }
        reader.literal(r#","lsn":"#)?;
        let lsn = reader.number()?;
        reader.literal(r#","commit_lsn":"#)?;
        let commit_lsn = reader.number_or_null()?;
        reader.literal(r#","ts_ms":"#)?;
        let ts_ms = reader.number()?;
        let incremental_ts_ms = match reader.literal(r#","incremental_ts_ms":"#) {
            Some(()) => Some(reader.number()?),
            None => None,
        };
        let outdated = reader.literal(r#","outdated":true"#).is_some();
        reader.expect(b'}')?;
        let content = match (good_id, pieces) {
            (Some(good_id), Some(pieces)) => Some(Content { good_id, pieces }),
            (None, None) => None,
            _ => return None,
        };
        let record = Self { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated };
        reader.is_at_end().then_some(record)
    }

    /// Any other JSON with these fields.
    fn decode_any(value: &[u8], scale: Scale) -> Result<Self, DecodeError> {
        let wire: Wire<'_> = json::read(RECORD, value)?;
        json::check_format(RECORD, wire.format)?;
        json::required(RECORD, "format", wire.format)?;
        let good_id = json::required(RECORD, "good_id", wire.good_id)?;
        let pieces = json::required(RECORD, "pieces", wire.pieces)?;
        let content = match (good_id, pieces) {
            (Some(good_id), Some(pieces)) => {
                Some(Content { good_id, pieces: scale.read(RECORD, "pieces", pieces.get())? })
            }
            (None, None) => None,
            _ => return Err(DecodeError::malformed(RECORD, "only one of good_id and pieces is null")),
        };
        Ok(Self {
            content,
            generation: json::required(RECORD, "generation", wire.generation)?,
            streaming: json::required(RECORD, "streaming", wire.streaming)?,
            lsn: json::required(RECORD, "lsn", wire.lsn)?,
            commit_lsn: wire.commit_lsn.flatten(),
            ts_ms: json::required(RECORD, "ts_ms", wire.ts_ms)?,
            incremental_ts_ms: wire.incremental_ts_ms.flatten(),
            outdated: wire.outdated.unwrap_or_default(),
        })
    }
}

/// What a changelog key names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChangelogKey {
    /// The state of one transaction id.
    Transaction(RowId),
    /// The partition's own record.
    Partition,
}

impl ChangelogKey {
    /// Appends the key's text.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Transaction(id) => id.encode(out),
            Self::Partition => out.extend_from_slice(PARTITION_KEY.as_bytes()),
        }
    }

    /// Reads a key; anything but the two known forms is an error.
    pub fn decode(key: &[u8]) -> Result<Self, DecodeError> {
        if key == PARTITION_KEY.as_bytes() {
            return Ok(Self::Partition);
        }
        RowId::from_text(key).map(Self::Transaction).ok_or_else(|| {
            DecodeError::key(RECORD, format!("neither an id nor {PARTITION_KEY}: {}", crate::rejection::excerpt(key)))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = TransactionRecord> {
        let good = prop_oneof![
            any::<i64>().prop_map(GoodId::from),
            "[a-z0-9-]{1,36}".prop_map(|it| GoodId::from_text(&it).unwrap())
        ];
        let content = prop::option::of((good, any::<i64>()));
        (content, any::<(u64, bool, u64, i64)>(), any::<(Option<u64>, Option<i64>, bool)>()).prop_map(
            |(content, (generation, streaming, lsn, ts_ms), (commit_lsn, incremental_ts_ms, outdated))| {
                TransactionRecord {
                    content: content.map(|(good_id, pieces)| Content { good_id, pieces }),
                    generation,
                    streaming,
                    lsn,
                    commit_lsn,
                    ts_ms,
                    incremental_ts_ms,
                    outdated,
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// What was written is read the quick way, and whatever the quick way takes, `serde_json` reads alike.
        #[test]
        fn the_quick_way_reads_what_serde_json_reads(
            record in record(),
            scale in crate::quantity::tests::any_scale(),
            at in any::<prop::sample::Index>(),
            byte in prop::sample::select(b"\"{},.-+019enul \\".to_vec()),
            kind in 0..3,
        ) {
            let read = |value: &[u8]| TransactionRecord::read_as_written(std::str::from_utf8(value).unwrap(), scale);
            let mut value = Vec::new();
            record.encode(scale, &mut value);
            prop_assert_eq!(read(&value), Some(record.clone()));
            let at = at.index(value.len());
            match kind {
                0 => value[at] = byte,
                1 => _ = value.remove(at),
                _ => value.insert(at, byte),
            }
            if let Some(read) = read(&value) {
                let text = String::from_utf8_lossy(&value);
                prop_assert_eq!(TransactionRecord::decode_any(&value, scale), Ok(read), "{}", text);
            }
        }
    }
}
