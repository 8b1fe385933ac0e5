//! A stack that was left up: what runs of it, and ending it.
//!
//! Owns what `stack status` and `stack down` do. Signals reach only processes whose pid file still means them (see
//! [`super::identity`]), and a directory is removed only when it carries our mark.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::identity::ProcessIdentity;
use crate::stack::{wait_for_within, wait_until};

/// Marks a directory as a stack's, and says how to look around in it.
pub const GUIDE: &str = "STACK.txt";

const CLEAN_STOP_WITHIN: Duration = Duration::from_secs(20);

/// One recorded process.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Name of the server or program.
    pub name: String,
    /// Its pid while it runs.
    pub pid: Option<i32>,
    identity: ProcessIdentity,
    pid_file: PathBuf,
}

/// All processes recorded in a stack's directory, by name.
pub fn recorded(directory: &Path) -> Result<Vec<Recorded>> {
    let Ok(entries) = fs::read_dir(directory.join("pids")) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let pid_file = entry?.path();
        let Some(identity) = ProcessIdentity::read(&pid_file)? else { continue };
        let name = pid_file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let pid = identity.is_alive().then_some(identity.pid());
        found.push(Recorded { name, pid, identity, pid_file });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Ends one recorded process cleanly; true when one ran.
pub fn end(directory: &Path, name: &str) -> Result<bool> {
    let Some(process) = recorded(directory)?.into_iter().find(|process| process.name == name) else { return Ok(false) };
    let ran = process.pid.is_some();
    end_processes(&[process])?;
    Ok(ran)
}

/// Ends every recorded process, and removes the directory unless told to keep it. Returns how many ran.
pub fn end_all(directory: &Path, keep: bool) -> Result<usize> {
    let processes = recorded(directory)?;
    if !processes.is_empty() && !directory.join(GUIDE).is_file() {
        bail!("{} has no {GUIDE}: it is no stack's directory, nothing was touched", directory.display());
    }
    let running = processes.iter().filter(|process| process.pid.is_some()).count();
    // What uses the servers goes before them, or it would fill its log with their absence.
    let (servers, programs): (Vec<_>, Vec<_>) = processes.into_iter().partition(|process| is_server(&process.name));
    end_processes(&programs)?;
    if keep {
        end_processes(&servers)?;
    } else {
        // Nobody will miss what they would write on a clean stop, and the last brokers of a quorum take long over it.
        kill_processes(&servers)?;
    }
    if !keep && directory.join(GUIDE).is_file() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(running)
}

fn is_server(name: &str) -> bool {
    name.starts_with("broker-") || matches!(name, "connect" | "source" | "target")
}

fn end_processes(processes: &[Recorded]) -> Result<()> {
    for process in processes {
        // PostgreSQL would wait for its clients on SIGTERM; to the others SIGINT is as clean a stop.
        let signal = if matches!(process.name.as_str(), "source" | "target") { Signal::INT } else { Signal::TERM };
        process.identity.signal(signal)?;
    }
    let all_gone = || Ok(processes.iter().all(|process| !process.identity.is_alive()).then_some(()));
    // The last brokers of a quorum cannot shut down in an orderly way any more: they are not waited for longer.
    if wait_for_within("a clean stop", CLEAN_STOP_WITHIN, all_gone).is_err() {
        kill_processes(processes)?;
    }
    remove_pid_files(processes)
}

fn kill_processes(processes: &[Recorded]) -> Result<()> {
    let family: Vec<_> = processes
        .iter()
        .flat_map(|process| std::iter::once(process.identity.clone()).chain(process.identity.descendants()))
        .collect();
    family.iter().try_for_each(|process| process.signal(Signal::KILL))?;
    wait_until("killed processes to be gone", || Ok(!family.iter().any(ProcessIdentity::is_alive)))?;
    remove_pid_files(processes)
}

fn remove_pid_files(processes: &[Recorded]) -> Result<()> {
    for process in processes {
        match fs::remove_file(&process.pid_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_the_recorded_process_is_ended_and_only_in_a_stacks_directory() {
        let directory = tempfile::tempdir().unwrap();
        let stack = directory.path().join("stack");
        fs::create_dir_all(stack.join("pids")).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = ProcessIdentity::of(i32::try_from(child.id()).unwrap()).unwrap();
        identity.write(&stack.join("pids/connect.pid")).unwrap();

        assert!(end_all(&stack, false).is_err(), "touched a directory that is not marked");
        assert!(child.try_wait().unwrap().is_none());

        fs::write(stack.join(GUIDE), "").unwrap();
        assert_eq!(end_all(&stack, false).unwrap(), 1);
        child.wait().unwrap();
        assert!(!stack.exists());
    }
}
