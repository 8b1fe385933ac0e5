//! The rights (ACLs) that this program needs on its topics, compared with what the brokers say it has.
//!
//! Guards that a missing one is told at the start and by name, not by a transaction that fails hours later, or by
//! movements that are silently never purged. Rights on the group and on transactional ids are not asked for: the first
//! request that needs them is refused at the start anyway. Nothing here talks to a broker.

use processor_engine::Failure;

use super::ffi::{Operation, TopicDescription};

/// On the input.
pub(super) const OF_SOURCE: &[Operation] = &[Operation::Read, Operation::DescribeConfigs];

/// On one of our own topics, by the last part of its name.
pub(super) fn of_own(name: &str) -> &'static [Operation] {
    match name.rsplit('.').next() {
        // Consumed records are deleted.
        Some("movements") => &[Operation::Read, Operation::Write, Operation::Delete, Operation::DescribeConfigs],
        Some("dead-letters") => &[Operation::Write, Operation::DescribeConfigs],
        _ => &[Operation::Read, Operation::Write, Operation::DescribeConfigs],
    }
}

/// Refuses when anything of `needed` is missing on any of the topics; names all of it.
pub(super) fn check<'a>(
    topics: impl IntoIterator<Item = (&'a TopicDescription, &'static [Operation])>,
) -> Result<(), Failure> {
    let lacking = |(topic, needed): (&TopicDescription, &'static [Operation])| {
        // Brokers that do not tell will refuse the request itself.
        let allowed = topic.allowed.as_ref()?;
        let missing: Vec<String> = needed
            .iter()
            .filter(|operation| !allowed.contains(operation))
            .map(|operation| format!("{operation:?}"))
            .collect();
        (!missing.is_empty()).then(|| format!("{} on topic {}", missing.join(", "), topic.name))
    };
    let missing: Vec<String> = topics.into_iter().filter_map(lacking).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("this principal lacks the right {}", missing.join("; "));
    Err(super::stop(service_kafka::not_authorized(&what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, allowed: Option<&[Operation]>) -> TopicDescription {
        TopicDescription {
            name: name.to_owned(),
            id: String::new(),
            partitions: 1,
            leaderless: 0,
            allowed: allowed.map(<[_]>::to_vec),
            error: None,
        }
    }

    #[test]
    fn every_missing_right_is_named_with_its_topic() {
        let movements = topic("a.movements", Some(&[Operation::Read, Operation::Write]));
        let source = topic("source", Some(&[Operation::DescribeConfigs]));
        let Failure::Stop(stop) = check([(&source, OF_SOURCE), (&movements, of_own("a.movements"))]).unwrap_err()
        else {
            panic!("not a stop");
        };
        assert_eq!(stop.code, "KAFKA_NOT_AUTHORIZED");
        assert!(
            stop.what.contains("Read on topic source; Delete, DescribeConfigs on topic a.movements"),
            "{}",
            stop.what
        );
    }

    #[test]
    fn brokers_that_do_not_tell_are_not_held_against_the_topic() {
        check([(&topic("source", None), OF_SOURCE)]).unwrap();
        check([(&topic("a.deltas", Some(of_own("a.deltas"))), of_own("a.deltas"))]).unwrap();
    }
}
