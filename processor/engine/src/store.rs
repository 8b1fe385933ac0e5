//! The trait of the embedded state store: a cache of the changelog that survives `kill -9`.
//!
//! A store holds, per [`StatePartition`], the application's keys and one [`Progress`] row, and changes
//! both in one atomic batch, after the Kafka commit. The changelog is the durable copy: a store may lose
//! its tail, or everything, but never half a batch (invariant 5, engine rule 5).

use crate::changes::Changes;
use crate::failure::Failure;
use crate::mark::Progress;
use crate::topology::StatePartition;

/// One change of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// Application key.
    pub key: &'a [u8],
    /// New value; `None` deletes the key.
    pub value: Option<&'a [u8]>,
}

/// The state of one partition, exclusively owned while open.
pub trait PartitionStore {
    /// Progress as of the last applied batch; `None` for a store that holds nothing usable.
    fn progress(&self) -> Result<Option<Progress>, Failure>;

    /// Copies the value of `key` into `value` (cleared first); `false` when absent.
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure>;

    /// Visits keys greater than `after` (all from the first when `None`) in byte order until `visit` returns
    /// `false` or the end is reached. Returns `true` when the end was reached.
    fn scan(&self, after: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<bool, Failure>;

    /// Applies all writes and the progress in one atomic batch. Keys are sorted and unique.
    fn apply(&mut self, writes: &[Write<'_>], progress: &Progress) -> Result<(), Failure>;

    /// Forgets everything, before a full restore.
    fn clear(&mut self) -> Result<(), Failure>;
}

/// What a commit changed in one partition.
#[derive(Debug)]
pub struct Batch<'a, P> {
    /// Its store.
    pub store: &'a mut P,
    /// What changed.
    pub changes: &'a Changes,
    /// Progress once that is applied.
    pub progress: Progress,
}

impl<P: PartitionStore> Batch<'_, P> {
    /// See [`PartitionStore::apply`].
    pub fn apply(&mut self) -> Result<(), Failure> {
        self.store.apply(&self.changes.sorted(), &self.progress)?;
        fail_point!("store-partition-applied");
        Ok(())
    }
}

/// Opens and closes partitions of the store of one process.
pub trait StateStore {
    /// An open partition. Dropping it closes it; another worker of the process may then open it.
    type Partition: PartitionStore;

    /// Opens (or creates) the state of one partition.
    ///
    /// # Errors
    /// [`Failure::Busy`] while another worker of the process has it; [`Failure::Stop`] when the state belongs to another application or another, newer format.
    fn open(&mut self, partition: StatePartition) -> Result<Self::Partition, Failure>;

    /// Applies the batches of one commit, in any order or at the same time. Each is atomic by itself, and one that fails
    /// keeps no other from being applied; of several failures one that stops the process is returned.
    fn apply(&self, batches: Vec<Batch<'_, Self::Partition>>) -> Result<(), Failure> {
        batches.into_iter().map(|mut batch| batch.apply()).fold(Ok(()), worse)
    }
}

/// What two applied batches came to.
pub fn worse(one: Result<(), Failure>, other: Result<(), Failure>) -> Result<(), Failure> {
    match (&one, &other) {
        (Err(Failure::Stop(_)), _) | (_, Ok(())) => one,
        (Ok(()), _) | (_, Err(Failure::Stop(_))) => other,
        (Err(_), Err(_)) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_failures_the_one_that_stops_the_process_counts() {
        let (rebuild, stop) = (Err(Failure::Rebuild("r".into())), Err(Failure::stop("S", "s", "s")));
        for other in [Ok(()), rebuild.clone(), stop.clone()] {
            assert_eq!(worse(stop.clone(), other.clone()), stop);
            assert_eq!(worse(other, stop.clone()), stop);
        }
        assert_eq!(worse(Ok(()), rebuild.clone()), rebuild);
        assert_eq!(worse(rebuild.clone(), Ok(())), rebuild);
        assert_eq!(worse(Ok(()), Ok(())), Ok(()));
    }
}
