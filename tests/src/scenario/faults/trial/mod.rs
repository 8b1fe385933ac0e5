//! One job under load with two processors and two sinks, from its start to the checker's verdict.

mod ending;
mod observed;

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tempfile::NamedTempFile;

use super::super::workload::{Load, TopicWork, Work, Workload};
use super::super::{Job, tail, wait_ended_cleanly};
use super::recovery::{Meter, Output};
use crate::checker::{Collector, LiveReader};
use crate::proxy::Proxy;
use crate::stack::{
    Exit, FailAction, PATIENCE, Program, ProgramSpec, RunningProgram, Stack, wait_for, wait_for_within, wait_until,
};

/// How long a member may be silent before the group goes on without it. Shorter than the programs' default, so that
/// a kill costs seconds; the least that brokers allow unless told otherwise.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a program is waited for before it is asked again.
const ONE_ANSWER: Duration = Duration::from_secs(5);

/// What a program logs when a fail point strikes.
const FAIL_POINT: &str = "fail point ";

/// Sinks of every trial.
pub(super) const SINKS: usize = 2;

/// Exit codes after which a restart helps: a client that cannot go on, and the watchdog.
const RESTARTED: [i32; 2] = [1, 5];

/// Whether a restart helps a program that ended so.
pub(super) fn is_restarted(exit: Exit) -> bool {
    exit.code.is_some_and(|code| RESTARTED.contains(&code))
}

/// A job under load.
pub struct Trial<'a> {
    /// The job.
    pub job: Job<'a>,
    programs: Vec<Slot>,
    /// `None` once the load has ended.
    load: Option<Load>,
    live: LiveReader,
    meter: Meter,
    configuration: NamedTempFile,
}

/// A program that is meant to exist, whether it runs at the moment or not.
struct Slot {
    spec: ProgramSpec,
    /// What runs, or ran last: `spec`, or with fail points.
    last: ProgramSpec,
    running: Option<Box<dyn RunningProgram>>,
    restarts: usize,
    /// Bytes of its log that are of runs before the fail point.
    logged_before: usize,
}

impl<'a> Trial<'a> {
    /// Two processors, two sinks, load running, everything at work.
    pub fn start(stack: &'a dyn Stack, name: &str) -> Result<Self> {
        Self::start_with(stack, name, 2)
    }

    /// As [`Trial::start`] with another number of processors at the beginning.
    pub fn start_with(stack: &'a dyn Stack, name: &str, processors: u32) -> Result<Self> {
        let job = Job::for_workload(stack, name)?;
        let work = topic_work(&job);
        Self::under(job, work, processors)
    }

    /// As [`Trial::start`]; the first of the two processors comes to the brokers through a proxy.
    pub fn start_through(stack: &'a dyn Stack, name: &str, proxy: &Proxy) -> Result<Self> {
        let job = Job::for_workload(stack, name)?;
        let work = topic_work(&job);
        let proxied = job.processor(0).flag("--bootstrap-servers", proxy.bootstrap_servers());
        let processors = vec![proxied, job.processor(1)];
        Self::of(job, work, processors)
    }

    /// A job of its own under a load of its own.
    pub fn under(job: Job<'a>, work: Box<dyn Work>, processors: u32) -> Result<Self> {
        let processors = (0..processors).map(|instance| job.processor(instance)).collect();
        Self::of(job, work, processors)
    }

    /// A job of its own under a load of its own, with processors as specified.
    pub fn of(job: Job<'a>, work: Box<dyn Work>, processors: Vec<ProgramSpec>) -> Result<Self> {
        Self::configured(job, work, processors, SESSION_TIMEOUT, "")
    }

    /// As [`Trial::of`], with another session timeout and further lines for the consumers of all programs.
    pub fn configured(
        job: Job<'a>,
        work: Box<dyn Work>,
        processors: Vec<ProgramSpec>,
        session: Duration,
        consumers: &str,
    ) -> Result<Self> {
        let stack = job.stack;
        let configuration = configuration(stack, session, consumers)?;
        let mut programs = Vec::new();
        for processor in processors {
            programs.push(Slot::start(stack, processor, &configuration)?);
        }
        for instance in 0..SINKS {
            let instance = u32::try_from(instance)?;
            programs.push(Slot::start(stack, job.sink(instance)?, &configuration)?);
        }
        let collector = collector(&job);
        wait_until("the processor's topics", || {
            let existing = job.kafka.topics()?;
            Ok(collector.own_topics().iter().all(|topic| existing.contains(topic)))
        })?;
        let live = LiveReader::start(&job.kafka, &collector.own_topics())?;
        let meter = Meter::start(&job)?;
        let load = Load::start(work)?;
        let mut trial = Self { job, programs, load: Some(load), live, meter, configuration };
        trial.progress(200)?;
        Ok(trial)
    }

