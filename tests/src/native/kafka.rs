//! Combined KRaft brokers as local processes.
//!
//! Owns their configuration, the formatting of their storage and the question whether a broker does its work.
//! Settings differ from a production cluster only where waiting would be all they cause; whatever decides about
//! durability (replication, in-sync replicas, acknowledgements) is that of the compose stack.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::jvm::{BROKER, Jvm};
use super::ports::Port;
use super::secured::{self, SecuredPorts};
use super::server::{Launch, Server};
use crate::stack::wait_until;

const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Any fixed id does: a stack is alone in its directory and on its ports.
const CLUSTER_ID: &str = "bmF0aXZlLXN0YWNrLTAwMQ";

/// Ports of one broker.
#[derive(Debug)]
pub(super) struct BrokerPorts {
    pub(super) client: Port,
    pub(super) controller: Port,
    pub(super) proxied: Option<ProxiedPorts>,
    pub(super) secured: Option<SecuredPorts>,
}

/// A further listener of a broker: where it listens, and where it says that it is.
#[derive(Debug)]
pub(super) struct ProxiedPorts {
    pub(super) listener: Port,
    pub(super) advertised: Port,
}

impl ProxiedPorts {
    pub(super) fn reserve() -> Result<Self> {
        Ok(Self { listener: Port::reserve()?, advertised: Port::reserve()? })
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
        let secure = ports.iter().any(|ports| ports.secured.is_some());
        if !home.join("data/meta.properties").exists() {
            let mut arguments =
                ["format", "-t", CLUSTER_ID, "-c", &properties.display().to_string()].map(str::to_owned).to_vec();
            if secure {
                arguments.extend(secured::format_arguments());
            }
            let mut command = Command::new(&jvm.java);
            command.args(jvm.arguments(128, "kafka.tools.StorageTool", &arguments)).current_dir(&home);
            formatting.push(std::thread::spawn(move || command.output()));
        }
        let mut launch = launch(&format!("broker-{node}"));
        launch.program.clone_from(&jvm.java);
        launch.arguments = jvm.arguments(heap_mb, BROKER, &[properties.display().to_string()]);
        launch.directory = home;
        if secure {
            launch.environment.push(secured::java_options(directory));
        }
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
    let (proxied, advertised) = own.proxied.as_ref().map_or_else(Default::default, |proxied| {
        let listener = |port: &Port| format!("PROXIED://127.0.0.1:{},", port.number());
        (listener(&proxied.listener), listener(&proxied.advertised))
    });
    let (secured, secured_advertised) = own.secured.as_ref().map_or_else(Default::default, SecuredPorts::listeners);
    let mut text = format!(
        "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={proxied}{secured}PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={advertised}{secured_advertised}PLAINTEXT://127.0.0.1:{client}
listener.security.protocol.map=PROXIED:PLAINTEXT,SASL:SASL_SSL,TLS:SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
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
    if own.secured.is_some() {
        text.push_str(&secured::broker_properties(home.parent().unwrap_or(home)));
    }
    for (name, value) in overrides {
        writeln!(text, "{name}={value}")?;
    }
    Ok(text)
}

/// Waits until the broker answers itself, is part of the cluster, and every partition it has a replica of is led and in
/// sync on it.
///
/// `own_address` is that broker's alone: the others believe in a killed one until its session ends, and would call it
/// healthy before its successor has even started.
pub(super) fn wait_healthy(node: u8, own_address: &str, mut check_running: impl FnMut() -> Result<()>) -> Result<()> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", own_address)
        .set("reconnect.backoff.max.ms", "200")
        // A broker that is not up yet is what is being waited for, not an error to print.
        .set("log_level", "0")
        .create()?;
    wait_until(format!("broker {node} to be in sync"), || {
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
            .map(|n| BrokerPorts {
                client: Port::fixed(1000 + n),
                controller: Port::fixed(2000 + n),
                proxied: None,
                secured: None,
            })
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
