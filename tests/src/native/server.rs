//! One child process of the stack and everything that can be done to it.
//!
//! Owns start, signals, log and pid file of a single process, whether it was started by this process or is left over
//! from an earlier `stack up`. Knows nothing of what the process serves.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::identity::ProcessIdentity;
use super::spawner;
use crate::stack::{Exit, wait_for_within, wait_until};

/// How much of a log goes into an error message.
const LOG_TAIL_BYTES: u64 = 4_000;

/// What to start, and how it lives.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// Name in messages.
    pub(super) name: String,
    /// The executable.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Variables on top of those inherited.
    pub(super) environment: Vec<(String, String)>,
    /// Working directory.
    pub(super) directory: PathBuf,
    /// System user to become, or `None` to stay who we are.
    pub(super) user: Option<String>,
    /// Standard output and standard error are appended here.
    pub(super) log: PathBuf,
    /// Where its identity is recorded while it runs.
    pub(super) pid_file: PathBuf,
    /// Keeps running after the process that started it (`stack up`); otherwise it dies with it.
    pub(super) outlives_us: bool,
}

impl Launch {
    /// Nothing but the places of a process in a stack's directory; what to run is still to be filled in.
    pub(super) fn in_directory(name: &str, directory: &Path, outlives_us: bool) -> Self {
        Self {
            name: name.to_owned(),
            program: PathBuf::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: directory.to_path_buf(),
            user: None,
            log: directory.join("logs").join(format!("{name}.log")),
            pid_file: directory.join("pids").join(format!("{name}.pid")),
            outlives_us,
        }
    }
}

/// A process that may or may not run at the moment.
#[derive(Debug)]
pub(super) struct Server {
    launch: Launch,
    running: Option<Running>,
    last_exit: Option<Exit>,
}

#[derive(Debug)]
struct Running {
    identity: ProcessIdentity,
    /// `None` when an earlier command started it: then it is not our child and cannot be waited for.
    child: Option<Child>,
}

impl Server {
    /// Describes a server; adopts it when its pid file names a process that still runs.
    pub(super) fn new(launch: Launch) -> Result<Self> {
        let adopted = ProcessIdentity::read(&launch.pid_file)?.filter(ProcessIdentity::is_alive);
        let running = adopted.map(|identity| Running { identity, child: None });
        Ok(Self { launch, running, last_exit: None })
    }

    /// Starts the process unless it runs.
    pub(super) fn start(&mut self) -> Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let child = spawner::spawn(self.command()?)
            .with_context(|| format!("cannot start {} ({})", self.launch.name, self.launch.program.display()))?;
        let pid = i32::try_from(child.id()).context("a pid beyond the range of pids")?;
        let identity = ProcessIdentity::of(pid).with_context(|| format!("{} has no /proc entry", self.launch.name))?;
        identity.write(&self.launch.pid_file)?;
        self.last_exit = None;
        self.running = Some(Running { identity, child: Some(child) });
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let launch = &self.launch;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&launch.log)
            .with_context(|| format!("cannot open the log {}", launch.log.display()))?;
        // `setsid` lets a stack that stays up survive its terminal; `setpriv` (which replaces itself by the program, so
        // the pid stays) ties all others to us and drops root where asked. Doing either in a pre-exec hook needs unsafe.
        let mut words: Vec<&str> = Vec::new();
        if launch.outlives_us {
            words.push("setsid");
        } else {
            words.extend(["setpriv", "--pdeathsig", "KILL"]);
        }
        if let Some(user) = &launch.user {
            words.extend(launch.outlives_us.then_some("setpriv"));
            words.extend(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        let (first, rest) = words.split_first().context("no wrapper to start with")?;
        let mut command = Command::new(first);
        command
            .args(rest)
            .arg(&launch.program)
            .args(&launch.arguments)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&launch.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if !launch.outlives_us {
            // Ctrl-C at the test run must not reach the servers one by one; they follow the test process.
            command.process_group(0);
        }
        Ok(command)
    }

    /// Whether the process exists now.
    pub(super) fn is_running(&mut self) -> Result<bool> {
        let Some(running) = &mut self.running else { return Ok(false) };
        let exit = match &mut running.child {
            Some(child) => child.try_wait()?.map(|status| Exit { code: status.code(), signal: status.signal() }),
            None if running.identity.is_alive() => None,
            None => Some(Exit { code: None, signal: None }),
        };
        let Some(exit) = exit else { return Ok(true) };
        self.last_exit = Some(exit);
        self.running = None;
        let _absent = fs::remove_file(&self.launch.pid_file);
        Ok(false)
    }

    /// How the process ended, or `None` while it runs or before it was started.
    pub(super) fn exit(&mut self) -> Result<Option<Exit>> {
        self.is_running()?;
        Ok(self.last_exit)
    }

    /// SIGTERM, without waiting.
    pub(super) fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Clean stop. `signal` is what this server calls a clean stop.
    pub(super) fn stop(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let name = self.launch.name.clone();
        wait_until(format!("{name} to stop"), || Ok(!self.is_running()?))
    }

    /// As [`Server::stop`], but killed when it has not stopped within `grace`.
    pub(super) fn stop_or_kill(&mut self, signal: Signal, grace: Duration) -> Result<()> {
        self.signal(signal)?;
        let name = self.launch.name.clone();
        let stopped = wait_for_within(format!("{name} to stop"), grace, || Ok((!self.is_running()?).then_some(())));
        stopped.or_else(|_| self.kill())
    }

    /// SIGKILL to the process and everything below it, and waits until all of it is gone.
    pub(super) fn kill(&mut self) -> Result<()> {
        let Some(running) = &self.running else { return Ok(()) };
        // The parent first: a PostgreSQL that sees its backends die would restart instead of being dead.
        let family: Vec<_> = std::iter::once(running.identity.clone()).chain(running.identity.descendants()).collect();
        family.iter().try_for_each(|process| process.signal(Signal::KILL))?;
        let name = self.launch.name.clone();
        wait_until(format!("{name} to be gone"), || {
            Ok(!self.is_running()? && !family.iter().any(ProcessIdentity::is_alive))
        })
    }

    /// SIGSTOP to the process and everything below it.
    pub(super) fn pause(&self) -> Result<()> {
        self.signal_family(Signal::STOP)
    }

    /// SIGCONT to the process and everything below it.
    pub(super) fn resume(&self) -> Result<()> {
        self.signal_family(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.running.as_ref().map_or(Ok(()), |running| running.identity.signal(signal))
    }

    fn signal_family(&self, signal: Signal) -> Result<()> {
        let Some(running) = &self.running else { bail!("{} does not run", self.launch.name) };
        running.identity.signal(signal)?;
        running.identity.descendants().iter().try_for_each(|process| process.signal(signal))
    }

    pub(super) const fn launch(&self) -> &Launch {
        &self.launch
    }

    /// The pid while it runs.
    pub(super) fn pid(&self) -> Option<i32> {
        self.running.as_ref().map(|running| running.identity.pid())
    }

    /// The end of the log.
    pub(super) fn log_tail(&self) -> Result<String> {
        let path = &self.launch.log;
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Fails, with the end of the log, when the process has ended.
    pub(super) fn check_running(&mut self) -> Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let how = self.last_exit.map_or_else(|| "never started".to_owned(), |exit| exit.to_string());
        bail!("{} does not run ({how}). End of {}:\n{}", self.launch.name, self.launch.log.display(), self.log_tail()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.launch.outlives_us {
            // Nothing useful can be done about an error here, and the parent-death signal follows anyway.
            let _best_effort = self.kill();
        }
    }
}
