//! What a scenario says about a processor or a sink it wants to run, and the handle it gets back.
//!
//! Owns the backend-neutral description only; which binary or image that is, and how a signal reaches it, is the
//! backend's business.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;

use super::wait::wait_for;

/// Which of our own deployables to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// The stream processor.
    Processor,
    /// The sink.
    Sink,
}

impl Program {
    /// File name of the binary and last part of the image name.
    pub const fn binary(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Sink => "sink",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.binary())
    }
}

/// How to run a program: `<program> run <flags>`.
#[derive(Debug, Clone)]
pub struct ProgramSpec {
    /// What to run.
    pub program: Program,
    /// Unique among the programs that run at the same time in one stack; names the log file and the state directory.
    pub name: String,
    /// Flags after `run`, each with its value (`None` for a switch), in order.
    pub flags: Vec<(String, Option<String>)>,
    /// Environment variables on top of the backend's own.
    pub environment: Vec<(String, String)>,
    /// Whether it has to be the build with fail points.
    pub with_fail_points: bool,
}

impl ProgramSpec {
    /// A processor. Still to be given by the caller: topics, application id, instance, workers.
    pub fn processor(name: impl Into<String>) -> Self {
        Self {
            program: Program::Processor,
            name: name.into(),
            flags: Vec::new(),
            environment: Vec::new(),
            with_fail_points: false,
        }
    }

    /// A sink. Still to be given by the caller: topic prefix, group id.
    pub fn sink(name: impl Into<String>) -> Self {
        Self {
            program: Program::Sink,
            name: name.into(),
            flags: Vec::new(),
            environment: Vec::new(),
            with_fail_points: false,
        }
    }

    /// Adds a flag with its value, e.g. `.flag("--workers", 2)`.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.flags.push((name.to_owned(), Some(value.to_string())));
        self
    }

    /// Adds a flag without a value.
    #[must_use]
    pub fn switch(mut self, name: &str) -> Self {
        self.flags.push((name.to_owned(), None));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// A processor that ends (SIGKILL) or stops (SIGSTOP) itself at the n-th pass of a step of its loop. Of several calls
    /// the last counts.
    #[must_use]
    pub fn fail_point(mut self, name: &str, action: FailAction, pass: u64) -> Self {
        const VARIABLE: &str = "FAIL_POINT";
        self.with_fail_points = true;
        self.environment.retain(|(variable, _)| variable != VARIABLE);
        self.env(VARIABLE, format!("{name}:{action}:{pass}"))
    }

    /// Whether the caller gave this flag, so that the stack must not supply its own.
    pub fn has_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|(flag, _)| flag == name)
    }

    /// Flags and values as they go on the command line.
    pub fn arguments(&self) -> Vec<String> {
        self.flags.iter().flat_map(|(name, value)| std::iter::once(name.clone()).chain(value.clone())).collect()
    }
}

/// What a fail point does to its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailAction {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
}

impl fmt::Display for FailAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
        })
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, when it ended by itself.
    pub code: Option<i32>,
    /// Number of the signal that ended it, when one did.
    pub signal: Option<i32>,
}

impl Exit {
    /// Whether it ended with exit code 0.
    pub fn is_clean(self) -> bool {
        self.code == Some(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("unknown exit"),
        }
    }
}

/// A processor or sink that was started. Dropping it kills the program; its log and its state directory stay until
/// the stack goes.
pub trait RunningProgram: Send {
    /// The name given in the specification.
    fn name(&self) -> &str;

    /// SIGKILL, and waits until it is gone.
    fn kill(&mut self) -> Result<()>;

    /// SIGTERM. Does not wait; see [`RunningProgram::wait_exit`].
    fn terminate(&mut self) -> Result<()>;

    /// SIGSTOP.
    fn pause(&mut self) -> Result<()>;

    /// SIGCONT.
    fn resume(&mut self) -> Result<()>;

    /// How it ended, or `None` while it runs.
    fn exit(&mut self) -> Result<Option<Exit>>;

    /// Waits until it has ended by itself.
    fn wait_exit(&mut self) -> Result<Exit> {
        wait_for(format!("{} to end", self.name()), || self.exit())
    }

    /// Where its HTTP interface answers on this host.
    fn http_address(&self) -> SocketAddr;

    /// Everything it has written to standard output and standard error so far, over all runs of this name.
    fn log(&self) -> Result<String>;

    /// A file on this host with the same content, for messages to people; brought up to date by the call.
    fn log_file(&self) -> Result<PathBuf>;
}
