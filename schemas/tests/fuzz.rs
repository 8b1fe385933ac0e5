//! Every decoder of this crate, given inputs made of real ones with bytes replaced, removed, doubled, moved and added: none
//! panics, and none allocates more than the input is worth.
//!
//! Short in a test run; `make fuzz` runs it for long (`FUZZ_CASES`). One test, because what is allocated is counted for
//! the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions themselves"
)]

mod common;

use std::alloc::System;
use std::sync::Arc;

use cap::Cap;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use schemas::debezium::{self, WriterSchema};
use schemas::{ChangelogKey, Control, Movement, Scale, StockDelta, TransactionRecord, headers};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What a decoder may allocate for each byte it is given, and for none: details of refusals, buffers that grow.
const PER_BYTE: usize = 64;
const AT_LEAST: usize = 64 << 10;
/// A schema is a tree in memory, and every type in it some hundred bytes.
const PER_BYTE_OF_SCHEMA: usize = 20_000;

/// Keys, values and schemas that are read without complaint.
struct Seeds {
    inputs: Vec<Vec<u8>>,
    schemas: Vec<Vec<u8>>,
    avro: Arc<WriterSchema>,
    json: Arc<WriterSchema>,
}

fn seeds() -> Seeds {
    let read = |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let mut seeds = Seeds {
        inputs: Vec::new(),
        schemas: vec![read("json/delta.schema.json").into_bytes()],
        avro: Arc::new(WriterSchema::avro(r#""long""#, &[]).unwrap()),
        json: Arc::new(WriterSchema::json(&debezium::Columns::default(), "{}").unwrap()),
    };
    for captured in common::capture("debezium-capture/every-kind.jsonl") {
        seeds.inputs.extend([captured.key, captured.value].into_iter().flatten().map(String::into_bytes));
    }
    for line in read("../tests/data/debezium-avro.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        seeds.inputs.extend(["key", "value"].iter().filter_map(|field| line[field].as_str().map(unhex)));
        if let Some(schema) = line["schema"].as_str() {
            if line["id"] == 4 {
                seeds.avro = Arc::new(WriterSchema::avro(schema, &[]).unwrap());
            }
            seeds.schemas.push(schema.as_bytes().to_vec());
        }
    }
    for file in std::fs::read_dir(format!("{}/golden/v1", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        seeds.inputs.extend(["key", "value"].iter().filter_map(|it| Some(golden[it].as_str()?.as_bytes().to_vec())));
        seeds.inputs.extend(golden["value_hex"].as_str().map(unhex));
    }
    seeds
}

/// One change of an input: of what kind, where, up to where, with which byte.
type Edit = (u8, prop::sample::Index, prop::sample::Index, u8);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec((0..6_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6)
}

fn edited(mut input: Vec<u8>, edits: Vec<Edit>) -> Vec<u8> {
    for (kind, at, to, byte) in edits {
        if input.is_empty() {
            input.push(byte);
        }
        let (at, to) = (at.index(input.len()), to.index(input.len()));
        let (from, to) = (at.min(to), at.max(to));
        match kind {
            0 => input[at] = byte,
            1 => _ = input.remove(at),
            2 => input.insert(at, byte),
            // Lengths and counts that go on.
            3 => input[at] |= 0x80,
            4 => input.truncate(to),
            _ => {
                let part = input[from..to].to_vec();
                input.splice(to..to, part);
            }
        }
    }
    input
}

/// What the call allocates in all, freed again or not, must be within `allowed`.
fn bounded(what: &str, allowed: usize, call: impl FnOnce()) {
    let before = ALLOCATOR.total_allocated();
    call();
    let allocated = ALLOCATOR.total_allocated() - before;
    assert!(allocated <= allowed, "{what} allocated {allocated} bytes, {allowed} are allowed");
}

#[test]
fn no_bytes_make_a_decoder_panic_or_allocate_without_bound() {
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(5_000);
    let Seeds { inputs, schemas, avro, json } = seeds();
    let id = uuid::Uuid::nil();
    let one = (any::<prop::sample::Index>(), edits());
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let both = (one, (any::<prop::sample::Index>(), edits()), any::<u8>());
    let result = runner.run(&both, |((which, edits), (other, other_edits), byte)| {
        let value = edited(inputs[which.index(inputs.len())].clone(), edits);
        let key = edited(inputs[other.index(inputs.len())].clone(), other_edits);
        let allowed = AT_LEAST + PER_BYTE * (key.len() + value.len());
        let scale = Scale::try_from(byte % (Scale::MAX.digits() + 1)).unwrap();
        let columns = debezium::Columns::default().with_pieces(debezium::PiecesType::Decimal, scale);
        let with_digits = debezium::Decoder { columns, ..debezium::Decoder::new(500) };
        bounded("JSON events", allowed, || {
            let _ = (
                debezium::Decoder::new(500).decode(Some(&key), Some(&value)),
                debezium::Decoder::new(500).decode_value(id, Some(&value)),
                with_digits.decode_value(id, Some(&value)),
            );
        });
        for (what, schema) in [("Avro events", &avro), ("events of a JSON schema", &json)] {
            let framed = [&[0, 0, 0, 0, byte], &value[..]].concat();
            bounded(what, allowed, || {
                let known = |_| Ok::<_, ()>(Arc::clone(schema));
                let _ = debezium::Decoder::new(500).decode_registered(Some(&key), Some(&framed), known);
                let _ = debezium::Decoder::new(500).decode_registered(Some(&framed), Some(&value), known);
                let _ = with_digits.decode_registered(Some(&key), Some(&framed), known);
            });
        }
        bounded("own records", allowed, || {
            let _ = (TransactionRecord::decode(&value, scale), ChangelogKey::decode(&key), Control::decode(&value));
            let _ = (
                Movement::decode(&key, &value, scale),
                StockDelta::decode(&key, &value, scale),
                StockDelta::decode_key(&key, schemas::GoodType::Text),
            );
            let _ = (headers::parse_next_offset(Some(&value)), headers::parse_sequence(Some(&value)));
        });
        Ok(())
    });
    result.unwrap();
    // Schemas take a thousand times as long, and come from a registry and not from whoever writes the topic.
    let mut runner =
        TestRunner::new(ProptestConfig { cases: cases / 10, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&(any::<prop::sample::Index>(), edits()), |(which, edits)| {
        let schema = edited(schemas[which.index(schemas.len())].clone(), edits);
        let Ok(schema) = std::str::from_utf8(&schema) else { return Ok(()) };
        bounded("schemas", AT_LEAST + PER_BYTE_OF_SCHEMA * schema.len(), || {
            let _ = (WriterSchema::avro(schema, &[]), WriterSchema::json(&debezium::Columns::default(), schema));
        });
        Ok(())
    });
    result.unwrap();
}
