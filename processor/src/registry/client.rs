//! Questions to the registry: the schema of an id, with whatever it refers to; the id of a schema of ours, and which
//! others may follow it.
//!
//! Sorts answers by what they mean here; never waits longer than [`TIMEOUT`] for one.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::blocking::{Client, ClientBuilder};
use rustls::AlertDescription;
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
/// An id that no registry has come to: it can be asked for to see whether there is one at all.
const NO_ID: u32 = i32::MAX.unsigned_abs();

/// Why there is no schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoSchema {
    /// Not now: no answer, or none that says anything about the schema.
    Unavailable(String),
    /// The registry wants other credentials.
    Refused(String),
    /// There is no TLS connection that both sides believe in.
    Untrusted(String),
    /// The registry does not have it.
    NotFound(String),
    /// There is one, but values of it cannot be read here.
    Unusable(String),
}

impl NoSchema {
    /// What the registry said, or the client about it.
    pub(super) fn said(&self) -> &str {
        match self {
            Self::Unavailable(said)
            | Self::Refused(said)
            | Self::Untrusted(said)
            | Self::NotFound(said)
            | Self::Unusable(said) => said,
        }
    }
}

/// A client of one registry.
pub(super) struct RegistryClient {
    settings: SrSettings,
    access: RegistryAccess,
}

impl RegistryClient {
    /// Talks to nobody yet.
    pub(super) fn new(access: &RegistryAccess) -> Result<Self, Coded> {
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
        let settings = settings.no_proxy().set_timeout(TIMEOUT).build_with(http(access)?);
        let settings = settings.map_err(|error| no_client(access, &error))?;
        Ok(Self { settings, access: access.clone() })
    }

    /// Whether the registry lets us in; that it has no schema to give is as good an answer as one.
    pub(super) fn reach(&self) -> Result<(), NoSchema> {
        match get_schema_by_id(NO_ID, &self.settings).map_err(|error| judge(&error)) {
            Ok(_) | Err(NoSchema::NotFound(_)) => Ok(()),
            Err(other) => Err(other),
        }
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

    /// Lets the registry take only such further schemas of a subject as read, and are read by, all that it has there.
    pub(super) fn require_compatibility(&self, subject: &str) -> Result<(), NoSchema> {
        let unexpected = |error: Coded| NoSchema::Unusable(error.what);
        let client = http(&self.access).and_then(|builder| {
            let built = builder.no_proxy().timeout(TIMEOUT).build();
            built.map_err(|error| no_client(&self.access, &error))
        });
        let client = client.map_err(unexpected)?;
        let mut answer = Ok(());
        for url in &self.access.urls {
            answer = self.put_compatibility(&client, &format!("{url}/config/{subject}"));
            if answer.is_ok() {
                break;
            }
        }
        answer
    }

    fn put_compatibility(&self, client: &Client, url: &str) -> Result<(), NoSchema> {
        let request = client.put(url).header("Content-Type", "application/vnd.schemaregistry.v1+json");
        let request = match &self.access.credentials {
            Credentials::None => request,
            Credentials::Basic { user, password } => request.basic_auth(user, Some(password.expose())),
            Credentials::Token(token) => request.bearer_auth(token.expose()),
        };
        match request.body(r#"{"compatibility":"FULL_TRANSITIVE"}"#).send() {
            Err(error) => Err(sort(None, is_of_tls(&error), said("the request failed", &error))),
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let status = response.status();
                // A registry says why in a few words; a proxy answers with a page.
                let why: String = response.text().unwrap_or_default().chars().take(200).collect();
                Err(sort(Some(status.as_u16()), false, format!("status {status}: {why}")))
            }
        }
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

/// An HTTP client that trusts whom it is told to, and shows the certificate that it is given.
fn http(access: &RegistryAccess) -> Result<ClientBuilder, Coded> {
    // The first call of the process decides; another part of it may have chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut http = Client::builder();
    if let Some(ca) = &access.ca {
        let certificates = reqwest::Certificate::from_pem_bundle(ca)
            .map_err(|error| wrong_file("ca", format!("the registry's certificates cannot be read: {error}")))?;
        if certificates.is_empty() {
            return Err(wrong_file("ca", "the file of the registry's certificates has none in it".to_owned()));
        }
        http = http.tls_certs_only(certificates);
    } else if !access.urls.iter().any(|url| url.starts_with("https:")) {
        // An image without any certificates can use a registry without TLS.
        http = http.tls_certs_only([]);
    }
    if let Some(identity) = &access.identity {
        let identity = reqwest::Identity::from_pem(identity.expose().as_bytes()).map_err(|error| {
            let what = said("the certificate for the registry and its key cannot be read", &error);
            wrong_file("certificate", what)
        })?;
        http = http.identity(identity);
    }
    Ok(http)
}

fn no_client(access: &RegistryAccess, error: &(dyn Error + 'static)) -> Coded {
    let what = said("no registry client", error);
    // The key that does not belong to the certificate is found out only here.
    if access.identity.is_some() {
        return wrong_file("certificate", what);
    }
    Coded::unexpected("SCHEMA_REGISTRY_CLIENT", what)
}

fn wrong_file(kind: &str, what: String) -> Coded {
    Coded::usage("SCHEMA_REGISTRY_SETTING", what, format!("correct the file given with --schema-registry-{kind}-file"))
}

/// What an error means. The crate gives the status as text only.
fn judge(error: &SRCError) -> NoSchema {
    let status = error.error.rsplit_once("failed with status ").map(|(_, status)| status);
    let code: Option<u16> = status.and_then(|status| status.get(..3)).and_then(|code| code.parse().ok());
    let of_tls = Error::source(error).is_some_and(is_of_tls);
    sort(code, of_tls, Error::source(error).map_or_else(|| error.error.clone(), |cause| said(&error.error, cause)))
}

/// What the status of an answer means, or that there was none.
fn sort(status: Option<u16>, of_tls: bool, said: String) -> NoSchema {
    match status {
        None if of_tls => NoSchema::Untrusted(said),
        Some(404) => NoSchema::NotFound(said),
        // What we ask is never malformed: 400 is a proxy that wants a certificate.
        Some(400 | 401 | 403) => NoSchema::Refused(said),
        // Of a schema that is to be registered: against the subject's compatibility, or no schema to this registry.
        Some(409 | 422) => NoSchema::Unusable(said),
        _ => NoSchema::Unavailable(said),
    }
}

/// Whether TLS is the reason, seen by us or told by the other side, and not merely a connection that broke.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return !matches!(tls, rustls::Error::AlertReceived(AlertDescription::InternalError));
        }
        // An `io::Error` is not the source of what is inside it, but shows that one's source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map_or_else(|| error.source(), |inner| Some(inner));
    }
    false
}

