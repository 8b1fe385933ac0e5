//! Owns what a crash costs: from the start of a killed processor's successor to its first commit, and how fast state is
//! restored from the changelogs when its directory is gone.
//!
//! The figure is taken with static membership, where the group gives the successor its partitions at once. Without it
//! the group waits for the dead member's session to end (10 s), which is measured beside it: that is the group's time,
//! not the processor's.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Sizes;
use super::throughput::loaded;
use crate::bench::Bench;
use crate::events::Workload;
use crate::load::{Loaded, PARTITIONS};
use crate::process::Process;
use crate::report::Report;
use crate::run::run_and_keep;
use crate::statistics::rate;
use crate::systems::{Application, System};
use crate::verify::{Reader, Verifier};

/// Events that wait for the successor.
const WAITING: u64 = 10_000;
const COMMITS_WITHIN: Duration = Duration::from_secs(60);
const RESTORES_WITHIN: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const SECONDS_OF_DAY: f64 = 86_400.0;

/// What a restart took, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Restart {
    /// From the start of the process to its first commit.
    pub start_to_commit_s: f64,
    /// From owning its partitions to that commit.
    pub owned_to_commit_s: f64,
}

/// What restoring from nothing took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Restore {
    /// Changelog records replayed.
    pub records: u64,
    /// From owning the partitions to all of them running.
    pub seconds: f64,
    /// Changelog records per second.
    pub records_per_s: f64,
    /// From the start of the process to all partitions running.
    pub start_to_running_s: f64,
}

/// The part.
pub fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let mut source = loaded(bench, "bench-restart", Workload::usual(sizes.events))?;
    let member = Application::new(bench, System::PROCESSOR, &source.topic, 0)?.flag("--static-membership");
    let (_, process) = run_and_keep(bench, &member, &source, "restart", None)?;
    let (restart, process) = killed(bench, &member, process, &mut source, 2)?;
    bench.say(format_args!(
        "kill -9, static member: {:.2} s from start to first commit, {:.2} s from owning the partitions",
        restart.start_to_commit_s, restart.owned_to_commit_s
    ));
    let restore = restored(bench, &member, process, &source)?;
    bench.say(format_args!(
        "state directory gone: {} records in {:.1} s, {:.0}/s ({:.1} s from start)",
        restore.records, restore.seconds, restore.records_per_s, restore.start_to_running_s
    ));
    member.remove(bench)?;

    let member = Application::new(bench, System::PROCESSOR, &source.topic, 0)?;
    let (_, process) = run_and_keep(bench, &member, &source, "restart, dynamic member", None)?;
    let (dynamic, mut process) = killed(bench, &member, process, &mut source, 3)?;
    bench.say(format_args!(
        "kill -9, dynamic member: {:.2} s from start to first commit, {:.2} s from owning the partitions",
        dynamic.start_to_commit_s, dynamic.owned_to_commit_s
    ));
    process.stop()?;
    drop(process);
    member.remove(bench)?;
    bench.delete_topics_of(&source.topic)?;

    report.figures.restart_s = Some(restart.start_to_commit_s);
    report.figures.restart_owned_s = Some(restart.owned_to_commit_s);
    report.figures.restore_records_per_s = Some(restore.records_per_s);
    report.details.insert("restart".to_owned(), serde_json::to_value(restart)?);
    report.details.insert("restart_dynamic_member".to_owned(), serde_json::to_value(dynamic)?);
    report.details.insert("restore".to_owned(), serde_json::to_value(restore)?);
    Ok(())
}

/// Kills it, lets events wait, starts it again, and verifies that all came right.
pub(super) fn killed(
    bench: &Bench,
    member: &Application,
    mut process: Process,
    source: &mut Loaded,
    seed: u64,
) -> Result<(Restart, Process)> {
    process.kill()?;
    drop(process);
    source.more(&bench.kafka, Workload { seed, ..Workload::usual(WAITING) })?;
    let mut process = member.start(None)?;
    let committed = wait_tightly("the first commit", COMMITS_WITHIN, || {
        process.check_running()?;
        let commits = Bench::metric(&bench.processor_http, "processor_commits_total");
        Ok(commits.filter(|commits| *commits > 0.0).map(|_| (Instant::now(), seconds_of_day())))
    })?;
    let (instant, time) = committed;
    let log = process.log()?;
    let owned = times(&log, "partition assigned").reduce(f64::min).context("no partition was assigned")?;
    let mut verifier = Verifier::new(member.system.format(), &source.expected, source.events)?;
    let mut reader = Reader::from_beginning(&bench.kafka, &member.output)?;
    reader.follow(&mut verifier, || process.check_running()).context("after kill -9")?;
    let restart = Restart {
        start_to_commit_s: instant.duration_since(process.started()).as_secs_f64(),
        owned_to_commit_s: (time - owned).rem_euclid(SECONDS_OF_DAY),
    };
    Ok((restart, process))
}

