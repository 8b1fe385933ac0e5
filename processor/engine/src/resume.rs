//! The pure decision where an assigned partition starts, or why it is refused.
//!
//! Guards invariant 6 (fail closed) and engine rules 2 and 5: the state's own mark decides, never the
//! group's offset; what the state cannot explain is refused with a code and a remedy. Called only after
//! the changelog has been replayed to its end, so `state` is as new as Kafka itself.

use crate::cluster::{CommittedOffset, LogEnds};
use crate::failure::Stop;
use crate::mark::{CommitMetadata, Mark};

/// Everything known about a partition at the moment it could start.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// `topic-partition` for messages.
    pub input: &'a str,
    /// Name of the changelog topic for messages.
    pub changelog: &'a str,
    /// The state's mark after replaying the changelog; `None` when neither store nor changelog has one.
    pub state: Option<Mark>,
    /// Stable committed offset of the group, read *before* the changelog's end was.
    pub committed: Option<&'a CommittedOffset>,
    /// Ends of the input log.
    pub ends: LogEnds,
    /// Id of the input topic as it is now.
    pub input_topic_id: &'a str,
    /// Whether an operator accepts an input whose first records are gone.
    pub accept_truncated_input: bool,
}

/// Where a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Mark to go on from.
    pub mark: Mark,
    /// Input offsets between the group's offset and the mark: already applied, recognised and skipped.
    pub recognised: u64,
}

/// Decides where to start.
///
/// # Errors
/// A [`Stop`] with one of the codes of `docs/OPERATIONS.md`.
pub fn resume(found: &Found<'_>) -> Result<Resume, Stop> {
    let written = found.committed.and_then(|committed| CommitMetadata::decode(&committed.metadata));
    if let Some(metadata) = &written
        && metadata.input_topic_id != found.input_topic_id
    {
        return Err(topic_recreated(found));
    }
    match found.state {
        None => fresh(found, written.as_ref()),
        Some(mark) => known(found, mark, written.as_ref()),
    }
}

/// Neither store nor changelog knows the partition: only right for one that was never processed.
fn fresh(found: &Found<'_>, written: Option<&CommitMetadata>) -> Result<Resume, Stop> {
    if written.is_some_and(|metadata| metadata.sequence > 0) {
        return Err(changelog_lost(found, 0));
    }
    let start = found.ends.start;
    if let Some(committed) = found.committed
        && committed.offset > start
    {
        return Err(offset_ahead(found, committed.offset, start));
    }
    if start > 0 && !found.accept_truncated_input {
        return Err(Stop {
            code: "INPUT_TRUNCATED",
            what: format!(
                "{} begins at offset {start}: its first records are gone and no state covers them",
                found.input
            ),
            remedy:
                "have the connector take a new complete snapshot into a topic that keeps its records, and start over \
                     there; or, if the records still present begin with a complete snapshot, start once with \
                     --accept-truncated-input"
                    .into(),
        });
    }
    Ok(Resume { mark: Mark { next_offset: start, sequence: 0 }, recognised: 0 })
}

/// The state has a mark: it decides, and the group's offset and the log must be explicable by it.
fn known(found: &Found<'_>, mark: Mark, written: Option<&CommitMetadata>) -> Result<Resume, Stop> {
    let Some(committed) = found.committed else {
        return Err(Stop {
            code: "GROUP_OFFSETS_MISSING",
            what: format!("the group has no offset for {} although its state has come to offset {}", found.input, mark.next_offset),
            remedy: "check that --application-id is right; if the group's offsets expired or were deleted, reset them to \
                     the beginning (kafka-consumer-groups --reset-offsets --to-earliest): everything applied is recognised"
                .into(),
        });
    };
    if let Some(metadata) = written
        && metadata.sequence > mark.sequence
    {
        return Err(changelog_lost(found, mark.sequence));
    }
    if committed.offset > mark.next_offset {
        return Err(offset_ahead(found, committed.offset, mark.next_offset));
    }
    if mark.next_offset > found.ends.high_watermark {
        return Err(Stop {
            code: "INPUT_SHORTER_THAN_STATE",
            what: format!(
                "{} ends at offset {}, but its state has already applied everything before {}",
                found.input, found.ends.high_watermark, mark.next_offset
            ),
            remedy:
                "the brokers lost acknowledged records or the topic was created again; have the connector take a new \
                     complete snapshot into a new topic and rebuild with a new --topic-prefix and --application-id"
                    .into(),
        });
    }
    if mark.next_offset < found.ends.start {
        return Err(Stop {
            code: "INPUT_TRUNCATED",
            what: format!(
                "{} begins at offset {}, but its state has come only to offset {}: records between were removed unread",
                found.input, found.ends.start, mark.next_offset
            ),
            remedy:
                "raise the topic's retention; have the connector take a new complete snapshot into a new topic and \
                     rebuild with a new --topic-prefix and --application-id"
                    .into(),
        });
    }
    let recognised = u64::try_from(mark.next_offset - committed.offset).unwrap_or(0);
    Ok(Resume { mark, recognised })
}

