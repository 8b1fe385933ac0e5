//! What a native stack consists of, and the few settings tests differ in.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::provision;
use super::stack::NativeStack;

/// Ports for a stack whose addresses people know by heart.
#[derive(Debug, Clone)]
pub struct FixedPorts {
    /// Client port of each broker; its controller listens 100 above.
    pub brokers: Vec<u16>,
    /// Connect's REST interface.
    pub connect: u16,
    /// The source database.
    pub source_database: u16,
    /// The target database.
    pub target_database: u16,
}

impl Default for FixedPorts {
    fn default() -> Self {
        Self { brokers: vec![29_092, 29_093, 29_094], connect: 8083, source_database: 25_432, target_database: 25_433 }
    }
}

/// How the servers' virtual machines compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compiler {
    /// Starts fast, then does less.
    Quick,
    /// As in production.
    Optimising,
}

/// Builder of a [`NativeStack`].
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a server that is there or not")]
pub struct NativeOptions {
    pub(super) brokers: u8,
    pub(super) connect: bool,
    pub(super) source_database: bool,
    pub(super) target_database: bool,
    pub(super) registry: bool,
    pub(super) jdbc_sink: bool,
    pub(super) broker_heap_mb: u32,
    pub(super) broker_properties: Vec<(String, String)>,
    pub(super) compiler: Compiler,
    pub(super) offset_flush_interval: Duration,
    pub(super) directory: Option<PathBuf>,
    pub(super) ports: Option<FixedPorts>,
    pub(super) proxied: bool,
    pub(super) secured: bool,
}

impl NativeOptions {
    /// Brokers only: 1 (quick, nothing replicated) or 3 (as deployed).
    pub const fn brokers(brokers: u8) -> Self {
        Self {
            brokers,
            connect: false,
            source_database: false,
            target_database: false,
            registry: false,
            jdbc_sink: false,
            broker_heap_mb: 512,
            broker_properties: Vec::new(),
            compiler: Compiler::Quick,
            // Connect's own default: what "killed before its first offset flush" means.
            offset_flush_interval: Duration::from_secs(60),
            directory: None,
            ports: None,
            proxied: false,
            secured: false,
        }
    }

    /// Three brokers, Connect and both databases.
    pub fn full() -> Self {
        Self::brokers(3).with_source().with_target_database()
    }

    /// One broker, Connect and both databases, for whoever does not hurt brokers. Two more, which only copy what the one writes,
    /// more than double the processor time of a test.
    pub const fn with_one_broker() -> Self {
        Self::brokers(1).with_source().with_target_database()
    }

    /// Adds the source database and Connect.
    #[must_use]
    pub const fn with_source(mut self) -> Self {
        self.connect = true;
        self.source_database = true;
        self
    }

    /// Adds the target database.
    #[must_use]
    pub const fn with_target_database(mut self) -> Self {
        self.target_database = true;
        self
    }

    /// Gives every broker a further listener, whose clients are sent through a proxy ([`NativeStack::proxy`]).
    #[must_use]
    pub const fn with_proxied_listener(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Gives the servers certificates, the brokers further listeners for secured clients, and an authorizer; see
    /// [`super::SecureStack`], which starts such a stack.
    #[must_use]
    pub(super) const fn secured(mut self) -> Self {
        self.secured = true;
        self
    }

    /// Adds the schema registry, and to Connect the converters that use it.
    #[must_use]
    pub const fn with_registry(mut self) -> Self {
        self.registry = true;
        self
    }

    /// Adds Connect with Debezium's JDBC sink, and the registry whose converters give that sink the schemas it needs.
    ///
    /// # Errors
    /// One of them is not on this machine and cannot be installed.
    pub fn with_jdbc_sink(mut self) -> Result<Self> {
        provision::connect_jdbc_sink()?;
        provision::connect_converters()?;
        provision::registry_java()?;
        provision::registry_application()?;
        self.connect = true;
        self.registry = true;
        self.jdbc_sink = true;
        Ok(self)
    }

    /// Heap of each broker in MiB (512 unless said).
    #[must_use]
    pub const fn broker_heap_mb(mut self, megabytes: u32) -> Self {
        self.broker_heap_mb = megabytes;
        self
    }

    /// Sets a line of every broker's `server.properties`.
    #[must_use]
    pub fn broker_property(mut self, name: &str, value: &str) -> Self {
        self.broker_properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the servers' virtual machines compile as they do in production, for benchmarks: they start more slowly and
    /// then do more. Stacks that stay up do so anyway.
    #[must_use]
    pub const fn optimising_compiler(mut self) -> Self {
        self.compiler = Compiler::Optimising;
        self
    }

    /// How often Connect stores the connector's offsets (60 s unless said).
    #[must_use]
    pub const fn offset_flush_interval(mut self, interval: Duration) -> Self {
        self.offset_flush_interval = interval;
        self
    }

    /// Makes it a stack that stays up after this process, in a directory and on ports of the caller's choice.
    /// Servers that already run there are adopted, those that do not are started with the data they had.
    #[must_use]
    pub fn staying_up_in(mut self, directory: PathBuf, ports: FixedPorts) -> Self {
        self.directory = Some(directory);
        self.ports = Some(ports);
        self
    }

    /// Starts everything and waits until it is healthy.
    pub fn start(self) -> Result<NativeStack> {
        NativeStack::start_with(&self)
    }
}
