//! The command line: every setting of `processor`, declared once.
//!
//! Each is also an environment variable (`PROCESSOR_…`) and a key of the file given with `--config`; the
//! layering is the crate `service`'s. Nothing here connects to anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use schemas::debezium::{Columns, Names, PiecesType};
use schemas::{GoodType, IdType, Scale};
use service::Coded;
use service::configuration::{Common, KafkaAccess, SchemaRegistry};

/// Prefix of the environment variables.
pub const PREFIX: &str = "PROCESSOR";

/// Least of `--watchdog-seconds`: longer than any call may take that ends by itself. Tests that hang a call wait less.
const WATCHDOG_LEAST_SECONDS: u64 = if cfg!(feature = "fail-points") { 1 } else { 180 };

/// Turns Debezium change events into exact per-good stock deltas with Kafka transactions.
#[derive(Debug, Clone, Parser)]
#[command(name = "processor", version)]
pub struct Program {
    /// What to do
    #[command(subcommand)]
    pub command: Verb,
}

/// The verbs of `processor`.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Process change events until told to stop
    Run(Box<Run>),
    /// Ask a running processor whether it is ready: exit code 0 if so, 1 if not
    Healthcheck(service::healthcheck::Arguments),
    /// Approve a held sweep: rows that a complete snapshot proves gone are then removed
    ApproveSweep(ApproveSweep),
    /// Say that the source table is empty as of now: an empty snapshot leaves no trace on the topic
    SourceEmptied(SourceEmptied),
}

/// Where the brokers are and what the topics are called.
#[derive(Debug, Clone, Args)]
pub struct Kafka {
    /// Brokers to start from (host:port, separated by commas)
    #[arg(long, value_name = "HOST:PORT,…")]
    pub bootstrap_servers: String,
    /// Start of the names of the program's own topics
    #[arg(long, default_value = "warehouse.stock", value_name = "PREFIX")]
    pub topic_prefix: String,
    /// How the brokers let the program in
    #[command(flatten)]
    pub access: KafkaAccess,
}

/// Settings of `processor run`.
#[derive(Debug, Clone, Args)]
// Each is a flag of its own; nothing is a state of anything.
#[allow(clippy::struct_excessive_bools)]
pub struct Run {
    /// File, HTTP address and log
    #[command(flatten)]
    pub common: Common,
    /// Kafka
    #[command(flatten)]
    pub kafka: Kafka,
    /// Schema registry
    #[command(flatten)]
    pub schema_registry: SchemaRegistry,
    /// Topic that Debezium writes
    #[arg(long, default_value = "warehouse.orders.transactions", value_name = "TOPIC")]
    pub source_topic: String,
    /// Columns of the table that it captures
    #[command(flatten)]
    pub source_table: SourceTable,
    /// Name of the application: consumer group and start of every transactional id
    #[arg(long, default_value = "stock", value_name = "ID")]
    pub application_id: String,
    /// Directory of the state store; a cache of the changelog, on a local disk, one process each
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Name of this process within the application, the same after every restart, such as a pod's ordinal
    #[arg(long, default_value = "0", value_name = "NAME")]
    pub instance: String,
    /// Worker threads, each with its own consumer, producers and partitions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Age in milliseconds at which a transaction is committed under load; idle input is committed at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub commit_interval_ms: u64,
    /// Events per transaction
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub batch_records: u64,
    /// Replication factor of topics that are created; without it 3, which needs three brokers up
    #[arg(long, value_name = "N")]
    pub replication_factor: Option<u16>,
    /// Partitions of the movements and deltas topics when they are created; without it as many as the source has
    #[arg(long, value_name = "N")]
    pub output_partitions: Option<u16>,
    /// Largest event value in bytes; larger ones become dead letters
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES")]
    pub max_value_bytes: usize,
    /// How stock deltas are written; avro needs a schema registry. Both are read, whatever is set
    #[arg(long, value_enum, default_value_t = OutputFormat::Json, value_name = "FORMAT")]
    pub output_format: OutputFormat,
    /// How the changelog of the rows is written; avro needs a schema registry. Both are read, whatever is set
    #[arg(long, value_enum, default_value_t = OutputFormat::Json, value_name = "FORMAT")]
    pub changelog_format: OutputFormat,
    /// Whether rows that a complete snapshot proves gone are removed
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub sweep: bool,
    /// Share in percent of a partition's rows above which a sweep waits for approval
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100), value_name = "PERCENT")]
    pub sweep_hold_above_percent: u8,
    /// Number of rows up to which a sweep never waits for approval
    #[arg(long, default_value_t = 1_000, value_name = "ROWS")]
    pub sweep_hold_above_rows: u64,
    /// Start although the first records of the source topic are gone: they begin with a complete snapshot
    #[arg(long)]
    pub accept_truncated_input: bool,
    /// End with exit code 0 once everything in the source topic is processed, instead of waiting for more
    #[arg(long)]
    pub until_caught_up: bool,
    /// Rejoin the group as a static member (KIP-345): a restart within the session timeout causes no rebalance
    #[arg(long)]
    pub static_membership: bool,
    /// Seconds without a sign of life from a worker after which the process ends, to be started again
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(WATCHDOG_LEAST_SECONDS..=86_400), value_name = "SECONDS")]
    pub watchdog_seconds: u64,
}

