//! What scenarios do to the servers from outside: topics, records, groups, SQL, Connect's REST interface, and the
//! checks of the results.
//!
//! Everything blocks (see [`crate::stack`]) and works with addresses only, so it is the same on every backend. Nothing
//! here knows how a server was started.

// What kills brokers must survive that itself: see `service_kafka::leader_discovery`.
use service_kafka as _;

mod check;
mod connect;
mod groups;
mod history;
mod kafka;
pub(crate) mod quantity;
mod records;
mod runtime;
mod sql;
mod topics;

pub use check::{Delta, check_remains};
pub use connect::{Connect, ConnectorState, Format, orders_connector, orders_connector_in};
pub use groups::{GroupOffset, ResetTo};
pub use history::{CapturedRecord, History, Replay, data_directory, expected_remains};
pub use kafka::{Kafka, unique_name};
pub use quantity::units;
pub(crate) use records::is_passing;
pub use records::{Isolation, OutgoingRecord, Record, Writer};
pub use sql::Sql;
pub use topics::NewTopic;
