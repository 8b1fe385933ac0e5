//! A source database and its connector, by seeded choice: what they would write to the input topic.
//!
//! Follows what was seen on real servers: lsns in order of changes, records in order of commits, transactions
//! that straddle a snapshot, a connector that stops, sends again, loses its offsets and snapshots again, rows
//! deleted while nobody was looking, keys that change, tombstones after deletes, late batches of an older
//! connector. Knows the truth: the rows that live.

use std::collections::{BTreeMap, BTreeSet};

use processor_engine::{TopicIndex, TopicPartition};
use processor_simulation::Random;
use processor_simulation::broker::Broker;
use schemas::debezium::{Columns, Names, PiecesType};
use schemas::{GoodId, GoodType, IdType, Scale};
use uuid::Uuid;

/// This row always lives, so that every snapshot has an end (an empty table leaves no trace on the topic).
const ANCHOR: u8 = 0;
const ROWS: usize = 10;
const GOODS: usize = 4;

/// Good and signed pieces.
pub(crate) type Content = (i64, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SnapshotPart,
    SnapshotLast,
    Streamed,
    Incremental,
}

#[derive(Debug, Clone)]
struct Change {
    row: u8,
    content: Option<Content>,
    kind: Kind,
    lsn: u64,
    commit_lsn: Option<u64>,
    ts_ms: u64,
    /// The good is large and was left as it was: the connector does not get to see it.
    unavailable: bool,
}

/// The source, its connector, and the rows that live.
#[derive(Debug)]
pub(crate) struct History {
    source: TopicIndex,
    partitions: u8,
    good_type: GoodType,
    id_type: IdType,
    /// Pieces are units of it.
    pub(crate) scale: Scale,
    clock: u64,
    /// The rows as committed.
    pub(crate) truth: BTreeMap<u8, Content>,
    open: Vec<Change>,
    locked: BTreeSet<u8>,
    /// Committed and not sent: the connector is down.
    waiting: Vec<Change>,
    down: bool,
    sent: Vec<Change>,
    last_commit: Option<u64>,
    snapshot_complete: bool,
    snapshot_records: Vec<Change>,
    older_snapshot_records: Vec<Change>,
    older_sent: Vec<Change>,
    /// Something was lost since the last complete snapshot: only another one can tell.
    unproven: bool,
    steps: usize,
}

impl History {
    /// A history of `steps` things that happen, over an input of `partitions` partitions.
    pub(crate) fn new(
        source: TopicIndex,
        partitions: u8,
        steps: usize,
        good_type: GoodType,
        id_type: IdType,
        scale: Scale,
    ) -> Self {
        Self {
            source,
            partitions,
            good_type,
            id_type,
            scale,
            clock: 0,
            truth: BTreeMap::from([(ANCHOR, (9, 1))]),
            open: Vec::new(),
            locked: BTreeSet::new(),
            waiting: Vec::new(),
            down: true,
            sent: Vec::new(),
            last_commit: None,
            snapshot_complete: false,
            snapshot_records: Vec::new(),
            older_snapshot_records: Vec::new(),
            older_sent: Vec::new(),
            unproven: true,
            steps,
        }
    }

    /// The columns of the table.
    pub(crate) fn columns(&self) -> Columns {
        let names = match self.id_type {
            IdType::Uuid => Names::default(),
            IdType::Key => {
                let id = ["shop", "line"].map(str::to_owned).to_vec();
                Names { id, id_type: self.id_type, ..Names::default() }
            }
        };
        let columns = Columns::new(names).unwrap().with_goods(self.good_type);
        columns.with_pieces(PiecesType::Number, self.scale)
    }

