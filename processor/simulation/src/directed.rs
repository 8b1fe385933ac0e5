//! Workers stepped by hand, for what chance does not find: a test says what happens between two steps.
//!
//! Owns nothing but the stepping. No fault strikes unless the test scripts it ([`World::script`]), and
//! nothing is suspended but a stable fetch that waits for an open transaction.

use std::cell::Cell;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use processor_engine::worker::Step;
use processor_engine::{Application, Stop};

use crate::broker::Broker;
use crate::setup::{Counts, Setup};
use crate::store::Machine;
use crate::workers::{Counter, SimulatedWorker, build};
use crate::world::{Handle, Pause, Process, World};

const STACK_BYTES: usize = 1 << 20;
/// Idle steps in a row after which nothing more is to be expected: a poll may find nothing by chance.
const IDLE_STEPS: u32 = 30;
/// Steps after which a worker that is never idle counts as stuck.
const MOST_STEPS: u32 = 10_000;

/// Code of the stop reported for a worker that never comes to rest.
pub const NEVER_IDLE: &str = "SIMULATED_NEVER_IDLE";

/// A cluster, a machine, and the workers a test puts on them.
pub struct Directed<'y> {
    /// What all workers share.
    pub world: Rc<World>,
    /// The disk they share (one process' workers), or inherit (a restart).
    pub machine: Rc<Machine>,
    setup: Setup,
    starts: Cell<u32>,
    yielder: &'y Yielder<(), Pause>,
}

/// Runs `body` on an empty cluster. `seed` decides in which order partitions are polled, no more.
///
/// # Errors
/// No memory for a stack.
pub fn directed<T: 'static>(
    setup: Setup,
    seed: u64,
    body: impl FnOnce(&Directed<'_>) -> T + 'static,
) -> std::io::Result<T> {
    let broker = Broker::new(&setup.topology, &setup.partitions);
    let world = Rc::new(World::new(broker, seed, setup.faults, false));
    let stack = DefaultStack::new(STACK_BYTES)?;
    let mut coroutine = Coroutine::with_stack(stack, move |yielder, ()| {
        body(&Directed { world, machine: Rc::default(), setup, starts: Cell::new(0), yielder })
    });
    loop {
        if let CoroutineResult::Return(result) = coroutine.resume(()) {
            return Ok(result);
        }
    }
}

impl<'y> Directed<'y> {
    /// Starts a worker. A name used before is the same instance started again.
    ///
    /// # Errors
    /// As [`build`].
    pub fn start<A: Application>(&self, name: &str, application: A) -> Result<ByHand<'y, A>, Stop> {
        self.starts.set(self.starts.get() + 1);
        let process = format!("{name}/{}", self.starts.get());
        let process = Rc::new(Process::new(process));
        let counts = Rc::<Cell<Counts>>::default();
        let counter = Counter::new(Rc::clone(&counts), process.name.clone(), Rc::clone(&self.world));
        let handle = Handle::new(Rc::clone(&self.world), process, self.yielder);
        let worker = build(&handle, &self.setup, Rc::clone(&self.machine), name.into(), application, counter)?;
        Ok(ByHand { worker, counts })
    }
}

/// A worker that goes on when it is told to. Dropped, it closes its clients as a process that exits does.
pub struct ByHand<'y, A: Application> {
    worker: SimulatedWorker<'y, A>,
    counts: Rc<Cell<Counts>>,
}

impl<A: Application> ByHand<'_, A> {
    /// What it did so far.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Steps until there is nothing left to do.
    ///
    /// # Errors
    /// The stop that ends the worker; [`NEVER_IDLE`].
    pub fn run(&mut self) -> Result<(), Stop> {
        let mut idle = 0;
        for _ in 0..MOST_STEPS {
            idle = if self.worker.step()? == Step::Idle { idle + 1 } else { 0 };
            if idle == IDLE_STEPS {
                return Ok(());
            }
        }
        Err(Stop {
            code: NEVER_IDLE,
            what: format!("{MOST_STEPS} steps, {:?}", self.counts()),
            remedy: "look at what it waits for".into(),
        })
    }
}
