//! The compose stack itself: the deployment's containers, started and mistreated as scenarios do it.
//!
//! Skipped with a notice where there is no container engine; fails instead when `STACK_REQUIRE_COMPOSE` is set.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use tests::client::{Connect, Isolation, Kafka, NewTopic, Sql, orders_connector, unique_name};
use tests::compose::{ComposeOptions, ComposeStack, available, shared_full};
use tests::stack::{Component, Exit, ProgramSpec, RunningProgram, Stack, Viewpoint, wait_until};

const INPUT: &str = "warehouse.orders.transactions";

/// Every test of this file inserts rows of its own and waits for their events, so the order of tests is of no matter.
struct Pipeline {
    stack: &'static ComposeStack,
    kafka: Kafka,
    source: Sql,
    /// One test kills the brokers that the other's processor needs to create its topics: one after the other.
    _turn: MutexGuard<'static, ()>,
}

impl Pipeline {
    fn start() -> Result<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let stack = shared_full()?;
        let addresses = stack.addresses(Viewpoint::Host);
        let kafka = Kafka::new(&addresses.bootstrap_servers);
        if !kafka.topics()?.iter().any(|topic| topic == INPUT) {
            kafka.create_topic(&NewTopic::new(INPUT, 10))?;
        }
        let database = stack.addresses(Viewpoint::Stack).source_database.context("no source database")?;
        let connect = Connect::new(&addresses.connect_url.context("no Connect")?);
        connect.register("orders-connector", &orders_connector(&database))?;
        let source = Sql::connect(&addresses.source_database_url.context("no source database")?)?;
        Ok(Self { stack, kafka, source, _turn: turn })
    }

    /// Inserts a row and returns its key on the topic.
    fn insert(&self) -> Result<String> {
        let rows = self.source.rows(
            "INSERT INTO orders.transactions (id, good_id, operation, pcs) VALUES (gen_random_uuid(), 1, 'add', 5) RETURNING id",
        )?;
        let id = rows.first().and_then(|row| row.first()).and_then(Clone::clone).context("no id")?;
        Ok(format!(r#"{{"id":"{id}"}}"#))
    }

    fn wait_for_event(&self, key: &str) -> Result<()> {
        wait_until(format!("the event of {key}"), || {
            let records = self.kafka.read(INPUT, Isolation::ReadCommitted).unwrap_or_default();
            Ok(records.iter().any(|record| record.key_text() == key))
        })
    }
}

fn wait_ready(program: &mut dyn RunningProgram) -> Result<()> {
    let url = format!("http://{}/ready", program.http_address());
    wait_until(format!("{} to be ready", program.name()), || {
        if let Some(exit) = program.exit()? {
            bail!("{} ended with {exit}:\n{}", program.name(), program.log()?);
        }
        Ok(ureq::get(&url).call().is_ok())
    })
}

fn containers_of(project: &str) -> Result<String> {
    let label = format!("label=com.docker.compose.project={project}");
    let mut left = String::new();
    for kind in [&["ps", "-aq"][..], &["volume", "ls", "-q"], &["network", "ls", "-q"]] {
        let output = Command::new("docker").args(kind).args(["--filter", &label]).output()?;
        left.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    Ok(left)
}

#[test]
fn every_component_can_be_mistreated_and_the_rows_still_arrive() -> Result<()> {
    if !available()? {
        return Ok(());
    }
    let pipeline = Pipeline::start()?;
    let stack = pipeline.stack;

    stack.kill(Component::Broker(2))?;
    stack.kill(Component::Broker(2))?; // of what is down succeeds
    pipeline.wait_for_event(&pipeline.insert()?)?;
    stack.start(Component::Broker(2))?;
    stack.wait_healthy(Component::Broker(2))?;

    stack.cut_off(Component::Broker(3))?;
    pipeline.wait_for_event(&pipeline.insert()?)?;
    stack.reconnect(Component::Broker(3))?;
    stack.wait_healthy(Component::Broker(3))?;

    stack.pause(Component::Broker(1))?;
    pipeline.wait_for_event(&pipeline.insert()?)?;
    stack.resume(Component::Broker(1))?;
    stack.wait_healthy(Component::Broker(1))?;

    stack.kill(Component::Connect)?;
    let key = pipeline.insert()?;
    stack.start(Component::Connect)?;
    stack.wait_healthy(Component::Connect)?;
    pipeline.wait_for_event(&key)?;

    stack.stop(Component::SourceDatabase)?;
    stack.start(Component::SourceDatabase)?;
    stack.kill(Component::TargetDatabase)?;
    stack.start(Component::TargetDatabase)?;
    stack.wait_all_healthy()?;
    pipeline.wait_for_event(&pipeline.insert()?)?;

    ensure!(stack.log_tail(Component::Broker(1))?.contains("kafka"));
    Ok(())
}

#[test]
fn a_program_is_paused_killed_and_run_again_with_its_state_and_log() -> Result<()> {
    if !available()? {
        return Ok(());
    }
    let pipeline = Pipeline::start()?;
    let stack = pipeline.stack;
    let spec = ProgramSpec::processor("processor-1")
        .flag("--source-topic", INPUT)
        .flag("--topic-prefix", unique_name("stock"))
        .flag("--application-id", unique_name("stock"));

    let mut first = stack.run(&spec)?;
    wait_ready(&mut *first)?;
    ensure!(stack.run(&spec).is_err(), "two programs of one name");
    first.pause()?;
    first.resume()?;
    first.pause()?;
    first.kill()?; // a frozen one too
    ensure!(first.wait_exit()? == Exit { code: None, signal: Some(9) });
    let log = first.log()?;
    drop(first);
    ensure!(std::fs::read_dir(stack.state_directory("processor-1"))?.next().is_some());

    let mut second = stack.run(&spec)?;
    wait_ready(&mut *second)?;
    second.terminate()?;
    ensure!(second.wait_exit()?.is_clean());
    ensure!(second.log()?.starts_with(&log) && second.log()?.len() > log.len());
    Ok(())
}

#[test]
fn a_dropped_stack_leaves_nothing_behind() -> Result<()> {
    if !available()? {
        return Ok(());
    }
    let stack = ComposeOptions::brokers().start()?;
    let (project, directory) = (stack.project().to_owned(), stack.directory().to_owned());
    let kafka = Kafka::new(stack.addresses(Viewpoint::Host).bootstrap_servers);
    kafka.create_topic(&NewTopic::new(unique_name("alive"), 1))?;
    ensure!(!containers_of(&project)?.is_empty());
    drop(stack);
    ensure!(containers_of(&project)?.is_empty());
    ensure!(!directory.exists());
    Ok(())
}
