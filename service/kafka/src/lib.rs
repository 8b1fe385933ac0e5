//! How the brokers let a program in: reaching them once at the start, and what their refusals mean.
//!
//! Owns the codes `KAFKA_NOT_AUTHENTICATED`, `KAFKA_TLS` and `KAFKA_NOT_AUTHORIZED` with their remedies, for both
//! programs. librdkafka itself never gives up on a wrong password or an unknown certificate: it logs, and every
//! call times out for ever. So the brokers are asked for anything at all first, by a client that listens for the
//! reason ([`reach`]). Never decides how to go on after the start; shows no value of any property.

#[cfg(target_os = "linux")]
pub mod leader_discovery;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use service::Coded;

/// One question to the brokers.
const QUESTION: Duration = Duration::from_millis(500);
/// One question about a topic, to brokers that have answered before.
const TOPIC_QUESTION: Duration = Duration::from_secs(5);
/// How long another broker may still let the program in after one has refused to.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(3);

/// Whether brokers answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// One has.
    Yes,
    /// None yet, for this reason; that may change.
    NotYet(String),
}

/// Asks the brokers of `config` for anything, for at most `patience`; then whether `topics`, which need not exist, may be
/// read. (librdkafka does not report a topic that may not even be described to a consumer which was assigned it.)
///
/// # Errors
/// `KAFKA_NOT_AUTHENTICATED`, `KAFKA_TLS`, `KAFKA_NOT_AUTHORIZED`: they are there and waiting does not help.
/// `KAFKA_SETTING_REFUSED`: librdkafka refuses a property.
pub fn reach(config: &ClientConfig, topics: &[&str], patience: Duration) -> Result<Reached, Coded> {
    #[cfg(target_os = "linux")]
    if !leader_discovery::is_mended() {
        tracing::warn!("linked without the mend of librdkafka#5280: this program may crash when brokers do");
    }
    let mut config = config.clone();
    // A member of no group: it only asks.
    for unused in ["group.id", "group.instance.id", "statistics.interval.ms"] {
        config.remove(unused);
    }
    let client: BaseConsumer<Listener> =
        config.create_with_context(Listener::default()).map_err(|error| setting_refused("first client", &error))?;
    let began = Instant::now();
    let mut refused_at = None;
    loop {
        let Err(error) = client.fetch_metadata(None, QUESTION) else { return may_read(&client, topics) };
        serve(&client);
        let heard = client.context().heard();
        if let Some(reason) = &heard.refusal {
            let since = *refused_at.get_or_insert_with(Instant::now);
            if since.elapsed() >= AFTER_A_REFUSAL {
                return Err(reason.clone());
            }
        }
        if began.elapsed() >= patience {
            return Ok(Reached::NotYet(heard.last.unwrap_or_else(|| said(&error))));
        }
    }
}

/// Refuses when one of the topics may not be described, which the right to read includes.
fn may_read(client: &BaseConsumer<Listener>, topics: &[&str]) -> Result<Reached, Coded> {
    for topic in topics {
        let metadata = match client.fetch_metadata(Some(topic), TOPIC_QUESTION) {
            Ok(metadata) => metadata,
            Err(error) => return Ok(Reached::NotYet(said(&error))),
        };
        let refused = metadata.topics().iter().filter_map(|found| found.error().map(RDKafkaErrorCode::from));
        if refused.into_iter().any(|code| code == RDKafkaErrorCode::TopicAuthorizationFailed) {
            return Err(not_authorized(&format!("this principal lacks the right Read on topic {topic}")));
        }
    }
    Ok(Reached::Yes)
}

/// Hands everything that is queued to the listener. A poll serves one event and gives nothing back for a log line; lines come
/// before errors however old those are, so stopping at the first would never reach the errors.
fn serve(client: &BaseConsumer<Listener>) {
    loop {
        let before = client.context().heard().events;
        if client.poll(Duration::ZERO).is_none() && client.context().heard().events == before {
            return;
        }
    }
}

/// What the brokers' refusal means, if `code` is one. `doing` names what was tried and on what.
pub fn refusal(code: RDKafkaErrorCode, doing: &str, text: &str) -> Option<Coded> {
    use RDKafkaErrorCode as Code;
    let what = if text.is_empty() { format!("{doing}: {code}") } else { format!("{doing}: {text} ({code})") };
    let right = match code {
        Code::TopicAuthorizationFailed => "a right on a topic",
        Code::GroupAuthorizationFailed => "the right Read on the consumer group",
        Code::ClusterAuthorizationFailed => "a right on the cluster (of creating topics, most likely)",
        Code::TransactionalIdAuthorizationFailed => "the right Write on the transactional ids",
        Code::Authentication | Code::SaslAuthenticationFailed => return Some(not_authenticated(&what)),
        _ => return None,
    };
    Some(not_authorized(&format!("{right} is missing, seen while {what}")))
}

/// A right that is missing; `what` names it.
pub fn not_authorized(what: &str) -> Coded {
    let remedy = "grant it to this principal with kafka-acls: docs/OPERATIONS.md lists all rights under \"ACLs\"; then \
                  start again";
    Coded::refused("KAFKA_NOT_AUTHORIZED", what, remedy)
}

fn not_authenticated(what: &str) -> Coded {
    let remedy = "check user, password or token settings (--kafka-user, --kafka-password-file, --kafka-sasl-mechanism, \
                  --kafka-token-url) and that the brokers know the user; then start again";
    Coded::refused("KAFKA_NOT_AUTHENTICATED", what, remedy)
}