    /// How many records of the processors a reader has seen.
    pub fn seen(&self) -> usize {
        self.live.count()
    }

    /// Waits until so many further records of the processors are committed, and visible to a reader.
    pub fn progress(&mut self, records: usize) -> Result<()> {
        let goal = self.live.count() + records;
        self.until(format!("{records} further records"), |trial| Ok(trial.live.count() >= goal))
    }

    /// Waits until something holds, with everything going on as usual.
    pub fn until(&mut self, what: impl Display, mut holds: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let came = wait_until(what, || {
            self.tend()?;
            holds(self)
        });
        self.with_logs(came)
    }

    /// Waits until a number has come to its goal; gives up only when it has stopped growing.
    pub fn until_reached(&mut self, what: &str, goal: i64, measure: impl Fn(&Self) -> Result<i64>) -> Result<()> {
        let mut now = measure(self)?;
        while now < goal {
            let before = now;
            self.until(format!("{what}: {goal}, after {before}"), |trial| {
                now = measure(trial)?;
                Ok(now > before)
            })?;
        }
        Ok(())
    }

    /// Lets time pass while a fault lasts: its length is part of the fault.
    pub fn for_the_length_of(&mut self, fault: Duration) -> Result<()> {
        let deadline = std::time::Instant::now() + fault;
        wait_for_within("the end of a fault", fault + PATIENCE, || {
            self.tend()?;
            Ok((std::time::Instant::now() >= deadline).then_some(()))
        })
    }

    /// Waits until a processor that is asleep has been put out of the group, and the group has gone on without it.
    pub fn until_out_of_the_group(&mut self, instance: usize) -> Result<()> {
        let group = self.job.application_id().to_owned();
        let own = format!("{group}-{instance}-");
        self.until(format!("processor {instance} to be put out of the group"), |trial| {
            // The coordinator may just be another one.
            let Ok(members) = trial.job.kafka.group_members(&group) else { return Ok(false) };
            Ok(!members.iter().any(|member| member.starts_with(&own)))
        })
    }

    /// Restarts what ended in a way a restart is said to help; fails on any other end.
    fn tend(&mut self) -> Result<()> {
        ensure!(!self.load.as_ref().is_some_and(Load::has_failed), "the workload cannot be written any more");
        for slot in &mut self.programs {
            let Some(running) = &mut slot.running else { continue };
            let Some(exit) = running.exit()? else { continue };
            if !is_restarted(exit) {
                bail!("{} ended with {exit}:\n{}", running.name(), tail(&running.log()?));
            }
            slot.restarts += 1;
            // As it was: a fail point that has not come yet is still to come, one that has is not to come again.
            let log = running.log()?;
            let has_struck = log.get(slot.logged_before..).is_some_and(|log| log.contains(FAIL_POINT));
            let spec = if has_struck { slot.spec.clone() } else { slot.last.clone() };
            slot.run(self.job.stack, spec)?;
        }
        self.live.check()
    }

    fn slot(&mut self, program: Program, instance: usize) -> Result<&mut Slot> {
        let slot = self.programs.iter_mut().filter(|slot| slot.spec.program == program).nth(instance);
        slot.with_context(|| format!("there is no {program} {instance}"))
    }

    /// The handle of a program that runs.
    pub fn running(&mut self, program: Program, instance: usize) -> Result<&mut Box<dyn RunningProgram>> {
        self.slot(program, instance)?.running.as_mut().with_context(|| format!("{program} {instance} does not run"))
    }

    /// Whether a program is meant to exist.
    pub(super) fn has(&mut self, program: Program, instance: usize) -> bool {
        self.slot(program, instance).is_ok()
    }

    /// Whether a program is meant to run at the moment.
    pub fn is_up(&mut self, program: Program, instance: usize) -> Result<bool> {
        Ok(self.slot(program, instance)?.running.is_some())
    }

    /// Takes the time from now until every partition has gone on, and until everything has caught up.
    pub(super) fn recovers_from(&self, fault: &'static str, output: Output) {
        self.meter.begin(fault, output);
    }

