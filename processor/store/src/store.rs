//! Which partitions are open in this process, and whether what lies on disk may be used.
//!
//! It guards exclusive ownership (one worker at a time per partition) and decides between using and
//! discarding a partition's file; it never reads an application key.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use processor_engine::store::{Batch, StateStore, worse};
use processor_engine::{Failure, StatePartition};

use crate::directory::{APPLICATION_ID_INVALID, Directory, is_plain_name};
use crate::environment::DATA_FILE;
use crate::marker::{self, Left};
use crate::partition::{LocalPartition, remove_files};
use crate::trouble::{Trouble, io_failure};
use crate::verify;

/// Changes of a commit from which on a thread is worth its start (some 50 µs; a change takes about 2).
const WORTH_A_THREAD: usize = 2_000;

/// What a store needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory on a local disk; the store uses its subdirectory `<application id>`.
    pub state_dir: PathBuf,
    /// Name of the stream program, as the broker knows it.
    pub application_id: String,
    /// Id of the Kafka cluster the state was built from.
    pub cluster_id: String,
    /// Stage names, in the order of the topology.
    pub stages: Vec<String>,
    /// Bytes of address space a partition's file starts with; nothing is allocated, and it doubles when
    /// used up.
    pub map_size: usize,
    /// How long a worker waits for another one to let go of a partition.
    pub handover: Duration,
    /// Length of the ids. Absent ids are mostly known from memory; the few other keys of a state (marks, counters, sums)
    /// are always looked up. `None`: ids have any length, and all keys are treated like them.
    pub id_bytes: Option<usize>,
    /// Threads among which a worker shares the batches of a large commit, itself included.
    pub apply_threads: usize,
    /// The id of the running boot, where it is not the system's own (tests); see the crate's documentation.
    pub boot_id: Option<String>,
}

impl Options {
    /// Options with the defaults: 64 GiB of address space, 30 seconds of waiting, uuids as ids, no further thread.
    pub fn new(
        state_dir: impl Into<PathBuf>,
        application_id: impl Into<String>,
        cluster_id: impl Into<String>,
        stages: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            state_dir: state_dir.into(),
            application_id: application_id.into(),
            cluster_id: cluster_id.into(),
            stages: stages.into_iter().map(Into::into).collect(),
            map_size: 64 << 30,
            handover: Duration::from_secs(30),
            id_bytes: Some(16),
            apply_threads: 1,
            boot_id: marker::current_boot_id(),
        }
    }
}

/// The state store of one process. Clones share it; give one to each worker.
#[derive(Debug, Clone)]
pub struct LocalStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    directory: Directory,
    slots: Mutex<HashMap<StatePartition, Slot>>,
    released: Condvar,
}

/// What this process knows of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    leased: bool,
    /// This process has opened its file, and nothing went wrong with it since.
    sound: bool,
    /// Its marker says `open`, written by this process.
    marked: bool,
}

impl LocalStore {
    /// Locks and identifies the directory.
    ///
    /// # Errors
    /// [`Failure::Stop`] with [`STATE_DIR_IN_USE`](crate::STATE_DIR_IN_USE),
    /// [`STATE_DIR_FOREIGN`](crate::STATE_DIR_FOREIGN), [`STATE_FORMAT_NEWER`](crate::STATE_FORMAT_NEWER),
    /// [`STATE_DIR_UNUSABLE`](crate::STATE_DIR_UNUSABLE) or [`APPLICATION_ID_INVALID`].
    pub fn open(options: Options) -> Result<Self, Failure> {
        if let Some(stage) = options.stages.iter().find(|stage| !is_plain_name(stage)) {
            return Err(Failure::stop(
                APPLICATION_ID_INVALID,
                format!("the stage name {stage:?} cannot name a directory"),
                "use letters, digits, dots, dashes and underscores only",
            ));
        }
        let directory = Directory::open(&options.state_dir, &options.application_id, &options.cluster_id)?;
        let shared = Shared { options, directory, slots: Mutex::default(), released: Condvar::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Syncs every partition this process has written and marks it closed, so that it may be used after a
    /// restart of the machine too. To be called last, when all workers have ended; partitions still open
    /// are left alone. Without it nothing is lost as long as the machine keeps running.
    pub fn close(&self) -> Result<(), Failure> {
        let mut slots = self.shared.slots();
        for (partition, slot) in slots.iter_mut() {
            if slot.leased || !slot.marked || !slot.sound {
                continue;
            }
            let folder = self.shared.folder(*partition);
            sync_and_mark(&folder, self.shared.options.boot_id.as_deref())
                .map_err(|error| io_failure(&folder, &error))?;
            slot.marked = false;
        }
        Ok(())
    }

    /// Removes what is stored of a partition that no worker has open; `false` when one has.
    pub fn remove(&self, partition: StatePartition) -> Result<bool, Failure> {
        let mut slots = self.shared.slots();
        if slots.get(&partition).is_some_and(|slot| slot.leased) {
            return Ok(false);
        }
        let folder = self.shared.folder(partition);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_failure(&folder, &error)),
            _ => {
                slots.remove(&partition);
                Ok(true)
            }
        }
    }

    /// Bytes on disk of all partitions this process has opened.
    pub fn disk_usage(&self) -> u64 {
        let partitions: Vec<_> = self.shared.slots().keys().copied().collect();
        partitions.into_iter().map(|partition| disk_usage(&self.shared.folder(partition))).sum()
    }
}

impl StateStore for LocalStore {
    type Partition = LocalPartition;

