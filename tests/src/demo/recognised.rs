//! What the processors say about records they had applied before: in the log, and as a metric.
//!
//! Owns reading both. It parses what an operator would read, on purpose: a renamed field or metric fails the demo.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// Marks the log line.
const LINE: &str = "records applied before are recognised and skipped";
/// The counter, as Prometheus sees it.
const METRIC: &str = "processor_records_recognised_total";

/// The log lines that tell of recognised records.
pub(super) fn lines(log: &str) -> Vec<String> {
    log.lines().filter(|line| line.contains(LINE)).map(str::to_owned).collect()
}

/// How many records of each source partition the lines call recognised. A partition that moved to another worker
/// before the first one stored its offset is told twice, with the same number.
pub(super) fn by_source_partition(lines: &[String]) -> BTreeMap<i32, i64> {
    let mut found = BTreeMap::new();
    for line in lines.iter().filter(|line| field(line, "stage") == Some("source")) {
        let number = |name| field(line, name).and_then(|value| value.parse::<i64>().ok());
        if let (Some(partition), Some(records)) = (number("partition"), number("recognised")) {
            let Ok(partition) = i32::try_from(partition) else { continue };
            let most = found.entry(partition).or_insert(0);
            *most = records.max(*most);
        }
    }
    found
}

/// The counter's value in a scrape; one that was never incremented is 0.
pub(super) fn counter(metrics: &str) -> Result<i64> {
    let line = metrics.lines().find(|line| line.split([' ', '{']).next() == Some(METRIC));
    let line = line.with_context(|| format!("there is no metric {METRIC}"))?;
    let value = line.rsplit(' ').next().unwrap_or_default();
    value.parse().with_context(|| format!("{METRIC} has the value {value:?}"))
}

/// `name=value` or `name="value"` in a log line.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-22T10:00:00Z  INFO processor: partition assigned stage=\"source\" partition=3\n\
        2026-11-22T10:00:01Z  INFO processor: the group's offset was set back: records applied before are recognised and skipped stage=\"source\" partition=3 recognised=2\n\
        processor-2_1  | 2026-11-22T10:00:01Z  INFO processor: the group's offset was set back: records applied before are recognised and skipped stage=\"source\" partition=3 recognised=2\n\
        2026-11-22T10:00:01Z  INFO processor: the group's offset was set back: records applied before are recognised and skipped stage=\"movements\" partition=3 recognised=7\n";

    #[test]
    fn a_partition_told_twice_counts_once_and_movements_are_no_source() {
        assert_eq!(lines(LOG).len(), 3);
        assert_eq!(by_source_partition(&lines(LOG)), BTreeMap::from([(3, 2)]));
    }

    #[test]
    fn the_counter_is_read_from_a_scrape() {
        let scrape = "# TYPE processor_records_recognised counter\nprocessor_records_recognised_total 12\n# EOF\n";
        assert_eq!(counter(scrape).unwrap(), 12);
        assert!(counter("# EOF\n").is_err());
    }
}