fn tls(what: &str) -> Coded {
    let remedy = "check that --kafka-ca-file holds the authority that issued the brokers' certificates, that those are \
                  valid for the host names in --bootstrap-servers and in advertised.listeners, and that \
                  --kafka-certificate-file is given where brokers want one; then start again";
    Coded::refused("KAFKA_TLS", what, remedy)
}

/// A client that librdkafka refuses to build: always the configuration.
pub fn setting_refused(client: &str, error: &KafkaError) -> Coded {
    let remedy =
        "correct the --kafka-… setting, or the property in [kafka.consumer], [kafka.producer] or [kafka.admin]";
    Coded::usage("KAFKA_SETTING_REFUSED", format!("the {client} could not be built: {}", said(error)), remedy)
}

/// An error's words without the value of the property it is about, which may be a secret.
pub fn said(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, property, _) => format!("{property}: {description}"),
        other => other.to_string(),
    }
}

/// What a client was told.
#[derive(Debug, Clone, Default)]
struct Heard {
    /// Errors and log lines.
    events: u64,
    /// Waiting does not help.
    refusal: Option<Coded>,
    /// The last error of any kind.
    last: Option<String>,
}

/// Listens to the errors of one client.
#[derive(Debug, Default)]
struct Listener(Mutex<Heard>);

impl Listener {
    fn heard(&self) -> Heard {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        service::logging::librdkafka(level as i32, facility, message);
        let refused = token_refused(message);
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.events += 1;
        heard.refusal = heard.refusal.take().or(refused);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = error.rdkafka_error_code().and_then(|code| judge(code, reason));
        heard.events += 1;
        heard.refusal = heard.refusal.take().or(refused);
        heard.last = Some(reason.to_owned());
    }
}

impl ConsumerContext for Listener {}

/// Whether a log line says that the token endpoint refused. Only the log has its HTTP status, at the end and in
/// brackets; without one the endpoint was not reached, which may pass.
fn token_refused(message: &str) -> Option<Coded> {
    let (_, said) = message.split_once(NO_TOKEN)?;
    let (_, status) = said.trim_end_matches(')').rsplit_once('(')?;
    let refused = status.parse::<u16>().is_ok_and(|status| (400..500).contains(&status));
    refused.then(|| not_authenticated(&format!("the token endpoint gives no token:{said}")))
}

/// How librdkafka's log line begins, behind the client's name.
const NO_TOKEN: &str = "Failed to retrieve OIDC token from";

/// Whether an error of a connection is a refusal.
fn judge(code: RDKafkaErrorCode, reason: &str) -> Option<Coded> {
    match code {
        // Does not tell an endpoint that is away from one that refuses: see `token_refused`.
        RDKafkaErrorCode::Authentication if reason.contains("Failed to acquire SASL OAUTHBEARER token") => None,
        // With TLS 1.3 brokers say that they want a certificate only after the handshake.
        RDKafkaErrorCode::BrokerTransportFailure if !reason.contains("SSL alert") => None,
        RDKafkaErrorCode::SSL | RDKafkaErrorCode::BrokerTransportFailure => {
            Some(tls(&format!("no TLS connection to the brokers: {reason}")))
        }
        code => refusal(code, "connecting to the brokers", reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_codes_and_mere_outages_have_none() {
        let code = |code, reason: &str| judge(code, reason).map(|coded| coded.code);
        let verify = "ssl://kafka:9093/bootstrap: SSL handshake failed: certificate verify failed";
        assert_eq!(code(RDKafkaErrorCode::SSL, verify), Some("KAFKA_TLS"));
        let wanted =
            "Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL alert number 116";
        assert_eq!(code(RDKafkaErrorCode::BrokerTransportFailure, wanted), Some("KAFKA_TLS"));
        assert_eq!(code(RDKafkaErrorCode::Authentication, "invalid credentials"), Some("KAFKA_NOT_AUTHENTICATED"));
        assert_eq!(code(RDKafkaErrorCode::BrokerTransportFailure, "Connection refused"), None);
        assert_eq!(code(RDKafkaErrorCode::AllBrokersDown, "3/3 brokers are down"), None);
    }

    #[test]
    fn a_token_endpoint_that_is_away_is_waited_for_and_one_that_refuses_is_not() {
        let line = |end: &str| format!("[thrd:main]: Failed to retrieve OIDC token from \"https://id/token\": {end}");
        assert!(token_refused(&line("invalid_client (401)")).is_some());
        assert!(token_refused(&line("Failed to connect to id port 443 (-1)")).is_none());
        assert!(token_refused(&line("busy (503)")).is_none());
        assert!(token_refused("[thrd:main]: something else (401)").is_none());
    }

    #[test]
    fn a_missing_right_names_its_kind() {
        let what = |code| refusal(code, "joining", "x").map(|coded| coded.what).unwrap_or_default();
        assert!(what(RDKafkaErrorCode::GroupAuthorizationFailed).contains("Read on the consumer group"));
        assert!(what(RDKafkaErrorCode::TransactionalIdAuthorizationFailed).contains("Write on the transactional ids"));
        assert_eq!(refusal(RDKafkaErrorCode::RequestTimedOut, "joining", ""), None);
    }

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let mut config = ClientConfig::new();
        config.set("sasl.passwort", "hunter2");
        let error = reach(&config, &[], Duration::ZERO).unwrap_err();
        assert_eq!(error.code, "KAFKA_SETTING_REFUSED");
        assert!(error.what.contains("sasl.passwort") && !error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn nobody_there_is_not_a_refusal() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{port}"));
        assert!(matches!(reach(&config, &[], Duration::ZERO), Ok(Reached::NotYet(_))));
    }
}
