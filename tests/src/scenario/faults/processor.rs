//! Faults of processors.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::recovery::Output;
use super::{SESSION_TIMEOUT, Trial, chaos};
use crate::stack::{Program, Stack};

const PROCESSOR: Program = Program::Processor;

/// Killed (−9) again and again, each time in the middle of work.
pub fn killed_repeatedly(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "processor-kill")?;
    for kill in 0..4 {
        trial.kill(PROCESSOR, kill % 2)?;
        trial.up(PROCESSOR, kill % 2)?;
        trial.progress(150)?;
    }
    trial.finish()
}

/// Stopped (SIGSTOP) until the group has gone on without it, then set going again: a zombie with a transaction open.
pub fn a_zombie(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "processor-zombie")?;
    for victim in 0..2 {
        trial.running(PROCESSOR, victim)?.pause()?;
        trial.for_the_length_of(2 * SESSION_TIMEOUT)?;
        trial.progress(100)?;
        trial.running(PROCESSOR, victim)?.resume()?;
        trial.recovers_from("processor asleep", Output::Topic);
        trial.progress(100)?;
    }
    trial.finish()
}

/// Both told to stop in turn, as an upgrade does it.
pub fn rolling_restart(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "processor-rolling")?;
    for instance in [0, 1, 0, 1] {
        trial.terminate(PROCESSOR, instance)?;
        trial.progress(50)?;
        trial.up(PROCESSOR, instance)?;
        trial.progress(50)?;
    }
    trial.finish()
}

/// One processor, then three, then one.
pub fn scaled_out_and_in(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start_with(stack, "processor-scale", 1)?;
    trial.add_processor()?;
    trial.add_processor()?;
    trial.progress(300)?;
    trial.terminate(PROCESSOR, 0)?;
    trial.terminate(PROCESSOR, 2)?;
    trial.progress(200)?;
    trial.finish()
}

/// Something happens to one of three processors at every moment; for `CHAOS_MINUTES` longer.
pub fn churn(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "processor-churn")?;
    trial.add_processor()?;
    let mut random = fastrand::Rng::with_seed(super::super::workload::Workload::any_seed());
    let deadline = Instant::now() + Duration::from_secs(20) + chaos();
    while Instant::now() < deadline {
        let victim = random.usize(..3);
        match (trial.is_up(PROCESSOR, victim)?, random.u8(..3)) {
            (false, _) => trial.up(PROCESSOR, victim)?,
            (true, 0) => trial.kill(PROCESSOR, victim)?,
            (true, 1) => trial.terminate(PROCESSOR, victim)?,
            (true, _) => {
                trial.running(PROCESSOR, victim)?.pause()?;
                trial.for_the_length_of(Duration::from_millis(random.u64(100..7_000)))?;
                trial.running(PROCESSOR, victim)?.resume()?;
            }
        }
        trial.for_the_length_of(Duration::from_millis(random.u64(100..2_500)))?;
    }
    trial.finish()
}

/// The state directory is deleted, then replaced by another instance's, then truncated, then bits of it are flipped:
/// it is a cache, and what is wrong with it must be noticed.
pub fn state_directory_lost_or_damaged(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "processor-state")?;
    let names = [0, 1].map(|instance| trial.job.processor(instance).name);
    let [own, other] = names.map(|name| stack.state_directory(&name));
    let damages: [(&str, Damage); 4] = [
        ("deleted", |own, _| Ok(fs::remove_dir_all(own)?)),
        ("another's", |own, other| {
            fs::remove_dir_all(own)?;
            copy(other, own)
        }),
        ("truncated", |own, _| each_data_file(own, |bytes| bytes.truncate(bytes.len() / 2))),
        ("flipped", |own, _| each_data_file(own, |bytes| flip_bits(bytes))),
    ];
    for (what, damage) in damages {
        // Both are down, so that what is copied is whole; killed, so that no clean end vouches for what is on disk.
        trial.kill(PROCESSOR, 0)?;
        trial.kill(PROCESSOR, 1)?;
        damage(&own, &other).with_context(|| format!("{what}: cannot be done to {}", own.display()))?;
        trial.up(PROCESSOR, 0)?;
        trial.progress(100).with_context(|| format!("with a state directory {what}"))?;
        trial.up(PROCESSOR, 1)?;
        trial.progress(100).with_context(|| format!("with a state directory {what}"))?;
    }
    trial.finish()
}

type Damage = fn(&Path, &Path) -> Result<()>;

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Some in the second half, none far from the next.
pub(super) fn flip_bits(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes.iter_mut().skip(middle).step_by(4_001).for_each(|byte| *byte ^= 0x10);
}

/// Rewrites the data file of each partition; fails where there is none, because then nothing was tried.
fn each_data_file(directory: &Path, change: impl FnMut(&mut Vec<u8>)) -> Result<()> {
    ensure!(rewrite_data_files(directory, change)? > 0, "there is no data file below {}", directory.display());
    Ok(())
}

/// Rewrites the data file of each partition, and says how many there were.
pub(super) fn rewrite_data_files(directory: &Path, mut change: impl FnMut(&mut Vec<u8>)) -> Result<usize> {
    let mut changed = 0;
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|ending| ending == "mdb") {
                let mut bytes = fs::read(&path)?;
                change(&mut bytes);
                fs::write(&path, bytes)?;
                changed += 1;
            }
        }
    }
    Ok(changed)
}
