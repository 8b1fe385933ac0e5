//! Change events that cannot be applied, in between those that can.
//!
//! Owns one record of every kind that has a reason in the dead letters and concerns one event only. (A record key in another
//! form than the connector's stops the processor instead: it is no matter of one event.) Each carries its reason in a
//! header, so that the input itself tells what has to be set aside.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::workload::{TopicWork, Work};
use crate::checker::{Contribution, Facts};
use crate::client::{OutgoingRecord, Record};

/// Header that names the reason for which a record must be refused.
const POISON: &str = "poison";

/// The same of a copy: a position that is known already is recognised instead of being set aside again.
const COPY: &str = "poison-copy";

/// One record in a hundred is poison.
const SHARE: usize = 100;

/// Above the processor's default limit.
const TOO_LARGE: usize = (1 << 20) + 1;

/// Steps of the work at once, so that every kind comes up within a scenario.
const STEPS: usize = 5;

/// Every kind, in turn.
const KINDS: [&str; 18] = [
    "not-json",
    "invalid-utf8",
    "not-an-envelope",
    "value-too-large",
    "no-id",
    "key-value-disagree",
    "unknown-op",
    "truncate",
    "missing-row",
    "unknown-operation",
    "good-id-invalid",
    "pcs-invalid",
    "negative-pcs",
    "fractional-pcs",
    "pcs-out-of-range",
    "no-position",
    "unknown-snapshot-marker",
    "source-rebuilt",
];

/// A [`TopicWork`] whose every hundredth record is followed by poison in the same partition.
#[derive(Debug)]
pub struct PoisonedWork {
    /// The work.
    pub work: TopicWork,
    /// Records until the next poison.
    left: usize,
    poisoned: usize,
}

impl PoisonedWork {
    /// Poisons some work.
    pub fn new(work: TopicWork) -> Self {
        Self { work, left: SHARE, poisoned: 0 }
    }

