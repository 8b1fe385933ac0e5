//! Owns what an operator can set, and the check of it before anything is started.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use schemas::{GoodType, IdType, Scale, Topics};
use service::configuration::{CLIENT_GUARANTEES, CONSUMER_GUARANTEES, Common, KafkaAccess};
use service::{Coded, DatabaseUrl, KafkaTables, Secret};

use crate::work::Types;

/// Flags of `sink run`; each is also a variable (`SINK_…`) and a key of the configuration file.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Configuration file, HTTP address, logging
    #[command(flatten)]
    pub common: Common,
    /// Brokers to begin with, host:port separated by commas
    #[arg(long, value_name = "LIST")]
    pub bootstrap_servers: String,
    /// How the brokers let the program in
    #[command(flatten)]
    pub access: KafkaAccess,
    /// Prefix of the processor's topics: PREFIX.deltas is read
    #[arg(long, value_name = "PREFIX")]
    pub topic_prefix: String,
    /// Consumer group; sinks of one group share the partitions
    #[arg(long, value_name = "GROUP")]
    pub group_id: String,
    /// Target database, postgres://user:password@host:port/database; better given as a variable than as a flag, which
    /// other users of the machine can see. For TLS append ?sslmode=verify-full&sslrootcert=FILE
    #[arg(long, value_name = "URL")]
    pub database_url: DatabaseUrl,
    /// File with the password of the user in that URL
    #[arg(long, value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
    /// Most records in one database transaction
    #[arg(long, default_value_t = 5_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch_records: u32,
    /// How long the database may take for one step, in milliseconds, before the connection is given up
    #[arg(long, default_value_t = 30_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=240_000))]
    pub database_timeout_ms: u64,
    /// How often an idle sink compares its progress with the target's, in milliseconds
    #[arg(long, default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub progress_check_ms: u64,
    /// What goods are, as the processor is told: 64-bit integers, or texts (uuids too)
    #[arg(long, value_enum, default_value_t = Goods::Integer, value_name = "TYPE")]
    pub good_type: Goods,
    /// How many digits quantities have behind the point, as the processor is told
    #[arg(long, default_value_t = Scale::WHOLE, value_name = "N")]
    pub pieces_scale: Scale,
    /// Also keep a table of the live source transactions (`remains.transaction_log`)
    #[arg(long)]
    pub transaction_log: bool,
    /// What ids are in that table, as the processor is told: uuids, or the texts of keys
    #[arg(long, value_enum, default_value_t = Ids::Uuid, value_name = "TYPE")]
    pub id_type: Ids,
}

/// Types of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ids {
    /// Uuids
    Uuid,
    /// Keys of one column or several
    Key,
}

/// Types of goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Goods {
    /// 64-bit integers
    Integer,
    /// Texts
    Text,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The topics of the prefix.
    pub topics: Topics,
    /// Consumer group.
    pub group_id: String,
    /// Target database.
    pub database_url: DatabaseUrl,
    /// The password there, unless it is in the URL.
    pub database_password: Option<Secret>,
    /// Most records in one database transaction.
    pub batch_records: usize,
    /// How long the database may take for one step.
    pub database_timeout: Duration,
    /// How often an idle sink compares progress.
    pub progress_check: Duration,
    /// Of which types goods, ids and quantities are.
    pub types: Types,
    /// Whether the transaction log is kept.
    pub transaction_log: bool,
    bootstrap_servers: String,
    kafka: KafkaTables,
}

impl Settings {
    /// Checks flags and file.
    ///
    /// # Errors
    /// `TOPIC_PREFIX_INVALID`, `CONFIG_PROTECTED_PROPERTY`, `CONFIG_EMPTY`, `KAFKA_ACCESS_SETTING`,
    /// `DATABASE_PASSWORD_FILE`.
    pub fn new(arguments: &Arguments, mut kafka: KafkaTables) -> Result<Self, Coded> {
        let topics = Topics::new(&arguments.topic_prefix).map_err(|error| {
            let remedy = "give --topic-prefix the same value as the processor's";
            Coded::usage("TOPIC_PREFIX_INVALID", error.to_string(), remedy)
        })?;
        for (name, value) in
            [("--bootstrap-servers", &arguments.bootstrap_servers), ("--group-id", &arguments.group_id)]
        {
            if value.trim().is_empty() {
                return Err(Coded::usage("CONFIG_EMPTY", format!("{name} is empty"), "give it a value"));
            }
        }
        kafka.consumer.refuse(CONSUMER_GUARANTEES.iter().chain(CLIENT_GUARANTEES))?;
        for table in [&kafka.producer, &kafka.admin] {
            if let Some((property, _)) = table.iter().next() {
                let what = format!(
                    "the sink has neither a producer nor an admin client, but the file sets {property} for one"
                );
                return Err(Coded::usage(
                    "CONFIG_UNUSED_TABLE",
                    what,
                    "move the property to [kafka.consumer] or remove it",
                ));
            }
        }
        kafka.consumer = kafka.consumer.above(arguments.access.properties()?);
        let database_password = arguments.database_password_file.as_deref().map(Secret::read).transpose();
        Ok(Self {
            database_password: database_password.map_err(|what| {
                Coded::usage("DATABASE_PASSWORD_FILE", what, "give --database-password-file a file with the password")
            })?,
            topics,
            group_id: arguments.group_id.clone(),
            database_url: arguments.database_url.clone(),
            batch_records: usize::try_from(arguments.batch_records).unwrap_or(usize::MAX),
            database_timeout: Duration::from_millis(arguments.database_timeout_ms),
            progress_check: Duration::from_millis(arguments.progress_check_ms),
            types: Types {
                goods: match arguments.good_type {
                    Goods::Integer => GoodType::Integer,
                    Goods::Text => GoodType::Text,
                },
                ids: arguments.transaction_log.then_some(match arguments.id_type {
                    Ids::Uuid => IdType::Uuid,
                    Ids::Key => IdType::Key,
                }),
                pieces: arguments.pieces_scale,
            },
            transaction_log: arguments.transaction_log,
            bootstrap_servers: arguments.bootstrap_servers.clone(),
            kafka,
        })
    }

    /// A consumer's configuration: defaults an operator may change, then what the file says, then what must be so.
    pub fn consumer(&self, group_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in [
            ("client.id", "sink"),
            // A killed sink's partitions are taken over after this, not after the default of 45 s.
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "3000"),
            ("fetch.wait.max.ms", "100"),
            // The default of 1 s is a visible stall whenever the local queue was full (librdkafka#2879).
            ("fetch.queue.backoff.ms", "20"),
            ("queued.max.messages.kbytes", "32768"),
            // A topic that does not exist yet is found this soon, not after five minutes.
            ("topic.metadata.refresh.interval.ms", "3000"),
            ("statistics.interval.ms", "1000"),
        ] {
            config.set(name, value);
        }
        for (name, value) in self.kafka.consumer.iter() {
            config.set(name, value);
        }
        for (name, value) in [
            ("bootstrap.servers", self.bootstrap_servers.as_str()),
            ("group.id", group_id),
            ("group.protocol", "classic"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("check.crcs", "true"),
        ] {
            config.set(name, value);
        }
        config
    }
}
