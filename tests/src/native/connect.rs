//! Kafka Connect with the Debezium plug-in as a local process.
//!
//! Owns the worker's configuration and its readiness; connectors are registered by scenarios
//! ([`crate::client::Connect`]).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::jvm::{CONNECT, Jvm};
use super::server::{Launch, Server};
use crate::client::Connect;
use crate::stack::wait_until;

const HEAP_MB: u32 = 512;

/// What distinguishes one worker from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerOptions<'a> {
    pub(super) bootstrap_servers: &'a str,
    /// Replicas of Connect's own topics.
    pub(super) replication: usize,
    pub(super) port: u16,
    pub(super) offset_flush_interval: Duration,
    /// Directories of plug-ins, separated by commas.
    pub(super) plugins: &'a str,
    /// Whether there are plug-ins without a list of what they offer (Apicurio's converters): classes are looked through.
    pub(super) scan: bool,
}

/// Describes a worker in `directory`.
pub(super) fn worker(directory: &Path, jvm: &Jvm, options: WorkerOptions<'_>, mut launch: Launch) -> Result<Server> {
    let home = directory.join("connect");
    fs::create_dir_all(&home)?;
    let properties = home.join("worker.properties");
    fs::write(&properties, worker_properties(options))?;
    launch.program.clone_from(&jvm.java);
    launch.arguments = jvm.arguments(HEAP_MB, CONNECT, &[properties.display().to_string()]);
    launch.directory = home;
    Server::new(launch)
}

fn worker_properties(options: WorkerOptions<'_>) -> String {
    // The rebalance delay is 5 minutes by default: Connect would idle that long after its worker or brokers come back.
    format!(
        "bootstrap.servers={bootstrap_servers}
group.id=connect
listeners=http://127.0.0.1:{port}
plugin.path={plugins}
plugin.discovery={discovery}
config.storage.topic=connect-configs
offset.storage.topic=connect-offsets
status.storage.topic=connect-status
config.storage.replication.factor={replication}
offset.storage.replication.factor={replication}
status.storage.replication.factor={replication}
offset.storage.partitions=5
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
scheduled.rebalance.max.delay.ms=3000
session.timeout.ms=6000
heartbeat.interval.ms=2000
offset.flush.interval.ms={flush}
",
        bootstrap_servers = options.bootstrap_servers,
        port = options.port,
        plugins = options.plugins,
        discovery = if options.scan { "hybrid_warn" } else { "service_load" },
        replication = options.replication,
        flush = options.offset_flush_interval.as_millis(),
    )
}

/// Waits until the worker has joined its group and answers.
pub(super) fn wait_healthy(url: &str, mut check_running: impl FnMut() -> Result<()>) -> Result<()> {
    let connect = Connect::new(url);
    wait_until("Connect to answer", || {
        check_running()?;
        Ok(connect.is_healthy())
    })
}
