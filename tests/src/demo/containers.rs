//! The demonstration on containers: `docker-compose.yml` as it is, with its own ports and its default project.
//!
//! Owns calling the scripts of `deploy/`; what Compose and the engine are called here is decided there. An engine that
//! the demonstration itself had to start is remembered and ended with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::backend::{Backend, CONNECT_URL, CONNECTOR};
use super::screen::tell;
use crate::client::Connect;

/// The services of the compose file.
const PROCESSORS: [&str; 2] = ["processor-1", "processor-2"];
const SINKS: [&str; 2] = ["sink-1", "sink-2"];

pub(super) struct Containers {
    workspace: PathBuf,
}

impl Containers {
    fn new() -> Self {
        let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { workspace: crate_directory.parent().unwrap_or(crate_directory).to_path_buf() }
    }

    /// Where an engine answers now.
    pub(super) fn find() -> Option<Self> {
        let containers = Self::new();
        containers.output("deploy/engine.sh", &["variables"]).is_ok().then_some(containers)
    }

    /// Starts an engine, installing one if need be.
    pub(super) fn provide() -> Result<Self> {
        let containers = Self::new();
        tell("no container engine answers; trying to get one");
        containers.visible("deploy/engine.sh", &["up"]).context("no container engine can be had")?;
        let mark = containers.engine_is_ours();
        mark.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&mark, "")?;
        Ok(containers)
    }

    /// Exists when the engine was started for the demonstration.
    fn engine_is_ours(&self) -> PathBuf {
        self.workspace.join(".images/engine/started-for-demo")
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.workspace.join(script));
        command.args(arguments).current_dir(&self.workspace).stdin(Stdio::null());
        command
    }

    /// Runs a script whose words a person shall see.
    fn visible(&self, script: &str, arguments: &[&str]) -> Result<()> {
        let status = self.command(script, arguments).status().with_context(|| format!("cannot run {script}"))?;
        ensure!(status.success(), "{script} {} failed ({status}); it says why above", arguments.join(" "));
        Ok(())
    }

    /// Runs a script for what it prints.
    fn output(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(script, arguments).output().with_context(|| format!("cannot run {script}"))?;
        if !output.status.success() {
            bail!("{script} {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn compose(&self, arguments: &[&str]) -> Result<String> {
        self.output("deploy/compose.sh", arguments)
    }

    /// Whether no container runs at all.
    fn engine_is_idle(&self) -> Result<bool> {
        let variables = self.output("deploy/engine.sh", &["variables"])?;
        let value = |name: &str| variables.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let mut command = Command::new(value("DOCKER="));
        let version = value("DOCKER_API_VERSION=");
        if !version.is_empty() {
            command.env("DOCKER_API_VERSION", version);
        }
        let output = command.args(["ps", "-q"]).output().context("cannot run the client of the container engine")?;
        Ok(output.status.success() && output.stdout.trim_ascii().is_empty())
    }

    fn log(&self, service: &str) -> Result<String> {
        self.compose(&["logs", "--no-color", service])
    }
}

impl Backend for Containers {
    fn title(&self) -> &'static str {
        "containers (docker-compose.yml)"
    }

    fn is_up(&self) -> Result<bool> {
        Ok(!self.compose(&["ps", "-q"])?.trim().is_empty())
    }

    fn up(&mut self) -> Result<()> {
        tell("images: pulled, or built from packages where none can be pulled");
        self.visible("deploy/images/build.sh", &[])
            .context("without images there are no containers. To do: as it says, or DEMO_BACKEND=native make demo")?;
        tell("docker compose up -d");
        self.visible("deploy/compose.sh", &["up", "-d"])?;
        tell("waiting for the connector, which a one-shot service registers");
        let connect = Connect::new(CONNECT_URL);
        connect.wait_running(CONNECTOR)
    }

    fn down(&self) -> Result<()> {
        let down = ["down", "-v", "--remove-orphans"];
        if self.is_up()? {
            self.visible("deploy/compose.sh", &down)?;
        } else {
            // Volumes of earlier containers may be left; that there are none is nothing to read about.
            self.compose(&down)?;
        }
        let mark = self.engine_is_ours();
        if !mark.exists() {
            return Ok(());
        }
        fs::remove_file(&mark)?;
        // Others may have found it useful meanwhile.
        if self.engine_is_idle()? { self.visible("deploy/engine.sh", &["down"]) } else { Ok(()) }
    }

    fn stop_processors(&self) -> Result<()> {
        self.compose(&[&["stop"][..], &PROCESSORS].concat()).map(drop)
    }

    fn start_processors(&self) -> Result<()> {
        self.compose(&[&["start"][..], &PROCESSORS].concat()).map(drop)
    }

    fn processor_logs(&self) -> Result<Vec<String>> {
        PROCESSORS.iter().map(|service| self.log(service)).collect()
    }

    fn log_tails(&self) -> Vec<String> {
        PROCESSORS
            .iter()
            .chain(&SINKS)
            .map(|service| format!("--- {service}\n{}", crate::scenario::tail(&self.log(service).unwrap_or_default())))
            .collect()
    }

    fn operating(&self) -> Vec<String> {
        vec![
            "deploy/compose.sh ps".to_owned(),
            "deploy/compose.sh logs -f processor-1    (docker compose …)".to_owned(),
        ]
    }
}
