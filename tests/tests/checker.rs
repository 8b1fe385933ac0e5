//! The checker against real brokers: a run that is right has no findings, a topic that somebody tampered with has.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tests::checker::{Code, Collector, check, report};
use tests::client::{Isolation, OutgoingRecord};
use tests::native::NativeOptions;
use tests::scenario::faults::Trial;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_right_run_has_no_findings_and_one_record_slipped_in_is_found() -> Result<()> {
    let stack = NativeOptions::brokers(3).with_target_database().start()?;
    let mut trial = Trial::start(&stack, "tampered")?;
    trial.progress(100)?;
    let kafka = trial.job.kafka.clone();
    let (source, prefix) = (trial.job.source_topic.clone(), trial.job.topic_prefix.clone());
    let collector = Collector::new(&kafka, &source, &prefix, trial.job.application_id());
    let (_, facts) = trial.end()?;
    let findings = check(&facts);
    ensure!(findings.is_empty(), "{}", report(&findings));
    ensure!(!facts.live.iter().all(|live| live.records.is_empty()), "nothing was read live");

    // Somebody repeats a stock delta: the good's newest version a second time.
    let deltas = &facts.deltas.name;
    let last = facts.deltas.committed.last().context("no stock delta")?;
    let again = OutgoingRecord {
        partition: last.partition,
        timestamp_ms: None,
        key: last.key.clone(),
        value: last.value.clone(),
        headers: last.headers.clone(),
    };
    kafka.write(deltas, &[again])?;
    let mut tampered = facts.clone();
    tampered.deltas.committed = kafka.read(deltas, Isolation::ReadCommitted)?;
    tampered.deltas.uncommitted = kafka.read(deltas, Isolation::ReadUncommitted)?;
    let codes: Vec<Code> = check(&tampered).into_iter().map(|finding| finding.code).collect();
    ensure!(codes.contains(&Code::VersionRepeated), "{codes:?}");

    // A transaction that nobody ends: the log is not settled, and the check names it.
    let producer: BaseProducer =
        kafka.config().set("transactional.id", "left-open").set("transaction.timeout.ms", "60000").create()?;
    producer.init_transactions(PATIENCE)?;
    producer.begin_transaction()?;
    producer
        .send(BaseRecord::to(deltas).partition(last.partition).key("#open").payload("{}"))
        .map_err(|(error, _)| error)?;
    producer.flush(PATIENCE)?;
    ensure!(!collector.wait_settled(Duration::ZERO)?, "settled with a transaction open");
    let codes: Vec<Code> = check(&collector.collect(None)?).into_iter().map(|finding| finding.code).collect();
    ensure!(codes.contains(&Code::OpenTransaction), "{codes:?}");
    producer.abort_transaction(PATIENCE)?;
    ensure!(collector.wait_settled(PATIENCE)?, "not settled after the abort");
    let facts = collector.collect(None)?;
    let aborted = facts.deltas.uncommitted.iter().any(|record| record.key_text() == "#open");
    ensure!(aborted && facts.deltas.committed.iter().all(|record| record.key_text() != "#open"), "not aborted");
    Ok(())
}
