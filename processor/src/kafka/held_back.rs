//! Tells an operator of a group's offsets that a transaction holds back for longer than any may last.
//!
//! Owns the question whether it is that, and not an outage, which looks the same to whoever waits for stable offsets. Decides
//! nothing and ends nothing: only somebody with the right to alter the cluster can end a transaction whose coordinator
//! believes that it has.

use std::time::Duration;

use processor_engine::TopicPartition;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::Context;
use super::topics::Topics;

/// How long the coordinator has for its answer.
const ONE_ANSWER: Duration = Duration::from_secs(5);

/// Whether the coordinator answers for these partitions when it is asked for whatever it has, stable or not. `config` is that of the
/// member which waits in vain; nobody joins the group here.
pub(super) fn are_held_back(config: &ClientConfig, topics: &Topics, partitions: &[TopicPartition]) -> bool {
    let mut config = config.clone();
    config.set("isolation.level", "read_uncommitted").remove("group.instance.id");
    let client: Result<BaseConsumer<Context>, _> = config.create_with_context(Context::new("offsets"));
    client.is_ok_and(|client| {
        let answer = client.committed_offsets(topics.list(partitions), ONE_ANSWER);
        answer.is_ok_and(|list| list.elements().iter().all(|element| element.error().is_ok()))
    })
}

/// Says so, and returns what was said.
pub(super) fn tell(topics: &Topics, partitions: &[TopicPartition], patience: Duration) -> String {
    let places: Vec<String> = partitions.iter().map(|partition| topics.describe(*partition)).collect();
    let what = format!(
        "the group's offsets of {} are held back by a transaction for longer than {} s, and none may last that long",
        places.join(", "),
        patience.as_secs()
    );
    tracing::error!(
        code = "GROUP_OFFSETS_HELD_BACK",
        "{what}. Nothing is lost, and these partitions stand still. To do: kafka-transactions find-hanging names it in \
         __consumer_offsets, and kafka-transactions abort ends it; see docs/OPERATIONS.md under this code"
    );
    what
}
