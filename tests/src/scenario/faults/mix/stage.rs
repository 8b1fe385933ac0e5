//! Faults done and undone on a stack, at their time.
//!
//! Owns what is hurt at the moment. What ends by itself meanwhile, and is said to be helped by a restart, the [`Trial`]
//! restarts; a connector that has failed, an operator does, in a thread of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::super::super::tail;
use super::super::Trial;
use super::super::processor::{flip_bits, rewrite_data_files};
use super::super::recovery::Output;
use super::super::shop::{CONNECTOR, connect};
use super::super::trial::{is_restarted, output_of};
use super::schedule::{Cast, Damage, Fault, Planned};
use super::tell;
use crate::client::{Connect, ResetTo};
use crate::stack::{Component, Program, RunningProgram, Stack};

/// Between two looks at the clock.
const STEP: Duration = Duration::from_millis(100);

/// A program that was told to stop is killed after this, as a container engine does it.
const GRACE: Duration = Duration::from_secs(20);

/// The signal that tells a program to stop.
const TERMINATED: i32 = 15;

/// When moving the sinks' offsets is given up: the brokers may be too busy with themselves.
const RESET_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks of the operator at the connector.
const OPERATOR_INTERVAL: Duration = Duration::from_secs(2);

/// A trial and what is being done to it.
pub(super) struct Stage<'a> {
    stack: &'a dyn Stack,
    trial: Trial<'a>,
    cast: Cast,
    began: Instant,
    open: Vec<Open>,
    operator: Option<Operator>,
}

/// A fault that is not over.
struct Open {
    fault: Fault,
    /// When it is to be over.
    due: Instant,
    /// A program on its way to its end.
    ending: Option<Box<dyn RunningProgram>>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(stack: &'a dyn Stack, trial: Trial<'a>, cast: Cast) -> Result<Self> {
        let has_connector = cast.servers.contains(&Component::Connect);
        let operator = has_connector.then(|| Operator::start(connect(stack)?)).transpose()?;
        Ok(Self { stack, trial, cast, began: Instant::now(), open: Vec::new(), operator })
    }

    /// Does everything that is planned at its time, and returns when all of it is over.
    pub(super) fn play(&mut self, planned: &[Planned]) -> Result<()> {
        self.began = Instant::now();
        let mut coming = planned.iter().peekable();
        loop {
            self.undo_what_is_due()?;
            while let Some(next) = coming.next_if(|next| next.at <= self.began.elapsed() && !self.is_hurt(&next.fault))
            {
                self.begin(next)?;
            }
            if coming.peek().is_none() && self.open.is_empty() {
                return Ok(());
            }
            self.trial.for_the_length_of(STEP)?;
        }
    }

    /// Waits until all servers are healthy, and every partition has gone on and caught up after every fault.
    pub(super) fn calm(&mut self) -> Result<()> {
        self.say("no more faults");
        self.stack.wait_all_healthy()?;
        self.trial.until("recovery from every fault", |trial| Ok(trial.recoveries_open() == 0))?;
        self.say("every partition has gone on, and caught up");
        Ok(())
    }

    /// After a failure: servers are set going again, and the checker says what is wrong by then.
    pub(super) fn autopsy(self) -> Result<String> {
        for component in self.stack.components() {
            // One that is off the network, frozen or down; the others have nothing to be undone.
            let _was_not = self.stack.reconnect(component);
            let _was_not = self.stack.resume(component);
            let _was_not = self.stack.start(component);
        }
        self.stack.wait_all_healthy()?;
        self.trial.autopsy()
    }

    /// The trial, and who goes on looking after the connector.
    pub(super) fn into_parts(self) -> (Trial<'a>, Option<Operator>) {
        (self.trial, self.operator)
    }

    /// Plans are kept exactly by those who keep time: what is late with coming back is not hurt again yet.
    fn is_hurt(&self, fault: &Fault) -> bool {
        let victims = fault.victims(&self.cast);
        self.open.iter().any(|open| open.fault.victims(&self.cast).iter().any(|hurt| victims.contains(hurt)))
    }

    fn say(&self, what: impl std::fmt::Display) {
        let (time, records) = (self.began.elapsed().as_secs_f64(), self.trial.committed());
        tell(format_args!("{time:7.1} s, {records} records: {what}"));
    }

