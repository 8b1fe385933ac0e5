//! Processors and sinks as containers beside the servers.
//!
//! Owns the container of a running program and the file its output goes to. The images are those of the deployment,
//! so what the scenarios test is what is deployed.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};

use super::engine::{Engine, tell};
use super::janitor::PROGRAM_LABEL;
use crate::stack::{Addresses, Exit, Program, ProgramSpec, RunningProgram, Unsupported};

/// Port inside the container, unless the scenario chose another.
const HTTP_PORT: u16 = 8080;

/// Where a program is to run.
pub(super) struct Place<'a> {
    pub(super) engine: &'a Engine,
    pub(super) project: &'a str,
    pub(super) network: &'a str,
    /// Mounted under the same path, so that a path in a flag means the same inside and outside.
    pub(super) directory: &'a Path,
    pub(super) state: &'a Path,
    pub(super) http_port: u16,
    pub(super) addresses: &'a Addresses,
}

/// A processor or sink started by a compose stack.
#[derive(Debug)]
pub(super) struct ComposeProgram {
    name: String,
    engine: Engine,
    /// The container's id: its name may by now belong to a later run.
    container: String,
    http: SocketAddr,
    log: PathBuf,
    /// Copies the container's output to the log file and ends with it.
    follower: Child,
}

/// Starts what `spec` says.
pub(super) fn run(spec: &ProgramSpec, place: &Place<'_>) -> Result<ComposeProgram> {
    if spec.with_fail_points {
        let operation = "run a program with fail points".to_owned();
        return Err(Unsupported { backend: "compose", operation }.into());
    }
    ensure_image(spec.program)?;
    let name = container_name(place.project, &spec.name);
    remove_ended(place.engine, &name)?;
    let spec = with_supplied_flags(spec, place)?;
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut command = place.engine.docker();
    command
        .args(["run", "-d", "--name", &name, "--network", place.network])
        .args(["--label", &format!("{PROGRAM_LABEL}={}", place.project)])
        .args(["-p", &format!("127.0.0.1:{}:{}", place.http_port, http_port(&spec)?)])
        // Files in the state directory belong to whoever runs the tests, who may want to damage or remove them.
        .args(["--user", &format!("{user}:{group}")])
        .args(["-v", &format!("{0}:{0}", place.directory.display())]);
    for (name, value) in &spec.environment {
        command.args(["-e", &format!("{name}={value}")]);
    }
    command.arg(image(spec.program)).arg("run").args(spec.arguments());
    let output = command.output().context("cannot run the engine's client")?;
    if !output.status.success() {
        bail!("{} did not start: {}", spec.name, String::from_utf8_lossy(&output.stderr).trim());
    }
    let container = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let log = place.directory.join("logs").join(format!("{}.log", spec.name));
    let follower = follow(place.engine, &container, &log)?;
    let http = ([127, 0, 0, 1], place.http_port).into();
    Ok(ComposeProgram { name: spec.name, engine: place.engine.clone(), container, http, log, follower })
}

fn container_name(project: &str, program: &str) -> String {
    format!("{project}-{program}")
}

/// Whether a program of this name has a container, running or not.
pub(super) fn exists(engine: &Engine, project: &str, program: &str) -> bool {
    status(engine, &container_name(project, program)).is_ok()
}

/// A scenario replaces a killed program by a new run before it lets go of the old one.
fn remove_ended(engine: &Engine, name: &str) -> Result<()> {
    match status(engine, name) {
        Ok((status, _)) if matches!(status.as_str(), "exited" | "dead") => engine.run(["rm", "-v", name]).map(drop),
        _ => Ok(()),
    }
}

fn with_supplied_flags(spec: &ProgramSpec, place: &Place<'_>) -> Result<ProgramSpec> {
    let mut supplied = vec![
        ("--bootstrap-servers", place.addresses.bootstrap_servers.clone()),
        ("--http", format!("0.0.0.0:{HTTP_PORT}")),
    ];
    match spec.program {
        Program::Processor => {
            fs::create_dir_all(place.state)?;
            supplied.push(("--state-dir", place.state.display().to_string()));
            supplied.push(("--instance", spec.name.clone()));
            supplied.extend(place.addresses.schemas_url().map(|url| ("--schema-registry-url", url)));
        }
        Program::Sink => {
            let url = place.addresses.target_database_url.clone();
            supplied.extend(url.map(|url| ("--database-url", url)));
        }
    }
    let missing: Vec<_> = supplied.into_iter().filter(|(flag, _)| !spec.has_flag(flag)).collect();
    Ok(missing.into_iter().fold(spec.clone(), |spec, (flag, value)| spec.flag(flag, value)))
}

