//! Two processes of one identity: at least one of them ends, and nothing is wrong afterwards.

use anyhow::{Result, ensure};

use super::Job;
use crate::client::{History, Replay, expected_remains};
use crate::stack::{RunningProgram, Stack, wait_until};

/// Exit code of a process that found another one under its identity.
const FENCED: i32 = 4;

/// Engine rule 6: repeated fencing means that another process owns the transactional ids; rebuilding for ever would
/// let the two fence each other for ever.
pub fn two_processes_of_one_instance_do_not_fence_each_other_for_ever(stack: &dyn Stack, history: &str) -> Result<()> {
    let job = Job::new(stack, "fencing")?;
    let mut first = job.start_processor(0)?;
    let twin = crate::stack::ProgramSpec::processor(format!("{}-processor-twin", job.name))
        .flag("--source-topic", &job.source_topic)
        .flag("--topic-prefix", &job.topic_prefix)
        .flag("--application-id", job.application_id())
        .flag("--instance", 0);
    let mut second = stack.run(&twin)?;
    // Neither may have everything done in one transaction before the other has come.
    wait_until("both to be members", || {
        let is_over = first.exit()?.is_some() || second.exit()?.is_some();
        Ok(is_over || job.kafka.group_members(job.application_id())?.len() > 1)
    })?;
    let records = History::load(history)?;
    let mut replay = Replay::new(&job.kafka, &job.source_topic, &records)?;
    let mut ended = None;
    wait_until("one of the two to end", || {
        // Both need something to commit to notice each other.
        if replay.remaining() > 0 {
            replay.write_next(200)?;
        }
        ended = match (first.exit()?, second.exit()?) {
            (Some(exit), _) => Some((exit, true)),
            (None, Some(exit)) => Some((exit, false)),
            (None, None) => None,
        };
        Ok(ended.is_some())
    })?;
    let Some((exit, first_ended)) = ended else { return Ok(()) };
    let (loser, winner): (Box<dyn RunningProgram>, _) = if first_ended { (first, second) } else { (second, first) };
    ensure!(exit.code == Some(FENCED), "ended with {exit}:\n{}", super::tail(&loser.log()?));
    ensure!(loser.log()?.contains("FENCED"), "the log does not say why:\n{}", super::tail(&loser.log()?));
    replay.write_rest()?;
    let expected = expected_remains(history)?;
    let mut left = [winner];
    let Err(error) = job.wait_for(&expected, &mut left) else { return Ok(()) };
    // The loser's last initialisation may have been what the other one was fenced by for the last time: then both end,
    // and whoever supervises them starts one again.
    let [winner] = &mut left;
    if winner.exit()?.is_none_or(|exit| exit.code != Some(FENCED)) {
        return Err(error);
    }
    job.wait_for(&expected, &mut [job.start_processor(0)?])
}
