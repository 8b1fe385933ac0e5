//! Errors of the engine, sorted by what the caller must do.
//!
//! Engine rule 6: whatever is fatal, indefinite or unclassified is [`Failure::Rebuild`]; nobody "goes on"
//! with a client after such an answer.

use thiserror::Error;

/// An operator has to act: a stable code, what happened, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {what}. To do: {remedy}")]
pub struct Stop {
    /// Stable, documented code, such as `INPUT_TRUNCATED`.
    pub code: &'static str,
    /// What happened, with topic, partition and offsets.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Why a call did not do what was asked, by what the caller must do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// Abort the open transaction (its outcome is then known: aborted), rewind, do the work again.
    #[error("the transaction must be aborted: {0}")]
    Abort(String),
    /// As [`Failure::Abort`], and the group membership the commit named is stale: re-read the stable
    /// offsets of every partition, kept ones too (engine rule 4).
    #[error("group membership is stale: {0}")]
    Membership(String),
    /// The outcome is unknown or the client is unusable: drop the producers, build and initialise new
    /// ones, and treat every partition as freshly assigned.
    #[error("clients must be rebuilt: {0}")]
    Rebuild(String),
    /// Another process initialised the same transactional id, or the broker timed the transaction out.
    /// As [`Failure::Rebuild`], but repeated fencing means another process owns the id: exit.
    #[error("fenced: {0}")]
    Fenced(String),
    /// Another worker of this process still holds the state: go on with everything else and ask again.
    #[error("held by another worker: {0}")]
    Busy(String),
    /// An operator has to act; the process stops.
    #[error(transparent)]
    Stop(#[from] Stop),
}

impl Failure {
    /// Builds a [`Failure::Stop`].
    pub fn stop(code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Stop(Stop { code, what: what.into(), remedy: remedy.into() })
    }
}
