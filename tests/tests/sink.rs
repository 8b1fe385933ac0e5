//! The sink against real brokers and a real target: it catches up by itself, whatever happens to either side
//! (invariants 8 and 9). What it reads is written by the tests, so that they decide about epochs and offsets.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use schemas::partitioner::partition_for_good;
use schemas::{Control, Scale, StockDelta};
use tests::client::{Kafka, NewTopic, OutgoingRecord, ResetTo, Sql, unique_name};
use tests::native::{NativeOptions, NativeStack};
use tests::stack::{Component, PATIENCE, ProgramSpec, RunningProgram, Stack, Viewpoint, wait_until};

const PARTITIONS: i32 = 4;
const GROUP: &str = "stock-sink";

/// One broker and a target for all tests that break neither.
fn shared() -> Result<&'static NativeStack> {
    static STACK: OnceLock<std::result::Result<NativeStack, String>> = OnceLock::new();
    let start = || NativeOptions::brokers(1).with_target_database().start();
    STACK.get_or_init(|| start().map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
}

/// Topics and a database of a test's own, and the goods as they must end up.
struct Bench<'a> {
    stack: &'a NativeStack,
    kafka: Kafka,
    prefix: String,
    group: String,
    database: String,
    sql: Sql,
    goods: BTreeMap<i64, (i128, u64)>,
    epoch: u64,
}

impl<'a> Bench<'a> {
    fn new(stack: &'a NativeStack) -> Result<Self> {
        let addresses = stack.addresses(Viewpoint::Host);
        let kafka = Kafka::new(&addresses.bootstrap_servers);
        let prefix = unique_name("sink");
        let server = addresses.target_database_url.context("no target database")?;
        let name = prefix.replace(['-', '.'], "_");
        Sql::connect(&server)?.execute(&format!("CREATE DATABASE {name}"))?;
        let (start, _) = server.rsplit_once('/').context("no database in the URL")?;
        let database = format!("{start}/{name}");
        let sql = Sql::connect(&database)?;
        let group = format!("{GROUP}-{name}");
        let bench = Self { stack, kafka, prefix, group, database, sql, goods: BTreeMap::new(), epoch: 1_000 };
        bench.kafka.create_topic(&bench.deltas_topic())?;
        Ok(bench)
    }

    fn topic(&self) -> String {
        format!("{}.deltas", self.prefix)
    }

    fn deltas_topic(&self) -> NewTopic {
        NewTopic::new(self.topic(), PARTITIONS).property("cleanup.policy", "compact")
    }

    fn sink(&self, name: &str) -> Result<Box<dyn RunningProgram>> {
        self.stack.run(&self.spec(name))
    }

    fn spec(&self, name: &str) -> ProgramSpec {
        ProgramSpec::sink(format!("{name}-{}", self.prefix))
            .flag("--topic-prefix", &self.prefix)
            .flag("--group-id", &self.group)
            .flag("--database-url", &self.database)
            .flag("--batch-records", 50)
            .flag("--log-level", "debug")
            .env("RUST_BACKTRACE", "0")
    }

    /// The next version of each good, as the processor would write it.
    fn next_versions(&mut self, goods: impl IntoIterator<Item = i64>) -> Vec<StockDelta> {
        let epoch = self.epoch;
        let next = |good_id: i64| {
            let (remains, version) = self.goods.entry(good_id).or_default();
            let delta = i128::from(good_id) + i128::from(*version) + 1;
            *remains += delta;
            *version += 1;
            StockDelta { good_id: good_id.into(), delta, remains: *remains, transactions: 1, version: *version, epoch }
        };
        goods.into_iter().map(next).collect()
    }

    fn write(&mut self, goods: impl IntoIterator<Item = i64>) -> Result<()> {
        let records: Vec<OutgoingRecord> = self.next_versions(goods).iter().map(record).collect();
        self.kafka.write(&self.topic(), &records).map(drop)
    }

    /// Writes as the processor does: in a transaction, so that each partition ends in a marker.
    fn write_transaction(&mut self, goods: impl IntoIterator<Item = i64>) -> Result<()> {
        let producer: BaseProducer = self.kafka.config().set("transactional.id", unique_name("writer")).create()?;
        producer.init_transactions(PATIENCE)?;
        producer.begin_transaction()?;
        let topic = self.topic();
        for delta in self.next_versions(goods) {
            let record = record(&delta);
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            let base = BaseRecord::to(&topic).key(&key).payload(&value).partition(record.partition);
            producer.send(base).map_err(|(error, _)| error)?;
        }
        producer.commit_transaction(PATIENCE)?;
        Ok(())
    }

