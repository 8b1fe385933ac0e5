//! One worker of the engine on the in-memory cluster: how it is built and what of it is counted.
//!
//! Owns no schedule: who steps a worker, and when, is [`crate::simulation`] (chance) or
//! [`crate::directed`] (by hand).

use std::cell::Cell;
use std::rc::Rc;

use processor_engine::observer::{Event, Observer};
use processor_engine::{Application, Failure, Stop, Worker};

use crate::cluster::SimulatedCluster;
use crate::setup::{Counts, Setup};
use crate::store::{Machine, SimulatedStore};
use crate::world::{CRASHED, Handle, World};

/// A worker of the engine in memory.
pub type SimulatedWorker<'y, A> = Worker<SimulatedCluster<'y>, SimulatedStore<'y>, A, Counter>;

/// Counts and traces a worker's events.
#[derive(Debug)]
pub struct Counter {
    counts: Rc<Cell<Counts>>,
    process: String,
    world: Rc<World>,
}

impl Counter {
    /// Adds to `counts`; trace lines carry the name of the process.
    pub fn new(counts: Rc<Cell<Counts>>, process: String, world: Rc<World>) -> Self {
        Self { counts, process, world }
    }
}

impl Observer for Counter {
    fn observe(&mut self, event: &Event<'_>) {
        let mut counts = self.counts.get();
        match event {
            Event::Committed { .. } => counts.committed += 1,
            Event::Aborted { .. } => counts.aborted += 1,
            Event::Rebuilt { .. } => counts.rebuilt += 1,
            Event::Overtaken(_) => counts.overtaken += 1,
            Event::Revoked { lost: true, .. } => counts.lost += 1,
            Event::Started { replayed, .. } => {
                counts.started += 1;
                counts.replayed += replayed;
            }
            _ => {}
        }
        self.counts.set(counts);
        self.world.trace.line(|| format!("{} {event:?}", self.process));
    }
}

/// Builds the worker of instance `id`, whose transactional ids carry that name.
///
/// # Errors
/// The stop with which the process ends; [`CRASHED`] when it only has to be started again.
pub fn build<'y, A: Application>(
    handle: &Handle<'y>,
    setup: &Setup,
    machine: Rc<Machine>,
    id: String,
    application: A,
    counter: Counter,
) -> Result<SimulatedWorker<'y, A>, Stop> {
    let cluster = SimulatedCluster::new(handle.clone(), id);
    let store = SimulatedStore::new(handle.clone(), machine);
    let (topology, limits) = (setup.topology.clone(), setup.limits.clone());
    let mut worker =
        Worker::new(topology, limits, cluster, store, application, counter).map_err(|failure| match failure {
            Failure::Stop(stop) => stop,
            failure => Stop { code: CRASHED, what: failure.to_string(), remedy: "start again".into() },
        })?;
    worker.set_rules(setup.rules);
    Ok(worker)
}