    fn begin(&mut self, planned: &Planned) -> Result<()> {
        let fault = &planned.fault;
        self.trial.meter().disturb(fault.output());
        self.trial.meter().stopped(self.open.iter().map(|open| open.fault.output()).collect());
        self.say(format_args!("{fault}, for {:.1} s", planned.lasts.as_secs_f64()));
        let mut ending = None;
        match fault {
            Fault::Killed(program, instance) => self.trial.kill(*program, *instance)?,
            Fault::Stopped(program, instance) => ending = Some(self.trial.take_terminated(*program, *instance)?),
            Fault::Asleep(program, instance) => {
                let running = self.trial.running(*program, *instance)?;
                if let Err(error) = running.pause() {
                    // It may have ended by itself just now; then it is started again, and nobody is asleep.
                    running.exit()?.ok_or(error)?;
                    self.say(format_args!("{program} {instance} was faster"));
                    return Ok(());
                }
            }
            Fault::StateDamaged(instance, damage) => {
                self.trial.kill(Program::Processor, *instance)?;
                let name = self.trial.job.processor(u32::try_from(*instance)?).name;
                harm(&self.stack.state_directory(&name), *damage).with_context(|| format!("{fault}"))?;
            }
            Fault::ScaledOut(instance) => {
                if self.trial.has(Program::Processor, *instance) {
                    self.trial.up(Program::Processor, *instance)?;
                } else {
                    self.trial.add_processor()?;
                }
                self.trial.recovers_from(fault.kind(), Output::Topic);
            }
            Fault::SinkOffsetsReset(_) => {
                for instance in 0..self.cast.sinks {
                    self.trial.kill_as_part_of_a_fault(Program::Sink, instance)?;
                }
            }
            Fault::ServersKilled(servers) => {
                if servers.len() > 1 {
                    self.wait_in_sync()?;
                }
                servers.iter().try_for_each(|server| self.stack.kill(*server))?;
                if matches!(servers.as_slice(), [Component::Broker(_)]) {
                    // The others take over: that is what takes time, not its coming back.
                    self.trial.recovers_from(fault.kind(), Output::Topic);
                }
            }
            Fault::BrokerStopped(broker) => {
                let broker = Component::Broker(*broker);
                if let Err(error) = self.stack.stop(broker) {
                    // It waits for others that are still busy with coming back.
                    self.say(format_args!("{broker} does not stop and is killed: {error:#}"));
                    self.stack.kill(broker)?;
                }
            }
            Fault::BrokerAsleep(broker) => self.stack.pause(Component::Broker(*broker))?,
            Fault::BrokerCutOff(broker) => self.stack.cut_off(Component::Broker(*broker))?,
        }
        self.open.push(Open { fault: fault.clone(), due: Instant::now() + planned.lasts, ending });
        Ok(())
    }

    /// Waits until brokers have come back from whatever was done to them before. A cluster that loses most of itself while it
    /// recovers may lose the marker of a transaction (docs/GUARANTEES.md), and then somebody has to end that.
    fn wait_in_sync(&self) -> Result<()> {
        let is_broker = |component: &Component| matches!(component, Component::Broker(_));
        self.cast
            .servers
            .iter()
            .filter(|server| is_broker(server))
            .try_for_each(|broker| self.stack.wait_healthy(*broker))
    }

    fn undo_what_is_due(&mut self) -> Result<()> {
        let now = Instant::now();
        let (due, mut open): (Vec<Open>, Vec<Open>) =
            std::mem::take(&mut self.open).into_iter().partition(|open| open.due <= now);
        self.trial.meter().stopped(open.iter().map(|open| open.fault.output()).collect());
        for mut fault in due {
            if self.undo(&mut fault)? {
                self.say(format_args!("over: {}", fault.fault));
            } else {
                open.push(fault);
            }
        }
        self.open = open;
        Ok(())
    }

