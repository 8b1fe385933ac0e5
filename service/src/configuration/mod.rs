//! Owns how a program comes to its settings: flag over environment variable over TOML file over built-in default.
//!
//! Every setting is declared once, as a clap argument. Variables and file keys are laid below the command line as
//! clap *default values* of the same argument, so that they go through the same parser and the same checks, and a
//! setting cannot exist in one form and not in the others. (Rejected: a second struct of `Option`s merged by serde;
//! each setting would be declared and checked twice. And clap's own `env`: it shows values, secrets too, in `--help`.)
//!
//! A setting `--database-url` of a program with the prefix `SINK` is the variable `SINK_DATABASE_URL` and the key
//! `database-url` at the top of the file. Variables that are set but empty count as not set. The tables
//! `[kafka.consumer]`, `[kafka.producer]` and `[kafka.admin]` go through to librdkafka; see [`KafkaTables`].

mod file;
mod kafka;
mod kafka_access;
mod registry;
mod secret;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};

pub use kafka::{CLIENT_GUARANTEES, CONSUMER_GUARANTEES, KafkaTables, PRODUCER_GUARANTEES, Properties, Protected};
pub use kafka_access::{KafkaAccess, SaslMechanism, SecurityProtocol};
pub use registry::{Credentials, RegistryAccess, SchemaRegistry};
pub use secret::{DatabaseUrl, Secret};

use crate::errors::Coded;

/// The arguments that every `run` has; flatten them into the program's own.
#[derive(Debug, Clone, clap::Args)]
// No group: its name would be the struct's and collide with those of the program's own arguments.
#[group(skip)]
pub struct Common {
    /// TOML file with settings; flags and environment variables count more
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address (host:port) on which /live, /ready, /startup and /metrics are served
    #[arg(long, default_value = crate::http::DEFAULT_ADDRESS, value_name = "ADDRESS")]
    pub http: String,
    /// Form and level of the log
    #[command(flatten)]
    pub logging: crate::logging::Arguments,
}

/// What the layers together say.
#[derive(Debug, Clone)]
pub struct Parsed<Arguments> {
    /// The program's own arguments.
    pub arguments: Arguments,
    /// The librdkafka properties of the file, not yet checked: see [`Properties::refuse`].
    pub kafka: KafkaTables,
    /// Variables with the program's prefix that are no setting: worth a warning, since a misspelt one has no effect.
    /// (Not refused: Kubernetes injects variables such as `SINK_SERVICE_HOST` into every container.)
    pub unknown_variables: Vec<String>,
}

/// Why there are no settings.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage, or a request for help or the version, as clap words it.
    Clap(Box<clap::Error>),
    /// A wrong file.
    Coded(Coded),
}

impl Failure {
    /// Prints the failure and ends: 0 after help or version, else 2.
    pub fn exit(self) -> ! {
        match self {
            Self::Clap(error) => error.exit(),
            Self::Coded(error) => {
                eprintln!("{error}");
                error.exit.now()
            }
        }
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Clap(Box::new(error))
    }
}

impl From<Coded> for Failure {
    fn from(error: Coded) -> Self {
        Self::Coded(error)
    }
}

/// Reads the process' own command line and environment; ends the process on a mistake, as clap's `parse` does.
pub fn parse<Arguments: CommandFactory + FromArgMatches>(prefix: &str) -> Parsed<Arguments> {
    match parse_from(prefix, std::env::args_os(), std::env::vars_os()) {
        Ok(parsed) => parsed,
        Err(failure) => failure.exit(),
    }
}

/// As [`parse`], from given words (the program's name first) and variables.
///
/// # Errors
/// [`Failure`] says which flag, variable or key of which file is wrong.
pub fn parse_from<Arguments: CommandFactory + FromArgMatches>(
    prefix: &str,
    words: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Parsed<Arguments>, Failure> {
    let words: Vec<OsString> = words.into_iter().collect();
    let variables = own_variables(prefix, variables);
    let command = for_each_setting(Arguments::command(), &mut |argument| describe(argument, prefix));
    let mut settings = BTreeMap::new();
    collect_settings(&command, &mut settings);

    let lenient = for_each_setting(command.clone(), &mut |argument| argument.required(false));
    let Ok(first) = lenient.try_get_matches_from(&words) else {
        // Parsed again by the strict command, so that help and usage show what is required.
        command.try_get_matches_from(&words)?;
        return Err(clap::Error::new(ErrorKind::InvalidValue).into());
    };
    let file = match config_path(&first, prefix, &variables) {
        Some(path) => file::read(&path, &settings)?,
        None => file::Contents::default(),
    };

    let layers = Layers { prefix, variables: &variables, file: &file, given: given_on_command_line(&first) };
    let mut layered = for_each_setting(command, &mut |argument| layers.lay_below(argument));
    let matches = layered.try_get_matches_from_mut(&words).map_err(|error| layers.name_the_layer(error))?;
    let arguments = Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut layered))?;

    let known = |name: &String| settings.keys().any(|setting| variable_name(prefix, setting) == **name);
    let unknown_variables = variables.keys().filter(|name| !known(name)).cloned().collect();
    Ok(Parsed { arguments, kafka: file.kafka, unknown_variables })
}

