//! Watches input, output and target while things go wrong, and takes the time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message as _;

use super::super::super::Job;
use super::progress::{Measurement, Offsets, Output, Progress};
use super::table::{Recovered, keep};
use crate::checker::Mark;
use crate::client::{Record, Sql};

/// Pause between two looks at the target: how exact its times are.
const TARGET_INTERVAL: Duration = Duration::from_millis(200);

/// Watches one job until it is dropped.
#[derive(Debug)]
pub(crate) struct Meter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    progress: Progress,
    open: Vec<Measurement>,
    /// What is stopped at the moment by something whose time is not taken yet.
    stopped: Vec<Output>,
    measured: Vec<Recovered>,
}

/// What a record of a topic tells.
#[derive(Debug, Clone, Copy)]
enum Role {
    Input,
    Changelog,
    Movements,
    Deltas,
}

impl Meter {
    /// Begins to watch; the job's topics must exist.
    pub(crate) fn start(job: &Job<'_>) -> Result<Self> {
        let roles = BTreeMap::from([
            (job.source_topic.clone(), Role::Input),
            (job.topic("transactions"), Role::Changelog),
            (job.topic("movements"), Role::Movements),
            (job.topic("deltas"), Role::Deltas),
        ]);
        let consumer = job.kafka.follow("meter-without-group", roles.keys())?;
        let shared = Arc::new(Shared::default());
        let watching = Arc::clone(&shared);
        spawn("meter", move || watching.watch_topics(&consumer, &roles))?;
        if let Ok(target) = job.target() {
            let (target, topic, watching) = (target.clone(), job.topic("deltas"), Arc::clone(&shared));
            spawn("target-meter", move || watching.watch_target(&target, &topic))?;
        }
        Ok(Self { shared })
    }

    /// Takes the time from now until the output has recovered from a fault of this kind.
    pub(crate) fn begin(&self, kind: &'static str, output: Output) {
        let mut state = self.shared.lock();
        let mut measurement = Measurement::begin(kind, output, &state.progress, Instant::now());
        let others = state.open.iter().map(Measurement::output).chain(state.stopped.iter().copied());
        others.for_each(|other| measurement.disturb(other));
        state.open.push(measurement);
    }

    /// Something goes wrong that stops an output, and delays every recovery under way.
    pub(crate) fn disturb(&self, output: Output) {
        self.shared.lock().open.iter_mut().for_each(|measurement| measurement.disturb(output));
    }

    /// Says what is stopped at the moment by faults that are not over: a recovery that begins now is delayed by them.
    pub(crate) fn stopped(&self, outputs: Vec<Output>) {
        self.shared.lock().stopped = outputs;
    }

    /// How many recoveries are still being waited for.
    pub(crate) fn open(&self) -> usize {
        self.shared.lock().open.len()
    }

    /// What was measured; kept in the file that the environment may name.
    pub(crate) fn finish(self) -> Result<Vec<Recovered>> {
        let measured = std::mem::take(&mut self.shared.lock().measured);
        keep(&measured)?;
        Ok(measured)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn spawn(name: &str, watch: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(watch).map(drop).context("cannot start a meter")
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch_topics(&self, consumer: &BaseConsumer, roles: &BTreeMap<String, Role>) {
        while !self.stop.load(Ordering::Relaxed) {
            // Whatever goes wrong while brokers come and go, librdkafka gets over; a meter has nothing to fail.
            let message = consumer.poll(Duration::from_millis(100));
            let mut state = self.lock();
            if let Some(Ok(message)) = &message
                && let Some(role) = roles.get(message.topic())
            {
                state.progress.take(*role, &Record::of(message));
            }
            state.look();
        }
    }

    fn watch_target(&self, target: &Sql, topic: &str) {
        let query = format!("SELECT partition, next_offset FROM remains.progress WHERE topic = '{topic}'");
        while !self.stop.load(Ordering::Relaxed) {
            // Not there yet, or not back yet.
            if let Ok(rows) = target.rows(&query) {
                let mut state = self.lock();
                state.progress.deltas.done = rows.iter().filter_map(|row| offset(row)).collect();
                state.look();
            }
            std::thread::sleep(TARGET_INTERVAL);
        }
    }
}

fn offset(row: &[Option<String>]) -> Option<(i32, i64)> {
    let [Some(partition), Some(offset)] = row else { return None };
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

impl State {
    fn look(&mut self) {
        let (now, progress, measured) = (Instant::now(), &self.progress, &mut self.measured);
        self.open.retain_mut(|measurement| match measurement.look(progress, now) {
            Some(recovered) => {
                measured.push(recovered);
                false
            }
            None => true,
        });
    }
}

impl Progress {
    fn take(&mut self, role: Role, record: &Record) {
        let next = |offsets: &mut Offsets| {
            offsets.insert(record.partition, record.offset + 1);
        };
        let mark = |offsets: &mut Offsets| {
            if let Some(mark) = Mark::of(record) {
                offsets.insert(record.partition, mark.next_offset);
            }
        };
        match role {
            Role::Input => next(&mut self.input.written),
            Role::Changelog => mark(&mut self.input.done),
            Role::Movements => next(&mut self.movements.written),
            Role::Deltas => {
                mark(&mut self.movements.done);
                next(&mut self.deltas.written);
            }
        }
    }
}
