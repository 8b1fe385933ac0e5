//! A place on this machine for one compose stack: its project name and its host ports.
//!
//! Owns their reservation. Slots are numbered, and the lowest free one is taken, so that whatever a killed test run
//! left behind carries the name of a slot that is taken again soon and cleaned up by then. A random name would never
//! meet its leftovers. Ports lie below Linux's ephemeral range, where no outgoing connection takes the port of a
//! broker that is down, and away from those of the native stack.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

const FIRST_PORT: u16 = 30_000;
const PORTS: u16 = 32;
const SLOTS: u16 = 80;
/// Ports before this one belong to servers, the rest to programs.
const FIRST_PROGRAM_PORT: u16 = 10;

/// A slot, held until the value and every clone of its lock file are gone.
#[derive(Debug)]
pub(super) struct Slot {
    number: u16,
    lock: File,
}

impl Slot {
    /// How many programs have a port at the same time.
    pub(super) const PROGRAMS: u16 = PORTS - FIRST_PROGRAM_PORT;

    /// Takes the lowest slot that nobody holds and whose ports are free of strangers.
    pub(super) fn acquire() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("compose-stacks-{}", rustix::process::geteuid().as_raw()));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Self::acquire_in(&directory)
    }

    fn acquire_in(directory: &Path) -> Result<Self> {
        for number in 0..SLOTS {
            let path = directory.join(format!("{number}.lock"));
            let lock = OpenOptions::new().create(true).append(true).open(&path)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    lock.set_len(0)?; // what the last janitor said
                    return Ok(Self { number, lock });
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
            }
        }
        bail!("{SLOTS} compose stacks run at the same time already")
    }

    /// Name of the compose project.
    pub(super) fn project(&self) -> String {
        format!("stock-test-{}", self.number)
    }

    /// The lock file, which holds the slot for whoever inherits it; also takes the janitor's words.
    pub(super) fn lock(&self) -> Result<File> {
        self.lock.try_clone().context("cannot share the lock of the slot")
    }

    /// Host port of a server.
    pub(super) const fn port(&self, of: Server) -> u16 {
        FIRST_PORT + self.number * PORTS + of as u16
    }

    /// Host port of the program that was the `index`-th to be named in this stack.
    pub(super) fn program_port(&self, index: usize) -> Result<u16> {
        let index = u16::try_from(index).ok().filter(|index| *index < Self::PROGRAMS);
        let index = index.context("too many different programs in one compose stack")?;
        Ok(FIRST_PORT + self.number * PORTS + FIRST_PROGRAM_PORT + index)
    }

    /// Fails when somebody else listens on a port of this slot.
    pub(super) fn check_ports(&self) -> Result<()> {
        for offset in 0..PORTS {
            let port = FIRST_PORT + self.number * PORTS + offset;
            TcpListener::bind(("127.0.0.1", port)).with_context(|| {
                format!("port {port}, which {} would use, is taken by another program", self.project())
            })?;
        }
        Ok(())
    }
}

/// The published servers, by their place among the ports of a slot.
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(super) enum Server {
    Broker1 = 0,
    Broker2,
    Broker3,
    Connect,
    SourceDatabase,
    TargetDatabase,
    Registry,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::wait_until;

    #[test]
    fn two_stacks_share_neither_project_nor_port() {
        let directory = tempfile::tempdir().unwrap();
        let first = Slot::acquire_in(directory.path()).unwrap();
        let second = Slot::acquire_in(directory.path()).unwrap();
        assert_ne!(first.project(), second.project());
        assert!(first.program_port(21).unwrap() < second.port(Server::Broker1));
        assert!(first.program_port(22).is_err());
    }

    #[test]
    fn a_slot_is_free_again_only_when_the_janitor_has_let_go_too() {
        let directory = tempfile::tempdir().unwrap();
        let first = Slot::acquire_in(directory.path()).unwrap();
        let inherited = first.lock().unwrap();
        drop(first);
        assert_eq!(Slot::acquire_in(directory.path()).unwrap().number, 1);
        drop(inherited);
        // A child that another test starts holds a copy until it has begun its program.
        wait_until("the first slot", || Ok(Slot::acquire_in(directory.path())?.number == 0)).unwrap();
    }
}
