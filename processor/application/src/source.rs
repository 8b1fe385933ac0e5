//! The first step: a change event against the state of its id.
//!
//! Owns decoding, the key-encoding check, the state change and its changelog record, and the dead letters. What the
//! event means is `processor-core`'s decision. Guards invariant 7: every record of the input is applied, recognised,
//! or put aside byte for byte with its reason.

use processor_core::partition::KeyEncodingCheck;
use processor_core::{Outcome, Partition, Row, SnapshotComplete, rule};
use processor_engine::cluster::{NewRecord, Record};
use processor_engine::transaction::StateChange;
use processor_engine::{Changes, Failure, StatePartition, TopicPartition, Transaction};
use schemas::debezium::{self, RowChange};
use schemas::{ChangelogKey, Control, DecodeError, GoodType, Rejection, RowId, Scale, dead_letter};

use crate::application::StockApplication;
use crate::errors::{damaged, key_encoding_changed, schema_missing};
use crate::observer::{ApplicationObserver, Event, Pending};
use crate::partitions::PARTITION_STORE_KEY;
use crate::wiring::{RecordFormat, SOURCE, Settings, Wiring};

/// Buffers used again for every record.
#[derive(Debug)]
pub(crate) struct Buffers {
    format: RecordFormat,
    good_type: GoodType,
    scale: Scale,
    stored: Vec<u8>,
    row: Vec<u8>,
    key: Vec<u8>,
    json: Vec<u8>,
}

impl Buffers {
    /// Empty ones, for changelog records as the settings want them.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            format: settings.changelog,
            good_type: settings.good_type(),
            scale: settings.pieces_scale(),
            stored: Vec::new(),
            row: Vec::new(),
            key: Vec::new(),
            json: Vec::new(),
        }
    }

    /// Notes what a record of the changelog changes in the store.
    pub(crate) fn restore_row(&mut self, record: &Record<'_>, changes: &mut Changes) -> Result<(), DecodeError> {
        match ChangelogKey::decode(record.key.unwrap_or_default())? {
            ChangelogKey::Partition => {
                // Read once, so that a newer format stops the restore and not a later transaction.
                record.value.map(Partition::decode).transpose()?;
                changes.insert(PARTITION_STORE_KEY, record.value);
            }
            ChangelogKey::Transaction(id) => {
                let row = record.value.map(|value| Row::decode_changelog(value, self.scale)).transpose()?;
                let value = row.map(|row| {
                    self.row.clear();
                    row.encode(&mut self.row);
                    self.row.as_slice()
                });
                changes.insert(id.as_bytes(), value);
            }
        }
        Ok(())
    }

    /// Reads the row of an id as the open transaction sees it.
    pub(crate) fn row(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        id: &RowId,
    ) -> Result<Option<Row>, Failure> {
        if !transaction.get(partition, id.as_bytes(), &mut self.stored)? {
            return Ok(None);
        }
        Row::decode(&self.stored).map(Some).map_err(|error| damaged(partition, error))
    }

    /// Stores a row, or removes it.
    pub(crate) fn put_row(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        id: &RowId,
        row: Option<&Row>,
    ) -> Result<(), Failure> {
        let Self { row: value, key, json, format, good_type, scale, .. } = self;
        value.clear();
        key.clear();
        json.clear();
        id.encode(key);
        if let Some(row) = row {
            row.encode(value);
            match format {
                RecordFormat::Json => row.encode_changelog(*scale, json),
                RecordFormat::Avro { schema_id } => row.encode_changelog_avro(*good_type, *scale, *schema_id, json),
            }
        }
        transaction.put(
            partition,
            &StateChange {
                key: id.as_bytes(),
                value: row.map(|_| value.as_slice()),
                changelog_key: key,
                changelog_value: row.map(|_| json.as_slice()),
            },
        )
    }
}

impl<O: ApplicationObserver> StockApplication<O> {
    /// Processes one change event.
    pub(crate) fn change_event(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        record: &Record<'_>,
    ) -> Result<(), Failure> {
        let decoded = if may_be_registered(record.value) || may_be_registered(record.key) {
            self.decode_registered(record)?
        } else {
            self.settings.decoder.decode(record.key, record.value)
        };
        if let Some(key) = &decoded.key {
            self.check_key(record, key.encoding)?;
        }
        let change = match decoded.change {
            Ok(change) => change.into_row(),
            Err(rejection) => Some(Err(rejection)),
        };
        match change {
            None => {
                self.counts.tombstones += 1;
                Ok(())
            }
            Some(Err(rejection)) => {
                if let Some(key) = decoded.key {
                    self.mark_outdated(transaction, partition, &key.id)?;
                }
                self.dead_letter(transaction, record, &rejection)
            }
            Some(Ok(change)) => self.row_change(transaction, partition, record, &change),
        }
    }

    /// Notes that a row may not be any more what is stored of it: an event about it cannot be read.
    fn mark_outdated(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        id: &RowId,
    ) -> Result<(), Failure> {
        match self.buffers.row(transaction, partition, id)? {
            Some(row) if row.content.is_some() && !row.outdated => {
                self.buffers.put_row(transaction, partition, id, Some(&Row { outdated: true, ..row }))
            }
            _ => Ok(()),
        }
    }

