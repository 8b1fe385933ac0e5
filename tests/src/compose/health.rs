//! When a component of the compose stack does its work, asked from the host.
//!
//! Owns readiness only. The health checks of `docker-compose.yml` decide the start order of a deployment and are
//! some seconds old; after a kill or a pause they may still tell of the time before.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::MetadataTopic;

use crate::client::{Connect, Sql};
use crate::stack::{Addresses, Component, wait_until};

const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until `component` is healthy; `check_running` fails when it has ended meanwhile.
pub(super) fn wait_healthy(
    component: Component,
    addresses: &Addresses,
    mut check_running: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut healthy = probe(component, addresses)?;
    wait_until(format!("{component} to be healthy"), || {
        check_running()?;
        Ok(healthy())
    })
}

fn probe(component: Component, addresses: &Addresses) -> Result<Box<dyn FnMut() -> bool>> {
    let missing = || format!("this stack has no {component}");
    Ok(match component {
        Component::Broker(node) => {
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &addresses.bootstrap_servers)
                .set("reconnect.backoff.max.ms", "200")
                // A broker that is not up yet is what is being waited for, not an error to print.
                .set("log_level", "0")
                .create()?;
            Box::new(move || is_in_sync(&client, i32::from(node)))
        }
        Component::Connect => {
            let connect = Connect::new(addresses.connect_url.as_deref().with_context(missing)?);
            Box::new(move || connect.is_healthy())
        }
        Component::SourceDatabase => database(addresses.source_database_url.clone().with_context(missing)?),
        Component::TargetDatabase => database(addresses.target_database_url.clone().with_context(missing)?),
        Component::Registry => {
            let url = addresses.registry_url.as_deref().with_context(missing)?;
            let subjects = format!("{url}/apis/ccompat/v7/subjects");
            Box::new(move || ureq::get(&subjects).call().is_ok())
        }
    })
}

fn database(url: String) -> Box<dyn FnMut() -> bool> {
    Box::new(move || Sql::connect(&url).is_ok())
}

/// Part of the cluster, and every partition it has a replica of is led and in sync on it.
fn is_in_sync(client: &BaseConsumer, node: i32) -> bool {
    let Ok(metadata) = client.fetch_metadata(None, METADATA_TIMEOUT) else { return false };
    metadata.brokers().iter().any(|broker| broker.id() == node)
        && metadata
            .topics()
            .iter()
            .flat_map(MetadataTopic::partitions)
            .filter(|partition| partition.replicas().contains(&node))
            .all(|partition| partition.leader() >= 0 && partition.isr().contains(&node))
}
