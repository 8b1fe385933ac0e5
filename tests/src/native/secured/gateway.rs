//! nginx in front of the schema registry: TLS, and whatever it asks of who comes.
//!
//! Owns its configuration and the ways in. The registry itself knows users only from an identity provider; a reverse proxy
//! that asks for a password, a token or a certificate is how it is commonly secured without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::ports::Port;
use super::super::provision;
use super::super::server::{Launch, Server};
use super::{files, password_file};
use crate::stack::wait_until;

/// The user of [`RegistryLogin::Basic`].
pub(super) const USER: &str = "processor";

/// The file with its password, and that which changes.
const USERS: &str = "registry.users";
const CHANGING_USERS: &str = "registry-changing.users";

/// How a processor comes to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryLogin {
    /// To the registry's own TLS, unasked.
    Tls,
    /// By user and password.
    Basic,
    /// By user and password, which a test may change.
    Changing,
    /// By user and password, with the right to do everything but to configure it.
    Restricted,
    /// By a bearer token.
    Token,
    /// By certificate.
    Certificate,
    /// To a certificate that has expired, unasked.
    Expired,
}

/// Ports of the ways in.
#[derive(Debug)]
struct Ports {
    basic: Port,
    changing: Port,
    restricted: Port,
    token: Port,
    certificate: Port,
    expired: Port,
}

/// A running nginx.
#[derive(Debug)]
pub(super) struct Gateway {
    _server: Server,
    ports: Ports,
    /// The registry's own port for TLS.
    registry: u16,
    files: PathBuf,
}

impl Gateway {
    /// Starts it in `directory`, in front of a registry with these ports for plain and for TLS.
    pub(super) fn start(directory: &Path, plain: u16, tls: u16) -> Result<Self> {
        let files = files(directory);
        let ports = Ports {
            basic: Port::reserve()?,
            changing: Port::reserve()?,
            restricted: Port::reserve()?,
            token: Port::reserve()?,
            certificate: Port::reserve()?,
            expired: Port::reserve()?,
        };
        let password = fs::read_to_string(password_file(&files, "registry"))?;
        set_password(&files.join(USERS), &password)?;
        set_password(&files.join(CHANGING_USERS), &password)?;
        let token = fs::read_to_string(password_file(&files, "registry-token"))?;
        let configuration = files.join("nginx.conf");
        fs::write(&configuration, text(directory, plain, &ports, token.trim_end()))?;
        let mut launch = Launch::in_directory("registry-gateway", directory, false);
        launch.program = provision::nginx()?;
        launch.arguments = ["-e", "stderr", "-c", &configuration.display().to_string()].map(str::to_owned).to_vec();
        launch.directory.clone_from(&files);
        let mut server = Server::new(launch)?;
        server.start()?;
        let port = ports.basic.number();
        wait_until("nginx to listen", || {
            server.check_running()?;
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            Ok(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
        })?;
        Ok(Self { _server: server, ports, registry: tls, files })
    }

    /// The Confluent-compatible API by this way.
    pub(super) fn url(&self, login: RegistryLogin) -> String {
        let port = match login {
            RegistryLogin::Tls => self.registry,
            RegistryLogin::Basic => self.ports.basic.number(),
            RegistryLogin::Changing => self.ports.changing.number(),
            RegistryLogin::Restricted => self.ports.restricted.number(),
            RegistryLogin::Token => self.ports.token.number(),
            RegistryLogin::Certificate => self.ports.certificate.number(),
            RegistryLogin::Expired => self.ports.expired.number(),
        };
        format!("https://localhost:{port}/apis/ccompat/v7")
    }

    /// Gives the user of [`RegistryLogin::Changing`] another password from now on.
    pub(super) fn change_password(&self, password: &str) -> Result<()> {
        set_password(&self.files.join(CHANGING_USERS), password)
    }
}

/// Seen for every request; written beside its place, so that nginx never reads half of it.
fn set_password(file: &Path, password: &str) -> Result<()> {
    let output = Command::new("openssl").args(["passwd", "-apr1", password.trim_end()]).output()?;
    if !output.status.success() {
        bail!("openssl passwd failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let unfinished = file.with_extension("unfinished");
    fs::write(&unfinished, format!("{USER}:{}", String::from_utf8(output.stdout)?))?;
    fs::rename(unfinished, file).context("the password cannot be put in its place")
}

/// What goes over the wire for the user's password.
pub(super) fn basic(password: &str) -> String {
    STANDARD.encode(format!("{USER}:{password}"))
}

fn text(directory: &Path, registry: u16, ports: &Ports, token: &str) -> String {
    let files = files(directory);
    let file = |name: &str| files.join(name).display().to_string();
    let server = |port: &Port, asks: &str| {
        format!(
            "server {{
    listen 127.0.0.1:{} ssl;
    {asks}
    location / {{ proxy_pass http://127.0.0.1:{registry}; }}
  }}
  ",
            port.number()
        )
    };
    let password = |users: &str| format!("auth_basic registry; auth_basic_user_file {};", file(users));
    let expired = format!("ssl_certificate {}; ssl_certificate_key {};", file("expired.crt"), file("expired.key"));
    let refuses = "location ~ /config { limit_except GET { deny all; } proxy_pass http://127.0.0.1:";
    let servers = [
        server(&ports.basic, &password(USERS)),
        server(&ports.changing, &password(CHANGING_USERS)),
        server(&ports.restricted, &format!("{}\n    {refuses}{registry}; }}", password(USERS))),
        server(&ports.token, "if ($allowed = 0) { return 401; }"),
        server(&ports.certificate, &format!("ssl_client_certificate {}; ssl_verify_client on;", file("ca.crt"))),
        server(&ports.expired, &expired),
    ];
    // Its workers read the file of passwords: they stay who we are.
    let user = if provision::server_user().is_some() { "user root;" } else { "" };
    format!(
        "daemon off;
{user}
worker_processes 1;
pid {pid};
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {temporary}; proxy_temp_path {temporary}; fastcgi_temp_path {temporary};
  uwsgi_temp_path {temporary}; scgi_temp_path {temporary};
  map_hash_bucket_size 256;
  map $http_authorization $allowed {{ default 0; \"Bearer {token}\" 1; }}
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  {servers}
}}
",
        pid = file("nginx.pid"),
        temporary = file("nginx.temporary"),
        certificate = file("registry.crt"),
        key = file("registry.key"),
        servers = servers.concat(),
    )
}
