//! The second step, and where each movement goes.
//!
//! Movements are coalesced per good within the transaction. When it completes, a good whose movements partition this
//! worker runs is added to its sum at once, in the same transaction; any other goes through the repartition topic.
//! Addition commutes and the output partition has one owner at any time, so both ways lead to the same sums. Guards
//! invariant 2: every stock delta is the good's next version.

use std::collections::{BTreeMap, HashMap};

use processor_core::Sum;
use processor_engine::cluster::{NewRecord, Record};
use processor_engine::transaction::StateChange;
use processor_engine::{Failure, PartitionStore, StatePartition, TopicPartition, Transaction};
use schemas::partitioner::partition_for_good;
use schemas::{DecodeError, GoodId, GoodType, Movement, Scale, StockDelta};

use crate::application::StockApplication;
use crate::errors::{
    beyond_avro, coalescing_overflow, damaged, good_type_changed, misplaced, overflow, pieces_scale_changed, unreadable,
};
use crate::observer::ApplicationObserver;
use crate::wiring::{MOVEMENTS, RecordFormat, Wiring};

/// Movements of the open transaction, and the epochs of the output partitions.
#[derive(Debug, Default)]
pub(crate) struct Movements {
    output: RecordFormat,
    scale: Scale,
    by_good: HashMap<GoodId, Net>,
    /// One good of each movements partition read in this transaction, for [`StockApplication::mark_cancelled`].
    read: BTreeMap<i32, GoodId>,
    /// The epoch of each output partition that has one. It is a field of every sum, so it needs no place of its own
    /// in the state (and every state change is a record on the public output topic: a row of its own would be seen).
    epochs: BTreeMap<i32, u64>,
    /// The newest epoch announced for each output partition, by whoever ran it: a later one must be larger, whatever
    /// the clock of its host says.
    announced: BTreeMap<i32, u64>,
    /// Partitions whose epoch began in the open transaction.
    new_epochs: Vec<i32>,
    store_key: Vec<u8>,
    value: Vec<u8>,
    key: Vec<u8>,
    json: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Net {
    delta: i128,
    transactions: i64,
}

/// Length of the store's key of an integer good's sum; that of a text is never so long.
const INTEGER_KEY_BYTES: usize = 8;
/// What follows a text in the store's key: no text contains it.
const TEXT_END: u8 = 0xff;

/// Appends the key of a good's sum in the store: an integer big-endian with the sign flipped, so that bytes sort as
/// numbers do; a text with its end marked, twice where it would otherwise be as long as an integer.
fn push_sum_key(good_id: &GoodId, out: &mut Vec<u8>) {
    match good_id {
        GoodId::Integer(value) => out.extend_from_slice(&(value.cast_unsigned() ^ (1 << 63)).to_be_bytes()),
        GoodId::Text(text) => {
            out.extend_from_slice(text.as_bytes());
            out.push(TEXT_END);
            if text.len() + 1 == INTEGER_KEY_BYTES {
                out.push(TEXT_END);
            }
        }
    }
}

/// Of which type the good is whose sum has this key in the store.
fn good_type_of_sum(store_key: &[u8]) -> GoodType {
    if store_key.len() == INTEGER_KEY_BYTES { GoodType::Integer } else { GoodType::Text }
}

impl Movements {
    /// None yet.
    pub(crate) fn new(output: RecordFormat, scale: Scale) -> Self {
        Self { output, scale, ..Self::default() }
    }

    /// Coalesces a movement into the open transaction.
    pub(crate) fn add(&mut self, movement: &Movement) -> Result<(), Failure> {
        let net = self.by_good.entry(movement.good_id.clone()).or_default();
        let delta = net.delta.checked_add(movement.delta);
        let transactions = net.transactions.checked_add(movement.transactions);
        let (Some(delta), Some(transactions)) = (delta, transactions) else {
            return Err(coalescing_overflow(&movement.good_id));
        };
        *net = Net { delta, transactions };
        Ok(())
    }