    /// Deletes the output and begins it anew, as the processor does when it is rebuilt from nothing.
    fn rebuild(&mut self) -> Result<()> {
        self.kafka.delete_topics(&[&self.topic()])?;
        self.kafka.create_topic(&self.deltas_topic())?;
        self.goods.clear();
        self.epoch += 1_000;
        Ok(())
    }

    /// Announces that every partition has all of the epoch, below the offset each partition has now.
    fn announce_epoch(&self) -> Result<()> {
        let topic = format!("{}.control", self.prefix);
        if !self.kafka.topics()?.contains(&topic) {
            self.kafka.create_topic(&NewTopic::new(&topic, 1).property("cleanup.policy", "compact"))?;
        }
        let mut records = Vec::new();
        for partition in 0..PARTITIONS {
            let (_, offset) = self.kafka.watermarks(&self.topic(), partition)?;
            let control = Control::EpochComplete { partition, epoch: self.epoch, offset };
            let (mut key, mut value) = (Vec::new(), Vec::new());
            control.encode_key(&mut key);
            control.encode(&mut value);
            records.push(OutgoingRecord { key: Some(key), value: Some(value), ..OutgoingRecord::default() });
        }
        self.kafka.write(&topic, &records).map(drop)
    }

    fn expected(&self) -> Result<BTreeMap<i64, i64>> {
        self.goods.iter().map(|(good, (remains, _))| Ok((*good, i64::try_from(*remains)?))).collect()
    }

    /// Waits until the target shows exactly what was written.
    fn wait_equal(&self, sink: &dyn RunningProgram) -> Result<()> {
        let expected = self.expected()?;
        let equal = || Ok(self.sql.remains().is_ok_and(|remains| remains == expected));
        wait_until("the target to show what was written", equal).with_context(|| {
            let log = sink.log().unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let shown = self.sql.remains();
            let rows = shown.as_ref().map_or(0, BTreeMap::len);
            format!(
                "{rows} rows instead of {}; {}",
                expected.len(),
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            )
        })
    }

    /// Waits until the sink has counted so many rows, and not one more. To be asked once the target shows what was
    /// written: a batch is counted after its commit, which the target shows a moment earlier.
    fn wait_rows_counted(&self, sink: &dyn RunningProgram, rows: u64) -> Result<()> {
        let counted = || self.metric(sink, "sink_rows_total");
        wait_until("the sink to count its rows", || Ok(counted()? >= rows))?;
        let counted = counted()?;
        ensure!(counted == rows, "{counted} rows instead of {rows}");
        Ok(())
    }

    fn metric(&self, sink: &dyn RunningProgram, name: &str) -> Result<u64> {
        let url = format!("http://{}/metrics", sink.http_address());
        let text = ureq::get(url).call()?.body_mut().read_to_string()?;
        let series = format!("{name}{{topic=\"{}\"}} ", self.topic());
        let value = text.lines().find_map(|line| line.strip_prefix(&series)).with_context(|| format!("no {series}"))?;
        Ok(value.parse()?)
    }
}

fn record(delta: &StockDelta) -> OutgoingRecord {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    delta.encode_key(&mut key);
    delta.encode(Scale::WHOLE, &mut value);
    let partitions = NonZeroU32::MIN.saturating_add(3);
    let partition = partition_for_good(&delta.good_id, partitions);
    OutgoingRecord { partition, key: Some(key), value: Some(value), ..OutgoingRecord::default() }
}

fn end_cleanly(sink: &mut Box<dyn RunningProgram>) -> Result<()> {
    sink.terminate()?;
    let exit = sink.wait_exit()?;
    ensure!(exit.is_clean(), "{exit}");
    Ok(())
}

#[test]
fn stock_deltas_arrive_the_group_sees_no_lag_and_a_restart_applies_nothing_twice() -> Result<()> {
    let mut bench = Bench::new(shared()?)?;
    let mut sink = bench.sink("sink")?;
    bench.write(0..200)?;
    bench.wait_equal(&*sink)?;
    bench.write_transaction(0..50)?;
    bench.wait_equal(&*sink)?;
    wait_until("the group to see the offsets", || {
        let offsets = bench.kafka.group_offsets(&bench.group, &bench.topic())?;
        let seen: i64 = offsets.values().map(|offset| offset.offset).sum();
        // Each partition ends in the marker of the transaction, which is nobody's record.
        Ok(offsets.len() == 4 && seen == 250)
    })?;
    end_cleanly(&mut sink)?;
    let sink = bench.sink("sink")?;
    bench.write([7])?;
    bench.wait_equal(&*sink)?;
    bench.wait_rows_counted(&*sink, 1)
}