    fn open(&mut self, partition: StatePartition) -> Result<LocalPartition, Failure> {
        let shared = &self.shared;
        let (lease, slot) = shared.lease(partition)?;
        let folder = lease.folder().to_owned();
        let refused = |error: io::Error| io_failure(&folder, &error);
        fs::create_dir_all(&folder).map_err(refused)?;
        if !slot.sound
            && let Err(reason) = shared.judge(&folder).map_err(refused)?
        {
            discard(&folder, &reason).map_err(refused)?;
        }
        if !slot.marked {
            marker::write(&folder, Left::Open, shared.options.boot_id.as_deref()).map_err(refused)?;
            shared.update(partition, |slot| slot.marked = true);
        }
        let map_size = shared.options.map_size.next_multiple_of(1 << 16);
        let opened = match LocalPartition::open(lease, map_size) {
            Err((lease, Trouble::Damaged(reason))) => {
                discard(&folder, &reason).map_err(refused)?;
                LocalPartition::open(lease, map_size)
            }
            other => other,
        };
        let opened = opened.map_err(|(_, trouble)| trouble.into_failure(&folder))?;
        shared.update(partition, |slot| slot.sound = true);
        Ok(opened)
    }

    fn apply(&self, batches: Vec<Batch<'_, LocalPartition>>) -> Result<(), Failure> {
        let changes: usize = batches.iter().map(|batch| batch.changes.len()).sum();
        let helpers = if changes < WORTH_A_THREAD { 0 } else { self.shared.options.apply_threads.saturating_sub(1) };
        let (batches, outcome) = (Mutex::new(batches), Mutex::new(Ok(())));
        let take = || batches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let apply = || {
            while let Some(mut batch) = take() {
                let applied = batch.apply();
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                *outcome = worse(std::mem::replace(&mut *outcome, Ok(())), applied);
            }
        };
        thread::scope(|scope| {
            for _ in 0..helpers {
                // Without the thread it only takes longer.
                let _ = thread::Builder::new().name("store".to_owned()).spawn_scoped(scope, apply);
            }
            apply();
        });
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, HashMap<StatePartition, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, partition: StatePartition, change: impl FnOnce(&mut Slot)) {
        change(self.slots().entry(partition).or_default());
    }

    fn folder(&self, partition: StatePartition) -> PathBuf {
        let stage = usize::from(partition.stage.0);
        let number = partition.partition;
        let name = match self.options.stages.get(stage) {
            Some(stage) => format!("{stage}-{number}"),
            None => format!("stage{stage}-{number}"),
        };
        self.directory.path().join(name)
    }

    /// Waits until no other worker has the partition.
    fn lease(self: &Arc<Self>, partition: StatePartition) -> Result<(Lease, Slot), Failure> {
        let slots = self.slots();
        let taken = |slots: &mut HashMap<StatePartition, Slot>| slots.entry(partition).or_default().leased;
        let (mut slots, waited) = self
            .released
            .wait_timeout_while(slots, self.options.handover, taken)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(Failure::Busy(format!(
                "another worker did not let go of {} within {:?}",
                self.folder(partition).display(),
                self.options.handover
            )));
        }
        let slot = slots.entry(partition).or_default();
        slot.leased = true;
        let lease = Lease { shared: Arc::clone(self), partition, folder: self.folder(partition) };
        Ok((lease, *slot))
    }

    /// Whether what lies in the folder may be used; the inner error says why not.
    fn judge(&self, folder: &Path) -> io::Result<Result<(), String>> {
        let file = folder.join(DATA_FILE);
        if !file.try_exists()? {
            return Ok(Ok(()));
        }
        match marker::judge(marker::read(folder)?.as_ref(), self.options.boot_id.as_deref()) {
            Ok(()) => verify::check(&file),
            Err(reason) => Ok(Err(reason.to_owned())),
        }
    }
}

/// A partition handed to one worker, until dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    partition: StatePartition,
    folder: PathBuf,
}

impl Lease {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn id_bytes(&self) -> Option<usize> {
        self.shared.options.id_bytes
    }

    /// Has the file discarded when it is opened next, also by another process.
    pub(crate) fn report_damage(&self, what: &str) {
        let folder = self.folder.display();
        tracing::warn!(%folder, what, "state is damaged; it will be restored from the changelog");
        self.shared.update(self.partition, |slot| {
            slot.sound = false;
            slot.marked = false;
        });
        if let Err(error) = marker::write(&self.folder, Left::Damaged, self.shared.options.boot_id.as_deref()) {
            tracing::warn!(%folder, %error, "the marker cannot be written");
        }
    }

    /// Has the file checked again when it is opened next; another process checks it anyway.
    pub(crate) fn report_doubt(&self) {
        self.shared.update(self.partition, |slot| slot.sound = false);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.update(self.partition, |slot| slot.leased = false);
        self.shared.released.notify_all();
    }
}

fn discard(folder: &Path, reason: &str) -> io::Result<()> {
    tracing::warn!(folder = %folder.display(), reason, "state on disk is discarded; it is restored from the changelog");
    remove_files(folder)
}

fn sync_and_mark(folder: &Path, boot_id: Option<&str>) -> io::Result<()> {
    // Any descriptor syncs the file's pages; mapping it once more for `mdb_env_sync` would be waste.
    match fs::File::open(folder.join(DATA_FILE)) {
        Ok(file) => file.sync_all()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    marker::write(folder, Left::Closed, boot_id)
}

/// Bytes a partition's file occupies on disk; zero when it cannot be told.
pub(crate) fn disk_usage(folder: &Path) -> u64 {
    fs::metadata(folder.join(DATA_FILE)).map_or(0, |metadata| metadata.blocks() * 512)
}