/// What the columns of the source table are called, and its two operations.
#[derive(Debug, Clone, Args)]
pub struct SourceTable {
    /// Column of the row's id; the connector's message.key.columns must name it and no other. Of a key also several,
    /// separated by commas. Settled before the first start
    #[arg(long, default_value = "id", value_delimiter = ',', value_name = "COLUMN,…")]
    pub id_column: Vec<String>,
    /// What is in it: a uuid, or any key: 64-bit integers and texts, in one column or several. Settled before the first
    /// start
    #[arg(long, value_enum, default_value_t = Ids::Uuid, value_name = "TYPE")]
    pub id_type: Ids,
    /// Column of the good
    #[arg(long, default_value = "good_id", value_name = "COLUMN")]
    pub good_column: String,
    /// What is in it: 64-bit integers, or texts (uuids too). Settled before the first start
    #[arg(long, value_enum, default_value_t = Goods::Integer, value_name = "TYPE")]
    pub good_type: Goods,
    /// Column that says whether pieces came or went
    #[arg(long, default_value = "operation", value_name = "COLUMN")]
    pub operation_column: String,
    /// Column of the number of pieces, not negative
    #[arg(long, default_value = "pcs", value_name = "COLUMN")]
    pub pieces_column: String,
    /// Most digits it has behind the point; sums are exact in this unit. Settled before the first start
    #[arg(long, default_value_t = Scale::WHOLE, value_name = "N")]
    pub pieces_scale: Scale,
    /// How the connector writes it in plain JSON (decimal.handling.mode); a schema in a registry says it itself
    #[arg(long, value_enum, default_value_t = Pieces::Number, value_name = "TYPE")]
    pub pieces_type: Pieces,
    /// What stands in the operation column when pieces came
    #[arg(long, default_value = "add", value_name = "VALUE")]
    pub add_value: String,
    /// What stands in the operation column when pieces went
    #[arg(long, default_value = "remove", value_name = "VALUE")]
    pub remove_value: String,
}

/// Types of goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Goods {
    /// 64-bit integers
    Integer,
    /// Texts
    Text,
}

/// Types of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ids {
    /// One column, a uuid
    Uuid,
    /// The whole record key: integers and texts
    Key,
}

impl From<Ids> for IdType {
    fn from(ids: Ids) -> Self {
        match ids {
            Ids::Uuid => Self::Uuid,
            Ids::Key => Self::Key,
        }
    }
}

impl From<Goods> for GoodType {
    fn from(goods: Goods) -> Self {
        match goods {
            Goods::Integer => Self::Integer,
            Goods::Text => Self::Text,
        }
    }
}

/// Types of quantities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pieces {
    /// JSON numbers: integer columns, or numeric in mode double
    Number,
    /// Texts: numeric in mode string
    Text,
    /// Base64: numeric in mode precise, of the scale that --pieces-scale says, or without one
    Decimal,
}