/// Applies `change` to every argument that is a setting (has a long name), in all subcommands.
fn for_each_setting(command: Command, change: &mut dyn FnMut(Arg) -> Arg) -> Command {
    let command = command.mut_args(|argument| if argument.get_long().is_some() { change(argument) } else { argument });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, |sub| for_each_setting(sub, change)))
}

/// The union over all subcommands: one file serves them all, each takes from it what it knows.
fn collect_settings(command: &Command, settings: &mut BTreeMap<String, bool>) {
    for argument in command.get_arguments() {
        if let Some(name) = argument.get_long().filter(|name| !["config", "help", "version"].contains(name)) {
            let many = matches!(argument.get_action(), clap::ArgAction::Append);
            settings.insert(name.to_owned(), many);
        }
    }
    for sub in command.get_subcommands() {
        collect_settings(sub, settings);
    }
}

/// `database-url` of `SINK` is `SINK_DATABASE_URL`.
fn variable_name(prefix: &str, setting: &str) -> String {
    format!("{prefix}_{}", setting.replace('-', "_").to_ascii_uppercase())
}

fn describe(argument: Arg, prefix: &str) -> Arg {
    let variable = argument.get_long().map(|name| variable_name(prefix, name)).unwrap_or_default();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    argument.help(format!("{help} [env: {variable}]"))
}

fn own_variables(
    prefix: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> BTreeMap<String, OsString> {
    let start = format!("{prefix}_");
    let own = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    own.filter(|(name, value)| name.starts_with(&start) && !value.is_empty()).collect()
}

/// The innermost subcommand's matches: that is where settings are.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, sub)| innermost(sub))
}

fn config_path(matches: &ArgMatches, prefix: &str, variables: &BTreeMap<String, OsString>) -> Option<PathBuf> {
    let flag = innermost(matches).try_get_one::<PathBuf>("config").ok().flatten().cloned();
    flag.or_else(|| variables.get(&variable_name(prefix, "config")).map(PathBuf::from))
}

fn given_on_command_line(matches: &ArgMatches) -> Vec<String> {
    let matches = innermost(matches);
    let given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    matches.ids().filter(given).map(ToString::to_string).collect()
}

/// The two layers below the command line.
struct Layers<'a> {
    prefix: &'a str,
    variables: &'a BTreeMap<String, OsString>,
    file: &'a file::Contents,
    given: Vec<String>,
}

impl Layers<'_> {
    fn lay_below(&self, argument: Arg) -> Arg {
        let Some(name) = argument.get_long().map(str::to_owned) else { return argument };
        if self.given.iter().any(|given| given == argument.get_id().as_str()) {
            return argument;
        }
        if let Some(value) = self.variables.get(&variable_name(self.prefix, &name)) {
            let many = matches!(argument.get_action(), clap::ArgAction::Append);
            let text = value.to_str().filter(|_| many);
            let values = text.map_or_else(|| vec![value.clone()], |text| text.split(',').map(OsString::from).collect());
            return argument.required(false).default_values(values);
        }
        match self.file.settings.get(&name) {
            Some(values) => argument.required(false).default_values(values),
            None => argument,
        }
    }

    /// A value that clap refused is blamed on the variable or the key it came from, and never shown: it may be secret.
    fn name_the_layer(&self, error: clap::Error) -> Failure {
        let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return error.into() };
        let name = argument.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default().to_owned();
        if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
            || self.given.iter().any(|given| given.replace('_', "-") == name)
        {
            return error.into();
        }
        let variable = variable_name(self.prefix, &name);
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        if self.variables.contains_key(&variable) {
            let what = format!("the environment variable {variable} has a value that --{name} does not take{cause}");
            return Coded::usage("CONFIG_BAD_VARIABLE", what, "correct the variable; --help describes the setting")
                .into();
        }
        if self.file.settings.contains_key(&name) {
            let what = format!("{}: the key {name} has a value that --{name} does not take{cause}", self.file.path());
            return Coded::usage("CONFIG_BAD_VALUE", what, "correct the key; --help describes the setting").into();
        }
        error.into()
    }
}

#[cfg(test)]
mod tests;
