//! Owns the one thread that serves HTTP and signals, so that workers on OS threads need no runtime of their own and a
//! busy worker never delays a health check.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use prometheus_client::registry::Registry;

use crate::errors::Coded;
use crate::health::Health;
use crate::http;
use crate::shutdown::{self, Shutdown};

/// The running operations thread. It lives until the process ends: `/live` and `/metrics` answer while draining, too.
#[derive(Debug)]
pub struct Operations {
    /// Where HTTP is served; the real port when port 0 was asked for.
    pub address: SocketAddr,
    /// Requested by the first SIGTERM or SIGINT.
    pub shutdown: Shutdown,
}

impl Operations {
    /// Binds `address` (host:port), starts serving HTTP and listening for signals.
    ///
    /// # Errors
    /// `HTTP_BIND` when the address cannot be listened on; `OPERATIONS_START` when the thread cannot be started.
    pub fn start(address: &str, health: Health, registry: Arc<Registry>) -> Result<Self, Coded> {
        let shutdown = Shutdown::new();
        let (bound, answer) = mpsc::channel();
        let (address, token) = (address.to_owned(), shutdown.clone());
        let failed = |error: String| Coded::unexpected("OPERATIONS_START", error);
        thread::Builder::new()
            .name("operations".to_owned())
            .spawn(move || serve(&address, health, registry, token, &bound))
            .map_err(|error| failed(format!("the thread for HTTP and signals cannot be started: {error}")))?;
        let address = answer.recv().map_err(|_| failed("the thread for HTTP and signals ended".to_owned()))??;
        Ok(Self { address, shutdown })
    }
}

type Bound = mpsc::Sender<Result<SocketAddr, Coded>>;

fn serve(address: &str, health: Health, registry: Arc<Registry>, shutdown: Shutdown, bound: &Bound) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Coded::unexpected("OPERATIONS_START", format!("no runtime for HTTP and signals: {error}"));
            // The receiver waits for exactly one answer; if it is gone, so is the program.
            let _ = bound.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        let listener = match http::bind(address).await {
            Ok(listener) => listener,
            Err(error) => {
                let _ = bound.send(Err(error));
                return;
            }
        };
        let local = listener
            .local_addr()
            .map_err(|error| Coded::unexpected("HTTP_BIND", format!("the bound address is unknown: {error}")));
        let _ = bound.send(local);
        let (signals, served) = tokio::join!(shutdown::listen(shutdown), http::serve(listener, health, registry));
        for error in [signals.err(), served.err()].into_iter().flatten() {
            error.report();
        }
    });
}
