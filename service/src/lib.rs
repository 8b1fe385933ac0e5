//! What both programs share in being operated: configuration, logging, HTTP, signals, coded errors.
//!
//! # Layout
//! - [`configuration`]: one declaration per setting; flag over environment variable over TOML file.
//! - [`errors`]: [`Coded`], the only kind of error an operator is shown, and the table of exit codes.
//! - [`health`]: the handle through which worker threads say that they live, are ready, and how far they have come.
//! - [`http`]: `/live`, `/ready`, `/startup`, `/metrics`; [`healthcheck`]: the client of `/ready` for images without curl.
//! - [`logging`]: tracing as text or JSON; librdkafka's own log lines at levels that mean something here.
//! - [`operations`]: the thread that serves HTTP and signals beside workers which must not wait.
//! - [`shutdown`]: a token for threads and tasks; [`watchdog`]: the way out of calls that never return.
//!
//! The crate never names Kafka's client, `PostgreSQL`, goods or partitions: it knows how a program is run, not what it does.

pub mod configuration;
pub mod errors;
pub mod health;
pub mod healthcheck;
pub mod http;
pub mod logging;
pub mod operations;
pub mod shutdown;
pub mod watchdog;

pub use configuration::{DatabaseUrl, KafkaTables, Parsed, Secret};
pub use errors::{Coded, Exit};
pub use health::Health;
pub use operations::Operations;
pub use shutdown::Shutdown;
