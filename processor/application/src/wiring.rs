//! Topics, stages and settings of the stream program.
//!
//! Owns the order of topics and stages and nothing else; names come from the prefix, partition counts from the
//! broker, both by way of `main`.

use std::num::NonZeroU32;

use processor_core::{ChunkLimits, SweepPolicy};
use processor_engine::{StageSpec, TopicIndex, Topology, topology::Stage};
use schemas::debezium::Decoder;
use schemas::{GoodType, IdType, Scale, Topics};

/// The first step: change events → state of each id → movements.
pub const SOURCE: Stage = Stage(0);
/// The second step: movements → sums → stock deltas.
pub const MOVEMENTS: Stage = Stage(1);

/// The topics by their place in the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wiring {
    /// The change events.
    pub source: TopicIndex,
    /// Changelog of the first step.
    pub transactions: TopicIndex,
    /// The repartition topic.
    pub movements: TopicIndex,
    /// Changelog of the second step, and the output.
    pub deltas: TopicIndex,
    /// The announcements.
    pub control: TopicIndex,
    /// What could not be applied.
    pub dead_letters: TopicIndex,
}

impl Wiring {
    /// The order in which [`Wiring::topology`] lists the topics.
    pub const DEFAULT: Self = Self {
        source: TopicIndex(0),
        transactions: TopicIndex(1),
        movements: TopicIndex(2),
        deltas: TopicIndex(3),
        control: TopicIndex(4),
        dead_letters: TopicIndex(5),
    };

    /// The program's topology. `accept_truncated_source`: an operator accepts that retention has removed the
    /// beginning of the change events.
    pub fn topology(source_topic: &str, topics: &Topics, accept_truncated_source: bool) -> Topology {
        let names = [
            source_topic,
            &topics.transactions,
            &topics.movements,
            &topics.deltas,
            &topics.control,
            &topics.dead_letters,
        ];
        let wiring = Self::DEFAULT;
        Topology {
            topics: names.map(str::to_owned).to_vec(),
            stages: vec![
                StageSpec {
                    name: "source",
                    input: wiring.source,
                    changelog: wiring.transactions,
                    purge_input: false,
                    accept_truncated_input: accept_truncated_source,
                },
                StageSpec {
                    name: "movements",
                    input: wiring.movements,
                    changelog: wiring.deltas,
                    purge_input: true,
                    // Purged by this program itself: its beginning is always missing.
                    accept_truncated_input: false,
                },
            ],
            broadcast: wiring.control,
        }
    }
}

/// What the application has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of the source topic, for the headers of dead letters.
    pub source_topic: String,
    /// Partitions of the source topic.
    pub source_partitions: NonZeroU32,
    /// Partitions of the movements topic; the deltas topic has as many.
    pub movements_partitions: NonZeroU32,
    /// Partitions of the dead-letter topic.
    pub dead_letter_partitions: NonZeroU32,
    /// How change events are read; longer ones than it takes become dead letters.
    pub decoder: Decoder,
    /// When a sweep may run without being asked.
    pub sweep_policy: SweepPolicy,
    /// How much of a sweep goes into one transaction.
    pub sweep_chunk: ChunkLimits,
    /// How stock deltas are written. All forms are read.
    pub output: RecordFormat,
    /// How the changelog of the rows is written. All forms are read.
    pub changelog: RecordFormat,
}

/// How the records of a topic are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordFormat {
    /// JSON, for people and programs.
    #[default]
    Json,
    /// Avro, behind the id under which a registry knows the schema.
    Avro {
        /// That id.
        schema_id: u32,
    },
}

impl Settings {
    /// Of which type the goods are.
    pub fn good_type(&self) -> GoodType {
        self.decoder.columns.good_type()
    }

    /// The columns whose values the ids are, in this order; none, where ids are uuids.
    pub fn key_columns(&self) -> &[String] {
        match self.decoder.columns.id_type() {
            IdType::Uuid => &[],
            IdType::Key => self.decoder.columns.id_columns(),
        }
    }

    /// How many digits quantities have behind the point.
    pub fn pieces_scale(&self) -> Scale {
        self.decoder.columns.pieces_scale()
    }

    /// 1 MiB: a row of this table has below 1 KiB, and a broker's default limit is 1 MiB too.
    pub const DEFAULT_MAX_VALUE_BYTES: usize = 1 << 20;

    /// Settings with every default.
    pub fn new(
        source_topic: &str,
        source_partitions: NonZeroU32,
        movements_partitions: NonZeroU32,
        dead_letter_partitions: NonZeroU32,
    ) -> Self {
        Self {
            source_topic: source_topic.to_owned(),
            source_partitions,
            movements_partitions,
            dead_letter_partitions,
            decoder: Decoder::new(Self::DEFAULT_MAX_VALUE_BYTES),
            sweep_policy: SweepPolicy::default(),
            sweep_chunk: ChunkLimits::default(),
            output: RecordFormat::default(),
            changelog: RecordFormat::default(),
        }
    }
}
