//! What comes from the operating system: Java, Maven, PostgreSQL, small tools.
//!
//! Owns finding them and, as root on a Debian machine, installing them. Where it cannot install, it says exactly
//! which package is missing and never goes on without it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::super::lock::FileLock;
use super::super::paths;
use super::super::progress::tell;
use super::run;

/// Kafka 4 needs this at least.
const JAVA_AT_LEAST: u32 = 17;
/// The registry needs this at least.
const REGISTRY_JAVA_AT_LEAST: u32 = 21;
/// Logical replication as the connector uses it, and what the tests were written against.
const POSTGRES_AT_LEAST: u32 = 15;

/// The system user that servers which refuse to be root run as; `None` when we are not root ourselves.
pub(in super::super) fn server_user() -> Option<String> {
    paths::running_as_root().then(|| "postgres".to_owned())
}

/// Java 17 or newer from `JAVA_HOME` or the path.
pub(super) fn require_java() -> Result<PathBuf> {
    let find = || {
        let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
        home.filter(|java| java.is_file()).or_else(|| on_path("java"))
    };
    let java = require("Java", &["default-jre-headless"], find)?;
    let version = java_version(&java)?;
    let version = major_version(&version).with_context(|| format!("{} has the version {version}", java.display()))?;
    if version < JAVA_AT_LEAST {
        bail!(
            "{} is Java {version}; Kafka needs {JAVA_AT_LEAST} or newer. Install one and set JAVA_HOME",
            java.display()
        );
    }
    Ok(java)
}

/// Java 21 or newer from `REGISTRY_JAVA_HOME`, from where Java is otherwise, or from among those that are installed.
pub(super) fn require_registry_java() -> Result<PathBuf> {
    let new_enough = |java: &PathBuf| {
        let version = java_version(java).ok().and_then(|version| major_version(&version));
        version.is_some_and(|version| version >= REGISTRY_JAVA_AT_LEAST)
    };
    let find = || {
        let homes = ["REGISTRY_JAVA_HOME", "JAVA_HOME"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path());
        let of_homes = homes.chain(installed).map(|home| home.join("bin/java")).filter(|java| java.is_file());
        of_homes.chain(on_path("java")).find(new_enough)
    };
    require("Java 21 for the schema registry (or REGISTRY_JAVA_HOME)", &["openjdk-21-jre-headless"], find)
}

pub(super) fn require_maven() -> Result<PathBuf> {
    require("Maven", &["maven"], || on_path("mvn"))
}

/// The reverse proxy that stands before a secured registry.
pub(in super::super) fn nginx() -> Result<PathBuf> {
    let sbin = || Some(PathBuf::from("/usr/sbin/nginx")).filter(|nginx| nginx.is_file());
    require("nginx", &["nginx-light"], || on_path("nginx").or_else(sbin))
}

/// Tools without which no server starts, and `kcat`, without which a person cannot look around.
pub(in super::super) fn check_helpers() -> Result<()> {
    require("setpriv and setsid", &["util-linux"], || on_path("setpriv").and_then(|_| on_path("setsid")))?;
    if let Err(error) = require("kcat", &["kcat"], || on_path("kcat")) {
        tell(format_args!("going on without kcat, which only people need: {error:#}"));
    }
    Ok(())
}

/// The `bin` directory of a PostgreSQL server: `STACK_POSTGRES_BIN`, or the newest the system has.
pub(in super::super) fn postgres_binaries() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("STACK_POSTGRES_BIN") {
        return Ok(PathBuf::from(directory));
    }
    // Without this Debian's package would also start a server of its own, on the well-known port.
    let configuration = Path::new("/etc/postgresql-common/createcluster.conf");
    if newest_postgres().is_none() && paths::running_as_root() && !configuration.exists() {
        fs::create_dir_all("/etc/postgresql-common")?;
        fs::write(configuration, "create_main_cluster = false\n")?;
    }
    require("PostgreSQL", &["postgresql", "postgresql-client"], newest_postgres)
}

fn newest_postgres() -> Option<PathBuf> {
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|version| *version >= POSTGRES_AT_LEAST)
        .map(|version| (version, PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))))
        .filter(|(_, directory)| directory.join("initdb").is_file())
        .max()
        .map(|(_, directory)| directory)
}

/// Finds something, installing `packages` when it is missing.
fn require(title: &str, packages: &[&str], find: impl Fn() -> Option<PathBuf>) -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    install(title, packages, &find)?;
    find().with_context(|| format!("{title} is still not there after installing {}", packages.join(" ")))
}

fn install(title: &str, packages: &[&str], find: &impl Fn() -> Option<PathBuf>) -> Result<()> {
    let remedy = format!("install it, on Debian: apt-get install {}", packages.join(" "));
    if !paths::running_as_root() {
        bail!("{title} is missing, and only root may install it. To do: {remedy}");
    }
    if on_path("apt-get").is_none() {
        bail!("{title} is missing, and there is no apt-get to install it with. To do: {remedy}");
    }
    let lock = std::env::temp_dir().join("native-stack-apt.lock");
    let _lock = FileLock::acquire(&lock, || tell("another process is installing packages, waiting"))?;
    if find().is_some() {
        return Ok(());
    }
    tell(format_args!("installing {title}: apt-get install {}", packages.join(" ")));
    let apt = |arguments: &[&str]| {
        run(Command::new("apt-get")
            .args(["-qq", "-y", "--no-install-recommends"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Debian starts no service of a package in the runlevel for maintenance.
            .env("RUNLEVEL", "1"))
    };
    apt(&["update"]).and_then(|()| apt(&[&["install"], packages].concat())).with_context(|| format!("To do: {remedy}"))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(OsStr::new(program))).find(|file| file.is_file())
}

/// The version a `java` tells of itself, e.g. `17.0.15`.
pub(super) fn java_version(java: &Path) -> Result<String> {
    let output =
        Command::new(java).arg("-version").output().with_context(|| format!("cannot run {}", java.display()))?;
    // `openjdk version "17.0.15" 2025-04-15`, on standard error.
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version =
        quoted_version(&text).with_context(|| format!("{} does not tell its version: {text}", java.display()))?;
    Ok(version.to_owned())
}

fn quoted_version(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

fn major_version(version: &str) -> Option<u32> {
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version_java_prints() {
        let text = "openjdk version \"17.0.15\" 2025-04-15\nOpenJDK …";
        assert_eq!(quoted_version(text), Some("17.0.15"));
        assert_eq!(major_version("17.0.15"), Some(17));
        assert_eq!(major_version("21-ea"), Some(21));
        assert_eq!(quoted_version("java: not found"), None);
    }

    #[test]
    fn what_is_on_the_path_is_found() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program-anywhere").is_none());
    }
}
