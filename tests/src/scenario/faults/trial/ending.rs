//! The end of a trial, and what the checker says to it.

use anyhow::{Context as _, Result, ensure};

use super::super::super::workload::sums;
use super::super::super::{end_cleanly, same_remains};
use super::super::recovery::{Recovered, table};
use super::{Trial, collector};
use crate::checker::{self, Facts, report};
use crate::stack::{PATIENCE, Program, wait_until};

impl Trial<'_> {
    /// Ends the load, waits until everything has arrived, ends all programs cleanly, and lets the checker judge.
    pub fn finish(self) -> Result<()> {
        let (seed, facts) = self.end()?;
        let findings = checker::check(&facts);
        ensure!(findings.is_empty(), "with WORKLOAD_SEED={seed}:\n{}", report(&findings));
        Ok(())
    }

    /// As [`Trial::finish`], but returns seed and facts instead of judging them.
    pub fn end(self) -> Result<(u64, Facts)> {
        let name = self.job.name.clone();
        let (seed, facts, recovered) = self.end_measured()?;
        if !recovered.is_empty() {
            eprintln!("{name}\n{}", table(&recovered));
        }
        Ok((seed, facts))
    }

    /// As [`Trial::end`], with how long the output took to recover.
    pub(in crate::scenario::faults) fn end_measured(mut self) -> Result<(u64, Facts, Vec<Recovered>)> {
        let work = self.load.take().context("the load has ended before")?.finish()?;
        let (seed, rows) = (work.seed(), work.rows()?);
        for slot in &mut self.programs {
            slot.up(self.job.stack)?;
        }
        let sums = sums(&rows);
        let mut last = String::new();
        let arrived = wait_until("everything to arrive", || {
            self.tend()?;
            let remains = self.job.target()?.remains();
            // The target may just be coming back.
            let Ok(remains) = remains else { return Ok(false) };
            match same_remains(&remains, &sums) {
                Ok(()) => self.job.is_processed(),
                Err(error) => {
                    last = format!("{error:#}");
                    Ok(false)
                }
            }
        });
        let logs =
            if arrived.is_err() { self.logs() } else { self.until_all_hear_signals().map(|()| String::new())? };
        for slot in self.programs {
            end_cleanly(&mut slot.running.into_iter().collect::<Vec<_>>())?;
        }
        let collector = collector(&self.job);
        collector.wait_settled(PATIENCE)?;
        let mut facts = collector.collect(Some(self.live))?;
        facts.rows = Some(rows);
        facts.read_target(self.job.target()?)?;
        if let Err(error) = arrived {
            let findings = report(&checker::check(&facts));
            return Err(error.context(format!("with WORKLOAD_SEED={seed}: {last}\n{findings}\n{logs}")));
        }
        Ok((seed, facts, self.meter.finish()?))
    }

    /// What the checker finds after a failure: programs are killed, nothing is drained, so what waits to be processed is
    /// found, too. Tells whether something is wrong already.
    pub(in crate::scenario::faults) fn autopsy(mut self) -> Result<String> {
        self.programs.clear();
        self.load = None;
        let collector = collector(&self.job);
        collector.wait_settled(PATIENCE)?;
        Ok(report(&checker::check(&collector.collect(Some(self.live))?)))
    }

    fn until_all_hear_signals(&mut self) -> Result<()> {
        for program in [Program::Processor, Program::Sink] {
            let count = self.programs.iter().filter(|slot| slot.spec.program == program).count();
            (0..count).try_for_each(|instance| self.until_it_hears_signals(program, instance))?;
        }
        Ok(())
    }
}
