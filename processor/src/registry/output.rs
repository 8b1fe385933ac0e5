//! The id under which the registry knows the schema of our own stock deltas.
//!
//! Asked for once, at start: without it nothing can be written, so the program waits for a registry that does not
//! answer, and stops when it says no.

use std::thread;
use std::time::Duration;

use schemas::GoodType;
use schemas::delta::avro_schema;
use service::configuration::SchemaRegistry;
use service::{Coded, Shutdown};

use super::client::{NoSchema, RegistryClient};

const PAUSE: Duration = Duration::from_millis(500);

/// Registers the schema of the deltas topic; `None`: told to stop meanwhile.
///
/// # Errors
/// `SCHEMA_REGISTRY_MISSING` without a registry, `SCHEMA_NOT_REGISTERED` when it refuses.
pub fn register_deltas(
    settings: &SchemaRegistry,
    topic: &str,
    good_type: GoodType,
    shutdown: &Shutdown,
) -> Result<Option<u32>, Coded> {
    let Some(access) = settings.access()? else {
        let what = "--output-format is avro, and no registry is configured for its schema";
        return Err(Coded::usage(
            "SCHEMA_REGISTRY_MISSING",
            what,
            "give --schema-registry-url, or --output-format json",
        ));
    };
    let client = RegistryClient::new(&access)?;
    let subject = format!("{topic}-value");
    while !shutdown.requested() {
        let said = match client.register(&subject, avro_schema(good_type)) {
            Ok(id) => {
                tracing::info!(subject, id, "the schema of the stock deltas is registered");
                return Ok(Some(id));
            }
            Err(NoSchema::Unavailable(said)) => said,
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
            said,
            "the schema of the output cannot be registered now; trying again"
        );
        thread::sleep(PAUSE);
    }
    Ok(None)
}
