//! An in-memory transactional log behind the engine's client traits, and seeded crash schedules over it.
//!
//! What a real cluster does to a stream processor within years happens here within seconds: processes die
//! between any two calls, members are counted out while they work, markers come late, requests and replies
//! get lost, disks lose their newest batches. One 64-bit seed decides everything, so every failure can be
//! run again. No thread, no clock, no network.
//!
//! # Layout
//! - [`log`], [`coordinator`], [`group`], [`broker`]: the cluster as plain data
//! - [`member`]: what a consumer library does in the background
//! - [`mod@cluster`], [`store`]: the engine's traits on it
//! - [`scheduler`], [`world`]: chance, faults, and the one door through which a worker acts
//! - [`setup`], [`simulation`], [`seeds`]: what a run is, one run, and many
//! - [`journal`]: what producers did, and whether two transactions ever overlapped
//! - [`workers`], [`directed`]: one worker, and workers stepped by hand for what chance does not find
//! - [`counting`]: a small stream program to run, with what must hold for it

pub mod broker;
pub mod cluster;
pub mod coordinator;
pub mod counting;
pub mod directed;
pub mod group;
pub mod journal;
pub mod log;
pub mod member;
pub mod scheduler;
pub mod seeds;
pub mod setup;
pub mod simulation;
pub mod store;
pub mod workers;
pub mod world;

pub use scheduler::{Faults, Random};
pub use seeds::{first_violation, run_seeds};
pub use setup::{Counts, Scenario, Setup, Violation};
pub use simulation::Simulation;
