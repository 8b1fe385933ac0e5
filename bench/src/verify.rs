//! Owns the question whether an output is right, and since when: what a read_committed reader is shown, compared with
//! the expected sums record by record.
//!
//! Of this system's output also the promise is checked that each good's versions are 1, 2, 3, … without a gap and that
//! `remains(v) = remains(v - 1) + delta(v)`. The output's cleaner is kept away, or older versions would be missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::tests::client::Kafka;
use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use schemas::{Scale, StockDelta};
use serde::Deserialize;

use crate::events::ExpectedSums;

/// How long an output may stand still before the run has failed.
const STALLED_AFTER: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// What the records of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Stock deltas of this system.
    StockDeltas,
    /// Sums of the Kafka Streams application.
    StreamsSums,
    /// Copies: only their number counts.
    Copies,
}

/// What a record shows of a good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The good.
    pub good_id: i64,
    /// Its sum.
    pub remains: i128,
    /// Of a stock delta: the change it makes, and its version.
    pub step: Option<(i128, u64)>,
}

impl Format {
    /// Reads a record; `None` for one that is not about a good.
    pub fn decode(self, key: &[u8], value: &[u8]) -> Result<Option<Shown>> {
        match self {
            Self::Copies => Ok(None),
            // What the processor keeps about a partition.
            Self::StockDeltas if key.starts_with(b"#") => Ok(None),
            Self::StockDeltas => {
                let StockDelta { good_id, remains, delta, version, .. } = StockDelta::decode(key, value, Scale::WHOLE)?;
                let good_id = good_id.integer().context("a good that is no integer")?;
                Ok(Some(Shown { good_id, remains, step: Some((delta, version)) }))
            }
            Self::StreamsSums => {
                let sum: StreamsSum = serde_json::from_slice(value)?;
                Ok(Some(Shown { good_id: sum.good_id, remains: i128::from(sum.remains), step: None }))
            }
        }
    }
}

#[derive(Deserialize)]
struct StreamsSum {
    good_id: i64,
    remains: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Good {
    remains: i128,
    version: u64,
}

/// Compares an output with what is expected.
#[derive(Debug)]
pub struct Verifier {
    format: Format,
    expected: Arc<ExpectedSums>,
    copies: u64,
    goods: Vec<Good>,
    /// Goods that do not show their sum yet, or copies that are missing.
    wrong: u64,
    records: u64,
}

impl Verifier {
    /// Nothing read yet. `events`: how many copies there must be.
    pub fn new(format: Format, expected: &Arc<ExpectedSums>, events: u64) -> Result<Self> {
        let wrong = if format == Format::Copies { events } else { u64::try_from(expected.goods())? };
        Ok(Self { format, expected: Arc::clone(expected), copies: events, goods: Vec::new(), wrong, records: 0 })
    }

    /// Whether everything is as it must be.
    pub const fn is_right(&self) -> bool {
        self.wrong == 0
    }

    /// Records seen.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Expects something else of the same output from now on, because more events came.
    pub fn expect(&mut self, expected: &Arc<ExpectedSums>) {
        let right = (0_i64..)
            .zip(&self.goods)
            .filter(|(good_id, good)| good.version > 0 && expected.of(*good_id).map(i128::from) == Some(good.remains));
        self.wrong = u64::try_from(expected.goods().saturating_sub(right.count())).unwrap_or(u64::MAX);
        self.expected = Arc::clone(expected);
    }

    /// Takes the next record; fails on one that can never become right.
    pub fn observe(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.format == Format::Copies {
            self.records += 1;
            ensure!(self.records <= self.copies, "more copies than events");
            self.wrong -= 1;
            return Ok(());
        }
        let Some(Shown { good_id, remains, step }) = self.format.decode(key, value)? else { return Ok(()) };
        // Sums of Streams have no versions that could be checked.
        let version = step.map_or(1, |(_, version)| version);
        let before = self.shows(good_id, Good { remains, version })?;
        let Some((delta, _)) = step else { return Ok(()) };
        let previous = before.version;
        ensure!(version == previous + 1, "good {good_id}: version {version} follows version {previous}");
        ensure!(
            before.remains + delta == remains,
            "good {good_id}, version {version}: {} and a delta of {delta} do not make {remains}",
            before.remains
        );
        Ok(())
    }

