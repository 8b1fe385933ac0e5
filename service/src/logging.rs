//! Owns how the program logs: tracing to standard error, as text for people or as one JSON object a line.
//!
//! Levels by consequence: `error` somebody must act, `warn` it repairs itself but should be looked at when it repeats,
//! `info` a state changed, `debug` what each event led to. Never logged: record values and anything secret.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::errors::Coded;

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// The logging flags that every subcommand shares; flatten into the program's own arguments.
#[derive(Debug, Clone, clap::Args)]
// No group: its name would be the struct's and collide with those of the program's own arguments.
#[group(skip)]
pub struct Arguments {
    /// Form of the log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Least severe level to log (error, warn, info, debug, trace), or directives such as `info,rdkafka=debug`; without
    /// it the variable `RUST_LOG` counts, and without that `info`
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Starts logging; to be called once, first thing in `main`.
///
/// # Errors
/// `LOG_LEVEL` when the level cannot be read; `LOG_START` when logging was started before.
pub fn start(arguments: &Arguments) -> Result<(), Coded> {
    let directives = match &arguments.log_level {
        Some(level) => level.clone(),
        None => {
            std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "info".into())
        }
    };
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        let remedy = "use error, warn, info, debug, trace or directives such as info,rdkafka=debug in --log-level";
        Coded::usage("LOG_LEVEL", format!("the log level {directives:?} cannot be read: {error}"), remedy)
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match arguments.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Coded::unexpected("LOG_START", format!("logging cannot be started: {error}")))
}

/// Writes one of librdkafka's own log lines; call it from `ClientContext::log`.
///
/// `severity` is syslog's (0 emergency … 7 debug), as librdkafka gives it. Its errors become warnings: it reports every
/// broken connection as an error and repairs it itself; what it cannot repair reaches the program as an error of a
/// call, which decides and logs with a code.
pub fn librdkafka(severity: i32, facility: &str, message: &str) {
    match severity {
        ..=2 => tracing::error!(target: "rdkafka", facility, "{message}"),
        3..=4 => tracing::warn!(target: "rdkafka", facility, "{message}"),
        5 => tracing::info!(target: "rdkafka", facility, "{message}"),
        _ => tracing::debug!(target: "rdkafka", facility, "{message}"),
    }
}
