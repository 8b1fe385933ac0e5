//! Owns the token by which a program is asked to end: SIGTERM, SIGINT, or a worker that failed.
//!
//! It never ends anything itself; workers look at the token at the points where stopping is safe. The one exception
//! is a second signal, which an operator sends when the first took too long: it ends the process at once, which is
//! no worse than `kill -9`, and that is always safe.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::errors::{Coded, Exit};

/// A request to end, shared by threads and tasks. Cloning is cheap; all clones are the same request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A token nobody has asked to end yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody who holds a clone to end.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether the end was asked for; one atomic read, for the loops of worker threads.
    pub fn requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits, in a task, until the end is asked for.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// Turns the first SIGTERM or SIGINT into a request and the second into an immediate end. Runs until the process ends.
pub async fn listen(shutdown: Shutdown) -> Result<(), Coded> {
    let failed =
        |error: std::io::Error| Coded::unexpected("SIGNALS", format!("signal handlers cannot be set: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if shutdown.requested() {
            tracing::warn!(signal = name, "second signal: ending at once");
            Exit::Interrupted.now();
        }
        tracing::info!(signal = name, "shutting down");
        shutdown.request();
    }
}
