//! Owns what a store with very many ids costs: restoring it, throughput on top of it, a restart after `kill -9`, both in
//! 512 MiB of memory, and the disk.
//!
//! The ids are written to the changelog as the processor would write them, by a plain producer, and the processor restores
//! them: to let it apply as many events would take half an hour and write sixty gigabytes. None of them is touched
//! again, and no good is moved by them, so that sums and versions are verified as ever.

use std::fs::{self, File};
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{Advice, fadvise};
use schemas::partitioner::partition_for;
use schemas::{ChangelogKey, Content, Scale, TransactionRecord};

use super::Sizes;
use super::growth::applied;
use super::memory::LIMIT_MB;
use super::restart::{all_running, killed, replayed};
use super::throughput::loaded;
use crate::bench::Bench;
use crate::envelope::write_key;
use crate::events::Workload;
use crate::limit::Limit;
use crate::load::{Loaded, PARTITIONS, Writer};
use crate::process::Process;
use crate::report::Report;
use crate::run::run_and_keep;
use crate::statistics::{number, rate};
use crate::systems::{Application, System};
use crate::verify::{Reader, Verifier};

/// Blocks of `stat`, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// Which share of the events the run in 512 MiB gets: every event then waits for a page of the disk, and a tenth of the speed was
/// seen.
const LIMITED_SHARE: u64 = 4;

/// The part.
pub fn run(bench: &Bench, sizes: &Sizes, report: &mut Report) -> Result<()> {
    if sizes.fill == 0 {
        report.notes.insert("filled".to_owned(), "no store was filled; see --fill".to_owned());
        return Ok(());
    }
    let mut source = loaded(bench, "bench-filled", Workload::usual(sizes.events))?;
    let application = Application::new(bench, System::PROCESSOR, &source.topic, 0)?.flag("--static-membership");
    let (base, mut process) = run_and_keep(bench, &application, &source, "before the store is filled", None)?;
    process.stop()?;
    drop(process);
    let few = disk_bytes(&application.state)?;
    bench.say(format_args!("writing {} ids to the changelog", sizes.fill));
    fill(bench, &application, sizes.fill)?;

    let mut process = application.start(None)?;
    let restore = replayed(bench, &mut process)?;
    bench.say(format_args!(
        "restored {} records in {:.1} s, {:.0}/s",
        restore.records, restore.seconds, restore.records_per_s
    ));
    process.stop()?;
    drop(process);
    let bytes_per_id = number(disk_bytes(&application.state)?.saturating_sub(few)) / number(sizes.fill);
    bench.say(format_args!("{bytes_per_id:.1} bytes on disk per id"));

    let mut output = Output::read(bench, &application, &source)?;
    let (free, process) = on_top(bench, &application, &mut source, &mut output, sizes.events, None)?;
    let (restart, mut process) = killed(bench, &application, process, &mut source, 99)?;
    bench.say(format_args!(
        "kill -9: {:.2} s from owning the partitions to the first commit",
        restart.owned_to_commit_s
    ));
    process.stop()?;
    drop(process);
    let figures = &mut report.figures;
    figures.growth_filled_store = free.map(|free| free / base.events_per_s);
    figures.filled_restart_owned_s = Some(restart.owned_to_commit_s);
    figures.filled_restore_records_per_s = Some(restore.records_per_s);
    figures.disk_bytes_per_id = Some(bytes_per_id);
    report.details.insert("filled_ids".to_owned(), sizes.fill.into());
    report.details.insert("filled_events_per_s".to_owned(), free.into());
    report.details.insert("filled_restore".to_owned(), serde_json::to_value(restore)?);
    report.details.insert("filled_restart".to_owned(), serde_json::to_value(restart)?);
    report.runs.push(base);
    match Limit::memory(LIMIT_MB) {
        Ok(limit) => {
            output.follow(&source, || Ok(()))?;
            forget_pages(&application.state)?;
            let events = sizes.events / LIMITED_SHARE;
            let (limited, mut process) = on_top(bench, &application, &mut source, &mut output, events, Some(&limit))?;
            process.stop()?;
            report.figures.filled_in_512_mb = limited.zip(free).map(|(limited, free)| limited / free);
            report.details.insert("filled_in_512_mb_events_per_s".to_owned(), limited.into());
        }
        Err(reason) => _ = report.notes.insert("filled".to_owned(), format!("{reason:#}")),
    }
    application.remove(bench)?;
    bench.delete_topics_of(&source.topic)
}

