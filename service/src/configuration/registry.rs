//! Owns the settings of a schema registry: where it is and how to be let in.
//!
//! Passwords and tokens come from files, never from flags or variables, which other users of the machine can see. A
//! URL with a password in it is refused, because URLs are shown in logs. Which settings go together is checked here and not
//! by clap, to which those of variables and files are defaults and thereby not given.

use std::fmt;
use std::path::{Path, PathBuf};

use super::secret::Secret;
use crate::errors::Coded;

/// The flags of a schema registry; flatten them into the program's own.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct SchemaRegistry {
    /// Schema registry with the Confluent-compatible API, needed for Avro and
    /// JSON Schema; several addresses of one registry separated by commas
    #[arg(long, value_name = "URL,…")]
    pub schema_registry_url: Option<String>,
    /// User at the schema registry (basic authentication)
    #[arg(long, value_name = "USER")]
    pub schema_registry_user: Option<String>,
    /// File with the password of that user
    #[arg(long, value_name = "FILE")]
    pub schema_registry_password_file: Option<PathBuf>,
    /// File with a bearer token for the schema registry, instead of user and password
    #[arg(long, value_name = "FILE")]
    pub schema_registry_token_file: Option<PathBuf>,
    /// File with the certificates (PEM) to trust at the schema registry; without it those of the system
    #[arg(long, value_name = "FILE")]
    pub schema_registry_ca_file: Option<PathBuf>,
    /// File with the certificate (PEM) to show to a schema registry that wants one
    #[arg(long, value_name = "FILE")]
    pub schema_registry_certificate_file: Option<PathBuf>,
    /// File with the key of that certificate (PEM, unencrypted)
    #[arg(long, value_name = "FILE")]
    pub schema_registry_key_file: Option<PathBuf>,
}

/// A checked registry setting, its files read. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAccess {
    /// Base URLs of the Confluent-compatible API, without a slash at the end; at least one.
    pub urls: Vec<String>,
    /// How to be let in.
    pub credentials: Credentials,
    /// Certificates to trust (PEM); `None`: those of the system.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key to show (PEM, one after the other); `None`: none.
    pub identity: Option<Secret>,
}

/// How to be let in.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    None,
    /// Basic authentication.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token.
    Token(Secret),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("None"),
            Self::Basic { user, password } => write!(formatter, "Basic({user}:{password})"),
            Self::Token(token) => write!(formatter, "Token({token})"),
        }
    }
}

impl SchemaRegistry {
    /// Checks the settings and reads the files; `None` without a registry. May be called again: secrets change.
    ///
    /// # Errors
    /// `SCHEMA_REGISTRY_SETTING`, naming flag and file, never a secret.
    pub fn access(&self) -> Result<Option<RegistryAccess>, Coded> {
        let Some(urls) = &self.schema_registry_url else {
            let without = [
                ("--schema-registry-user", self.schema_registry_user.is_some()),
                ("--schema-registry-password-file", self.schema_registry_password_file.is_some()),
                ("--schema-registry-token-file", self.schema_registry_token_file.is_some()),
                ("--schema-registry-ca-file", self.schema_registry_ca_file.is_some()),
                ("--schema-registry-certificate-file", self.schema_registry_certificate_file.is_some()),
                ("--schema-registry-key-file", self.schema_registry_key_file.is_some()),
            ];
            return match without.into_iter().find(|(_, given)| *given) {
                None => Ok(None),
                Some((flag, _)) => Err(wrong(format!("{flag} is given without --schema-registry-url"))),
            };
        };
        let urls = urls.split(',').map(|url| checked(url.trim())).collect::<Result<Vec<_>, _>>()?;
        let secret = |path: &Path, flag: &str| Secret::read(path).map_err(|error| wrong(format!("{flag}: {error}")));
        let Self { schema_registry_user, schema_registry_password_file, schema_registry_token_file, .. } = self;
        let credentials = match (schema_registry_user, schema_registry_password_file, schema_registry_token_file) {
            (None, None, None) => Credentials::None,
            (Some(user), Some(path), None) => {
                let password = secret(path, "--schema-registry-password-file")?;
                Credentials::Basic { user: user.clone(), password }
            }
            (None, None, Some(path)) => Credentials::Token(secret(path, "--schema-registry-token-file")?),
            _ => {
                return Err(wrong(
                    "give --schema-registry-user and --schema-registry-password-file together, or \
                     --schema-registry-token-file alone"
                        .to_owned(),
                ));
            }
        };
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|error| unreadable("--schema-registry-ca-file", path, &error));
        let ca = self.schema_registry_ca_file.as_ref().map(read).transpose()?;
        Ok(Some(RegistryAccess { urls, credentials, ca, identity: self.identity()? }))
    }

    /// Certificate and key, which go together only.
    fn identity(&self) -> Result<Option<Secret>, Coded> {
        let (certificate, key) = match (&self.schema_registry_certificate_file, &self.schema_registry_key_file) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate, key),
            _ => {
                return Err(wrong(
                    "give --schema-registry-certificate-file and --schema-registry-key-file together".to_owned(),
                ));
            }
        };
        let read = |path, flag| Secret::read(path).map_err(|error| wrong(format!("{flag}: {error}")));
        let certificate = read(certificate, "--schema-registry-certificate-file")?;
        let key = read(key, "--schema-registry-key-file")?;
        Ok(Some(Secret::from(format!("{}\n{}\n", certificate.expose(), key.expose()))))
    }
}

