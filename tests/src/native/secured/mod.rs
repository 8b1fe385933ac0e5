//! A stack whose programs have to show who they are: certificates, logins, an authorizer.
//!
//! Owns what the servers are given for it, and [`SecureStack`], which sends programs there. The test process itself
//! talks to the brokers in the clear, as the super user that it has to be: what is tested is what the programs do. Files are
//! made by the project's own scripts in `deploy/`, so that those are tested, too.
//!
//! - `stack`: the stack
//! - `gateway`: what stands before the schema registry
//! - `token`: the endpoint that gives out tokens, the one server that is not a real one (brokers verify its tokens)

mod gateway;
mod stack;
mod token;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::ports::Port;
use super::provision;
use super::{paths, secured::token::Tokens};

pub use gateway::RegistryLogin;
pub use stack::{Login, SecureStack};

/// Passwords, each found nowhere else, so that a text in which one appears has leaked it.
pub(super) const PROCESSOR_PASSWORD: &str = "pw-of-the-processor-Kq7";
pub(super) const SINK_PASSWORD: &str = "pw-of-the-sink-Zx4";
pub(super) const PLAIN_PASSWORD: &str = "pw-of-plain-Vb9";
pub(super) const CLIENT_SECRET: &str = "secret-of-the-client-Jh2";
pub(super) const KEY_PASSWORD: &str = "pw-of-the-key-Wm5";
pub(super) const DATABASE_PASSWORD: &str = "pw-of-the-role-Ty8";
pub(super) const REGISTRY_PASSWORD: &str = "pw-of-the-registry-Nc3";
pub(super) const REGISTRY_TOKEN: &str = "token-of-the-registry-Lp6";

/// Ports of the listeners of secured clients.
#[derive(Debug)]
pub(super) struct SecuredPorts {
    /// TLS, and any SASL mechanism above it.
    pub(super) sasl: Port,
    /// TLS, the client's certificate required.
    pub(super) tls: Port,
}

impl SecuredPorts {
    pub(super) fn reserve() -> Result<Self> {
        Ok(Self { sasl: Port::reserve()?, tls: Port::reserve()? })
    }

    /// Listeners, and what is said of them: the certificates are for the name, not for the address.
    pub(super) fn listeners(&self) -> (String, String) {
        let both = |host: &str| format!("SASL://{host}:{},TLS://{host}:{},", self.sasl.number(), self.tls.number());
        (both("127.0.0.1"), both("localhost"))
    }
}

/// Where the files of a stack in `directory` are.
pub(super) fn files(directory: &Path) -> PathBuf {
    directory.join("secure")
}

/// Certificates, keys for tokens, and files with passwords.
pub(super) fn make_files(directory: &Path) -> Result<()> {
    let files = files(directory);
    let owner = provision::server_user().map(|user| format!("@{user}")).unwrap_or_default();
    let script = paths::workspace_directory().join("deploy/secure/certificates.sh");
    run(Command::new(script)
        .arg(&files)
        .args(["broker=localhost", "registry=localhost", "mutual=mutual"])
        .arg(format!("database=localhost{owner}")))?;
    for (name, password) in [
        ("processor", PROCESSOR_PASSWORD),
        ("sink", SINK_PASSWORD),
        ("plain", PLAIN_PASSWORD),
        ("oauth", CLIENT_SECRET),
        ("key", KEY_PASSWORD),
        ("database", DATABASE_PASSWORD),
        ("registry", REGISTRY_PASSWORD),
        ("registry-token", REGISTRY_TOKEN),
        ("wrong", "wrong"),
    ] {
        fs::write(password_file(&files, name), format!("{password}\n"))?;
    }
    run(Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in"])
        .arg(files.join("mutual.key"))
        .arg("-out")
        .arg(files.join("mutual.encrypted.key"))
        .arg("-passout")
        .arg(format!("file:{}", password_file(&files, "key").display())))?;
    make_expired(&files)?;
    Tokens::make(&files)
}

