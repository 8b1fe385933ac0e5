//! A file system for the state of one processor, and what happens when it is full.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Trial;
use crate::stack::{Program, Stack};

const PROCESSOR: Program = Program::Processor;

/// Exit code of a program that needs an operator.
const REFUSED: i32 = 3;

/// Room for the state of a scenario, several times.
const SIZE: &str = "size=16m";

/// A file system in memory, mounted until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where this user may not mount anything.
    fn on(directory: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(directory)?;
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(directory).output();
        Ok(mount.is_ok_and(|output| output.status.success()).then(|| Self(directory.to_path_buf())))
    }

    /// Uses up what room there is, and returns the file that does.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("ballast");
        let mut file = File::create(&path)?;
        // Ever smaller pieces, so that nothing is left.
        for size in [1 << 16, 1 << 12, 1] {
            let piece = vec![1_u8; size];
            loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: after a failure a program may still be ending.
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The file system of a processor's state is full while others go on. It stops with a code, its partitions are taken over,
/// and once there is room again it goes on where it was.
pub fn full(stack: &dyn Stack) -> Result<()> {
    let mut trial = Trial::start(stack, "disk-full")?;
    let mut disks = Vec::new();
    for instance in 0..2 {
        let Some(disk) = on_a_disk_of_its_own(&mut trial, instance)? else {
            eprintln!("*** SKIPPED: this user may not mount a file system ***");
            return Ok(());
        };
        disks.push(disk);
    }
    for _ in 0..2 {
        // Who reads from the input: its state grows with every row. That of movements does not, and writes for ever into the
        // room it has already.
        let (reader, _) = trial.reader_and_other()?;
        trial.progress(100)?;
        let ballast = disks.get(reader).context("a processor without a disk")?.fill()?;
        let (exit, log) = trial.ended(PROCESSOR, reader)?;
        let said = exit.code == Some(REFUSED) && log.contains("STATE_DISK_FULL");
        ensure!(said, "ended with {exit}, not for a full disk:\n{}", super::super::tail(&log));
        trial.progress(100)?;
        fs::remove_file(ballast)?;
        trial.up(PROCESSOR, reader)?;
    }
    trial.progress(100)?;
    trial.finish()
}

/// Starts a processor again, with nothing, on a file system of its own; `None` as [`Mounted::on`].
fn on_a_disk_of_its_own(trial: &mut Trial<'_>, instance: usize) -> Result<Option<Mounted>> {
    let name = trial.job.processor(u32::try_from(instance)?).name;
    let directory = trial.job.stack.state_directory(&name);
    trial.kill(PROCESSOR, instance)?;
    fs::remove_dir_all(&directory).with_context(|| format!("cannot clear {}", directory.display()))?;
    let mounted = Mounted::on(&directory)?;
    trial.up(PROCESSOR, instance)?;
    Ok(mounted)
}