    /// Finds the epoch of a restored output partition in any of its sums, whose goods must be of this type and quantities
    /// of the scale that is set.
    pub(crate) fn start(
        &mut self,
        partition: i32,
        state: &dyn PartitionStore,
        good_type: GoodType,
    ) -> Result<(), Failure> {
        let mut found = Ok(None);
        state.scan(None, &mut |key, value| {
            found = Sum::scale(value)
                .and_then(|scale| Ok(Some((Sum::decode(value, scale)?.epoch, good_type_of_sum(key), scale))));
            false
        })?;
        let state_partition = StatePartition { stage: MOVEMENTS, partition };
        let Some((epoch, known, scale)) = found.map_err(|error| damaged(state_partition, error))? else {
            return Ok(());
        };
        let place = || format!("the state of movements partition {partition}");
        if known != good_type {
            return Err(good_type_changed(&place(), known, good_type));
        }
        if scale != self.scale {
            return Err(pieces_scale_changed(&place(), scale, self.scale).into());
        }
        self.note_epoch(partition, epoch);
        Ok(())
    }

    /// The key of a good's sum in the store.
    pub(crate) fn store_key(&mut self, good_id: &GoodId) -> &[u8] {
        self.store_key.clear();
        push_sum_key(good_id, &mut self.store_key);
        &self.store_key
    }

    /// Notes an epoch seen while restoring; the newest counts.
    pub(crate) fn note_epoch(&mut self, partition: i32, epoch: u64) {
        let known = self.epochs.entry(partition).or_default();
        *known = (*known).max(epoch);
    }

    pub(crate) fn stop(&mut self, partition: i32) {
        self.epochs.remove(&partition);
        self.announced.remove(&partition);
    }

    /// Notes an epoch that was announced as complete.
    pub(crate) fn note_announced(&mut self, partition: i32, epoch: u64) {
        let known = self.announced.entry(partition).or_default();
        *known = epoch.max(*known);
    }

    pub(crate) fn committed(&mut self) {
        self.clear();
        self.new_epochs.clear();
    }

    pub(crate) fn aborted(&mut self) {
        self.clear();
        for partition in self.new_epochs.drain(..) {
            self.epochs.remove(&partition);
        }
    }

    /// The epoch of an output partition, if it has one.
    pub(crate) fn known_epoch(&self, partition: i32) -> Option<u64> {
        self.epochs.get(&partition).copied()
    }

    fn clear(&mut self) {
        self.by_good.clear();
        self.read.clear();
    }

    /// The epoch of an output partition; it begins with the first transaction that writes there.
    pub(crate) fn epoch(&mut self, partition: i32, now_ms: u64) -> u64 {
        if let Some(epoch) = self.epochs.get(&partition) {
            return *epoch;
        }
        let least = self.announced.get(&partition).map_or(0, |announced| announced.saturating_add(1));
        let epoch = now_ms.max(least);
        self.epochs.insert(partition, epoch);
        self.new_epochs.push(partition);
        epoch
    }

    /// Adds to a good's sum and writes its stock delta.
    fn sum(
        &mut self,
        transaction: &mut dyn Transaction,
        partition: i32,
        good_id: GoodId,
        net: Net,
    ) -> Result<(), Failure> {
        let epoch = self.epoch(partition, transaction.now_ms());
        let partition = StatePartition { stage: MOVEMENTS, partition };
        self.store_key(&good_id);
        let stored = transaction.get(partition, &self.store_key, &mut self.value)?;
        let before = if stored {
            Sum::decode(&self.value, self.scale).map_err(|error| damaged(partition, error))?
        } else {
            Sum { epoch, ..Sum::default() }
        };
        let Net { delta, transactions } = net;
        let sum = before.apply(delta, transactions).map_err(|error| overflow(&good_id, error))?;
        let Sum { remains, transactions, version, epoch } = sum;
        let record = StockDelta { good_id, delta, remains, transactions, version, epoch };
        let Self { output, scale, store_key, value, key, json: written, .. } = self;
        value.clear();
        key.clear();
        written.clear();
        sum.encode(*scale, value);
        record.encode_key(key);
        match output {
            RecordFormat::Json => record.encode(*scale, written),
            RecordFormat::Avro { schema_id } => {
                record.encode_avro(*schema_id, *scale, written).map_err(|error| beyond_avro(&record.good_id, error))?;
            }
        }
        let change =
            StateChange { key: store_key, value: Some(value), changelog_key: key, changelog_value: Some(written) };
        transaction.put_marked(partition, &change)
    }