    /// Gives what the good showed before.
    fn shows(&mut self, good_id: i64, now: Good) -> Result<Good> {
        self.records += 1;
        let Some(expected) = self.expected.of(good_id).map(i128::from) else { bail!("there is no good {good_id}") };
        let index = usize::try_from(good_id)?;
        if self.goods.len() <= index {
            self.goods.resize(index + 1, Good::default());
        }
        let good = self.goods.get_mut(index).context("a good outside its table")?;
        let before = *good;
        *good = now;
        // A good that was not seen yet shows nothing, which is not the same as a sum of 0.
        let was_right = before.version > 0 && before.remains == expected;
        match (was_right, now.remains == expected) {
            (false, true) => self.wrong -= 1,
            (true, false) => self.wrong += 1,
            _ => {}
        }
        Ok(before)
    }
}

/// When an output was seen, and when it was right.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The first record.
    pub first: Instant,
    /// The record that made everything right.
    pub right: Instant,
    /// Records read.
    pub records: u64,
}

/// A read_committed reader of all partitions of a topic.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
    /// Partitions of which more may follow what was read; an end is told once, so it is remembered.
    unfinished: BTreeSet<i32>,
}

impl Reader {
    /// Reads everything from the first record on, in large batches.
    pub fn from_beginning(kafka: &Kafka, topic: &str) -> Result<Self> {
        let properties = [("fetch.message.max.bytes", "4194304"), ("queued.max.messages.kbytes", "65536")];
        Self::new(kafka, topic, Offset::Beginning, &properties)
    }

    /// Reads what is written from now on, each record as soon as it is visible.
    pub fn from_end(kafka: &Kafka, topic: &str) -> Result<Self> {
        // So low that a queue never fills with what nobody waits for.
        let properties = [("fetch.wait.max.ms", "500"), ("fetch.min.bytes", "1"), ("queued.min.messages", "1000")];
        Self::new(kafka, topic, Offset::End, &properties)
    }

    fn new(kafka: &Kafka, topic: &str, offset: Offset, properties: &[(&str, &str)]) -> Result<Self> {
        let mut config = kafka.config();
        config
            .set("group.id", "bench-reader")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.queue.backoff.ms", "20");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let consumer: BaseConsumer = config.create().context("cannot create a reader")?;
        let partitions = kafka.partitions(topic)?;
        let mut assignment = TopicPartitionList::with_capacity(partitions.len());
        for partition in &partitions {
            let offset = match offset {
                // Found now, not when the first fetch is answered.
                Offset::End => Offset::Offset(kafka.watermarks(topic, *partition)?.1),
                offset => offset,
            };
            assignment.add_partition_offset(topic, *partition, offset)?;
        }
        consumer.assign(&assignment)?;
        Ok(Self { consumer, topic: topic.to_owned(), unfinished: partitions.into_iter().collect() })
    }

    /// The next thing there is, within 100 ms: a record for `take`, which gets key and value, or the end of a partition.
    pub fn next<T>(&self, take: impl FnOnce(&[u8], &[u8]) -> Result<T>) -> Result<Next<T>> {
        match self.consumer.poll(POLL) {
            None => Ok(Next::Nothing),
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Next::End(partition)),
            Some(Err(error)) => Err(error).with_context(|| format!("cannot read {}", self.topic)),
            Some(Ok(message)) => {
                let taken = take(message.key().unwrap_or_default(), message.payload().unwrap_or_default())?;
                Ok(Next::Record(message.partition(), taken))
            }
        }
    }

    /// Reads until everything is right and nothing follows. `still_running` is asked while nothing comes.
    pub fn follow(&mut self, verifier: &mut Verifier, mut still_running: impl FnMut() -> Result<()>) -> Result<Seen> {
        let (mut first, mut right) = (None, None);
        let mut progress = Instant::now();
        loop {
            match self.next(|key, value| verifier.observe(key, value))? {
                Next::Record(partition, ()) => {
                    if first.is_none()
                        || right.is_some() != verifier.is_right()
                        || verifier.records().is_multiple_of(1_024)
                    {
                        progress = Instant::now();
                    }
                    first.get_or_insert(progress);
                    right = verifier.is_right().then(|| right.unwrap_or(progress));
                    self.unfinished.insert(partition);
                }
                Next::End(partition) => {
                    self.unfinished.remove(&partition);
                }
                Next::Nothing => still_running()?,
            }
            if let (Some(first), Some(right), true) = (first, right, self.unfinished.is_empty()) {
                return Ok(Seen { first, right, records: verifier.records() });
            }
            if progress.elapsed() > STALLED_AFTER {
                let (records, wrong) = (verifier.records(), verifier.wrong);
                bail!("{} stands still after {records} records; {wrong} are wrong or missing", self.topic);
            }
        }
    }
}

