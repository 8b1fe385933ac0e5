//! Input in Avro and JSON Schema on the native stack, with a real registry.

use anyhow::Result;
use tests::client::Format;
use tests::native::{NativeOptions, NativeStack};
use tests::scenario::formats;

fn stack() -> Result<NativeStack> {
    NativeOptions::full().with_registry().start()
}

#[test]
fn avro_through_the_connector_ends_equal_to_the_source_with_the_registry_killed_in_between() -> Result<()> {
    formats::end_equal_to_the_source(&stack()?, "avro", Format::Avro)
}

#[test]
#[ignore = "make chaos"]
fn json_schema_through_the_connector_ends_equal_to_the_source_with_the_registry_killed_in_between() -> Result<()> {
    formats::end_equal_to_the_source(&stack()?, "json-schema", Format::JsonSchema)
}

#[test]
#[ignore = "make chaos"]
fn a_change_over_of_format_in_mid_topic_loses_nothing() -> Result<()> {
    formats::change_over_in_mid_topic(&stack()?, "change-over")
}
