//! Owns the judgement where to read a partition and what to make of its next record, as a pure state machine.
//!
//! Guards invariant 9: the target's own row says how far it is. It never trusts that row blindly, because the topic
//! behind the same name may be another one than the row was written for: deleted and written anew (a newer epoch), or
//! shortened by brokers that lost data. Offsets alone cannot tell: a rebuilt topic may be longer than the old one.
//!
//! How it is told apart, without topic ids (which the client does not expose):
//! 1. Reading starts at the **last applied record**, one below the row's offset. In the log the row was written for
//!    there is always a record at or above it: compaction removes a record only when a newer one of its key follows.
//!    So the first record read shows the log's epoch; a newer one than the row's means rebuilt: start over from the
//!    beginning. No record at all up to the end means that it is not the same log either.
//! 2. An offset beyond the end: read from the beginning, and the first record decides. A newer epoch is a rebuilt
//!    topic; the same epoch is a topic that lost records the target has already seen, which nothing here can repair.
//! 3. Reading from the beginning is always safe: the upsert's guard lets no row go backwards.
//!
//! Epochs never decrease along one log, so at its end the newest epoch of the row must have been met; if not, the
//! topic is older than the target (another cluster, a restored backup): stop rather than show nothing for ever.

use std::fmt;

/// What the target's row says about one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Newest epoch read, in ms since 1970; `None` before the first record, and in topics without epochs.
    pub epoch: Option<i64>,
    /// Every record below this offset was applied.
    pub next_offset: i64,
    /// Rows of older epochs were removed and must not come back.
    pub completed_epoch: Option<i64>,
}

/// Where to start reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the log's first record.
    Beginning,
    /// At this offset.
    Offset(i64),
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it; the partition's progress then is the one given.
    Apply(Progress),
    /// It belongs to an epoch that is over: pass it by; the progress moves on.
    Obsolete(Progress),
    /// It was applied before.
    Known,
    /// The log is not the one of the target's row: store the progress given and read from the beginning.
    StartOver(Progress),
    /// Nothing may be applied.
    Stop(Contradiction),
}

/// What to do at the end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// All is read.
    CaughtUp,
    /// The last applied record is gone: read from the beginning, where the first record decides.
    ReadFromBeginning,
    /// Nothing may be applied.
    Stop(Contradiction),
}

/// Topic and target contradict each other in a way that only an operator can resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// The topic, in the epoch the target knows, ends before what the target has applied.
    LostRecords {
        /// Epoch of the record found.
        found: Option<i64>,
        /// Epoch and offset the target has.
        progress: Progress,
    },
    /// The topic ends in an older epoch than the target's.
    OlderEpoch {
        /// Newest epoch found in the topic.
        found: i64,
        /// Epoch and offset the target has.
        progress: Progress,
    },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |epoch: &Option<i64>| epoch.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
        match self {
            Self::LostRecords { found, progress } => write!(
                formatter,
                "the target has applied everything below offset {} of epoch {}, but the topic has no such records any \
                 more (it begins with epoch {})",
                progress.next_offset,
                shown(&progress.epoch),
                shown(found),
            ),
            Self::OlderEpoch { found, progress } => write!(
                formatter,
                "the topic ends in epoch {found}, the target already has epoch {}",
                shown(&progress.epoch),
            ),
        }
    }
}

/// How the records read in this run connect to what was applied before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Every record of the log was read, from its first.
    FromBeginning,
    /// As before, but the target had an offset this log never reached: the first record decides.
    Doubtful,
    /// From the last applied record on.
    Resumed,
}

/// One partition as it is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    progress: Progress,
    reading: Reading,
    newest_seen: Option<i64>,
    seen: bool,
    at_end: bool,
}

impl Partition {
    /// Decides where to start, from the target's row and the log's first and end offset (last stable offset).
    pub fn begin(progress: Progress, low: i64, high: i64) -> (Self, Start) {
        let overlap = progress.next_offset - 1;
        let (reading, start) = if progress.next_offset > high {
            (Reading::Doubtful, Start::Beginning)
        } else if overlap < low {
            (Reading::FromBeginning, Start::Beginning)
        } else {
            (Reading::Resumed, Start::Offset(overlap))
        };
        (Self { progress, reading, newest_seen: None, seen: false, at_end: false }, start)
    }