    /// Reads a change event whose key or value is in a registry's wire format.
    #[cold]
    fn decode_registered(&mut self, record: &Record<'_>) -> Result<debezium::Record, Failure> {
        let Self { registry, settings, .. } = self;
        settings.decoder.decode_registered(record.key, record.value, |id| {
            registry.schema(id).map_err(|missing| schema_missing(&settings.source_topic, record, id, missing))
        })
    }

    fn check_key(&mut self, record: &Record<'_>, found: debezium::KeyEncoding) -> Result<(), Failure> {
        match self.partitions.change(record.source.partition)?.check_key_encoding(found) {
            KeyEncodingCheck::Same | KeyEncodingCheck::First => Ok(()),
            KeyEncodingCheck::Changed { known } => {
                Err(key_encoding_changed(&self.settings.source_topic, record, known, found))
            }
        }
    }

    fn row_change(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: StatePartition,
        record: &Record<'_>,
        change: &RowChange,
    ) -> Result<(), Failure> {
        let stored = self.buffers.row(transaction, partition, &change.id)?;
        let books = self.partitions.change(partition.partition)?;
        let decision = rule::apply(books, stored.as_ref(), change);
        if let Some(row) = &decision.row {
            self.buffers.put_row(transaction, partition, &change.id, Some(row))?;
        }
        for movement in decision.movements.iter().flatten() {
            self.movements.add(movement)?;
        }
        if let Some(complete) = decision.announce {
            self.announce(transaction, partition.partition, complete)?;
        }
        match decision.outcome {
            Outcome::Applied => self.counts.applied += 1,
            Outcome::Stale => self.counts.stale += 1,
            Outcome::Redelivered => {
                self.counts.redelivered += 1;
                let (partition, offset) = (partition.partition, record.offset);
                self.observer.observe(&Event::Redelivered { partition, offset, id: &change.id });
            }
            Outcome::Refused(rejection) => self.dead_letter(transaction, record, &rejection)?,
        }
        Ok(())
    }

    /// Tells every partition, this one included, that a snapshot is complete.
    fn announce(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: i32,
        complete: SnapshotComplete,
    ) -> Result<(), Failure> {
        let SnapshotComplete { snapshot_lsn, ts_ms } = complete;
        let control = Control::SnapshotComplete { snapshot_lsn, ts_ms };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        control.encode_key(&mut key);
        control.encode(&mut value);
        let target = TopicPartition { topic: Wiring::DEFAULT.control, partition: 0 };
        transaction.emit(&NewRecord { target, key: Some(&key), value: Some(&value), headers: &[] })?;
        self.counts.announced_snapshots += 1;
        self.pending.push(Pending::Other(Event::SnapshotAnnounced { partition, snapshot_lsn }));
        Ok(())
    }

    /// Puts a record aside: key, value and headers as they came, and five headers that say where from and why.
    fn dead_letter(
        &mut self,
        transaction: &mut dyn Transaction,
        record: &Record<'_>,
        rejection: &Rejection,
    ) -> Result<(), Failure> {
        let (partition, offset) = (record.source.partition, record.offset);
        let mut original: Vec<(String, Vec<u8>)> = Vec::new();
        record.headers.for_each(&mut |name, value| original.push((name.to_owned(), value.to_vec())));
        let origin = dead_letter::Origin { topic: &self.settings.source_topic, partition, offset };
        let added = dead_letter::headers(origin, rejection);
        let headers: Vec<(&str, &[u8])> = original
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .chain(added.iter().map(|(name, value)| (*name, value.as_slice())))
            .collect();
        let target = TopicPartition {
            topic: Wiring::DEFAULT.dead_letters,
            partition: fold(partition, self.settings.dead_letter_partitions),
        };
        transaction.emit(&NewRecord { target, key: record.key, value: record.value, headers: &headers })?;
        *self.counts.dead_letters.entry(rejection.reason()).or_default() += 1;
        let (reason, detail) = (rejection.reason(), rejection.detail().to_owned());
        self.pending.push(Pending::DeadLettered { partition, offset, reason, detail });
        Ok(())
    }

    /// Writes the partition's record to the state; `marked` only when the transaction is complete.
    pub(crate) fn put_partition(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: i32,
        marked: bool,
    ) -> Result<(), Failure> {
        let value = &mut self.buffers.json;
        value.clear();
        self.partitions.change(partition)?.encode(value);
        let change = StateChange {
            key: PARTITION_STORE_KEY,
            value: Some(value),
            changelog_key: PARTITION_STORE_KEY,
            changelog_value: Some(value),
        };
        let partition = StatePartition { stage: SOURCE, partition };
        if marked { transaction.put_marked(partition, &change) } else { transaction.put(partition, &change) }
    }
}

/// Whether bytes begin as those in a registry's wire format do; no JSON does.
fn may_be_registered(bytes: Option<&[u8]>) -> bool {
    matches!(bytes, Some([0, ..]))
}

/// The dead-letter partition of a source partition: order within a source partition is kept.
fn fold(partition: i32, partitions: std::num::NonZeroU32) -> i32 {
    i32::try_from(partition.unsigned_abs() % partitions).unwrap_or(0)
}
