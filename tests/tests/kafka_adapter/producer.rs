//! Transactions: delivery reports, fencing by transactional id, group offsets of two producers in turn.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use processor_engine::cluster::{Cluster as _, Delivered, GroupConsumer as _, NewRecord, TransactionalProducer as _};
use processor_engine::{Failure, TopicPartition};
use tests::client::Isolation;

use crate::clients::{Bench, CHANGELOG, INPUT, PATIENCE, at, commit_records, offset, send};

#[test]
fn delivery_offsets_are_those_of_this_transaction_only() -> Result<()> {
    let bench = Bench::new()?;
    let mut producer = bench.cluster("a").producer(0)?;
    let (zero, one) = (at(CHANGELOG, 0), at(CHANGELOG, 1));
    let range = |target: TopicPartition, first, last| Delivered { target, first, last };

    producer.begin()?;
    for value in ["a", "b", "c"] {
        send(&mut producer, zero, value)?;
    }
    send(&mut producer, one, "d")?;
    ensure!(producer.flush()? == [range(zero, 0, 2), range(one, 0, 0)]);
    producer.commit()?;

    // The marker of the first transaction has offset 3, so this one begins at 4.
    ensure!(commit_records(&mut producer, zero, &["e", "f"])? == [range(zero, 4, 5)]);
    producer.begin()?;
    send(&mut producer, one, "never seen")?;
    ensure!(producer.flush()? == [range(one, 2, 2)]);
    producer.abort()?;
    ensure!(commit_records(&mut producer, one, &["g"])? == [range(one, 4, 4)]);
    Ok(())
}

#[test]
fn keys_values_tombstones_and_headers_arrive_byte_for_byte() -> Result<()> {
    let bench = Bench::new()?;
    let mut producer = bench.cluster("a").producer(0)?;
    let target = at(CHANGELOG, 1);
    let headers: &[(&str, &[u8])] = &[("one", b"\x00\xff"), ("two", b""), ("one", b"again")];
    producer.begin()?;
    producer.send(&NewRecord { target, key: Some(b"\xfe"), value: None, headers })?;
    producer.send(&NewRecord { target, key: None, value: Some(b""), headers: &[] })?;
    producer.commit()?;
    bench.until_stable(target, 3)?;

    let records = bench.kafka.read(bench.name(CHANGELOG), Isolation::ReadCommitted)?;
    let [tombstone, empty] = records.as_slice() else { anyhow::bail!("{records:?}") };
    ensure!(tombstone.key.as_deref() == Some(b"\xfe") && tombstone.value.is_none() && tombstone.partition == 1);
    let read: Vec<(&str, &[u8])> =
        tombstone.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or(b"null"))).collect();
    ensure!(read == headers, "{read:?}");
    ensure!(empty.key.is_none() && empty.value.as_deref() == Some(b"") && empty.headers.is_empty());
    Ok(())
}

#[test]
fn a_second_initialisation_fences_the_first_and_aborts_what_it_left_open() -> Result<()> {
    let bench = Bench::new()?;
    let mut first = bench.cluster("a").producer(0)?;
    let target = at(CHANGELOG, 0);
    first.begin()?;
    send(&mut first, target, "of a zombie")?;
    first.flush()?;

    let mut second = bench.cluster("a").producer(0)?;
    let refused = first.commit();
    ensure!(matches!(refused, Err(Failure::Fenced(_))), "{refused:?}");
    commit_records(&mut second, target, &["of the owner"])?;
    bench.until_stable(target, 4)?;
    let records = bench.kafka.read(bench.name(CHANGELOG), Isolation::ReadCommitted)?;
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref()).collect();
    ensure!(values == [Some(b"of the owner".as_slice())], "{values:?}");
    Ok(())
}

#[test]
fn the_other_turn_is_not_fenced() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let (mut zero, mut one) = (cluster.producer(0)?, cluster.producer(1)?);
    commit_records(&mut zero, at(CHANGELOG, 0), &["a"])?;
    commit_records(&mut one, at(CHANGELOG, 0), &["b"])?;
    commit_records(&mut zero, at(CHANGELOG, 0), &["c"])?;
    Ok(())
}

