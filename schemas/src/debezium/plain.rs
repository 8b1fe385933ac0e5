//! The one form of envelope that a connector writes all day, read in one pass.
//!
//! `serde_json` is the authority on what a value means; reading every event through it costs 12,500 instructions, more
//! than all the rest of a change event together, and this here 7,500. It takes compact JSON whose strings need no
//! unescaping, in any order of fields, and leaves everything else (white space, escapes, nested unknown fields, a field
//! given twice, a wrapper, anything malformed) to `serde_json` by answering `None`. So it never refuses and never
//! guesses: whatever it does take, `serde_json` would take and read alike, which a property test holds against it.

use super::Columns;
use super::value::{RawEnvelope, RawRow, RawSource};
use crate::reader::{Reader, set};

/// Reads an envelope in its plain form; `None` says nothing about the text.
pub(super) fn read<'a>(columns: &Columns, text: &'a str) -> Option<RawEnvelope<'a>> {
    let mut reader = Reader::new(text);
    let mut envelope = RawEnvelope::default();
    let (mut before, mut after, mut source) = (false, false, false);
    reader.object(|reader, name| match name {
        "before" => {
            once(&mut before)?;
            if !reader.null() {
                reader.object(|reader, name| reader.field(envelope.before.column(columns, name)))?;
            }
            Some(())
        }
        "after" => {
            once(&mut after)?;
            if !reader.null() {
                let mut row = RawRow::default();
                reader.object(|reader, name| {
                    reader.field(match name {
                        name if name == columns.good_id() => Some(&mut row.good_id),
                        name if name == columns.operation() => Some(&mut row.operation),
                        name if name == columns.pcs() => Some(&mut row.pcs),
                        name => row.id.column(columns, name),
                    })
                })?;
                row.share(columns);
                envelope.after = Some(row);
            }
            Some(())
        }
        "source" => {
            once(&mut source)?;
            if !reader.null() {
                let mut block = RawSource::default();
                reader.object(|reader, name| {
                    reader.field(match name {
                        "sequence" => return set(&mut block.sequence, sequence(reader)?),
                        "snapshot" => Some(&mut block.snapshot),
                        "lsn" => Some(&mut block.lsn),
                        "ts_ms" => Some(&mut block.ts_ms),
                        _ => None,
                    })
                })?;
                envelope.source = Some(block);
            }
            Some(())
        }
        // Inside a wrapper is another envelope.
        "payload" => None,
        name => reader.field((name == "op").then_some(&mut envelope.op)),
    })?;
    reader.is_at_end().then_some(envelope)
}

/// Refuses a second time.
fn once(seen: &mut bool) -> Option<()> {
    (!std::mem::replace(seen, true)).then_some(())
}

/// `source.sequence`: null, or a string with the escaped array of two in it, each null or a string of digits.
fn sequence<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    reader.taken(|reader| {
        if reader.null() {
            return Some(());
        }
        reader.literal("\"[")?;
        escaped_element(reader)?;
        reader.expect(b',')?;
        escaped_element(reader)?;
        reader.literal("]\"")
    })
}

fn escaped_element(reader: &mut Reader<'_>) -> Option<()> {
    if reader.null() {
        return Some(());
    }
    reader.literal("\\\"")?;
    reader.digits()?;
    reader.literal("\\\"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::IdType;
    use crate::debezium::Names;
    use crate::debezium::value::parse_any;

    const EVENT: &str = r#"{"before":{"id":"5","good_id":0},"after":{"id":"63703d1f-0000-4000-8000-000000000001","good_id":-7,"operation":"add","pcs":5,"created_at":"2026-11-22T09:49:46.480123Z"},"source":{"version":"3.6.0.Final","name":"lager-größe","ts_ms":1795333786480,"snapshot":"false","db":"goods_db","sequence":"[\"26370000\",\"26370200\"]","txId":730,"lsn":26370200,"xmin":null,"wal":true},"transaction":null,"op":"u","ts_ms":1795333786480}"#;

    /// What the reader takes `serde_json` takes, and reads alike, with an id of one column and of several.
    fn agrees(text: &str) -> bool {
        let several = ["id", "created_at", "line"].map(str::to_owned).to_vec();
        let several = Names { id: several, id_type: IdType::Key, ..Names::default() };
        [Columns::default(), Columns::new(several).unwrap()].iter().all(|columns| {
            read(columns, text)
                .is_none_or(|envelope| parse_any(columns, text).is_ok_and(|other| other == Some(envelope)))
        })
    }

    #[test]
    fn the_plain_form_is_read() {
        let envelope = read(&Columns::default(), EVENT).unwrap();
        assert_eq!(envelope.before, [Some("\"5\"")].into_iter().collect());
        assert_eq!(envelope.after.as_ref().and_then(|row| row.good_id), Some("-7"));
        assert_eq!(envelope.source.as_ref().and_then(|source| source.lsn), Some("26370200"));
        assert!(agrees(EVENT));
        for nulls in [r#"{"before":null,"after":null,"source":null,"op":null}"#, "{}", r#"{"after":{},"source":{}}"#] {
            assert!(read(&Columns::default(), nulls).is_some() && agrees(nulls), "{nulls}");
        }
    }

    #[test]
    fn everything_else_is_left_to_serde_json() {
        for text in [
            "",
            "null",
            "[]",
            r#"{"op":"c"} "#,
            r#"{ "op":"c"}"#,
            r#"{"op":"c","op":"d"}"#,
            r#"{"source":{"lsn":1,"lsn":2}}"#,
            r#"{"after":null,"after":{}}"#,
            r#"{"payload":null}"#,
            r#"{"op":"\u0063"}"#,
            r#"{"after":{"pcs":5.0}}"#,
            r#"{"after":{"pcs":05}}"#,
            r#"{"after":{"pcs":-}}"#,
            r#"{"x":[1]}"#,
            r#"{"x":+1}"#,
            r#"{"op":"c",}"#,
            "{\"op\":\"\t\"}",
        ] {
            assert_eq!(read(&Columns::default(), text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Of an event with some bytes replaced, removed, doubled or moved.
        #[test]
        fn what_it_takes_serde_json_reads_alike(
            edits in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
            bytes in prop::collection::vec(prop::sample::select(b"\"\\{}[]:,.-+0159eEnull\x00\x1f \x7f\xc3".to_vec()), 4),
        ) {
            let mut text = EVENT.as_bytes().to_vec();
            for ((kind, at, other), byte) in edits.iter().zip(bytes) {
                let (at, other) = (at.index(text.len()), other.index(text.len()));
                match kind {
                    0 => text[at] = byte,
                    1 => _ = text.remove(at),
                    2 => text.insert(at, byte),
                    _ => {
                        let (from, to) = (at.min(other), at.max(other));
                        let part = text[from..to].to_vec();
                        text.splice(to..to, part);
                    }
                }
            }
            if let Ok(text) = std::str::from_utf8(&text) {
                prop_assert!(agrees(text), "{text}");
            }
        }
    }
}
