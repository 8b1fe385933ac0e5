//! Owns how brokers are spoken to: encryption, the program's identity, and what it believes theirs by.
//!
//! One set of settings for every client of a program. They become librdkafka properties, beneath those of the tables
//! `[kafka.*]`, so that whatever has no setting here can still be given there. Which settings go together is
//! checked here, where the message can name the flag; files are opened here for the same reason.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use clap::ValueEnum;

use super::secret::Secret;
use crate::errors::Coded;

/// The flags of a secured connection to Kafka; flatten them into the program's own.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct KafkaAccess {
    /// How brokers are spoken to; without it in the clear, unless the file says otherwise
    #[arg(long, value_enum, ignore_case = true, value_name = "PROTOCOL")]
    pub kafka_security_protocol: Option<SecurityProtocol>,
    /// How the program shows who it is; only with one of the protocols that begin with sasl
    #[arg(long, value_enum, ignore_case = true, value_name = "MECHANISM")]
    pub kafka_sasl_mechanism: Option<SaslMechanism>,
    /// User at the brokers; with OAUTHBEARER the client id at the token endpoint
    #[arg(long, value_name = "USER")]
    pub kafka_user: Option<String>,
    /// Password of that user, or the client's secret; better as a variable or in a file than as a flag, which other
    /// users of the machine can see
    #[arg(long, value_name = "PASSWORD")]
    pub kafka_password: Option<Secret>,
    /// File with that password
    #[arg(long, value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,
    /// Where tokens are fetched for OAUTHBEARER (OIDC, client credentials)
    #[arg(long, value_name = "URL")]
    pub kafka_token_url: Option<String>,
    /// Scope to ask for there
    #[arg(long, value_name = "SCOPE")]
    pub kafka_token_scope: Option<String>,
    /// File with the certificates (PEM) to trust there; without it those of the system
    #[arg(long, value_name = "FILE")]
    pub kafka_token_ca_file: Option<PathBuf>,
    /// File with the certificates (PEM) to trust at the brokers; without it those of the system
    #[arg(long, value_name = "FILE")]
    pub kafka_ca_file: Option<PathBuf>,
    /// File with the program's own certificate (PEM), for brokers that want one
    #[arg(long, value_name = "FILE")]
    pub kafka_certificate_file: Option<PathBuf>,
    /// File with the private key of that certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub kafka_key_file: Option<PathBuf>,
    /// File with the password of that key
    #[arg(long, value_name = "FILE")]
    pub kafka_key_password_file: Option<PathBuf>,
}

/// Kafka's own names of how a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// In the clear, without an identity
    Plaintext,
    /// TLS; the identity, if brokers want one, is a certificate
    Ssl,
    /// In the clear, with an identity
    SaslPlaintext,
    /// TLS, with an identity
    SaslSsl,
}

impl SecurityProtocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    const fn is_encrypted(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    const fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// Kafka's own names of how an identity is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SaslMechanism {
    /// User and password, as they are
    #[value(name = "PLAIN")]
    Plain,
    /// User and password, never sent
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// User and password, never sent
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token, fetched with client id and secret
    #[value(name = "OAUTHBEARER")]
    OauthBearer,
}

impl SaslMechanism {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

impl KafkaAccess {
    /// Checks the settings, reads the files of secrets, and says the same in librdkafka's properties. Values may be secret.
    ///
    /// # Errors
    /// `KAFKA_ACCESS_SETTING`, naming flag and file, never a secret.
    pub fn properties(&self) -> Result<BTreeMap<String, String>, Coded> {
        let Some(protocol) = self.kafka_security_protocol else {
            return match self.given().into_iter().find(|(_, given)| *given) {
                None => Ok(BTreeMap::new()),
                Some((flag, _)) => Err(wrong(format!("{flag} is given without --kafka-security-protocol"))),
            };
        };
        let mut properties = BTreeMap::from([("security.protocol".to_owned(), protocol.name().to_owned())]);
        let mut set = |name: &str, value: &str| properties.insert(name.to_owned(), value.to_owned());
        for (flag, property, path) in [
            ("--kafka-ca-file", "ssl.ca.location", &self.kafka_ca_file),
            ("--kafka-certificate-file", "ssl.certificate.location", &self.kafka_certificate_file),
            ("--kafka-key-file", "ssl.key.location", &self.kafka_key_file),
        ] {
            let Some(path) = path else { continue };
            only_if(protocol.is_encrypted(), flag, "ssl or sasl_ssl")?;
            set(property, readable(flag, path)?);
        }
        if self.kafka_certificate_file.is_some() != self.kafka_key_file.is_some() {
            return Err(wrong("give --kafka-certificate-file and --kafka-key-file together".to_owned()));
        }
        if let Some(path) = &self.kafka_key_password_file {
            if self.kafka_key_file.is_none() {
                return Err(wrong("--kafka-key-password-file is given without --kafka-key-file".to_owned()));
            }
            let password = Secret::read(path).map_err(|error| wrong(format!("--kafka-key-password-file: {error}")))?;
            set("ssl.key.password", password.expose());
        }
        for (name, value) in self.identity(protocol)? {
            set(name, &value);
        }
        Ok(properties)
    }

