//! A native stack that programs reach over TLS with a login, and databases that know their roles only.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::jvm::Jvm;
use super::super::options::NativeOptions;
use super::super::paths;
use super::super::stack::NativeStack;
use super::gateway::{self, Gateway, RegistryLogin};
use super::token::{self, Tokens};
use super::{
    CLIENT_SECRET, DATABASE_PASSWORD, KEY_PASSWORD, PLAIN_PASSWORD, PROCESSOR_PASSWORD, REGISTRY_PASSWORD,
    REGISTRY_TOKEN, SINK_PASSWORD, files, password_file, run,
};
use crate::client::Sql;
use crate::stack::{Addresses, Component, Program, ProgramSpec, RunningProgram, Stack, Viewpoint};

const ACLS: &str = "org.apache.kafka.tools.AclCommand";

/// How a program shows the brokers who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// SCRAM-SHA-512, as `processor` or `sink`, with the rights that were granted and no others.
    Scram,
    /// PLAIN, as a super user.
    Plain,
    /// OAUTHBEARER, as a super user.
    OauthBearer,
    /// By certificate, as a super user.
    Certificate,
}

/// One broker, Connect, both databases and a registry, secured. Programs that are run here go to the brokers by
/// [`Login::Scram`], to the registry by [`RegistryLogin::Basic`], into the target as the role `sink`, unless their flags
/// say otherwise.
#[derive(Debug)]
pub struct SecureStack {
    // Before the directory that it reads from.
    gateway: Gateway,
    native: NativeStack,
    tokens: Tokens,
    files: PathBuf,
    bin: PathBuf,
}

