//! The program: settings, log, verb, exit code.

use std::process::ExitCode;

use service::{Coded, Exit, Parsed};

use crate::settings::{PREFIX, Program, Verb};
use crate::{operator, run};

/// Does what the command line says.
pub fn main() -> ExitCode {
    let Parsed { arguments, kafka, unknown_variables } = service::configuration::parse::<Program>(PREFIX);
    let outcome = match arguments.command {
        Verb::Healthcheck(arguments) => return service::healthcheck::run(&arguments.http).into(),
        Verb::ApproveSweep(arguments) => operator::approve_sweep(&arguments, &kafka),
        Verb::SourceEmptied(arguments) => operator::source_emptied(&arguments, &kafka),
        Verb::Run(settings) => {
            logged(&settings.common.logging, &unknown_variables).and_then(|()| run::run(*settings, &kafka))
        }
    };
    outcome.map_or_else(|error| error.report(), |()| Exit::Clean.into())
}

/// Starts logging, and says which variables have no effect.
fn logged(logging: &service::logging::Arguments, unknown_variables: &[String]) -> Result<(), Coded> {
    service::logging::start(logging)?;
    for variable in unknown_variables {
        tracing::warn!(variable, "this environment variable is no setting and has no effect");
    }
    Ok(())
}
