//! Reading logs outside the group, and asking about them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use processor::kafka::KafkaReader;
use processor_engine::TopicPartition;
use processor_engine::cluster::{
    Cluster as _, GroupConsumer as _, LogEnds, LogReader as _, NewRecord, OffsetToCommit, Read,
    TransactionalProducer as _,
};
use tests::stack::wait_until;

use crate::clients::{BROADCAST, Bench, CHANGELOG, INPUT, PATIENCE, at, commit_records, send};

/// Reads to the end of a partition: offsets with values, and the position there.
fn to_the_end(reader: &mut KafkaReader, wanted: TopicPartition) -> Result<(Vec<(i64, String)>, i64)> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while Instant::now() < deadline {
        let read = reader.poll(Duration::from_millis(100), &mut |record| {
            if record.source == wanted {
                let value = record.value.map(String::from_utf8_lossy).unwrap_or_default().into_owned();
                records.push((record.offset, value));
            }
        })?;
        if let Read::End { partition, position } = read
            && partition == wanted
        {
            return Ok((records, position));
        }
    }
    bail!("no end of {wanted:?} within {PATIENCE:?}")
}

#[test]
fn aborted_records_are_not_read_and_the_end_lies_behind_all_markers() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let mut producer = cluster.producer(0)?;
    let log = at(CHANGELOG, 1);
    producer.begin()?;
    for value in ["x", "y", "z"] {
        send(&mut producer, log, value)?;
    }
    producer.flush()?;
    producer.abort()?;
    commit_records(&mut producer, log, &["a", "b"])?;
    bench.until_stable(log, 7)?;

    let mut reader = cluster.reader()?;
    reader.add(log, 0)?;
    let (records, position) = to_the_end(&mut reader, log)?;
    ensure!(records == [(4, "a".into()), (5, "b".into())], "{records:?}");
    ensure!(position == 7, "position {position}");
    ensure!(cluster.log_ends(log)? == LogEnds { start: 0, high_watermark: 7 });

    // An open transaction: the high watermark moves on, the reader's end stays at the last stable offset.
    producer.begin()?;
    send(&mut producer, log, "open")?;
    producer.flush()?;
    ensure!(cluster.log_ends(log)?.high_watermark == 8);
    reader.add(log, 5)?;
    let (records, position) = to_the_end(&mut reader, log)?;
    ensure!((records.as_slice(), position) == ([(5, "b".into())].as_slice(), 7), "{records:?} {position}");
    producer.commit()?;
    let (records, position) = to_the_end(&mut reader, log)?;
    ensure!((records.as_slice(), position) == ([(7, "open".into())].as_slice(), 9), "{records:?} {position}");
    Ok(())
}

#[test]
fn an_empty_partition_has_an_end_too() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let mut reader = cluster.reader()?;
    reader.add(at(BROADCAST, 0), 0)?;
    ensure!(to_the_end(&mut reader, at(BROADCAST, 0))? == (Vec::new(), 0));
    Ok(())
}

#[test]
fn ends_name_their_topic_also_when_partition_numbers_are_equal() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    bench.write(at(CHANGELOG, 0), &["a", "b"])?;
    let mut reader = cluster.reader()?;
    reader.add(at(CHANGELOG, 0), 0)?;
    reader.add(at(BROADCAST, 0), 0)?;
    ensure!(to_the_end(&mut reader, at(CHANGELOG, 0))?.1 == 2);
    Ok(())
}

#[test]
fn a_removed_partition_is_silent_and_can_be_added_again() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let log = at(CHANGELOG, 0);
    bench.write(log, &["a", "b", "c"])?;
    let mut reader = cluster.reader()?;
    reader.add(log, 0)?;
    to_the_end(&mut reader, log)?;
    reader.remove(log)?;
    reader.remove(log)?;
    bench.write(log, &["d"])?;
    ensure!(reader.poll(Duration::from_secs(1), &mut |_| ())? == Read::Idle);
    reader.add(log, 1)?;
    let (records, position) = to_the_end(&mut reader, log)?;
    let offsets: Vec<i64> = records.into_iter().map(|(offset, _)| offset).collect();
    ensure!((offsets.as_slice(), position) == ([1, 2, 3].as_slice(), 4), "{offsets:?} {position}");
    Ok(())
}

#[test]
fn reading_from_below_the_log_start_begins_there() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let log = at(CHANGELOG, 0);
    bench.write(log, &["a", "b", "c"])?;
    bench.kafka.delete_records(bench.name(CHANGELOG), 0, 2)?;
    let mut reader = cluster.reader()?;
    reader.add(log, 0)?;
    ensure!(to_the_end(&mut reader, log)? == (vec![(2, "c".into())], 3));
    Ok(())
}