/// Stops it, removes its state, and starts it again.
fn restored(bench: &Bench, member: &Application, mut process: Process, source: &Loaded) -> Result<Restore> {
    process.stop()?;
    drop(process);
    fs::remove_dir_all(&member.state)?;
    fs::create_dir_all(&member.state)?;
    let mut process = member.start(None)?;
    let restore = replayed(bench, &mut process)?;
    let mut verifier = Verifier::new(member.system.format(), &source.expected, source.events)?;
    let mut reader = Reader::from_beginning(&bench.kafka, &member.output)?;
    reader.follow(&mut verifier, || process.check_running()).context("after restoring")?;
    process.stop()?;
    Ok(restore)
}

/// Waits until all partitions run.
pub(super) fn all_running(bench: &Bench, mut still_running: impl FnMut() -> Result<()>) -> Result<Instant> {
    // A source and a movements partition each.
    let wanted = f64::from(2 * PARTITIONS);
    wait_tightly("all partitions to run", RESTORES_WITHIN, || {
        still_running()?;
        let running = Bench::metric(&bench.processor_http, "processor_partition_running");
        Ok(running.filter(|running| *running >= wanted).map(|_| Instant::now()))
    })
}

/// What a process that was just started replays before all its partitions run.
pub(super) fn replayed(bench: &Bench, process: &mut Process) -> Result<Restore> {
    let running = all_running(bench, || process.check_running())?;
    let records = Bench::metric(&bench.processor_http, "processor_changelog_records_restored_total");
    let records = records.context("the processor does not count restored records")?;
    let log = process.log()?;
    let owned = times(&log, "partition assigned").reduce(f64::min).context("no partition was assigned")?;
    let all = times(&log, "partition running").reduce(f64::max).context("no partition is running")?;
    let seconds = (all - owned).rem_euclid(SECONDS_OF_DAY);
    let start_to_running_s = running.duration_since(process.started()).as_secs_f64();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a counter, printed as a float
    let records = records as u64;
    Ok(Restore { records, seconds, records_per_s: rate(records, seconds), start_to_running_s })
}

/// Looks far more often than scenarios do: what is waited for is measured.
fn wait_tightly<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        anyhow::ensure!(Instant::now() < deadline, "gave up waiting for {what} after {within:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Seconds since midnight, UTC, as the times in the log.
fn seconds_of_day() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64().rem_euclid(SECONDS_OF_DAY)
}

#[derive(Deserialize)]
struct Line<'a> {
    timestamp: &'a str,
    message: std::borrow::Cow<'a, str>,
}

/// When a log says something, in seconds since midnight.
fn times<'a>(log: &'a str, message: &'a str) -> impl Iterator<Item = f64> + 'a {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Line<'_>>(line).ok())
        .filter(move |line| line.message == message)
        .filter_map(|line| time_of_day(line.timestamp))
}

/// `2026-11-22T20:00:00.000001Z` as seconds since midnight.
fn time_of_day(timestamp: &str) -> Option<f64> {
    let (_, time) = timestamp.strip_suffix('Z')?.split_once('T')?;
    time.split(':').try_fold(0.0, |seconds, part| Some(seconds * 60.0 + part.parse::<f64>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_lines_that_say_it() {
        let log = "not json\n\
            {\"timestamp\":\"2026-11-22T01:01:01.500000Z\",\"level\":\"INFO\",\"message\":\"partition running\",\"partition\":1}\n\
            {\"timestamp\":\"2026-11-22T01:01:02.500000Z\",\"level\":\"INFO\",\"message\":\"starting\"}\n";
        let found: Vec<f64> = times(log, "partition running").collect();
        assert_eq!(found.len(), 1);
        assert!((found[0] - 3_661.5).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn a_time_in_another_form_is_none() {
        assert_eq!(time_of_day("yesterday"), None);
    }
}
