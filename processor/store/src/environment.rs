//! Opens LMDB environments: the one place of this crate with `unsafe` code.
//!
//! It owns the flags an environment is opened with, and its two named databases. It never decides whether
//! a file may be opened; callers have checked that (see `verify`, `marker`).

use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithoutTls};

/// Name of the file LMDB keeps its pages in, inside a partition's folder.
pub(crate) const DATA_FILE: &str = "data.mdb";
/// Name of LMDB's own lock file, inside a partition's folder.
pub(crate) const LOCK_FILE: &str = "lock.mdb";
/// Named database with the application's keys.
pub(crate) const STATE: &str = "state";
/// Named database with the progress row.
pub(crate) const PROGRESS: &str = "progress";

/// One open LMDB file. Fields are dropped in this order: the snapshot before what it reads.
pub(crate) struct Environment {
    /// The snapshot all reads of a batch use; renewed by [`Environment::renew`] after every write, since
    /// opening one per `get` costs more than the `get`. Absent only while a write transaction is open
    /// (LMDB could not reuse the pages the snapshot sees) or after a failure.
    pub(crate) snapshot: Option<RoTxn<'static, WithoutTls>>,
    pub(crate) state: Database<Bytes, Bytes>,
    pub(crate) progress: Database<Bytes, Bytes>,
    pub(crate) env: Env<WithoutTls>,
}

impl Environment {
    /// Opens or creates the environment in `folder` with room for `map_size` bytes of address space.
    pub(crate) fn open(folder: &Path, map_size: usize) -> Result<Self, heed::Error> {
        let env = open_env(folder, map_size)?;
        let mut transaction = env.write_txn()?;
        let state = env.create_database(&mut transaction, Some(STATE))?;
        let progress = env.create_database(&mut transaction, Some(PROGRESS))?;
        transaction.commit()?;
        let mut environment = Self { snapshot: None, state, progress, env };
        environment.renew()?;
        Ok(environment)
    }

    /// Lets reads see the last committed write.
    pub(crate) fn renew(&mut self) -> Result<(), heed::Error> {
        self.snapshot = None;
        self.snapshot = Some(self.env.clone().static_read_txn()?);
        Ok(())
    }
}

/// Opens LMDB. `NO_SYNC`: the changelog is the durable copy, and an fsync per batch would cost most of the
/// rate. No `WRITE_MAP`: a full disk must be an error of a write call, not a SIGBUS. No read-ahead: ids are
/// random, so neighbouring pages are rarely wanted next.
#[allow(unsafe_code)]
fn open_env(folder: &Path, map_size: usize) -> Result<Env<WithoutTls>, heed::Error> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_size).max_dbs(2).max_readers(8);
    // SAFETY: LMDB asks its callers for three things.
    // 1. Nobody else changes or truncates the mapped file: the directory is locked for this process
    //    (`directory::Lock`), its registry hands out each partition once (`store::Lease`), and heed refuses
    //    to map a file twice. What an administrator with write access does to files behind a running
    //    process is outside of any program's reach.
    // 2. The file is a sound LMDB file, since its pages are trusted: `marker` and `verify` refuse files
    //    that a power cut, a truncation or a bit error may have broken, before they come here.
    // 3. With NO_SYNC a system crash can leave the file corrupted: see 2, the boot id in the marker.
    // The memory map lives as long as the `Env`, and the snapshot of `Environment` holds an `Env` too.
    unsafe {
        options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_READ_AHEAD);
        options.open(folder)
    }
}
