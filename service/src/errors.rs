//! Owns [`Coded`], the form in which every refusal reaches an operator, and [`Exit`], the exit codes by meaning.
//!
//! It never carries values that may be secret: whoever builds a [`Coded`] puts only names, offsets and masked texts in it.
//!
//! | exit code | meaning | a restart helps |
//! |---|---|---|
//! | 0 | clean end, everything open was committed | – |
//! | 1 | unexpected failure, worth a bug report | perhaps |
//! | 2 | wrong usage or configuration | no, change the setting named in the message |
//! | 3 | refused by a check: going on could make the numbers wrong | no, follow the remedy in the message |
//! | 4 | fenced: another process runs under the same identity | no, give each process an identity of its own |
//! | 5 | watchdog: a call did not return in time | yes |
//! | 130 | a second signal while shutting down: ended at once, as if killed | yes, nothing is lost |

use std::fmt;
use std::process::ExitCode;

/// Exit codes by meaning; the table is in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Everything open was committed.
    Clean,
    /// Not foreseen.
    Unexpected,
    /// Wrong flags, variables, or configuration file.
    Usage,
    /// A check refused to go on.
    Refused,
    /// Another process runs under the same identity.
    Fenced,
    /// A call did not return in time.
    Watchdog,
    /// A second signal arrived while shutting down.
    Interrupted,
}

impl Exit {
    /// The number the operating system sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Fenced => 4,
            Self::Watchdog => 5,
            Self::Interrupted => 130,
        }
    }

    /// Ends the process at once, without running destructors: for the watchdog and the second signal only.
    pub fn now(self) -> ! {
        std::process::exit(i32::from(self.code()))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error for an operator: a stable code, what happened, what to do.
///
/// Codes are upper-case words joined by underscores and never change their meaning; alerts and runbooks refer to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coded {
    /// Stable code, such as `CONFIG_UNKNOWN_KEY`.
    pub code: &'static str,
    /// What happened, with the names and offsets that are needed to find the culprit.
    pub what: String,
    /// What the operator can do about it.
    pub remedy: String,
    /// With which exit code the program ends when this error ends it.
    pub exit: Exit,
}

impl Coded {
    /// An error with an exit code of the caller's choice.
    pub fn new(exit: Exit, code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, what: what.into(), remedy: remedy.into(), exit }
    }

    /// Wrong usage or configuration.
    pub fn usage(code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Exit::Usage, code, what, remedy)
    }

    /// A check refused to go on.
    pub fn refused(code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Exit::Refused, code, what, remedy)
    }

    /// Another process runs under the same identity.
    pub fn fenced(code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Exit::Fenced, code, what, remedy)
    }

    /// Not foreseen: the remedy can only be general.
    pub fn unexpected(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Exit::Unexpected, code, what, "start again; if it comes back, report it with the log")
    }

    /// Logs the error (or writes it to standard error while there is no log yet) and gives the exit code to end with.
    pub fn report(&self) -> ExitCode {
        if tracing::dispatcher::has_been_set() {
            tracing::error!(code = self.code, remedy = %self.remedy, exit_code = self.exit.code(), "{}", self.what);
        } else {
            eprintln!("{self}");
        }
        self.exit.into()
    }
}

impl fmt::Display for Coded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}. To do: {}", self.code, self.what, self.remedy)
    }
}

impl std::error::Error for Coded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coded_error_reads_code_then_what_then_remedy() {
        let error = Coded::refused("SINK_X", "the log is shorter than the state", "restore the topic");
        assert_eq!(error.to_string(), "SINK_X: the log is shorter than the state. To do: restore the topic");
        assert_eq!(error.exit.code(), 3);
    }
}