impl From<Pieces> for PiecesType {
    fn from(pieces: Pieces) -> Self {
        match pieces {
            Pieces::Number => Self::Number,
            Pieces::Text => Self::Text,
            Pieces::Decimal => Self::Decimal,
        }
    }
}

impl SourceTable {
    /// The names, checked, and the types of goods and quantities.
    ///
    /// # Errors
    /// `SOURCE_COLUMNS_INVALID`
    pub fn columns(&self) -> Result<Columns, Coded> {
        let names = Names {
            id: self.id_column.clone(),
            id_type: self.id_type.into(),
            good_id: self.good_column.clone(),
            operation: self.operation_column.clone(),
            pcs: self.pieces_column.clone(),
            add: self.add_value.clone(),
            remove: self.remove_value.clone(),
        };
        let columns = Columns::new(names).map_err(|error| {
            Coded::usage(
                "SOURCE_COLUMNS_INVALID",
                format!("the names of the source table's columns cannot be used: {error}"),
                "correct --id-column (several are a key: --id-type key), --good-column, --operation-column, --pieces-column, --add-value or --remove-value",
            )
        })?;
        Ok(columns.with_goods(self.good_type.into()).with_pieces(self.pieces_type.into(), self.pieces_scale))
    }
}

/// Forms of our own records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// JSON
    Json,
    /// Avro behind a schema id
    Avro,
}

impl Run {
    /// See `--commit-interval-ms`.
    pub fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.commit_interval_ms)
    }
}

/// Settings of `processor approve-sweep`.
#[derive(Debug, Clone, Args)]
pub struct ApproveSweep {
    /// Kafka
    #[command(flatten)]
    pub kafka: Kafka,
    /// Partition of the source topic, as the log and the metrics name it
    #[arg(long)]
    pub partition: i32,
    /// Lsn of the snapshot, as the log and the metrics name it
    #[arg(long)]
    pub snapshot_lsn: u64,
}

/// Settings of `processor source-emptied`.
#[derive(Debug, Clone, Args)]
pub struct SourceEmptied {
    /// Kafka
    #[command(flatten)]
    pub kafka: Kafka,
    /// Lsn at which the table was empty (`SELECT pg_current_wal_lsn() - '0/0'` while it is)
    #[arg(long)]
    pub snapshot_lsn: u64,
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use service::configuration::parse_from;

    use super::*;

    fn columns(flags: &str, variables: &[(&str, &str)]) -> Result<Columns, Coded> {
        let words = format!("processor run --bootstrap-servers localhost:9092 --state-dir /nowhere {flags}");
        let words = words.split_whitespace().map(OsString::from);
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let Verb::Run(run) = parse_from::<Program>(PREFIX, words, variables).unwrap().arguments.command else {
            panic!("not run")
        };
        run.source_table.columns()
    }

    #[test]
    fn an_id_is_a_uuid_in_one_column_or_a_key_of_those_that_are_named_in_their_order() {
        let of = |flags: &str, variables: &[(&str, &str)]| {
            let columns = columns(flags, variables).unwrap();
            (columns.id_columns().join("+"), columns.id_type())
        };
        assert_eq!(of("", &[]), ("id".to_owned(), IdType::Uuid));
        assert_eq!(of("--id-column movement", &[]), ("movement".to_owned(), IdType::Uuid));
        assert_eq!(of("--id-type key", &[]), ("id".to_owned(), IdType::Key));
        assert_eq!(of("--id-type key --id-column shop,line", &[]), ("shop+line".to_owned(), IdType::Key));
        let variables = [("PROCESSOR_ID_TYPE", "key"), ("PROCESSOR_ID_COLUMN", "line,shop")];
        assert_eq!(of("", &variables), ("line+shop".to_owned(), IdType::Key));
        assert_eq!(of("--id-column number", &variables), ("number".to_owned(), IdType::Key), "in place of both");
        for invalid in ["--id-column shop,line", "--id-type key --id-column shop,shop", "--id-type key --id-column a,"]
        {
            assert_eq!(columns(invalid, &[]).unwrap_err().code, "SOURCE_COLUMNS_INVALID", "{invalid}");
        }
    }
}
