//! Input in Avro and JSON Schema on the native stack, with a real registry.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use tests::client::Format;
use tests::native::{NativeOptions, NativeStack};
use tests::scenario::{formats, fractions};

fn stack() -> Result<NativeStack> {
    NativeOptions::full().with_registry().start()
}

/// The two tests of every run share a stack, one after the other: one of them kills the registry.
fn shared() -> Result<MutexGuard<'static, Option<NativeStack>>> {
    static STACK: Mutex<Option<NativeStack>> = Mutex::new(None);
    let mut shared = STACK.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_none() {
        *shared = Some(stack()?);
    }
    Ok(shared)
}

#[test]
fn avro_through_the_connector_ends_equal_to_the_source_with_the_registry_killed_in_between() -> Result<()> {
    let stack = shared()?;
    formats::end_equal_to_the_source(stack.as_ref().context("no stack")?, "avro", Format::Avro)
}

#[test]
fn output_in_avro_reaches_the_target_with_the_form_changed_in_mid_topic() -> Result<()> {
    let stack = shared()?;
    formats::output_in_avro_reaches_the_target(stack.as_ref().context("no stack")?, "debezium-capture/history")
}

#[test]
fn quantities_with_digits_behind_the_point_end_equal_to_the_source_in_every_form_of_the_connector() -> Result<()> {
    fractions::end_equal_to_the_source(&stack()?, "fractions")
}

#[test]
#[ignore = "make faults"]
fn json_schema_through_the_connector_ends_equal_to_the_source_with_the_registry_killed_in_between() -> Result<()> {
    formats::end_equal_to_the_source(&stack()?, "json-schema", Format::JsonSchema)
}

#[test]
#[ignore = "make faults"]
fn a_change_over_of_format_in_mid_topic_loses_nothing() -> Result<()> {
    formats::change_over_in_mid_topic(&stack()?, "change-over")
}
