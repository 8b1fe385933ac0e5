//! Through the real connector with converters that write Avro and JSON Schema into a real registry.
//!
//! Each needs a stack of its own with a registry: the connector's topic has one name, and servers are killed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::live::{INPUT, change_rows, write_rows};
use super::{Job, end_cleanly, tail};
use crate::client::{
    Connect, Format, History, Isolation, Replay, Sql, expected_remains, orders_connector_in, unique_name,
};
use crate::stack::{Component, RunningProgram, Stack, Viewpoint, wait_until};

const CONNECTOR: &str = "orders-connector";
/// What a processor says when it holds a partition back.
const HELD: &str = "its partition waits";

/// A job that reads what the connector writes.
pub(super) struct Run<'a> {
    stack: &'a dyn Stack,
    pub(super) job: Job<'a>,
    pub(super) source: Sql,
    connect: Connect,
}

impl<'a> Run<'a> {
    pub(super) fn new(stack: &'a dyn Stack, name: &str) -> Result<Self> {
        let addresses = stack.addresses(Viewpoint::Host);
        Ok(Self {
            stack,
            job: Job::named(stack, name, INPUT.to_owned())?,
            source: Sql::connect(&addresses.source_database_url.context("no source database")?)?,
            connect: Connect::new(&addresses.connect_url.context("no Connect")?),
        })
    }

    /// Lets the connector write in this format from now on.
    fn write_in(&self, key: Format, value: Format) -> Result<()> {
        self.connect.register(CONNECTOR, &self.connector(key, value)?)
    }

    /// Lets the connector write values in this format, `numeric` columns in this way (`decimal.handling.mode`), and
    /// nothing any more as before.
    pub(super) fn write_decimals_in(&self, value: Format, mode: &str) -> Result<()> {
        let mut connector = self.connector(Format::Json, value)?;
        connector.as_object_mut().context("no settings")?.insert("decimal.handling.mode".into(), mode.into());
        let runs = self.connect.state(CONNECTOR)?.is_some();
        if runs {
            self.connect.stop(CONNECTOR)?;
        }
        self.connect.put_config(CONNECTOR, &connector)?;
        if runs {
            self.connect.resume(CONNECTOR)?;
        }
        self.connect.wait_running(CONNECTOR)
    }

    fn connector(&self, key: Format, value: Format) -> Result<serde_json::Value> {
        let inside = self.stack.addresses(Viewpoint::Stack);
        let database = inside.source_database.context("no source database")?;
        let registry = inside.registry_url.context("no registry")?;
        Ok(orders_connector_in(&database, key, value, &registry))
    }

    /// How many values of the input begin with a zero byte, and how many with a brace.
    fn values(&self) -> Result<(usize, usize)> {
        let records = self.job.kafka.read(INPUT, Isolation::ReadCommitted)?;
        let begin_with = |byte| {
            records.iter().filter(|record| record.value.as_ref().and_then(|value| value.first()) == Some(&byte)).count()
        };
        Ok((begin_with(0), begin_with(b'{')))
    }

    /// Waits until the output equals the source; a processor that ends meanwhile, or a connector that fails, says why.
    pub(super) fn wait_equal(&self, processors: &mut [Box<dyn RunningProgram>]) -> Result<()> {
        let expected = self.source.source_sums()?;
        wait_until("output equal to the source", || {
            for processor in processors.iter_mut() {
                if let Some(exit) = processor.exit()? {
                    bail!("{} ended with {exit}:\n{}", processor.name(), tail(&processor.log()?));
                }
            }
            Ok(self.job.check(&expected).is_ok())
        })
        .with_context(|| format!("the connector: {:?}", self.connect.state(CONNECTOR)))?;
        self.job.wait_for(&expected, processors)
    }

    pub(super) fn no_dead_letters(&self) -> Result<()> {
        let letters = self.job.kafka.read(&self.job.topic("dead-letters"), Isolation::ReadCommitted)?;
        ensure!(letters.is_empty(), "{} dead letters", letters.len());
        Ok(())
    }
}

