//! The envelope: what happened to one row, and where in the WAL.
//!
//! Reads only what the rule needs, borrowed from the record, and skips the rest unread. Two levels of refusal: when
//! the position is readable but the row is not, the [`RowChange`] is still given with the [`Rejection`] in its
//! content, so that the processor can mark the id as seen (a sweep must not remove a row that exists); when not even
//! that, the whole value is refused.

use serde_json::value::RawValue;

use super::id::Ids;
use super::number::{self, Integer};
use super::{Columns, Decoder, plain, row};
use crate::json::{json_object, text};
use crate::rejection::excerpt;
use crate::{Content, GoodId, GoodType, Reason, Rejection, RowId};

/// What a record of the input topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Something about one row.
    Row(RowChange),
    /// The null value that follows a delete for compaction's sake; carries nothing.
    Tombstone,
    /// A TRUNCATE (`op` = `t`): reaches one partition only, so it can only be refused ([`Reason::Truncate`]).
    Truncate,
    /// An `op` that is none of `r`, `c`, `u`, `d`, `t`: refuse it ([`Reason::UnknownOp`]).
    Other {
        /// The `op` as written (an excerpt if it is long).
        op: Box<str>,
    },
}

impl Change {
    /// The row change, or for what can only be refused the refusal; `None` for a tombstone.
    pub fn into_row(self) -> Option<Result<RowChange, Rejection>> {
        match self {
            Self::Row(row) => Some(Ok(row)),
            Self::Tombstone => None,
            Self::Truncate => {
                Some(Err(Rejection::new(Reason::Truncate, "a TRUNCATE names no rows and reaches one partition only")))
            }
            Self::Other { op } => Some(Err(Rejection::new(Reason::UnknownOp, format!("op is {op}")))),
        }
    }
}

/// One event about one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Kind of event.
    pub operation: ChangeOperation,
    /// The row, as named by the record key.
    pub id: RowId,
    /// The row's contribution from now on; `None` = deleted; `Some(Err)` = the event has to be refused although its
    /// position is known.
    pub content: Option<Result<Content, Rejection>>,
    /// Where the connector has left out a column: what the event does say. `content` is the refusal then, for whoever
    /// has nothing to complete it from.
    pub partial: Option<Box<Partial>>,
    /// Where and when.
    pub source: Source,
}

/// What stands in place of a value that the source has not told the connector: that of a large column which an
/// update left as it was, without `REPLICA IDENTITY FULL`.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// What an event says of a row when a column is [`UNAVAILABLE`]: the column is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The good, unless unavailable.
    pub good_id: Option<GoodId>,
    /// Whether pieces came, unless unavailable.
    pub adds: Option<bool>,
    /// The pieces, not negative, in units of the scale, unless unavailable.
    pub pieces: Option<i64>,
}

impl Partial {
    /// The row's contribution, if it was `before` until now. `None` where that does not say it: the operation of a row
    /// of no pieces, for it shows in their sign alone.
    pub fn complete(&self, before: &Content) -> Option<Content> {
        let pieces = match (self.adds, self.pieces) {
            (Some(adds), pieces) => signed(adds, pieces.or_else(|| before.pieces.checked_abs())?),
            (None, None) => before.pieces,
            (None, Some(0)) => 0,
            (None, Some(pieces)) => match before.pieces {
                0 => return None,
                sign => signed(sign > 0, pieces),
            },
        };
        Some(Content { good_id: self.good_id.clone().unwrap_or_else(|| before.good_id.clone()), pieces })
    }
}

/// `pieces` are not negative, so that both signs fit.
const fn signed(adds: bool, pieces: i64) -> i64 {
    if adds { pieces } else { -pieces }
}

/// Kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeOperation {
    /// `r`: the row was read by a snapshot.
    Read,
    /// `c`: inserted.
    Create,
    /// `u`: updated.
    Update,
    /// `d`: deleted.
    Delete,
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// Streaming, or which part of which kind of snapshot.
    pub snapshot: Snapshot,
    /// The change's own WAL position in bytes (full snapshots: the snapshot's). `None` only on incremental records.
    pub lsn: Option<u64>,
    /// First element of `source.sequence`: the last commit the connector had seen. Null on initial snapshots, which is
    /// how these are told from on-demand ones.
    pub commit_lsn: Option<u64>,
    /// `source.ts_ms`: when the change was committed, ms since 1970 (incremental records: the connector's clock).
    pub ts_ms: i64,
}