/// A URL that may be shown.
fn checked(url: &str) -> Result<String, Coded> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest.filter(|rest| !rest.is_empty() && !rest.starts_with('/')) else {
        // Not shown: it may hold a password all the same.
        return Err(wrong("--schema-registry-url is no http:// or https:// URL".to_owned()));
    };
    if rest.contains('@') {
        return Err(wrong(
            "--schema-registry-url has a user in it; give --schema-registry-user and --schema-registry-password-file"
                .to_owned(),
        ));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn unreadable(flag: &str, path: &Path, error: &std::io::Error) -> Coded {
    wrong(format!("{flag}: {} cannot be read: {error}", path.display()))
}

fn wrong(what: String) -> Coded {
    Coded::usage("SCHEMA_REGISTRY_SETTING", what, "correct the setting; --help describes it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(url: &str) -> SchemaRegistry {
        SchemaRegistry { schema_registry_url: Some(url.to_owned()), ..SchemaRegistry::default() }
    }

    #[test]
    fn urls_are_split_and_checked() {
        assert_eq!(SchemaRegistry::default().access(), Ok(None));
        let access = registry("http://one:8080/apis/ccompat/v7/, https://two").access().unwrap().unwrap();
        assert_eq!(access.urls, ["http://one:8080/apis/ccompat/v7", "https://two"]);
        for url in ["registry:8080", "http://", "http:///x", "", "http://a,", "http://me:hunter2@host"] {
            let error = registry(url).access().unwrap_err();
            assert_eq!(error.code, "SCHEMA_REGISTRY_SETTING", "{url}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_certificate_and_its_key_go_together_and_are_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("certificate"), directory.path().join("key"));
        std::fs::write(&certificate, "public\n").unwrap();
        std::fs::write(&key, "hunter2\n").unwrap();
        let half = SchemaRegistry { schema_registry_key_file: Some(key), ..registry("https://one") };
        assert!(half.access().unwrap_err().what.contains("together"));
        let whole = SchemaRegistry { schema_registry_certificate_file: Some(certificate.clone()), ..half };
        let access = whole.access().unwrap().unwrap();
        assert_eq!(access.identity.as_ref().map(Secret::expose), Some("public\nhunter2\n"));
        assert!(!format!("{access:?}").contains("hunter2"));
        std::fs::remove_file(&certificate).unwrap();
        assert!(whole.access().unwrap_err().what.contains("--schema-registry-certificate-file"));
    }

    #[test]
    fn secrets_come_from_files_and_are_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "hunter2\n").unwrap();
        let user = SchemaRegistry {
            schema_registry_user: Some("me".to_owned()),
            schema_registry_password_file: Some(file.clone()),
            ..registry("http://one")
        };
        let access = user.access().unwrap().unwrap();
        assert_eq!(access.credentials, Credentials::Basic { user: "me".into(), password: "hunter2".parse().unwrap() });
        assert!(!format!("{access:?} {user:?}").contains("hunter2"));
        let token = SchemaRegistry { schema_registry_token_file: Some(file.clone()), ..registry("http://one") };
        let access = token.access().unwrap().unwrap();
        assert_eq!(access.credentials, Credentials::Token("hunter2".parse().unwrap()));
        assert!(!format!("{access:?}").contains("hunter2"));
        std::fs::write(&file, "\n").unwrap();
        assert!(token.access().unwrap_err().what.contains("is empty"));
        std::fs::remove_file(&file).unwrap();
        assert!(token.access().unwrap_err().what.contains("cannot be read"));
        let both = SchemaRegistry { schema_registry_user: Some("me".to_owned()), ..token.clone() };
        assert!(both.access().unwrap_err().what.contains("together"));
        let half = SchemaRegistry { schema_registry_user: Some("me".to_owned()), ..registry("http://one") };
        assert!(half.access().unwrap_err().what.contains("together"));
        let orphan = SchemaRegistry { schema_registry_url: None, ..token };
        assert!(orphan.access().unwrap_err().what.contains("without --schema-registry-url"));
    }
}