#[test]
fn two_producers_in_turn_leave_the_offset_committed_last() -> Result<()> {
    let bench = Bench::new()?;
    let mut consumer = bench.member("a")?;
    let mut cluster = bench.cluster("a");
    let mut producers = [cluster.producer(0)?, cluster.producer(1)?];
    for sequence in 0..60_i64 {
        let producer = &mut producers[usize::try_from(sequence % 2)?];
        let metadata = format!("sequence {sequence}");
        producer.begin()?;
        send(producer, at(CHANGELOG, 0), &metadata)?;
        producer.flush()?;
        let member = consumer.metadata()?.expect("a member");
        // Offsets that go back and forth: only the order of commits may decide.
        let next = 1_000 + (sequence * 7) % 13;
        producer.send_offsets(&offset(next, &metadata), &member)?;
        producer.commit()?;
        if sequence % 3 == 0 {
            let committed = consumer.committed(&[at(INPUT, 0)])?;
            let found = committed.first().and_then(Option::as_ref).expect("committed");
            ensure!((found.offset, found.metadata.as_str()) == (next, metadata.as_str()), "{found:?} after {sequence}");
        }
    }
    Ok(())
}

#[test]
fn a_transaction_without_offsets_to_send_is_refused_locally() -> Result<()> {
    let bench = Bench::new()?;
    let mut consumer = bench.member("a")?;
    let mut producer = bench.cluster("a").producer(0)?;
    let member = consumer.metadata()?.expect("a member");
    producer.begin()?;
    let refused = producer.send_offsets(&[], &member);
    ensure!(matches!(refused, Err(Failure::Abort(_))), "{refused:?}");
    producer.abort()?;
    Ok(())
}

#[test]
fn a_record_larger_than_the_topic_takes_stops_with_a_code() -> Result<()> {
    let bench = Bench::new()?;
    let mut producer = bench.cluster("a").producer(0)?;
    // Does not compress: digits of a simple generator.
    let mut state = 1_u64;
    let value: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{state:016x}")
    })
    .take(400_000)
    .collect();
    producer.begin()?;
    send(&mut producer, at(CHANGELOG, 0), &value)?;
    let refused = producer.flush();
    ensure!(matches!(&refused, Err(Failure::Stop(stop)) if stop.code == "RECORD_TOO_LARGE"), "{refused:?}");
    producer.abort()?;
    // librdkafka leaves a gap in the sequence numbers there: the next transaction fails once more, for the broker's
    // answer to the gap, and its abort takes a new epoch.
    if let Err(failure) = commit_records(&mut producer, at(CHANGELOG, 0), &["small"]) {
        ensure!(matches!(failure, Failure::Abort(_)), "{failure}");
        ensure!(!failure.to_string().contains("Purged"), "the reason is hidden: {failure}");
        producer.abort()?;
        commit_records(&mut producer, at(CHANGELOG, 0), &["small"])?;
    }
    Ok(())
}

#[test]
fn dropping_a_producer_in_mid_transaction_ends() -> Result<()> {
    let bench = Bench::new()?;
    let mut producer = bench.cluster("a").producer(0)?;
    producer.begin()?;
    send(&mut producer, at(CHANGELOG, 0), "left open")?;
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        drop(producer);
        let _ = done.send(());
    });
    ended.recv_timeout(PATIENCE)?;
    Ok(())
}

/// Prints figures to read; asserts nothing about speed.
#[test]
fn commits_do_not_wait_for_polling_quanta() -> Result<()> {
    let bench = Bench::new()?;
    let mut consumer = bench.member("a")?;
    let mut cluster = bench.cluster("a");
    let mut producers = [cluster.producer(0)?, cluster.producer(1)?];
    let mut took: [Vec<Duration>; 4] = Default::default();
    for turn in 0..100_usize {
        let producer = &mut producers[turn % 2];
        let began = Instant::now();
        producer.begin()?;
        for number in 0..1_000 {
            send(producer, at(CHANGELOG, number % 2), "a value of some length, as changelogs have it")?;
        }
        let queued = Instant::now();
        producer.flush()?;
        let flushed = Instant::now();
        let member = consumer.metadata()?.expect("a member");
        producer.send_offsets(&offset(i64::try_from(turn)?, "metadata"), &member)?;
        let sent = Instant::now();
        producer.commit()?;
        let committed = Instant::now();
        for (times, duration) in
            took.iter_mut().zip([queued - began, flushed - queued, sent - flushed, committed - sent])
        {
            times.push(duration);
        }
    }
    for (name, times) in ["produce", "flush", "send_offsets", "commit"].iter().zip(&mut took) {
        times.sort_unstable();
        println!("{name}: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
    Ok(())
}
