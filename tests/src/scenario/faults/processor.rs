//! Faults of processors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::workload::PARTITIONS;
use super::super::{Job, tail};
use super::recovery::Output;
use super::trial::{is_restarted, topic_work};
use super::{SESSION_TIMEOUT, Trial, chaos};
use crate::stack::{Program, RunningProgram, Stack, wait_until};

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
        trial.until_out_of_the_group(victim)?;
        trial.progress(100)?;
        trial.running(PROCESSOR, victim)?.resume()?;
        trial.recovers_from("processor asleep", Output::Topic);
        trial.progress(100)?;
    }
    trial.finish()
}

/// A zombie that is told to stop before it wakes: all it does is between its waking and its departure.
pub fn a_zombie_told_to_stop(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "zombie-stop")?;
    for victim in [0, 1, 0, 1] {
        trial.running(PROCESSOR, victim)?.pause()?;
        trial.until_out_of_the_group(victim)?;
        trial.progress(100)?;
        let mut asleep = trial.take_terminated(PROCESSOR, victim)?;
        asleep.resume()?;
        wait_ended(asleep.as_mut())?;
        trial.up(PROCESSOR, victim)?;
        trial.progress(100)?;
    }
    trial.finish()
}

/// A clean end, or one that comes of having slept while another one went on and had what it consumed deleted.
fn wait_ended(program: &mut dyn RunningProgram) -> Result<()> {
    let exit = program.wait_exit()?;
    ensure!(exit.is_clean() || is_restarted(exit), "{} ended with {exit}:\n{}", program.name(), tail(&program.log()?));
    Ok(())
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

/// Static members: one is killed (−9) and started again within its session, again and again, and takes its partitions back;
/// the other one hears of no rebalance.
pub fn static_members_restarted(stack: &dyn Stack) -> Result<()> {
    let job = Job::for_workload(stack, "processor-static")?;
    let work = topic_work(&job);
    let processors = [0, 1].map(|instance| job.processor(instance).switch("--static-membership")).to_vec();
    // Longer than a restart may take on a loaded machine: nothing here waits for its end.
    let mut trial = Trial::configured(job, work, processors, 10 * SESSION_TIMEOUT, "")?;
    let (sources, movements) = shares(&mut trial)?;
    let before = membership(&mut trial)?;
    for _ in 0..3 {
        trial.kill(PROCESSOR, 0)?;
        trial.up(PROCESSOR, 0)?;
        trial.progress(150)?;
        trial.until_runs(0, "source", sources.len())?;
        ensure!(shares(&mut trial)? == (sources.clone(), movements.clone()), "it came back to other partitions");
    }
    ensure!(membership(&mut trial)? == before, "the other one was rebalanced:\n{}", tail(&trial.log(PROCESSOR, 1)?));
    trial.finish()
}

/// What the first of two processors runs, once both run half.
fn shares(trial: &mut Trial<'_>) -> Result<(BTreeSet<i32>, BTreeSet<i32>)> {
    let half = usize::try_from(PARTITIONS)?;
    for instance in [0, 1] {
        wait_until("both to run their half", || {
            Ok(trial.runs(instance, "source")?.len() + trial.runs(instance, "movements")?.len() == half)
        })?;
    }
    Ok((trial.runs(0, "source")?, trial.runs(0, "movements")?))
}

/// How often a partition came to the second processor, or went.
fn membership(trial: &mut Trial<'_>) -> Result<usize> {
    let log = trial.log(PROCESSOR, 1)?;
    let words = ["partition assigned", "partition given up", "partition lost", "moved this partition on"];
    Ok(words.iter().map(|words| log.matches(words).count()).sum())
}

/// The state directory is another application's: refused, and left alone, while the other processor goes on. Remedy: it is
/// removed.
pub fn a_foreign_state_directory(stack: &dyn Stack) -> Result<()> {
    const REFUSED: i32 = 3;
    let mut other = Trial::start_with(stack, "foreign-owner", 1)?;
    other.terminate(PROCESSOR, 0)?;
    let foreign = stack.state_directory(&other.job.processor(0).name).join(other.job.application_id());
    let mut trial = Trial::start(stack, "foreign-state")?;
    let own = stack.state_directory(&trial.job.processor(0).name).join(trial.job.application_id());
    trial.until_logged(PROCESSOR, 0, "partition running")?;
    for _ in 0..2 {
        trial.kill(PROCESSOR, 0)?;
        fs::remove_dir_all(&own)?;
        copy(&foreign, &own)?;
        trial.up(PROCESSOR, 0)?;
        let (exit, log) = trial.ended(PROCESSOR, 0)?;
        let said = exit.code == Some(REFUSED) && log.contains("STATE_DIR_FOREIGN");
        ensure!(said, "ended with {exit}, not for a foreign state directory:\n{}", tail(&log));
        ensure!(files(&own)? == files(&foreign)?, "the foreign state was touched");
        trial.progress(100)?;
        fs::remove_dir_all(&own)?;
        trial.up(PROCESSOR, 0)?;
        trial.until_logged(PROCESSOR, 0, "partition running")?;
    }
    trial.finish()?;
    // Its owner goes on with it.
    other.finish()
}

/// Names and contents of all files below a directory; locks come and go.
fn files(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.insert(path.strip_prefix(directory)?.to_path_buf(), fs::read(&path)?);
            }
        }
    }
    Ok(files)
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
            (true, 1) => {
                trial.until_it_hears_signals(PROCESSOR, victim)?;
                wait_ended(trial.take_terminated(PROCESSOR, victim)?.as_mut())?;
            }
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
