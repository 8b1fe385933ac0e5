//! A random mix of faults on the native stack; `make chaos` runs it for longer.
//!
//! A program of its own, so that nothing else wants the machine meanwhile.

use anyhow::Result;
use tests::native::{NativeOptions, NativeStack};
use tests::scenario::faults::mix::{Mix, Source};

/// In every test run.
const SECONDS: u64 = 60;

#[test]
fn a_random_mix_of_faults_ends_exact() -> Result<()> {
    let mix = Mix::from_environment(SECONDS, Source::Topic)?;
    let stack = match mix.source {
        Source::Topic => NativeOptions::brokers(3).with_target_database().start()?,
        Source::Table => NativeStack::full()?,
    };
    mix.run(&stack)
}