#[test]
fn a_target_restored_from_an_earlier_copy_catches_up_by_itself_even_when_idle() -> Result<()> {
    let mut bench = Bench::new(shared()?)?;
    let sink = bench.sink("sink")?;
    bench.write(0..100)?;
    bench.wait_equal(&*sink)?;
    bench.sql.execute(
        "CREATE SCHEMA copy; CREATE TABLE copy.remains AS TABLE remains.remains;
         CREATE TABLE copy.progress AS TABLE remains.progress",
    )?;
    bench.write(50..300)?;
    bench.wait_equal(&*sink)?;
    bench.sql.execute(
        "BEGIN; DELETE FROM remains.remains; INSERT INTO remains.remains TABLE copy.remains;
         DELETE FROM remains.progress; INSERT INTO remains.progress TABLE copy.progress; COMMIT",
    )?;
    bench.wait_equal(&*sink)?;
    ensure!(bench.metric(&*sink, "sink_rewinds_total")? >= 1);
    Ok(())
}

#[test]
fn a_target_killed_in_the_middle_loses_and_doubles_nothing_and_the_sink_stays() -> Result<()> {
    let stack = NativeOptions::brokers(1).with_target_database().start()?;
    let mut bench = Bench::new(&stack)?;
    let mut sink = bench.sink("sink")?;
    bench.write(0..500)?;
    bench.wait_equal(&*sink)?;
    for _ in 0..3 {
        bench.write(0..2_000)?;
        stack.kill(Component::TargetDatabase)?;
        bench.write(1_000..3_000)?;
        wait_until("the sink to notice", || Ok(bench.metric(&*sink, "sink_database_up")? == 0))?;
        ensure!(bench.kafka.group_has_members(&bench.group)?);
        stack.start(Component::TargetDatabase)?;
        stack.wait_healthy(Component::TargetDatabase)?;
        bench.wait_equal(&*sink)?;
    }
    ensure!(sink.exit()?.is_none());
    end_cleanly(&mut sink)
}

#[test]
fn two_sinks_share_the_partitions_and_one_takes_over_when_the_other_is_killed_or_told_to_stop() -> Result<()> {
    let mut bench = Bench::new(shared()?)?;
    let mut first = bench.sink("first")?;
    let mut second = bench.sink("second")?;
    bench.write(0..300)?;
    bench.wait_equal(&*first)?;
    wait_until("both to have partitions", || {
        bench.write(0..300)?;
        bench.wait_equal(&*second)?;
        // One that has not come so far has no such metric, or nobody to ask for it.
        let has_written =
            |sink: &dyn RunningProgram| bench.metric(sink, "sink_batches_total").is_ok_and(|batches| batches > 0);
        Ok(has_written(&*first) && has_written(&*second))
    })?;
    first.kill()?;
    bench.write(100..400)?;
    bench.wait_equal(&*second)?;
    let third = bench.sink("third")?;
    bench.write(0..300)?;
    end_cleanly(&mut second)?;
    bench.write(0..500)?;
    bench.wait_equal(&*third)
}

#[test]
fn the_groups_offsets_decide_nothing() -> Result<()> {
    let mut bench = Bench::new(shared()?)?;
    let mut sink = bench.sink("sink")?;
    bench.write(0..100)?;
    bench.wait_equal(&*sink)?;
    for to in [ResetTo::Beginning, ResetTo::End, ResetTo::Offset(1_000_000)] {
        end_cleanly(&mut sink)?;
        bench.write(50..150)?;
        bench.kafka.reset_group_offsets(&bench.group, &bench.topic(), to)?;
        sink = bench.sink("sink")?;
        bench.wait_equal(&*sink)?;
        bench.wait_rows_counted(&*sink, 100).with_context(|| format!("{to:?}"))?;
    }
    Ok(())
}

#[test]
fn a_rebuilt_output_replaces_the_old_one_goods_that_no_longer_exist_included() -> Result<()> {
    let mut bench = Bench::new(shared()?)?;
    let mut sink = bench.sink("sink")?;
    // Shorter, while the sink runs; some partitions may stay without any record.
    bench.write_transaction(0..200)?;
    bench.wait_equal(&*sink)?;
    bench.rebuild()?;
    bench.write_transaction([3, 4])?;
    bench.announce_epoch()?;
    bench.wait_equal(&*sink).context("shorter, while it ran")?;
    // Longer, while the sink is down: its offsets lie within the new log.
    end_cleanly(&mut sink)?;
    bench.rebuild()?;
    bench.write_transaction(100..600)?;
    bench.announce_epoch()?;
    let mut sink = bench.sink("sink")?;
    bench.wait_equal(&*sink).context("longer, while it was down")?;
    // Of the very same length.
    end_cleanly(&mut sink)?;
    bench.rebuild()?;
    bench.write_transaction(100..600)?;
    bench.write_transaction([])?;
    bench.announce_epoch()?;
    let sink = bench.sink("sink")?;
    bench.wait_equal(&*sink).context("of the same length")?;
    let epochs = "SELECT DISTINCT epoch FROM remains.remains";
    let newest = bench.epoch.to_string();
    wait_until("the new epoch everywhere", || Ok(bench.sql.rows(epochs)? == [[Some(newest.clone())]]))
}