    /// The properties of SASL.
    fn identity(&self, protocol: SecurityProtocol) -> Result<Vec<(&'static str, String)>, Coded> {
        let Some(mechanism) = self.kafka_sasl_mechanism else {
            if protocol.has_sasl() {
                return Err(wrong(format!("{} needs --kafka-sasl-mechanism", protocol.name())));
            }
            let given = self.given().into_iter().filter(|(flag, given)| *given && SASL_ONLY.contains(flag));
            return match given.map(|(flag, _)| flag).next() {
                None => Ok(Vec::new()),
                Some(flag) => Err(wrong(format!("{flag} is given without --kafka-sasl-mechanism"))),
            };
        };
        only_if(protocol.has_sasl(), "--kafka-sasl-mechanism", "sasl_ssl or sasl_plaintext")?;
        let user = self.kafka_user.clone().ok_or_else(|| wrong("a SASL mechanism needs --kafka-user".to_owned()))?;
        let password = self.password()?.expose().to_owned();
        let mut properties = vec![("sasl.mechanism", mechanism.name().to_owned())];
        if mechanism != SaslMechanism::OauthBearer {
            if let Some((flag, _)) = self.given().into_iter().find(|(flag, given)| *given && TOKEN_ONLY.contains(flag))
            {
                return Err(wrong(format!("{flag} is for OAUTHBEARER only")));
            }
            properties.extend([("sasl.username", user), ("sasl.password", password)]);
            return Ok(properties);
        }
        let url = self.kafka_token_url.as_deref().unwrap_or_default();
        // Not shown: it may hold a password all the same.
        if !(url.starts_with("https://") || url.starts_with("http://")) || url.contains('@') {
            let what = "OAUTHBEARER needs --kafka-token-url, an http:// or https:// URL without a user in it";
            return Err(wrong(what.to_owned()));
        }
        properties.extend([
            ("sasl.oauthbearer.method", "oidc".to_owned()),
            ("sasl.oauthbearer.client.id", user),
            ("sasl.oauthbearer.client.secret", password),
            ("sasl.oauthbearer.token.endpoint.url", url.to_owned()),
        ]);
        properties.extend(self.kafka_token_scope.clone().map(|scope| ("sasl.oauthbearer.scope", scope)));
        if let Some(path) = &self.kafka_token_ca_file {
            properties.push(("https.ca.location", readable("--kafka-token-ca-file", path)?.to_owned()));
        }
        Ok(properties)
    }

    fn password(&self) -> Result<Secret, Coded> {
        match (&self.kafka_password, &self.kafka_password_file) {
            (Some(password), None) => Ok(password.clone()),
            (None, Some(path)) => Secret::read(path).map_err(|error| wrong(format!("--kafka-password-file: {error}"))),
            _ => Err(wrong("give either --kafka-password-file or --kafka-password (as a variable)".to_owned())),
        }
    }

    fn given(&self) -> [(&'static str, bool); 11] {
        [
            ("--kafka-sasl-mechanism", self.kafka_sasl_mechanism.is_some()),
            ("--kafka-user", self.kafka_user.is_some()),
            ("--kafka-password", self.kafka_password.is_some()),
            ("--kafka-password-file", self.kafka_password_file.is_some()),
            ("--kafka-token-url", self.kafka_token_url.is_some()),
            ("--kafka-token-scope", self.kafka_token_scope.is_some()),
            ("--kafka-token-ca-file", self.kafka_token_ca_file.is_some()),
            ("--kafka-ca-file", self.kafka_ca_file.is_some()),
            ("--kafka-certificate-file", self.kafka_certificate_file.is_some()),
            ("--kafka-key-file", self.kafka_key_file.is_some()),
            ("--kafka-key-password-file", self.kafka_key_password_file.is_some()),
        ]
    }
}

const TOKEN_ONLY: &[&str] = &["--kafka-token-url", "--kafka-token-scope", "--kafka-token-ca-file"];
const SASL_ONLY: &[&str] = &[
    "--kafka-user",
    "--kafka-password",
    "--kafka-password-file",
    "--kafka-token-url",
    "--kafka-token-scope",
    "--kafka-token-ca-file",
];

fn only_if(fits: bool, flag: &str, protocols: &str) -> Result<(), Coded> {
    if fits { Ok(()) } else { Err(wrong(format!("{flag} needs --kafka-security-protocol {protocols}"))) }
}

/// The path of a file that can be opened, as librdkafka takes it.
fn readable<'a>(flag: &str, path: &'a std::path::Path) -> Result<&'a str, Coded> {
    let shown = path.display();
    File::open(path).map_err(|error| wrong(format!("{flag}: {shown} cannot be read: {error}")))?;
    path.to_str().ok_or_else(|| wrong(format!("{flag}: {shown} is no UTF-8 text")))
}

