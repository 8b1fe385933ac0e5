//! The checker against real brokers: a run that is right has no findings, a topic that somebody tampered with has.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tempfile::NamedTempFile;
use tests::checker::{Code, Collector, Contribution, check, report};
use tests::client::{Isolation, OutgoingRecord};
use tests::native::NativeOptions;
use tests::scenario::faults::Trial;
use tests::stack::{PATIENCE, Stack, Viewpoint};

/// The target database of a job, as seen from here.
fn target_url(stack: &dyn Stack, database: &str) -> Result<String> {
    let url = stack.addresses(Viewpoint::Host).target_database_url.context("no target")?;
    let (server, _) = url.rsplit_once('/').context("no database in the URL")?;
    Ok(format!("{server}/{database}"))
}

/// A workload's own log with these rows, one of them written twice and one deleted again.
fn row_log(rows: &BTreeMap<String, Contribution>) -> Result<NamedTempFile> {
    let mut log = NamedTempFile::new()?;
    let first = rows.keys().next().context("no rows")?;
    writeln!(log, r#"{{"id":"{first}","good_id":0,"operation":"add","pcs":1}}"#)?;
    writeln!(log, r#"{{"id":"gone","good_id":1,"operation":"add","pcs":1}}"#)?;
    for (id, Contribution { good, pieces }) in rows {
        let (operation, pcs) = if *pieces < 0 { ("remove", -pieces) } else { ("add", *pieces) };
        writeln!(log, r#"{{"id":"{id}","good_id":{good},"operation":"{operation}","pcs":{pcs}}}"#)?;
    }
    writeln!(log, r#"{{"id":"gone","deleted":true}}"#)?;
    log.flush()?;
    Ok(log)
}

/// Runs the program as anybody would, and looks at its exit code and at what it says.
fn check_history(arguments: &[&str], code: i32, words: &str) -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_check-history")).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let expected = output.status.code() == Some(code) && said.contains(words);
    ensure!(expected, "check-history {arguments:?} ended with {}, not {code} and {words:?}:\n{said}", output.status);
    Ok(())
}

#[test]
fn a_right_run_has_no_findings_and_one_record_slipped_in_is_found() -> Result<()> {
    let stack = NativeOptions::brokers(3).with_target_database().start()?;
    let mut trial = Trial::start(&stack, "tampered")?;
    trial.progress(100)?;
    trial.job.keep_topics();
    let kafka = trial.job.kafka.clone();
    let (source, prefix) = (trial.job.source_topic.clone(), trial.job.topic_prefix.clone());
    let collector = Collector::new(&kafka, &source, &prefix, trial.job.application_id());
    let target = target_url(&stack, &trial.job.database())?;
    let (_, facts) = trial.end()?;
    let findings = check(&facts);
    ensure!(findings.is_empty(), "{}", report(&findings));
    ensure!(!facts.live.iter().all(|live| live.records.is_empty()), "nothing was read live");
    let rows = row_log(facts.rows.as_ref().context("no rows")?)?;
    let addressed = [
        ["--bootstrap-servers", kafka.bootstrap_servers()],
        ["--source-topic", &source],
        ["--topic-prefix", &prefix],
        ["--application-id", prefix.trim_end_matches(".stock")],
    ]
    .concat();
    let path = rows.path().display().to_string();
    let whole = [&addressed[..], &["--target-url", &target, "--rows", &path]].concat();
    check_history(&whole, 0, "0 findings")?;
    // Rows of another shop: each of them is missing, and each that is there is too many.
    let other = row_log(&BTreeMap::from([("x".to_owned(), Contribution { good: 1, pieces: 1 })]))?;
    check_history(
        &[&addressed[..], &["--rows", &other.path().display().to_string()]].concat(),
        1,
        "row-lost: 1 found",
    )?;
    check_history(&["--bootstrap-servers", kafka.bootstrap_servers(), "--source-topic", "nothing"], 2, "nothing")?;

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
    check_history(&addressed, 1, "version-repeated: 1 found")?;

    // A transaction that nobody ends: the log is not settled, and the check names it.
    let producer: BaseProducer =
        kafka.config().set("transactional.id", "left-open").set("transaction.timeout.ms", "900000").create()?;
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
