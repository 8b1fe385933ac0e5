//! Outages longer than every timeout. The stack must be one of its own, with [`options`].

use std::time::Duration;

use anyhow::Result;

use super::Trial;
use super::recovery::Output;
use crate::native::NativeOptions;
use crate::stack::{Program, Stack};

/// When brokers forget a transactional id that is not used: a week by default.
const FORGOTTEN_AFTER_MS: &str = "10000";

/// A transaction times out (20 s), is then forgotten, and the brokers look for both only now and then.
const LONGER_THAN_EVERY_TIMEOUT: Duration = Duration::from_secs(45);

const ALL: [(Program, usize); 4] =
    [(Program::Processor, 0), (Program::Processor, 1), (Program::Sink, 0), (Program::Sink, 1)];

/// Brokers that forget producers within seconds.
pub fn options() -> NativeOptions {
    NativeOptions::brokers(1)
        .with_target_database()
        .broker_property("transactional.id.expiration.ms", FORGOTTEN_AFTER_MS)
        .broker_property("transaction.remove.expired.transaction.cleanup.interval.ms", "1000")
        .broker_property("producer.id.expiration.ms", FORGOTTEN_AFTER_MS)
        .broker_property("producer.id.expiration.check.interval.ms", "1000")
}

/// Everything sleeps for longer than sessions, transactions and transactional ids live, while the shop goes on; then
/// everything is down for as long.
pub fn longer_than_every_timeout(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "long-outage")?;
    for (program, instance) in ALL {
        trial.running(program, instance)?.pause()?;
    }
    trial.for_the_length_of(LONGER_THAN_EVERY_TIMEOUT)?;
    for (program, instance) in ALL {
        trial.running(program, instance)?.resume()?;
    }
    trial.recovers_from("everything asleep for long", Output::Topic);
    trial.progress(300)?;
    for instance in [0, 1] {
        // Not with a producer that the brokers have forgotten.
        trial.until_logged(Program::Processor, instance, "producers rebuilt")?;
    }
    for (program, instance) in ALL {
        trial.kill(program, instance)?;
    }
    trial.for_the_length_of(LONGER_THAN_EVERY_TIMEOUT)?;
    for (program, instance) in ALL {
        trial.up(program, instance)?;
    }
    trial.progress(300)?;
    trial.finish()
}
