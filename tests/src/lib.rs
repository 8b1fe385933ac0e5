//! End-to-end scenarios on real servers, and the two stacks they run on.
//!
//! Layout:
//! - [`stack`]: the interface every scenario is written against.

// Product names such as PostgreSQL and KRaft are not code.
#![allow(clippy::doc_markdown)]

pub mod stack;