    /// The times that are being taken.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// How many recoveries are still being waited for.
    pub(super) fn recoveries_open(&self) -> usize {
        self.meter.open()
    }

    /// How many records of the processors are committed, and have come to a reader.
    pub(super) fn committed(&self) -> usize {
        self.live.count()
    }

    /// How often programs have ended by themselves, and were started again.
    pub(super) fn restarts(&self) -> usize {
        self.programs.iter().map(|slot| slot.restarts).sum()
    }

    /// SIGTERM; the handle is the caller's, who sees to its end. It stays down until [`Trial::up`].
    pub(super) fn take_terminated(&mut self, program: Program, instance: usize) -> Result<Box<dyn RunningProgram>> {
        let running = self.slot(program, instance)?.running.take();
        let mut running = running.with_context(|| format!("{program} {instance} does not run"))?;
        if let Err(error) = running.terminate() {
            // It may have ended by itself just now.
            running.exit()?.ok_or(error)?;
        }
        self.recovers_from(told_to_stop(program), output_of(program));
        Ok(running)
    }

    /// SIGKILL; it stays down until [`Trial::up`].
    pub fn kill(&mut self, program: Program, instance: usize) -> Result<()> {
        self.kill_as_part_of_a_fault(program, instance)?;
        self.recovers_from(killed(program), output_of(program));
        Ok(())
    }

    /// As [`Trial::kill`], without taking the time of it.
    pub(super) fn kill_as_part_of_a_fault(&mut self, program: Program, instance: usize) -> Result<()> {
        let running = self.running(program, instance)?;
        running.kill()?;
        let logged = running.log()?.len();
        let slot = self.slot(program, instance)?;
        (slot.running, slot.logged_before) = (None, logged);
        Ok(())
    }

    /// SIGTERM, and a clean end; it stays down until [`Trial::up`].
    pub fn terminate(&mut self, program: Program, instance: usize) -> Result<()> {
        self.until_it_hears_signals(program, instance)?;
        // Told once: a second signal ends a program at once.
        let mut running = self.take_terminated(program, instance)?;
        wait_ended_cleanly(running.as_mut())
    }

    /// A program that has only just been started dies of a SIGTERM as any other would: no harm is done, but it is no clean end.
    /// It answers over HTTP once it hears signals.
    pub(super) fn until_it_hears_signals(&mut self, program: Program, instance: usize) -> Result<()> {
        let url = format!("http://{}/live", self.running(program, instance)?.http_address());
        self.until(format!("{program} {instance} to answer"), |_| {
            let request = ureq::get(&url).config().timeout_global(Some(ONE_ANSWER)).http_status_as_error(false).build();
            Ok(request.call().is_ok())
        })
    }

    /// Runs a processor with a fail point from now on, in the place of the one that runs or is down.
    pub fn up_with_fail_point(&mut self, instance: usize, name: &str, action: FailAction, pass: u64) -> Result<()> {
        self.up_as(instance, |spec| spec.fail_point(name, action, pass))
    }

    /// As [`Trial::up_with_fail_point`], with any fail points: `FAIL_POINT` as the processor reads it.
    pub fn up_with_fail_points(&mut self, instance: usize, points: &str) -> Result<()> {
        self.up_as(instance, |spec| ProgramSpec { with_fail_points: true, ..spec.env("FAIL_POINT", points) })
    }

    /// Runs a processor in another way from now on, in the place of the one that runs (killed) or is down.
    pub fn up_as(&mut self, instance: usize, other: impl FnOnce(ProgramSpec) -> ProgramSpec) -> Result<()> {
        let stack = self.job.stack;
        let slot = self.slot(Program::Processor, instance)?;
        if let Some(mut running) = slot.running.take() {
            running.kill()?;
            slot.logged_before = running.log()?.len();
        }
        slot.run(stack, other(slot.spec.clone()))
    }

    /// Waits until a fail point has killed its processor; it is down then.
    pub fn killed_by_fail_point(&mut self, instance: usize, name: &str) -> Result<()> {
        const KILLED: i32 = 9;
        loop {
            let (exit, log) = self.ended(Program::Processor, instance).with_context(|| format!("the end at {name}"))?;
            if !is_restarted(exit) {
                ensure!(exit.signal == Some(KILLED), "ended with {exit} instead of at {name}:\n{}", tail(&log));
                return Ok(());
            }
            let stack = self.job.stack;
            let slot = self.slot(Program::Processor, instance)?;
            slot.run(stack, slot.last.clone())?;
        }
    }

