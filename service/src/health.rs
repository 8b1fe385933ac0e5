//! Owns what the program says about itself: does it live, is it ready, how far has its start come.
//!
//! Worker threads hold small handles ([`Heartbeat`], [`Condition`], [`Progress`]) and write; HTTP and the watchdog read.
//! A handle that is dropped takes its entry with it. Nothing here blocks a worker: a beat is one atomic store, the
//! other updates hold a lock for as long as it takes to copy a few words.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The shared state behind all handles; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    started: AtomicBool,
    stopping: AtomicBool,
    next: AtomicU64,
    entries: Mutex<BTreeMap<u64, Entry>>,
}

#[derive(Debug)]
enum Entry {
    Heartbeat { name: String, limit: Duration, last: Arc<AtomicU64> },
    Condition { name: String, down: Option<String> },
    Progress(Step),
}

/// How far one part of the start has come, such as the restore of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What is being done.
    pub name: String,
    /// Units done so far.
    pub done: u64,
    /// Units in all, as far as known.
    pub total: u64,
    /// Whether it is finished.
    pub finished: bool,
}

/// A condition that does not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The condition's name, such as `database`.
    pub condition: String,
    /// Why it does not hold.
    pub reason: String,
}

/// The body of `/live`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Live {
    /// Whether every heartbeat is in time.
    pub live: bool,
    /// The threads that are overdue.
    pub overdue: Vec<String>,
}

/// The body of `/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Whether the program does its work.
    pub ready: bool,
    /// Everything that keeps it from doing so.
    pub reasons: Vec<Reason>,
}

/// The body of `/startup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Startup {
    /// Whether the start is over.
    pub started: bool,
    /// What is, or was, done on the way.
    pub progress: Vec<Step>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// A program that has not started yet.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            next: AtomicU64::new(0),
            entries: Mutex::new(BTreeMap::new()),
        }))
    }

    /// Says that the start is over; `/ready` depends on it.
    pub fn set_started(&self) {
        self.0.started.store(true, Ordering::Relaxed);
    }

    /// Says that the program is draining: no longer ready, still alive.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// Registers a thread that promises to [`Heartbeat::beat`] at least every `limit`.
    pub fn heartbeat(&self, name: impl Into<String>, limit: Duration) -> Heartbeat {
        let last = Arc::new(AtomicU64::new(self.0.now()));
        let id = self.0.insert(Entry::Heartbeat { name: name.into(), limit, last: Arc::clone(&last) });
        Heartbeat { handle: Handle { id, inner: Arc::clone(&self.0) }, last }
    }

    /// Registers a condition of readiness, which does not hold yet because of `reason`.
    pub fn condition(&self, name: impl Into<String>, reason: impl Into<String>) -> Condition {
        let id = self.0.insert(Entry::Condition { name: name.into(), down: Some(reason.into()) });
        Condition(Handle { id, inner: Arc::clone(&self.0) })
    }

    /// Registers a part of the start whose progress `/startup` shows.
    pub fn progress(&self, name: impl Into<String>) -> Progress {
        let id = self.0.insert(Entry::Progress(Step { name: name.into(), done: 0, total: 0, finished: false }));
        Progress(Handle { id, inner: Arc::clone(&self.0) })
    }

    /// The threads whose last beat is older than they promised.
    pub fn overdue(&self) -> Vec<String> {
        let now = self.0.now();
        let mut overdue = Vec::new();
        for entry in self.0.entries().values() {
            if let Entry::Heartbeat { name, limit, last } = entry {
                let silence = Duration::from_millis(now.saturating_sub(last.load(Ordering::Relaxed)));
                if silence > *limit {
                    overdue.push(format!("{name} (silent for {} s)", silence.as_secs()));
                }
            }
        }
        overdue
    }

    /// `/live`: whether every thread beats in time.
    pub fn live(&self) -> (bool, Live) {
        let overdue = self.overdue();
        (overdue.is_empty(), Live { live: overdue.is_empty(), overdue })
    }

    /// `/ready`: started, not stopping, and every condition holds.
    pub fn ready(&self) -> (bool, Ready) {
        let mut reasons = Vec::new();
        let mut add = |condition: &str, reason: &str| {
            reasons.push(Reason { condition: condition.to_owned(), reason: reason.to_owned() });
        };
        if !self.0.started.load(Ordering::Relaxed) {
            add("startup", "not finished, see /startup");
        }
        if self.0.stopping.load(Ordering::Relaxed) {
            add("shutdown", "draining");
        }
        for entry in self.0.entries().values() {
            if let Entry::Condition { name, down: Some(reason) } = entry {
                add(name, reason);
            }
        }
        (reasons.is_empty(), Ready { ready: reasons.is_empty(), reasons })
    }

    /// `/startup`: whether the start is over, and its progress.
    pub fn startup(&self) -> (bool, Startup) {
        let started = self.0.started.load(Ordering::Relaxed);
        let mut progress = Vec::new();
        for entry in self.0.entries().values() {
            if let Entry::Progress(step) = entry {
                progress.push(step.clone());
            }
        }
        (started, Startup { started, progress })
    }
}

