//! The group member: stable offsets, generations, positions, truncation, closing.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use processor::kafka::{GroupMetadata, KafkaCluster, KafkaConsumer, KafkaProducer, Settings};
use processor_engine::Failure;
use processor_engine::cluster::{
    Cluster as _, CommittedOffset, GroupConsumer as _, Polled, TransactionalProducer as _,
};

use crate::clients::{
    Bench, CHANGELOG, INPUT, PATIENCE, assigned, at, code, commit_records, failure_of, offset, read, send,
};

#[test]
fn a_partition_without_a_committed_offset_has_none() -> Result<()> {
    let bench = Bench::new()?;
    let mut consumer = bench.member("a")?;
    let mut producer = bench.cluster("a").producer(0)?;
    let member = consumer.metadata()?.expect("a member");
    producer.begin()?;
    producer.send_offsets(&offset(0, "v1;1;w;t"), &member)?;
    producer.commit()?;
    let committed = consumer.committed(&[at(INPUT, 1), at(INPUT, 0)])?;
    ensure!(committed == [None, Some(CommittedOffset { offset: 0, metadata: "v1;1;w;t".into() })], "{committed:?}");
    Ok(())
}

#[test]
fn fetching_offsets_waits_for_an_open_transaction() -> Result<()> {
    let bench = Bench::new()?;
    let mut consumer = bench.member("a")?;
    let mut producer = with_offsets_open(&mut bench.cluster("a"), &mut consumer)?;
    let (answers, fetching) = fetch_offsets(consumer);
    // An unstable fetch would answer at once with "none"; how long it waits is not the point.
    ensure!(answers.recv_timeout(Duration::from_secs(2)).is_err(), "did not wait");
    producer.commit()?;
    let committed = answers.recv_timeout(PATIENCE)??;
    ensure!(committed == [Some(CommittedOffset { offset: 5, metadata: "five".into() })], "{committed:?}");
    drop(fetching.join());
    Ok(())
}

#[test]
fn fetching_offsets_waits_no_longer_for_an_open_transaction_when_told_to_stop() -> Result<()> {
    let bench = Bench::new()?;
    let settings = bench.settings("a");
    let mut cluster = KafkaCluster::new(settings.clone());
    let mut consumer = cluster.consumer()?;
    assigned(&mut consumer)?;
    let mut producer = with_offsets_open(&mut cluster, &mut consumer)?;
    let (answers, fetching) = fetch_offsets(consumer);
    ensure!(answers.recv_timeout(Duration::from_secs(2)).is_err(), "did not wait");
    settings.shutdown.request();
    let given_up = answers.recv_timeout(PATIENCE)?;
    ensure!(matches!(given_up, Err(Failure::Rebuild(_))), "{given_up:?}");
    // The transaction is open still: it was not its end that ended the waiting.
    producer.commit()?;
    drop(fetching.join());
    Ok(())
}

/// As one whose end the brokers have lost does for ever.
#[test]
fn offsets_held_back_for_longer_than_any_transaction_lasts_are_told_of() -> Result<()> {
    let bench = Bench::new()?;
    // The transaction of the other one lasts; this one believes that it cannot.
    let impatient = Settings { transaction_timeout: Duration::from_secs(1), ..bench.settings("a") };
    let mut consumer = KafkaCluster::new(impatient).consumer()?;
    assigned(&mut consumer)?;
    let mut producer = with_offsets_open(&mut bench.cluster("a"), &mut consumer)?;
    let partitions = [at(INPUT, 1), at(INPUT, 0)];
    // The first time brokers may have been away for some of it.
    let Err(untold) = consumer.committed(&partitions) else { bail!("not held back") };
    ensure!(!untold.to_string().contains("held back"), "{untold}");
    let Err(given_up) = consumer.committed(&partitions) else { bail!("not held back") };
    let told = given_up.to_string();
    ensure!(!told.contains("[1]"), "of a partition that nobody holds back: {told}");
    ensure!(
        matches!(given_up, Failure::Rebuild(_)) && told.contains("held back") && told.contains(".input [0]"),
        "{told}"
    );
    producer.commit()?;
    ensure!(consumer.committed(&[at(INPUT, 0)])? != [None]);
    Ok(())
}

