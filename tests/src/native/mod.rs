//! The native stack: the real servers as local processes, in one directory, on free loopback ports.
//!
//! Owns starting, stopping and removing them. For integration tests, benchmarks and machines without a container
//! engine; never a fake broker. Only what a test asks for is started.
//!
//! Layout:
//! - `options`: what to start, and how
//! - `provision`: getting the servers onto the machine
//! - `jvm`: how Java servers are run and made to start fast
//! - `kafka`, `connect`, `postgres`, `registry`: configuration and readiness of each kind of server
//! - `secured`: certificates, logins and rights, for a stack whose programs have to show who they are
//! - `server`, `identity`, `spawner`: one process, which process a pid file means, who starts it
//! - `program`: processors and sinks beside the servers
//! - `shared`: one stack for all tests of a test binary
//!
//! Servers never outlive the test process, however it ends: each has a parent-death signal, and a janitor removes the
//! directory. Set `STACK_KEEP=1` to keep directory and logs.

mod connect;
mod identity;
mod janitor;
mod jvm;
mod kafka;
mod lock;
mod options;
mod paths;
mod ports;
mod postgres;
mod program;
mod progress;
mod provision;
mod recorded;
mod registry;
mod secured;
mod server;
mod shared;
mod spawner;
mod stack;

pub use options::{FixedPorts, NativeOptions};
pub use paths::default_up_directory;
pub use provision::connect_converters;
pub use recorded::{GUIDE, Recorded, end, end_all, recorded};
pub use secured::{Login, RegistryLogin, SecureStack};
pub use shared::{shared_brokers, shared_full};
pub use stack::NativeStack;
