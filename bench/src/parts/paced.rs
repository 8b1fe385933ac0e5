//! Owns sending events at a steady pace and noting when each was seen, on the topic and in the target table.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::tests::client::{NewTopic, Sql, unique_name};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sqlx::{Connection as _, PgConnection};

use crate::bench::Bench;
use crate::envelope::{Change, write_key, write_value};
use crate::load::{PARTITIONS, Writer};
use crate::process::Process;
use crate::systems::{Application, System};
use crate::verify::{Format, Next, Reader};

/// How long after the last event everything must have been seen.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks at the target table.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A look asks for no more goods than this.
const MOST_GOODS: usize = 1_000;

/// So many events, so many a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Events per second.
    pub(super) per_second: u32,
    /// Events.
    pub(super) events: u32,
}

/// What became of the events of one pace.
#[derive(Debug)]
pub(super) struct Observed {
    /// From sent to visible on the topic.
    pub(super) topic: Vec<Duration>,
    /// From sent to visible in the target table, with a sink.
    pub(super) target: Option<Vec<Duration>>,
    /// How much later than due the latest event was sent.
    pub(super) sent_late: Duration,
}

/// When events were seen at one place. Event `i` moves good `i + 1`.
struct Sightings {
    since: Instant,
    /// Nanoseconds since `since`, plus one; 0 is "not yet".
    at: Vec<AtomicU64>,
    count: AtomicUsize,
}

impl Sightings {
    fn new(since: Instant, events: usize) -> Self {
        Self { since, at: (0..events).map(|_| AtomicU64::new(0)).collect(), count: AtomicUsize::new(0) }
    }

