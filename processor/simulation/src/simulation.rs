//! One seeded run: instances that start, crash, freeze, leave and come back around one cluster.
//!
//! Owns the instances and the loop that decides, step by step, what happens next. Each worker is a
//! coroutine suspended at its calls, so that any interleaving of any number of workers can be reached by
//! one thread; nested calls would only reach those where the last to be paused is the first to go on. A
//! run has two parts: faults strike for a number of steps, then none does and everything must settle.
//! Guards nothing itself: the
//! [`Scenario`] says what must hold, after every step and at the end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use processor_engine::worker::Step;
use processor_engine::{Application, Stop, Topology};

use crate::broker::Broker;
use crate::member::MemberClient;
use crate::scheduler::{Call, Faults, Random};
use crate::setup::{Counts, Scenario, Setup, Violation};
use crate::store::Machine;
use crate::workers::{Counter, build};
use crate::world::{CRASHED, Handle, Pause, Process, World};

/// Bytes of stack of one worker; touched pages only cost memory.
const STACK_BYTES: usize = 512 << 10;
/// The broker's transaction timeout, virtual.
const TRANSACTION_TIMEOUT_MS: u64 = 10_000;
/// Rounds over all instances within which a run without faults must settle.
const SETTLE_STEPS: u64 = 5_000;
/// Of 10,000 steps: dead members counted out, markers written, background rounds, restarts.
const HOUSEKEEPING: u32 = 500;

enum Exit {
    Left,
    Stopped(Stop),
}

type Running = Coroutine<(), Pause, Exit, DefaultStack>;

struct Instance {
    name: String,
    machine: usize,
    starts: u32,
    process: Option<Rc<Process>>,
    coroutine: Option<Running>,
    last: Option<Step>,
    /// The call it is suspended before.
    at: Option<Call>,
    frozen_until: u64,
    /// Whether it has found nothing left to do, and is not started again.
    is_done: bool,
}

/// A run under way.
pub struct Simulation<S: Scenario> {
    world: Rc<World>,
    setup: Setup,
    scenario: S,
    machines: Vec<Rc<Machine>>,
    instances: Vec<Instance>,
    stacks: Vec<DefaultStack>,
    counts: Rc<Cell<Counts>>,
}

impl<S: Scenario> Simulation<S> {
    /// Prepares a run.
    pub fn new(setup: Setup, scenario: S, seed: u64, trace: bool) -> Self {
        let broker = Broker::new(&setup.topology, &setup.partitions);
        let world = Rc::new(World::new(broker, seed, setup.faults, trace));
        let per_process = setup.workers_per_process.max(1);
        let instance = |index: usize| Instance {
            name: format!("worker-{index}"),
            machine: index / per_process,
            starts: 0,
            process: None,
            coroutine: None,
            last: None,
            at: None,
            frozen_until: 0,
            is_done: false,
        };
        let machines = (0..=setup.instances / per_process).map(|_| Rc::new(Machine::default())).collect();
        let instances = (0..setup.instances).map(instance).collect();
        Self { world, setup, scenario, machines, instances, stacks: Vec::new(), counts: Rc::default() }
    }

