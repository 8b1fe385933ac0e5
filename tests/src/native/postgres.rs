//! PostgreSQL servers as local processes.
//!
//! Owns initialisation, settings and readiness of one server; which databases and tables it gets is the caller's
//! choice. PostgreSQL refuses to run as root, so there it runs as the system's `postgres` user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::provision;
use super::secured;
use super::server::{Launch, Server};
use crate::client::Sql;
use crate::stack::wait_until;

/// User of both databases.
pub(super) const USER: &str = "postgres";
/// Password of both databases. They listen on the loopback interface only.
pub(super) const PASSWORD: &str = "postgres";

/// URL of a database on a local server.
pub(super) fn url(port: u16, database: &str) -> String {
    format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}")
}

/// Describes a server below `directory`, creating its cluster at the first start.
pub(super) fn server(directory: &Path, name: &str, port: u16, mut launch: Launch) -> Result<Server> {
    let binaries = provision::postgres_binaries()?;
    let home = directory.join(name);
    let data = home.join("data");
    fs::create_dir_all(&home)?;
    let user = provision::server_user();
    if let Some(user) = &user {
        succeed(Command::new("chown").arg(user).arg(&home))?;
    }
    if !data.join("PG_VERSION").exists() {
        initialise(&binaries, &home, &data, user.as_deref())?;
    }
    let setting = |name: &str, value: &str| ["-c".to_owned(), format!("{name}={value}")];
    launch.program = binaries.join("postgres");
    launch.arguments = ["-D".to_owned(), data.display().to_string()]
        .into_iter()
        .chain(setting("port", &port.to_string()))
        .chain(setting("listen_addresses", "127.0.0.1"))
        // A socket's path may be no longer than 107 bytes, which a directory of somebody's choice easily is.
        .chain(setting("unix_socket_directories", ""))
        .chain(setting("wal_level", "logical"))
        .chain(setting("max_wal_senders", "20"))
        .chain(setting("max_replication_slots", "20"))
        // Killed processes lose nothing without fsync, only power cuts do; and initial loads take a fraction of the time.
        .chain(setting("fsync", "off"))
        .chain(setting("shared_buffers", "64MB"))
        .chain(secured::database_settings(directory).into_iter().flat_map(|(name, value)| setting(name, &value)))
        .collect();
    launch.directory = home;
    launch.user = user;
    Server::new(launch)
}

fn initialise(binaries: &Path, home: &Path, data: &Path, user: Option<&str>) -> Result<()> {
    let password_file = home.join("password");
    fs::write(&password_file, PASSWORD)?;
    // Left by an initialisation that was interrupted; without PG_VERSION it is no cluster.
    if data.exists() {
        fs::remove_dir_all(data)?;
    }
    let mut command = match user {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--init-groups"]).arg(initdb(binaries));
            command
        }
        None => Command::new(initdb(binaries)),
    };
    command
        .arg("-D")
        .arg(data)
        .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"])
        .arg("--pwfile")
        .arg(&password_file)
        .current_dir(home);
    succeed(&mut command).context("PostgreSQL could not create its data directory")
}

fn initdb(binaries: &Path) -> PathBuf {
    binaries.join("initdb")
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Waits until the server accepts queries.
pub(super) fn wait_healthy(port: u16, mut check_running: impl FnMut() -> Result<()>) -> Result<()> {
    let url = url(port, "postgres");
    wait_until(format!("PostgreSQL on port {port} to accept queries"), || {
        check_running()?;
        Ok(Sql::connect(&url).is_ok())
    })
}

/// Creates a database unless it exists, and runs `script` in it. The script must bear being run again: the process
/// that created the database may have been killed before it came to the script.
pub(super) fn ensure_database(port: u16, name: &str, script: Option<&str>) -> Result<()> {
    let server = Sql::connect(&url(port, "postgres"))?;
    if server.rows(&format!("SELECT 1 FROM pg_database WHERE datname = '{name}'"))?.is_empty() {
        server.execute(&format!("CREATE DATABASE {name}"))?;
    }
    match script {
        Some(script) => Sql::connect(&url(port, name))?.execute(script).map(|_| ()),
        None => Ok(()),
    }
}