    /// A partition that was told to start over and has its new row.
    pub fn from_beginning(progress: Progress) -> Self {
        Self { progress, reading: Reading::FromBeginning, newest_seen: None, seen: false, at_end: false }
    }

    /// Progress including all records judged [`Verdict::Apply`] or [`Verdict::Obsolete`].
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether everything there was at some moment is read.
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// Whether every record of the log was read in this run.
    pub fn read_from_beginning(&self) -> bool {
        self.reading != Reading::Resumed
    }

    /// Forgets having seen the end, so that the next end is one that was seen after this call.
    pub fn await_end(&mut self) {
        self.at_end = false;
    }

    /// The rows of epochs older than `epoch` are gone.
    pub fn complete(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Judges the record at `offset`, which carries `epoch` (`None` in topics without epochs).
    pub fn judge(&mut self, offset: i64, epoch: Option<i64>) -> Verdict {
        let newer = epoch > self.progress.epoch;
        match self.reading {
            Reading::Doubtful if newer => self.reading = Reading::FromBeginning,
            // Without epochs a shorter log can only be taken for a new one; the work clears what the old one left.
            Reading::Doubtful if epoch.is_none() => return self.start_over(None),
            Reading::Doubtful => {
                return Verdict::Stop(Contradiction::LostRecords { found: epoch, progress: self.progress });
            }
            // A partition read from its beginning before any record existed has no epoch yet; then it is no news.
            Reading::Resumed if newer && self.progress.epoch.is_some() => return self.start_over(epoch),
            Reading::Resumed | Reading::FromBeginning => {}
        }
        self.seen = true;
        self.at_end = false;
        self.newest_seen = self.newest_seen.max(epoch);
        if self.reading == Reading::Resumed && offset < self.progress.next_offset {
            return Verdict::Known;
        }
        self.progress.epoch = self.progress.epoch.max(epoch);
        self.progress.next_offset = offset + 1;
        if epoch.is_some() && epoch < self.progress.completed_epoch {
            return Verdict::Obsolete(self.progress);
        }
        Verdict::Apply(self.progress)
    }

    /// Judges the end of the partition.
    pub fn end(&mut self) -> AtEnd {
        if self.reading == Reading::Resumed && !self.seen {
            self.reading = Reading::Doubtful;
            return AtEnd::ReadFromBeginning;
        }
        if let (Some(found), Some(known)) = (self.newest_seen, self.progress.epoch)
            && found < known
        {
            return AtEnd::Stop(Contradiction::OlderEpoch { found, progress: self.progress });
        }
        self.at_end = true;
        AtEnd::CaughtUp
    }

    fn start_over(&self, epoch: Option<i64>) -> Verdict {
        Verdict::StartOver(Progress { epoch, next_offset: 0, completed_epoch: self.progress.completed_epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: i64, next_offset: i64) -> Progress {
        Progress { epoch: Some(epoch), next_offset, completed_epoch: None }
    }

    #[test]
    fn a_target_without_a_row_reads_everything_from_the_beginning() {
        let (mut partition, start) = Partition::begin(Progress::default(), 0, 10);
        assert_eq!(start, Start::Beginning);
        assert_eq!(partition.judge(3, Some(7)), Verdict::Apply(at(7, 4)));
        assert_eq!(partition.judge(5, Some(7)), Verdict::Apply(at(7, 6)));
        assert_eq!(partition.end(), AtEnd::CaughtUp);
    }

    #[test]
    fn a_row_is_resumed_at_the_last_applied_record_which_is_not_applied_twice() {
        let (mut partition, start) = Partition::begin(at(7, 6), 0, 10);
        assert_eq!(start, Start::Offset(5));
        assert_eq!(partition.judge(5, Some(7)), Verdict::Known);
        assert_eq!(partition.judge(6, Some(7)), Verdict::Apply(at(7, 7)));
    }

    #[test]
    fn a_rebuilt_topic_that_is_longer_than_the_old_one_is_read_from_the_beginning() {
        let (mut partition, _) = Partition::begin(at(7, 6), 0, 100);
        assert_eq!(partition.judge(5, Some(8)), Verdict::StartOver(at(8, 0)));
        let mut partition = Partition::from_beginning(at(8, 0));
        assert_eq!(partition.judge(0, Some(8)), Verdict::Apply(at(8, 1)));
    }

    #[test]
    fn a_rebuilt_topic_of_the_very_same_length_is_noticed_at_its_end() {
        // The new log ends in a transaction marker where the old one had its last record.
        let (mut partition, start) = Partition::begin(at(7, 6), 0, 6);
        assert_eq!(start, Start::Offset(5));
        assert_eq!(partition.end(), AtEnd::ReadFromBeginning);
        assert_eq!(partition.judge(0, Some(8)), Verdict::Apply(at(8, 1)));
    }

    #[test]
    fn a_shorter_topic_of_a_newer_epoch_is_a_rebuilt_one() {
        let (mut partition, start) = Partition::begin(at(7, 600), 0, 10);
        assert_eq!(start, Start::Beginning);
        assert_eq!(partition.judge(0, Some(8)), Verdict::Apply(at(8, 1)));
    }

    #[test]
    fn a_shorter_topic_of_the_same_epoch_lost_records_and_stops_the_sink() {
        let (mut partition, _) = Partition::begin(at(7, 600), 0, 10);
        let lost = Contradiction::LostRecords { found: Some(7), progress: at(7, 600) };
        assert_eq!(partition.judge(0, Some(7)), Verdict::Stop(lost));
    }

    #[test]
    fn an_empty_topic_says_nothing_and_is_waited_for() {
        let (mut partition, _) = Partition::begin(at(7, 600), 0, 0);
        assert_eq!(partition.end(), AtEnd::CaughtUp);
        assert_eq!(partition.progress(), at(7, 600));
        assert_eq!(partition.judge(0, Some(8)), Verdict::Apply(at(8, 1)));
    }

    #[test]
    fn a_topic_older_than_the_target_stops_the_sink_at_its_end() {
        let (mut partition, _) = Partition::begin(at(7, 6), 0, 10);
        assert_eq!(partition.judge(5, Some(6)), Verdict::Known);
        let older = Contradiction::OlderEpoch { found: 6, progress: at(7, 6) };
        assert_eq!(partition.end(), AtEnd::Stop(older));
    }

    #[test]
    fn a_position_below_the_log_start_continues_at_the_log_start() {
        let (mut partition, start) = Partition::begin(at(7, 6), 50, 60);
        assert_eq!(start, Start::Beginning);
        assert_eq!(partition.judge(50, Some(7)), Verdict::Apply(at(7, 51)));
    }

    #[test]
    fn starting_over_survives_a_crash_in_the_middle_of_a_log_with_two_epochs() {
        // The log holds epoch 7 and then 8; the row says that 8 is being read from the beginning, up to 3.
        let (mut partition, _) = Partition::begin(at(8, 3), 0, 10);
        assert_eq!(partition.judge(2, Some(7)), Verdict::Known);
        assert_eq!(partition.judge(3, Some(7)), Verdict::Apply(at(8, 4)));
        assert_eq!(partition.judge(4, Some(8)), Verdict::Apply(at(8, 5)));
        assert_eq!(partition.end(), AtEnd::CaughtUp);
    }

    #[test]
    fn records_of_a_completed_epoch_do_not_bring_removed_goods_back() {
        let progress = Progress { completed_epoch: Some(8), ..at(8, 0) };
        let mut partition = Partition::from_beginning(progress);
        assert!(matches!(partition.judge(0, Some(7)), Verdict::Obsolete(Progress { next_offset: 1, .. })));
        assert!(matches!(partition.judge(1, Some(8)), Verdict::Apply(_)));
    }

    #[test]
    fn a_shorter_topic_without_epochs_is_started_over() {
        let progress = Progress { next_offset: 600, ..Progress::default() };
        let (mut partition, _) = Partition::begin(progress, 0, 10);
        assert_eq!(partition.judge(0, None), Verdict::StartOver(Progress::default()));
    }
}