/// Writes ids to the changelog, each into the partition in which its events would be.
fn fill(bench: &Bench, application: &Application, ids: u64) -> Result<()> {
    let partitions = NonZeroU32::new(PARTITIONS.unsigned_abs()).context("no partitions")?;
    let writer = Writer::bulk(&bench.kafka, &format!("{}.transactions", application.id))?.without_headers();
    let mut random = fastrand::Rng::with_seed(50);
    let (mut source_key, mut key, mut value) = (String::new(), Vec::new(), Vec::new());
    let mut record = TransactionRecord {
        content: None,
        generation: 0,
        streaming: true,
        lsn: 26_370_000,
        commit_lsn: None,
        ts_ms: 1_795_333_786_480,
        incremental_ts_ms: None,
        outdated: false,
    };
    for number in 0..ids {
        let id = uuid::Builder::from_random_bytes(random.u128(..).to_le_bytes()).into_uuid();
        record.content = Some(Content { good_id: random.i64(1..=100_000).into(), pieces: random.i64(-100..=100) });
        record.commit_lsn = Some(record.lsn);
        record.lsn += random.u64(64..320);
        record.ts_ms += i64::from(number.is_multiple_of(10));
        write_key(&mut source_key, id);
        key.clear();
        value.clear();
        ChangelogKey::Transaction(id.into()).encode(&mut key);
        record.encode(Scale::WHOLE, &mut value);
        writer.send_to(partition_for(source_key.as_bytes(), partitions), &key, &value)?;
    }
    writer.finish()
}

/// The output, read once and for all runs.
struct Output {
    reader: Reader,
    verifier: Verifier,
}

impl Output {
    fn read(bench: &Bench, application: &Application, source: &Loaded) -> Result<Self> {
        let reader = Reader::from_beginning(&bench.kafka, &application.output)?;
        let verifier = Verifier::new(application.system.format(), &source.expected, source.events)?;
        let mut output = Self { reader, verifier };
        output.follow(source, || Ok(()))?;
        Ok(output)
    }

    /// Reads until everything written to the source is in it; gives when that was.
    fn follow(&mut self, source: &Loaded, still_running: impl FnMut() -> Result<()>) -> Result<std::time::Instant> {
        self.verifier.expect(&source.expected);
        Ok(self.reader.follow(&mut self.verifier, still_running)?.right)
    }
}

/// Events per second of the usual load on top of what is in the store, from when all partitions run: before that, the
/// store is read and checked as a whole, which is the restart's time.
fn on_top(
    bench: &Bench,
    application: &Application,
    source: &mut Loaded,
    output: &mut Output,
    events: u64,
    limit: Option<&Limit>,
) -> Result<(Option<f64>, Process)> {
    // Another seed each time: the same events would be redelivered ones.
    let seed = source.events;
    source.more(&bench.kafka, Workload { seed, ..Workload::usual(events) })?;
    let mut process = application.start(limit)?;
    let (running, right) = std::thread::scope(|scope| {
        let running =
            scope.spawn(|| all_running(bench, || Ok(())).map(|instant| (instant, applied(&[&bench.processor_http]))));
        let right = output.follow(source, || process.check_running());
        let running = running.join().map_err(|_| anyhow::anyhow!("the thread that waits for the partitions panicked"));
        Ok::<_, anyhow::Error>((running??, right?))
    })?;
    let (all_running, before) = running;
    let left = events.saturating_sub(before);
    let elapsed_s = right.saturating_duration_since(all_running).as_secs_f64();
    // Of too few nothing could be told.
    let events_per_s = (left > events / 2).then(|| rate(left, elapsed_s));
    let limited = if limit.is_some() { ", in 512 MiB" } else { "" };
    bench.say(format_args!(
        "on the filled store{limited}: {left} of {events} events in {elapsed_s:.1} s since all partitions ran, {:.0} events/s",
        events_per_s.unwrap_or_default()
    ));
    Ok((events_per_s, process))
}

/// Bytes that the files of a directory take on disk; the store's files have holes.
fn disk_bytes(directory: &Path) -> Result<u64> {
    files(directory)?.iter().map(|file| Ok(file.metadata()?.blocks() * BLOCK_BYTES)).sum()
}

/// Has the kernel drop the files' pages: pages that are there already would not count against a limit.
fn forget_pages(directory: &Path) -> Result<()> {
    files(directory)?.iter().try_for_each(|file| {
        file.sync_all()?;
        Ok(fadvise(file, 0, None, Advice::DontNeed)?)
    })
}

fn files(directory: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(self::files(&entry.path())?);
        } else {
            files.push(File::open(entry.path())?);
        }
    }
    Ok(files)
}