/// An open transaction that holds an offset of input partition 0.
fn with_offsets_open(cluster: &mut KafkaCluster, consumer: &mut KafkaConsumer) -> Result<KafkaProducer> {
    let mut producer = cluster.producer(0)?;
    let member = consumer.metadata()?.context("no member")?;
    producer.begin()?;
    producer.send_offsets(&offset(5, "five"), &member)?;
    Ok(producer)
}

type Fetched = Result<Vec<Option<CommittedOffset>>, Failure>;

/// Fetches the offset of input partition 0 in a thread of its own, which gives the consumer back.
fn fetch_offsets(mut consumer: KafkaConsumer) -> (mpsc::Receiver<Fetched>, thread::JoinHandle<KafkaConsumer>) {
    let (send, answers) = mpsc::channel();
    let fetching = thread::spawn(move || {
        let _ = send.send(consumer.committed(&[at(INPUT, 0)]));
        consumer
    });
    (answers, fetching)
}

#[test]
fn offsets_of_an_evicted_member_are_refused() -> Result<()> {
    let bench = Bench::new()?;
    let mut consumer = bench.member("a")?;
    let mut producer = bench.cluster("a").producer(0)?;
    let member = consumer.metadata()?.expect("a member");
    let earlier = GroupMetadata::forged(&bench.application, member.generation() - 1, &member.member_id());
    let forged = [earlier, GroupMetadata::forged(&bench.application, member.generation(), "somebody else")];
    for identity in forged {
        producer.begin()?;
        send(&mut producer, at(CHANGELOG, 0), "x")?;
        let refused = producer.send_offsets(&offset(5, ""), &identity.expect("identity"));
        ensure!(matches!(refused, Err(Failure::Membership(_))), "{refused:?}");
        producer.abort()?;
    }
    // The member leaves while a transaction is open: what it knew of itself is worth nothing any more.
    producer.begin()?;
    drop(consumer);
    bench.until_nobody_is_left()?;
    let refused = producer.send_offsets(&offset(5, ""), &member);
    ensure!(matches!(refused, Err(Failure::Membership(_))), "{refused:?}");
    producer.abort()?;
    Ok(())
}

#[test]
fn a_consumer_that_is_no_member_has_no_identity() -> Result<()> {
    let bench = Bench::new()?;
    // Nowhere to join: librdkafka does so by itself, in threads of its own.
    let nowhere = Settings { bootstrap_servers: "127.0.0.1:1".into(), ..bench.settings("a") };
    let mut consumer = KafkaCluster::new(nowhere).consumer()?;
    ensure!(consumer.metadata()?.is_none(), "before joining");
    Ok(())
}

#[test]
fn a_started_partition_is_read_from_its_offset_and_nothing_comes_before() -> Result<()> {
    let bench = Bench::new()?;
    let input = at(INPUT, 0);
    bench.write(input, &["a", "b", "c", "d"])?;
    bench.write(at(INPUT, 1), &["never started"])?;
    let mut consumer = bench.member("a")?;
    ensure!(consumer.poll(Duration::from_secs(1), &mut |_| ())? == Polled::Idle, "read before it was started");
    consumer.start(input, 2, None)?;
    ensure!(read(&mut consumer, input, 2)? == [(2, "c".into()), (3, "d".into())]);

    // Back, as after an abort: what was prefetched meanwhile is not delivered.
    bench.write(input, &["e", "f"])?;
    ensure!(read(&mut consumer, input, 1)? == [(4, "e".into())]);
    consumer.start(input, 0, None)?;
    let offsets: Vec<i64> = read(&mut consumer, input, 6)?.into_iter().map(|(offset, _)| offset).collect();
    ensure!(offsets == [0, 1, 2, 3, 4, 5], "{offsets:?}");

    consumer.pause(&[input])?;
    bench.write(input, &["g"])?;
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        let polled = consumer.poll(Duration::from_millis(100), &mut |_| ())?;
        ensure!(polled == Polled::Idle, "{polled:?} while paused");
    }
    consumer.start(input, 6, None)?;
    ensure!(read(&mut consumer, input, 1)? == [(6, "g".into())]);
    Ok(())
}