#[test]
fn a_reader_shows_headers_keys_timestamps_and_leader_epochs() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let target = at(CHANGELOG, 0);
    let mut producer = cluster.producer(0)?;
    let headers: &[(&str, &[u8])] = &[("next-offset", b"17"), ("empty", b"")];
    producer.begin()?;
    producer.send(&NewRecord { target, key: Some(b"k"), value: None, headers })?;
    producer.commit()?;
    let mut reader = cluster.reader()?;
    reader.add(target, 0)?;
    let mut seen = None;
    let deadline = Instant::now() + PATIENCE;
    while seen.is_none() && Instant::now() < deadline {
        reader.poll(Duration::from_millis(100), &mut |record| {
            let mut headers = Vec::new();
            record.headers.for_each(&mut |name, value| headers.push((name.to_owned(), value.to_vec())));
            let known = record.timestamp_ms.is_some() && record.leader_epoch.is_some();
            seen = Some((record.key.map(<[u8]>::to_vec), record.value.is_none(), headers, known));
        })?;
    }
    let expected = vec![("next-offset".to_owned(), b"17".to_vec()), ("empty".to_owned(), Vec::new())];
    ensure!(seen == Some((Some(b"k".to_vec()), true, expected, true)), "{seen:?}");
    Ok(())
}

/// Whoever has the partitions: it decides whether a process that runs until it has caught up may end.
#[test]
fn what_is_left_to_read_of_an_input_is_told_by_the_groups_offsets_as_of_now() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let (none, own) = (BTreeSet::new(), BTreeSet::from([1]));
    // Another one each time: what one has found a moment ago it does not look for again at once.
    let has_unread = |except: &BTreeSet<i32>| bench.cluster("looks").has_unread(INPUT, except);
    ensure!(!has_unread(&none)?, "an empty topic");
    let (zero, one) = (at(INPUT, 0), at(INPUT, 1));
    bench.write(one, &["a"])?;
    ensure!(!has_unread(&own)?, "one's own are one's own concern");
    ensure!(!has_unread(&BTreeSet::from([0, 1]))?, "all are one's own");
    ensure!(has_unread(&none)?, "a record that nobody has read");

    let mut consumer = bench.member("a")?;
    let member = consumer.metadata()?.expect("a member");
    let mut producer = cluster.producer(0)?;
    producer.begin()?;
    let offset = OffsetToCommit { input: one, offset: 1, leader_epoch: None, metadata: String::new() };
    producer.send_offsets(&[offset], &member)?;
    ensure!(has_unread(&none)?, "a record whose offset an open transaction has");
    producer.commit()?;
    wait_until("the offset to count", || Ok(!has_unread(&none)?))?;

    producer.begin()?;
    send(&mut producer, zero, "not decided")?;
    producer.flush()?;
    ensure!(has_unread(&none)?, "a transaction that is not decided");
    producer.abort()?;
    bench.until_stable(zero, 2)?;
    ensure!(!has_unread(&none)?, "an aborted record and a marker");
    commit_records(&mut producer, zero, &["b"])?;
    bench.until_stable(zero, 4)?;
    ensure!(has_unread(&none)?, "a record behind them");
    Ok(())
}

#[test]
fn a_topic_that_was_recreated_has_another_id() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let before = cluster.topic_id(BROADCAST)?;
    ensure!(!before.is_empty() && before == cluster.topic_id(BROADCAST)? && before != cluster.topic_id(INPUT)?);
    bench.kafka.delete_topics(&[bench.name(BROADCAST)])?;
    bench.kafka.create_topic(&tests::client::NewTopic::new(bench.name(BROADCAST), 2))?;
    wait_until("the new id", || Ok(cluster.topic_id(BROADCAST)? != before))
}

#[test]
fn deleted_records_are_gone_without_anybody_waiting() -> Result<()> {
    let bench = Bench::new()?;
    let mut cluster = bench.cluster("a");
    let log = at(INPUT, 0);
    bench.write(log, &["a", "b", "c"])?;
    cluster.delete_records(log, 2)?;
    wait_until("the log start", || Ok(cluster.log_ends(log)? == LogEnds { start: 2, high_watermark: 3 }))?;
    // A request that cannot succeed is harmless.
    cluster.delete_records(log, 1_000)?;
    cluster.delete_records(log, 3)?;
    wait_until("the log start", || Ok(cluster.log_ends(log)? == LogEnds { start: 3, high_watermark: 3 }))
}
