//! Owns one program under measurement: its start, its CPU time and memory as the kernel counts them, its end.
//!
//! Memory is sampled, because the kernel keeps no high-water mark of private memory (`RssAnon`).

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::tests::stack::{wait_for_within, wait_until};
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::statistics::number;

const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// What a process used so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usage {
    /// CPU time of all its threads, user and system, in seconds.
    pub cpu_s: f64,
    /// Most private memory (`RssAnon`) seen, in MiB.
    pub peak_private_mb: f64,
    /// Most resident memory (`VmHWM`), in MiB; includes pages of mapped files, which the kernel may take back.
    pub peak_rss_mb: f64,
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    started: Instant,
    log: PathBuf,
    /// Where its own words begin in the log, after those of earlier processes.
    log_start: u64,
    private_kb: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    sampler: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`; its output is appended to `log`. Call it from the main thread: the program is ended by the
    /// kernel when the thread that started it is gone.
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot open the log {}", log.display()))?;
        let log_start = output.metadata()?.len();
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            if let Some(value) = value {
                tied.env(variable, value);
            }
        }
        tied.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let started = Instant::now();
        let child = tied.spawn().with_context(|| format!("cannot start {name}"))?;
        let (private_kb, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (peak, stop, pid) = (Arc::clone(&private_kb), Arc::clone(&ended), child.id());
        let sampler = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Some(kilobytes) = status_kb(pid, "RssAnon:") {
                    peak.fetch_max(kilobytes, Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        let (name, log) = (name.to_owned(), log.to_path_buf());
        Ok(Self { name, child, started, log, log_start, private_kb, ended, sampler: Some(sampler) })
    }

    /// When it was started.
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> Result<String> {
        let mut file = File::open(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Fails with the end of its log when it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = self.log()?;
            let mut tail: Vec<&str> = log.lines().rev().take(15).collect();
            tail.reverse();
            bail!("{} ended ({status}):\n{}", self.name, tail.join("\n"));
        }
        Ok(())
    }

    /// What it used so far; call it before it ends.
    pub fn usage(&self) -> Result<Usage> {
        let pid = self.child.id();
        let cpu_s = cpu_seconds(&pid.to_string()).with_context(|| format!("{} is gone", self.name))?;
        let megabytes = |kilobytes: u64| number(kilobytes) / 1024.0;
        Ok(Usage {
            cpu_s,
            peak_private_mb: megabytes(self.private_kb.load(Ordering::Relaxed)),
            peak_rss_mb: megabytes(status_kb(pid, "VmHWM:").unwrap_or_default()),
        })
    }

    /// Waits until it has ended by itself; fails unless it did so successfully.
    pub fn wait_success(&mut self, within: Duration) -> Result<()> {
        wait_for_within(format!("{} to end by itself", self.name), within, || match self.child.try_wait()? {
            None => Ok(None),
            Some(status) if status.success() => Ok(Some(())),
            Some(_) => self.check_running().map(|()| None),
        })
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it has ended.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let what = format!("{} to end", self.name);
        wait_until(what, || Ok(self.child.try_wait()?.is_some()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _gone = self.kill();
        self.ended.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            let _cannot_panic = sampler.join();
        }
    }
}

fn status_kb(pid: u32, field: &str) -> Option<u64> {
    field_kb(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, field)
}

/// A field of `/proc/<pid>/status` in kB.
fn field_kb(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// CPU time a process has used so far, in seconds; `self` is this one.
pub fn cpu_seconds(pid: &str) -> Option<f64> {
    let ticks = cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(number(ticks) / number(rustix::param::clock_ticks_per_second()))
}

/// `utime` + `stime` of `/proc/<pid>/stat`, in clock ticks. The program's name, in parentheses, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(ticks(11)? + ticks(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn fields_of_the_status_are_read_in_kilobytes() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nRssAnon:\t     512 kB\n";
        assert_eq!((field_kb(status, "VmHWM:"), field_kb(status, "RssAnon:")), (Some(2048), Some(512)));
        assert_eq!(field_kb(status, "RssFile:"), None);
    }

    #[test]
    fn a_process_that_ends_by_itself_is_noticed_with_its_last_words() {
        let log = tempfile_path();
        let mut command = Command::new("sh");
        command.args(["-c", "echo last words; exit 3"]);
        let mut process = Process::start("sh", &command, &log).unwrap();
        process.child.wait().unwrap();
        let error = process.check_running().unwrap_err().to_string();
        assert!(error.contains("last words"), "{error}");
        fs::remove_file(log).unwrap();
    }

    fn tempfile_path() -> PathBuf {
        std::env::temp_dir().join(format!("bench-process-{}.log", std::process::id()))
    }
}
