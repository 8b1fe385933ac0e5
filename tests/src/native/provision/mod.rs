//! Gets the real servers onto this machine, once.
//!
//! Owns the cache of downloads and the versions in it. Each function returns where its server is, installing it
//! first when it is missing; a second call, also from another process at the same moment, finds it done. Nothing is
//! ever taken from a half-finished installation: everything is unpacked beside its place and renamed into it.

mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::lock::FileLock;
use super::paths;
use super::progress::tell;

pub(super) use system::{check_helpers, postgres_binaries, server_user};

/// Version of brokers, tools and Connect.
pub(super) const KAFKA_VERSION: &str = "4.3.1";
/// Version of the Debezium plug-in for PostgreSQL.
pub(super) const DEBEZIUM_VERSION: &str = "3.6.0.Final";
/// Kafka speaks slf4j 1.7; without a binding of that generation it logs nothing at all.
const LOG4J_BINDING_VERSION: &str = "2.25.4";

/// Directory of the jars of Kafka, its tools and Connect.
pub(super) fn kafka_libraries() -> Result<PathBuf> {
    installed(&format!("kafka-{KAFKA_VERSION}"), "Kafka and Connect", |directory| {
        system::require_maven()?;
        let scratch = tempfile::tempdir()?;
        fs::write(scratch.path().join("pom.xml"), kafka_project())?;
        maven(scratch.path(), &["dependency:copy-dependencies", &format!("-DoutputDirectory={}", directory.display())])
    })
}

/// Directory to name as Connect's `plugin.path`.
pub(super) fn connect_plugins() -> Result<PathBuf> {
    installed(&format!("debezium-{DEBEZIUM_VERSION}"), "Debezium's PostgreSQL connector", |directory| {
        system::require_maven()?;
        let scratch = tempfile::tempdir()?;
        let artifact = format!("io.debezium:debezium-connector-postgres:{DEBEZIUM_VERSION}:tar.gz:plugin");
        maven(
            scratch.path(),
            &[
                "dependency:copy",
                &format!("-Dartifact={artifact}"),
                &format!("-DoutputDirectory={}", scratch.path().display()),
            ],
        )?;
        let archive = scratch.path().join(format!("debezium-connector-postgres-{DEBEZIUM_VERSION}-plugin.tar.gz"));
        run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(directory))
    })
}

/// The `java` to run servers with, installing one when there is none.
pub(super) fn java() -> Result<PathBuf> {
    system::require_java()
}

/// The full version of that `java`, e.g. `17.0.15`.
pub(super) fn java_version() -> Result<String> {
    system::java_version(&java()?)
}

/// Returns `<cache>/<name>`, filling it by `install` when it does not exist yet.
pub(super) fn installed(name: &str, title: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = paths::cache_directory()?;
    let place = cache.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create the cache {}", cache.display()))?;
    let _lock = FileLock::acquire(&cache.join("lock"), || tell("another process is installing servers, waiting"))?;
    if place.is_dir() {
        return Ok(place);
    }
    tell(format_args!("installing {title} into {}", place.display()));
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&cache)?;
    install(unfinished.path()).with_context(|| {
        format!("{title} could not be installed. It comes from the Maven repository: check that Maven can reach it")
    })?;
    // Servers of other users (PostgreSQL does not need it, a person looking around does) may read the result.
    run(Command::new("chmod").arg("-R").arg("a+rX").arg(unfinished.path()))?;
    fs::rename(unfinished.keep(), &place).with_context(|| format!("cannot move {title} into {}", place.display()))?;
    Ok(place)
}

fn maven(directory: &Path, arguments: &[&str]) -> Result<()> {
    run(Command::new("mvn").args(["--batch-mode", "--quiet"]).args(arguments).current_dir(directory))
}

/// Runs a command to its end; its output becomes the error message when it fails.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// A Maven project that has nothing but the servers as its dependencies.
fn kafka_project() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let dependencies = [
        dependency("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        dependency("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
        dependency("org.apache.kafka", "connect-runtime", KAFKA_VERSION),
        dependency("org.apache.kafka", "connect-json", KAFKA_VERSION),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_BINDING_VERSION),
    ]
    .concat();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>native-stack</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{dependencies}</dependencies></project>"
    )
}