/// A look-up of the log start that was still under way when the partition was started would make librdkafka jump
/// back half a second later.
#[test]
fn a_partition_started_right_after_its_assignment_does_not_jump_back() -> Result<()> {
    let bench = Bench::new()?;
    let partitions = [at(INPUT, 0), at(INPUT, 1)];
    for partition in partitions {
        bench.write(partition, &["a", "b", "c", "d"])?;
    }
    let mut consumer = bench.member("a")?;
    for partition in partitions {
        consumer.start(partition, 2, None)?;
    }
    let mut offsets = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    while offsets.len() < 4 || Instant::now() < deadline {
        ensure!(Instant::now() < deadline + PATIENCE, "only {offsets:?}");
        consumer.poll(Duration::from_millis(100), &mut |record| offsets.push(record.offset))?;
    }
    offsets.sort_unstable();
    ensure!(offsets == [2, 2, 3, 3], "{offsets:?}");
    Ok(())
}

#[test]
fn the_end_of_an_input_is_reported_behind_control_records() -> Result<()> {
    let bench = Bench::new()?;
    let input = at(INPUT, 0);
    let mut cluster = bench.cluster("a");
    commit_records(&mut cluster.producer(0)?, input, &["a", "b"])?;
    bench.until_stable(input, 3)?;
    let mut consumer = bench.member("a")?;
    consumer.start(input, 0, None)?;
    let deadline = Instant::now() + PATIENCE;
    let mut records = 0;
    loop {
        ensure!(Instant::now() < deadline, "no end within {PATIENCE:?}");
        match consumer.poll(Duration::from_millis(100), &mut |_| records += 1)? {
            Polled::End { partition, position } => {
                ensure!((partition, position, records) == (input, 3, 2), "{partition:?} {position} {records}");
                return Ok(());
            }
            _ => ensure!(records <= 2),
        }
    }
}

#[test]
fn a_start_outside_the_log_stops_with_a_code() -> Result<()> {
    let bench = Bench::new()?;
    let (zero, one) = (at(INPUT, 0), at(INPUT, 1));
    for partition in [zero, one] {
        bench.write(partition, &["a", "b", "c"])?;
    }
    let mut consumer = bench.member("a")?;
    consumer.start(zero, 1_000, None)?;
    let beyond = failure_of(&mut consumer)?;
    ensure!(code(&beyond) == "INPUT_OFFSET_OUT_OF_RANGE" && beyond.to_string().contains("1000"), "{beyond}");
    drop(consumer);

    bench.kafka.delete_records(bench.name(INPUT), 1, 2)?;
    let mut consumer = bench.member("a")?;
    consumer.start(one, 0, None)?;
    let before = failure_of(&mut consumer)?;
    ensure!(code(&before) == "INPUT_OFFSET_OUT_OF_RANGE", "{before}");
    Ok(())
}