    /// The cluster, for tests that arrange something by hand.
    pub fn world(&self) -> &Rc<World> {
        &self.world
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first violation of what the scenario says must hold.
    pub fn run(mut self) -> Result<Counts, Box<Violation>> {
        let outcome = self.run_all();
        // Workers are ended before the world they act on; a killed process has no effect any more.
        for machine in 0..self.machines.len() {
            self.kill(machine);
        }
        match outcome {
            Ok(()) => Ok(self.counts.get()),
            Err(what) => Err(Box::new(Violation { what, trace: self.world.trace.take() })),
        }
    }

    fn run_all(&mut self) -> Result<(), String> {
        for _ in 0..self.setup.steps {
            self.disturb();
            self.advance()?;
        }
        self.settle()?;
        let broker = self.world.broker.borrow();
        if !broker.is_settled() {
            return Err("a transaction is open although everything has settled".into());
        }
        self.scenario.finish(&broker)
    }

    /// Lets one worker go on and checks.
    fn advance(&mut self) -> Result<(), String> {
        self.count(|counts| counts.steps += 1);
        let index = self.world.random.borrow_mut().below(self.instances.len());
        self.go_on(index)?;
        self.scenario.observe(&self.world.broker.borrow())
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Everything that may happen beside the workers.
    fn disturb(&mut self) {
        let faults = self.world.faults.get();
        if self.world.chance(faults.compact) {
            // First of all: the scenario has seen everything that is visible now.
            compact(&self.setup.topology, &mut self.world.broker.borrow_mut());
        }
        self.housekeeping();
        if self.world.chance(faults.crash) {
            self.crash();
        }
        if self.world.chance(faults.leave) {
            let process = self.pick().and_then(|index| self.instances.get(index)?.process.clone());
            if let Some(process) = process {
                process.leave.set(true);
            }
        }
        if self.world.chance(faults.freeze)
            && let Some(index) = self.pick()
        {
            let steps = self.world.random.borrow_mut().between(10, 2_000);
            let until = self.counts.get().steps + u64::try_from(steps).unwrap_or(0);
            if let Some(instance) = self.instances.get_mut(index) {
                self.world.trace.line(|| format!("--- {} is frozen", instance.name));
                instance.frozen_until = until;
            }
        }
        if self.world.chance(faults.stall) {
            self.stall();
        }
        let mut broker = self.world.broker.borrow_mut();
        if self.world.chance(faults.evict) {
            let members = broker.group.members();
            if let Some(member) = self.world.random.borrow_mut().pick(&members) {
                self.world.trace.line(|| format!("--- member {member} is counted out"));
                broker.group.remove(member);
                self.count(|counts| counts.evictions += 1);
            }
        }
        if self.world.chance(faults.expire) {
            let open = broker.coordinator.open();
            if let Some(producer) = self.world.random.borrow_mut().pick(&open) {
                self.world.trace.line(|| format!("--- the transaction of producer {producer} times out"));
                broker.expire_transaction(producer);
            }
        }
    }

    /// A process stops as a whole and is counted out; when it goes on it does not know.
    fn stall(&mut self) {
        let Some(index) = self.pick() else { return };
        let wanted = self.world.faults.get().stall_at;
        if wanted.is_some() && self.instances.get(index).is_none_or(|instance| instance.at != wanted) {
            return;
        }
        let steps = self.world.random.borrow_mut().between(20, 300);
        let until = self.counts.get().steps + u64::try_from(steps).unwrap_or(0);
        let Some(instance) = self.instances.get_mut(index) else { return };
        let Some(process) = &instance.process else { return };
        instance.frozen_until = until;
        self.world.trace.line(|| format!("--- {process} is stopped and counted out"));
        let mut broker = self.world.broker.borrow_mut();
        let found = broker.clients.iter_mut().find(|client| !client.dead && client.owner == process.name);
        let member = found.and_then(|client| {
            client.stalled = true;
            client.member()
        });
        if let Some(member) = member {
            broker.group.remove(member);
        }
        self.count(|counts| counts.evictions += 1);
    }

    /// What happens with or without faults: time, input, markers, heartbeats, restarts.
    fn housekeeping(&mut self) {
        let world = Rc::clone(&self.world);
        {
            let mut broker = world.broker.borrow_mut();
            let mut random = world.random.borrow_mut();
            broker.now_ms += u64::from(random.chance(5_000));
            if random.chance(HOUSEKEEPING) {
                self.scenario.feed(&mut broker, &mut random);
            }
            if random.chance(HOUSEKEEPING) {
                let ending = broker.coordinator.ending();
                if let Some(producer) = random.pick(&ending) {
                    let choice = random.below(usize::MAX);
                    broker.write_marker(producer, choice);
                }
                let now = broker.now_ms;
                for producer in broker.coordinator.open_since_before(now.saturating_sub(TRANSACTION_TIMEOUT_MS)) {
                    world.trace.line(|| format!("--- the transaction of producer {producer} times out"));
                    broker.expire_transaction(producer);
                }
            }
            if random.chance(HOUSEKEEPING) {
                heartbeats(&mut broker, &mut random);
            }
            if random.chance(HOUSEKEEPING) {
                for (identity, commit) in world.late.borrow_mut().drain(..) {
                    // Refused when the producer was initialised again meanwhile, as it should be.
                    let _ = broker.end(identity, commit);
                }
            }
        }
        if world.chance(HOUSEKEEPING) {
            let down = self.instances.iter().position(|instance| instance.process.is_none() && !instance.is_done);
            if let Some(index) = down {
                self.start(index);
            }
        }
    }

    fn pick(&self) -> Option<usize> {
        let index = self.world.random.borrow_mut().below(self.instances.len());
        self.instances.get(index).filter(|instance| instance.process.is_some()).map(|_| index)
    }

    fn crash(&mut self) {
        let Some(machine) = self.pick().and_then(|index| Some(self.instances.get(index)?.machine)) else { return };
        self.kill(machine);
        self.count(|counts| counts.crashes += 1);
        let faults = self.world.faults.get();
        let Some(disk) = self.machines.get(machine) else { return };
        if self.world.chance(faults.crash_loses_disk) {
            self.world.trace.line(|| format!("--- machine {machine} loses its disk"));
            disk.lose_everything();
        } else if self.world.chance(faults.crash_loses_newest) {
            let batches = 1 + self.world.random.borrow_mut().below(3);
            self.world.trace.line(|| format!("--- machine {machine} loses its newest {batches} batches"));
            disk.lose_newest(batches);
        }
    }

    /// `kill -9`: from now on the machine's process has no effect; its workers are run out of their calls.
    fn kill(&mut self, machine: usize) {
        for instance in self.instances.iter_mut().filter(|instance| instance.machine == machine) {
            if let Some(process) = instance.process.take() {
                self.world.trace.line(|| format!("--- {process} is killed"));
                process.alive.set(false);
            }
            if let Some(mut coroutine) = instance.coroutine.take() {
                while let CoroutineResult::Yield(_) = coroutine.resume(()) {}
                self.stacks.push(coroutine.into_stack());
            }
            instance.last = None;
            instance.frozen_until = 0;
        }
    }

    fn start(&mut self, index: usize) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        let Some(machine) = self.machines.get(instance.machine) else { return };
        instance.starts += 1;
        let name = format!("{}/{}", instance.name, instance.starts);
        let process = Rc::new(Process::new(name));
        self.world.trace.line(|| format!("--- {process} starts"));
        let Some(stack) = self.stacks.pop().or_else(|| DefaultStack::new(STACK_BYTES).ok()) else { return };
        let (world, setup, machine) = (Rc::clone(&self.world), self.setup.clone(), Rc::clone(machine));
        let (id, counts) = (instance.name.clone(), Rc::clone(&self.counts));
        // On the heap: a coroutine takes no more than 1,024 bytes from its maker.
        let application = Box::new(self.scenario.application());
        instance.process = Some(Rc::clone(&process));
        instance.last = None;
        instance.coroutine = Some(Coroutine::with_stack(stack, move |yielder, ()| {
            let handle = Handle::new(Rc::clone(&world), Rc::clone(&process), yielder);
            let counter = Counter::new(counts, process.name.clone(), world);
            match live(&handle, &setup, machine, id, *application, counter) {
                Ok(()) => Exit::Left,
                Err(stop) => Exit::Stopped(stop),
            }
        }));
    }

    /// Resumes a worker until it is suspended again.
    fn go_on(&mut self, index: usize) -> Result<(), String> {
        let steps = self.counts.get().steps;
        let Some(instance) = self.instances.get_mut(index) else { return Ok(()) };
        let Some(coroutine) = instance.coroutine.as_mut().filter(|_| instance.frozen_until <= steps) else {
            return Ok(());
        };
        if std::mem::take(&mut instance.frozen_until) > 0 {
            for client in &mut self.world.broker.borrow_mut().clients {
                let owned = instance.process.as_ref().is_some_and(|process| process.name == client.owner);
                client.stalled &= !owned;
            }
        }
        let exit = match coroutine.resume(()) {
            CoroutineResult::Yield(Pause::Call(call)) => {
                instance.at = Some(call);
                return Ok(());
            }
            CoroutineResult::Yield(Pause::Step(step)) => {
                instance.at = None;
                if instance.last != Some(step) {
                    self.world.trace.line(|| format!("{} is {step:?}", instance.name));
                }
                instance.last = Some(step);
                return Ok(());
            }
            CoroutineResult::Return(exit) => exit,
        };
        if let Some(coroutine) = instance.coroutine.take() {
            self.stacks.push(coroutine.into_stack());
        }
        let machine = instance.machine;
        let caught_up = instance.process.take().is_some_and(|process| process.is_caught_up.get());
        instance.last = None;
        match exit {
            Exit::Left => {
                instance.is_done = caught_up;
                self.world.trace.line(|| format!("--- worker-{index} has left"));
                Ok(())
            }
            // What an operator sees as an exit and a restart; the other workers of the process go with it.
            Exit::Stopped(stop) => {
                self.world.trace.line(|| format!("--- worker-{index} stops: {stop}"));
                let tolerated = self.setup.tolerated_stops.contains(&stop.code);
                if !(tolerated || stop.code == CRASHED || stop.code == "FENCED") {
                    return Err(format!("worker-{index} stopped although nothing is wrong: {stop}"));
                }
                self.count(|counts| counts.exits += 1);
                self.count(|counts| counts.tolerated += u64::from(tolerated));
                self.kill(machine);
                Ok(())
            }
        }
    }

    /// No more faults: everybody is up, everything fed; goes on until all are idle.
    fn settle(&mut self) -> Result<(), String> {
        self.world.trace.line(|| "--- no more faults".into());
        self.world.faults.set(Faults::none());
        let count = u64::try_from(self.instances.len()).unwrap_or(1);
        let mut idle_rounds = 0;
        for _ in 0..SETTLE_STEPS {
            self.world.broker.borrow_mut().write_all_markers();
            self.housekeeping();
            let fed = {
                let (mut broker, mut random) = (self.world.broker.borrow_mut(), self.world.random.borrow_mut());
                evict_dead(&mut broker);
                !self.scenario.feed(&mut broker, &mut random)
            };
            for index in 0..self.instances.len() {
                if let Some(instance) = self.instances.get_mut(index) {
                    instance.frozen_until = instance.frozen_until.min(1);
                    if instance.process.is_none() && !instance.is_done {
                        self.start(index);
                    }
                }
                let process = self.instances.get(index).and_then(|instance| instance.process.as_ref());
                if let Some(process) = process.filter(|_| fed && self.setup.until_caught_up) {
                    process.until_caught_up.set(true);
                }
                self.go_on(index)?;
            }
            self.count(|counts| counts.steps += count);
            self.scenario.observe(&self.world.broker.borrow())?;
            if self.instances.iter().all(|instance| instance.is_done) {
                self.world.broker.borrow_mut().write_all_markers();
                return Ok(());
            }
            let assigned = self.world.broker.borrow().unassigned().is_empty();
            let idle = fed
                && assigned
                && !self.setup.until_caught_up
                && self.instances.iter().all(|instance| instance.last == Some(Step::Idle));
            idle_rounds = if idle { idle_rounds + 1 } else { 0 };
            if idle_rounds > 50 {
                return Ok(());
            }
        }
        let last: BTreeMap<_, _> = self.instances.iter().map(|instance| (&instance.name, instance.last)).collect();
        let broker = self.world.broker.borrow();
        let (unassigned, clients) = (broker.unassigned(), broker.clients.iter().filter(|it| !it.dead));
        self.world.trace.line(|| format!("{:?}\n{:?}", broker.group, clients.collect::<Vec<_>>()));
        Err(format!("does not settle without faults: {last:?}, unassigned {unassigned:?}"))
    }
}

/// The life of one worker.
fn live<A: Application>(
    handle: &Handle<'_>,
    setup: &Setup,
    machine: Rc<Machine>,
    id: String,
    application: A,
    counter: Counter,
) -> Result<(), Stop> {
    let mut worker = build(handle, setup, machine, id, application, counter)?;
    let mut drained = 0;
    loop {
        if handle.process.leave.get() {
            worker.leave()?;
        }
        let step = worker.step()?;
        // Twice in a row with nothing done between, as the processor's `Rounds` want it of a single worker.
        let looks = handle.process.until_caught_up.get() && step == Step::Idle;
        drained = if looks && worker.is_drained().unwrap_or(false) { drained + 1 } else { 0 };
        if drained == 2 {
            handle.process.is_caught_up.set(true);
            worker.leave()?;
        }
        if step == Step::Left {
            return Ok(());
        }
        handle.suspend(Pause::Step(step));
    }
}

fn heartbeats(broker: &mut Broker, random: &mut Random) {
    let client = random.below(broker.clients.len());
    broker.background(client);
    if random.chance(1_000) {
        evict_dead(broker);
    }
}

/// Sessions of members whose process is gone end.
fn evict_dead(broker: &mut Broker) {
    let dead: Vec<_> = broker.clients.iter().filter(|it| it.dead).filter_map(MemberClient::member).collect();
    for member in dead {
        broker.group.remove(member);
    }
}

fn compact(topology: &Topology, broker: &mut Broker) {
    for stage in &topology.stages {
        for partition in broker.partitions_of(stage.changelog) {
            if let Some(log) = broker.log_mut(partition) {
                log.compact(i64::MAX);
            }
        }
    }
}
