//! Topics, stages and partitions, as the engine names them.
//!
//! A stage reads one input topic and keeps state per input partition; the changelog of partition *n* of
//! the input is partition *n* of the stage's changelog topic. Nothing here talks to a broker.

/// Index of a topic in [`Topology::topics`]; records carry it instead of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicIndex(pub u16);

/// Index of a stage in [`Topology::stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stage(pub u8);

/// One partition of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Which topic.
    pub topic: TopicIndex,
    /// Partition number.
    pub partition: i32,
}

/// The unit of ownership, state and restoration: one input partition of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatePartition {
    /// Which stage.
    pub stage: Stage,
    /// Partition number, the same in the input and in the changelog.
    pub partition: i32,
}

/// One step of the stream program.
#[derive(Debug, Clone)]
pub struct StageSpec {
    /// Short name for directories, logs and metrics, such as `source`.
    pub name: &'static str,
    /// The topic the consumer group reads.
    pub input: TopicIndex,
    /// The compacted topic that holds the stage's state.
    pub changelog: TopicIndex,
    /// Whether consumed input records are deleted by this program (a repartition topic).
    pub purge_input: bool,
    /// Whether an input whose first records retention has removed may be started from (never silently:
    /// an operator sets this).
    pub accept_truncated_input: bool,
}

/// All topics and stages of a stream program.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Topic names; [`TopicIndex`] points here.
    pub topics: Vec<String>,
    /// The stages; [`Stage`] points here.
    pub stages: Vec<StageSpec>,
    /// One-partition topic that every worker reads from its beginning (announcements to all partitions).
    pub broadcast: TopicIndex,
}

impl Topology {
    /// Name of a topic; empty for an index that is not of this topology.
    pub fn topic_name(&self, topic: TopicIndex) -> &str {
        self.topics.get(usize::from(topic.0)).map_or("", String::as_str)
    }

    /// The stage's description, if the index is of this topology.
    pub fn stage(&self, stage: Stage) -> Option<&StageSpec> {
        self.stages.get(usize::from(stage.0))
    }

    /// Name of a stage for logs.
    pub fn stage_name(&self, stage: Stage) -> &'static str {
        self.stage(stage).map_or("unknown", |spec| spec.name)
    }

    /// The state partition fed by an input partition, if the topic is an input of some stage.
    pub fn state_of_input(&self, input: TopicPartition) -> Option<StatePartition> {
        let stage = self.stages.iter().position(|spec| spec.input == input.topic)?;
        let stage = Stage(u8::try_from(stage).ok()?);
        Some(StatePartition { stage, partition: input.partition })
    }

    /// The state partition held by a changelog partition, if the topic is a changelog of some stage.
    pub fn state_of_changelog(&self, changelog: TopicPartition) -> Option<StatePartition> {
        let stage = self.stages.iter().position(|spec| spec.changelog == changelog.topic)?;
        let stage = Stage(u8::try_from(stage).ok()?);
        Some(StatePartition { stage, partition: changelog.partition })
    }

    /// The input partition that feeds a state partition.
    pub fn input_of(&self, state: StatePartition) -> Option<TopicPartition> {
        let spec = self.stage(state.stage)?;
        Some(TopicPartition { topic: spec.input, partition: state.partition })
    }

    /// The changelog partition that holds a state partition.
    pub fn changelog_of(&self, state: StatePartition) -> Option<TopicPartition> {
        let spec = self.stage(state.stage)?;
        Some(TopicPartition { topic: spec.changelog, partition: state.partition })
    }
}
