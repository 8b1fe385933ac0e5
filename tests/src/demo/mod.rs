//! The demonstration: the whole system on one machine, shown at work, and checked while it is shown.
//!
//! Owns what `make demo` and `make down` do. It is also a test: it fails as soon as what it shows is not what has to
//! be. It starts nothing by other means than an operator would (the compose file, or the native stack), and never
//! touches a container or a process that is not the demo's. Guards invariants 1 (sum) and, by resetting the offsets,
//! that re-reading is recognised.
//!
//! Layout:
//! - `story`: what is shown, step by step
//! - `backend`, `containers`, `processes`: what it runs on
//! - `recognised`: what the processors say about records they had applied before
//! - `around`: the lines with which to look around
//! - `screen`: how it is told

mod around;
mod backend;
mod containers;
mod processes;
mod recognised;
mod screen;
mod story;

pub use backend::{BackendName, down, status};
pub use story::show;
