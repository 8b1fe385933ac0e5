//! Reading and writing the state of one partition.
//!
//! It owns the open environment and the filter of absent ids. It guards engine rule 5: writes and progress
//! change in one transaction. It never repairs: what contradicts itself is reported to the registry, and
//! the next open discards it.

use std::ops::Bound;
use std::path::PathBuf;

use processor_engine::Failure;
use processor_engine::mark::Progress;
use processor_engine::store::{PartitionStore, Write};

use crate::environment::{DATA_FILE, Environment, LOCK_FILE};
use crate::files::{remove_if_present, sync_folder};
use crate::filter::Filter;
use crate::row::{self, PROGRESS_KEY, ProgressRow};
use crate::store::Lease;
use crate::trouble::Trouble;

/// A key is empty or longer than the store can hold (511 bytes).
pub const STATE_KEY_SIZE: &str = "STATE_KEY_SIZE";
/// A value is longer than the store can hold (16 MiB).
pub const STATE_VALUE_SIZE: &str = "STATE_VALUE_SIZE";

const LONGEST_VALUE: usize = 16 << 20;
/// Keys the filter's build reads per batch, beyond twice the batch: some milliseconds.
const BUILD_STEP: usize = 10_000;

/// The state of one partition, exclusively owned while open; dropping it lets another worker open it.
pub struct LocalPartition {
    // Dropped before the lease, so that the next owner finds the file closed.
    environment: Option<Environment>,
    filter: Filter,
    batch: u64,
    map_size: usize,
    folder: PathBuf,
    lease: Lease,
}

impl std::fmt::Debug for LocalPartition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LocalPartition")
            .field("folder", &self.folder)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

impl LocalPartition {
    /// Opens what is in the lease's folder; the caller has judged it to be sound.
    pub(crate) fn open(lease: Lease, map_size: usize) -> Result<Self, (Lease, Trouble)> {
        let folder = lease.folder().to_owned();
        let filter = Filter::default();
        let mut partition = Self { environment: None, filter, batch: 0, map_size, folder, lease };
        match partition.open_environment() {
            Ok(()) => Ok(partition),
            Err(trouble) => {
                partition.environment = None;
                Err((partition.lease, trouble))
            }
        }
    }

    /// Bytes the file occupies on disk.
    pub fn disk_usage(&self) -> u64 {
        crate::store::disk_usage(&self.folder)
    }

    /// Bytes of memory the filter of absent ids occupies.
    pub fn filter_memory(&self) -> usize {
        self.filter.memory()
    }

    /// Whether absent ids are answered from memory already.
    pub fn filter_is_complete(&self) -> bool {
        self.filter.is_complete()
    }

    /// Number of application keys.
    pub fn keys(&self) -> Result<u64, Failure> {
        self.environment().and_then(count).map_err(|trouble| self.failure(trouble))
    }

    /// Number of batches applied since the state was created.
    pub fn batches(&self) -> u64 {
        self.batch
    }

    fn open_environment(&mut self) -> Result<(), Trouble> {
        self.environment = None;
        let environment = loop {
            match Environment::open(&self.folder, self.map_size).map_err(Trouble::from) {
                Err(Trouble::MapFull) => self.map_size = grown(self.map_size)?,
                other => break other?,
            }
        };
        let keys = count(&environment)?;
        let row = read_progress(&environment)?;
        if row.is_none() && keys > 0 {
            return Err(Trouble::Damaged("it has keys but no progress".to_owned()));
        }
        self.batch = row.map_or(0, |row| row.batch);
        // A file is a cache on a machine with less than 2^64 bytes of memory: its keys fit usize.
        self.filter = match usize::try_from(keys) {
            Ok(0) | Err(_) => Filter::of_nothing(self.lease.id_bytes()),
            Ok(keys) => Filter::to_build(self.lease.id_bytes(), keys),
        };
        self.environment = Some(environment);
        Ok(())
    }

    fn environment(&self) -> Result<&Environment, Trouble> {
        self.environment.as_ref().ok_or_else(closed)
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        match &trouble {
            Trouble::Damaged(what) => self.lease.report_damage(what),
            _ => self.lease.report_doubt(),
        }
        trouble.into_failure(&self.folder)
    }

