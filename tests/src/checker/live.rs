//! A `read_committed` reader that runs while things go wrong, and remembers what it was given.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message as _;

use super::facts::LiveRead;
use crate::client::{Kafka, Record, is_passing};
use crate::stack::wait_until;

/// Reads topics from their beginning in a thread of its own, until it is finished or dropped.
#[derive(Debug)]
pub struct LiveReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    count: AtomicUsize,
    received: Mutex<BTreeMap<String, Vec<Record>>>,
}

impl LiveReader {
    /// Begins to read; the topics must exist.
    pub fn start(kafka: &Kafka, topics: &[String]) -> Result<Self> {
        let consumer = kafka.follow("live-reader-without-group", topics)?;
        let shared = Arc::new(Shared::default());
        for topic in topics {
            shared.lock().insert(topic.clone(), Vec::new());
        }
        let reading = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("live-reader".into())
            .spawn(move || reading.read(&consumer))
            .context("cannot start a reader")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many records of all topics came so far.
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Fails once reading has ended: what is waited for would never be counted.
    pub fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            None => Ok(()),
            Some(ended) => joined(ended),
        }
    }

    /// Reads on until the given last offset of each topic and partition was received, or no more comes in time, and
    /// returns what was received.
    pub fn finish(mut self, last: &BTreeMap<(String, i32), i64>) -> Result<Vec<LiveRead>> {
        // Giving up is no error here: what never came is for the checker to name.
        let _ = wait_until("the live reader", || {
            let received = self.shared.lock();
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            Ok(ended || last.iter().all(|((topic, partition), offset)| has(&received, topic, *partition, *offset)))
        });
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), joined)?;
        let received = std::mem::take(&mut *self.shared.lock());
        Ok(received.into_iter().map(|(topic, records)| LiveRead { topic, records }).collect())
    }
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("the live reader panicked"))?
}

fn has(received: &BTreeMap<String, Vec<Record>>, topic: &str, partition: i32, offset: i64) -> bool {
    received.get(topic).is_none_or(|records| {
        records.iter().rev().find(|record| record.partition == partition).is_some_and(|record| record.offset >= offset)
    })
}

impl Drop for LiveReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Record>>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, consumer: &BaseConsumer) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    self.lock().entry(message.topic().to_owned()).or_default().push(Record::of(&message));
                    self.count.fetch_add(1, Ordering::Relaxed);
                }
                Some(Err(error)) if !is_passing(&error) => return Err(error).context("the live reader cannot go on"),
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }
}
