//! Offsets of consumer groups.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::groups::GroupInfo;
use rdkafka::{Offset, TopicPartitionList};

use super::kafka::{Kafka, REQUEST_TIMEOUT, answered};
use super::runtime::block_on;
use crate::stack::wait_until;

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// Next offset to read.
    pub offset: i64,
    /// The text committed with it.
    pub metadata: String,
}

/// Where to move a group's offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// The first record each partition still has.
    Beginning,
    /// The end each partition has now.
    End,
    /// This offset, in every partition.
    Offset(i64),
}

impl Kafka {
    /// Committed offsets of a group for a topic, by partition; partitions without one are missing.
    /// Waits for transactions that hold an offset back.
    pub fn group_offsets(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, GroupOffset>> {
        let consumer = self.consumer(group)?;
        let mut list = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            list.add_partition(topic, partition);
        }
        // It does not answer while an orphaned transaction holds an offset back: its timeout, and until the broker looks for such.
        let read = || consumer.committed_offsets(list.clone(), REQUEST_TIMEOUT);
        let committed = answered(format!("the offsets of group {group}"), read)?;
        let mut offsets = BTreeMap::new();
        for element in committed.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                let metadata = element.metadata().to_owned();
                offsets.insert(element.partition(), GroupOffset { offset, metadata });
            }
        }
        Ok(offsets)
    }

    /// Moves a group's offsets for a topic, as `kafka-consumer-groups --reset-offsets` does, once the group has no members: what
    /// was killed is a member until its session ends.
    pub fn reset_group_offsets(&self, group: &str, topic: &str, to: ResetTo) -> Result<()> {
        wait_until(format!("group {group} to be empty"), || Ok(!self.group_has_members(group)?))?;
        let mut list = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            let (low, high) = self.watermarks(topic, partition)?;
            let offset = match to {
                ResetTo::Beginning => low,
                ResetTo::End => high,
                ResetTo::Offset(offset) => offset,
            };
            list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        let consumer = self.consumer(group)?;
        answered(format!("the coordinator of group {group}"), || consumer.commit(&list, CommitMode::Sync))
    }

    /// Whether a group has members at the moment.
    pub fn group_has_members(&self, group: &str) -> Result<bool> {
        Ok(!self.group_members(group)?.is_empty())
    }

    /// Client ids of a group's members.
    pub fn group_members(&self, group: &str) -> Result<Vec<String>> {
        let groups = self.consumer("looks-at-groups")?;
        let list = answered("groups", || groups.fetch_group_list(Some(group), REQUEST_TIMEOUT))?;
        let found = list.groups().iter().filter(|found| found.name() == group);
        Ok(found.flat_map(GroupInfo::members).map(|member| member.client_id().to_owned()).collect())
    }

    /// Deletes a group with all its offsets. It must have no members.
    pub fn delete_group(&self, group: &str) -> Result<()> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        for result in block_on(self.admin()?.delete_groups(&[group], &options))?? {
            if let Err((name, code)) = result {
                bail!("cannot delete group {name}: {code}");
            }
        }
        Ok(())
    }
}