impl SecureStack {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let native = NativeOptions::with_one_broker().with_registry().secured().start()?;
        let files = files(native.directory());
        let registry = native.registry_ports()?;
        let tls = registry.tls.as_ref().context("the registry has no TLS")?;
        let gateway = Gateway::start(native.directory(), registry.api.number(), tls.number())?;
        let bin = native.directory().join("bin");
        fs::create_dir_all(&bin)?;
        let jvm = Jvm::prepare(native.directory(), false)?;
        let words: Vec<String> = jvm.arguments(128, ACLS, &[]).iter().map(|word| format!("'{word}'")).collect();
        let tool = bin.join("kafka-acls.sh");
        fs::write(&tool, format!("#!/bin/sh\nexec '{}' {} \"$@\"\n", jvm.java.display(), words.join(" ")))?;
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755))?;
        Ok(Self { gateway, tokens: Tokens::serve(&files)?, native, files, bin })
    }

    /// Brokers for clients that log in this way.
    pub fn bootstrap_servers(&self, login: Login) -> Result<String> {
        let ports = self.native.secured_ports()?;
        let port = if login == Login::Certificate { &ports.tls } else { &ports.sasl };
        Ok(format!("localhost:{}", port.number()))
    }

    /// A file of the stack's: `ca.crt`, `wrong.password` …
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    /// The flags of a login; none of them is given twice.
    pub fn log_in(&self, spec: ProgramSpec, login: Login) -> Result<ProgramSpec> {
        let user = spec.program.binary();
        let mut flags = vec![
            ("--bootstrap-servers", self.bootstrap_servers(login)?),
            ("--kafka-security-protocol", if login == Login::Certificate { "ssl" } else { "sasl_ssl" }.to_owned()),
            ("--kafka-ca-file", self.file("ca.crt").display().to_string()),
        ];
        let mut sasl = |mechanism: &str, user: &str| {
            flags.push(("--kafka-sasl-mechanism", mechanism.to_owned()));
            flags.push(("--kafka-user", user.to_owned()));
            flags.push(("--kafka-password-file", password_file(&self.files, user).display().to_string()));
        };
        match login {
            Login::Scram => sasl("SCRAM-SHA-512", user),
            Login::Plain => sasl("PLAIN", "plain"),
            Login::OauthBearer => {
                sasl("OAUTHBEARER", token::CLIENT);
                flags.push(("--kafka-token-url", self.tokens.url()));
            }
            Login::Certificate => flags.extend([
                ("--kafka-certificate-file", self.file("mutual.crt").display().to_string()),
                ("--kafka-key-file", self.file("mutual.encrypted.key").display().to_string()),
                ("--kafka-key-password-file", password_file(&self.files, "key").display().to_string()),
            ]),
        }
        let missing = |spec: ProgramSpec, (flag, value): (&str, String)| {
            if spec.has_flag(flag) { spec } else { spec.flag(flag, value) }
        };
        Ok(flags.into_iter().fold(spec, missing))
    }

    /// The Confluent-compatible API of the registry by this way.
    pub fn registry_url(&self, login: RegistryLogin) -> String {
        self.gateway.url(login)
    }

    /// The flags of a login at the registry; none of them is given twice.
    pub fn log_in_at_registry(&self, spec: ProgramSpec, login: RegistryLogin) -> ProgramSpec {
        let path = |name: &str| self.file(name).display().to_string();
        let mut flags =
            vec![("--schema-registry-url", self.registry_url(login)), ("--schema-registry-ca-file", path("ca.crt"))];
        match login {
            RegistryLogin::Tls | RegistryLogin::Expired => {}
            RegistryLogin::Basic | RegistryLogin::Changing | RegistryLogin::Restricted => flags.extend([
                ("--schema-registry-user", gateway::USER.to_owned()),
                ("--schema-registry-password-file", path("registry.password")),
            ]),
            RegistryLogin::Token => flags.push(("--schema-registry-token-file", path("registry-token.password"))),
            RegistryLogin::Certificate => flags.extend([
                ("--schema-registry-certificate-file", path("mutual.crt")),
                ("--schema-registry-key-file", path("mutual.key")),
            ]),
        }
        let missing = |spec: ProgramSpec, (flag, value): (&str, String)| {
            if spec.has_flag(flag) { spec } else { spec.flag(flag, value) }
        };
        flags.into_iter().fold(spec, missing)
    }

    /// Gives the user of [`RegistryLogin::Changing`] another password at the registry, in no file of a program's.
    pub fn change_registry_password(&self, password: &str) -> Result<()> {
        self.gateway.change_password(password)
    }

    /// Gives a user of [`Login::Scram`] another password at the brokers, in no file of a program's.
    pub fn change_scram_password(&self, user: &str, password: &str) -> Result<()> {
        let change = format!("SCRAM-SHA-512=[password={password}]");
        let arguments = ["--alter", "--add-config", &change, "--entity-type", "users", "--entity-name", user];
        let bootstrap = self.native.addresses(Viewpoint::Host).bootstrap_servers;
        let arguments = ["--bootstrap-server", &bootstrap].into_iter().chain(arguments).map(str::to_owned);
        let jvm = Jvm::prepare(self.native.directory(), false)?;
        run(Command::new(&jvm.java).args(jvm.arguments(
            128,
            "kafka.admin.ConfigCommand",
            &arguments.collect::<Vec<_>>(),
        )))
    }

    /// The sink's role in the database of a URL of the super user's, and the URL of that role.
    ///
    /// One at a time: roles belong to the server, and PostgreSQL refuses to alter one twice at once.
    fn role_url(&self, url: &str) -> Result<String> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = Sql::connect(url)?;
        let script = fs::read_to_string(paths::workspace_directory().join("deploy/postgres/target-roles.sql"))?;
        sql.execute(&script)?;
        sql.execute(&format!("ALTER ROLE sink PASSWORD '{DATABASE_PASSWORD}'"))?;
        let (_, place) = url.rsplit_once("@127.0.0.1").context("an unexpected URL")?;
        let authority = self.file("ca.crt");
        Ok(format!("postgres://sink@localhost{place}?sslmode=verify-full&sslrootcert={}", authority.display()))
    }

    /// Grants both programs what `deploy/kafka/acls.sh` grants, for the names of one job.
    pub fn grant(&self, source_topic: &str, topic_prefix: &str, application_id: &str, sink_group: &str) -> Result<()> {
        run(Command::new(paths::workspace_directory().join("deploy/kafka/acls.sh"))
            .args(["--bootstrap-server", &self.native.addresses(Viewpoint::Host).bootstrap_servers])
            .env("KAFKA_BIN", &self.bin)
            .env("SOURCE_TOPIC", source_topic)
            .env("TOPIC_PREFIX", topic_prefix)
            .env("APPLICATION_ID", application_id)
            .env("SINK_GROUP", sink_group))
    }

    /// Runs `kafka-acls` with these arguments.
    pub fn acls(&self, arguments: &[&str]) -> Result<()> {
        run(Command::new(self.bin.join("kafka-acls.sh"))
            .args(["--bootstrap-server", &self.native.addresses(Viewpoint::Host).bootstrap_servers])
            .args(arguments))
    }

    /// Fails where a text shows a secret, as it is or as it goes over the wire.
    pub fn ensure_no_secret(&self, place: &str, text: &str) -> Result<()> {
        let token = fs::read_to_string(self.file("token.jwt"))?;
        let key = fs::read_to_string(self.file("mutual.key"))?;
        let key = key.lines().nth(1).context("an empty key")?;
        let basic = token::basic(CLIENT_SECRET);
        let registry = gateway::basic(REGISTRY_PASSWORD);
        let secrets = [
            PROCESSOR_PASSWORD,
            SINK_PASSWORD,
            PLAIN_PASSWORD,
            CLIENT_SECRET,
            KEY_PASSWORD,
            DATABASE_PASSWORD,
            REGISTRY_PASSWORD,
            REGISTRY_TOKEN,
            &registry,
            &token,
            &basic,
            key,
        ];
        for secret in secrets {
            if let Some(line) = text.lines().find(|line| line.contains(secret)) {
                bail!("{place} shows a secret: {line}");
            }
        }
        ensure!(!text.is_empty(), "{place} is empty: it shows nothing at all");
        Ok(())
    }
}

