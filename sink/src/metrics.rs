//! Owns the names and meanings of the sink's metrics; each is declared here once and registered under `sink_`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of what exists once per topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Topic {
    /// The topic's name.
    pub topic: String,
}

/// Labels of what exists once per partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

/// All metrics; clones share the values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Records between what was applied and the last stable offset, of the partitions this sink has.
    pub lag: Family<TopicPartition, Gauge>,
    /// Records applied, passed by as known included.
    pub records: Family<Topic, Counter>,
    /// Rows inserted, changed or deleted.
    pub rows: Family<Topic, Counter>,
    /// Batches committed to the target.
    pub batches: Family<Topic, Counter>,
    /// Batches tried again after a deadlock or serialization failure.
    pub retries: Family<Topic, Counter>,
    /// Times the target had another progress than this sink: it was restored, or another sink was faster.
    pub rewinds: Family<Topic, Counter>,
    /// Times a partition was read from the beginning because its log is a new one.
    pub start_overs: Family<Topic, Counter>,
    /// Connections to the target that failed or were lost.
    pub database_failures: Family<Topic, Counter>,
    /// Whether the target answers (1) or not (0).
    pub database_up: Family<Topic, Gauge>,
    /// Goods whose remains do not fit the target's column, as the target has them.
    pub held_goods: Gauge,
    /// Rows of older epochs that were removed.
    pub removed_rows: Counter,
    /// Records on which the sink stopped because it could not read them.
    pub unreadable_records: Family<Topic, Counter>,
}

impl Metrics {
    /// Lets every series of a topic begin with zero, so that an alert on an increase sees the first one.
    pub fn begin(&self, topic: &Topic) {
        let counters = [
            &self.records,
            &self.rows,
            &self.batches,
            &self.retries,
            &self.rewinds,
            &self.start_overs,
            &self.database_failures,
            &self.unreadable_records,
        ];
        for counter in counters {
            drop(counter.get_or_create(topic));
        }
        self.database_up.get_or_create(topic).set(0);
    }

    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sink");
        registry.register("lag_records", "Records not applied yet, per partition this sink has", self.lag.clone());
        registry.register("records", "Records applied", self.records.clone());
        registry.register("rows", "Rows inserted, changed or deleted", self.rows.clone());
        registry.register("batches", "Batches committed to the target", self.batches.clone());
        registry.register("retries", "Batches tried again after a deadlock or the like", self.retries.clone());
        registry.register("rewinds", "Times the target had another progress than this sink", self.rewinds.clone());
        let help = "Times a partition was read from the beginning because its log is a new one";
        registry.register("start_overs", help, self.start_overs.clone());
        let help = "Connections to the target that failed or were lost";
        registry.register("database_failures", help, self.database_failures.clone());
        registry.register("database_up", "Whether the target answers", self.database_up.clone());
        let help = "Goods whose remains do not fit the target's column (table remains.held_goods)";
        registry.register("held_goods", help, self.held_goods.clone());
        let help = "Rows of older epochs removed after a rebuild of the output";
        registry.register("removed_rows", help, self.removed_rows.clone());
        let help = "Records on which the sink stopped because it could not read them";
        registry.register("unreadable_records", help, self.unreadable_records.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_appears_under_the_prefix() {
        let (metrics, mut registry, mut text) = (Metrics::default(), Registry::default(), String::new());
        metrics.register(&mut registry);
        metrics.begin(&Topic { topic: "warehouse.stock.deltas".to_owned() });
        metrics.lag.get_or_create(&TopicPartition { topic: "t".to_owned(), partition: 3 }).set(1);
        metrics.held_goods.set(2);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("sink_held_goods 2"), "{text}");
        assert_eq!(text.matches("# HELP sink_").count(), 12, "{text}");
        assert!(text.contains("sink_rewinds_total{topic=\"warehouse.stock.deltas\"} 0"), "{text}");
    }
}