/// A certificate that was good for no longer than the second in which it was made; its own authority.
fn make_expired(files: &Path) -> Result<()> {
    let file = |name: &str| files.join(name);
    run(Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(file("expired.key"))
        .arg("-out")
        .arg(file("expired.csr")))?;
    run(Command::new("openssl")
        .args(["x509", "-req", "-days", "0", "-copy_extensions", "copyall", "-signkey"])
        .arg(file("expired.key"))
        .arg("-in")
        .arg(file("expired.csr"))
        .arg("-out")
        .arg(file("expired.crt")))
}

/// The file with the password of `name`.
pub(super) fn password_file(files: &Path, name: &str) -> PathBuf {
    files.join(format!("{name}.password"))
}

/// What formatting a broker's storage needs to know: users exist from the beginning.
pub(super) fn format_arguments() -> Vec<String> {
    [("processor", PROCESSOR_PASSWORD), ("sink", SINK_PASSWORD)]
        .into_iter()
        .flat_map(|(user, password)| {
            ["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={password}]")]
        })
        .collect()
}

/// A broker fetches keys of tokens from nowhere unless it is told that it may.
pub(super) fn java_options(directory: &Path) -> (String, String) {
    let keys = files(directory).join(token::KEYS);
    let option = format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{}", keys.display());
    ("JDK_JAVA_OPTIONS".to_owned(), option)
}

/// The secured part of a broker's `server.properties`.
pub(super) fn broker_properties(directory: &Path) -> String {
    let files = files(directory);
    let file = |name: &str| files.join(name).display().to_string();
    let sasl = "org.apache.kafka.common.security";
    format!(
        "sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.sasl.scram-sha-512.sasl.jaas.config={sasl}.scram.ScramLoginModule required;
listener.name.sasl.plain.sasl.jaas.config={sasl}.plain.PlainLoginModule required user_plain=\"{PLAIN_PASSWORD}\";
listener.name.sasl.oauthbearer.sasl.jaas.config={sasl}.oauthbearer.OAuthBearerLoginModule required;
listener.name.sasl.oauthbearer.sasl.server.callback.handler.class={sasl}.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.sasl.oauthbearer.sasl.oauthbearer.jwks.endpoint.url=file://{keys}
listener.name.sasl.oauthbearer.sasl.oauthbearer.expected.audience={audience}
ssl.keystore.type=PEM
ssl.keystore.location={broker}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.tls.ssl.client.auth=required
listener.name.tls.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT
connections.max.reauth.ms=10000
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:plain;User:oauth;User:mutual;User:changing
",
        keys = file(token::KEYS),
        audience = token::AUDIENCE,
        broker = file("broker.pem"),
        authority = file("ca.crt"),
    )
}

/// TLS of a registry.
pub(super) fn registry_options(directory: &Path, port: &Port) -> Vec<String> {
    let files = files(directory);
    let file = |name: &str| files.join(name).display().to_string();
    vec![
        format!("-Dquarkus.http.ssl-port={}", port.number()),
        format!("-Dquarkus.http.ssl.certificate.files={}", file("registry.crt")),
        format!("-Dquarkus.http.ssl.certificate.key-files={}", file("registry.key")),
        // The converters of Connect, and the proxy, come in the clear.
        "-Dquarkus.http.insecure-requests=enabled".to_owned(),
    ]
}

/// TLS of a database in a stack that is secured; none elsewhere.
pub(super) fn database_settings(directory: &Path) -> Vec<(&'static str, String)> {
    let files = files(directory);
    if !files.join("ca.crt").is_file() {
        return Vec::new();
    }
    let file = |name: &str| files.join(name).display().to_string();
    vec![
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", file("database.crt")),
        ("ssl_key_file", file("database.key")),
        ("ssl_ca_file", file("ca.crt")),
    ]
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_secured_stack_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        make_files(directory.path()).unwrap();
        let files = files(directory.path());
        for name in ["ca.crt", "broker.pem", "database.key", "mutual.encrypted.key", token::KEYS, "token.jwt"] {
            assert!(fs::metadata(files.join(name)).unwrap().len() > 0, "{name}");
        }
        let token = fs::read_to_string(files.join("token.jwt")).unwrap();
        assert_eq!(token.split('.').count(), 3);
        let before = fs::read(files.join("broker.pem")).unwrap();
        make_files(directory.path()).unwrap();
        assert_eq!(fs::read(files.join("broker.pem")).unwrap(), before);
    }
}
