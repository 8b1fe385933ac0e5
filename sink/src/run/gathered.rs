//! Owns the batch that is being gathered: which records belong in it, and the progress that goes with them.

use std::collections::BTreeMap;

use service::Coded;

use super::contradicted;
use crate::position::{Partition, Progress, Verdict};
use crate::work::{Record, Types, Work};

/// One partition of this sink.
pub(super) enum Slot {
    /// Paused until the target says from where to read.
    Waiting,
    Reading(Partition),
}

/// What came of one record.
pub(super) enum Taken {
    /// It counts towards the batch.
    Collected,
    /// Nothing to write.
    Passed,
    StartOver(i32, Progress),
    Stop(Coded),
}

/// Records that go into one transaction of the target, and what its progress rows then say.
#[derive(Debug, Default)]
pub(super) struct Gathered<W> {
    work: W,
    progress: BTreeMap<i32, Progress>,
    records: usize,
}

impl<W: Work> Gathered<W> {
    /// Judges one record and collects it.
    pub(super) fn take(
        &mut self,
        topic: &str,
        types: Types,
        slots: &mut BTreeMap<i32, Slot>,
        record: &Record<'_>,
    ) -> Taken {
        let Some(Slot::Reading(reading)) = slots.get_mut(&record.partition) else { return Taken::Passed };
        if record.key.is_some_and(|key| W::is_processors_own(key, types.goods)) {
            return Taken::Passed;
        }
        let item = match W::read(record, types) {
            Ok(item) => item,
            Err(unreadable) => return Taken::Stop(unreadable.stop(topic, record.partition, record.offset)),
        };
        match reading.judge(record.offset, W::epoch(&item)) {
            Verdict::Apply(progress) => {
                self.work.add(item);
                self.count(record.partition, progress)
            }
            Verdict::Obsolete(progress) => self.count(record.partition, progress),
            Verdict::Known => Taken::Passed,
            Verdict::StartOver(progress) => Taken::StartOver(record.partition, progress),
            Verdict::Stop(contradiction) => Taken::Stop(contradicted(topic, record.partition, contradiction)),
        }
    }

    fn count(&mut self, partition: i32, progress: Progress) -> Taken {
        self.progress.insert(partition, progress);
        self.records += 1;
        Taken::Collected
    }

    /// How many records were collected; several may be of one good.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether something of the partition is to be written.
    pub(super) fn has(&self, partition: i32) -> bool {
        self.progress.contains_key(&partition)
    }

    /// What to write, the progress that goes with it, and how many records it was.
    pub(super) fn into_parts(self) -> (W, BTreeMap<i32, Progress>, usize) {
        (self.work, self.progress, self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deltas::Deltas;

    const TOPIC: &str = "warehouse.stock.deltas";

    fn take(gathered: &mut Gathered<Deltas>, slots: &mut BTreeMap<i32, Slot>, partition: i32, offset: i64) -> Taken {
        let value = br#"{"good_id":2,"delta":1,"remains":1,"transactions":1,"version":1,"epoch":7}"#;
        let record = Record { partition, offset, key: Some(b"2"), value: Some(value) };
        gathered.take(TOPIC, Types::default(), slots, &record)
    }

    #[test]
    fn the_progress_of_a_batch_lies_behind_the_last_record_of_each_partition() {
        let mut gathered = Gathered::default();
        let reading = || Slot::Reading(Partition::from_beginning(Progress::default()));
        let mut slots = BTreeMap::from([(0, reading()), (1, reading())]);
        for (partition, offset) in [(0, 3), (1, 9), (0, 4)] {
            assert!(matches!(take(&mut gathered, &mut slots, partition, offset), Taken::Collected));
        }
        let (_, progress, records) = gathered.into_parts();
        let offsets: Vec<(i32, i64)> = progress.iter().map(|(partition, to)| (*partition, to.next_offset)).collect();
        assert_eq!((offsets, records), (vec![(0, 5), (1, 10)], 3));
    }

    #[test]
    fn records_of_a_partition_that_waits_or_is_somebody_elses_are_passed_by() {
        let mut gathered = Gathered::default();
        let mut slots = BTreeMap::from([(0, Slot::Waiting)]);
        for partition in [0, 1] {
            assert!(matches!(take(&mut gathered, &mut slots, partition, 0), Taken::Passed));
        }
        assert!(gathered.is_empty());
    }
}