    /// The columns of a row's id, as JSON.
    fn id(&self, row: u8) -> String {
        match self.id_type {
            IdType::Uuid => format!(r#""id":"{}""#, Uuid::from_u128(u128::from(row))),
            IdType::Key => format!(r#""shop":{},"line":"A-{row}""#, row % 3),
        }
    }

    /// A good of the rows, of the type that goods have in this history.
    pub(crate) fn good(&self, number: i64) -> GoodId {
        match self.good_type {
            GoodType::Integer => number.into(),
            GoodType::Text => GoodId::from_text(&format!("good {number}")).unwrap(),
        }
    }

    /// The good of a change, as JSON: numbers and plain texts are displayed so.
    fn good_of(&self, change: &Change) -> String {
        if change.unavailable {
            return format!("\"{}\"", schemas::debezium::UNAVAILABLE);
        }
        change.content.map_or_else(String::new, |(good, _)| self.good(good).to_string())
    }

    /// Lets one more thing happen; `false` when the last has, and the topic tells the whole truth.
    pub(crate) fn go_on(&mut self, broker: &mut Broker, random: &mut Random) -> bool {
        match self.steps {
            0 => return false,
            1 => self.finish(broker),
            _ => self.happen(broker, random),
        }
        self.steps -= 1;
        self.steps > 0
    }

    fn finish(&mut self, broker: &mut Broker) {
        self.commit_open(broker);
        if self.unproven || self.down {
            self.snapshot(broker, true);
        }
    }

    fn happen(&mut self, broker: &mut Broker, random: &mut Random) {
        match random.below(20) {
            0..=6 => {
                let changes = self.any_change(random);
                self.commit(broker, changes);
            }
            7..=9 => {
                let changes = self.any_change(random);
                self.locked.extend(changes.iter().map(|change| change.row));
                self.open.extend(changes);
            }
            10 | 11 => self.commit_open(broker),
            12 => self.down = true,
            13 | 14 => self.restart(broker, random.below(6)),
            15 | 16 => self.snapshot(broker, random.chance(6_000)),
            17 => self.incremental(broker),
            18 => self.late(broker, random),
            _ => self.retry(broker, random),
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 10;
        self.clock
    }

    /// An insert, an update, a delete, or a changed key (a delete and an insert of one lsn).
    fn any_change(&mut self, random: &mut Random) -> Vec<Change> {
        let row = |random: &mut Random| u8::try_from(1 + random.below(ROWS)).unwrap();
        let content = |random: &mut Random| (i64::try_from(random.below(GOODS)).unwrap(), random.between(-20, 20));
        let (first, lsn) = (row(random), self.tick());
        if random.chance(1_500) {
            let second = row(random);
            let free = first != second && !self.locked.contains(&first) && !self.locked.contains(&second);
            if free && self.truth.contains_key(&first) && !self.truth.contains_key(&second) {
                let content = self.truth[&first];
                return vec![streamed(first, None, lsn), streamed(second, Some(content), lsn)];
            }
        }
        let content = random.chance(7_000).then(|| content(random));
        let possible = content.is_some() || self.truth.contains_key(&first);
        if self.locked.contains(&first) || !possible { Vec::new() } else { vec![streamed(first, content, lsn)] }
    }

    fn commit_open(&mut self, broker: &mut Broker) {
        self.locked.clear();
        let open = std::mem::take(&mut self.open);
        self.commit(broker, open);
    }

    fn commit(&mut self, broker: &mut Broker, changes: Vec<Change>) {
        let commit_lsn = self.tick();
        for mut change in changes {
            change.ts_ms = commit_lsn;
            if let (Some((good, _)), Some((before, _))) = (change.content, self.truth.get(&change.row)) {
                change.unavailable =
                    self.good_type == GoodType::Text && good == *before && !commit_lsn.is_multiple_of(3);
            }
            match change.content {
                Some(content) => _ = self.truth.insert(change.row, content),
                None => _ = self.truth.remove(&change.row),
            }
            self.waiting.push(change);
        }
        if !self.down {
            self.send_waiting(broker, commit_lsn);
        }
    }

    fn send_waiting(&mut self, broker: &mut Broker, commit_lsn: u64) {
        for mut change in std::mem::take(&mut self.waiting) {
            change.commit_lsn = self.last_commit;
            self.append(broker, &change);
            self.sent.push(change);
        }
        self.last_commit = Some(commit_lsn);
    }

    /// The connector starts again from its stored offset and sends some of what it has sent already.
    fn restart(&mut self, broker: &mut Broker, again: usize) {
        if !self.down || !self.snapshot_complete {
            return;
        }
        self.down = false;
        for change in &self.sent[self.sent.len().saturating_sub(again)..] {
            self.append(broker, change);
        }
        let now = self.clock;
        self.send_waiting(broker, now);
    }

    /// The connector starts without offsets. A snapshot that is cut short is never streamed from.
    fn snapshot(&mut self, broker: &mut Broker, complete: bool) {
        let lsn = self.tick();
        self.unproven |= !self.waiting.is_empty() || !complete;
        self.unproven &= !complete;
        self.waiting.clear();
        self.down = !complete;
        self.snapshot_complete = complete;
        self.last_commit = None;
        self.older_sent = std::mem::take(&mut self.sent);
        let kind = Kind::SnapshotPart;
        let record = |(row, content): (&u8, &Content)| Change {
            row: *row,
            content: Some(*content),
            kind,
            lsn,
            commit_lsn: None,
            ts_ms: lsn,
            unavailable: false,
        };
        let mut records: Vec<Change> = self.truth.iter().map(record).collect();
        if complete {
            records.last_mut().unwrap().kind = Kind::SnapshotLast;
        } else {
            records.truncate(records.len() / 2);
        }
        for change in &records {
            self.append(broker, change);
        }
        self.older_snapshot_records = std::mem::replace(&mut self.snapshot_records, records);
    }

    fn incremental(&mut self, broker: &mut Broker) {
        if self.down {
            return;
        }
        let (ts_ms, commit_lsn) = (self.tick(), self.last_commit);
        for (row, content) in self.truth.clone() {
            let kind = Kind::Incremental;
            self.append(
                broker,
                &Change { row, content: Some(content), kind, lsn: 0, commit_lsn, ts_ms, unavailable: false },
            );
        }
    }

    /// Records of an older connector arrive late.
    fn late(&mut self, broker: &mut Broker, random: &mut Random) {
        let count = 1 + random.below(3);
        let late: Vec<Change> = if random.chance(5_000) {
            self.older_snapshot_records.iter().take(count).cloned().collect()
        } else {
            self.older_sent.iter().filter(|change| change.commit_lsn.is_some()).take(count).cloned().collect()
        };
        for change in late {
            self.append(broker, &change);
        }
    }

    /// The connector's last requests were answered too late, so it sends them again, in order.
    fn retry(&mut self, broker: &mut Broker, random: &mut Random) {
        let count = 1 + random.below(4);
        let sent = if self.sent.is_empty() { &self.snapshot_records } else { &self.sent };
        for change in &sent[sent.len().saturating_sub(count)..] {
            self.append(broker, change);
        }
    }

    fn append(&self, broker: &mut Broker, change: &Change) {
        let partition = i32::from(change.row % self.partitions);
        let target = TopicPartition { topic: self.source, partition };
        let id = self.id(change.row);
        let key = format!("{{{id}}}").into_bytes();
        let value = value(change, &id, &self.good_of(change), self.scale);
        broker.append(target, Some(&key), Some(value.as_bytes())).unwrap();
        if change.content.is_none() {
            broker.append(target, Some(&key), None).unwrap();
        }
    }
}

fn streamed(row: u8, content: Option<Content>, lsn: u64) -> Change {
    Change { row, content, kind: Kind::Streamed, lsn, commit_lsn: None, ts_ms: 0, unavailable: false }
}

fn value(change: &Change, id: &str, good: &str, scale: Scale) -> String {
    let after = change.content.map_or_else(
        || "null".to_owned(),
        |(_, pieces)| {
            let operation = if pieces < 0 { "remove" } else { "add" };
            let pieces = scale.text(pieces.unsigned_abs().into());
            format!(
                r#"{{{id},"good_id":{good},"operation":"{operation}","pcs":{pieces},"created_at":"2026-11-22T09:00:00Z"}}"#
            )
        },
    );
    let (op, snapshot) = match (change.kind, change.content) {
        (Kind::SnapshotPart, _) => ("r", "true"),
        (Kind::SnapshotLast, _) => ("r", "last"),
        (Kind::Incremental, _) => ("r", "incremental"),
        (Kind::Streamed, Some(_)) => ("u", "false"),
        (Kind::Streamed, None) => ("d", "false"),
    };
    let commit = change.commit_lsn.map_or_else(|| "null".to_owned(), |lsn| format!(r#"\"{lsn}\""#));
    let (lsn, position) = match change.kind {
        Kind::Incremental => ("null".to_owned(), commit.clone()),
        _ => (change.lsn.to_string(), format!(r#"\"{}\""#, change.lsn)),
    };
    let ts_ms = change.ts_ms;
    format!(
        r#"{{"before":null,"after":{after},"source":{{"ts_ms":{ts_ms},"snapshot":"{snapshot}","sequence":"[{commit},{position}]","lsn":{lsn}}},"op":"{op}","ts_ms":{ts_ms}}}"#
    )
}