impl Stack for SecureStack {
    fn backend(&self) -> &'static str {
        "native"
    }

    fn components(&self) -> Vec<Component> {
        self.native.components()
    }

    fn addresses(&self, from: Viewpoint) -> Addresses {
        self.native.addresses(from)
    }

    fn start(&self, component: Component) -> Result<()> {
        self.native.start(component)
    }

    fn stop(&self, component: Component) -> Result<()> {
        self.native.stop(component)
    }

    fn kill(&self, component: Component) -> Result<()> {
        self.native.kill(component)
    }

    fn pause(&self, component: Component) -> Result<()> {
        self.native.pause(component)
    }

    fn resume(&self, component: Component) -> Result<()> {
        self.native.resume(component)
    }

    fn cut_off(&self, component: Component) -> Result<()> {
        self.native.cut_off(component)
    }

    fn reconnect(&self, component: Component) -> Result<()> {
        self.native.reconnect(component)
    }

    fn wait_healthy(&self, component: Component) -> Result<()> {
        self.native.wait_healthy(component)
    }

    fn log_tail(&self, component: Component) -> Result<String> {
        self.native.log_tail(component)
    }

    fn run(&self, spec: &ProgramSpec) -> Result<Box<dyn RunningProgram>> {
        let mut spec = spec.clone();
        if !spec.has_flag("--kafka-security-protocol") {
            spec = self.log_in(spec, Login::Scram)?;
        }
        if spec.program == Program::Processor && !spec.has_flag("--schema-registry-url") {
            spec = self.log_in_at_registry(spec, RegistryLogin::Basic);
        }
        for (name, value) in &mut spec.flags {
            if let (true, Some(url)) = (name == "--database-url", value.as_mut())
                && url.contains("@127.0.0.1")
                && !url.contains("sslmode")
            {
                *url = self.role_url(url)?;
            }
        }
        if spec.program == Program::Sink && !spec.has_flag("--database-password-file") {
            spec = spec.flag("--database-password-file", password_file(&self.files, "database").display());
        }
        // As much as they ever write: secrets are searched for in it.
        if !spec.has_flag("--log-level") {
            spec = spec.flag("--log-level", "trace");
        }
        self.native.run(&spec)
    }

    fn shared_directory(&self) -> &Path {
        self.native.shared_directory()
    }

    fn state_directory(&self, program_name: &str) -> PathBuf {
        self.native.state_directory(program_name)
    }
}
