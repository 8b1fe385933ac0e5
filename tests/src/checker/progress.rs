//! Do the group's offsets and what was written for them say the same?
//!
//! Every transaction carries the next offset of each partition it touches, with a growing sequence number, in two
//! places that only one Kafka transaction ties together: the group's offsets, and headers of the last record written.
//! At rest the two must be equal; where they are not, one was committed without the other (invariant 3).

use std::collections::BTreeMap;

use super::facts::{Facts, Topic};
use super::finding::{Code, Finding, find};
use super::records::{Mark, place};
use crate::client::GroupOffset;

pub(super) fn check(facts: &Facts, findings: &mut Vec<Finding>) {
    stage(&facts.input, &facts.changelog, &facts.input_offsets, findings);
    stage(&facts.movements, &facts.deltas, &facts.movement_offsets, findings);
}

/// One step of the processor: what it reads, and the log whose marks tell how far it came.
fn stage(input: &Topic, log: &Topic, offsets: &BTreeMap<i32, GroupOffset>, findings: &mut Vec<Finding>) {
    let marks = marks(log, findings);
    for partition in input.ends.keys() {
        let at = format!("{} [{partition}]", input.name);
        let committed = offsets.get(partition);
        agree(&at, committed, marks.get(partition).copied(), findings);
        let last = input.committed.iter().rev().find(|record| record.partition == *partition);
        let next = committed.map_or(0, |committed| committed.offset);
        if let Some(last) = last.filter(|last| last.offset >= next) {
            let sentence = format!("{at}: records up to {} are there, the group is at {next}", last.offset);
            find(findings, Code::Unconsumed, sentence);
        }
    }
}

/// The last mark of each partition.
fn marks(log: &Topic, findings: &mut Vec<Finding>) -> BTreeMap<i32, Mark> {
    let mut marks: BTreeMap<i32, Mark> = BTreeMap::new();
    for record in &log.committed {
        let Some(mark) = Mark::of(record) else { continue };
        if let Some(before) = marks.insert(record.partition, mark)
            && (mark.next_offset < before.next_offset || mark.sequence < before.sequence)
        {
            let sentence = format!(
                "offset {} (transaction {}) follows offset {} (transaction {}) at {}",
                mark.next_offset,
                mark.sequence,
                before.next_offset,
                before.sequence,
                place(&log.name, record)
            );
            find(findings, Code::ProgressBackwards, sentence);
        }
    }
    marks
}

fn agree(at: &str, committed: Option<&GroupOffset>, mark: Option<Mark>, findings: &mut Vec<Finding>) {
    let mark = mark.unwrap_or(Mark { next_offset: 0, sequence: 0 });
    let Some(committed) = committed else {
        if mark.sequence > 0 {
            let sentence = format!("{at} is applied up to {}, the group has no offset", mark.next_offset);
            find(findings, Code::OutputWithoutOffset, sentence);
        }
        return;
    };
    // Offsets set by hand have no sequence number; the next commit of the processor replaces them.
    let sequence = sequence(&committed.metadata).unwrap_or(mark.sequence);
    let sentence = || {
        format!(
            "{at}: the group is at {} (transaction {sequence}), the log at {} (transaction {})",
            committed.offset, mark.next_offset, mark.sequence
        )
    };
    // A partition that was never touched starts where its log does, with transaction 0 and no mark.
    let untouched = sequence == 0 && mark.sequence == 0;
    if sequence > mark.sequence || (committed.offset > mark.next_offset && !untouched) {
        find(findings, Code::OffsetWithoutOutput, sentence());
    } else if sequence < mark.sequence || committed.offset < mark.next_offset {
        find(findings, Code::OutputWithoutOffset, sentence());
    }
}

/// The sequence number in the metadata of an offset: `v1;<sequence>;…`.
fn sequence(metadata: &str) -> Option<u64> {
    metadata.strip_prefix("v1;")?.split(';').next()?.parse().ok()
}