    fn emit(&mut self, transaction: &mut dyn Transaction, partition: i32, movement: &Movement) -> Result<(), Failure> {
        let Self { scale, key, json, .. } = self;
        key.clear();
        json.clear();
        movement.encode_key(key);
        movement.encode(*scale, json);
        let target = TopicPartition { topic: Wiring::DEFAULT.movements, partition };
        transaction.emit(&NewRecord { target, key: Some(key), value: Some(json), headers: &[] })
    }
}

impl<O: ApplicationObserver> StockApplication<O> {
    /// Processes one record of the repartition topic.
    pub(crate) fn movement(&mut self, partition: StatePartition, record: &Record<'_>) -> Result<(), Failure> {
        const TOPIC: &str = "the movements topic";
        let decoded = match (record.key, record.value) {
            (Some(key), Some(value)) => Movement::decode(key, value, self.settings.pieces_scale()),
            _ => Err(DecodeError::Malformed { record: "movement", detail: "no key or no value".into() }),
        };
        let movement = decoded.map_err(|error| unreadable(TOPIC, record, &error))?;
        let (known, wanted) = (movement.good_id.good_type(), self.settings.good_type());
        if known != wanted {
            let place = format!("{TOPIC} partition {} offset {}", record.source.partition, record.offset);
            return Err(good_type_changed(&place, known, wanted));
        }
        let expected = partition_for_good(&movement.good_id, self.settings.movements_partitions);
        if expected != partition.partition {
            return Err(misplaced(TOPIC, record, &movement.good_id, expected));
        }
        self.counts.received_movements += 1;
        self.movements.read.entry(partition.partition).or_insert_with(|| movement.good_id.clone());
        self.movements.add(&movement)
    }

    /// Writes everything that was coalesced: sums that are here now, movements for the others.
    pub(crate) fn complete_movements(&mut self, transaction: &mut dyn Transaction) -> Result<(), Failure> {
        let moved = |(_, net): &(GoodId, Net)| net.delta != 0 || net.transactions != 0;
        let mut goods: Vec<(GoodId, Net)> = self.movements.by_good.drain().filter(moved).collect();
        // Sorted: the same transaction writes the same records in the same order, and neighbours in the store together.
        goods.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (good_id, net) in goods {
            let partition = partition_for_good(&good_id, self.settings.movements_partitions);
            if transaction.is_running(StatePartition { stage: MOVEMENTS, partition }) {
                self.movements.read.remove(&partition);
                self.movements.sum(transaction, partition, good_id, net)?;
                self.counts.local_movements += 1;
                self.counts.stock_deltas += 1;
            } else {
                let Net { delta, transactions } = net;
                self.movements.emit(transaction, partition, &Movement { good_id, delta, transactions })?;
                self.counts.repartitioned_movements += 1;
            }
        }
        self.mark_cancelled(transaction)
    }

    /// A movements partition was read but everything read cancels out. Its progress must still be in the changelog,
    /// whose last record tells it after a restore: one good gets a version that changes nothing.
    fn mark_cancelled(&mut self, transaction: &mut dyn Transaction) -> Result<(), Failure> {
        for (partition, good_id) in std::mem::take(&mut self.movements.read) {
            self.movements.sum(transaction, partition, good_id, Net::default())?;
            self.counts.stock_deltas += 1;
        }
        Ok(())
    }
}