/// An input that the connector has written in Avro.
#[derive(Debug)]
pub struct AvroInput {
    /// Its topic.
    pub topic: String,
    /// What remains of each good at its end.
    pub expected: BTreeMap<i64, i64>,
}

/// Lets the connector write rows in Avro, keys and values, and then nothing more.
pub fn avro_input(stack: &dyn Stack) -> Result<AvroInput> {
    let run = Run::new(stack, &unique_name("avro-input"))?;
    let rows = 200;
    write_rows(&run.source, 1, rows)?;
    run.write_in(Format::Avro, Format::Avro)?;
    // It is a snapshot, nothing but these rows.
    wait_until("the snapshot in Avro", || Ok(run.values()?.0 >= usize::try_from(rows)?))
        .with_context(|| format!("the connector: {:?}", run.connect.state(CONNECTOR)))?;
    Ok(AvroInput { topic: INPUT.to_owned(), expected: run.source.source_sums()? })
}

/// Keys and values in `format` end equal to the source, with the registry killed in between: what is known goes on
/// without it, a processor that knows nothing waits for it and loses nothing.
pub fn end_equal_to_the_source(stack: &dyn Stack, name: &str, format: Format) -> Result<()> {
    let run = Run::new(stack, name)?;
    write_rows(&run.source, 1, 400)?;
    run.write_in(format, format)?;
    let mut processors = vec![run.job.start_processor(0)?, run.job.start_processor(1)?];
    let mut sinks = [run.job.start_sink(0)?];
    run.wait_equal(&mut processors)?;
    change_rows(&run.source)?;
    run.wait_equal(&mut processors)?;

    stack.kill(Component::Registry)?;
    write_rows(&run.source, 1_001, 1_200)?;
    change_rows(&run.source)?;
    run.wait_equal(&mut processors).context("without the registry, everything known")?;

    // The schemas were in their memory. Both end, since the group might give all source partitions to one that stayed.
    for processor in &mut processors {
        processor.kill()?;
    }
    let before = processors.first().context("no processor")?.log()?.len();
    let mut ignorant = run.job.start_processor(0)?;
    write_rows(&run.source, 2_001, 2_200)?;
    wait_until("a partition to wait for the registry", || {
        Ok(ignorant.log()?.get(before..).is_some_and(|log| log.contains(HELD)))
    })?;
    ensure!(ignorant.exit()?.is_none(), "waiting is no reason to end:\n{}", ignorant.log()?);
    stack.start(Component::Registry)?;
    stack.wait_healthy(Component::Registry)?;
    processors = vec![ignorant, run.job.start_processor(1)?];
    change_rows(&run.source)?;
    run.wait_equal(&mut processors).context("with the registry back")?;
    run.job.wait_for_target(&run.source.source_sums()?)?;

    let (framed, json) = run.values()?;
    ensure!(framed > 800 && json == 0, "{framed} values in wire format, {json} in plain JSON");
    run.no_dead_letters()?;
    end_cleanly(&mut processors)?;
    end_cleanly(&mut sinks)
}

/// Stock deltas in Avro reach the target, with their form and that of the changelog changed in mid-topic and the state
/// directory lost each time, so that state is restored from both.
pub fn output_in_avro_reaches_the_target(stack: &dyn Stack, history: &str) -> Result<()> {
    let job = Job::new(stack, "avro-output")?;
    let expected = expected_remains(history)?;
    let records = History::load(history)?;
    let mut replay = Replay::new(&job.kafka, &job.source_topic, &records)?;
    let mut sinks = [job.start_sink(0)?];
    let third = records.records.len() / 3 + 1;
    for format in ["avro", "json", "avro"] {
        replay.write_next(third)?;
        let processor = job.processor(0).flag("--output-format", format).flag("--changelog-format", format);
        let mut processor = stack.run(&processor)?;
        wait_until(format!("a third of the history in {format}"), || {
            if let Some(exit) = processor.exit()? {
                bail!("the processor ended with {exit}:\n{}", tail(&processor.log()?));
            }
            job.is_consumed()
        })?;
        if replay.remaining() == 0 {
            // A sweep may still be due when the input is consumed, and afterwards there is nobody to do it.
            job.wait_for_target(&expected)?;
        }
        let state = stack.state_directory(processor.name());
        end_cleanly(std::slice::from_mut(&mut processor))?;
        std::fs::remove_dir_all(state)?;
    }
    let registry = stack.addresses(Viewpoint::Host).schemas_url().context("no registry")?;
    let (goods, scale) = (schemas::GoodType::Integer, schemas::Scale::WHOLE);
    for (topic, schema) in [
        ("deltas", schemas::delta::avro_schema(goods, scale)),
        ("transactions", schemas::changelog::avro_schema(goods, scale)),
    ] {
        let records = job.kafka.read(&job.topic(topic), Isolation::ReadCommitted)?;
        let (in_avro, all) = (records.iter().filter(|record| record.is_framed()).count(), records.len());
        ensure!(in_avro > 100 && all - in_avro > 100, "{in_avro} of {all} records of {topic} in Avro");
        guards(&registry, &job.topic(topic), &schema)?;
    }
    end_cleanly(&mut sinks)
}

