//! The native implementation of [`Stack`]: which servers there are, started in the right order.
//!
//! Owns the directory of a stack and every process in it. Never touches a process it did not start itself or find in
//! its own pid files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::connect::WorkerOptions;
use super::janitor::Janitor;
use super::jvm::Jvm;
use super::kafka::{BrokerPorts, ProxiedPorts};
use super::options::{Compiler, NativeOptions};
use super::ports::Port;
use super::progress::tell;
use super::registry::RegistryPorts;
use super::secured::{self, SecuredPorts};
use super::server::{Launch, Server};
use super::{connect, kafka, paths, postgres, program, provision, registry};
use crate::proxy::{Proxy, Route};
use crate::stack::{Addresses, Component, HostPort, Program, ProgramSpec, RunningProgram, Stack, Viewpoint};

/// Database of the shop.
const SOURCE_DATABASE: &str = "goods_db";
/// Database of the sink; its tables come from the sink's own migrations.
const TARGET_DATABASE: &str = "remains";

/// Real servers as local processes. Dropping it ends them and removes their directory, unless it stays up.
#[derive(Debug)]
pub struct NativeStack {
    // Servers first: they must be gone before the janitor is told to remove their directory.
    servers: BTreeMap<Component, Mutex<Server>>,
    directory: PathBuf,
    ports: Ports,
    stays_up: bool,
    _janitor: Option<Janitor>,
}

#[derive(Debug)]
struct Ports {
    brokers: Vec<BrokerPorts>,
    connect: Option<Port>,
    source: Option<Port>,
    target: Option<Port>,
    registry: Option<RegistryPorts>,
}

impl Ports {
    fn choose(options: &NativeOptions) -> Result<Self> {
        let fixed = options.ports.as_ref();
        let choose = |wanted: bool, port: Option<u16>| match (wanted, port) {
            (false, _) => Ok(None),
            (true, Some(port)) => Ok(Some(Port::fixed(port))),
            (true, None) => Port::reserve().map(Some),
        };
        let brokers = match fixed {
            Some(fixed) => fixed
                .brokers
                .iter()
                .map(|port| BrokerPorts {
                    client: Port::fixed(*port),
                    controller: Port::fixed(port + 100),
                    proxied: None,
                    secured: None,
                })
                .collect(),
            None => (0..options.brokers)
                .map(|_| {
                    let proxied = if options.proxied { Some(ProxiedPorts::reserve()?) } else { None };
                    let secured = if options.secured { Some(SecuredPorts::reserve()?) } else { None };
                    Ok(BrokerPorts { client: Port::reserve()?, controller: Port::reserve()?, proxied, secured })
                })
                .collect::<Result<_>>()?,
        };
        Ok(Self {
            brokers,
            connect: choose(options.connect, fixed.map(|ports| ports.connect))?,
            source: choose(options.source_database, fixed.map(|ports| ports.source_database))?,
            target: choose(options.target_database, fixed.map(|ports| ports.target_database))?,
            registry: if options.registry { Some(RegistryPorts::reserve(options.secured)?) } else { None },
        })
    }

    /// Address of one broker.
    fn broker(&self, node: u8) -> Result<String> {
        let ports = node.checked_sub(1).and_then(|index| self.brokers.get(usize::from(index)));
        let ports = ports.with_context(|| format!("this stack has no broker {node}"))?;
        Ok(format!("127.0.0.1:{}", ports.client.number()))
    }

    fn bootstrap_servers(&self) -> String {
        let addresses: Vec<String> =
            self.brokers.iter().map(|ports| format!("127.0.0.1:{}", ports.client.number())).collect();
        addresses.join(",")
    }
}

impl NativeStack {
    /// Starts 1 or 3 brokers and nothing else.
    pub fn brokers(brokers: u8) -> Result<Self> {
        NativeOptions::brokers(brokers).start()
    }

    /// Starts three brokers, Connect and both databases.
    pub fn full() -> Result<Self> {
        NativeOptions::full().start()
    }

    /// The directory with configuration, data, logs and pid files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Pid of a component while it runs.
    pub fn pid(&self, component: Component) -> Option<i32> {
        self.server(component).ok()?.pid()
    }

    /// A proxy in front of all brokers, for a client that bootstraps through it; needs
    /// [`NativeOptions::with_proxied_listener`]. One at a time.
    pub fn proxy(&self) -> Result<Proxy> {
        let route = |(broker, ports): (u8, &BrokerPorts)| {
            let proxied = ports.proxied.as_ref().context("the brokers have no listener for a proxy")?;
            let (advertised, listener) = (proxied.advertised.number(), proxied.listener.number());
            Ok(Route { broker, advertised, listener })
        };
        Proxy::start((1..).zip(&self.ports.brokers).map(route).collect::<Result<_>>()?)
    }

