//! Errors of the disk and of LMDB, sorted by what they mean for a partition.
//!
//! Nothing is retried here, and nothing is discarded here; see `partition` and `store`.

use std::io;
use std::path::Path;

use heed::MdbError;
use processor_engine::Failure;

use crate::directory::unusable;

/// The file system is full, or a quota is used up.
pub const STATE_DISK_FULL: &str = "STATE_DISK_FULL";

/// What an error means for the partition it happened on.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The file contradicts itself: discard it and restore from the changelog.
    Damaged(String),
    /// The address space reserved for the file is used up: open it again with more.
    MapFull,
    /// LMDB refuses to go on with this handle; the file may be sound.
    Handle(String),
    /// The operating system refused.
    Io(io::Error),
}

impl From<heed::Error> for Trouble {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Io(error) => Self::Io(error),
            heed::Error::Mdb(MdbError::MapFull) => Self::MapFull,
            heed::Error::Mdb(
                MdbError::Corrupted
                | MdbError::Invalid
                | MdbError::PageNotFound
                | MdbError::VersionMismatch
                | MdbError::Incompatible
                | MdbError::Problem
                | MdbError::PageFull
                | MdbError::CursorFull
                | MdbError::NotFound,
            ) => Self::Damaged(error.to_string()),
            other => Self::Handle(other.to_string()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Trouble {
    /// What the engine is told. `folder` is the partition's.
    pub(crate) fn into_failure(self, folder: &Path) -> Failure {
        let place = folder.display();
        match self {
            Self::Damaged(what) => Failure::Rebuild(format!(
                "the state in {place} is damaged ({what}); it is discarded and restored from the changelog"
            )),
            Self::MapFull => Failure::Rebuild(format!("the state in {place} has outgrown its address space")),
            Self::Handle(what) => Failure::Rebuild(format!("the state in {place} has to be opened again ({what})")),
            Self::Io(error) => io_failure(folder, &error),
        }
    }
}

/// An operating system error on a partition's folder, for the operator.
pub(crate) fn io_failure(folder: &Path, error: &io::Error) -> Failure {
    let place = folder.display();
    if is_full(folder, error) {
        return Failure::stop(
            STATE_DISK_FULL,
            format!("no room to write the state in {place}: {error}"),
            "free space on that file system or raise its quota, then start again; nothing is lost, the changelog has it",
        );
    }
    unusable(&format!("the state in {place} cannot be read or written: {error}"))
}

/// LMDB answers a write cut short by a full disk with the same code as a broken disk: what is left of the
/// file system tells them apart.
fn is_full(folder: &Path, error: &io::Error) -> bool {
    const LITTLE: u64 = 1 << 20;
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => true,
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            rustix::fs::statvfs(folder).is_ok_and(|left| left.f_bavail.saturating_mul(left.f_frsize) < LITTLE)
        }
        _ => false,
    }
}