impl Inner {
    /// Milliseconds since the start; 584 million years fit.
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn insert(&self, entry: Entry) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.entries().insert(id, entry);
        id
    }

    /// A thread that panicked while it held the lock left nothing half-written: entries are replaced as a whole.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part all handles share: the entry disappears with them.
#[derive(Debug)]
struct Handle {
    id: u64,
    inner: Arc<Inner>,
}

impl Handle {
    fn update(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.inner.entries().get_mut(&self.id) {
            change(entry);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.entries().remove(&self.id);
    }
}

/// A thread's sign of life; `/live` and the watchdog look at it.
#[derive(Debug)]
pub struct Heartbeat {
    handle: Handle,
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Says "still here".
    pub fn beat(&self) {
        self.last.store(self.handle.inner.now(), Ordering::Relaxed);
    }
}

/// A condition of readiness, such as the connection to the database.
#[derive(Debug)]
pub struct Condition(Handle);

impl Condition {
    /// The condition holds.
    pub fn up(&self) {
        self.set(None);
    }

    /// The condition does not hold, because of `reason`.
    pub fn down(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        self.0.update(|entry| {
            if let Entry::Condition { down, .. } = entry {
                *down = reason;
            }
        });
    }
}

/// The progress of one part of the start.
#[derive(Debug)]
pub struct Progress(Handle);

impl Progress {
    /// `done` of `total` units are done.
    pub fn set(&self, done: u64, total: u64) {
        self.change(|step| (step.done, step.total) = (done, total));
    }

    /// This part is finished.
    pub fn finish(&self) {
        self.change(|step| step.finished = true);
    }

    fn change(&self, change: impl FnOnce(&mut Step)) {
        self.0.update(|entry| {
            if let Entry::Progress(step) = entry {
                change(step);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_the_start_and_every_condition() {
        let health = Health::new();
        let database = health.condition("database", "not connected yet");
        assert_eq!(health.ready().1.reasons.len(), 2);
        health.set_started();
        database.up();
        assert!(health.ready().0);
        database.down("connection refused");
        assert_eq!(health.ready().1.reasons[0].reason, "connection refused");
        drop(database);
        assert!(health.ready().0);
        health.set_stopping();
        assert!(!health.ready().0);
    }

    #[test]
    fn a_silent_thread_is_not_live_until_it_beats_or_ends() {
        let health = Health::new();
        let worker = health.heartbeat("worker-0", Duration::ZERO);
        worker.last.store(0, Ordering::Relaxed);
        let origin = health.0.origin;
        while origin.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        assert!(!health.live().0);
        drop(worker);
        assert!(health.live().0);
        let patient = health.heartbeat("worker-1", Duration::from_mins(1));
        patient.beat();
        assert!(health.live().0);
    }

    #[test]
    fn startup_shows_every_step() {
        let health = Health::new();
        let restore = health.progress("restore 3");
        restore.set(5, 10);
        assert_eq!(health.startup().1.progress[0].done, 5);
        restore.finish();
        health.set_started();
        let (started, body) = health.startup();
        assert!(started && body.progress[0].finished);
    }
}
