//! The demonstration on local processes: the native stack, left up, with two processors and two sinks beside it.
//!
//! Every process is recorded by a pid file in the stack's directory; `make down` ends those and no other.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::backend::{
    APPLICATION_ID, BOOTSTRAP_SERVERS, Backend, CONNECTOR, INPUT_TOPIC, PROCESSOR_PORTS, SINK_PORTS, TOPIC_PREFIX,
};
use super::screen::tell;
use crate::client::{Connect, Kafka, NewTopic, orders_connector};
use crate::native::{FixedPorts, GUIDE, NativeOptions, NativeStack, default_up_directory, end, end_all, recorded};
use crate::stack::{ProgramSpec, Stack as _, Viewpoint};

/// As `docker-compose.yml` creates the input topic.
const INPUT_PARTITIONS: i32 = 10;

pub(super) struct Processes {
    directory: PathBuf,
    stack: Option<NativeStack>,
}

impl Processes {
    pub(super) fn new() -> Self {
        Self { directory: default_up_directory(), stack: None }
    }

    fn stack(&self) -> Result<&NativeStack> {
        self.stack.as_ref().context("the native stack is not started")
    }

    fn runs(&self, name: &str) -> Result<bool> {
        Ok(recorded(&self.directory)?.iter().any(|process| process.name == name && process.pid.is_some()))
    }

    /// Starts a program unless it runs; it stays up after us.
    fn ensure(&self, spec: &ProgramSpec) -> Result<()> {
        if !self.runs(&spec.name)? {
            drop(self.stack()?.run(spec)?);
        }
        Ok(())
    }

    fn register_connector(&self) -> Result<()> {
        let kafka = Kafka::new(BOOTSTRAP_SERVERS);
        if !kafka.topics()?.iter().any(|topic| topic == INPUT_TOPIC) {
            let topic = NewTopic::new(INPUT_TOPIC, INPUT_PARTITIONS)
                .property("cleanup.policy", "delete")
                .property("retention.ms", -1)
                .property("max.message.bytes", 4 << 20);
            kafka.create_topic(&topic)?;
        }
        let source =
            self.stack()?.addresses(Viewpoint::Stack).source_database.context("there is no source database")?;
        Connect::new(super::backend::CONNECT_URL).register(CONNECTOR, &orders_connector(&source))
    }

    fn start_sinks(&self) -> Result<()> {
        for (name, port) in named("sink", SINK_PORTS) {
            let spec = ProgramSpec::sink(name)
                .flag("--topic-prefix", TOPIC_PREFIX)
                .flag("--group-id", "stock-sink")
                .flag("--http", format!("127.0.0.1:{port}"));
            self.ensure(&spec)?;
        }
        Ok(())
    }

    fn log(&self, name: &str) -> Result<String> {
        let path = self.directory.join("logs").join(format!("{name}.log"));
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// `processor-1` and `processor-2` with their ports, named as the services of the compose file.
fn named(program: &str, ports: [u16; 2]) -> impl Iterator<Item = (String, u16)> {
    (1..).zip(ports).map(move |(number, port)| (format!("{program}-{number}"), port))
}

impl Backend for Processes {
    fn title(&self) -> &'static str {
        "local processes (three brokers, Connect, two PostgreSQL servers, 2 processors, 2 sinks)"
    }

    fn is_up(&self) -> Result<bool> {
        Ok(recorded(&self.directory)?.iter().any(|process| process.pid.is_some()))
    }

    fn up(&mut self) -> Result<()> {
        // Marked before anything runs: whatever happens next, `down` can clean it up.
        fs::create_dir_all(&self.directory).with_context(|| format!("cannot create {}", self.directory.display()))?;
        fs::write(self.directory.join(GUIDE), "the stack of make demo; make down removes it\n")?;
        tell(format_args!("servers, logs and data are in {}", self.directory.display()));
        let options = NativeOptions::full().staying_up_in(self.directory.clone(), FixedPorts::default());
        self.stack = Some(options.start()?);
        tell("servers are up; registering the connector");
        self.register_connector()?;
        tell("starting two processors and two sinks");
        self.start_processors()?;
        self.start_sinks()
    }

    fn down(&self) -> Result<()> {
        end_all(&self.directory, false).map(drop)
    }

    fn stop_processors(&self) -> Result<()> {
        named("processor", PROCESSOR_PORTS).try_for_each(|(name, _)| end(&self.directory, &name).map(drop))
    }

    fn start_processors(&self) -> Result<()> {
        for (name, port) in named("processor", PROCESSOR_PORTS) {
            let spec = ProgramSpec::processor(name)
                .flag("--source-topic", INPUT_TOPIC)
                .flag("--topic-prefix", TOPIC_PREFIX)
                .flag("--application-id", APPLICATION_ID)
                .flag("--http", format!("127.0.0.1:{port}"));
            self.ensure(&spec)?;
        }
        Ok(())
    }

    fn processor_logs(&self) -> Result<Vec<String>> {
        named("processor", PROCESSOR_PORTS).map(|(name, _)| self.log(&name)).collect()
    }

    fn log_tails(&self) -> Vec<String> {
        named("processor", PROCESSOR_PORTS)
            .chain(named("sink", SINK_PORTS))
            .map(|(name, _)| format!("--- {name}\n{}", crate::scenario::tail(&self.log(&name).unwrap_or_default())))
            .collect()
    }

    fn operating(&self) -> Vec<String> {
        vec![
            format!("ls {0}/logs    (logs; pid files are in {0}/pids)", self.directory.display()),
            "make status".to_owned(),
        ]
    }
}
