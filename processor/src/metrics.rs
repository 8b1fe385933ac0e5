//! The metrics of the processor: every name is declared here, once, with what it means.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Label: a state partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabel {
    /// `source` or `movements`.
    pub stage: &'static str,
    /// Partition number.
    pub partition: i32,
}

/// Label: a partition of the source topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// Partition number.
    pub partition: i32,
}

/// Label: the reason code of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Stable code, such as `negative-pcs`.
    pub reason: &'static str,
}

/// All metrics; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Input records processed in committed transactions.
    pub records: Counter,
    /// Transactions committed.
    pub commits: Counter,
    /// Transactions aborted.
    pub aborts: Counter,
    /// Times the producers were rebuilt.
    pub rebuilds: Counter,
    /// From begin to acknowledged commit.
    pub transaction_seconds: Histogram,
    /// Input records recognised as applied already, by offset.
    pub recognised: Counter,
    /// Events that changed a row.
    pub applied: Counter,
    /// Events recognised as delivered before, by position.
    pub redelivered: Counter,
    /// Events set aside, by reason.
    pub dead_letters: Family<ReasonLabel, Counter>,
    /// Rows removed because a complete snapshot proved them gone.
    pub swept: Counter,
    /// 1 while a sweep of this source partition waits for approval.
    pub sweep_held: Family<SourceLabel, Gauge>,
    /// Changelog records replayed.
    pub restored: Counter,
    /// 1 for each partition owned and running, 0 while it is restored.
    pub running: Family<PartitionLabel, Gauge>,
    /// Next input offset of each running partition.
    pub next_offset: Family<PartitionLabel, Gauge>,
    /// Schemas asked for at the registry and not there yet; partitions wait while it is not 0.
    pub schemas_awaited: Gauge,
}

impl Metrics {
    /// Declares all metrics in a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            records: Counter::default(),
            commits: Counter::default(),
            aborts: Counter::default(),
            rebuilds: Counter::default(),
            // 1 ms to 16 s.
            transaction_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            recognised: Counter::default(),
            applied: Counter::default(),
            redelivered: Counter::default(),
            dead_letters: Family::default(),
            swept: Counter::default(),
            sweep_held: Family::default(),
            restored: Counter::default(),
            running: Family::default(),
            next_offset: Family::default(),
            schemas_awaited: Gauge::default(),
        };
        let m = metrics.clone();
        let registry = registry.sub_registry_with_prefix("processor");
        registry.register("input_records", "Input records processed in committed transactions", m.records);
        registry.register("commits", "Transactions committed", m.commits);
        registry.register("aborts", "Transactions aborted; their work was done again", m.aborts);
        registry.register("rebuilds", "Times the producers were dropped and built anew", m.rebuilds);
        registry.register("transaction_seconds", "From begin to acknowledged commit", m.transaction_seconds);
        registry.register("records_recognised", "Input records skipped as applied already, by offset", m.recognised);
        registry.register("events_applied", "Events that changed a row", m.applied);
        registry.register("events_redelivered", "Events recognised as delivered before, by position", m.redelivered);
        registry.register("dead_letters", "Events set aside, by reason", m.dead_letters);
        registry.register("rows_swept", "Rows removed because a complete snapshot proved them gone", m.swept);
        registry.register("sweep_held", "1 while a sweep of this source partition waits for approval", m.sweep_held);
        registry.register("changelog_records_restored", "Changelog records replayed", m.restored);
        registry.register("partition_running", "1 for a partition owned and running, 0 while restored", m.running);
        registry.register("next_offset", "Next input offset of each running partition", m.next_offset);
        registry.register(
            "schemas_awaited",
            "Schemas not had from the registry yet; partitions wait",
            m.schemas_awaited,
        );
        metrics
    }
}
