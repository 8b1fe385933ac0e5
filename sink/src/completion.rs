//! Owns when the rows of an older epoch may be removed: once everything of the new epoch was applied, never before.
//!
//! Pure. The processor announces on the control topic that an output partition has everything in its new epoch from a
//! certain offset on. Goods that exist only in an older epoch then exist no more, and no record will ever say so.

use std::collections::BTreeMap;

use schemas::{Control, DecodeError, ReceivedControl};

use crate::position::Partition;

/// An announcement about one partition of the deltas topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complete {
    /// The epoch that is complete, ms since 1970.
    pub epoch: i64,
    /// Offset below which it is complete; may lie behind the last record, on a transaction's marker.
    pub offset: i64,
}

/// The newest announcement of each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced(BTreeMap<i32, Complete>);

/// What an announcement demands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Nothing (any more, or yet).
    Nothing,
    /// Remove rows of older epochs.
    Remove,
    /// All records known are read, but the announced offset may lie behind markers: find out where the log ends, and
    /// read up to there once more.
    ConfirmEnd,
    /// The partition was resumed in an older epoch and its end shows no newer record: only reading it from the
    /// beginning proves that nothing of the new epoch was missed.
    ReadFromBeginning,
}

impl Announced {
    /// Takes a control record into account; other types than `epoch-complete` are for others.
    ///
    /// # Errors
    /// When the record is none of ours.
    pub fn hear(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let ReceivedControl::Known(Control::EpochComplete { partition, epoch, offset }) = Control::decode(value)?
        else {
            return Ok(());
        };
        // An epoch beyond i64 cannot be in the target either; the record that carries it will stop the sink.
        let Ok(epoch) = i64::try_from(epoch) else { return Ok(()) };
        let complete = Complete { epoch, offset };
        let kept = self.0.entry(partition).or_insert(complete);
        if epoch >= kept.epoch {
            *kept = complete;
        }
        Ok(())
    }

    /// The announcement about a partition.
    pub fn of(&self, partition: i32) -> Option<Complete> {
        self.0.get(&partition).copied()
    }
}

impl Complete {
    /// What is to be done; `end_confirmed` when [`Demand::ConfirmEnd`] was done since anything new was read.
    pub fn demand(self, partition: &Partition, end_confirmed: bool) -> Demand {
        let progress = partition.progress();
        let (epoch, known) = (Some(self.epoch), progress.epoch);
        if progress.completed_epoch >= epoch || known > epoch {
            return Demand::Nothing;
        }
        if known == epoch && progress.next_offset >= self.offset {
            return Demand::Remove;
        }
        if !partition.at_end() {
            return Demand::Nothing;
        }
        match (known == epoch || partition.read_from_beginning(), end_confirmed) {
            (true, true) => Demand::Remove,
            (true, false) => Demand::ConfirmEnd,
            (false, _) => Demand::ReadFromBeginning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Progress;

    fn announced(epoch: i64, offset: i64) -> Complete {
        let mut announced = Announced::default();
        let value = format!(r#"{{"type":"epoch-complete","partition":3,"epoch":{epoch},"offset":{offset}}}"#);
        announced.hear(value.as_bytes()).unwrap();
        announced.hear(br#"{"type":"something-new","partition":3,"epoch":"x"}"#).unwrap();
        announced.of(3).unwrap()
    }

    fn progress(epoch: Option<i64>, next_offset: i64) -> Progress {
        Progress { epoch, next_offset, completed_epoch: None }
    }

    #[test]
    fn older_rows_go_once_the_announced_offset_is_reached_and_not_before() {
        let complete = announced(8, 5);
        let mut partition = Partition::from_beginning(progress(Some(8), 0));
        partition.judge(3, Some(8));
        assert_eq!(complete.demand(&partition, false), Demand::Nothing);
        partition.judge(4, Some(8));
        assert_eq!(complete.demand(&partition, false), Demand::Remove);
        partition.complete(Progress { completed_epoch: Some(8), ..partition.progress() });
        assert_eq!(complete.demand(&partition, false), Demand::Nothing);
    }

    #[test]
    fn an_offset_behind_a_transaction_marker_needs_a_confirmed_end() {
        let complete = announced(8, 6);
        let mut partition = Partition::from_beginning(progress(Some(8), 0));
        partition.judge(4, Some(8));
        assert_eq!(complete.demand(&partition, false), Demand::Nothing);
        partition.end();
        assert_eq!(complete.demand(&partition, false), Demand::ConfirmEnd);
        assert_eq!(complete.demand(&partition, true), Demand::Remove);
        partition.judge(7, Some(8));
        assert_eq!(complete.demand(&partition, false), Demand::Remove);
    }

    #[test]
    fn a_partition_without_any_record_in_the_new_epoch_loses_its_old_rows_too() {
        let (mut partition, _) = Partition::begin(progress(Some(7), 600), 0, 0);
        partition.end();
        assert_eq!(announced(8, 0).demand(&partition, false), Demand::ConfirmEnd);
        assert_eq!(announced(8, 0).demand(&partition, true), Demand::Remove);
    }

    #[test]
    fn a_resumed_partition_of_an_older_epoch_is_read_from_its_beginning_first() {
        let (mut partition, _) = Partition::begin(progress(Some(7), 6), 0, 10);
        partition.judge(5, Some(7));
        partition.end();
        assert_eq!(announced(8, 0).demand(&partition, true), Demand::ReadFromBeginning);
    }

    #[test]
    fn an_announcement_of_an_epoch_that_is_over_demands_nothing() {
        let mut partition = Partition::from_beginning(progress(Some(9), 0));
        partition.judge(4, Some(9));
        partition.end();
        assert_eq!(announced(8, 1).demand(&partition, true), Demand::Nothing);
    }
}
