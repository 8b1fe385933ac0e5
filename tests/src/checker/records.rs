//! The few fields of each record that are judged, read with types of our own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::facts::{Contribution, Topic};
use super::finding::{Code, Finding, find};
use crate::client::{Record, quantity, units};

/// Keys of this kind hold a partition's own state, not a row or a good.
const OWN_STATE: char = '#';

/// `<topic> [<partition>] offset <offset>`.
pub(super) fn place(topic: &str, record: &Record) -> String {
    format!("{topic} [{}] offset {}", record.partition, record.offset)
}

/// Whether a record holds a partition's own state.
pub(crate) fn is_own_state(record: &Record) -> bool {
    record.key.as_deref().and_then(<[u8]>::first).is_some_and(|byte| char::from(*byte) == OWN_STATE)
}

/// How far a partition's input was applied, as a record's headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) next_offset: i64,
    pub(super) sequence: u64,
}

impl Mark {
    /// `None` where a record has no mark.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let text = |name| std::str::from_utf8(record.header(name)?).ok();
        Some(Self { next_offset: text("next-offset")?.parse().ok()?, sequence: text("sequence")?.parse().ok()? })
    }
}

/// What the changelog ends with: the newest state of each row id. `None` = known, and contributes nothing.
pub(super) type Changelog = BTreeMap<String, Option<Contribution>>;

#[derive(Deserialize)]
struct RowState<'a> {
    good_id: Option<i64>,
    #[serde(borrow)]
    pieces: Option<&'a RawValue>,
}

/// Reads the changelog; two equal states of a row in succession mean that an event was applied twice.
pub(super) fn changelog(topic: &Topic, findings: &mut Vec<Finding>) -> Changelog {
    let mut newest = Changelog::new();
    let mut last: BTreeMap<String, &[u8]> = BTreeMap::new();
    for record in topic.committed.iter().filter(|record| !is_own_state(record)) {
        let id = record.key_text();
        let Some(value) = record.value.as_deref() else {
            last.remove(&id);
            newest.insert(id, None);
            continue;
        };
        let place = || place(&topic.name, record);
        if last.insert(id.clone(), value) == Some(value) {
            let sentence = format!("row {id} is written again without any change at {}", place());
            find(findings, Code::AppliedTwice, sentence);
        }
        match row_state(record) {
            Ok(state) => drop(newest.insert(id, state)),
            Err(what) => find(findings, Code::RecordUnreadable, format!("{what} at {}", place())),
        }
    }
    newest
}

/// What a row contributes after a changelog record; `None` = nothing.
pub(super) fn row_state(record: &Record) -> Result<Option<Contribution>, String> {
    let Some(value) = record.value.as_deref() else { return Ok(None) };
    match serde_json::from_slice(value) {
        Ok(RowState { good_id: Some(good), pieces: Some(pieces) }) => {
            let pieces = units(pieces.get()).and_then(|units| Ok(i64::try_from(units)?));
            Ok(Some(Contribution { good, pieces: pieces.map_err(|error| format!("{error:#}"))? }))
        }
        Ok(RowState { good_id: None, pieces: None }) => Ok(None),
        Ok(_) => Err("half a row".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// What the input says of one row id, in no order.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Contributions that an event states.
    pub(super) contributions: BTreeSet<Contribution>,
    /// Whether any event that could be applied names the row.
    pub(super) named: bool,
}

/// Collects what the input says; records at the `refused` places (partition, offset) are in the dead letters and say
/// nothing. What cannot be read is for the processor to refuse, not for us.
pub(super) fn input(topic: &Topic, scale: u32, refused: &BTreeSet<(i32, i64)>) -> BTreeMap<String, Said> {
    let mut said: BTreeMap<String, Said> = BTreeMap::new();
    for record in &topic.committed {
        if refused.contains(&(record.partition, record.offset)) {
            continue;
        }
        let Some(value) = record.value.as_deref().and_then(|value| serde_json::from_slice::<Value>(value).ok()) else {
            continue;
        };
        let Some(id) = record.key.as_deref().and_then(row_id) else { continue };
        let entry = said.entry(id).or_default();
        entry.named = true;
        entry.contributions.extend(value.get("after").map(|row| contributions(row, scale)).unwrap_or_default());
    }
    said
}

/// The id in a record key of the form `{"id":"…"}`.
fn row_id(key: &[u8]) -> Option<String> {
    let key: Value = serde_json::from_slice(key).ok()?;
    Some(key.get("id")?.as_str()?.to_ascii_lowercase())
}

/// What a row may contribute, in units of 10^−`scale`; nothing when it has no usable columns, more than one thing where
/// its pieces can be read in more than one way.
pub(super) fn contributions(row: &Value, scale: u32) -> Vec<Contribution> {
    let text = |name| row.get(name).and_then(Value::as_str);
    let sign = match text("operation") {
        Some("add") => 1,
        Some("remove") => -1,
        _ => return Vec::new(),
    };
    let (Some(good), Some(pcs)) = (row.get("good_id").and_then(Value::as_i64), row.get("pcs")) else {
        return Vec::new();
    };
    let signed = |units| i64::try_from(units).ok()?.checked_mul(sign);
    let pieces = quantity::of_connector(pcs, scale).into_iter().filter_map(signed);
    pieces.map(|pieces| Contribution { good, pieces }).collect()
}
