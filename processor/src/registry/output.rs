//! The ids under which the registry knows the schemas of our own records.
//!
//! Asked for once each, at start: without it nothing can be written, so the program waits for a registry that does not
//! answer, and stops when it says no. Before that the registry is told which schemas may ever follow ours: such as read
//! all that came before and are read by it, which is what `schemas/README.md` promises. Where we may not say so, a
//! registry's administrator has to; the records are the same.

use std::thread;
use std::time::Duration;

use service::configuration::SchemaRegistry;
use service::{Coded, Shutdown};

use super::cache::untrusted;
use super::client::{NoSchema, RegistryClient};

const PAUSE: Duration = Duration::from_millis(500);
/// How often a registry that does not answer is asked to guard a subject before the schema is registered all the same.
const GUARD_ATTEMPTS: u32 = 20;

/// Registers the schema of a topic's values; `None`: told to stop meanwhile.
///
/// # Errors
/// `SCHEMA_REGISTRY_MISSING` without a registry, `SCHEMA_NOT_REGISTERED` when it refuses, `SCHEMA_REGISTRY_TLS`.
pub fn register(
    settings: &SchemaRegistry,
    topic: &str,
    schema: &str,
    shutdown: &Shutdown,
) -> Result<Option<u32>, Coded> {
    let Some(access) = settings.access()? else {
        return Err(Coded::usage(
            "SCHEMA_REGISTRY_MISSING",
            format!("{topic} is to be written in Avro, and no registry is configured for its schema"),
            "give --schema-registry-url, or json as --output-format and --changelog-format",
        ));
    };
    let client = RegistryClient::new(&access)?;
    let subject = format!("{topic}-value");
    let mut protected = Err(NoSchema::Unavailable(String::new()));
    let mut attempts = 0;
    while !shutdown.requested() {
        if matches!(protected, Err(NoSchema::Unavailable(_))) {
            protected = client.require_compatibility(&subject);
        }
        attempts += 1;
        let registered = match &protected {
            // Not answered once is no answer; a registry that never does may still take the schema.
            Err(NoSchema::Unavailable(said)) if attempts < GUARD_ATTEMPTS => Err(NoSchema::Unavailable(said.clone())),
            _ => client.register(&subject, schema),
        };
        let said = match registered {
            Ok(id) => {
                tracing::info!(subject, id, "the schema is registered");
                tell(&subject, &protected);
                return Ok(Some(id));
            }
            Err(NoSchema::Unavailable(said)) => said,
            Err(NoSchema::Untrusted(said)) => return Err(untrusted(&access.urls.join(","), &said)),
            Err(NoSchema::Refused(said) | NoSchema::NotFound(said) | NoSchema::Unusable(said)) => {
                return Err(Coded::refused(
                    "SCHEMA_NOT_REGISTERED",
                    format!("the registry does not take the schema of {topic} as subject {subject}: {said}"),
                    "let the credentials write this subject; if it holds another schema, give another --topic-prefix",
                ));
            }
        };
        tracing::warn!(
            code = "SCHEMA_REGISTRY_UNAVAILABLE",
            subject,
            said,
            "a schema cannot be registered now; trying again"
        );
        thread::sleep(PAUSE);
    }
    Ok(None)
}

/// Tells an operator when the registry does not guard the subject.
fn tell(subject: &str, protected: &Result<(), NoSchema>) {
    if let Err(error) = protected {
        tracing::warn!(
            code = "SCHEMA_COMPATIBILITY_NOT_SET",
            subject,
            said = error.said(),
            "the registry may take schemas that do not go with ours: let its administrator set FULL_TRANSITIVE for the \
             subject, or the credentials change its configuration"
        );
    }
}
