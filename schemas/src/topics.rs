//! Names of the topics, from the one prefix that both programs are given.
//!
//! Guards against a prefix that Kafka would refuse late, or that its metrics would fold into another topic's.

/// The topics of one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Changelog of the first step, compacted: what is known of each transaction id.
    pub transactions: String,
    /// Repartition topic: movements keyed by good.
    pub movements: String,
    /// Output, compacted: stock deltas keyed by good.
    pub deltas: String,
    /// Announcements to every worker, one partition.
    pub control: String,
    /// Change events that could not be applied.
    pub dead_letters: String,
}

/// A topic prefix that Kafka would not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "TOPIC_PREFIX_INVALID: topic prefix {prefix:?} cannot be used; \
     give 1 to {longest} of the characters a–z, A–Z, 0–9, '.', '_' and '-'",
    longest = MAX_PREFIX_BYTES
)]
pub struct InvalidPrefix {
    prefix: String,
}

/// Kafka's limit of a topic name.
const MAX_TOPIC_BYTES: usize = 249;
const LONGEST_SUFFIX: &str = ".dead-letters";
const _: () = assert!(LONGEST_SUFFIX.len() == ".transactions".len());
const MAX_PREFIX_BYTES: usize = MAX_TOPIC_BYTES - LONGEST_SUFFIX.len();

impl Topics {
    /// The names under `prefix`, such as `warehouse.stock`.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || !prefix.bytes().all(allowed) {
            return Err(InvalidPrefix { prefix: crate::rejection::excerpt(prefix.as_bytes()) });
        }
        Ok(Self {
            transactions: format!("{prefix}.transactions"),
            movements: format!("{prefix}.movements"),
            deltas: format!("{prefix}.deltas"),
            control: format!("{prefix}.control"),
            dead_letters: format!("{prefix}{LONGEST_SUFFIX}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_prefix_and_the_documented_suffixes() {
        let topics = Topics::new("warehouse.stock").unwrap();
        assert_eq!(topics.transactions, "warehouse.stock.transactions");
        assert_eq!(topics.movements, "warehouse.stock.movements");
        assert_eq!(topics.deltas, "warehouse.stock.deltas");
        assert_eq!(topics.control, "warehouse.stock.control");
        assert_eq!(topics.dead_letters, "warehouse.stock.dead-letters");
    }

    #[test]
    fn a_prefix_that_kafka_would_refuse_is_refused_with_its_code() {
        for prefix in ["", "a b", "lager/bestand", "ä", &"x".repeat(237)] {
            let error = Topics::new(prefix).unwrap_err().to_string();
            assert!(error.starts_with("TOPIC_PREFIX_INVALID"), "{error}");
        }
        assert_eq!(Topics::new(&"x".repeat(236)).unwrap().dead_letters.len(), 249);
    }
}