    /// Notes that a good was seen, with the sum it must have.
    fn note(&self, good_id: i64, remains: i128) -> Result<()> {
        let index = usize::try_from(good_id - 1)?;
        let slot = self.at.get(index).with_context(|| format!("there is no good {good_id}"))?;
        ensure!(remains == i128::from(pieces(good_id)), "good {good_id} shows {remains}");
        let now = u64::try_from(self.since.elapsed().as_nanos())? + 1;
        ensure!(slot.swap(now, Ordering::Relaxed) == 0, "good {good_id} was shown twice");
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn seen(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The time from sent to seen of the events from `first` on.
    fn latencies(&self, first: usize, sent: &[Instant]) -> Result<Vec<Duration>> {
        let seen = self.at.iter().skip(first);
        sent.iter()
            .zip(seen)
            .map(|(sent, seen)| {
                let nanos = seen.load(Ordering::Relaxed).checked_sub(1).context("an event was not seen")?;
                Ok((self.since + Duration::from_nanos(nanos)).duration_since(*sent))
            })
            .collect()
    }
}

/// Pieces that the event of a good moves.
const fn pieces(good_id: i64) -> i64 {
    1 + good_id % 100
}

/// Runs a system on an empty topic, with a sink if wanted, and sends events at one pace after the other.
pub(super) fn observe(bench: &Bench, system: System, paces: &[Pace], with_sink: bool) -> Result<Vec<Observed>> {
    let source = unique_name("bench-latency");
    bench.kafka.create_topic(&NewTopic::new(&source, PARTITIONS))?;
    let application = Application::new(bench, system, &source, 0)?;
    let reader = Reader::from_end(&bench.kafka, &application.output)?;
    let mut programs = vec![application.start(None)?];
    if with_sink {
        programs.push(start_sink(bench, &application)?);
    }
    let events: u32 = paces.iter().map(|pace| pace.events).sum();
    let observation = Observation::new(usize::try_from(events)?, system.format());
    let writer = Writer::prompt(&bench.kafka, &source)?;
    let observed = std::thread::scope(|scope| {
        let _ended_with_the_scope = observation.stops_when_dropped();
        scope.spawn(|| observation.keep(observation.watch_topic(&reader)));
        if with_sink {
            scope.spawn(|| observation.keep(observation.watch_table(&bench.target_url)));
        }
        paces.iter().map(|pace| observation.send(*pace, &writer, with_sink, &mut programs)).collect::<Result<Vec<_>>>()
    })?;
    for program in programs.iter_mut().rev() {
        program.stop()?;
    }
    drop(programs);
    application.remove(bench)?;
    bench.delete_topics_of(&source)?;
    Ok(observed)
}

/// A sink on an empty target.
fn start_sink(bench: &Bench, application: &Application) -> Result<Process> {
    Sql::connect(&bench.target_url)?.execute("DROP SCHEMA IF EXISTS remains CASCADE")?;
    application.start_sink(bench)
}

/// What sender and watchers share.
struct Observation {
    format: Format,
    topic: Sightings,
    table: Sightings,
    sent: AtomicU32,
    stop: AtomicBool,
    failure: std::sync::Mutex<Option<anyhow::Error>>,
}

/// Tells the watchers to end, also when the sender has failed.
struct StopsWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopsWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Observation {
    fn new(events: usize, format: Format) -> Self {
        let now = Instant::now();
        Self {
            format,
            topic: Sightings::new(now, events),
            table: Sightings::new(now, events),
            sent: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            failure: std::sync::Mutex::new(None),
        }
    }

    const fn stops_when_dropped(&self) -> StopsWhenDropped<'_> {
        StopsWhenDropped(&self.stop)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Keeps a watcher's failure for the sender.
    fn keep(&self, outcome: Result<()>) {
        if let (Err(error), Ok(mut failure)) = (outcome, self.failure.lock()) {
            failure.get_or_insert(error);
        }
    }

    fn check(&self) -> Result<()> {
        let failure = self.failure.lock().map_err(|_| anyhow!("a watcher panicked"))?.take();
        failure.map_or(Ok(()), Err)
    }

    fn watch_topic(&self, reader: &Reader) -> Result<()> {
        while !self.stopped() {
            if let Next::Record(_, Some(shown)) = reader.next(|key, value| self.format.decode(key, value))? {
                self.topic.note(shown.good_id, shown.remains)?;
            }
        }
        Ok(())
    }

    fn watch_table(&self, url: &str) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut connection = PgConnection::connect(url).await?;
            let mut awaited = BTreeSet::new();
            let mut next = 1_i64;
            while !self.stopped() {
                let sent = i64::from(self.sent.load(Ordering::Acquire));
                awaited.extend(next..=sent);
                next = next.max(sent + 1);
                let goods: Vec<i64> = awaited.iter().copied().take(MOST_GOODS).collect();
                for (good_id, count) in look(&mut connection, &goods).await? {
                    awaited.remove(&good_id);
                    self.table.note(good_id, i128::from(count))?;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        })
    }

    /// Sends the events of a pace when they are due, and waits until all of them were seen.
    fn send(&self, pace: Pace, writer: &Writer, with_table: bool, programs: &mut [Process]) -> Result<Observed> {
        let first = self.sent.load(Ordering::Relaxed);
        let began = Instant::now();
        let mut sent_late = Duration::ZERO;
        let (mut key, mut value, mut change) = (String::new(), String::new(), Change::default());
        let mut sent = Vec::with_capacity(usize::try_from(pace.events)?);
        for index in 0..pace.events {
            change.good_id = i64::from(first + index) + 1;
            change.pieces = pieces(change.good_id);
            change.id = uuid::Uuid::new_v4();
            change.advance(100, 50);
            write_key(&mut key, change.id);
            write_value(&mut value, &change);
            let due = began + Duration::from_secs(1) * index / pace.per_second;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            let now = Instant::now();
            sent_late = sent_late.max(now - due);
            sent.push(now);
            writer.send(key.as_bytes(), value.as_bytes())?;
            self.sent.store(first + index + 1, Ordering::Release);
        }
        writer.finish()?;
        let (first, wanted) = (usize::try_from(first)?, usize::try_from(first + pace.events)?);
        let deadline = Instant::now() + SEEN_WITHIN;
        while self.topic.seen() < wanted || (with_table && self.table.seen() < wanted) {
            self.check()?;
            programs.iter_mut().try_for_each(Process::check_running)?;
            if Instant::now() > deadline {
                let (topic, table) = (self.topic.seen(), self.table.seen());
                bail!("of {wanted} events {topic} were seen on the topic and {table} in the table");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.check()?;
        let topic = self.topic.latencies(first, &sent)?;
        let target = if with_table { Some(self.table.latencies(first, &sent)?) } else { None };
        Ok(Observed { topic, target, sent_late })
    }
}

/// Which of these goods the target table shows. Nothing while it has no such table yet.
async fn look(connection: &mut PgConnection, goods: &[i64]) -> Result<Vec<(i64, i64)>> {
    let query = sqlx::query_as("SELECT good_id, cnt FROM remains.remains WHERE good_id = ANY($1)").bind(goods);
    match query.fetch_all(connection).await {
        Ok(rows) => Ok(rows),
        Err(error)
            if error
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code)
                .is_some_and(|code| code == "42P01") =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error).context("cannot read the target table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_is_seen_once_and_with_its_sum() {
        let sightings = Sightings::new(Instant::now(), 2);
        assert!(sightings.note(1, 3).unwrap_err().to_string().contains("shows 3"));
        sightings.note(1, i128::from(pieces(1))).unwrap();
        assert!(sightings.note(1, i128::from(pieces(1))).unwrap_err().to_string().contains("twice"));
        assert!(sightings.note(3, i128::from(pieces(3))).is_err());
        assert_eq!(sightings.seen(), 1);
    }

    #[test]
    fn latencies_of_a_pace_begin_at_its_first_event() {
        let since = Instant::now();
        let sightings = Sightings::new(since, 2);
        assert!(sightings.latencies(1, &[since]).is_err());
        sightings.note(2, i128::from(pieces(2))).unwrap();
        assert_eq!(sightings.latencies(1, &[since]).unwrap().len(), 1);
    }
}
