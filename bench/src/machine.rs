//! Owns the description of the machine and the commit that figures were measured on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use crate::statistics::number;

/// How long the machine is watched before anything is started.
const OBSERVED: Duration = Duration::from_secs(1);

/// Where figures come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// CPUs this process may use.
    pub cores: usize,
    /// CPU model.
    pub cpu: String,
    /// Physical memory in MiB.
    pub memory_mb: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// Share of all CPUs that was busy before anything was started: what else ran, and spoiled the figures.
    pub busy_before: f64,
    /// Commit that is checked out; `+` when files differ from it.
    pub commit: String,
}

impl Machine {
    /// This one. What cannot be found out stays empty.
    pub fn here() -> Self {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory_info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let uname = rustix::system::uname();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: after_colon(&cpu_info, "model name").unwrap_or_default(),
            memory_mb: after_colon(&memory_info, "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kilobytes| kilobytes >> 10),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            busy_before: busy().unwrap_or_default(),
            commit: commit().unwrap_or_default(),
        }
    }
}

/// Share of CPU time that is not idle, over a second.
fn busy() -> Option<f64> {
    let before = cpu_times(&fs::read_to_string("/proc/stat").ok()?)?;
    std::thread::sleep(OBSERVED);
    let after = cpu_times(&fs::read_to_string("/proc/stat").ok()?)?;
    let (idle, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    (all > 0).then(|| 1.0 - number(idle) / number(all))
}

/// CPU time that all processes of the machine have used since it was started, in seconds.
pub fn busy_s() -> Option<f64> {
    let (idle, all) = cpu_times(&fs::read_to_string("/proc/stat").ok()?)?;
    Some(number(all.saturating_sub(idle)) / number(rustix::param::clock_ticks_per_second()))
}

/// Idle (waiting for disks included) and total CPU time of `/proc/stat`, in clock ticks.
fn cpu_times(stat: &str) -> Option<(u64, u64)> {
    let times: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .filter_map(|time| time.parse().ok())
        .collect();
    Some((times.get(3)? + times.get(4)?, times.iter().sum()))
}

fn after_colon(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { commit + "+" } else { commit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_disk_is_not_being_busy() {
        let stat = "cpu  10 1 4 80 5 0 0 0 0 0\ncpu0 10 1 4 80 5 0 0 0 0 0\n";
        assert_eq!(cpu_times(stat), Some((85, 100)));
    }

    #[test]
    fn values_are_what_follows_the_colon() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(after_colon(text, "model name").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(after_colon(text, "MemTotal"), None);
    }
}
