//! `demo up|down|status`: what `make demo` and `make down` run. The command line only; the rest is [`tests::demo`].

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum as _};
use tests::demo::{BackendName, down, show, status};

/// Starts the whole system, shows it at work and leaves it up; removes it again.
#[derive(Parser)]
#[command(name = "demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Subcommand)]
enum Command {
    /// Starts what does not run yet, and shows it at work
    Up {
        /// Containers or local processes [variable: `DEMO_BACKEND`; without: containers where an engine runs or can be
        /// started]
        #[arg(long, value_enum)]
        backend: Option<BackendName>,
    },
    /// Removes everything `up` started: processes, containers, volumes, directories
    Down,
    /// Says what is up
    Status,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up { backend } => chosen(backend).and_then(show),
        Command::Down => down(),
        Command::Status => status(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _best_effort = writeln!(std::io::stderr(), "\ndemo: FAILED. {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The flag, or the variable `DEMO_BACKEND`; an empty variable says nothing.
fn chosen(flag: Option<BackendName>) -> Result<Option<BackendName>> {
    let variable = std::env::var("DEMO_BACKEND").ok().filter(|text| !text.is_empty());
    match (flag, variable) {
        (None, Some(text)) => match BackendName::from_str(&text, true) {
            Ok(name) => Ok(Some(name)),
            Err(_) => bail!("DEMO_BACKEND is {text:?}; it may be native or compose"),
        },
        (flag, _) => Ok(flag),
    }
}