/// What a member finds that slept while others went on and purged: librdkafka keeps the errors of the positions it
/// had, also when it loses the partitions and gets them back.
#[test]
fn an_error_from_before_a_partition_was_lost_does_not_end_the_member_that_has_it_again() -> Result<()> {
    let bench = Bench::new()?;
    let zero = at(INPUT, 0);
    bench.write(zero, &["a", "b", "c"])?;
    bench.kafka.delete_records(bench.name(INPUT), 0, 2)?;
    let mut consumer = bench.member("a")?;
    // No poll hears of the error; that it is there shows in that the partition cannot be started any more.
    let mut pause = Duration::from_millis(200);
    let failure = loop {
        consumer.start(zero, 0, None)?;
        thread::sleep(pause);
        let Err(failure) = consumer.start(zero, 2, None) else {
            pause *= 2;
            ensure!(pause < PATIENCE, "a start below the log is read");
            continue;
        };
        break failure;
    };
    ensure!(code(&failure) == "KAFKA_MEMBER_LOST", "{failure}");
    consumer.unassign(&[zero])?;
    consumer.assign(&[zero])?;
    consumer.start(zero, 2, None)?;
    ensure!(read(&mut consumer, zero, 1)? == [(2, "c".into())]);
    Ok(())
}

#[test]
fn an_unknown_leader_epoch_is_noticed_as_truncation() -> Result<()> {
    let bench = Bench::new()?;
    let input = at(INPUT, 0);
    bench.write(input, &["a", "b", "c"])?;
    let mut consumer = bench.member("a")?;
    // The true epoch is accepted …
    consumer.start(input, 0, None)?;
    let mut epoch = None;
    let deadline = Instant::now() + PATIENCE;
    while epoch.is_none() && Instant::now() < deadline {
        consumer.poll(Duration::from_millis(100), &mut |record| epoch = record.leader_epoch)?;
    }
    ensure!(epoch.is_some(), "no leader epoch");
    consumer.start(input, 2, epoch)?;
    ensure!(read(&mut consumer, input, 1)? == [(2, "c".into())]);
    // … one that this log never had means that it is another log.
    consumer.start(input, 2, Some(99))?;
    let failure = failure_of(&mut consumer)?;
    ensure!(code(&failure) == "INPUT_LOG_TRUNCATED", "{failure}");
    Ok(())
}

#[test]
fn a_deleted_input_topic_stops_with_a_code() -> Result<()> {
    let bench = Bench::new()?;
    let mut consumer = bench.member("a")?;
    consumer.start(at(INPUT, 0), 0, None)?;
    bench.kafka.delete_topics(&[bench.name(INPUT)])?;
    let deadline = Instant::now() + PATIENCE;
    let failure = loop {
        ensure!(Instant::now() < deadline, "not missed within {PATIENCE:?}");
        match consumer.poll(Duration::from_millis(100), &mut |_| ()) {
            Err(failure) => break failure,
            Ok(Polled::Rebalance(rebalance)) => {
                use processor_engine::cluster::Rebalance;
                match rebalance {
                    Rebalance::Assign(partitions) => consumer.assign(&partitions)?,
                    Rebalance::Revoke(partitions) | Rebalance::Lost(partitions) => consumer.unassign(&partitions)?,
                }
            }
            Ok(_) => {}
        }
    };
    ensure!(code(&failure) == "TOPIC_MISSING", "{failure}");
    Ok(())
}

/// Drops it on a thread and waits for that.
fn ends(consumer: KafkaConsumer) -> Result<()> {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        drop(consumer);
        let _ = done.send(());
    });
    ended.recv_timeout(PATIENCE)?;
    Ok(())
}

#[test]
fn dropping_a_consumer_ends_in_every_state() -> Result<()> {
    let bench = Bench::new()?;
    bench.write(at(INPUT, 0), &["a"])?;
    ends(bench.cluster("never polled").consumer()?)?;

    let mut reading = bench.member("reading")?;
    reading.start(at(INPUT, 0), 0, None)?;
    read(&mut reading, at(INPUT, 0), 1)?;
    reading.committed(&[at(INPUT, 0)])?;
    ends(reading)?;

    let mut unanswered = bench.cluster("unanswered").consumer()?;
    let deadline = Instant::now() + PATIENCE;
    while !matches!(unanswered.poll(Duration::from_millis(100), &mut |_| ())?, Polled::Rebalance(_)) {
        ensure!(Instant::now() < deadline, "no rebalance within {PATIENCE:?}");
    }
    ends(unanswered)?;
    ends(bench.member("after all of them")?)
}