fn topic_recreated(found: &Found<'_>) -> Stop {
    Stop {
        code: "INPUT_TOPIC_RECREATED",
        what: format!(
            "{} belongs to a topic that was deleted and created again since the group last committed",
            found.input
        ),
        remedy:
            "its offsets mean something else now; have the connector take a new complete snapshot and rebuild with a \
                 new --topic-prefix and --application-id"
                .into(),
    }
}

fn changelog_lost(found: &Found<'_>, state_sequence: u64) -> Stop {
    Stop {
        code: "CHANGELOG_BEHIND",
        what: format!(
            "the group's offset of {} was committed by a later transaction than the last one in changelog {} (number {state_sequence})",
            found.input, found.changelog
        ),
        remedy:
            "the changelog lost records or was deleted; restore it from a backup, or rebuild from the source with a \
                 new --topic-prefix and --application-id"
                .into(),
    }
}

fn offset_ahead(found: &Found<'_>, committed: i64, next: i64) -> Stop {
    Stop {
        code: "GROUP_OFFSET_AHEAD",
        what: format!(
            "the group's offset of {} is {committed}, but only everything before {next} is applied: records would be skipped",
            found.input
        ),
        remedy:
            "offsets were moved forward by hand or the state is another application's; reset them to the beginning \
                 (kafka-consumer-groups --reset-offsets --to-earliest): everything applied is recognised"
                .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: LogEnds = LogEnds { start: 0, high_watermark: 100 };

    fn committed(offset: i64, sequence: Option<u64>) -> CommittedOffset {
        let metadata = sequence.map_or_else(String::new, |sequence| {
            CommitMetadata { sequence, writer: "w".into(), input_topic_id: "T".into() }.encode()
        });
        CommittedOffset { offset, metadata }
    }

    fn found(state: Option<(i64, u64)>, committed: Option<&CommittedOffset>, ends: LogEnds) -> Found<'_> {
        Found {
            input: "in-0",
            changelog: "log",
            state: state.map(|(next_offset, sequence)| Mark { next_offset, sequence }),
            committed,
            ends,
            input_topic_id: "T",
            accept_truncated_input: false,
        }
    }

    fn code(found: &Found<'_>) -> &'static str {
        resume(found).unwrap_err().code
    }

    #[test]
    fn a_partition_never_processed_starts_at_the_beginning() {
        let start = resume(&found(None, None, ENDS)).unwrap();
        assert_eq!(start, Resume { mark: Mark { next_offset: 0, sequence: 0 }, recognised: 0 });
        let by_hand = committed(0, None);
        assert_eq!(resume(&found(None, Some(&by_hand), ENDS)).unwrap(), start);
    }

    #[test]
    fn offsets_reset_to_the_beginning_are_recognised_and_skipped() {
        let reset = committed(0, None);
        let start = resume(&found(Some((40, 9)), Some(&reset), ENDS)).unwrap();
        assert_eq!(start, Resume { mark: Mark { next_offset: 40, sequence: 9 }, recognised: 40 });
    }

    #[test]
    fn offsets_moved_forward_are_refused() {
        let forward = committed(41, None);
        assert_eq!(code(&found(Some((40, 9)), Some(&forward), ENDS)), "GROUP_OFFSET_AHEAD");
        assert_eq!(code(&found(None, Some(&forward), ENDS)), "GROUP_OFFSET_AHEAD");
    }

    #[test]
    fn a_changelog_that_lost_its_tail_is_refused_even_where_offsets_agree() {
        let newer = committed(40, Some(10));
        assert_eq!(code(&found(Some((40, 9)), Some(&newer), ENDS)), "CHANGELOG_BEHIND");
        assert_eq!(code(&found(None, Some(&newer), ENDS)), "CHANGELOG_BEHIND");
    }

    #[test]
    fn truncated_input_is_refused_with_and_without_state() {
        let cut = LogEnds { start: 50, high_watermark: 100 };
        let old = committed(40, Some(9));
        assert_eq!(code(&found(Some((40, 9)), Some(&old), cut)), "INPUT_TRUNCATED");
        assert_eq!(code(&found(None, None, cut)), "INPUT_TRUNCATED");
        let accepted = Found { accept_truncated_input: true, ..found(None, None, cut) };
        assert_eq!(resume(&accepted).unwrap().mark.next_offset, 50);
    }

    #[test]
    fn an_input_shorter_than_the_state_is_refused() {
        let short = LogEnds { start: 0, high_watermark: 30 };
        let same = committed(40, Some(9));
        assert_eq!(code(&found(Some((40, 9)), Some(&same), short)), "INPUT_SHORTER_THAN_STATE");
    }

    #[test]
    fn expired_group_offsets_are_refused_while_state_exists() {
        assert_eq!(code(&found(Some((40, 9)), None, ENDS)), "GROUP_OFFSETS_MISSING");
    }

    #[test]
    fn a_recreated_input_topic_is_refused() {
        let same = committed(40, Some(9));
        let other = Found { input_topic_id: "U", ..found(Some((40, 9)), Some(&same), ENDS) };
        assert_eq!(code(&other), "INPUT_TOPIC_RECREATED");
    }
}
