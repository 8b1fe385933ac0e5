//! Owns a memory cgroup of our own, version 2 or 1, in which a program is run with less memory than the machine has.
//!
//! The limit counts page cache and mapped files too, so it also shows what happens when the state store's pages do not
//! fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup; removed when dropped, which needs it to be empty.
#[derive(Debug)]
pub struct MemoryLimit {
    directory: PathBuf,
    peak: &'static str,
}

impl MemoryLimit {
    /// Creates a cgroup with a limit in MiB; fails with the reason where that is not possible.
    pub fn new(megabytes: u64) -> Result<Self> {
        let root = Path::new(ROOT);
        let version_2 = root.join("cgroup.controllers");
        let (parent, limit, peak) = if version_2.exists() {
            let controllers = fs::read_to_string(root.join("cgroup.subtree_control"))?;
            if !controllers.split_whitespace().any(|controller| controller == "memory") {
                bail!("the memory controller is not delegated to cgroups below {ROOT}");
            }
            (root.to_path_buf(), "memory.max", "memory.peak")
        } else if root.join("memory/memory.limit_in_bytes").exists() {
            (root.join("memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes")
        } else {
            bail!("no memory cgroup is mounted below {ROOT}");
        };
        let directory = parent.join(format!("bench-{}", std::process::id()));
        fs::create_dir(&directory).with_context(|| format!("cannot create the cgroup {}", directory.display()))?;
        let group = Self { directory, peak };
        fs::write(group.directory.join(limit), (megabytes << 20).to_string())
            .with_context(|| format!("cannot set {limit}"))?;
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
    pub fn peak_mb(&self) -> Option<u64> {
        let bytes: u64 = fs::read_to_string(self.directory.join(self.peak)).ok()?.trim().parse().ok()?;
        Some(bytes >> 20)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _still_in_use = fs::remove_dir(&self.directory);
    }
}