    fn read(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Trouble> {
        if !self.filter.may_contain(key) {
            return Ok(false);
        }
        let environment = self.environment()?;
        let snapshot = environment.snapshot.as_ref().ok_or_else(closed)?;
        let Some(row) = environment.state.get(snapshot, key)? else {
            return Ok(false);
        };
        value.extend_from_slice(row::open(key, row).ok_or_else(broken_value)?);
        Ok(true)
    }

    fn visit_all(&self, after: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<bool, Trouble> {
        let environment = self.environment()?;
        let snapshot = environment.snapshot.as_ref().ok_or_else(closed)?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        for entry in environment.state.range(snapshot, &(after, Bound::Unbounded))? {
            let (key, row) = entry?;
            if !visit(key, row::open(key, row).ok_or_else(broken_value)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write(&mut self, writes: &[Write<'_>], progress: &[u8]) -> Result<(), Trouble> {
        let environment = self.environment.as_mut().ok_or_else(closed)?;
        environment.snapshot = None;
        let mut transaction = environment.env.write_txn()?;
        let mut row = Vec::new();
        for Write { key, value } in writes {
            match value {
                Some(value) => {
                    row::seal(key, value, &mut row);
                    environment.state.put(&mut transaction, key, &row)?;
                }
                None => {
                    environment.state.delete(&mut transaction, key)?;
                }
            }
        }
        environment.progress.put(&mut transaction, PROGRESS_KEY, progress)?;
        transaction.commit()?;
        environment.renew()?;
        Ok(())
    }

    fn write_with_room(&mut self, writes: &[Write<'_>], progress: &[u8]) -> Result<(), Trouble> {
        loop {
            match self.write(writes, progress) {
                Err(Trouble::MapFull) => {
                    let map_size = grown(self.map_size)?;
                    tracing::info!(folder = %self.folder.display(), map_size, "state file gets more address space");
                    // Opened again rather than resized in place: resizing is one more unsafe call, and this
                    // happens once in the life of a file, if ever.
                    self.map_size = map_size;
                    let filter = std::mem::take(&mut self.filter);
                    self.open_environment()?;
                    self.filter = filter;
                }
                other => return other,
            }
        }
    }

    fn advance_filter(&mut self, budget: usize) -> Result<(), Trouble> {
        let environment = self.environment.as_ref().ok_or_else(closed)?;
        self.filter.grow_if_needed(usize::try_from(count(environment)?).unwrap_or(usize::MAX));
        let Some(cursor) = self.filter.cursor().map(<[u8]>::to_vec) else {
            return Ok(());
        };
        let snapshot = environment.snapshot.as_ref().ok_or_else(closed)?;
        let after = if cursor.is_empty() { Bound::Unbounded } else { Bound::Excluded(cursor.as_slice()) };
        let mut seen = 0;
        for entry in environment.state.range(snapshot, &(after, Bound::Unbounded))?.take(budget) {
            self.filter.build(entry?.0);
            seen += 1;
        }
        if seen < budget {
            self.filter.finish();
        }
        Ok(())
    }

    fn recreate(&mut self) -> Result<(), Trouble> {
        self.environment = None;
        remove_files(&self.folder)?;
        self.open_environment()
    }

    fn check_sizes(&self, writes: &[Write<'_>]) -> Result<(), Failure> {
        let longest = self.environment.as_ref().map_or(usize::MAX, |environment| environment.env.max_key_size());
        for Write { key, value } in writes {
            if key.is_empty() || key.len() > longest {
                return Err(Failure::stop(
                    STATE_KEY_SIZE,
                    format!("a key of {} bytes; 1 to {longest} fit the state of {}", key.len(), self.folder.display()),
                    "this is a fault of the program: report it with the log",
                ));
            }
            if value.is_some_and(|value| value.len() > LONGEST_VALUE) {
                return Err(Failure::stop(
                    STATE_VALUE_SIZE,
                    format!("a value longer than {LONGEST_VALUE} bytes for the state of {}", self.folder.display()),
                    "this is a fault of the program: report it with the log",
                ));
            }
        }
        Ok(())
    }
}

impl PartitionStore for LocalPartition {
    fn progress(&self) -> Result<Option<Progress>, Failure> {
        let row = self.environment().and_then(read_progress).map_err(|trouble| self.failure(trouble))?;
        Ok(row.map(|row| row.progress()))
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        value.clear();
        self.read(key, value).map_err(|trouble| self.failure(trouble))
    }

    fn scan(&self, after: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<bool, Failure> {
        self.visit_all(after, visit).map_err(|trouble| self.failure(trouble))
    }

    fn apply(&mut self, writes: &[Write<'_>], progress: &Progress) -> Result<(), Failure> {
        self.check_sizes(writes)?;
        let row = ProgressRow::new(self.batch + 1, progress).encode();
        let row = row.map_err(|error| Failure::Rebuild(format!("progress cannot be encoded: {error}")))?;
        // Before the write: if that fails half-way, a key announced for nothing only costs a look-up.
        for Write { key, .. } in writes.iter().filter(|write| write.value.is_some()) {
            self.filter.announce(key);
        }
        self.write_with_room(writes, &row).map_err(|trouble| self.failure(trouble))?;
        self.batch += 1;
        self.advance_filter(BUILD_STEP + 2 * writes.len()).map_err(|trouble| self.failure(trouble))
    }

    fn clear(&mut self) -> Result<(), Failure> {
        self.recreate().map_err(|trouble| self.failure(trouble))
    }
}

/// Removes LMDB's files from a partition's folder, durably.
pub(crate) fn remove_files(folder: &std::path::Path) -> std::io::Result<()> {
    remove_if_present(&folder.join(DATA_FILE))?;
    remove_if_present(&folder.join(LOCK_FILE))?;
    sync_folder(folder)
}

fn read_progress(environment: &Environment) -> Result<Option<ProgressRow>, Trouble> {
    let snapshot = environment.snapshot.as_ref().ok_or_else(closed)?;
    let Some(row) = environment.progress.get(snapshot, PROGRESS_KEY)? else {
        return Ok(None);
    };
    let row = ProgressRow::decode(row);
    row.map(Some).ok_or_else(|| Trouble::Damaged("the progress row does not match its checksum".to_owned()))
}

fn count(environment: &Environment) -> Result<u64, Trouble> {
    let snapshot = environment.snapshot.as_ref().ok_or_else(closed)?;
    Ok(environment.state.len(snapshot)?)
}

fn grown(map_size: usize) -> Result<usize, Trouble> {
    map_size.checked_mul(2).ok_or(Trouble::MapFull)
}

fn closed() -> Trouble {
    Trouble::Handle("an earlier failure closed it".to_owned())
}

fn broken_value() -> Trouble {
    Trouble::Damaged("a value does not match its checksum".to_owned())
}
