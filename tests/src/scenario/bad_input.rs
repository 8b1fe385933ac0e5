//! Bad input of every kind lands byte for byte in the dead letters; the rest goes on.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::Job;
use crate::client::{Isolation, OutgoingRecord, Record};
use crate::stack::{Stack, wait_until};

/// A record and the reason it must be refused with.
struct Bad {
    reason: &'static str,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
}

fn key(number: u32) -> String {
    format!(r#"{{"id":"00000000-0000-4000-8000-{number:012}"}}"#)
}

/// An insert; `row` is what follows the id.
fn event(number: u32, op: &str, row: &str) -> Vec<u8> {
    let lsn = 1_000 + u64::from(number) * 8;
    format!(
        r#"{{"before":null,"after":{{"id":"00000000-0000-4000-8000-{number:012}",{row}}},"source":{{"snapshot":"false","sequence":"[\"900\",\"{lsn}\"]","ts_ms":1795333820306,"lsn":{lsn}}},"op":"{op}","ts_ms":1795333820669}}"#
    )
    .into_bytes()
}

fn row(good: &str, operation: &str, pieces: &str) -> String {
    format!(r#""good_id":{good},"operation":"{operation}","pcs":{pieces},"created_at":"2026-11-22T07:50:20Z""#)
}

fn bad() -> Vec<Bad> {
    let of = |number: u32, reason, op: &str, row: &str| Bad {
        reason,
        key: Some(key(number).into_bytes()),
        value: event(number, op, row),
    };
    let huge = format!("{},\"note\":\"{}\"", row("7", "add", "1"), "x".repeat(2 << 20));
    vec![
        Bad { reason: "not-json", key: Some(key(1).into_bytes()), value: b"this is not JSON".to_vec() },
        Bad { reason: "no-id", key: None, value: event(2, "c", &row("7", "add", "1")) },
        Bad { reason: "invalid-utf8", key: Some(key(3).into_bytes()), value: vec![b'{', 0xff, 0xfe, b'}'] },
        of(4, "unknown-op", "x", &row("7", "add", "1")),
        of(5, "unknown-operation", "c", &row("7", "steal", "1")),
        of(6, "negative-pcs", "c", &row("7", "add", "-1")),
        of(7, "fractional-pcs", "c", &row("7", "add", "1.5")),
        of(8, "pcs-out-of-range", "c", &row("7", "add", "9223372036854775808")),
        Bad {
            reason: "key-value-disagree",
            key: Some(key(9).into_bytes()),
            value: event(99, "c", &row("7", "add", "1")),
        },
        of(10, "value-too-large", "c", &huge),
    ]
}

/// Runs it.
pub fn is_set_aside_byte_for_byte(stack: &dyn Stack) -> Result<()> {
    let job = Job::new(stack, "bad-input")?;
    let mut programs = vec![job.start_processor(0)?, job.start_processor(1)?];
    let good = |number: u32| OutgoingRecord {
        partition: 3,
        timestamp_ms: None,
        key: Some(key(number).into_bytes()),
        value: Some(event(number, "c", &row("7", "add", "10"))),
        headers: Vec::new(),
    };
    let bad = bad();
    let mut records = vec![good(100)];
    for (number, bad) in (101..).zip(&bad) {
        records.push(OutgoingRecord {
            partition: 3,
            timestamp_ms: None,
            key: bad.key.clone(),
            value: Some(bad.value.clone()),
            headers: vec![("traceparent".to_owned(), Some(b"00-abc".to_vec()))],
        });
        records.push(good(number));
    }
    let offsets = job.kafka.write(&job.source_topic, &records)?;
    let expected = BTreeMap::from([(7, 10 * (i64::try_from(bad.len())? + 1))]);
    job.wait_for(&expected, &mut programs)?;

    let mut letters = Vec::new();
    wait_until("all dead letters", || {
        letters = job.kafka.read(&job.topic("dead-letters"), Isolation::ReadCommitted)?;
        Ok(letters.len() >= bad.len())
    })?;
    ensure!(letters.len() == bad.len(), "{} dead letters instead of {}", letters.len(), bad.len());
    for (index, bad) in bad.iter().enumerate() {
        let offset = offsets.get(1 + 2 * index).context("no offset")?;
        let letter = letters
            .iter()
            .find(|letter| text(letter, "dead-letter.offset") == Some(&offset.to_string()))
            .with_context(|| format!("no dead letter for {} at offset {offset}", bad.reason))?;
        ensure!(
            text(letter, "dead-letter.reason") == Some(bad.reason),
            "{:?} for {}",
            text(letter, "dead-letter.reason"),
            bad.reason
        );
        ensure!(text(letter, "dead-letter.topic") == Some(job.source_topic.as_str()));
        ensure!(text(letter, "dead-letter.partition") == Some("3"));
        ensure!(
            letter.key == bad.key && letter.value.as_ref() == Some(&bad.value),
            "{} is not byte for byte",
            bad.reason
        );
        ensure!(text(letter, "traceparent") == Some("00-abc"), "an original header is missing");
    }
    Ok(())
}

fn text<'a>(record: &'a Record, header: &str) -> Option<&'a str> {
    std::str::from_utf8(record.header(header)?).ok()
}