/// Whether, and how, an event belongs to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Snapshot {
    /// `c`, `u` and `d`, whatever `source.snapshot` says: after a cut-short blocking snapshot they carry `true`.
    Streaming,
    /// `r` of a full snapshot, not its last.
    Part,
    /// The last `r` of a full snapshot: with it the snapshot is complete.
    Last,
    /// `r` of an incremental snapshot: never a full set.
    Incremental,
}

json_object! {
    struct SourceBlock<'a> {
        snapshot: &'a RawValue,
        lsn: &'a RawValue,
        sequence: &'a RawValue,
        ts_ms: &'a RawValue,
    }
}

json_object! {
    struct Envelope<'a> {
        before: &'a RawValue,
        after: &'a RawValue,
        source: Option<SourceBlock<'a>>,
        op: &'a RawValue,
    }
}

json_object! {
    /// An envelope, plain or inside the converter's `schema`/`payload` wrapper.
    struct Document<'a> {
        before: &'a RawValue,
        after: &'a RawValue,
        source: Option<SourceBlock<'a>>,
        op: &'a RawValue,
        payload: Option<Envelope<'a>>,
    }
}

/// What is needed of an envelope, each value as it is written; see `plain` and [`parse`] for how it is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RawEnvelope<'a> {
    /// The id in `before`, to see that it agrees.
    pub(super) before: Ids<&'a str>,
    pub(super) after: Option<RawRow<'a>>,
    pub(super) source: Option<RawSource<'a>>,
    pub(super) op: Option<&'a str>,
}

/// `after`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RawRow<'a> {
    pub(super) id: Ids<&'a str>,
    pub(super) good_id: Option<&'a str>,
    pub(super) operation: Option<&'a str>,
    pub(super) pcs: Option<&'a str>,
    /// `pcs` is the text of what was no JSON number but a decimal or a text, so that every digit of it counts.
    pub(super) pcs_is_exact: bool,
}

/// `source`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RawSource<'a> {
    pub(super) snapshot: Option<&'a str>,
    pub(super) lsn: Option<&'a str>,
    pub(super) sequence: Option<&'a str>,
    pub(super) ts_ms: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    fn raw(self, columns: &Columns) -> Result<RawEnvelope<'a>, serde_json::Error> {
        let Self { before, after, source, op, .. } = self;
        let mut old: Vec<_> = columns.id_columns().iter().map(|name| (name.as_str(), None)).collect();
        row::read_or_null(before, &mut old)?;
        let names = [columns.good_id(), columns.operation(), columns.pcs()].into_iter();
        let names = names.chain(columns.id_columns().iter().map(String::as_str));
        let mut new: Vec<_> = names.map(|name| (name, None)).collect();
        let found = row::read_or_null(after, &mut new)?;
        let mut new = new.into_iter().map(|(_, value)| value);
        let [good_id, operation, pcs] = [(); 3].map(|()| new.next().flatten());
        let (before, id) = (old.into_iter().map(|(_, value)| value).collect(), new.collect());
        let raw = |value: Option<&'a RawValue>| value.map(RawValue::get);
        let block = |source: SourceBlock<'a>| RawSource {
            snapshot: raw(source.snapshot),
            lsn: raw(source.lsn),
            sequence: raw(source.sequence),
            ts_ms: raw(source.ts_ms),
        };
        let mut row = RawRow { id, good_id, operation, pcs, ..RawRow::default() };
        row.share(columns);
        Ok(RawEnvelope { before, after: found.map(|_others| row), source: source.flatten().map(block), op: raw(op) })
    }
}

/// Reads the value of the record whose key names `id`.
pub(super) fn decode(decoder: &Decoder, id: &RowId, value: Option<&[u8]>) -> Result<Change, Rejection> {
    let Some(value) = value else { return Ok(Change::Tombstone) };
    let columns = &decoder.columns;
    let change =
        parse(columns, value).and_then(|envelope| envelope.map_or(Ok(Change::Tombstone), |it| it.change(columns, id)));
    limited(value.len(), decoder.max_value_bytes, change)
}

