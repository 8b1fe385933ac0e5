//! All targets on the kept corpus, and on inputs made of it with bytes replaced, removed, doubled, moved and added.
//!
//! Short in a test run; `FUZZ_CASES` makes it longer. One test, because what is allocated is counted for the whole
//! process.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions themselves"
)]

use fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

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

/// The seeds and what `make fuzz` has kept, in an order that does not change.
fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    let directory = format!("{}/corpus/{}", env!("CARGO_MANIFEST_DIR"), target.name);
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    inputs.extend(paths.iter().map(|path| std::fs::read(path).unwrap()));
    inputs
}

#[test]
fn no_bytes_make_a_decoder_panic_or_allocate_without_bound_or_mean_two_things() {
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(5_000);
    for target in TARGETS {
        let inputs = inputs(&target);
        for input in &inputs {
            (target.run)(input);
        }
        // Schemas and files take a thousand times as long as records.
        let slow = matches!(target.name, "writer_schemas" | "configuration");
        let config = ProptestConfig {
            cases: if slow { cases / 10 } else { cases },
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let result = TestRunner::new(config).run(&(any::<prop::sample::Index>(), edits()), |(which, edits)| {
            (target.run)(&edited(inputs[which.index(inputs.len())].clone(), edits));
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{}: {error}", target.name));
    }
}
