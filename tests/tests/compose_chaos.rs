//! A random mix of faults on docker compose; `make chaos BACKEND=compose` runs it for longer.
//!
//! Skipped with a notice where there is no container engine; fails instead when `STACK_REQUIRE_COMPOSE` is set.

use anyhow::Result;
use tests::compose::{ComposeOptions, available};
use tests::scenario::faults::mix::{Mix, Source};

/// In every test run.
const SECONDS: u64 = 60;

#[test]
fn a_random_mix_of_faults_ends_exact() -> Result<()> {
    if !available()? {
        return Ok(());
    }
    let mix = Mix::from_environment(SECONDS, Source::Topic)?;
    let options = match mix.source {
        Source::Topic => ComposeOptions::brokers().with_target_database(),
        Source::Table => ComposeOptions::full(),
    };
    mix.run(&options.start()?)
}