/// An error's own words, causes included: without them "error sending request" is all there is.
fn said(what: &str, error: &(dyn Error + 'static)) -> String {
    let mut words = format!("{what}: {error}");
    let mut cause = error.source();
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
        RegistryAccess { urls: vec![url.to_owned()], credentials: Credentials::None, ca: None, identity: None }
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
        assert!(matches!(judge(&error("400 Bad Request")), NoSchema::Refused(_)));
        assert!(matches!(judge(&error("409 Conflict")), NoSchema::Unusable(_)));
        assert!(matches!(judge(&error("500 Internal Server Error")), NoSchema::Unavailable(_)));
        assert!(matches!(judge(&error("503 Service Unavailable")), NoSchema::Unavailable(_)));
        assert!(matches!(judge(&SRCError::new("something else", None, true)), NoSchema::Unavailable(_)));
    }

    #[test]
    fn tls_is_told_from_a_connection_that_broke() {
        let nested = |error: rustls::Error| {
            SRCError::retryable_with_cause(
                io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error)),
                "failed",
            )
        };
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(matches!(judge(&nested(unknown)), NoSchema::Untrusted(said) if said.contains("UnknownIssuer")));
        let wanted = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert!(matches!(judge(&nested(wanted)), NoSchema::Untrusted(_)));
        let broken = rustls::Error::AlertReceived(AlertDescription::InternalError);
        assert!(matches!(judge(&nested(broken)), NoSchema::Unavailable(_)));
        let broken = SRCError::retryable_with_cause(io::Error::from(io::ErrorKind::UnexpectedEof), "failed");
        assert!(matches!(judge(&broken), NoSchema::Unavailable(_)));
    }

    #[test]
    fn a_certificate_without_a_key_is_refused() {
        for pem in ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let access = RegistryAccess { identity: Some(pem.parse().unwrap()), ..access("https://localhost") };
            let error = RegistryClient::new(&access).err().unwrap();
            assert_eq!(error.code, "SCHEMA_REGISTRY_SETTING");
        }
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        for ca in [&b""[..], b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let access = RegistryAccess { ca: Some(ca.to_vec()), ..access("https://localhost") };
            assert!(RegistryClient::new(&access).is_err(), "{}", String::from_utf8_lossy(ca));
        }
    }
}
