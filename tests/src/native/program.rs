//! Processors and sinks as local processes beside the servers.
//!
//! Owns finding (and building) the binaries and the handle of a running one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};

use super::paths;
use super::ports::Port;
use super::progress::tell;
use super::server::{Launch, Server};
use crate::stack::{Addresses, Exit, Program, ProgramSpec, RunningProgram};

/// A processor or sink started by a native stack.
#[derive(Debug)]
pub(super) struct NativeProgram {
    name: String,
    server: Server,
    http: SocketAddr,
    _port: Port,
}

/// The processor with its fail points compiled in: the same program, under another name so that neither is taken for
/// the other.
const WITH_FAIL_POINTS: &str = "processor-with-fail-points";

/// Starts what `spec` says. `launch` carries everything that depends on the stack; `state` is the program's state directory.
pub(super) fn run(
    spec: &ProgramSpec,
    addresses: &Addresses,
    state: &Path,
    mut launch: Launch,
) -> Result<NativeProgram> {
    let port = Port::reserve()?;
    let mut spec = spec.clone();
    let given = spec.flags.iter().find(|(name, _)| name == "--http").and_then(|(_, value)| value.clone());
    let http: SocketAddr = given.map_or_else(|| Ok(([127, 0, 0, 1], port.number()).into()), |value| value.parse())?;
    let mut supplied = vec![("--bootstrap-servers", addresses.bootstrap_servers.clone()), ("--http", http.to_string())];
    match spec.program {
        Program::Processor => {
            fs::create_dir_all(state)?;
            supplied.push(("--state-dir", state.display().to_string()));
            supplied.push(("--instance", spec.name.clone()));
            supplied.extend(addresses.schemas_url().map(|url| ("--schema-registry-url", url)));
        }
        Program::Sink => {
            let url = addresses.target_database_url.clone();
            supplied.extend(url.map(|url| ("--database-url", url)));
        }
    }
    for (flag, value) in supplied {
        if !spec.has_flag(flag) {
            spec = spec.flag(flag, value);
        }
    }
    launch.program = binary(&spec)?;
    launch.arguments = std::iter::once("run".to_owned()).chain(spec.arguments()).collect();
    launch.environment = spec.environment;
    let mut server = Server::new(launch)?;
    if server.is_running()? {
        bail!("{} runs already in this stack", spec.name);
    }
    server.start()?;
    Ok(NativeProgram { name: spec.name, server, http, _port: port })
}

/// The binary of a program: from `STACK_PROGRAMS`, or beside the running executable, built by the way.
fn binary(spec: &ProgramSpec) -> Result<PathBuf> {
    let directory = match std::env::var_os("STACK_PROGRAMS") {
        Some(directory) => std::path::absolute(PathBuf::from(directory))?,
        None => built_programs()?,
    };
    let (name, arguments) = match spec.program {
        Program::Processor if spec.with_fail_points => {
            (WITH_FAIL_POINTS, format!("processor --features fail-points --bin {WITH_FAIL_POINTS}"))
        }
        program => (program.binary(), program.to_string()),
    };
    let binary = directory.join(name);
    if !binary.is_file() {
        bail!("there is no {name} in {}. To do: cargo build -p {arguments}", directory.display());
    }
    Ok(binary)
}

/// Builds once per process, even when binaries exist: `cargo test -p tests` builds none of them, and a test of
/// yesterday's binary is worse than the half second cargo takes to see that nothing changed.
fn built_programs() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

fn build() -> Result<PathBuf> {
    let profile_directory = paths::profile_directory()?;
    // Cargo calls the directory of the dev profile "debug".
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    tell(format_args!("building processor and sink (profile {profile})"));
    let target = profile_directory.parent().context("the profile directory has no parent")?;
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--locked", "-p", "processor", "-p", "sink", "--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(paths::workspace_directory())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("processor and sink do not build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(profile_directory)
}

impl RunningProgram for NativeProgram {
    fn name(&self) -> &str {
        &self.name
    }

    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn terminate(&mut self) -> Result<()> {
        self.server.terminate()
    }

    fn pause(&mut self) -> Result<()> {
        self.server.pause()
    }

    fn resume(&mut self) -> Result<()> {
        self.server.resume()
    }

    fn exit(&mut self) -> Result<Option<Exit>> {
        self.server.exit()
    }

    fn http_address(&self) -> SocketAddr {
        self.http
    }

    fn log(&self) -> Result<String> {
        let path = &self.server.launch().log;
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_file(&self) -> Result<PathBuf> {
        Ok(self.server.launch().log.clone())
    }
}
