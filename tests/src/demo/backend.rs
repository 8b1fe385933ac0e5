//! What the demonstration runs on: one interface over containers and local processes, and the choice between them.
//!
//! Owns the addresses, which are the same on both, so that a line typed once works on either.

use std::net::TcpListener;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use super::containers::Containers;
use super::processes::Processes;
use super::screen::{say, tell};

/// As librdkafka and kcat take it.
pub(super) const BOOTSTRAP_SERVERS: &str = "localhost:29092,localhost:29093,localhost:29094";
/// Where the shop writes.
pub(super) const SOURCE_URL: &str = "postgres://postgres:postgres@localhost:25432/goods_db";
/// Where the remains appear.
pub(super) const TARGET_URL: &str = "postgres://postgres:postgres@localhost:25433/remains";
/// Kafka Connect.
pub(super) const CONNECT_URL: &str = "http://localhost:8083";
/// HTTP of the processors.
pub(super) const PROCESSOR_PORTS: [u16; 2] = [8081, 8082];
/// HTTP of the sinks.
pub(super) const SINK_PORTS: [u16; 2] = [8086, 8087];
/// What Debezium writes and the processors read.
pub(super) const INPUT_TOPIC: &str = "warehouse.orders.transactions";
/// Start of the names of the processors' own topics.
pub(super) const TOPIC_PREFIX: &str = "warehouse.stock";
/// The processors' consumer group.
pub(super) const APPLICATION_ID: &str = "stock";
/// The connector.
pub(super) const CONNECTOR: &str = "orders-connector";

/// Containers or local processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    /// The servers as local processes.
    Native,
    /// docker-compose.yml.
    Compose,
}

/// What the story needs from what it runs on.
pub(super) trait Backend {
    /// In words, for a person.
    fn title(&self) -> &'static str;

    /// Whether anything of it is up.
    fn is_up(&self) -> Result<bool>;

    /// Starts what does not run: servers, connector, processors, sinks.
    fn up(&mut self) -> Result<()>;

    /// Removes all of it. What is not there is no error.
    fn down(&self) -> Result<()>;

    /// Stops the processors cleanly (SIGTERM) and waits until they have ended.
    fn stop_processors(&self) -> Result<()>;

    /// Starts the processors that were stopped.
    fn start_processors(&self) -> Result<()>;

    /// Everything each processor has logged so far.
    fn processor_logs(&self) -> Result<Vec<String>>;

    /// The end of the logs of processors and sinks, for the message of a failure.
    fn log_tails(&self) -> Vec<String>;

    /// How a person looks at processes and logs.
    fn operating(&self) -> Vec<String>;
}

/// The backend to use: the one that is up, the one asked for, containers where they can be had, or local processes.
pub(super) fn choose(wanted: Option<BackendName>) -> Result<Box<dyn Backend>> {
    let processes = Processes::new();
    let containers = Containers::find();
    let native_is_up = processes.is_up()?;
    let compose_is_up = containers.as_ref().map_or(Ok(false), Backend::is_up)?;
    let up = match (native_is_up, compose_is_up) {
        (true, true) => bail!("it is up twice, as containers and as local processes. To do: make down"),
        (true, false) => Some(BackendName::Native),
        (false, true) => Some(BackendName::Compose),
        (false, false) => None,
    };
    if let Some(up) = up {
        ensure!(
            wanted.is_none_or(|wanted| wanted == up),
            "it is up already, but as {}. To do: make down, then again",
            if up == BackendName::Native { "local processes" } else { "containers" }
        );
        tell("it is up already from an earlier run; what is missing is started");
    } else {
        check_ports()?;
    }
    match (wanted.or(up), containers) {
        (Some(BackendName::Native), _) => Ok(Box::new(processes)),
        (_, Some(containers)) => Ok(Box::new(containers)),
        (Some(BackendName::Compose), None) => Ok(Box::new(Containers::provide()?)),
        (None, None) => match Containers::provide() {
            Ok(containers) => Ok(Box::new(containers)),
            Err(error) => {
                tell(format_args!("no containers here: {error:#}"));
                tell("so the same servers run as local processes");
                Ok(Box::new(processes))
            }
        },
    }
}

/// The ports people know by heart must be free before anything is started.
fn check_ports() -> Result<()> {
    let servers = [29_092, 29_093, 29_094, 25_432, 25_433, 8083];
    let taken: Vec<String> = servers
        .into_iter()
        .chain(PROCESSOR_PORTS)
        .chain(SINK_PORTS)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_err())
        .map(|port| port.to_string())
        .collect();
    ensure!(
        taken.is_empty(),
        "other programs listen on ports the demonstration needs: {}. To do: end them (ss -ltnp shows which they are)",
        taken.join(", ")
    );
    Ok(())
}

/// Removes everything, whichever backend it is on.
pub fn down() -> Result<()> {
    let mut backends: Vec<Box<dyn Backend>> = vec![Box::new(Processes::new())];
    if let Some(containers) = Containers::find() {
        backends.push(Box::new(containers));
    }
    let mut removed = false;
    for backend in backends {
        if backend.is_up()? {
            say(format_args!("removing {}", backend.title()));
            removed = true;
        }
        // Also when nothing runs: volumes and directories may be left.
        backend.down()?;
    }
    say(if removed {
        "removed: processes, containers, volumes, directories"
    } else {
        "nothing was up; nothing is left"
    });
    Ok(())
}

/// Says what is up.
pub fn status() -> Result<()> {
    let mut backends: Vec<Box<dyn Backend>> = vec![Box::new(Processes::new())];
    if let Some(containers) = Containers::find() {
        backends.push(Box::new(containers));
    }
    let mut any = false;
    for backend in backends {
        if backend.is_up()? {
            any = true;
            say(format_args!("up: {}", backend.title()));
            backend.operating().iter().for_each(tell);
        }
    }
    if !any {
        say("nothing is up (make demo starts it)");
    }
    Ok(())
}
