//! Combined KRaft brokers as local processes.
//!
//! Owns their configuration, the formatting of their storage and the question whether a broker does its work.
//! Settings differ from a production cluster only where waiting would be all they cause; whatever decides about
//! durability (replication, in-sync replicas, acknowledgements) is that of the compose stack.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::ports::Port;
use super::provision;
use super::server::{Launch, Server};
use crate::stack::{HEALTHY_WITHIN, wait_until};

const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Any fixed id does: a stack is alone in its directory and on its ports.
const CLUSTER_ID: &str = "bmF0aXZlLXN0YWNrLTAwMQ";

/// Logs to standard output, which the server's log file receives.
pub(super) const LOG4J_CONFIGURATION: &str = "Configuration:
  Appenders:
    Console:
      name: stdout
      PatternLayout: { pattern: '[%d] %p %m (%c{1})%n' }
  Loggers:
    Root: { level: INFO, AppenderRef: { ref: stdout } }
    Logger:
      - { name: org.apache.kafka.clients, level: WARN }
      - { name: org.apache.kafka.connect.runtime.WorkerConfig, level: ERROR }
";

/// Ports of one broker.
#[derive(Debug)]
pub(super) struct BrokerPorts {
    pub(super) client: Port,
    pub(super) controller: Port,
}

/// How to run a Java server: virtual machine, class path, logging.
#[derive(Debug, Clone)]
pub(super) struct Jvm {
    pub(super) java: PathBuf,
    pub(super) libraries: PathBuf,
    pub(super) log4j: PathBuf,
}

impl Jvm {
    /// Installs what is missing and writes the logging configuration into `directory`.
    pub(super) fn prepare(directory: &Path) -> Result<Self> {
        let log4j = directory.join("log4j2.yaml");
        fs::write(&log4j, LOG4J_CONFIGURATION).with_context(|| format!("cannot write {}", log4j.display()))?;
        Ok(Self { java: provision::java()?, libraries: provision::kafka_libraries()?, log4j })
    }

    /// Arguments that start `main_class` with at most `heap_mb` of heap.
    pub(super) fn arguments(&self, heap_mb: u32, main_class: &str, arguments: &[String]) -> Vec<String> {
        let mut all = vec![
            "-Xms128m".to_owned(),
            format!("-Xmx{heap_mb}m"),
            "-XX:+ExitOnOutOfMemoryError".to_owned(),
            // Keeps hs_err and heap files out of the sources when a server crashes.
            "-XX:ErrorFile=./hs_err_%p.log".to_owned(),
            format!("-Dlog4j2.configurationFile={}", self.log4j.display()),
            "-cp".to_owned(),
            format!("{}/*", self.libraries.display()),
            main_class.to_owned(),
        ];
        all.extend_from_slice(arguments);
        all
    }
}

/// Describes all brokers of a cluster, formatting the storage of those that have none yet.
pub(super) fn brokers(
    directory: &Path,
    jvm: &Jvm,
    ports: &[BrokerPorts],
    heap_mb: u32,
    overrides: &[(String, String)],
    launch: impl Fn(&str) -> Launch,
) -> Result<Vec<Server>> {
    let mut formatting = Vec::new();
    let mut servers = Vec::new();
    for (node, _) in (1..).zip(ports) {
        let home = directory.join(format!("broker-{node}"));
        fs::create_dir_all(&home)?;
        let properties = home.join("server.properties");
        fs::write(&properties, server_properties(node, ports, &home, overrides)?)?;
        if !home.join("data/meta.properties").exists() {
            let arguments = ["format", "-t", CLUSTER_ID, "-c", &properties.display().to_string()].map(str::to_owned);
            let mut command = Command::new(&jvm.java);
            command.args(jvm.arguments(128, "kafka.tools.StorageTool", &arguments)).current_dir(&home);
            formatting.push(std::thread::spawn(move || command.output()));
        }
        let mut launch = launch(&format!("broker-{node}"));
        launch.program.clone_from(&jvm.java);
        launch.arguments = jvm.arguments(heap_mb, "kafka.Kafka", &[properties.display().to_string()]);
        launch.directory = home;
        servers.push(Server::new(launch)?);
    }
    for format in formatting {
        let output = format.join().ok().context("formatting a broker's storage panicked")??;
        if !output.status.success() {
            bail!("a broker's storage could not be formatted: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
    Ok(servers)
}

fn server_properties(
    node: usize,
    ports: &[BrokerPorts],
    home: &Path,
    overrides: &[(String, String)],
) -> Result<String> {
    let own = ports.get(node - 1).context("a broker without ports")?;
    let voters: Vec<String> = (1..)
        .zip(ports)
        .map(|(id, ports): (usize, _)| format!("{id}@127.0.0.1:{}", ports.controller.number()))
        .collect();
    let replication = ports.len().min(3);
    let in_sync = if replication == 3 { 2 } else { 1 };
    let client = own.client.number();
    let mut text = format!(
        "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{client}
log.dirs={data}
default.replication.factor={replication}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=10
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=10
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr={in_sync}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
",
        voters = voters.join(","),
        controller = own.controller.number(),
        data = home.join("data").display(),
    );
    for (name, value) in overrides {
        writeln!(text, "{name}={value}")?;
    }
    Ok(text)
}

/// Waits until the broker is part of the cluster and every partition it has a replica of is led and in sync on it.
pub(super) fn wait_healthy(
    node: u8,
    bootstrap_servers: &str,
    mut check_running: impl FnMut() -> Result<()>,
) -> Result<()> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("reconnect.backoff.max.ms", "200")
        // A broker that is not up yet is what is being waited for, not an error to print.
        .set("log_level", "0")
        .create()?;
    wait_until(format!("broker {node} to be in sync"), HEALTHY_WITHIN, || {
        check_running()?;
        Ok(is_in_sync(&client, i32::from(node)))
    })
}

fn is_in_sync(client: &BaseConsumer, node: i32) -> bool {
    let Ok(metadata) = client.fetch_metadata(None, METADATA_TIMEOUT) else { return false };
    metadata.brokers().iter().any(|broker| broker.id() == node)
        && metadata
            .topics()
            .iter()
            .flat_map(rdkafka::metadata::MetadataTopic::partitions)
            .filter(|partition| partition.replicas().contains(&node))
            .all(|partition| partition.leader() >= 0 && partition.isr().contains(&node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(brokers: u16) -> String {
        let ports: Vec<_> = (0..brokers)
            .map(|n| BrokerPorts { client: Port::fixed(1000 + n), controller: Port::fixed(2000 + n) })
            .collect();
        server_properties(1, &ports, Path::new("/stack"), &[("log.segment.bytes".into(), "1048576".into())]).unwrap()
    }

    #[test]
    fn three_brokers_replicate_three_times_and_need_two() {
        let text = properties(3);
        assert!(text.contains("controller.quorum.voters=1@127.0.0.1:2000,2@127.0.0.1:2001,3@127.0.0.1:2002\n"));
        assert!(text.contains("default.replication.factor=3\nmin.insync.replicas=2\n"));
        assert!(text.contains("transaction.state.log.min.isr=2\n"));
    }

    #[test]
    fn a_single_broker_asks_for_no_replicas_it_cannot_have() {
        let text = properties(1);
        assert!(!text.contains("=3\n"), "{text}");
        assert!(text.ends_with("log.segment.bytes=1048576\n"));
    }
}