/// What a reader met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<T> {
    /// A record of this partition, and what was made of it.
    Record(i32, T),
    /// The end of this partition, for now.
    End(i32),
    /// Nothing new.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Arc<ExpectedSums> {
        let mut expected = ExpectedSums::default();
        expected.add(1, 5);
        expected.add(2, 0);
        Arc::new(expected)
    }

    fn delta(good_id: i64, delta: i128, remains: i128, version: u64) -> (Vec<u8>, Vec<u8>) {
        let record = StockDelta { good_id: good_id.into(), delta, remains, transactions: 1, version, epoch: 1 };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        record.encode_key(&mut key);
        record.encode(Scale::WHOLE, &mut value);
        (key, value)
    }

    fn observed(records: &[(Vec<u8>, Vec<u8>)]) -> Result<bool> {
        let expected = expected();
        let mut verifier = Verifier::new(Format::StockDeltas, &expected, 0)?;
        for (key, value) in records {
            verifier.observe(key, value)?;
        }
        Ok(verifier.is_right())
    }

    #[test]
    fn right_is_when_every_good_shows_its_sum_also_one_of_zero() {
        assert!(!observed(&[delta(1, 5, 5, 1)]).unwrap());
        assert!(observed(&[delta(1, 5, 5, 1), delta(2, 0, 0, 1)]).unwrap());
        assert!(!observed(&[delta(1, 5, 5, 1), delta(2, 0, 0, 1), delta(1, 1, 6, 2)]).unwrap());
        let back = [delta(1, 5, 5, 1), delta(2, 0, 0, 1), delta(1, 1, 6, 2), delta(1, -1, 5, 3)];
        assert!(observed(&back).unwrap());
    }

    #[test]
    fn a_gap_a_repeat_and_a_sum_that_does_not_add_up_fail_the_run() {
        assert!(observed(&[delta(1, 5, 5, 2)]).unwrap_err().to_string().contains("version 2 follows version 0"));
        assert!(observed(&[delta(1, 5, 5, 1), delta(1, 5, 10, 1)]).is_err());
        let error = observed(&[delta(1, 3, 3, 1), delta(1, 3, 5, 2)]).unwrap_err().to_string();
        assert!(error.contains("do not make 5"), "{error}");
    }

    #[test]
    fn a_good_that_does_not_exist_fails_the_run() {
        assert!(observed(&[delta(7, 5, 5, 1)]).is_err());
    }

    #[test]
    fn records_about_partitions_are_no_goods() {
        assert!(!observed(&[(b"#partition".to_vec(), b"{}".to_vec())]).unwrap());
    }

    #[test]
    fn of_streams_only_sums_count() {
        let expected = expected();
        let mut verifier = Verifier::new(Format::StreamsSums, &expected, 0).unwrap();
        for value in [r#"{"good_id":2,"remains":0}"#, r#"{"good_id":1,"remains":7}"#] {
            verifier.observe(b"", value.as_bytes()).unwrap();
            assert!(!verifier.is_right());
        }
        verifier.observe(b"", br#"{"good_id":1,"remains":5,"version":2,"delta":-2}"#).unwrap();
        assert!(verifier.is_right());
    }

    #[test]
    fn more_events_make_wrong_what_was_right() {
        let (first, mut second) = (expected(), expected());
        let sums = Arc::make_mut(&mut second);
        sums.add(1, 1);
        sums.add(3, 4);
        let mut verifier = Verifier::new(Format::StockDeltas, &first, 0).unwrap();
        for (key, value) in [delta(1, 5, 5, 1), delta(2, 0, 0, 1)] {
            verifier.observe(&key, &value).unwrap();
        }
        verifier.expect(&second);
        for (key, value) in [delta(1, 1, 6, 2), delta(3, 4, 4, 1)] {
            assert!(!verifier.is_right());
            verifier.observe(&key, &value).unwrap();
        }
        assert!(verifier.is_right());
    }

    #[test]
    fn copies_are_counted() {
        let expected = expected();
        let mut verifier = Verifier::new(Format::Copies, &expected, 2).unwrap();
        verifier.observe(b"", b"x").unwrap();
        assert!(!verifier.is_right());
        verifier.observe(b"", b"x").unwrap();
        assert!(verifier.is_right());
        assert!(verifier.observe(b"", b"x").is_err());
    }
}
