//! Names of topics to the indices by which the engine knows them, and back. Nothing here talks to a broker.

use std::sync::Arc;

use processor_engine::{TopicIndex, TopicPartition, Topology};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::ffi;

/// The topology, looked up by name.
#[derive(Debug, Clone)]
pub(super) struct Topics(Arc<Topology>);

impl Topics {
    /// Looks up in this topology.
    pub(super) fn new(topology: Arc<Topology>) -> Self {
        Self(topology)
    }

    /// The topology itself.
    pub(super) fn topology(&self) -> &Topology {
        &self.0
    }

    /// Index of a topic; `None` for one that is not of this program. A handful of topics: comparing names beats
    /// hashing them.
    pub(super) fn index(&self, name: &[u8]) -> Option<TopicIndex> {
        let position = self.0.topics.iter().position(|topic| topic.as_bytes() == name)?;
        u16::try_from(position).ok().map(TopicIndex)
    }

    /// Name of a topic.
    pub(super) fn name(&self, topic: TopicIndex) -> &str {
        self.0.topic_name(topic)
    }

    /// A partition as text for messages: `topic [partition]`.
    pub(super) fn describe(&self, partition: TopicPartition) -> String {
        format!("{} [{}]", self.name(partition.topic), partition.partition)
    }

    /// A partition by its name and number.
    pub(super) fn partition(&self, element: &ffi::Element) -> Option<TopicPartition> {
        let topic = self.index(element.topic.as_bytes())?;
        Some(TopicPartition { topic, partition: element.partition })
    }

    /// A list for librdkafka, without offsets.
    pub(super) fn list(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(self.name(partition.topic), partition.partition);
        }
        list
    }

    /// A list for librdkafka with one offset.
    pub(super) fn list_at(
        &self,
        partition: TopicPartition,
        offset: i64,
        leader_epoch: Option<i32>,
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(1);
        let name = self.name(partition.topic);
        ffi::add_offset(&mut list, name, partition.partition, offset, leader_epoch, "")?;
        Ok(list)
    }
}
