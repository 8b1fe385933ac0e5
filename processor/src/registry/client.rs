//! Questions to the registry: the schema of an id, with whatever it refers to; the id of a schema of ours.
//!
//! Sorts answers by what they mean here; never waits longer than [`TIMEOUT`] for one.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::blocking::Client;
use schema_registry_converter::blocking::schema_registry::{
    SrSettings, get_referenced_schema, get_schema_by_id, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{
    RegisteredReference, RegisteredSchema, SchemaType, SuppliedSchema,
};
use schemas::debezium::{Columns, WriterSchema};
use service::Coded;
use service::configuration::{Credentials, RegistryAccess};

/// How long the registry may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Schemas that one schema refers to, directly or not.
const MAX_REFERENCES: usize = 100;

/// Why there is no schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoSchema {
    /// Not now: no answer, or none that says anything about the schema.
    Unavailable(String),
    /// The registry wants other credentials.
    Refused(String),
    /// The registry does not have it.
    NotFound(String),
    /// There is one, but values of it cannot be read here.
    Unusable(String),
}

/// A client of one registry.
pub(super) struct RegistryClient {
    settings: SrSettings,
}

impl RegistryClient {
    /// Talks to nobody yet.
    pub(super) fn new(access: &RegistryAccess) -> Result<Self, Coded> {
        // The first call of the process decides; another part of it may have chosen before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |what: String| {
            Coded::usage("SCHEMA_REGISTRY_SETTING", what, "correct the file given with --schema-registry-ca-file")
        };
        let mut http = Client::builder();
        if let Some(ca) = &access.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(ca)
                .map_err(|error| wrong(format!("the registry's certificates cannot be read: {error}")))?;
            if certificates.is_empty() {
                return Err(wrong("the file of the registry's certificates has none in it".to_owned()));
            }
            http = http.tls_certs_only(certificates);
        } else if !access.urls.iter().any(|url| url.starts_with("https:")) {
            // An image without any certificates can use a registry without TLS.
            http = http.tls_certs_only([]);
        }
        let mut urls = access.urls.iter().cloned();
        let mut settings = SrSettings::new_builder(urls.next().unwrap_or_default());
        for url in urls {
            settings.add_url(url);
        }
        match &access.credentials {
            Credentials::None => &mut settings,
            Credentials::Basic { user, password } => settings.set_basic_authorization(user, Some(password.expose())),
            Credentials::Token(token) => settings.set_token_authorization(token.expose()),
        };
        let settings = settings.no_proxy().set_timeout(TIMEOUT).build_with(http);
        let unexpected = |error: SRCError| {
            Coded::unexpected("SCHEMA_REGISTRY_CLIENT", format!("no registry client: {}", said(&error)))
        };
        Ok(Self { settings: settings.map_err(unexpected)? })
    }

    /// Asks for the schema of an id, of a table with these columns.
    pub(super) fn schema(&self, columns: &Columns, id: u32) -> Result<WriterSchema, NoSchema> {
        let schema = get_schema_by_id(id, &self.settings).map_err(|error| judge(&error))?;
        let read = match &schema.schema_type {
            SchemaType::Avro => WriterSchema::avro(&schema.schema, &self.references(&schema)?),
            SchemaType::Json => WriterSchema::json(columns, &schema.schema),
            // What Connect's own JSON converter calls a schema.
            SchemaType::Other(name) if name == "KCONNECT" => WriterSchema::json(columns, &schema.schema),
            other => return Err(NoSchema::Unusable(format!("it is of type {other:?}, only Avro and JSON are read"))),
        };
        read.map_err(|error| NoSchema::Unusable(error.to_string()))
    }

    /// Gives the registry an Avro schema, and gets its id; the same id every time for the same schema.
    pub(super) fn register(&self, subject: &str, schema: &str) -> Result<u32, NoSchema> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let registered = post_schema(&self.settings, subject.to_owned(), supplied);
        registered.map(|registered| registered.id).map_err(|error| judge(&error))
    }

    /// The texts of all schemas that a schema refers to.
    fn references(&self, schema: &RegisteredSchema) -> Result<Vec<String>, NoSchema> {
        let mut texts = Vec::new();
        let mut seen = HashSet::new();
        let mut open: Vec<RegisteredReference> = schema.references.clone();
        while let Some(reference) = open.pop() {
            if !seen.insert((reference.subject.clone(), reference.version)) {
                continue;
            }
            if seen.len() > MAX_REFERENCES {
                return Err(NoSchema::Unusable(format!("it refers to more than {MAX_REFERENCES} schemas")));
            }
            let found = get_referenced_schema(&self.settings, &reference).map_err(|error| judge(&error))?;
            open.extend(found.references);
            texts.push(found.schema);
        }
        Ok(texts)
    }
}

/// What an error means. The crate gives the status as text only.
fn judge(error: &SRCError) -> NoSchema {
    let status = error.error.rsplit_once("failed with status ").map(|(_, status)| status);
    let code: Option<u16> = status.and_then(|status| status.get(..3)).and_then(|code| code.parse().ok());
    let said = said(error);
    match code {
        Some(404) => NoSchema::NotFound(said),
        Some(401 | 403) => NoSchema::Refused(said),
        // Of a schema that is to be registered: against the subject's compatibility, or no schema to this registry.
        Some(409 | 422) => NoSchema::Unusable(said),
        _ => NoSchema::Unavailable(said),
    }
}

/// The error's own words, causes included: without them "error sending request" is all there is.
fn said(error: &SRCError) -> String {
    let mut words = error.error.clone();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        words.push_str(": ");
        words.push_str(&next.to_string());
        cause = next.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(url: &str) -> RegistryAccess {
        RegistryAccess { urls: vec![url.to_owned()], credentials: Credentials::None, ca: None }
    }

    #[test]
    fn nobody_there_is_not_a_missing_schema() {
        // Bound and closed again: nobody listens.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = RegistryClient::new(&access(&format!("http://127.0.0.1:{port}"))).unwrap();
        assert!(matches!(client.schema(&Columns::default(), 1), Err(NoSchema::Unavailable(_))));
    }

    #[test]
    fn statuses_are_told_apart() {
        let error = |status: &str| {
            SRCError::new(&format!("HTTP request to schema registry failed with status {status}"), None, false)
        };
        assert!(matches!(judge(&error("404 Not Found")), NoSchema::NotFound(_)));
        assert!(matches!(judge(&error("401 Unauthorized")), NoSchema::Refused(_)));
        assert!(matches!(judge(&error("403 Forbidden")), NoSchema::Refused(_)));
        assert!(matches!(judge(&error("500 Internal Server Error")), NoSchema::Unavailable(_)));
        assert!(matches!(judge(&error("503 Service Unavailable")), NoSchema::Unavailable(_)));
        assert!(matches!(judge(&SRCError::new("something else", None, true)), NoSchema::Unavailable(_)));
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        for ca in [&b""[..], b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let access = RegistryAccess { ca: Some(ca.to_vec()), ..access("https://localhost") };
            assert!(RegistryClient::new(&access).is_err(), "{}", String::from_utf8_lossy(ca));
        }
    }
}
