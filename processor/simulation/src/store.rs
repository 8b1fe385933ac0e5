//! The state store of one machine, in memory: survives its processes, may lose its newest batches.
//!
//! Owns what a disk would hold. A batch is applied whole or not at all; a power cut may take back the last
//! few batches, a lost disk everything (invariant 5: the changelog is the durable copy). Never shared by
//! two open handles of one partition.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

use processor_engine::mark::Progress;
use processor_engine::store::Write;
use processor_engine::{Failure, PartitionStore, StatePartition, StateStore};

use crate::scheduler::Call;
use crate::world::Handle;

/// Batches a power cut can take back.
const UNSYNCED_BATCHES: usize = 4;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// One batch's inverse: what its keys held before, and the progress before.
type Undo = (Vec<(Vec<u8>, Option<Vec<u8>>)>, Option<Progress>);

#[derive(Debug, Default)]
struct Partition {
    state: State,
    progress: Option<Progress>,
    undo: VecDeque<Undo>,
    open: Rc<Cell<bool>>,
}

impl Partition {
    fn apply(&mut self, writes: &[Write<'_>], progress: &Progress) {
        let mut before = Vec::with_capacity(writes.len());
        for write in writes {
            let old = match write.value {
                Some(value) => self.state.insert(write.key.to_vec(), value.to_vec()),
                None => self.state.remove(write.key),
            };
            before.push((write.key.to_vec(), old));
        }
        let progress_before = self.progress.replace(progress.clone());
        if self.undo.len() == UNSYNCED_BATCHES {
            self.undo.pop_front();
        }
        self.undo.push_back((before, progress_before));
    }

    fn take_back_one(&mut self) {
        let Some((before, progress)) = self.undo.pop_back() else { return };
        for (key, old) in before.into_iter().rev() {
            match old {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        self.progress = progress;
    }
}

/// The disk of one machine.
#[derive(Debug, Default)]
pub struct Machine {
    partitions: RefCell<BTreeMap<StatePartition, Rc<RefCell<Partition>>>>,
}

impl Machine {
    /// The disk is replaced by an empty one.
    pub fn lose_everything(&self) {
        self.partitions.borrow_mut().clear();
    }

    /// A power cut: every partition goes back by up to `batches` batches.
    pub fn lose_newest(&self, batches: usize) {
        for partition in self.partitions.borrow().values() {
            for _ in 0..batches {
                partition.borrow_mut().take_back_one();
            }
        }
    }
}

/// [`StateStore`] on a [`Machine`], for one worker of one process.
#[derive(Debug, Clone)]
pub struct SimulatedStore<'y> {
    handle: Handle<'y>,
    machine: Rc<Machine>,
}

impl<'y> SimulatedStore<'y> {
    /// A store for one worker.
    pub fn new(handle: Handle<'y>, machine: Rc<Machine>) -> Self {
        Self { handle, machine }
    }
}

impl<'y> StateStore for SimulatedStore<'y> {
    type Partition = OpenPartition<'y>;

    fn open(&mut self, partition: StatePartition) -> Result<OpenPartition<'y>, Failure> {
        self.handle.process.check()?;
        let data = Rc::clone(self.machine.partitions.borrow_mut().entry(partition).or_default());
        let open = Rc::clone(&data.borrow().open);
        if open.replace(true) {
            return Err(Failure::Busy(format!("state of {partition:?} is open in another worker")));
        }
        Ok(OpenPartition { handle: self.handle.clone(), partition, data, open })
    }
}

/// An open partition of a [`SimulatedStore`].
#[derive(Debug)]
pub struct OpenPartition<'y> {
    handle: Handle<'y>,
    partition: StatePartition,
    data: Rc<RefCell<Partition>>,
    open: Rc<Cell<bool>>,
}

impl Drop for OpenPartition<'_> {
    fn drop(&mut self) {
        self.open.set(false);
    }
}

impl PartitionStore for OpenPartition<'_> {
    fn progress(&self) -> Result<Option<Progress>, Failure> {
        self.handle.process.check()?;
        Ok(self.data.borrow().progress.clone())
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        self.handle.process.check()?;
        value.clear();
        let data = self.data.borrow();
        let found = data.state.get(key);
        if let Some(found) = found {
            value.extend_from_slice(found);
        }
        Ok(found.is_some())
    }

    fn scan(&self, after: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<bool, Failure> {
        self.handle.process.check()?;
        let data = self.data.borrow();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in data.state.range::<[u8], _>((from, Bound::Unbounded)) {
            if !visit(key, value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn apply(&mut self, writes: &[Write<'_>], progress: &Progress) -> Result<(), Failure> {
        self.handle.call(Call::Apply, Failure::Rebuild, |_, _| {
            self.data.borrow_mut().apply(writes, progress);
            self.handle.trace(|| format!("store {:?}: {} writes, {:?}", self.partition, writes.len(), progress.mark));
            Ok(())
        })
    }

    fn clear(&mut self) -> Result<(), Failure> {
        self.handle.call(Call::Apply, Failure::Rebuild, |_, _| {
            let mut data = self.data.borrow_mut();
            data.state.clear();
            data.progress = None;
            data.undo.clear();
            self.handle.trace(|| format!("store {:?}: cleared", self.partition));
            Ok(())
        })
    }
}
