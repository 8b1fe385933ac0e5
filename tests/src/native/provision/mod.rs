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

pub(super) use system::{check_helpers, nginx, postgres_binaries, server_user};

/// Version of brokers, tools and Connect.
pub(super) const KAFKA_VERSION: &str = "4.3.1";
/// Version of the Debezium plug-ins.
pub(super) const DEBEZIUM_VERSION: &str = "3.6.0.Final";
/// Version of the registry.
const REGISTRY_VERSION: &str = "3.3.3";
/// Version of the registry's converters for Connect, the newest there is.
const CONVERTERS_VERSION: &str = "2.6.13.Final";
/// A Java compiler that needs no development kit, for the one converter that is ours.
const COMPILER_VERSION: &str = "3.38.0";
const JSON_SCHEMA_CONVERTER: &str = include_str!("../../../java/JsonSchemaConverter.java");
/// Changes whenever the converter does.
const JSON_SCHEMA_CONVERTER_VERSION: u32 = 3;
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
        let artifact = format!("io.debezium:debezium-connector-postgres:{DEBEZIUM_VERSION}:tar.gz:plugin");
        let archive = format!("debezium-connector-postgres-{DEBEZIUM_VERSION}-plugin.tar.gz");
        unpack_artifact(&artifact, &archive, directory)
    })
}

/// Directory of Debezium's JDBC sink, to be named in Connect's `plugin.path`.
pub(super) fn connect_jdbc_sink() -> Result<PathBuf> {
    installed(&format!("debezium-jdbc-{DEBEZIUM_VERSION}"), "Debezium's JDBC sink", |directory| {
        system::require_maven()?;
        let artifact = format!("io.debezium:debezium-connector-jdbc:{DEBEZIUM_VERSION}:tar.gz:plugin");
        let archive = format!("debezium-connector-jdbc-{DEBEZIUM_VERSION}-plugin.tar.gz");
        unpack_artifact(&artifact, &archive, directory)
    })
}

/// Directory of the registry's application.
pub(super) fn registry_application() -> Result<PathBuf> {
    installed(&format!("apicurio-{REGISTRY_VERSION}"), "the schema registry", |directory| {
        system::require_maven()?;
        let artifact = format!("io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:tar.gz:all");
        unpack_artifact(&artifact, &format!("apicurio-registry-app-{REGISTRY_VERSION}-all.tar.gz"), directory)
    })
}

/// The `java` to run the registry with, which needs a newer one than everything else.
pub(super) fn registry_java() -> Result<PathBuf> {
    system::require_registry_java()
}

/// Directory of the converters that write Avro and JSON Schema, to be named in Connect's `plugin.path`.
///
/// # Errors
/// They are not on this machine and cannot be installed.
pub fn connect_converters() -> Result<PathBuf> {
    let name = format!("converters-{CONVERTERS_VERSION}-{JSON_SCHEMA_CONVERTER_VERSION}");
    // Installed first: the lock of the cache is not reentrant.
    let libraries = kafka_libraries()?;
    installed(&name, "the converters for Avro and JSON Schema", |directory| {
        system::require_maven()?;
        let scratch = tempfile::tempdir()?;
        let dependency = maven_dependency("io.apicurio", "apicurio-registry-utils-converter", CONVERTERS_VERSION);
        fs::write(scratch.path().join("pom.xml"), project(&dependency))?;
        // Kafka's own classes come from Connect; those of another version beside them do not fit.
        let avro = directory.join("avro");
        let place = format!("-DoutputDirectory={}", avro.display());
        maven(
            scratch.path(),
            &["dependency:copy-dependencies", "-DincludeScope=runtime", "-DexcludeGroupIds=org.apache.kafka", &place],
        )?;
        compile_json_schema_converter(&libraries, scratch.path(), &directory.join("json-schema"))
    })
}

fn compile_json_schema_converter(libraries: &Path, scratch: &Path, directory: &Path) -> Result<()> {
    let artifact = format!("-Dartifact=org.eclipse.jdt:ecj:{COMPILER_VERSION}");
    maven(scratch, &["dependency:copy", &artifact, &format!("-DoutputDirectory={}", scratch.display())])?;
    let source = scratch.join("JsonSchemaConverter.java");
    fs::write(&source, JSON_SCHEMA_CONVERTER)?;
    let jars: Vec<String> =
        fs::read_dir(libraries)?.map(|entry| Ok(entry?.path().display().to_string())).collect::<Result<_>>()?;
    run(Command::new(java()?)
        .arg("-jar")
        .arg(scratch.join(format!("ecj-{COMPILER_VERSION}.jar")))
        .args(["-source", "17", "-target", "17", "-nowarn", "-classpath", &jars.join(":"), "-d"])
        .arg(directory)
        .arg(&source))?;
    let services = directory.join("META-INF/services");
    fs::create_dir_all(&services)?;
    fs::write(services.join("org.apache.kafka.connect.storage.Converter"), "stack.JsonSchemaConverter\n")?;
    Ok(())
}

/// Fetches one archive and unpacks it.
fn unpack_artifact(artifact: &str, archive: &str, directory: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let place = format!("-DoutputDirectory={}", scratch.path().display());
    maven(scratch.path(), &["dependency:copy", &format!("-Dartifact={artifact}"), &place])?;
    run(Command::new("tar").arg("-xzf").arg(scratch.path().join(archive)).arg("-C").arg(directory))
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

fn maven_dependency(group: &str, artifact: &str, version: &str) -> String {
    format!(
        "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
    )
}

/// A Maven project that has nothing but the servers as its dependencies.
fn kafka_project() -> String {
    project(
        &[
            maven_dependency("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
            maven_dependency("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
            maven_dependency("org.apache.kafka", "connect-runtime", KAFKA_VERSION),
            maven_dependency("org.apache.kafka", "connect-json", KAFKA_VERSION),
            maven_dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_BINDING_VERSION),
        ]
        .concat(),
    )
}

/// A Maven project of these dependencies.
fn project(dependencies: &str) -> String {
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>native-stack</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{dependencies}</dependencies></project>"
    )
}
