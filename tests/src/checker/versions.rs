//! Do the stock deltas of each good follow each other?
//!
//! Within an epoch versions are 1, 2, 3, … without gap or repeat and `remains(v) = remains(v−1) + delta(v)`; a good stays
//! in one partition and its epochs only grow.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::facts::Topic;
use super::finding::{Code, Finding, find, report};
use super::records::{is_own_state, place};
use crate::client::{Delta, Record};

/// The newest stock delta of each good.
pub(super) type Newest = BTreeMap<i64, Delta>;

/// Newest stock delta per good of a whole, never compacted read; fails where versions or sums do not follow.
pub fn newest_of(records: &[Record]) -> Result<Newest> {
    let topic = Topic { name: "deltas".into(), committed: records.to_vec(), ..Topic::default() };
    let mut findings = Vec::new();
    let newest = check(&topic, &mut findings);
    if findings.is_empty() {
        return Ok(newest);
    }
    bail!("{}", report(&findings))
}

pub(super) fn check(topic: &Topic, findings: &mut Vec<Finding>) -> Newest {
    let mut newest: BTreeMap<i64, (i32, Delta)> = BTreeMap::new();
    for record in topic.committed.iter().filter(|record| !is_own_state(record)) {
        let place = || place(&topic.name, record);
        let delta = match parse(record) {
            Ok(delta) => delta,
            Err(what) => {
                find(findings, Code::RecordUnreadable, format!("{what} at {}", place()));
                continue;
            }
        };
        let before = newest.get(&delta.good_id).copied();
        if let Some((partition, _)) = before
            && partition != record.partition
        {
            let sentence = format!("good {} at {} was in partition {partition} before", delta.good_id, place());
            find(findings, Code::GoodInTwoPartitions, sentence);
        }
        if let Some((code, what)) = follow(before.map(|(_, delta)| delta), delta, topic.compacted) {
            find(findings, code, format!("{what} at {}", place()));
        }
        // A version that comes again does not hide the newer one, so that one repeat is one finding.
        let is_newer = before.is_none_or(|(_, old)| (old.epoch, old.version) < (delta.epoch, delta.version));
        if is_newer {
            newest.insert(delta.good_id, (record.partition, delta));
        }
    }
    newest.into_iter().map(|(good, (_, delta))| (good, delta)).collect()
}

fn parse(record: &Record) -> Result<Delta, String> {
    let key = record.key_text();
    let Some(value) = record.value.as_deref() else { return Err(format!("a tombstone for {key}")) };
    let delta: Delta =
        serde_json::from_slice(value).map_err(|error| format!("{error} in {}", String::from_utf8_lossy(value)))?;
    if delta.good_id.to_string() == key { Ok(delta) } else { Err(format!("key {key} over good {}", delta.good_id)) }
}

/// What is wrong with a stock delta behind the good's one before it. `compacted`: versions between may be gone.
pub fn follow(before: Option<Delta>, delta: Delta, compacted: bool) -> Option<(Code, String)> {
    let good = delta.good_id;
    let (version, remains) = match before {
        Some(before) if before.epoch == delta.epoch => (before.version, before.remains),
        Some(before) if before.epoch > delta.epoch => {
            return Some((Code::EpochBackwards, format!("good {good}: epoch {} after {}", delta.epoch, before.epoch)));
        }
        _ => (0, 0),
    };
    if delta.version <= version {
        return Some((Code::VersionRepeated, format!("good {good}: version {} after {version}", delta.version)));
    }
    if delta.version > version + 1 {
        return (!compacted)
            .then(|| (Code::VersionGap, format!("good {good}: version {} after {version}", delta.version)));
    }
    (remains.checked_add(delta.delta) != Some(delta.remains)).then(|| {
        let sentence =
            format!("good {good}, version {}: {remains} + {} is not {}", delta.version, delta.delta, delta.remains);
        (Code::SumBroken, sentence)
    })
}