/// What is made of a value that was read, when it has `bytes` bytes and may have `max_value_bytes`.
#[inline]
pub(super) fn limited(
    bytes: usize,
    max_value_bytes: usize,
    change: Result<Change, Rejection>,
) -> Result<Change, Rejection> {
    let too_large = (bytes > max_value_bytes).then(|| {
        let detail = format!("the value has {bytes} bytes, the limit is {max_value_bytes}");
        Rejection::new(Reason::ValueTooLarge, detail)
    });
    match (too_large, change) {
        (None, change) => change,
        // The limit is about the row; its position still counts.
        (Some(too_large), Ok(Change::Row(mut row))) => {
            row.content = Some(Err(too_large));
            row.partial = None;
            Ok(Change::Row(row))
        }
        (Some(too_large), _) => Err(too_large),
    }
}

/// Whether the value is a TRUNCATE event, the only one that has no key.
pub(super) fn is_truncate(columns: &Columns, value: Option<&[u8]>) -> bool {
    let envelope = value.and_then(|value| parse(columns, value).ok()).flatten();
    envelope.and_then(|envelope| envelope.op) == Some(r#""t""#)
}

/// The envelope; `None` for a JSON null, which older converters write for a tombstone.
pub(super) fn parse<'a>(columns: &Columns, value: &'a [u8]) -> Result<Option<RawEnvelope<'a>>, Rejection> {
    // Checked once up front: serde_json looks at the encoding only of the strings it keeps.
    let text = std::str::from_utf8(value).map_err(|error| Rejection::new(Reason::InvalidUtf8, error.to_string()))?;
    match plain::read(columns, text) {
        Some(envelope) => Ok(Some(envelope)),
        None => parse_any(columns, text),
    }
}

/// As `serde_json` reads it.
pub(super) fn parse_any<'a>(columns: &Columns, text: &'a str) -> Result<Option<RawEnvelope<'a>>, Rejection> {
    let refuse = |error: serde_json::Error| {
        let reason = if error.is_data() { Reason::NotAnEnvelope } else { Reason::NotJson };
        Rejection::new(reason, format!("{error}: {}", excerpt(text.as_bytes())))
    };
    let document: Option<Document<'a>> = serde_json::from_str(text).map_err(refuse)?;
    let Some(Document { before, after, source, op, payload, .. }) = document else { return Ok(None) };
    let envelope = match payload {
        None => Some(Envelope { before, after, source, op, ..Envelope::default() }),
        Some(payload) if before.is_none() && after.is_none() && source.is_none() && op.is_none() => payload,
        Some(_) => return Err(Rejection::new(Reason::NotAnEnvelope, "an envelope both inside and beside payload")),
    };
    envelope.map(|envelope| envelope.raw(columns)).transpose().map_err(refuse)
}

impl RawEnvelope<'_> {
    pub(super) fn change(self, columns: &Columns, id: &RowId) -> Result<Change, Rejection> {
        let Some(op) = self.op else { return Err(Rejection::new(Reason::UnknownOp, "op is missing")) };
        let operation = match op {
            r#""r""# => ChangeOperation::Read,
            r#""c""# => ChangeOperation::Create,
            r#""u""# => ChangeOperation::Update,
            r#""d""# => ChangeOperation::Delete,
            r#""t""# => return Ok(Change::Truncate),
            other => return Ok(Change::Other { op: excerpt(other.as_bytes()).into_boxed_str() }),
        };
        let Some(source) = &self.source else {
            return Err(Rejection::new(Reason::NoPosition, "source is missing"));
        };
        let source = source.position(operation)?;
        let mut content = match operation {
            ChangeOperation::Delete => {
                if self.before.is_there() {
                    self.before.same(columns, id, "before")?;
                }
                None
            }
            ChangeOperation::Read | ChangeOperation::Create | ChangeOperation::Update => Some(match &self.after {
                Some(row) => row.content_of(columns, id)?,
                None => Err(Rejection::new(Reason::MissingRow, format!("op is {op} but after is null"))),
            }),
        };
        let partial = match (&mut content, &self.after) {
            (Some(Err(rejection)), Some(row)) if rejection.reason() == Reason::UnavailableValue => {
                row.partial(columns).map_err(|other| *rejection = other).ok().map(Box::new)
            }
            _ => None,
        };
        Ok(Change::Row(RowChange { operation, id: id.clone(), content, partial, source }))
    }
}

