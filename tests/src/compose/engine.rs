//! The container engine's and Compose's command lines.
//!
//! Owns how they are called and how their failures are told. Which client and which Compose a machine has is decided
//! in one place, `deploy/engine.sh`, for the scripts and the tests alike.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::stack::{PATIENCE, wait_until};

/// Set where a missing engine must fail the tests instead of skipping them.
const REQUIRED: &str = "STACK_REQUIRE_COMPOSE";
/// Set to use the images as they are: by whoever has just built or pulled them, or wants to test others.
const IMAGES_AS_THEY_ARE: &str = "STACK_IMAGES_AS_THEY_ARE";

/// Whether scenarios can run on compose here.
///
/// Without an engine it says so loudly and returns false, for the scenario to skip itself; with
/// `STACK_REQUIRE_COMPOSE` set (CI) it fails instead.
pub fn available() -> Result<bool> {
    let Err(error) = Engine::find() else { return Ok(true) };
    if std::env::var_os(REQUIRED).is_some() {
        return Err(error.context(format!("{REQUIRED} is set")));
    }
    tell(format_args!("*** SKIPPED, NOT PASSED: scenarios on docker compose. {error:#} ***"));
    Ok(false)
}

/// How to talk to the engine.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    docker: String,
    compose: Vec<String>,
    api_version: Option<String>,
}

impl Engine {
    /// Asks `deploy/engine.sh` what there is; its words are the error when there is nothing.
    pub(super) fn find() -> Result<Self> {
        let script = workspace().join("deploy/engine.sh");
        let output = Command::new(&script)
            .arg("variables")
            .output()
            .with_context(|| format!("cannot run {}", script.display()))?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(variables: &str) -> Result<Self> {
        let variables: BTreeMap<&str, &str> = variables.lines().filter_map(|line| line.split_once('=')).collect();
        let value = |name: &str| variables.get(name).copied().filter(|value| !value.is_empty());
        Ok(Self {
            docker: value("DOCKER").context("deploy/engine.sh names no client")?.to_owned(),
            compose: value("COMPOSE")
                .context("deploy/engine.sh names no Compose")?
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            api_version: value("DOCKER_API_VERSION").map(str::to_owned),
        })
    }

    /// Builds or pulls images of `docker-compose.yml` that are missing, and ours when the sources have changed; see
    /// `deploy/images/build.sh` for the names.
    pub(super) fn ensure_images(names: &[&str]) -> Result<()> {
        if std::env::var_os(IMAGES_AS_THEY_ARE).is_some() {
            return Ok(());
        }
        let script = workspace().join("deploy/images/build.sh");
        let output =
            Command::new(&script).args(names).output().with_context(|| format!("cannot run {}", script.display()))?;
        if !output.status.success() {
            bail!("images {} cannot be had:\n{}", names.join(", "), merged(&output));
        }
        Ok(())
    }

    /// A client command, not yet run.
    pub(super) fn docker(&self) -> Command {
        self.command(&self.docker)
    }

    /// Runs a client command; returns what it wrote to standard output.
    pub(super) fn run<I, S>(&self, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.docker();
        command.args(arguments);
        succeed(&mut command).map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Freezes a container. The kernel may not be done with it in the time that the runtime gives it on a busy machine.
    pub(super) fn pause(&self, container: &str) -> Result<()> {
        wait_until(format!("container {container} to be frozen"), || match self.run(["pause", container]) {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains("unable to freeze") => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// The last lines of a container's log, both streams.
    pub(super) fn log_tail(&self, container: &str, lines: u32) -> Result<String> {
        let mut command = self.docker();
        command.args(["logs", "--tail", &lines.to_string(), container]);
        succeed(&mut command).map(|output| merged(&output))
    }

    /// Runs a Compose command on a project, with values for the variables of the file.
    pub(super) fn compose(&self, project: &str, variables: &[(String, String)], arguments: &[&str]) -> Result<()> {
        let words = self.compose_words(project);
        let (program, first) = words.split_first().context("an empty Compose command")?;
        let mut command = self.command(program);
        command.args(first).args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
        succeed(&mut command).map(drop)
    }

    /// The words that begin every Compose command on a project.
    pub(super) fn compose_words(&self, project: &str) -> Vec<String> {
        let file = workspace().join("docker-compose.yml");
        let mut words = self.compose.clone();
        words.extend(["-p".to_owned(), project.to_owned(), "-f".to_owned(), file.display().to_string()]);
        words
    }

    /// Any command, with the environment the client needs.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Compose 1 gives the engine a minute for each answer, which is a statement about the machine's speed.
        command.env("COMPOSE_HTTP_TIMEOUT", PATIENCE.as_secs().to_string());
        if let Some(version) = &self.api_version {
            command.env("DOCKER_API_VERSION", version);
        }
        command
    }

    pub(super) fn client(&self) -> &str {
        &self.docker
    }
}

fn succeed(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(anyhow!("{command:?} failed: {}", merged(&output)))
}

fn merged(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    text.trim_end().to_owned()
}

/// The top of the checkout.
pub(super) fn workspace() -> PathBuf {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_directory.parent().unwrap_or(crate_directory).to_path_buf()
}

/// Tells one line on standard error itself: what goes through the print macros is captured by the test harness.
pub(super) fn tell(message: std::fmt::Arguments<'_>) {
    // A closed standard error is no reason to fail.
    let _best_effort = writeln!(std::io::stderr().lock(), "[compose] {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_compose_begin_with_project_and_file() {
        for (compose, words) in [("docker compose", 2), ("docker-compose", 1)] {
            let engine = Engine::parse(&format!("DOCKER=docker\nCOMPOSE={compose}\nDOCKER_API_VERSION=\n")).unwrap();
            let all = engine.compose_words("p");
            assert_eq!(all[..words].join(" "), compose);
            assert_eq!(all[words..words + 3], ["-p", "p", "-f"]);
            assert_eq!(engine.api_version, None);
        }
    }

    #[test]
    fn a_machine_without_compose_is_refused() {
        assert!(Engine::parse("DOCKER=docker\nCOMPOSE=\n").is_err());
    }
}
