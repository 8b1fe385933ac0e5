//! Did readers see the committed log, all of it, and nothing else?

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, LiveRead, Topic};
use super::finding::{Code, Finding, find};
use super::records::place;
use crate::client::Record;

pub(super) fn check(facts: &Facts, findings: &mut Vec<Finding>) {
    for topic in facts.topics() {
        nothing_is_open(topic, findings);
        let uncommitted: BTreeSet<(i32, i64)> = places(&topic.uncommitted);
        for record in &topic.committed {
            if !uncommitted.contains(&(record.partition, record.offset)) && !is_purged(topic, record) {
                let sentence = format!("a read_uncommitted reader does not get {}", place(&topic.name, record));
                find(findings, Code::LiveVanished, sentence);
            }
        }
    }
    for live in &facts.live {
        if let Some(topic) = facts.topics().into_iter().find(|topic| topic.name == live.topic) {
            live_saw_the_log(live, topic, findings);
        }
    }
}

fn places(records: &[Record]) -> BTreeSet<(i32, i64)> {
    records.iter().map(|record| (record.partition, record.offset)).collect()
}

fn nothing_is_open(topic: &Topic, findings: &mut Vec<Finding>) {
    for (partition, ends) in &topic.ends {
        if ends.last_stable < ends.high_watermark {
            let sentence = format!(
                "{} [{partition}]: last stable offset {}, high watermark {}",
                topic.name, ends.last_stable, ends.high_watermark
            );
            find(findings, Code::OpenTransaction, sentence);
        }
    }
}

/// Whether a record lies before the start the partition has meanwhile.
fn is_purged(topic: &Topic, record: &Record) -> bool {
    topic.ends.get(&record.partition).is_some_and(|ends| record.offset < ends.start)
}

fn live_saw_the_log(live: &LiveRead, topic: &Topic, findings: &mut Vec<Finding>) {
    let after: BTreeMap<(i32, i64), &Record> =
        topic.committed.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let uncommitted = places(&topic.uncommitted);
    let mut seen: BTreeMap<i32, i64> = BTreeMap::new();
    let mut got = BTreeSet::new();
    for record in &live.records {
        let at = place(&topic.name, record);
        if let Some(before) = seen.get(&record.partition)
            && record.offset <= *before
        {
            find(findings, Code::LiveRepeated, format!("{at} came after offset {before}"));
        }
        seen.insert(record.partition, record.offset);
        got.insert((record.partition, record.offset));
        match after.get(&(record.partition, record.offset)) {
            Some(now) if *now == record => {}
            Some(_) => find(findings, Code::LiveAltered, format!("{at} is another record now")),
            None if is_purged(topic, record) || is_superseded(topic, record) => {}
            None if uncommitted.contains(&(record.partition, record.offset)) => {
                find(findings, Code::AbortedSeen, format!("{at} was shown and is not committed"));
            }
            None => find(findings, Code::LiveVanished, format!("{at} is gone")),
        }
    }
    for record in &topic.committed {
        if !got.contains(&(record.partition, record.offset)) {
            let sentence = format!("{} is committed and was never shown", place(&topic.name, record));
            find(findings, Code::LiveMissed, sentence);
        }
    }
}

/// Whether compaction may have removed a record: a newer one of its key is there.
fn is_superseded(topic: &Topic, record: &Record) -> bool {
    topic.compacted
        && topic
            .committed
            .iter()
            .any(|newer| newer.partition == record.partition && newer.offset > record.offset && newer.key == record.key)
}
