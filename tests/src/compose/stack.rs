//! The compose implementation of [`Stack`].
//!
//! Owns one project: its containers, network, volumes and a directory on the host with the programs' state and logs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::engine::{Engine, tell};
use super::health;
use super::janitor::Janitor;
use super::options::ComposeOptions;
use super::program::{self, Place};
use super::slot::{Server, Slot};
use crate::stack::{Addresses, Component, HostPort, ProgramSpec, RunningProgram, Stack, Viewpoint};

/// Lines of a log that a failed test wants to see.
const LOG_TAIL: u32 = 60;

/// Containers of `docker-compose.yml`. Dropping it removes them with volumes, network and directory.
#[derive(Debug)]
pub struct ComposeStack {
    engine: Engine,
    project: String,
    directory: PathBuf,
    containers: BTreeMap<Component, String>,
    /// Names of programs, each at the place that is its port.
    programs: Mutex<Vec<String>>,
    slot: Slot,
    // Last: it must see the end of everything else.
    _janitor: Option<Janitor>,
}

impl ComposeStack {
    /// Starts three brokers and nothing else.
    pub fn brokers() -> Result<Self> {
        ComposeOptions::brokers().start()
    }

    /// Starts three brokers, Connect and both databases.
    pub fn full() -> Result<Self> {
        ComposeOptions::full().start()
    }

    /// Directory on this host that every program sees under the same path: the place for files named in flags.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Name of the compose project.
    pub fn project(&self) -> &str {
        &self.project
    }

    pub(super) fn start_with(options: &ComposeOptions) -> Result<Self> {
        let began = Instant::now();
        let engine = Engine::find()?;
        Engine::ensure_images(&images(&options.components))?;
        let slot = Slot::acquire()?;
        let project = slot.project();
        Janitor::sweep(&engine, &project)?;
        slot.check_ports()?;
        let directory = new_directory()?;
        let keep = std::env::var_os("STACK_KEEP").is_some();
        let janitor = if keep { None } else { Some(Janitor::watch(&engine, &project, &directory, slot.lock()?)?) };
        tell(format_args!("starting project {project}"));
        let mut stack = Self {
            engine,
            project,
            directory,
            containers: BTreeMap::new(),
            programs: Mutex::new(Vec::new()),
            slot,
            _janitor: janitor,
        };
        let services: Vec<String> = options.components.iter().map(|component| service(*component)).collect();
        let mut arguments = vec!["up", "-d"];
        arguments.extend(services.iter().map(String::as_str));
        stack.engine.compose(&stack.project, &stack.variables(options), &arguments)?;
        for component in &options.components {
            stack.containers.insert(*component, stack.find_container(*component)?);
        }
        stack.wait_all_healthy()?;
        tell(format_args!("{} is healthy after {:.1} s", stack.project, began.elapsed().as_secs_f32()));
        Ok(stack)
    }

    /// Values for the variables of `docker-compose.yml`.
    fn variables(&self, options: &ComposeOptions) -> Vec<(String, String)> {
        let mut variables: Vec<(String, String)> = [
            ("KAFKA_1_PORT", Server::Broker1),
            ("KAFKA_2_PORT", Server::Broker2),
            ("KAFKA_3_PORT", Server::Broker3),
            ("CONNECT_PORT", Server::Connect),
            ("SOURCE_DB_PORT", Server::SourceDatabase),
            ("REMAINS_DB_PORT", Server::TargetDatabase),
            ("REGISTRY_PORT", Server::Registry),
        ]
        .map(|(name, server)| (name.to_owned(), self.slot.port(server).to_string()))
        .to_vec();
        let interval = options.offset_flush_interval.as_millis().to_string();
        variables.push(("OFFSET_FLUSH_INTERVAL_MS".to_owned(), interval));
        // Every look starts a process, and tests look for themselves.
        variables.push(("HEALTHCHECK_INTERVAL".to_owned(), "10s".to_owned()));
        // The quick compiler alone: short-lived servers never get back what the optimising one costs.
        let options = "-Xms256m -Xmx512m -XX:TieredStopAtLevel=1";
        for name in ["KAFKA_HEAP_OPTS", "CONNECT_HEAP_OPTS"] {
            variables.push((name.to_owned(), options.to_owned()));
        }
        variables
    }

