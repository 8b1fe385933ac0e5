//! Load that can be told to rest, and to write one thing that a test chooses while nothing else happens.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::super::Job;
use super::super::workload::{TopicWork, Work, Workload};
use crate::checker::Contribution;
use crate::client::OutgoingRecord;
use crate::stack::wait_until;

type Order = Box<dyn FnOnce(&mut Workload) -> Vec<OutgoingRecord> + Send>;

#[derive(Default)]
struct Shared {
    rests: AtomicBool,
    order: Mutex<Option<Order>>,
    done: AtomicBool,
}

impl Shared {
    fn order(&self) -> MutexGuard<'_, Option<Order>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The usual load on the input topic of a job, under control.
struct Phased {
    work: TopicWork,
    shared: Arc<Shared>,
}

/// Tells it what to do.
pub(super) struct Control(Arc<Shared>);

/// The usual load on the input topic of a job, and who tells it what to do.
pub(super) fn controlled(job: &Job<'_>) -> (Box<dyn Work>, Control) {
    let workload = Workload::new(Workload::any_seed());
    let work = TopicWork::new(job.kafka.clone(), job.source_topic.clone(), workload);
    let shared = Arc::<Shared>::default();
    (Box::new(Phased { work, shared: Arc::clone(&shared) }), Control(shared))
}

impl Control {
    /// The usual load from now on.
    pub(super) fn work(&self) {
        self.0.rests.store(false, Ordering::Release);
    }

    /// No load from now on; the last step is over when this returns.
    pub(super) fn rest(&self) -> Result<()> {
        self.0.rests.store(true, Ordering::Release);
        self.write(|_| Vec::new())
    }

    /// Has these records written, and returns when they are.
    pub(super) fn write(
        &self,
        order: impl FnOnce(&mut Workload) -> Vec<OutgoingRecord> + Send + 'static,
    ) -> Result<()> {
        self.0.done.store(false, Ordering::Release);
        *self.0.order() = Some(Box::new(order));
        wait_until("the workload to write what it was told to", || Ok(self.0.done.load(Ordering::Acquire)))
    }
}

impl Work for Phased {
    fn step(&mut self) -> Result<usize> {
        let order = self.shared.order().take();
        if let Some(order) = order {
            let records = order(&mut self.work.workload);
            self.work.write(&records)?;
            self.shared.done.store(true, Ordering::Release);
            return Ok(records.len());
        }
        if self.shared.rests.load(Ordering::Acquire) { Ok(0) } else { self.work.step() }
    }

    fn rows(&self) -> Result<BTreeMap<String, Contribution>> {
        self.work.rows()
    }

    fn seed(&self) -> u64 {
        self.work.seed()
    }
}