impl RawSource<'_> {
    fn position(&self, operation: ChangeOperation) -> Result<Source, Rejection> {
        let snapshot = self.snapshot(operation)?;
        let lsn = match self.lsn {
            None | Some("null") => None,
            Some(lsn) => Some(lsn.parse().map_err(|_| no_position("lsn", lsn))?),
        };
        if lsn.is_none() && snapshot != Snapshot::Incremental {
            return Err(no_position("lsn", "null"));
        }
        let sequence = self.sequence.unwrap_or("null");
        let commit_lsn = first_of_sequence(sequence).map_err(|_| no_position("sequence", sequence))?;
        let ts_ms = self.ts_ms.unwrap_or("null");
        let ts_ms = ts_ms.parse().map_err(|_| no_position("ts_ms", ts_ms))?;
        Ok(Source { snapshot, lsn, commit_lsn, ts_ms })
    }

    fn snapshot(&self, operation: ChangeOperation) -> Result<Snapshot, Rejection> {
        let in_snapshot = match self.snapshot.unwrap_or("null") {
            r#""incremental""# => Snapshot::Incremental,
            r#""last""# | r#""last_in_data_collection""# => Snapshot::Last,
            // The marker says nothing more: an `r` that is not incremental is of a full snapshot.
            r#""first""# | r#""first_in_data_collection""# | r#""true""# | "true" | r#""false""# | "false" | "null" => {
                Snapshot::Part
            }
            other => {
                let detail = format!("source.snapshot is {}", excerpt(other.as_bytes()));
                return Err(Rejection::new(Reason::UnknownSnapshotMarker, detail));
            }
        };
        Ok(if operation == ChangeOperation::Read { in_snapshot } else { Snapshot::Streaming })
    }
}

fn no_position(field: &str, found: &str) -> Rejection {
    Rejection::new(Reason::NoPosition, format!("source.{field} is {}", excerpt(found.as_bytes())))
}

/// A `source.sequence` that is not of the known form.
struct UnreadableSequence;

/// The first element of `source.sequence`, a JSON string that holds an array of two (string or null). `None` when it
/// is null or there is no sequence (connectors before 1.6). Any other text is an error: an unreadable sequence must
/// not pass for the null that marks an initial snapshot.
fn first_of_sequence(raw: &str) -> Result<Option<u64>, UnreadableSequence> {
    if raw == "null" {
        return Ok(None);
    }
    // As the connector writes it, without unescaping: "[null,\"26370000\"]", "[\"26370336\",\"26370504\"]".
    let quick = raw.strip_prefix("\"[").and_then(|rest| rest.strip_suffix("]\"")).and_then(|rest| rest.split_once(','));
    if let Some((first, second)) = quick
        && let (Ok(first), Ok(_)) = (escaped_element(first), escaped_element(second))
    {
        return Ok(first);
    }
    let text: String = serde_json::from_str(raw).map_err(|_| UnreadableSequence)?;
    let (first, second): (Option<String>, Option<String>) =
        serde_json::from_str(&text).map_err(|_| UnreadableSequence)?;
    let element = |digits: Option<String>| digits.map(|digits| digits.parse()).transpose();
    element(second).and_then(|_: Option<u64>| element(first)).map_err(|_| UnreadableSequence)
}

/// `null` or `\"digits\"`, still escaped.
fn escaped_element(escaped: &str) -> Result<Option<u64>, UnreadableSequence> {
    if escaped == "null" {
        return Ok(None);
    }
    let digits = escaped.strip_prefix("\\\"").and_then(|rest| rest.strip_suffix("\\\"")).ok_or(UnreadableSequence)?;
    digits.parse().map(Some).map_err(|_| UnreadableSequence)
}