/// Whether the registry takes no schema for a topic's values but such as go with ours.
fn guards(registry: &str, topic: &str, ours: &str) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let subject = format!("{topic}-value");
    let level: serde_json::Value = agent.get(format!("{registry}/config/{subject}")).call()?.body_mut().read_json()?;
    ensure!(level.to_string().contains("FULL_TRANSITIVE"), "the compatibility is {level}");
    let register = |schema: &serde_json::Value| -> Result<u16> {
        let body = serde_json::json!({ "schema": schema.to_string() });
        Ok(agent.post(format!("{registry}/subjects/{subject}/versions")).send_json(body)?.status().as_u16())
    };
    let ours: serde_json::Value = serde_json::from_str(ours)?;
    ensure!(register(&ours)? == 200, "our own schema is refused");
    let with = |field: serde_json::Value| -> Result<serde_json::Value> {
        let mut schema = ours.clone();
        let fields = schema.get_mut("fields").and_then(serde_json::Value::as_array_mut);
        fields.context("a schema without fields")?.push(field);
        Ok(schema)
    };
    // What was written before has no value for it.
    let mandatory = with(serde_json::json!({"name": "colour", "type": "string"}))?;
    ensure!(register(&mandatory)? == 409, "a schema that cannot read what was written is taken");
    let optional = with(serde_json::json!({"name": "colour", "type": "string", "default": ""}))?;
    ensure!(register(&optional)? == 200, "a schema that reads everything is refused");
    Ok(())
}

/// Values change over from JSON to Avro, back, to JSON Schema and back while rows are written and the registry comes and goes;
/// keys stay JSON.
pub fn change_over_in_mid_topic(stack: &dyn Stack, name: &str) -> Result<()> {
    let run = Run::new(stack, name)?;
    write_rows(&run.source, 1, 200)?;
    run.write_in(Format::Json, Format::Json)?;
    let mut processors = vec![run.job.start_processor(0)?, run.job.start_processor(1)?];
    let mut sinks = [run.job.start_sink(0)?];
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            let mut from = 10_000;
            while !done.load(Ordering::Relaxed) {
                write_rows(&run.source, from, from + 9)?;
                from += 10;
                // A pace, not a wait for anything.
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        let changed = (|| {
            for format in [Format::Avro, Format::Json, Format::JsonSchema, Format::Json] {
                let (framed, json) = run.values()?;
                run.write_in(Format::Json, format)?;
                change_rows(&run.source)?;
                wait_until(format!("values in {format:?}"), || {
                    let (framed_now, json_now) = run.values()?;
                    Ok(if format == Format::Json { json_now > json + 100 } else { framed_now > framed + 100 })
                })?;
                stack.kill(Component::Registry)?;
                stack.start(Component::Registry)?;
                stack.wait_healthy(Component::Registry)?;
            }
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        changed.and(written)
    })?;
    run.wait_equal(&mut processors)?;
    run.job.wait_for_target(&run.source.source_sums()?)?;
    run.no_dead_letters()?;
    end_cleanly(&mut processors)?;
    end_cleanly(&mut sinks)
}
