//! The compose stack: `docker-compose.yml` itself, as a project of its own per stack, on free loopback ports.
//!
//! Owns starting, mistreating and removing its containers, through the command lines of the engine and of Compose.
//! A client library for the engine's API lost: the tests should do what an operator can type, and the deployment file
//! is interpreted by Compose only. Never touches a container of another project, and never installs or starts an
//! engine (that is `deploy/engine.sh up`).
//!
//! Processors and sinks are containers of the deployed images beside the servers, started with the scenario's flags
//! instead of the file's, because scenarios choose number, names and topics themselves.
//!
//! Layout:
//! - `options`: what to start
//! - `engine`: the commands, and whether there is an engine at all
//! - `slot`: project name and ports that no other stack of this machine has
//! - `janitor`: removal, however the test process ends
//! - `health`: when a component does its work
//! - `program`: processors and sinks
//! - `shared`: one stack for all tests of a test binary
//!
//! Set `STACK_KEEP=1` to keep containers and logs of a failed test until the next run needs their place, and
//! `STACK_IMAGES_AS_THEY_ARE=1` to use images that were built or pulled before.

mod engine;
mod health;
mod janitor;
mod options;
mod program;
mod shared;
mod slot;
mod stack;

pub use engine::available;
pub use options::ComposeOptions;
pub use shared::shared_full;
pub use stack::ComposeStack;
