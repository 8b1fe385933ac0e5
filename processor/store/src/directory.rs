//! The directory of one application on this machine: its lock and its identity.
//!
//! It guards invariant 6: a directory of another application, another cluster or a newer format stops the
//! process with a coded error; nothing here ever removes a file it did not write.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use processor_engine::Failure;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::files::{read_if_present, write_durably};

/// Another process holds the state directory.
pub const STATE_DIR_IN_USE: &str = "STATE_DIR_IN_USE";
/// The state directory belongs to something else.
pub const STATE_DIR_FOREIGN: &str = "STATE_DIR_FOREIGN";
/// The state directory was written by a newer version of this program.
pub const STATE_FORMAT_NEWER: &str = "STATE_FORMAT_NEWER";
/// The state directory cannot be created, read or written.
pub const STATE_DIR_UNUSABLE: &str = "STATE_DIR_UNUSABLE";
/// The application id cannot be the name of a directory.
pub const APPLICATION_ID_INVALID: &str = "APPLICATION_ID_INVALID";

/// Version of everything below the directory: layout, markers, rows. Older ones are read or discarded by
/// partition, newer ones are refused.
const FORMAT: u32 = 1;
const IDENTITY_FILE: &str = "identity.json";
const LOCK_FILE: &str = "lock";

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    format: u32,
    application_id: String,
    cluster_id: String,
    created_unix_seconds: u64,
}

/// Only what every format, also a future one, has.
#[derive(Debug, Deserialize)]
struct Format {
    format: u32,
}

/// The application's directory, locked for this process until dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Holds the lock: the kernel releases it when the process ends, however it ends.
    lock: File,
}

impl Directory {
    /// Creates or opens, locks and identifies `<state dir>/<application id>`.
    pub(crate) fn open(state_dir: &Path, application_id: &str, cluster_id: &str) -> Result<Self, Failure> {
        if !is_plain_name(application_id) {
            return Err(Failure::stop(
                APPLICATION_ID_INVALID,
                format!("the application id {application_id:?} cannot name a directory"),
                "use letters, digits, dots, dashes and underscores only",
            ));
        }
        let path = state_dir.join(application_id);
        let refused = |error: io::Error| unusable(&format!("{}: {error}", path.display()));
        fs::create_dir_all(&path).map_err(refused)?;
        let lock = lock(&path)?;
        if let Some(text) = read_if_present(&path.join(IDENTITY_FILE)).map_err(refused)? {
            check_identity(&path, &text, application_id, cluster_id)?;
        } else {
            check_empty(&path)?;
            create_identity(&path, application_id, cluster_id).map_err(refused)?;
        }
        Ok(Self { path, lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that another thread has just forked shares it until it
        // executes its program.
        if let Err(error) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            tracing::warn!(path = %self.path.display(), %error, "the state directory cannot be unlocked");
        }
    }
}

/// An operating system error on the state directory, for the operator.
pub(crate) fn unusable(what: &str) -> Failure {
    Failure::stop(
        STATE_DIR_UNUSABLE,
        what.to_owned(),
        "give the process a state directory on a healthy local disk that it may write; state is restored from the changelog",
    )
}

/// Whether a text is a file name and nothing more.
pub(crate) fn is_plain_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= 200 && !text.starts_with('.') && text.bytes().all(plain)
}

fn lock(path: &Path) -> Result<File, Failure> {
    let name = path.join(LOCK_FILE);
    let refused = |error: io::Error| unusable(&format!("{}: {error}", name.display()));
    let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(refused)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::stop(
            STATE_DIR_IN_USE,
            format!("another process uses the state directory {}", path.display()),
            "stop that process, or give each process of this machine its own state directory",
        )),
        Err(error) => Err(refused(error.into())),
    }
}

fn check_identity(path: &Path, text: &[u8], application_id: &str, cluster_id: &str) -> Result<(), Failure> {
    let name = path.join(IDENTITY_FILE);
    let name = name.display();
    if let Ok(Format { format }) = serde_json::from_slice(text)
        && format > FORMAT
    {
        return Err(Failure::stop(
            STATE_FORMAT_NEWER,
            format!("{name} has format {format}, this version reads up to {FORMAT}"),
            "run the newer version, or give this one an empty state directory: state is restored from the changelog",
        ));
    }
    let Ok(found) = serde_json::from_slice::<Identity>(text) else {
        return Err(foreign(format!("{name} cannot be read as the identity of a state directory")));
    };
    if found.application_id != application_id || found.cluster_id != cluster_id {
        return Err(foreign(format!(
            "{name} says application {:?} on cluster {:?}, this is application {application_id:?} on cluster {cluster_id:?}",
            found.application_id, found.cluster_id
        )));
    }
    Ok(())
}

fn check_empty(path: &Path) -> Result<(), Failure> {
    let refused = |error: io::Error| unusable(&format!("{}: {error}", path.display()));
    for entry in fs::read_dir(path).map_err(refused)? {
        let name = entry.map_err(refused)?.file_name();
        // What a process killed during its very first start leaves behind.
        if name != LOCK_FILE && name.to_str() != Some("identity.json.new") {
            return Err(foreign(format!("{} has files but no {IDENTITY_FILE}", path.display())));
        }
    }
    Ok(())
}

fn foreign(what: String) -> Failure {
    Failure::stop(
        STATE_DIR_FOREIGN,
        what,
        "point the process at its own state directory; if this one really is its own, remove it: state is restored from the changelog",
    )
}

fn create_identity(path: &Path, application_id: &str, cluster_id: &str) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let identity = Identity {
        format: FORMAT,
        application_id: application_id.to_owned(),
        cluster_id: cluster_id.to_owned(),
        created_unix_seconds: now,
    };
    write_durably(path, IDENTITY_FILE, &serde_json::to_vec_pretty(&identity)?)
}
