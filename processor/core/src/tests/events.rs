//! Change events, built in one line each.

use schemas::debezium::{ChangeOperation, Partial, RowChange, Snapshot, Source};
use schemas::{Content, Reason, Rejection, RowId};
use uuid::Uuid;

/// An id.
pub(super) fn id(number: u128) -> RowId {
    Uuid::from_u128(number).into()
}

/// A contribution.
pub(super) fn content(good_id: i64, pieces: i64) -> Content {
    Content { good_id: good_id.into(), pieces }
}

/// A record of an initial snapshot: row 1, one minute of source time per lsn unless said otherwise.
pub(super) fn snapshot(lsn: u64, good_id: i64, pieces: i64) -> RowChange {
    RowChange {
        operation: ChangeOperation::Read,
        id: id(1),
        content: Some(Ok(content(good_id, pieces))),
        partial: None,
        source: Source { snapshot: Snapshot::Part, lsn: Some(lsn), commit_lsn: None, ts_ms: time(lsn) },
    }
}

/// A streamed update (or insert) of row 1, by a connector that has seen no commit yet.
pub(super) fn streamed(lsn: u64, good_id: i64, pieces: i64) -> RowChange {
    RowChange {
        operation: ChangeOperation::Update,
        source: Source { snapshot: Snapshot::Streaming, lsn: Some(lsn), commit_lsn: None, ts_ms: time(lsn) },
        ..snapshot(lsn, good_id, pieces)
    }
}

/// A streamed delete of row 1.
pub(super) fn deleted(lsn: u64) -> RowChange {
    RowChange { operation: ChangeOperation::Delete, content: None, ..streamed(lsn, 0, 0) }
}

/// A record of an incremental snapshot: row 1, as the connector's clock said.
pub(super) fn incremental(ts_ms: i64, commit_lsn: Option<u64>, good_id: i64, pieces: i64) -> RowChange {
    RowChange {
        source: Source { snapshot: Snapshot::Incremental, lsn: None, commit_lsn, ts_ms },
        ..snapshot(1, good_id, pieces)
    }
}

/// The same event with other fields.
pub(super) trait But: Sized {
    fn last(self) -> Self;
    fn of(self, number: u128) -> Self;
    fn at(self, ts_ms: i64) -> Self;
    fn after_commit(self, commit_lsn: u64) -> Self;
    fn unreadable(self) -> Self;
    fn without(self, good: bool, operation: bool, pieces: bool) -> Self;
}

impl But for RowChange {
    fn last(mut self) -> Self {
        self.source.snapshot = Snapshot::Last;
        self
    }

    fn of(mut self, number: u128) -> Self {
        self.id = id(number);
        self
    }

    fn at(mut self, ts_ms: i64) -> Self {
        self.source.ts_ms = ts_ms;
        self
    }

    fn after_commit(mut self, commit_lsn: u64) -> Self {
        self.source.commit_lsn = Some(commit_lsn);
        self
    }

    fn without(mut self, good: bool, operation: bool, pieces: bool) -> Self {
        let Some(Ok(content)) = &self.content else { panic!("no content") };
        self.partial = Some(Box::new(Partial {
            good_id: (!good).then(|| content.good_id.clone()),
            adds: (!operation).then_some(content.pieces >= 0),
            pieces: (!pieces).then_some(content.pieces.abs()),
        }));
        self.content = Some(Err(Rejection::new(Reason::UnavailableValue, "a column is unavailable")));
        self
    }

    fn unreadable(mut self) -> Self {
        self.content = Some(Err(Rejection::new(Reason::NegativePcs, "pcs is -1")));
        self
    }
}

/// Source time as a function of the lsn: both grow.
pub(super) fn time(lsn: u64) -> i64 {
    i64::try_from(lsn).unwrap() * 60_000
}
