//! Owns a cgroup of our own, version 2 or 1, in which a program gets less than the machine has: of memory, or of the CPUs.
//!
//! The limit of memory counts page cache and mapped files too, so it also shows what happens when the state store's
//! pages do not fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

const ROOT: &str = "/sys/fs/cgroup";
/// The kernel's default, in microseconds: a program that has used its share waits for the rest of it.
const CPU_PERIOD_US: u64 = 100_000;

/// A cgroup; removed when dropped, which needs it to be empty.
#[derive(Debug)]
pub struct Limit {
    directory: PathBuf,
}

impl Limit {
    /// A cgroup with at most so many MiB; fails with the reason where that is not possible.
    pub fn memory(megabytes: u64) -> Result<Self> {
        let bytes = (megabytes << 20).to_string();
        Self::new("memory", &[("memory.max", &bytes)], &[("memory.limit_in_bytes", &bytes)])
    }

    /// A cgroup with at most so many percent of one CPU; fails with the reason where that is not possible.
    pub fn cpu(percent: u64) -> Result<Self> {
        let quota = (CPU_PERIOD_US * percent / 100).to_string();
        let period = CPU_PERIOD_US.to_string();
        Self::new(
            "cpu",
            &[("cpu.max", &format!("{quota} {period}"))],
            &[("cpu.cfs_period_us", &period), ("cpu.cfs_quota_us", &quota)],
        )
    }

    /// Of the files to write, those of the mounted version count.
    fn new(controller: &str, version_2: &[(&str, &str)], version_1: &[(&str, &str)]) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let root = Path::new(ROOT);
        let (parent, files) = if root.join("cgroup.controllers").exists() {
            let controllers = fs::read_to_string(root.join("cgroup.subtree_control"))?;
            if !controllers.split_whitespace().any(|delegated| delegated == controller) {
                bail!("the {controller} controller is not delegated to cgroups below {ROOT}");
            }
            (root.to_path_buf(), version_2)
        } else if root.join(controller).join("cgroup.procs").exists() {
            (root.join(controller), version_1)
        } else {
            bail!("no {controller} cgroup is mounted below {ROOT}");
        };
        let name = format!("bench-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let directory = parent.join(name);
        fs::create_dir(&directory).with_context(|| format!("cannot create the cgroup {}", directory.display()))?;
        let group = Self { directory };
        for (file, value) in files {
            fs::write(group.directory.join(file), value).with_context(|| format!("cannot set {file} to {value}"))?;
        }
        Ok(group)
    }

    /// The same command, started inside the cgroup.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("sh");
        wrapped.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.directory.join("cgroup.procs"));
        wrapped.arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(variable, value);
            }
        }
        wrapped
    }

    /// Most memory used, page cache included, in MiB.
    pub fn peak_memory_mb(&self) -> Option<u64> {
        let read = |file: &str| fs::read_to_string(self.directory.join(file)).ok()?.trim().parse::<u64>().ok();
        Some(read("memory.peak").or_else(|| read("memory.max_usage_in_bytes"))? >> 20)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let _still_in_use = fs::remove_dir(&self.directory);
    }
}