#[test]
fn a_record_that_cannot_be_read_stops_the_sink_with_its_place_after_writing_what_came_before() -> Result<()> {
    let mut bench = Bench::new(shared()?)?;
    bench.write([1])?;
    let good = bench.next_versions([1]);
    let place = good.iter().map(record).next().context("no record")?;
    let ignored =
        OutgoingRecord { key: Some(b"#partition".to_vec()), value: Some(b"anything".to_vec()), ..place.clone() };
    bench.goods.clear();
    bench.goods.insert(1, (2, 1));
    let foreign = OutgoingRecord { value: Some(b"not ours".to_vec()), ..place.clone() };
    let offsets = bench.kafka.write(&bench.topic(), &[ignored, foreign])?;
    let mut sink = bench.sink("sink")?;
    let exit = sink.wait_exit()?;
    ensure!(exit.code == Some(3), "{exit}");
    let log = sink.log()?;
    let at = format!("{}, partition {}, offset {}", bench.topic(), place.partition, offsets[1]);
    ensure!(log.contains("SINK_RECORD_UNREADABLE") && log.contains(&at), "{log}");
    bench.wait_equal(&*sink)
}

#[test]
fn a_topic_that_lost_records_stops_the_sink_instead_of_showing_old_numbers() -> Result<()> {
    let mut bench = Bench::new(shared()?)?;
    let mut sink = bench.sink("sink")?;
    bench.write(0..200)?;
    bench.wait_equal(&*sink)?;
    end_cleanly(&mut sink)?;
    let epoch = bench.epoch;
    bench.rebuild()?;
    bench.epoch = epoch;
    bench.write(0..20)?;
    let mut sink = bench.sink("sink")?;
    let exit = sink.wait_exit()?;
    ensure!(exit.code == Some(3), "{exit}");
    ensure!(sink.log()?.contains("SINK_TOPIC_LOST_RECORDS"));
    Ok(())
}

#[test]
fn the_transaction_log_shows_live_transactions_only_when_it_is_switched_on() -> Result<()> {
    const IDS: [&str; 2] = ["63703d1f-0000-4000-8000-000000000001", "5d838899-0000-4000-8000-000000000002"];
    let bench = Bench::new(shared()?)?;
    let topic = format!("{}.transactions", bench.prefix);
    bench.kafka.create_topic(&NewTopic::new(&topic, 1).property("cleanup.policy", "compact"))?;
    let change = |id: &str, value: Option<&str>| OutgoingRecord {
        key: Some(id.as_bytes().to_vec()),
        value: value.map(|content| {
            let rest = r#""generation":1,"streaming":true,"lsn":26370504,"commit_lsn":26370336,"ts_ms":1795333820306"#;
            format!(r#"{{"format":1,{content},{rest}}}"#).into_bytes()
        }),
        ..OutgoingRecord::default()
    };
    let live = Some(r#""good_id":2,"pieces":-15"#);
    bench.kafka.write(&topic, &[change(IDS[0], live), change("#partition", live), change(IDS[1], live)])?;
    let sink = bench.stack.run(&bench.spec("sink").switch("--transaction-log"))?;
    let rows = || bench.sql.rows("SELECT id, good_id, operation, pcs FROM remains.transaction_log ORDER BY id");
    let row = |id: &str| {
        ["2", "remove", "15"].iter().fold(vec![Some(id.to_owned())], |mut row, text| {
            row.push(Some((*text).to_owned()));
            row
        })
    };
    wait_until("both transactions", || Ok(rows().is_ok_and(|rows| rows == [row(IDS[1]), row(IDS[0])])))
        .with_context(|| sink.log().unwrap_or_default())?;
    let marker = Some(r#""good_id":null,"pieces":null"#);
    bench.kafka.write(&topic, &[change(IDS[0], marker)])?;
    wait_until("a deleted one to go", || Ok(rows()? == [row(IDS[1])]))?;
    bench.kafka.write(&topic, &[change(IDS[1], None)])?;
    wait_until("a forgotten one to go", || Ok(rows()?.is_empty()))
}