    /// The poison that is next, behind a record whose row exists or has existed.
    fn poison(&mut self, behind: &OutgoingRecord) -> OutgoingRecord {
        let number = self.poisoned;
        self.poisoned += 1;
        let reason = KINDS.get(number % KINDS.len()).copied().unwrap_or("not-json");
        let id = format!("ffffffff-0000-4000-8000-{number:012}");
        let own = Some(format!(r#"{{"id":"{id}"}}"#).into_bytes());
        let key = match reason {
            "no-id" | "truncate" => None,
            "source-rebuilt" => behind.key.clone(),
            _ => own,
        };
        // Of the row behind which it stands, where it has to be one that is known.
        let known = behind.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let known = known.trim_start_matches(r#"{"id":""#).trim_end_matches(r#""}"#);
        let value = value(reason, if reason == "source-rebuilt" { known } else { &id });
        let headers = vec![(POISON.to_owned(), Some(reason.as_bytes().to_vec()))];
        OutgoingRecord { partition: behind.partition, timestamp_ms: None, key, value: Some(value), headers }
    }
}

impl Work for PoisonedWork {
    fn step(&mut self) -> Result<usize> {
        let mut records = Vec::new();
        for record in (0..STEPS).flat_map(|_| self.work.next_records()).collect::<Vec<_>>() {
            self.left -= 1;
            if self.left > 0 || record.value.is_none() {
                self.left = self.left.max(1);
                records.push(record);
                continue;
            }
            let poison = self.poison(&record);
            records.push(record);
            // Now and then the connector sends it again.
            let copy = self.poisoned.is_multiple_of(5).then(|| {
                let headers = poison.headers.iter().map(|(_, reason)| (COPY.to_owned(), reason.clone())).collect();
                OutgoingRecord { headers, ..poison.clone() }
            });
            records.push(poison);
            records.extend(copy);
            self.left = SHARE;
        }
        self.work.write(&records)?;
        Ok(records.len())
    }

    fn rows(&self) -> Result<BTreeMap<String, Contribution>> {
        self.work.rows()
    }

    fn seed(&self) -> u64 {
        self.work.seed()
    }
}

/// Fails unless the dead letters are exactly the poison of the input, each with its reason, and every kind occurred.
pub fn check_dead_letters(facts: &Facts) -> Result<()> {
    let text = |record: &Record, header: &str| -> Option<String> {
        Some(String::from_utf8_lossy(record.header(header)?).into_owned())
    };
    let input = |header: &str| -> BTreeMap<String, String> {
        let place = |record: &Record| format!("{} {}", record.partition, record.offset);
        facts.input.committed.iter().filter_map(|record| Some((place(record), text(record, header)?))).collect()
    };
    let (poison, copies) = (input(POISON), input(COPY));
    let letter = |record: &Record| {
        let place = [text(record, "dead-letter.partition")?, text(record, "dead-letter.offset")?].join(" ");
        Some((place, text(record, "dead-letter.reason")?))
    };
    let letters: Vec<(String, String)> = facts.dead_letters.committed.iter().filter_map(letter).collect();
    ensure!(letters.len() == facts.dead_letters.committed.len(), "a dead letter does not say where it comes from");
    let by_place: BTreeMap<String, String> = letters.iter().cloned().collect();
    ensure!(by_place.len() == letters.len(), "{} dead letters for {} places", letters.len(), by_place.len());
    let differing: Vec<String> = poison
        .keys()
        .chain(by_place.keys())
        .filter(|place| by_place.get(*place) != poison.get(*place).or_else(|| copies.get(*place)))
        .map(|place| format!("{place}: {:?} is set aside as {:?}", poison.get(place), by_place.get(place)))
        .collect();
    ensure!(differing.is_empty(), "{} of {}:\n{}", differing.len(), poison.len(), differing.join("\n"));
    eprintln!("{} poison records, {} copies, {} dead letters", poison.len(), copies.len(), by_place.len());
    let missing: Vec<&&str> = KINDS.iter().filter(|kind| !poison.values().any(|reason| reason == **kind)).collect();
    ensure!(missing.is_empty(), "the load was too short for {missing:?}");
    Ok(())
}

fn value(reason: &str, id: &str) -> Vec<u8> {
    let row = |good: &str, operation: &str, pcs: &str| {
        format!(r#"{{"id":"{id}","good_id":{good},"operation":"{operation}","pcs":{pcs}}}"#)
    };
    let right = row("7", "add", "1");
    let event = |op: &str, after: &str| envelope(op, after, "false", r#""lsn":5000"#, 1_795_333_820_306);
    let text = match reason {
        "invalid-utf8" => return vec![b'{', 0xff, 0xfe, b'}'],
        "not-an-envelope" => "[]".to_owned(),
        "value-too-large" => event("c", &right.replace('}', &format!(r#","note":"{}"}}"#, "x".repeat(TOO_LARGE)))),
        "no-id" => event("c", &right),
        "key-value-disagree" => event("c", &right.replace("ffffffff", "eeeeeeee")),
        "unknown-op" => event("x", &right),
        "truncate" => event("t", "null"),
        "missing-row" => event("c", "null"),
        "unknown-operation" => event("c", &row("7", "steal", "1")),
        "good-id-invalid" => event("c", &row("null", "add", "1")),
        "pcs-invalid" => event("c", &row("7", "add", "null")),
        "negative-pcs" => event("c", &row("7", "add", "-1")),
        "fractional-pcs" => event("c", &row("7", "add", "1.5")),
        "pcs-out-of-range" => event("c", &row("7", "add", "9223372036854775808")),
        "no-position" => envelope("c", &right, "false", r#""lsn":null"#, 1_795_333_820_306),
        "unknown-snapshot-marker" => envelope("c", &right, "sometimes", r#""lsn":5000"#, 1_795_333_820_306),
        // Older than anything the workload writes, and later by far.
        "source-rebuilt" => envelope("u", &right, "false", r#""lsn":500"#, 1_999_999_999_999),
        _ => "this is not JSON".to_owned(),
    };
    text.into_bytes()
}

fn envelope(op: &str, after: &str, snapshot: &str, lsn: &str, ts_ms: i64) -> String {
    let sequence = r#""sequence":"[\"400\",\"500\"]""#;
    format!(
        r#"{{"before":null,"after":{after},"source":{{"snapshot":"{snapshot}",{sequence},"ts_ms":{ts_ms},{lsn}}},"op":"{op}","ts_ms":{ts_ms}}}"#
    )
}
