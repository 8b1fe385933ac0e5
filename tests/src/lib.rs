//! End-to-end scenarios on real servers, and the two stacks they run on.
//!
//! Layout:
//! - [`stack`]: the interface every scenario is written against
//! - [`native`]: the real servers as local processes
//! - [`compose`]: the same servers as containers of `docker-compose.yml`
//! - [`scenario`]: what is tested end to end, on any stack
//! - [`demo`]: the system shown at work, for people
//! - [`client`]: what scenarios do to the servers
//! - [`proxy`]: requests that are lost, or arrive late
//! - [`checker`]: whether every change was counted exactly once, from what is left of a run

// Product names such as PostgreSQL and KRaft are not code.
#![allow(clippy::doc_markdown)]

pub mod checker;
pub mod client;
pub mod compose;
pub mod demo;
pub mod native;
pub mod proxy;
pub mod scenario;
pub mod stack;
