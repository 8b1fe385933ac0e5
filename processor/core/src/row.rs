//! What is known of one transaction id: its contribution and its position.
//!
//! Owns the row's two forms: a compact binary value in the store and the JSON record in the changelog. Knows no
//! order: which of two positions is newer depends on the partition's [`crate::Generations`].

use schemas::{Content, DecodeError, GoodId, GoodType, Scale, TransactionRecord};

use crate::encoding::{Damaged, push, push_signed, push_text, take, take_signed, take_text};

/// The state of one transaction id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What the row contributes now. `None` is a marker: deleted, or seen only in events that had to be refused. It
    /// is kept so that older events, should they come again, are recognised.
    pub content: Option<Content>,
    /// The snapshot generation the row was last seen in, named by its snapshot's lsn; 0 = before any snapshot. With
    /// `streaming` and `lsn` this is the row's position.
    pub generation: u64,
    /// Whether the position comes from a streamed event (true) or from a snapshot (false).
    pub streaming: bool,
    /// WAL position of the last applied event, in bytes.
    pub lsn: u64,
    /// The last commit the connector had seen when it sent the last applied event (first of `source.sequence`).
    pub commit_lsn: Option<u64>,
    /// `source.ts_ms` of the event the position comes from, ms since 1970.
    pub ts_ms: i64,
    /// `source.ts_ms` of the last incremental snapshot record applied, ms since 1970.
    pub incremental_ts_ms: Option<i64>,
    /// An event since then was refused, so that `content` may not be what the row was last: what a later event leaves
    /// out cannot be taken from it.
    pub outdated: bool,
}

/// High four bits of the first byte: version of the encoding. Rows of integer goods, which are most.
const VERSION: u8 = 0x10;
/// Rows that need more flags, in a second byte.
const VERSION_EXTENDED: u8 = 0x20;
const HAS_CONTENT: u8 = 1;
const STREAMING: u8 = 2;
const HAS_COMMIT_LSN: u8 = 4;
const HAS_INCREMENTAL: u8 = 8;
/// In the second byte: the good is a text.
const TEXT_GOOD: u8 = 1;
/// In the second byte: a later event was refused.
const OUTDATED: u8 = 2;

impl Row {
    /// Appends the value kept in the store: a version and flag byte, a second one for what only some rows have, then
    /// variable-length integers, and a text with its length before it. Generation and commit lsn are written as
    /// distances from the lsn, where they are short.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let is_text = matches!(&self.content, Some(Content { good_id: GoodId::Text(_), .. }));
        let more = flag(is_text, TEXT_GOOD) | flag(self.outdated, OUTDATED);
        let version = if more == 0 { VERSION } else { VERSION_EXTENDED };
        out.push(
            version
                | flag(self.content.is_some(), HAS_CONTENT)
                | flag(self.streaming, STREAMING)
                | flag(self.commit_lsn.is_some(), HAS_COMMIT_LSN)
                | flag(self.incremental_ts_ms.is_some(), HAS_INCREMENTAL),
        );
        if more != 0 {
            out.push(more);
        }
        push(out, self.lsn);
        push_signed(out, self.lsn.wrapping_sub(self.generation).cast_signed());
        push_signed(out, self.ts_ms);
        if let Some(Content { good_id, pieces }) = &self.content {
            match good_id {
                GoodId::Integer(value) => push_signed(out, *value),
                GoodId::Text(text) => push_text(out, text),
            }
            push_signed(out, *pieces);
        }
        if let Some(commit_lsn) = self.commit_lsn {
            push_signed(out, self.lsn.wrapping_sub(commit_lsn).cast_signed());
        }
        if let Some(incremental_ts_ms) = self.incremental_ts_ms {
            push_signed(out, incremental_ts_ms.wrapping_sub(self.ts_ms));
        }
    }

    /// Reads a value of the store.
    ///
    /// # Errors
    /// [`Damaged`] for anything [`Row::encode`] of this version did not write.
    pub fn decode(value: &[u8]) -> Result<Self, Damaged> {
        Self::parse(value).ok_or(Damaged { what: "row", length: value.len() })
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (&first, mut rest) = value.split_first()?;
        let input = &mut rest;
        let more = match first & 0xf0 {
            VERSION => 0,
            VERSION_EXTENDED => {
                let (more, after) = input.split_first()?;
                *input = after;
                *more
            }
            _ => return None,
        };
        if more & !(TEXT_GOOD | OUTDATED) != 0 {
            return None;
        }
        let good = |input: &mut &[u8]| match more & TEXT_GOOD {
            0 => take_signed(input).map(GoodId::Integer),
            _ => GoodId::from_text(take_text(input)?).ok(),
        };
        let lsn = take(input)?;
        let generation = lsn.wrapping_sub(take_signed(input)?.cast_unsigned());
        let ts_ms = take_signed(input)?;
        let content = match first & HAS_CONTENT {
            0 => None,
            _ => Some(Content { good_id: good(input)?, pieces: take_signed(input)? }),
        };
        let commit_lsn = match first & HAS_COMMIT_LSN {
            0 => None,
            _ => Some(lsn.wrapping_sub(take_signed(input)?.cast_unsigned())),
        };
        let incremental_ts_ms = match first & HAS_INCREMENTAL {
            0 => None,
            _ => Some(take_signed(input)?.wrapping_add(ts_ms)),
        };
        let streaming = first & STREAMING != 0;
        let outdated = more & OUTDATED != 0;
        let row = Self { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated };
        rest.is_empty().then_some(row)
    }
}

impl Row {
    /// Appends the value of the row's changelog record; pieces are in units of `scale`, which the store's form leaves to
    /// the partition's own record.
    pub fn encode_changelog(&self, scale: Scale, out: &mut Vec<u8>) {
        self.record().encode(scale, out);
    }

    /// Appends the same in Avro, behind the id of its schema.
    pub fn encode_changelog_avro(&self, good_type: GoodType, scale: Scale, schema_id: u32, out: &mut Vec<u8>) {
        self.record().encode_avro(good_type, scale, schema_id, out);
    }

    fn record(&self) -> TransactionRecord {
        let Self { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated } = self.clone();
        TransactionRecord { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated }
    }

    /// Reads the value of a row's changelog record, whose pieces must be of this scale.
    ///
    /// # Errors
    /// [`DecodeError`] for a newer format, another scale, or anything that is not such a record.
    pub fn decode_changelog(value: &[u8], scale: Scale) -> Result<Self, DecodeError> {
        let TransactionRecord { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated } =
            TransactionRecord::decode(value, scale)?;
        Ok(Self { content, generation, streaming, lsn, commit_lsn, ts_ms, incremental_ts_ms, outdated })
    }
}
