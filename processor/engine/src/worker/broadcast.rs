//! What every partition is told: broadcast records, and that its own input was read to the end.
//!
//! A broadcast record is handed to a partition only once that has read past where its input ended when the
//! record was seen, so that whatever was written before the announcement is known when it is handled. After
//! every assignment and every abort all of them come again; applications are idempotent.

use super::Worker;
use super::open::{Open, View};
use super::owned::{CaughtUp, Owned};
use crate::application::Application;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::observer::Observer;
use crate::store::StateStore;
use crate::topology::StatePartition;

impl<C: Cluster, S: StateStore, A: Application, O: Observer> Worker<C, S, A, O> {
    /// Tells the application of partitions that were read to their end for the first time.
    pub(super) fn tell_caught_up(&mut self) -> Result<(), Failure> {
        let seen = |owned: &Owned<_>| owned.is_running() && owned.caught_up == CaughtUp::Seen;
        let partitions: Vec<StatePartition> =
            self.owned.iter().filter(|(_, owned)| seen(owned)).map(|(partition, _)| *partition).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        let now = self.cluster.now_ms();
        let Self { producers, open, owned, topology, application, turn, .. } = self;
        let Some(producer) = producers.get_mut(*turn) else { return Err(Failure::Rebuild("no producer".into())) };
        let open = open.get_or_insert_with(|| Open::new(now));
        for partition in partitions {
            application.caught_up(&mut View { open, producer, owned, topology }, partition)?;
            if let Some(owned) = owned.get_mut(&partition) {
                owned.caught_up = CaughtUp::Told;
            }
        }
        Ok(())
    }

    /// Hands broadcast records to the partitions that have read far enough.
    pub(super) fn handle_broadcasts(&mut self) -> Result<(), Failure> {
        let known = self.broadcasts.len();
        let waiting: Vec<StatePartition> = self
            .owned
            .iter()
            .filter(|(_, owned)| owned.is_running() && owned.broadcasts_handled < known)
            .map(|(partition, _)| *partition)
            .collect();
        for partition in waiting {
            let Some(boundary) = self.broadcast_boundary(partition)? else { continue };
            self.broadcast_to(partition, boundary)?;
        }
        Ok(())
    }

    /// Number of broadcast records this partition may handle now.
    fn broadcast_boundary(&mut self, partition: StatePartition) -> Result<Option<usize>, Failure> {
        let known = self.broadcasts.len();
        let Some(input) = self.topology.input_of(partition) else { return Ok(None) };
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(None) };
        let (records, offset) = if let Some(boundary) = owned.broadcast_boundary {
            boundary
        } else {
            let boundary = (known, self.cluster.log_ends(input)?.high_watermark);
            owned.broadcast_boundary = Some(boundary);
            boundary
        };
        Ok((owned.read_to >= offset).then_some(records))
    }

    fn broadcast_to(&mut self, partition: StatePartition, records: usize) -> Result<(), Failure> {
        let from = self.owned.get(&partition).map_or(records, |owned| owned.broadcasts_handled);
        let now = self.cluster.now_ms();
        let Self { producers, open, owned, topology, application, turn, broadcasts, .. } = self;
        let Some(producer) = producers.get_mut(*turn) else { return Err(Failure::Rebuild("no producer".into())) };
        let open = open.get_or_insert_with(|| Open::new(now));
        let mut view = View { open, producer, owned, topology };
        for record in broadcasts.get(from..records).unwrap_or_default() {
            application.broadcast(&mut view, partition, record)?;
        }
        if let Some(owned) = owned.get_mut(&partition) {
            owned.broadcasts_handled = records;
            owned.broadcast_boundary = None;
        }
        Ok(())
    }
}
