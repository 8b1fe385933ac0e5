//! The embedded state store: one LMDB file per state partition, a cache of the changelog on local disk.
//!
//! It owns the directory `<state dir>/<application id>/`, its lock and identity, and one folder
//! `<stage>-<partition>` per state partition, so that state moves between the workers of a process and a
//! partition is dropped by removing a folder. It never talks to Kafka and never decides what is right:
//! whatever it cannot vouch for it discards, with a warning, and the engine restores that partition from
//! the changelog, the durable copy.
//!
//! It guards invariant 5 (a killed process loses nothing: every batch is one LMDB transaction, and the
//! operating system keeps what a dead process has written) and its part of invariant 6 (a foreign or newer
//! directory stops the process, and is never wiped). After a *power cut* nothing unsynced can be trusted;
//! marker files with the machine's boot id make that visible. Every file is read as a whole and checked before its
//! first use by a process (20 million ids in about a second from the page cache): LMDB trusts its pages, so a bit that
//! flipped in one could crash the process, or hide an id and have its redelivery counted again. Checking only after a
//! second crash in a row was tried, and ended with wrong sums.
//!
//! # Layout
//! - `store`: [`LocalStore`], which partitions are open in this process
//! - `partition`: [`LocalPartition`], reading and writing one partition
//! - `directory`: lock and identity of the whole directory
//! - `marker`: under which boot, and how, a partition was last closed
//! - `verify`: reads an LMDB file without mapping it and says whether it is sound
//! - `filter`: which ids are certainly absent, in memory
//! - `row`: the bytes of values and of the progress row, with checksums
//! - `environment`: opening LMDB, the only `unsafe` code of this crate
//! - `trouble`: errors, sorted by what they mean for a partition

mod directory;
mod environment;
mod files;
mod filter;
mod marker;
mod partition;
mod row;
mod store;
mod trouble;
mod verify;

pub use directory::{
    APPLICATION_ID_INVALID, STATE_DIR_FOREIGN, STATE_DIR_IN_USE, STATE_DIR_UNUSABLE, STATE_FORMAT_NEWER,
};
pub use partition::{LocalPartition, STATE_KEY_SIZE, STATE_VALUE_SIZE};
pub use store::{LocalStore, Options};
pub use trouble::STATE_DISK_FULL;
