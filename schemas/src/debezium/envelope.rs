//! An envelope in Avro, read into the same raw texts as one in JSON.

use std::fmt::Write as _;
use std::ops::Range;

use super::id::Ids;
use super::value::{RawEnvelope, RawRow, RawSource};
use super::{Columns, number};
use crate::avro::{Field, Input, Layout, Malformed, Scalar};
use crate::{GoodType, Reason, Rejection};

/// What was read: texts one after the other, and where each lies.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    texts: String,
    before: Ids<Range<usize>>,
    after: Option<Row>,
    source: Option<Source>,
    op: Place,
}

type Place = Option<Range<usize>>;

#[derive(Debug, Default)]
struct Row {
    id: Ids<Range<usize>>,
    good_id: Place,
    operation: Place,
    pcs: Place,
    pcs_is_exact: bool,
}

#[derive(Debug, Default)]
struct Source {
    snapshot: Place,
    lsn: Place,
    sequence: Place,
    ts_ms: Place,
}

/// Reads an envelope that takes all of `payload`.
pub(super) fn read(columns: &Columns, layout: &Layout, payload: &[u8]) -> Result<Envelope, Rejection> {
    let malformed =
        |Malformed(why)| Rejection::new(Reason::NotAvro, format!("the value is not as its schema says: {why}"));
    let Some(fields) = layout.fields() else {
        return Err(Rejection::new(Reason::NotAnEnvelope, "the schema of the value is no record"));
    };
    let mut input = Input::new(payload);
    let mut envelope = Envelope::default();
    for (name, layout) in fields {
        envelope.field(columns, name, layout, &mut input).map_err(malformed)?;
    }
    if input.left() == 0 { Ok(envelope) } else { Err(malformed(Malformed("bytes are left over"))) }
}

impl Envelope {
    fn field(
        &mut self,
        columns: &Columns,
        name: &str,
        layout: &Layout,
        input: &mut Input<'_>,
    ) -> Result<(), Malformed> {
        match name {
            "before" => {
                let Some(fields) = record(layout, input)? else { return Ok(()) };
                let mut before = Ids::default();
                for (name, layout) in fields {
                    match before.column(columns, name) {
                        Some(id) => *id = self.text(layout, input)?,
                        None => input.skip(layout)?,
                    }
                }
                self.before = before;
            }
            "after" => {
                let Some(fields) = record(layout, input)? else { return Ok(()) };
                let mut row = Row::default();
                for (name, layout) in fields {
                    if let Some(id) = row.id.column(columns, name) {
                        // Of a copy, because the column may be something else, too.
                        let mut copy = *input;
                        *id = self.text(layout, &mut copy)?;
                    }
                    match &**name {
                        name if name == columns.good_id() => row.good_id = self.good(columns, layout, input)?,
                        name if name == columns.operation() => row.operation = self.text(layout, input)?,
                        name if name == columns.pcs() => (row.pcs, row.pcs_is_exact) = self.number(layout, input)?,
                        _ => input.skip(layout)?,
                    }
                }
                self.after = Some(row);
            }
            "source" => {
                let Some(fields) = record(layout, input)? else { return Ok(()) };
                let mut source = Source::default();
                for (name, layout) in fields {
                    match &**name {
                        "snapshot" => source.snapshot = self.text(layout, input)?,
                        "lsn" => source.lsn = self.text(layout, input)?,
                        "sequence" => source.sequence = self.text(layout, input)?,
                        "ts_ms" => source.ts_ms = self.text(layout, input)?,
                        _ => input.skip(layout)?,
                    }
                }
                self.source = Some(source);
            }
            "op" => self.op = self.text(layout, input)?,
            _ => input.skip(layout)?,
        }
        Ok(())
    }

    /// A value as the JSON converter writes it.
    fn text(&mut self, layout: &Layout, input: &mut Input<'_>) -> Result<Place, Malformed> {
        let scalar = input.scalar(layout)?;
        Ok(Some(self.push(scalar)))
    }

    /// A good: where goods are texts, a text is one and no number.
    fn good(&mut self, columns: &Columns, layout: &Layout, input: &mut Input<'_>) -> Result<Place, Malformed> {
        match columns.good_type() {
            GoodType::Integer => self.number(layout, input).map(|(place, _)| place),
            GoodType::Text => self.text(layout, input),
        }
    }

    /// A column with a number in it: decimals and texts are numbers, too, and exact ones.
    fn number(&mut self, layout: &Layout, input: &mut Input<'_>) -> Result<(Place, bool), Malformed> {
        let number = match input.scalar(layout)? {
            Scalar::Decimal { unscaled, scale } => number::decimal(unscaled, scale),
            Scalar::Text(text) => number::text(text),
            scalar => return Ok((Some(self.push(scalar)), false)),
        };
        let start = self.texts.len();
        self.texts.push_str(&number);
        Ok((Some(start..self.texts.len()), true))
    }

    fn push(&mut self, scalar: Scalar<'_>) -> Range<usize> {
        let start = self.texts.len();
        // Writing to a text cannot fail.
        let _ = match scalar {
            Scalar::Null => self.texts.write_str("null"),
            Scalar::Integer(value) => self.texts.write_str(itoa::Buffer::new().format(value)),
            // With a point or an exponent always, as in JSON; NaN and infinity are no numbers there either.
            Scalar::Double(value) => write!(self.texts, "{value:?}"),
            Scalar::Text(text) => self.texts.write_str(&number::quoted(text)),
            Scalar::Decimal { unscaled, scale } => self.texts.write_str(&number::decimal(unscaled, scale)),
            Scalar::Other => self.texts.write_str("{}"),
        };
        start..self.texts.len()
    }

    /// The same as texts.
    pub(super) fn raw(&self) -> RawEnvelope<'_> {
        let at = |place: &Range<usize>| self.texts.get(place.clone());
        let text = |place: &Place| place.as_ref().and_then(at);
        RawEnvelope {
            before: self.before.map(at),
            after: self.after.as_ref().map(|row| RawRow {
                id: row.id.map(at),
                good_id: text(&row.good_id),
                operation: text(&row.operation),
                pcs: text(&row.pcs),
                pcs_is_exact: row.pcs_is_exact,
            }),
            source: self.source.as_ref().map(|source| RawSource {
                snapshot: text(&source.snapshot),
                lsn: text(&source.lsn),
                sequence: text(&source.sequence),
                ts_ms: text(&source.ts_ms),
            }),
            op: text(&self.op),
        }
    }
}

/// The fields of the record that follows; `None` when it is null, or no record, which is passed by.
fn record<'l>(layout: &'l Layout, input: &mut Input<'_>) -> Result<Option<&'l [Field]>, Malformed> {
    let layout = input.variant(layout)?;
    match layout.fields() {
        Some(fields) => Ok(Some(fields)),
        None => input.skip(layout).map(|()| None),
    }
}
