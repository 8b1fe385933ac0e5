//! The output is rebuilt from nothing: the new epoch replaces the old one, goods that no longer exist included.

use anyhow::Result;

use super::{Job, end_cleanly};
use crate::client::{History, Replay, expected_remains};
use crate::stack::{Stack, wait_until};

/// A target that shows a good nobody knows any more is put right by a rebuild, and by nothing else.
pub fn replaces_the_old_epoch(stack: &dyn Stack, history: &str) -> Result<()> {
    let expected = expected_remains(history)?;
    let job = Job::new(stack, "rebuild")?;
    Replay::new(&job.kafka, &job.source_topic, &History::load(history)?)?.write_rest()?;
    let mut programs = [job.start_processor(0)?, job.start_sink(0)?];
    job.wait_for_target(&expected)?;
    job.target()?.execute("INSERT INTO remains.remains SELECT 424242, 7, min(epoch), 3, now() FROM remains.remains")?;
    end_cleanly(&mut programs)?;

    let job = job.rebuilt()?;
    let mut programs = [job.start_processor(0)?, job.start_processor(1)?, job.start_sink(0)?];
    job.wait_for_target(&expected)?;
    wait_until("the good that does not exist to go", || Ok(!job.target()?.remains()?.contains_key(&424_242)))?;
    job.check(&expected)?;
    end_cleanly(&mut programs)
}
