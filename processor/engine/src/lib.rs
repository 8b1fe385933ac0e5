//! The transaction engine: poll, process, commit, abort, rebalance, restore.
//!
//! It owns the life of every Kafka transaction, the offsets and sequence numbers each one carries, the
//! two producers used in turn, the restoration of state from changelogs, and what happens when any of
//! these fails. It knows nothing of goods, Debezium or PostgreSQL (that is an [`Application`]), nothing
//! of rdkafka (that is a [`Cluster`]) and nothing of the disk (that is a [`StateStore`]).
//!
//! # Layout
//! - [`topology`]: topics, stages and the partitions whose state a worker owns
//! - [`cluster`]: the narrow traits a Kafka client implements
//! - [`store`]: the trait an embedded state store implements
//! - [`application`]: the trait the stream program implements
//! - [`resume`]: the pure decision where a partition starts, or why it is refused
//! - [`mark`]: what every commit says about a partition's progress
//! - [`transaction`]: one open transaction: overlay, touched partitions, outputs
//! - [`worker`]: the loop, as a step function
//! - [`failure`]: errors, by what the caller must do
//! - [`observer`]: everything worth logging or counting, as typed events

/// A place where a test may end or stop the process. Nothing unless compiled with the feature `fail-points`.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "fail-points")]
        fail::fail_point!($name);
    };
}

pub mod application;
pub mod changes;
pub mod cluster;
pub mod failure;
pub mod mark;
pub mod observer;
pub mod resume;
pub mod store;
pub mod topology;
pub mod transaction;
pub mod worker;

pub use application::Application;
pub use changes::Changes;
pub use cluster::{Cluster, GroupConsumer, LogReader, TransactionalProducer};
pub use failure::{Failure, Stop};
pub use mark::Mark;
pub use observer::{Event, Observer};
pub use store::{PartitionStore, StateStore};
pub use topology::{StageSpec, StatePartition, TopicIndex, TopicPartition, Topology};
pub use transaction::Transaction;
pub use worker::{Limits, Step, Worker};
