//! Advisory file locks between test processes.
//!
//! Owns nothing but the lock: it goes when the holder drops it or dies, so a killed test never blocks the next one.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A lock held on a file until dropped.
#[derive(Debug)]
pub(super) struct FileLock(#[allow(dead_code, reason = "held, never read")] File);

impl FileLock {
    /// Takes the lock, or returns `None` when another holder has it.
    pub(super) fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Takes the lock, waiting for another holder; `on_wait` is called once before waiting.
    pub(super) fn acquire(path: &Path, on_wait: impl FnOnce()) -> Result<Self> {
        if let Some(lock) = Self::try_acquire(path)? {
            return Ok(lock);
        }
        on_wait();
        let file = open(path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self(file))
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open the lock file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::wait_until;

    #[test]
    fn a_lock_is_exclusive_and_goes_with_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = FileLock::try_acquire(&path).unwrap().unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(held);
        // A child that another test starts holds a copy until it has begun its program.
        wait_until("the lock to be free", || Ok(FileLock::try_acquire(&path)?.is_some())).unwrap();
    }
}
