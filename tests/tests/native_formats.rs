//! Input in Avro and JSON Schema on the native stack, with a real registry.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use tests::client::Format;
use tests::native::{NativeOptions, NativeStack};
use tests::scenario::{every_form, formats, fractions, other_goods, other_keys};

fn stack() -> Result<NativeStack> {
    NativeOptions::with_one_broker().with_registry().start()
}

/// The tests of every run share a stack, one after the other: they kill servers of it.
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
#[ignore = "make faults"]
fn keys_of_integers_and_texts_in_avro_through_the_connector_end_equal_to_the_source() -> Result<()> {
    other_keys::end_equal_to_the_source(&stack()?, "avro-keys", Format::Avro)
}

#[test]
fn output_in_avro_reaches_the_target_with_the_form_changed_in_mid_topic() -> Result<()> {
    let stack = shared()?;
    formats::output_in_avro_reaches_the_target(stack.as_ref().context("no stack")?, "debezium-capture/history")
}

#[test]
#[ignore = "make faults"]
fn every_form_of_input_and_output_ends_equal_to_the_source() -> Result<()> {
    let stack = shared()?;
    every_form::ends_equal_to_the_source(stack.as_ref().context("no stack")?, "forms", &|_| Ok(()))
}

#[test]
#[ignore = "make faults"]
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
fn another_shops_table_with_large_text_goods_ends_equal_to_the_source_in_avro() -> Result<()> {
    let stack = shared()?;
    let stack = stack.as_ref().context("no stack")?;
    other_goods::of_another_table_end_equal_to_the_source(stack, "shop", Format::Avro)
}

#[test]
#[ignore = "make faults"]
fn a_change_over_of_format_in_mid_topic_loses_nothing() -> Result<()> {
    formats::change_over_in_mid_topic(&stack()?, "change-over")
}
