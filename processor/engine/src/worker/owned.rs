//! A state partition while this worker owns it.

use crate::changes::Changes;
use crate::cluster::CommittedOffset;
use crate::failure::Failure;
use crate::mark::{CommitMetadata, Mark, Progress};
use crate::store::PartitionStore;

/// What an owned partition is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its changelog is being replayed; its input is paused.
    Restoring(Restoring),
    /// The last look at it led to a refusal; its input is paused until the next one, at this time (ms since 1970).
    Doubted(u64),
    /// Its input is read.
    Running,
}

/// Whether the input was read to its end since the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaughtUp {
    /// No end was seen.
    NotYet,
    /// An end was seen.
    Seen,
    /// The application was told.
    Told,
}

/// A replay under way.
#[derive(Debug, Default)]
pub(super) struct Restoring {
    /// Stable committed offset, read before `end` was (engine rule 2).
    pub(super) committed: Option<CommittedOffset>,
    /// First changelog offset of this replay.
    pub(super) from: i64,
    /// High watermark of the changelog when the replay began.
    pub(super) end: i64,
    /// Next changelog offset.
    pub(super) position: i64,
    /// Last mark seen, in the store or in the changelog.
    pub(super) mark: Option<Mark>,
    /// Changes read and not yet in the store.
    pub(super) pending: Changes,
    /// Records replayed.
    pub(super) replayed: u64,
    /// Leader epoch of the last applied input record, from the store.
    pub(super) leader_epoch: Option<i32>,
}

/// One owned partition.
#[derive(Debug)]
pub(super) struct Owned<P> {
    /// Its store.
    pub(super) store: P,
    /// Restoring, doubted or running.
    pub(super) phase: Phase,
    /// Mark of the last committed transaction that touched it.
    pub(super) mark: Mark,
    /// Leader epoch belonging to `mark.next_offset`.
    pub(super) leader_epoch: Option<i32>,
    /// End of the changelog after a replay, until the first own record was seen to land exactly there
    /// (engine rule 5).
    pub(super) restored_end: Option<i64>,
    /// How far the input is read, control records included.
    pub(super) read_to: i64,
    /// End of the changelog as of the last commit (or the replay).
    pub(super) changelog_end: i64,
    /// The input was read to its end since the assignment, and the application: has it been told?
    pub(super) caught_up: CaughtUp,
    /// Broadcast records handled since the assignment.
    pub(super) broadcasts_handled: usize,
    /// The next broadcast records may be handled when `read_to` has come here: `(records, offset)`.
    pub(super) broadcast_boundary: Option<(usize, i64)>,
    /// When the store was last written, ms since 1970.
    pub(super) stored_ms: u64,
    /// Since when every look at this partition has led to a refusal, ms since 1970; see [`super::Limits::doubt`].
    pub(super) doubted_since_ms: Option<u64>,
    /// The group's offset stands below the mark and should be moved up with the next commit.
    pub(super) refresh_offset: bool,
    /// Repartition topics: records before this offset are deleted already.
    pub(super) purged_to: i64,
    /// Topic ids, recorded with every batch.
    pub(super) input_topic_id: String,
    /// See `input_topic_id`.
    pub(super) changelog_topic_id: String,
}

impl<P: PartitionStore> Owned<P> {
    /// A partition just assigned: nothing of it may be used before its replay.
    pub(super) fn new(store: P) -> Result<Self, Failure> {
        let input_topic_id = store.progress()?.map(|progress| progress.input_topic_id).unwrap_or_default();
        Ok(Self {
            store,
            phase: Phase::Restoring(Restoring { end: i64::MAX, ..Restoring::default() }),
            mark: Mark::default(),
            leader_epoch: None,
            restored_end: None,
            read_to: 0,
            changelog_end: 0,
            caught_up: CaughtUp::NotYet,
            broadcasts_handled: 0,
            broadcast_boundary: None,
            stored_ms: 0,
            doubted_since_ms: None,
            refresh_offset: false,
            purged_to: 0,
            input_topic_id,
            changelog_topic_id: String::new(),
        })
    }
}

impl<P> Owned<P> {
    /// The row to store with a batch.
    pub(super) fn progress(&self, mark: Mark, leader_epoch: Option<i32>, changelog_next: i64, now_ms: u64) -> Progress {
        Progress {
            mark,
            changelog_next,
            leader_epoch,
            input_topic_id: self.input_topic_id.clone(),
            changelog_topic_id: self.changelog_topic_id.clone(),
            updated_at_ms: now_ms,
        }
    }

    /// The row to store with what a replay has read; `None` where there is no replay.
    ///
    /// Without a mark so far (only a partition's most overwritten record carries it, and the cleaner keeps the last one)
    /// what was read is stored all the same: sequence number 0 says that the mark is yet to come.
    pub(super) fn replayed(&self, now_ms: u64) -> Option<Progress> {
        let Phase::Restoring(restoring) = &self.phase else { return None };
        let mark = restoring.mark.unwrap_or_default();
        Some(self.progress(mark, restoring.leader_epoch, restoring.position, now_ms))
    }

    /// Whether the group's offset is not that of the last transaction applied here.
    ///
    /// One set by hand carries no sequence number until it is refreshed: it does not tell whether somebody else has moved the
    /// partition on meanwhile, so it counts as if somebody had.
    pub(super) fn is_overtaken(&self, committed: Option<&CommittedOffset>) -> bool {
        let metadata = committed.and_then(|committed| CommitMetadata::decode(&committed.metadata));
        metadata.map_or(0, |metadata| metadata.sequence) != self.mark.sequence
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }
}