    /// By label: how Compose names containers differs between its versions.
    fn find_container(&self, component: Component) -> Result<String> {
        let found = self.engine.run([
            "ps",
            "-aq",
            "--no-trunc",
            "--filter",
            &format!("label=com.docker.compose.project={}", self.project),
            "--filter",
            &format!("label=com.docker.compose.service={}", service(component)),
        ])?;
        match found.lines().collect::<Vec<_>>().as_slice() {
            [id] => Ok((*id).to_owned()),
            other => bail!("{} containers of {component} in project {}", other.len(), self.project),
        }
    }

    fn container(&self, component: Component) -> Result<&str> {
        self.containers.get(&component).map(String::as_str).with_context(|| format!("this stack has no {component}"))
    }

    /// `created`, `running`, `paused`, `exited` …, as the engine calls it.
    fn status(&self, component: Component) -> Result<String> {
        self.engine.run(["inspect", "-f", "{{.State.Status}}", self.container(component)?])
    }

    /// The place of a program among those of this stack; one that is gone leaves its place to another.
    fn program_place(&self, name: &str) -> usize {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = programs.iter().position(|program| program == name) {
            return known;
        }
        let is_full = programs.len() >= Slot::PROGRAMS.into();
        let is_gone = |program: &String| !program::exists(&self.engine, &self.project, program);
        let gone = if is_full { programs.iter_mut().enumerate().find(|(_, program)| is_gone(program)) } else { None };
        if let Some((place, program)) = gone {
            name.clone_into(program);
            return place;
        }
        programs.push(name.to_owned());
        programs.len() - 1
    }

    fn check_running(&self, component: Component) -> Result<()> {
        let status = self.status(component)?;
        if status != "running" {
            bail!("{component} is {status}; its log ends with\n{}", self.log_tail(component)?);
        }
        Ok(())
    }

    fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    fn has(&self, component: Component) -> bool {
        self.containers.contains_key(&component)
    }

    fn database_url(&self, from: Viewpoint, component: Component, server: Server, name: &str) -> Option<String> {
        let address = match from {
            Viewpoint::Host => format!("127.0.0.1:{}", self.slot.port(server)),
            Viewpoint::Stack => format!("{}:5432", service(component)),
        };
        self.has(component).then(|| format!("postgres://postgres:postgres@{address}/{name}"))
    }

    fn http_url(&self, from: Viewpoint, component: Component, server: Server, port: u16) -> Option<String> {
        let address = match from {
            Viewpoint::Host => format!("127.0.0.1:{}", self.slot.port(server)),
            Viewpoint::Stack => format!("{}:{port}", service(component)),
        };
        self.has(component).then(|| format!("http://{address}"))
    }
}

/// Name of a component's service in `docker-compose.yml`.
fn service(component: Component) -> String {
    match component {
        Component::Broker(number) => format!("kafka-{number}"),
        Component::Connect => "connect".to_owned(),
        Component::SourceDatabase => "db".to_owned(),
        Component::TargetDatabase => "remains-db".to_owned(),
        Component::Registry => "registry".to_owned(),
    }
}