impl RawRow<'_> {
    /// Gives the id what was read of those of its columns that are something else, too.
    #[inline]
    pub(super) fn share(&mut self, columns: &Columns) {
        if columns.are_shared() {
            self.share_all(columns);
        }
    }

    #[cold]
    fn share_all(&mut self, columns: &Columns) {
        let (good_id, operation, pcs) = (columns.good_id(), columns.operation(), columns.pcs());
        for (name, value) in [(good_id, self.good_id), (operation, self.operation), (pcs, self.pcs)] {
            if let Some(id) = self.id.column(columns, name) {
                *id = value;
            }
        }
    }

    /// The row's contribution. Outer error: the row is another one than the key says, so nothing about it counts.
    fn content_of(&self, columns: &Columns, id: &RowId) -> Result<Result<Content, Rejection>, Rejection> {
        match self.id.same(columns, id, "after") {
            Ok(()) => Ok(self.content(columns)),
            Err(rejection) if rejection.reason() == Reason::NoId => Ok(Err(rejection)),
            Err(disagrees) => Err(disagrees),
        }
    }

    fn content(&self, columns: &Columns) -> Result<Content, Rejection> {
        let good_id = good(columns, self.good_id.unwrap_or("null"))?;
        let pieces = self.pieces(columns)?;
        let adds = adds(columns, self.operation.unwrap_or("null"))?;
        Ok(Content { good_id, pieces: signed(adds, pieces) })
    }

    /// The number of pieces, not negative, in units of the scale.
    #[inline]
    fn pieces(&self, columns: &Columns) -> Result<i64, Rejection> {
        let raw = self.pcs.unwrap_or("null");
        let quantities = columns.quantities();
        let number =
            if quantities.are_whole_numbers() { number::integer(raw) } else { quantities.read(raw, self.pcs_is_exact) };
        match number {
            Integer::Value(pieces) if pieces >= 0 => Ok(pieces),
            number => Err(no_pieces(columns, raw, number)),
        }
    }

    /// What the row says where at least one column is unavailable.
    #[cold]
    fn partial(&self, columns: &Columns) -> Result<Partial, Rejection> {
        Ok(Partial {
            good_id: available(good(columns, self.good_id.unwrap_or("null")))?,
            adds: available(adds(columns, self.operation.unwrap_or("null")))?,
            pieces: available(self.pieces(columns))?,
        })
    }
}

/// Nothing where the value is unavailable.
fn available<T>(column: Result<T, Rejection>) -> Result<Option<T>, Rejection> {
    match column {
        Err(rejection) if rejection.reason() == Reason::UnavailableValue => Ok(None),
        other => other.map(Some),
    }
}

/// The refusal of a column's value.
#[cold]
fn refusal(reason: Reason, column: &str, raw: &str, what: &str) -> Rejection {
    if text(raw).as_deref() == Some(UNAVAILABLE) {
        let detail = format!("{column} is unavailable, and nothing is stored to take it from");
        return Rejection::new(Reason::UnavailableValue, detail);
    }
    Rejection::new(reason, format!("{column} is {what}{}", excerpt(raw.as_bytes())))
}

/// The refusal of a number that pieces cannot have.
#[cold]
fn no_pieces(columns: &Columns, raw: &str, number: Integer) -> Rejection {
    let quantities = columns.quantities();
    let (reason, needed) = match number {
        Integer::Value(_) | Integer::TooSmall | Integer::Fractional { negative: true } => (Reason::NegativePcs, None),
        Integer::Fractional { negative: false } => (Reason::FractionalPcs, quantities.needed(raw)),
        Integer::TooLarge => (Reason::PcsOutOfRange, None),
        Integer::NotANumber => (Reason::PcsInvalid, None),
    };
    let what = match needed {
        Some(digits) if !quantities.scale.is_whole() => {
            format!("finer than --pieces-scale {}, it takes {digits}: ", quantities.scale)
        }
        _ => String::new(),
    };
    refusal(reason, columns.pcs(), raw, &what)
}

/// Whether pieces came.
fn adds(columns: &Columns, raw: &str) -> Result<bool, Rejection> {
    match raw {
        operation if operation == columns.add() => Ok(true),
        operation if operation == columns.remove() => Ok(false),
        other => Err(refusal(Reason::UnknownOperation, columns.operation(), other, "")),
    }
}

/// The good, of the type that the goods of this table are.
fn good(columns: &Columns, raw: &str) -> Result<GoodId, Rejection> {
    match columns.good_type() {
        GoodType::Integer => match number::integer(raw) {
            Integer::Value(value) => Ok(GoodId::Integer(value)),
            _ => Err(no_good(columns, "no 64-bit integer", raw)),
        },
        GoodType::Text => match text(raw) {
            Some(text) if text != UNAVAILABLE => {
                GoodId::from_text(&text).map_err(|why| no_good(columns, &format!("no good, because {why}"), raw))
            }
            _ => Err(no_good(columns, "no text", raw)),
        },
    }
}

#[cold]
fn no_good(columns: &Columns, what: &str, raw: &str) -> Rejection {
    refusal(Reason::GoodIdInvalid, columns.good_id(), raw, &format!("{what}: "))
}
