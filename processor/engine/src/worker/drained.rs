//! Whether there is nothing left to do: the end of a run that processes what is there and then ends.
//!
//! Never guesses from silence: an input counts as read only where the brokers say it ends, control records and
//! transactions that are still open included. Looks at the partitions of others, too. A member that ended leaves its own to
//! those that are there, who hear of it by their next heartbeat, and until then nobody has them; but whoever wrote something
//! for them looks after that, so the last one to end leaves nothing unread. What broadcast records ask of a partition that nobody
//! has does not show in any offset: it is left to the next run.

use super::Worker;
use super::owned::CaughtUp;
use crate::application::Application;
use crate::cluster::{Cluster, GroupConsumer};
use crate::failure::Failure;
use crate::observer::Observer;
use crate::store::StateStore;
use crate::topology::TopicPartition;

impl<C: Cluster, S: StateStore, A: Application, O: Observer> Worker<C, S, A, O> {
    /// Whether everything in the inputs and in the broadcast topic is processed and committed, as of now, by whomever. A
    /// member to which the group gave no partition has nothing to do either; one that has heard nothing of the group yet has.
    ///
    /// Asks the brokers about every partition once everything else says yes: not for a hot loop.
    pub fn is_drained(&mut self) -> Result<bool, Failure> {
        if !self.assigned || self.has_work() || self.consumer.metadata()?.is_none() {
            return Ok(false);
        }
        let broadcast = TopicPartition { topic: self.topology.broadcast, partition: 0 };
        if self.broadcasts_read_to < self.cluster.log_ends(broadcast)?.high_watermark {
            return Ok(false);
        }
        for (partition, owned) in &self.owned {
            let Some(input) = self.topology.input_of(*partition) else { continue };
            if owned.read_to < self.cluster.log_ends(input)?.high_watermark {
                return Ok(false);
            }
        }
        for (number, stage) in self.topology.stages.iter().enumerate() {
            let own = self.owned.keys().filter(|partition| usize::from(partition.stage.0) == number);
            if self.cluster.has_unread(stage.input, &own.map(|partition| partition.partition).collect())? {
                return Ok(false);
            }
        }
        // Once more: the look may have taken its time.
        Ok(self.broadcasts_read_to >= self.cluster.log_ends(broadcast)?.high_watermark)
    }

    fn has_work(&self) -> bool {
        let known = self.broadcasts.len();
        self.recovery.is_some()
            || self.is_busy()
            || self.owned.values().any(|owned| owned.caught_up != CaughtUp::Told || owned.broadcasts_handled < known)
    }
}
