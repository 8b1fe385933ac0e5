//! Fetches what the checker judges. Decides nothing.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::facts::{Contribution, Facts, LogEnds, TargetRow, Topic};
use super::live::LiveReader;
use super::records::contributions;
use crate::client::{Isolation, Kafka, Sql, units};
use crate::stack::wait_for_within;

/// Which job is looked at, and what is known about it besides Kafka.
#[derive(Debug)]
pub struct Collector<'a> {
    kafka: &'a Kafka,
    source_topic: String,
    topic_prefix: String,
    application_id: String,
    compacted: bool,
    scale: u32,
}

impl<'a> Collector<'a> {
    /// A job by its input topic, the prefix of its own topics, and its consumer group.
    pub fn new(kafka: &'a Kafka, source_topic: &str, topic_prefix: &str, application_id: &str) -> Self {
        Self {
            kafka,
            source_topic: source_topic.to_owned(),
            topic_prefix: topic_prefix.to_owned(),
            application_id: application_id.to_owned(),
            compacted: false,
            scale: 0,
        }
    }

    /// Says that compaction may have removed records of changelog and stock deltas.
    #[must_use]
    pub fn compacted(mut self, compacted: bool) -> Self {
        self.compacted = compacted;
        self
    }

    /// Says how many digits quantities have behind the point.
    #[must_use]
    pub fn scale(mut self, scale: u32) -> Self {
        self.scale = scale;
        self
    }

    fn own(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.topic_prefix)
    }

    /// Names of all topics that are looked at, input first.
    pub fn topics(&self) -> [String; 5] {
        let [changelog, movements, deltas, dead_letters] = self.own_topics();
        [self.source_topic.clone(), changelog, movements, deltas, dead_letters]
    }

    /// Names of the topics that the processor writes.
    pub fn own_topics(&self) -> [String; 4] {
        ["transactions", "movements", "deltas", "dead-letters"].map(|suffix| self.own(suffix))
    }

    /// Waits until no transaction is open in any topic: an orphaned one ends when it times out. Says whether it came so.
    pub fn wait_settled(&self, timeout: Duration) -> Result<bool> {
        let settled = wait_for_within("all transactions to end", timeout, || {
            for topic in self.topics() {
                let ends = self.ends(&topic)?;
                if ends.values().any(|ends| ends.last_stable < ends.high_watermark) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        });
        // What is open after the time is a finding of the check, not a failure of the collecting.
        Ok(settled.is_ok())
    }

    /// Reads everything of Kafka, and what a live reader received, up to the present ends.
    pub fn collect(&self, live: Option<LiveReader>) -> Result<Facts> {
        let [input, changelog, movements, deltas, dead_letters] = self.topics();
        let mut facts = Facts {
            scale: self.scale,
            input: self.topic(&input, false)?,
            changelog: self.topic(&changelog, self.compacted)?,
            movements: self.topic(&movements, false)?,
            deltas: self.topic(&deltas, self.compacted)?,
            dead_letters: self.topic(&dead_letters, false)?,
            input_offsets: self.kafka.group_offsets(&self.application_id, &input)?,
            movement_offsets: self.kafka.group_offsets(&self.application_id, &movements)?,
            ..Facts::default()
        };
        if let Some(live) = live {
            facts.live = live.finish(&last_offsets(&facts))?;
        }
        Ok(facts)
    }

    fn topic(&self, name: &str, compacted: bool) -> Result<Topic> {
        // In this order, so that what is purged meanwhile lies before the start that is taken down last.
        let committed = self.kafka.read(name, Isolation::ReadCommitted)?;
        let uncommitted = self.kafka.read(name, Isolation::ReadUncommitted)?;
        Ok(Topic { name: name.to_owned(), committed, uncommitted, ends: self.ends(name)?, compacted })
    }

    fn ends(&self, topic: &str) -> Result<BTreeMap<i32, LogEnds>> {
        let ends = self.kafka.log_ends(topic)?.into_iter();
        Ok(ends
            .map(|(partition, (start, last_stable, high_watermark))| {
                (partition, LogEnds { start, last_stable, high_watermark })
            })
            .collect())
    }
}

fn last_offsets(facts: &Facts) -> BTreeMap<(String, i32), i64> {
    let mut last = BTreeMap::new();
    for topic in facts.topics() {
        for record in &topic.committed {
            last.insert((topic.name.clone(), record.partition), record.offset);
        }
    }
    last
}

impl Facts {
    /// Adds the target's rows.
    pub fn read_target(&mut self, target: &Sql) -> Result<()> {
        let rows = target.rows("SELECT good_id, cnt, epoch, version FROM remains.remains")?;
        let rows = rows.into_iter().map(|row| {
            let mut columns = row.into_iter().map(|value| value.context("unexpected NULL"));
            let mut next = || columns.next().context("a column is missing")?;
            let good = next()?.parse()?;
            Ok((good, TargetRow { cnt: units(&next()?)?, epoch: next()?.parse()?, version: next()?.parse()? }))
        });
        self.target = Some(rows.collect::<Result<_>>()?);
        Ok(())
    }

    /// Adds the live rows of the source table.
    pub fn read_source(&mut self, source: &Sql) -> Result<()> {
        let rows = source
            .rows("SELECT id, good_id, CASE operation WHEN 'add' THEN pcs ELSE -pcs END FROM orders.transactions")?;
        let rows = rows.into_iter().map(|row| {
            let mut columns = row.into_iter().map(|value| value.context("unexpected NULL"));
            let mut next = || columns.next().context("a column is missing")?;
            Ok((next()?, Contribution { good: next()?.parse()?, pieces: units(&next()?)?.try_into()? }))
        });
        self.rows = Some(rows.collect::<Result<_>>()?);
        Ok(())
    }
}

/// Reads a workload's own log: one JSON object a line, in order of commit. `{"id":…,"good_id":…,"operation":…,"pcs":…}` is
/// a row as it was written, `{"id":…,"deleted":true}` the end of one; the last line of an id counts. Pieces have at most
/// `scale` digits behind the point.
pub fn read_row_log(log: impl BufRead, scale: u32) -> Result<BTreeMap<String, Contribution>> {
    let mut rows = BTreeMap::new();
    for (number, line) in (1_usize..).zip(log.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let context = || format!("line {number} of the rows: {line}");
        let row: Value = serde_json::from_str(&line).with_context(context)?;
        let id = row.get("id").and_then(Value::as_str).with_context(context)?.to_ascii_lowercase();
        if row.get("deleted").and_then(Value::as_bool) == Some(true) {
            rows.remove(&id);
        } else {
            rows.insert(id, contributions(&row, scale).first().copied().with_context(context)?);
        }
    }
    Ok(rows)
}