fn http_port(spec: &ProgramSpec) -> Result<u16> {
    let address = spec.flags.iter().find(|(name, _)| name == "--http").and_then(|(_, value)| value.as_deref());
    let address: SocketAddr = address.context("--http without an address")?.parse()?;
    Ok(address.port())
}

fn image(program: Program) -> String {
    format!("stock-{program}")
}

/// Builds the image once per process, even when there is one: a test of yesterday's binary is worse than the second
/// it takes to see that nothing changed.
fn ensure_image(program: Program) -> Result<()> {
    static PROCESSOR: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    static SINK: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let built = match program {
        Program::Processor => &PROCESSOR,
        Program::Sink => &SINK,
    };
    let make_current = || {
        tell(format_args!("making sure that image {} is up to date", image(program)));
        Engine::ensure_images(&[program.binary()]).map_err(|error| format!("{error:#}"))
    };
    built.get_or_init(make_current).clone().map_err(|error| anyhow!(error))
}

/// Appends: the log of a program holds all its runs.
fn follow(engine: &Engine, container: &str, log: &Path) -> Result<Child> {
    let file = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = engine.docker();
    command.args(["logs", "-f", container]).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command.spawn().context("cannot follow the output of a container")
}

/// SIGKILL to a container, and waits until it is gone; one that does not run is no error.
pub(super) fn kill(engine: &Engine, container: &str) -> Result<()> {
    if matches!(status(engine, container)?, (status, _) if status == "running" || status == "paused") {
        let killed = engine.run(["kill", "-s", "KILL", container]);
        // It may have ended by itself in between; what counts is how it is now.
        if let (Err(error), (status, _)) = (killed, self::status(engine, container)?)
            && status != "exited"
        {
            return Err(error);
        }
    }
    engine.run(["wait", container]).map(drop)
}

fn status(engine: &Engine, container: &str) -> Result<(String, i32)> {
    let answer = engine.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", container])?;
    let (status, code) = answer.split_once(' ').context("the engine tells no status")?;
    Ok((status.to_owned(), code.parse()?))
}

/// The engine reports a signal as 128 and its number, as a shell does; our programs' own codes are below.
fn exit_of(code: i32) -> Exit {
    if code > 128 { Exit { code: None, signal: Some(code - 128) } } else { Exit { code: Some(code), signal: None } }
}

impl RunningProgram for ComposeProgram {
    fn name(&self) -> &str {
        &self.name
    }

    fn kill(&mut self) -> Result<()> {
        kill(&self.engine, &self.container)
    }

    fn terminate(&mut self) -> Result<()> {
        self.engine.run(["kill", "-s", "TERM", &self.container]).map(drop)
    }

    fn pause(&mut self) -> Result<()> {
        self.engine.pause(&self.container)
    }

    fn resume(&mut self) -> Result<()> {
        self.engine.run(["unpause", &self.container]).map(drop)
    }

    fn exit(&mut self) -> Result<Option<Exit>> {
        // The follower ends with the container. Asked many times a second: the engine need not be.
        if self.follower.try_wait()?.is_none() {
            return Ok(None);
        }
        let (status, code) = status(&self.engine, &self.container)?;
        if !matches!(status.as_str(), "exited" | "dead") {
            return Ok(None);
        }
        // It ends with the container; then the log file is complete.
        self.follower.wait()?;
        Ok(Some(exit_of(code)))
    }

    fn http_address(&self) -> SocketAddr {
        self.http
    }

    fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_file(&self) -> Result<PathBuf> {
        Ok(self.log.clone())
    }
}

impl Drop for ComposeProgram {
    fn drop(&mut self) {
        // The janitor removes whatever is left of it with the stack.
        let _best_effort = kill(&self.engine, &self.container);
        let _best_effort = self.follower.wait();
        let _best_effort = self.engine.run(["rm", "-fv", &self.container]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_from_an_exit_code() {
        assert_eq!(exit_of(0), Exit { code: Some(0), signal: None });
        assert_eq!(exit_of(3), Exit { code: Some(3), signal: None });
        assert_eq!(exit_of(137), Exit { code: None, signal: Some(9) });
    }
}