    /// Whether it is over.
    fn undo(&mut self, open: &mut Open) -> Result<bool> {
        let kind = open.fault.kind();
        match &open.fault {
            Fault::Killed(program, instance) => self.trial.up(*program, *instance)?,
            Fault::Stopped(program, instance) => {
                let (program, instance) = (*program, *instance);
                if !self.has_ended(open)? {
                    return Ok(false);
                }
                self.trial.up(program, instance)?;
            }
            Fault::Asleep(program, instance) => {
                self.trial.running(*program, *instance)?.resume()?;
                self.trial.recovers_from(kind, output_of(*program));
            }
            Fault::StateDamaged(instance, _) => {
                self.trial.up(Program::Processor, *instance)?;
                self.trial.recovers_from(kind, Output::Topic);
            }
            Fault::ScaledOut(instance) => {
                if open.ending.is_none() {
                    open.ending = Some(self.trial.take_terminated(Program::Processor, *instance)?);
                }
                return self.has_ended(open);
            }
            Fault::SinkOffsetsReset(to) => {
                if !self.offsets_are_reset(*to, open.due)? {
                    return Ok(false);
                }
                for instance in 0..self.cast.sinks {
                    self.trial.up(Program::Sink, instance)?;
                }
                self.trial.recovers_from(kind, Output::Target);
            }
            Fault::ServersKilled(servers) => {
                servers.iter().try_for_each(|server| self.stack.start(*server))?;
                match servers.as_slice() {
                    [Component::Broker(_)] => {}
                    [Component::TargetDatabase] => self.trial.recovers_from(kind, Output::Target),
                    _ => self.trial.recovers_from(kind, Output::Topic),
                }
            }
            Fault::BrokerStopped(broker) => {
                self.stack.start(Component::Broker(*broker))?;
                self.trial.recovers_from(kind, Output::Topic);
            }
            Fault::BrokerAsleep(broker) => {
                self.stack.resume(Component::Broker(*broker))?;
                self.trial.recovers_from(kind, Output::Topic);
            }
            Fault::BrokerCutOff(broker) => {
                self.stack.reconnect(Component::Broker(*broker))?;
                self.trial.recovers_from(kind, Output::Topic);
            }
        }
        Ok(true)
    }

    /// Whether a program that was told to stop has ended. Fails if it ended in a way that nobody may.
    fn has_ended(&self, open: &mut Open) -> Result<bool> {
        let Some(ending) = &mut open.ending else { return Ok(true) };
        let Some(exit) = ending.exit()? else {
            if open.due + GRACE < Instant::now() {
                self.say(format_args!("{} does not stop and is killed", ending.name()));
                ending.kill()?;
                open.ending = None;
            }
            return Ok(open.ending.is_none());
        };
        // With brokers down it may not get to a clean end, and one that was only just started does not hear the signal.
        if !exit.is_clean() && !is_restarted(exit) && exit.signal != Some(TERMINATED) {
            bail!("{}, told to stop, ended with {exit}:\n{}", ending.name(), tail(&ending.log()?));
        }
        open.ending = None;
        Ok(true)
    }

    /// Moves the offsets of the sinks' group, which takes a group without members and a coordinator at work.
    fn offsets_are_reset(&self, to: ResetTo, since: Instant) -> Result<bool> {
        let (job, group) = (&self.trial.job, self.trial.job.sink_group());
        let reset = job.kafka.group_has_members(&group).and_then(|has_members| {
            if has_members {
                return Ok(false);
            }
            job.kafka.reset_group_offsets(&group, &job.topic("deltas"), to).map(|()| true)
        });
        match reset {
            Ok(true) => Ok(true),
            Ok(false) | Err(_) if since + RESET_WITHIN > Instant::now() => Ok(false),
            Ok(false) => bail!("the killed sinks are members of their group after {RESET_WITHIN:?}"),
            Err(error) => {
                self.say(format_args!("offsets of the sinks stay as they are: {error:#}"));
                Ok(true)
            }
        }
    }
}

fn harm(directory: &Path, damage: Damage) -> Result<()> {
    // Killed before it had made one.
    if !directory.exists() {
        return Ok(());
    }
    match damage {
        Damage::Removed => fs::remove_dir_all(directory)?,
        Damage::Truncated => drop(rewrite_data_files(directory, |bytes| bytes.truncate(bytes.len() / 2))?),
        Damage::BitsFlipped => drop(rewrite_data_files(directory, |bytes| flip_bits(bytes))?),
    }
    Ok(())
}

/// Restarts the connector where it has failed, until dropped.
pub(super) struct Operator(Arc<AtomicBool>);

impl Operator {
    fn start(connect: Connect) -> Result<Self> {
        let gone = Arc::new(AtomicBool::new(false));
        let leaves = Arc::clone(&gone);
        let work = move || {
            while !leaves.load(Ordering::Relaxed) {
                // Connect may be down, or busy with coming up: looked at again soon.
                if let Ok(Some(state)) = connect.state(CONNECTOR)
                    && (state.connector == "FAILED" || state.tasks.iter().any(|task| task == "FAILED"))
                {
                    let _next_time = connect.restart(CONNECTOR);
                }
                std::thread::sleep(OPERATOR_INTERVAL);
            }
        };
        std::thread::Builder::new().name("operator".into()).spawn(work).context("no operator")?;
        Ok(Self(gone))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