    /// Waits until a program has ended by itself, and returns how, and what it has logged; it is down then.
    pub fn ended(&mut self, program: Program, instance: usize) -> Result<(Exit, String)> {
        let mut ending = self.slot(program, instance)?.running.take().context("it does not run")?;
        let ended = wait_for(format!("the end of {}", ending.name()), || {
            self.tend()?;
            ending.exit()
        });
        let log = ending.log()?;
        let slot = self.slot(program, instance)?;
        let exit = ended.map_err(|error| anyhow!("{error:#}\n{}", tail(&log)))?;
        let logged = log.get(slot.logged_before..).unwrap_or_default().to_owned();
        slot.logged_before = log.len();
        Ok((exit, logged))
    }

    /// Starts a program that is down.
    pub fn up(&mut self, program: Program, instance: usize) -> Result<()> {
        let stack = self.job.stack;
        self.slot(program, instance)?.up(stack)
    }

    /// Adds a further processor.
    pub fn add_processor(&mut self) -> Result<()> {
        let count = self.programs.iter().filter(|slot| slot.spec.program == Program::Processor).count();
        let spec = self.job.processor(u32::try_from(count)?);
        self.programs.push(Slot::start(self.job.stack, spec, &self.configuration)?);
        Ok(())
    }

    /// Everything a program has logged.
    pub fn log(&mut self, program: Program, instance: usize) -> Result<String> {
        self.running(program, instance)?.log()
    }

    /// An error with what the programs have logged lately. What went wrong comes first, the logs are long.
    fn with_logs<T>(&self, came: Result<T>) -> Result<T> {
        came.map_err(|error| anyhow!("{error:#}\n{}", self.logs()))
    }

    fn logs(&self) -> String {
        let of = |slot: &Slot| {
            let log = slot.running.as_ref().and_then(|running| running.log().ok()).unwrap_or_default();
            format!("--- {} (restarted {} times)\n{}\n", slot.spec.name, slot.restarts, tail(&log))
        };
        self.programs.iter().map(of).collect()
    }
}

impl Slot {
    fn start(stack: &dyn Stack, spec: ProgramSpec, configuration: &NamedTempFile) -> Result<Self> {
        let spec = spec.flag("--config", configuration.path().display());
        let running = Some(stack.run(&spec)?);
        Ok(Self { last: spec.clone(), spec, running, restarts: 0, logged_before: 0 })
    }

    /// Starts it as the job wants it, unless it runs.
    fn up(&mut self, stack: &dyn Stack) -> Result<()> {
        if self.running.is_none() { self.run(stack, self.spec.clone()) } else { Ok(()) }
    }

    fn run(&mut self, stack: &dyn Stack, spec: ProgramSpec) -> Result<()> {
        self.running = Some(stack.run(&spec)?);
        self.last = spec;
        Ok(())
    }
}

const fn killed(program: Program) -> &'static str {
    match program {
        Program::Processor => "processor killed",
        Program::Sink => "sink killed",
    }
}

const fn told_to_stop(program: Program) -> &'static str {
    match program {
        Program::Processor => "processor told to stop",
        Program::Sink => "sink told to stop",
    }
}

/// The output that stands still without a program.
pub(super) const fn output_of(program: Program) -> Output {
    match program {
        Program::Processor => Output::Topic,
        Program::Sink => Output::Target,
    }
}

/// The usual load on the input topic of a job.
pub(super) fn topic_work(job: &Job<'_>) -> Box<dyn Work> {
    let workload = Workload::new(Workload::any_seed());
    Box::new(TopicWork::new(job.kafka.clone(), job.source_topic.clone(), workload))
}

/// Fetches what the checker judges of a job.
pub(super) fn collector<'a>(job: &'a Job<'_>) -> Collector<'a> {
    Collector::new(&job.kafka, &job.source_topic, &job.topic_prefix, job.application_id())
}

/// A configuration file for processors and sinks with a session timeout and further lines.
fn configuration(stack: &dyn Stack, session: Duration, consumers: &str) -> Result<NamedTempFile> {
    let directory = stack.shared_directory();
    let mut file = tempfile::Builder::new().prefix("faults-").suffix(".toml").tempfile_in(directory)?;
    let timeout = session.as_millis();
    write!(
        file,
        "[kafka.consumer]\n\"session.timeout.ms\" = \"{timeout}\"\n\"heartbeat.interval.ms\" = \"{}\"\n{consumers}",
        timeout / 5
    )?;
    file.flush()?;
    Ok(file)
}
