//! What all workers of one run share, and the one door through which each of them acts.
//!
//! Every call of a worker that has an effect outside it goes through [`Handle::call`]: there it may be
//! suspended (any number of steps of others happen in between), its request or reply may be lost, and a
//! killed process has no effect any more. Nothing else in this crate suspends a worker, so no borrow of
//! the shared state is ever held while others run.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use corosensei::Yielder;
use processor_engine::worker::Step;
use processor_engine::{Failure, Stop};

use crate::broker::Broker;
use crate::coordinator::Identity;
use crate::journal::{Journal, Transition};
use crate::scheduler::{Call, Fate, Faults, Random, Trace};

/// Code of the stop that ends a worker whose process was killed.
pub const CRASHED: &str = "SIMULATED_CRASH";

/// Shared state of one run.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub broker: RefCell<Broker>,
    /// The seeded choices.
    pub random: RefCell<Random>,
    /// Rates of the faults; changed to none when the run is to settle.
    pub faults: Cell<Faults>,
    /// What happened.
    pub trace: Trace,
    /// `EndTxn` requests still on their way, whose senders have given up on them.
    pub late: RefCell<Vec<(Identity, bool)>>,
    /// Fates decided by hand; the first of a call's kind is taken before chance is asked.
    pub script: RefCell<Vec<(Call, Fate)>>,
    /// What producers did, and when offsets were read.
    pub journal: Journal,
}

impl World {
    /// A cluster on which nothing has happened yet.
    pub fn new(broker: Broker, seed: u64, faults: Faults, trace: bool) -> Self {
        Self {
            broker: RefCell::new(broker),
            random: RefCell::new(Random::new(seed)),
            faults: Cell::new(faults),
            trace: Trace::new(trace),
            late: RefCell::default(),
            script: RefCell::default(),
            journal: Journal::default(),
        }
    }

    fn scripted(&self, call: Call) -> Option<Fate> {
        let mut script = self.script.borrow_mut();
        let index = script.iter().position(|(scripted, _)| *scripted == call)?;
        Some(script.remove(index).1)
    }

    /// Whether a fault of this rate strikes now.
    pub fn chance(&self, rate: u32) -> bool {
        self.random.borrow_mut().chance(rate)
    }

    fn fate(&self, call: Call) -> Fate {
        if let Some(fate) = self.scripted(call) {
            return fate;
        }
        let losable = !matches!(call, Call::Consumer);
        if !losable || !self.chance(self.faults.get().lost_per_call) {
            return Fate::Whole;
        }
        let fates = [Fate::RequestLost, Fate::RequestLate, Fate::ReplyLost];
        self.random.borrow_mut().pick(&fates).unwrap_or(Fate::RequestLost)
    }
}

/// One worker's process: alive until it ends or is killed.
#[derive(Debug)]
pub struct Process {
    /// Name of the instance and number of this start.
    pub name: String,
    /// Killed processes have no effect any more.
    pub alive: Cell<bool>,
    /// Asked to leave in good order.
    pub leave: Cell<bool>,
    /// Whether it leaves by itself when it finds nothing left to do.
    pub until_caught_up: Cell<bool>,
    /// Whether it has left for that.
    pub is_caught_up: Cell<bool>,
}

impl Process {
    /// A process that has just been started.
    pub fn new(name: String) -> Self {
        let [leave, until_caught_up, is_caught_up] = [false; 3].map(Cell::new);
        Self { name, alive: Cell::new(true), leave, until_caught_up, is_caught_up }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Process {
    /// Refuses everything once the process is killed.
    pub fn check(&self) -> Result<(), Failure> {
        if self.alive.get() {
            return Ok(());
        }
        Err(Failure::Stop(Stop { code: CRASHED, what: self.name.clone(), remedy: "none, it is dead".into() }))
    }
}

/// Why a worker is suspended.
#[derive(Debug, Clone, Copy)]
pub enum Pause {
    /// In the middle of a step, before a call.
    Call(Call),
    /// Between two steps.
    Step(Step),
}

/// A worker's door to the world.
#[derive(Clone)]
pub struct Handle<'y> {
    /// Shared state.
    pub world: Rc<World>,
    /// The process this worker runs in.
    pub process: Rc<Process>,
    yielder: &'y Yielder<(), Pause>,
}

impl<'y> Handle<'y> {
    /// A door for the worker that runs on `yielder`'s coroutine.
    pub fn new(world: Rc<World>, process: Rc<Process>, yielder: &'y Yielder<(), Pause>) -> Self {
        Self { world, process, yielder }
    }

    /// Suspends this worker; others go on.
    pub fn suspend(&self, pause: Pause) {
        self.yielder.suspend(pause);
    }

    /// Does `effect` on the cluster as one indivisible call that may be delayed or lost.
    ///
    /// # Errors
    /// Those of `effect`; the process's death; `lost` when request or reply is lost.
    pub fn call<T>(
        &self,
        call: Call,
        lost: fn(String) -> Failure,
        effect: impl FnOnce(&mut Broker, Fate) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.process.check()?;
        if self.world.chance(self.world.faults.get().suspend_per_call) {
            self.suspend(Pause::Call(call));
            self.process.check()?;
        }
        let fate = self.world.fate(call);
        if fate != Fate::Whole {
            self.world.trace.line(|| format!("{} {call:?}: {fate:?}", self.process));
        }
        match fate {
            Fate::Whole | Fate::AnsweredEarly => effect(&mut self.world.broker.borrow_mut(), fate),
            Fate::RequestLost => Err(lost(format!("{call:?} was not answered"))),
            Fate::RequestLate if call != Call::Commit => Err(lost(format!("{call:?} was not answered"))),
            Fate::RequestLate | Fate::ReplyLost => {
                let _unheard = effect(&mut self.world.broker.borrow_mut(), fate);
                Err(lost(format!("{call:?} was not answered")))
            }
        }
    }

    /// Adds an entry to the journal, under this worker's process.
    pub fn note(&self, transition: Transition) {
        self.world.journal.note(&self.process, transition);
    }

    /// Adds a line to the trace, under this worker's name.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        self.world.trace.line(|| format!("{} {}", self.process, line()));
    }
}

impl fmt::Debug for Handle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("process", &self.process.name).finish_non_exhaustive()
    }
}