    /// Ports of the first broker's secured listeners.
    pub(super) fn secured_ports(&self) -> Result<&SecuredPorts> {
        self.ports.brokers.first().and_then(|ports| ports.secured.as_ref()).context("this stack is not secured")
    }

    /// Ports of the registry.
    pub(super) fn registry_ports(&self) -> Result<&RegistryPorts> {
        self.ports.registry.as_ref().context("this stack has no registry")
    }

    pub(super) fn start_with(options: &NativeOptions) -> Result<Self> {
        let began = Instant::now();
        provision::check_helpers()?;
        let (directory, janitor) = if let Some(directory) = &options.directory {
            (prepare_given(directory, options)?, None)
        } else {
            let directory = paths::new_run_directory()?;
            let keep = std::env::var_os("STACK_KEEP").is_some();
            let janitor = if keep { None } else { Some(Janitor::watch(&directory)?) };
            (directory, janitor)
        };
        for name in ["logs", "pids", "state"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let mut stack = Self {
            servers: BTreeMap::new(),
            directory,
            ports: Ports::choose(options)?,
            stays_up: options.directory.is_some(),
            _janitor: janitor,
        };
        if options.secured {
            secured::make_files(&stack.directory)?;
        }
        tell(format_args!("starting servers in {}", stack.directory.display()));
        stack.servers = stack.start_servers(options)?;
        tell(format_args!("all healthy after {:.1} s", began.elapsed().as_secs_f32()));
        Ok(stack)
    }

    /// Brokers (then Connect, which needs them) and the two databases side by side.
    fn start_servers(&self, options: &NativeOptions) -> Result<BTreeMap<Component, Mutex<Server>>> {
        let script = fs::read_to_string(paths::workspace_directory().join("deploy/postgres/source-init.sql"));
        let (kafka, registry, source, target) = std::thread::scope(|scope| {
            let source = scope.spawn(|| match &self.ports.source {
                Some(port) => self.start_database("source", port.number(), SOURCE_DATABASE, Some(&script?)).map(Some),
                None => Ok(None),
            });
            let target = scope.spawn(|| match &self.ports.target {
                Some(port) => self.start_database("target", port.number(), TARGET_DATABASE, None).map(Some),
                None => Ok(None),
            });
            let registry =
                scope.spawn(|| self.ports.registry.as_ref().map(|ports| self.start_registry(ports)).transpose());
            let panicked = || anyhow::anyhow!("starting a server panicked");
            let kafka = self.start_kafka(options);
            let registry = registry.join().map_err(|_| panicked());
            (kafka, registry, source.join().map_err(|_| panicked()), target.join().map_err(|_| panicked()))
        });
        let mut servers = kafka?;
        servers.extend(registry??.map(|server| (Component::Registry, server)));
        servers.extend(source??.map(|server| (Component::SourceDatabase, server)));
        servers.extend(target??.map(|server| (Component::TargetDatabase, server)));
        Ok(servers.into_iter().map(|(component, server)| (component, Mutex::new(server))).collect())
    }

    fn start_kafka(&self, options: &NativeOptions) -> Result<BTreeMap<Component, Server>> {
        let optimising = self.stays_up || options.compiler == Compiler::Optimising;
        let jvm = Jvm::prepare(&self.directory, optimising)?;
        let bootstrap = self.ports.bootstrap_servers();
        let mut brokers = kafka::brokers(
            &self.directory,
            &jvm,
            &self.ports.brokers,
            options.broker_heap_mb,
            &options.broker_properties,
            |name| self.launch(name),
        )?;
        brokers.iter_mut().try_for_each(Server::start)?;
        for (node, broker) in (1..).zip(&mut brokers) {
            kafka::wait_healthy(node, &self.ports.broker(node)?, || broker.check_running())?;
        }
        let count = brokers.len();
        let mut servers: BTreeMap<_, _> =
            (1..).zip(brokers).map(|(node, broker)| (Component::Broker(node), broker)).collect();
        if let Some(port) = &self.ports.connect {
            let mut plugins = provision::connect_plugins()?.display().to_string();
            if self.ports.registry.is_some() {
                plugins = format!("{plugins},{}", provision::connect_converters()?.display());
            }
            if options.jdbc_sink {
                plugins = format!("{plugins},{}", provision::connect_jdbc_sink()?.display());
            }
            let options = WorkerOptions {
                bootstrap_servers: &bootstrap,
                replication: count.min(3),
                port: port.number(),
                offset_flush_interval: options.offset_flush_interval,
                plugins: &plugins,
                scan: self.ports.registry.is_some(),
            };
            let mut worker = connect::worker(&self.directory, &jvm, options, self.launch("connect"))?;
            worker.start()?;
            connect::wait_healthy(&connect_url(port), || worker.check_running())?;
            servers.insert(Component::Connect, worker);
        }
        Ok(servers)
    }

    fn start_database(&self, name: &str, port: u16, database: &str, script: Option<&str>) -> Result<Server> {
        let mut server = postgres::server(&self.directory, name, port, self.launch(name))?;
        server.start()?;
        postgres::wait_healthy(port, || server.check_running())?;
        postgres::ensure_database(port, database, script)?;
        Ok(server)
    }

    fn start_registry(&self, ports: &RegistryPorts) -> Result<Server> {
        let mut server = registry::server(&self.directory, ports, self.launch("registry"))?;
        server.start()?;
        registry::wait_healthy(ports, || server.check_running())?;
        Ok(server)
    }

    fn launch(&self, name: &str) -> Launch {
        Launch::in_directory(name, &self.directory, self.stays_up)
    }

    fn server(&self, component: Component) -> Result<MutexGuard<'_, Server>> {
        let server = self.servers.get(&component).with_context(|| format!("this stack has no {component}"))?;
        // A panic of another test while it held the lock leaves a process handle that is as good as before.
        Ok(server.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn prepare_given(directory: &Path, options: &NativeOptions) -> Result<PathBuf> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let directory = directory.canonicalize()?;
    if options.source_database || options.target_database {
        paths::check_reachable(&directory)?;
    }
    Ok(directory)
}

fn connect_url(port: &Port) -> String {
    format!("http://127.0.0.1:{}", port.number())
}

impl Stack for NativeStack {
    fn backend(&self) -> &'static str {
        "native"
    }

    fn components(&self) -> Vec<Component> {
        self.servers.keys().copied().collect()
    }

    /// The same from both viewpoints: everything shares the loopback interface.
    fn addresses(&self, _from: Viewpoint) -> Addresses {
        let ports = &self.ports;
        let database = |port: &Option<Port>, name: &str| port.as_ref().map(|port| postgres::url(port.number(), name));
        Addresses {
            bootstrap_servers: ports.bootstrap_servers(),
            connect_url: ports.connect.as_ref().map(connect_url),
            source_database: ports
                .source
                .as_ref()
                .map(|port| HostPort { host: "127.0.0.1".to_owned(), port: port.number() }),
            source_database_url: database(&ports.source, SOURCE_DATABASE),
            target_database_url: database(&ports.target, TARGET_DATABASE),
            registry_url: ports.registry.as_ref().map(RegistryPorts::url),
        }
    }

    fn start(&self, component: Component) -> Result<()> {
        self.server(component)?.start()
    }

    fn stop(&self, component: Component) -> Result<()> {
        let signal = match component {
            // PostgreSQL's answer to SIGTERM is to wait until every client has left by itself.
            Component::SourceDatabase | Component::TargetDatabase => Signal::INT,
            Component::Broker(_) | Component::Connect | Component::Registry => Signal::TERM,
        };
        self.server(component)?.stop(signal)
    }

    fn kill(&self, component: Component) -> Result<()> {
        self.server(component)?.kill()
    }

    fn pause(&self, component: Component) -> Result<()> {
        self.server(component)?.pause()
    }

    fn resume(&self, component: Component) -> Result<()> {
        self.server(component)?.resume()
    }

    fn cut_off(&self, component: Component) -> Result<()> {
        self.pause(component)
    }

    fn reconnect(&self, component: Component) -> Result<()> {
        self.resume(component)
    }

    fn wait_healthy(&self, component: Component) -> Result<()> {
        let check_running = || self.server(component)?.check_running();
        if let (Component::Registry, Some(ports)) = (component, &self.ports.registry) {
            return registry::wait_healthy(ports, check_running);
        }
        match (component, &self.ports.connect, &self.ports.source, &self.ports.target) {
            (Component::Broker(node), ..) => kafka::wait_healthy(node, &self.ports.broker(node)?, check_running),
            (Component::Connect, Some(port), ..) => connect::wait_healthy(&connect_url(port), check_running),
            (Component::SourceDatabase, _, Some(port), _) | (Component::TargetDatabase, _, _, Some(port)) => {
                postgres::wait_healthy(port.number(), check_running)
            }
            _ => self.server(component).map(drop),
        }
    }

    fn log_tail(&self, component: Component) -> Result<String> {
        self.server(component)?.log_tail()
    }

    fn run(&self, spec: &ProgramSpec) -> Result<Box<dyn RunningProgram>> {
        let addresses = self.addresses(Viewpoint::Stack);
        let state = self.state_directory(&spec.name);
        let mut spec = spec.clone();
        let brokers = self.ports.brokers.len();
        // Three replicas unless told otherwise, which takes as many brokers.
        if spec.program == Program::Processor && brokers < 3 && !spec.has_flag("--replication-factor") {
            spec = spec.flag("--replication-factor", brokers);
        }
        Ok(Box::new(program::run(&spec, &addresses, &state, self.launch(&spec.name))?))
    }

    fn shared_directory(&self) -> &Path {
        &self.directory
    }

    fn state_directory(&self, program_name: &str) -> PathBuf {
        self.directory.join("state").join(program_name)
    }
}
