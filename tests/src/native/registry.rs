//! Apicurio Registry as a local process, with its Confluent-compatible API.
//!
//! Owns its command line and readiness. Its schemas are in a file that is written before an answer is given: a registry
//! that forgets an id it has handed out, and gives it to another schema after a kill, is no registry.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::ports::Port;
use super::provision;
use super::secured;
use super::server::{Launch, Server};
use crate::stack::wait_until;

const HEAP_MB: u32 = 384;

/// Ports of a registry.
#[derive(Debug)]
pub(super) struct RegistryPorts {
    pub(super) api: Port,
    /// Where its health is asked for.
    pub(super) management: Port,
    /// The same as `api` over TLS, where the stack is secured.
    pub(super) tls: Option<Port>,
}

impl RegistryPorts {
    pub(super) fn reserve(secured: bool) -> Result<Self> {
        let tls = if secured { Some(Port::reserve()?) } else { None };
        Ok(Self { api: Port::reserve()?, management: Port::reserve()?, tls })
    }

    /// Base URL, without a slash at the end.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api.number())
    }
}

/// Describes a registry in `directory`.
pub(super) fn server(directory: &Path, ports: &RegistryPorts, mut launch: Launch) -> Result<Server> {
    let home = directory.join("registry");
    fs::create_dir_all(&home)?;
    launch.program = provision::registry_java()?;
    launch.arguments = vec![
        format!("-Xmx{HEAP_MB}m"),
        "-XX:TieredStopAtLevel=1".to_owned(),
        "-Dquarkus.http.host=127.0.0.1".to_owned(),
        format!("-Dquarkus.http.port={}", ports.api.number()),
        "-Dquarkus.management.host=127.0.0.1".to_owned(),
        format!("-Dquarkus.management.port={}", ports.management.number()),
        "-Dapicurio.storage.kind=sql".to_owned(),
        "-Dapicurio.storage.sql.kind=h2".to_owned(),
        format!("-Dapicurio.datasource.url=jdbc:h2:file:{};WRITE_DELAY=0", home.join("schemas").display()),
    ];
    launch
        .arguments
        .extend(ports.tls.as_ref().map(|port| secured::registry_options(directory, port)).unwrap_or_default());
    let application = provision::registry_application()?.join("quarkus-run.jar");
    launch.arguments.extend(["-jar".to_owned(), application.display().to_string()]);
    launch.directory = home;
    Server::new(launch)
}

/// Waits until it answers, its storage included.
pub(super) fn wait_healthy(ports: &RegistryPorts, mut check_running: impl FnMut() -> Result<()>) -> Result<()> {
    let ready = format!("http://127.0.0.1:{}/health/ready", ports.management.number());
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
    wait_until("the registry to answer", || {
        check_running()?;
        Ok(agent.get(&ready).call().is_ok())
    })
}
