//! The one interface against which every end-to-end scenario is written, whatever its servers run on.
//!
//! Owns the vocabulary: which components there are, what can be done to them, where they answer, and how a processor
//! or a sink is run beside them. It never says how: [`crate::native`] does it with local processes, the compose
//! backend with containers. A scenario that names a process id, a container or a fixed port belongs in a backend.
//!
//! Everything blocks. Scenarios are ordinary `#[test]` functions that do one thing after the other, and an `async`
//! interface would have bought them nothing but coloured helpers; what is concurrent in them are the servers.
//!
//! Guards no invariant of the product itself; it guards that the tests of all of them mean the same on both backends.

mod program;
mod wait;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

pub use program::{Exit, FailAction, Program, ProgramSpec, RunningProgram};
pub use wait::{PATIENCE, POLL_INTERVAL, wait_for, wait_for_within, wait_until};

/// One server of the stack that can be started, stopped and mistreated on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// A combined KRaft broker and controller, numbered from 1.
    Broker(u8),
    /// The Kafka Connect worker with the Debezium plug-in.
    Connect,
    /// The PostgreSQL that the shop writes to (`goods_db`).
    SourceDatabase,
    /// The PostgreSQL that the sink writes to (`remains`).
    TargetDatabase,
    /// The schema registry. Not every backend has one.
    Registry,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(number) => write!(f, "broker {number}"),
            Self::Connect => f.write_str("connect"),
            Self::SourceDatabase => f.write_str("source database"),
            Self::TargetDatabase => f.write_str("target database"),
            Self::Registry => f.write_str("registry"),
        }
    }
}

/// From where an address is to be used. The two differ wherever servers live in a network of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewpoint {
    /// The test process itself.
    Host,
    /// A server or program of the stack (Connect reaching the source database, a processor reaching the brokers).
    Stack,
}

/// Where the servers answer, as seen from one [`Viewpoint`].
///
/// Components the stack does not have are `None`, so that a scenario that needs one fails with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Comma-separated `host:port` list of the brokers.
    pub bootstrap_servers: String,
    /// Base URL of Connect's REST interface, without a trailing slash.
    pub connect_url: Option<String>,
    /// Host and port of the source database, as connector configurations want them.
    pub source_database: Option<HostPort>,
    /// `postgres://…` URL of the source database.
    pub source_database_url: Option<String>,
    /// `postgres://…` URL of the target database.
    pub target_database_url: Option<String>,
    /// Base URL of the schema registry, without a trailing slash.
    pub registry_url: Option<String>,
}

impl Addresses {
    /// The registry's Confluent-compatible API.
    pub fn schemas_url(&self) -> Option<String> {
        self.registry_url.as_ref().map(|url| format!("{url}/apis/ccompat/v7"))
    }
}

/// A host name and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The backend cannot do this; a scenario may skip itself loudly when it meets it.
///
/// Found in an [`anyhow::Error`] with `error.downcast_ref::<Unsupported>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Name of the backend that refused.
    pub backend: &'static str,
    /// What was asked of it.
    pub operation: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} stack cannot {}", self.backend, self.operation)
    }
}

impl std::error::Error for Unsupported {}

/// A running set of real servers.
///
/// Object-safe: scenarios take `&dyn Stack`. Dropping the implementation ends every server and every program that was
/// started through it and removes their files, also while a panic unwinds.
///
/// All operations act at once and do not wait for the effect on the rest of the system; use
/// [`Stack::wait_healthy`] or [`wait_until`] for that. `start` of what runs and `stop`/`kill` of what is down succeed.
pub trait Stack: Send + Sync {
    /// Name of the backend (`native`, `compose`), for messages.
    fn backend(&self) -> &'static str;

    /// The components this stack has, in start order.
    fn components(&self) -> Vec<Component>;

    /// Where the servers answer.
    fn addresses(&self, from: Viewpoint) -> Addresses;

    /// Starts a component that was stopped or killed, with the data it had. Does not wait; see [`Stack::wait_healthy`].
    fn start(&self, component: Component) -> Result<()>;

    /// Stops a component cleanly (SIGTERM) and waits until it has ended.
    fn stop(&self, component: Component) -> Result<()>;

    /// Ends a component with SIGKILL and waits until it is gone. Its data stays.
    fn kill(&self, component: Component) -> Result<()>;

    /// Freezes a component (SIGSTOP): connections stay open, nothing answers.
    fn pause(&self, component: Component) -> Result<()>;

    /// Lets a paused component go on.
    fn resume(&self, component: Component) -> Result<()>;

    /// Takes a component off the network while it keeps running.
    ///
    /// The native backend has no network to unplug and freezes the component instead, exactly as [`Stack::pause`]
    /// does: to its peers that is the same silence, but the component does not notice the time that passes (a leader
    /// cut off this way does not step down by itself). A scenario about what the *isolated side* does belongs on compose.
    fn cut_off(&self, component: Component) -> Result<()>;

    /// Undoes [`Stack::cut_off`].
    fn reconnect(&self, component: Component) -> Result<()>;

    /// Waits until a component does its work again: a broker is unfenced and has no partition out of sync,
    /// Connect answers, a database accepts queries. Fails after [`PATIENCE`] or when the component has ended.
    fn wait_healthy(&self, component: Component) -> Result<()>;

    /// Waits for all components.
    fn wait_all_healthy(&self) -> Result<()> {
        self.components().into_iter().try_for_each(|component| self.wait_healthy(component))
    }

    /// The last part of a component's log, for the message of a test that failed.
    fn log_tail(&self, component: Component) -> Result<String>;

    /// Runs a processor or a sink beside the servers.
    ///
    /// The stack supplies what depends on the backend (bootstrap servers, database URL, state directory, HTTP
    /// address) unless the specification names the flag itself.
    fn run(&self, spec: &ProgramSpec) -> Result<Box<dyn RunningProgram>>;

    /// A directory on this host that every program sees under the same path: the place for files named in flags.
    fn shared_directory(&self) -> &Path;

    /// The directory in which the program of this name keeps its state, on this host, whether it runs or not.
    ///
    /// It survives the program, so that a second run of the same name restores from it; a test may remove, copy or
    /// damage it between runs.
    fn state_directory(&self, program_name: &str) -> PathBuf;
}
