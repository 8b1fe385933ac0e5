//! Which process a pid file means.
//!
//! A pid alone is not an identity: after the process ended the kernel may give the number to somebody else's. A
//! process is therefore remembered with its start time and the boot it belongs to, and a signal is sent only when
//! all three still agree.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal};

/// One particular process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProcessIdentity {
    pid: i32,
    /// Clock ticks between boot and the start of the process.
    started_at: u64,
    boot: String,
}

impl ProcessIdentity {
    /// The process that has this pid now; `None` when there is none.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let (_, _, started_at) = stat(pid)?;
        Some(Self { pid, started_at, boot: boot_id() })
    }

    /// Reads a pid file; `None` when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => text.parse().map(Some).with_context(|| format!("{} is no pid file", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes a pid file.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether this very process still exists and is no zombie.
    pub(super) fn is_alive(&self) -> bool {
        self.boot == boot_id()
            && stat(self.pid).is_some_and(|(state, _, started_at)| state != 'Z' && started_at == self.started_at)
    }

    /// Sends a signal if the process is still the one meant; a process that is gone is no error.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("a pid of 0 or below is no process")?;
        match rustix::process::kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot send {signal:?} to process {pid}")),
        }
    }

    /// All processes below this one, parents before children.
    ///
    /// PostgreSQL's backends lead sessions of their own, so no process group reaches them.
    pub(super) fn descendants(&self) -> Vec<Self> {
        let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| stat(pid).map(|(_, parent, _)| (pid, parent)))
            .collect();
        let mut found = vec![self.pid];
        let mut next = 0;
        while let Some(&parent) = found.get(next) {
            found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        found.into_iter().skip(1).filter_map(Self::of).collect()
    }
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pid, self.started_at, self.boot)
    }
}

impl FromStr for ProcessIdentity {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let mut word = || words.next().context("expected a pid, a start time and a boot id");
        Ok(Self { pid: word()?.parse()?, started_at: word()?.parse()?, boot: word()?.to_owned() })
    }
}

/// State, parent and start time from `/proc/<pid>/stat`.
fn stat(pid: i32) -> Option<(char, i32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name in parentheses may itself contain spaces and parentheses; what follows the last one is plain.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Numbering of proc(5): the field after the name is 3 (state), 4 is the parent, 22 the start time.
    Some((fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn own() -> ProcessIdentity {
        ProcessIdentity::of(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    #[test]
    fn a_pid_file_is_read_back_as_the_same_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.pid");
        own().write(&path).unwrap();
        let read = ProcessIdentity::read(&path).unwrap().unwrap();
        assert_eq!(read, own());
        assert!(read.is_alive());
    }

    #[test]
    fn a_reused_pid_is_not_taken_for_the_process() {
        let mut other = own();
        other.started_at -= 1;
        assert!(!other.is_alive());
        // Would end this test if it were sent.
        other.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn descendants_include_grandchildren() {
        let mut child = Command::new("sh").args(["-c", "setsid sh -c 'sleep 60; :' & wait"]).spawn().unwrap();
        let identity = ProcessIdentity::of(i32::try_from(child.id()).unwrap()).unwrap();
        crate::stack::wait_until("the grandchild", || Ok(identity.descendants().len() >= 2)).unwrap();
        for process in identity.descendants() {
            process.signal(Signal::KILL).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
