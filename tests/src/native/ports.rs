//! Free loopback ports that stay ours while a server is down.
//!
//! Owns the choice of ports. Asking the kernel for "any port" lost: it answers from the ephemeral range, where the
//! outgoing connection of some client may take the port between a broker's kill and its restart. Ports are therefore
//! taken below that range and reserved among test processes by a lock file each.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, bail};

use super::lock::FileLock;

/// Below Linux's default ephemeral range (32768–60999) and above the well-known servers.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// A port that no other stack takes while this value lives.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _lock: Option<FileLock>,
}

impl Port {
    /// A port chosen by the operator: not reserved, and not checked before the server itself binds it.
    pub(super) const fn fixed(number: u16) -> Self {
        Self { number, _lock: None }
    }

    /// Reserves a free port on the loopback interface.
    pub(super) fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let directory =
            std::env::temp_dir().join(format!("native-stack-ports-{}", rustix::process::geteuid().as_raw()));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // Processes start at different places, so that they rarely even look at each other's ports.
        let offset = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + (offset.wrapping_mul(7).wrapping_add(step)) % COUNT;
            if let Some(port) = Self::try_reserve(&directory, number)? {
                return Ok(port);
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    fn try_reserve(directory: &Path, number: u16) -> Result<Option<Self>> {
        let Some(lock) = FileLock::try_acquire(&directory.join(number.to_string()))? else { return Ok(None) };
        // Bound once to see that nobody else listens; the listener is closed again, the lock stays.
        let free = TcpListener::bind(("127.0.0.1", number)).is_ok();
        Ok(free.then_some(Self { number, _lock: Some(lock) }))
    }

    pub(super) const fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reservations_never_share_a_port() {
        let first = Port::reserve().unwrap();
        let second = Port::reserve().unwrap();
        assert_ne!(first.number(), second.number());
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_handed_out() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert!(Port::try_reserve(directory.path(), taken).unwrap().is_none());
    }
}