/// What `deploy/images/build.sh` calls the images of these components.
fn images(components: &[Component]) -> Vec<&'static str> {
    let mut names: Vec<_> = components
        .iter()
        .map(|component| match component {
            Component::Broker(_) => "kafka",
            Component::Connect => "connect",
            Component::SourceDatabase | Component::TargetDatabase => "postgres",
            Component::Registry => "registry",
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn new_directory() -> Result<PathBuf> {
    let directory = tempfile::Builder::new()
        .prefix("compose-stack-")
        .tempdir()
        .context("cannot create a directory for the stack")?
        .keep();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    for name in ["logs", "state"] {
        fs::create_dir(directory.join(name))?;
    }
    Ok(directory)
}

impl Stack for ComposeStack {
    fn backend(&self) -> &'static str {
        "compose"
    }

    fn components(&self) -> Vec<Component> {
        self.containers.keys().copied().collect()
    }

    fn addresses(&self, from: Viewpoint) -> Addresses {
        let bootstrap_servers = match from {
            Viewpoint::Host => [Server::Broker1, Server::Broker2, Server::Broker3]
                .map(|broker| format!("127.0.0.1:{}", self.slot.port(broker)))
                .join(","),
            Viewpoint::Stack => "kafka-1:19092,kafka-2:19092,kafka-3:19092".to_owned(),
        };
        let (source, target) = (Component::SourceDatabase, Component::TargetDatabase);
        let source_database = match from {
            Viewpoint::Host => HostPort { host: "127.0.0.1".to_owned(), port: self.slot.port(Server::SourceDatabase) },
            Viewpoint::Stack => HostPort { host: service(source), port: 5432 },
        };
        Addresses {
            bootstrap_servers,
            connect_url: self.http_url(from, Component::Connect, Server::Connect, 8083),
            source_database: self.has(source).then_some(source_database),
            source_database_url: self.database_url(from, source, Server::SourceDatabase, "goods_db"),
            target_database_url: self.database_url(from, target, Server::TargetDatabase, "remains"),
            registry_url: self.http_url(from, Component::Registry, Server::Registry, 8080),
        }
    }

    fn start(&self, component: Component) -> Result<()> {
        self.engine.run(["start", self.container(component)?]).map(drop)
    }

    fn stop(&self, component: Component) -> Result<()> {
        self.resume(component)?;
        self.engine.run(["stop", "-t", "60", self.container(component)?]).map(drop)
    }

    fn kill(&self, component: Component) -> Result<()> {
        program::kill(&self.engine, self.container(component)?)
    }

    fn pause(&self, component: Component) -> Result<()> {
        self.engine.pause(self.container(component)?)
    }

    fn resume(&self, component: Component) -> Result<()> {
        if self.status(component)? != "paused" {
            return Ok(());
        }
        self.engine.run(["unpause", self.container(component)?]).map(drop)
    }

    fn cut_off(&self, component: Component) -> Result<()> {
        self.engine.run(["network", "disconnect", &self.network(), self.container(component)?]).map(drop)
    }

    fn reconnect(&self, component: Component) -> Result<()> {
        // The name under which the others know it is a property of the connection, gone with the old one.
        let (network, container) = (self.network(), self.container(component)?);
        self.engine.run(["network", "connect", "--alias", &service(component), &network, container]).map(drop)
    }

    fn wait_healthy(&self, component: Component) -> Result<()> {
        health::wait_healthy(component, &self.addresses(Viewpoint::Host), || self.check_running(component))
    }

    fn log_tail(&self, component: Component) -> Result<String> {
        self.engine.log_tail(self.container(component)?, LOG_TAIL)
    }

    fn run(&self, spec: &ProgramSpec) -> Result<Box<dyn RunningProgram>> {
        let place = Place {
            engine: &self.engine,
            project: &self.project,
            network: &self.network(),
            directory: &self.directory,
            state: &self.state_directory(&spec.name),
            http_port: self.slot.program_port(self.program_place(&spec.name))?,
            addresses: &self.addresses(Viewpoint::Stack),
        };
        Ok(Box::new(program::run(spec, &place)?))
    }

    fn shared_directory(&self) -> &Path {
        &self.directory
    }

    fn state_directory(&self, program_name: &str) -> PathBuf {
        self.directory.join("state").join(program_name)
    }
}