fn wrong(what: String) -> Coded {
    Coded::usage("KAFKA_ACCESS_SETTING", what, "correct the setting; --help describes it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scram() -> KafkaAccess {
        KafkaAccess {
            kafka_security_protocol: Some(SecurityProtocol::SaslSsl),
            kafka_sasl_mechanism: Some(SaslMechanism::ScramSha512),
            kafka_user: Some("processor".to_owned()),
            kafka_password: Some("hunter2".parse().unwrap()),
            ..KafkaAccess::default()
        }
    }

    fn what(access: &KafkaAccess) -> String {
        let error = access.properties().unwrap_err();
        assert_eq!(error.code, "KAFKA_ACCESS_SETTING");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        error.what
    }

    #[test]
    fn without_settings_nothing_is_said_to_librdkafka() {
        assert_eq!(KafkaAccess::default().properties(), Ok(BTreeMap::new()));
    }

    #[test]
    fn scram_over_tls_with_a_password_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let path = file.path().to_path_buf();
        let access = KafkaAccess { kafka_password: None, kafka_password_file: Some(path), ..scram() };
        let access = KafkaAccess { kafka_ca_file: Some(file.path().to_path_buf()), ..access };
        let properties = access.properties().unwrap();
        let value = |name: &str| properties.get(name).map(String::as_str);
        assert_eq!(value("security.protocol"), Some("sasl_ssl"));
        assert_eq!(value("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!((value("sasl.username"), value("sasl.password")), (Some("processor"), Some("hunter2")));
        assert_eq!(value("ssl.ca.location"), file.path().to_str());
    }

    #[test]
    fn oauthbearer_fetches_its_tokens_with_client_credentials() {
        let access = KafkaAccess {
            kafka_sasl_mechanism: Some(SaslMechanism::OauthBearer),
            kafka_token_url: Some("https://id/token".to_owned()),
            ..scram()
        };
        let properties = access.properties().unwrap();
        let value = |name: &str| properties.get(name).map(String::as_str);
        assert_eq!(value("sasl.oauthbearer.method"), Some("oidc"));
        assert_eq!(value("sasl.oauthbearer.client.secret"), Some("hunter2"));
        assert_eq!(value("sasl.password"), None);
        let without = KafkaAccess { kafka_token_url: Some("https://me:hunter2@id/token".to_owned()), ..access };
        assert!(what(&without).contains("--kafka-token-url"));
    }

    #[test]
    fn settings_that_do_not_go_together_are_named() {
        let path = || Some(PathBuf::from("/nowhere/file"));
        let both = KafkaAccess { kafka_password_file: path(), ..scram() };
        assert!(what(&both).contains("either --kafka-password-file"));
        assert!(what(&KafkaAccess { kafka_security_protocol: None, ..scram() }).contains("--kafka-security-protocol"));
        let tls = KafkaAccess { kafka_security_protocol: Some(SecurityProtocol::Ssl), ..scram() };
        assert!(what(&tls).contains("--kafka-sasl-mechanism needs"));
        assert!(what(&KafkaAccess { kafka_sasl_mechanism: None, ..scram() }).contains("--kafka-sasl-mechanism"));
        assert!(what(&KafkaAccess { kafka_user: None, ..scram() }).contains("--kafka-user"));
        assert!(what(&KafkaAccess { kafka_ca_file: path(), ..scram() }).contains("/nowhere/file cannot be read"));
        assert!(what(&KafkaAccess { kafka_key_password_file: path(), ..scram() }).contains("--kafka-key-file"));
        let token = KafkaAccess { kafka_token_scope: Some("kafka".to_owned()), ..scram() };
        assert!(what(&token).contains("OAUTHBEARER only"));
    }

    #[test]
    fn no_secret_is_shown() {
        assert!(!format!("{:?}", scram()).contains("hunter2"));
    }
}
