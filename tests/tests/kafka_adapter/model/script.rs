//! What is done to a cluster, step by step, and what it answers: the same words for the model and for brokers.

use std::fmt;

use anyhow::Result;

/// The two transactional ids of a script.
pub(super) const IDS: usize = 2;
/// Partitions of the topic written to, and of the input.
pub(super) const PARTITIONS: i32 = 2;

/// One of the producers of a transactional id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    /// Number of the transactional id.
    pub(super) id: usize,
    /// The one before the newest, which has been fenced.
    pub(super) is_zombie: bool,
}

/// As whom offsets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// The member of this number, as it is now.
    Member(usize),
    /// The member of this number, as it was before the group last changed.
    Former(usize),
    /// A member id that the group does not know, in its present generation.
    Stranger,
    /// No member id, no generation.
    Nobody,
}

/// One step of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A further producer initialises the transactional id.
    Initialise(usize),
    /// It writes one record to a partition.
    Produce(Who, i32),
    /// It adds an offset of an input partition to its transaction.
    SendOffset(Who, Identity, i32, i64),
    /// It commits.
    Commit(Who),
    /// It aborts.
    Abort(Who),
    /// Nothing is done until the transaction of the id's newest producer has timed out.
    Expire(usize),
    /// A further member joins the group, and the group comes to rest.
    Join,
    /// The member of this number leaves, and the group comes to rest.
    Leave(usize),
    /// All records of a partition before an offset are deleted.
    DeleteTo(i32, i64),
    /// What a partition shows, and to whom.
    LookAtLog(i32),
    /// What the group's stable offset of an input partition is.
    LookAtOffset(i32),
}

/// What a partition shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) start: i64,
    pub(super) last_stable: i64,
    pub(super) high_watermark: i64,
    /// What a `read_committed` reader gets.
    pub(super) visible: Vec<(i64, String)>,
}

/// What comes of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// A record was written there.
    At(i64),
    /// A record was refused. Why is told by the next call only.
    NotWritten,
    /// There is a newer producer of this id, or its transaction has timed out.
    Fenced,
    /// The identity is not one of the group's present members.
    NotAMember,
    Log(Log),
    /// Offset and metadata, if any were ever committed.
    Offset(Option<(i64, String)>),
    /// A transaction that holds an offset of the partition is not decided.
    Unstable,
}

/// Something that can be scripted.
pub(super) trait Executor {
    /// Does one step; `step` is its number, for values and metadata that nobody else writes.
    fn act(&mut self, step: usize, action: Action) -> Result<Answer>;
}

/// The value of the record, or the metadata of the offset, that a step writes.
pub(super) fn text_of(step: usize) -> String {
    format!("v1;{step};script;topic")
}

/// Steps with their answers, a line each.
#[derive(Debug, Default)]
pub(super) struct Transcript(pub(super) Vec<(Action, Answer)>);

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, (action, answer)) in self.0.iter().enumerate() {
            writeln!(f, "{step:3}  {action:?} -> {answer:?}")?;
        }
        Ok(())
    }
}
