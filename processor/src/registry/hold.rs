//! The engine's consumer, with partitions held back where a record needs a schema that is not at hand.
//!
//! Owns which partitions are held and from where each is read on; the engine does not know. To it a held partition looks
//! like one without new records: nothing of it is delivered, its end is not told, its position stays. Whatever the
//! engine does to a partition (seek, pause, give up) ends the hold, because the engine then says itself from where
//! it is read; the record that was held comes again and is held again.
//!
//! Guards invariant 7 at this place: no record is passed by. A hold begins before the record is handed over, and
//! reading goes on at that very record.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use processor_engine::cluster::{Cluster, CommittedOffset, GroupConsumer, LogEnds, Polled, Record};
use processor_engine::{Failure, TopicIndex, TopicPartition};
use schemas::debezium::schema_id;

use super::cache::{Known, SchemaCache};

/// A cluster whose group member holds partitions back; everything else is the inner one's.
pub struct RegistryCluster<C> {
    inner: C,
    source: TopicIndex,
    schemas: Option<SchemaCache>,
}

impl<C> RegistryCluster<C> {
    /// Looks at records of `source`. Without schemas nothing is ever held.
    pub fn new(inner: C, source: TopicIndex, schemas: Option<SchemaCache>) -> Self {
        Self { inner, source, schemas }
    }
}

impl<C: Cluster> Cluster for RegistryCluster<C> {
    type Metadata = C::Metadata;
    type Consumer = HoldingConsumer<C::Consumer>;
    type Producer = C::Producer;
    type Reader = C::Reader;

    fn consumer(&mut self) -> Result<Self::Consumer, Failure> {
        Ok(HoldingConsumer::new(self.inner.consumer()?, self.source, self.schemas.clone()))
    }

    fn producer(&mut self, turn: usize) -> Result<Self::Producer, Failure> {
        self.inner.producer(turn)
    }

    fn reader(&mut self) -> Result<Self::Reader, Failure> {
        self.inner.reader()
    }

    fn log_ends(&mut self, partition: TopicPartition) -> Result<LogEnds, Failure> {
        self.inner.log_ends(partition)
    }

    fn has_unread(&mut self, input: TopicIndex, except: &BTreeSet<i32>) -> Result<bool, Failure> {
        self.inner.has_unread(input, except)
    }

    fn topic_id(&mut self, topic: TopicIndex) -> Result<String, Failure> {
        self.inner.topic_id(topic)
    }

    fn delete_records(&mut self, partition: TopicPartition, before: i64) -> Result<(), Failure> {
        self.inner.delete_records(partition, before)
    }

    fn now_ms(&mut self) -> u64 {
        self.inner.now_ms()
    }
}

/// Where a partition is read on, and what for it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    offset: i64,
    /// The held record's own, which is at least as new as that of the record before it.
    leader_epoch: Option<i32>,
    schema: u32,
}

/// A group member that holds partitions back; see the module.
#[derive(Debug)]
pub struct HoldingConsumer<K> {
    inner: K,
    source: TopicIndex,
    schemas: Option<Schemas>,
    held: BTreeMap<TopicPartition, Hold>,
}

/// The cache, and what this consumer has seen in it.
#[derive(Debug)]
struct Schemas {
    cache: SchemaCache,
    here: HashSet<u32>,
}

impl Schemas {
    /// Whether a schema is at hand; asks for it otherwise.
    fn is_here(&mut self, id: u32) -> Result<bool, Failure> {
        if self.here.contains(&id) {
            return Ok(true);
        }
        match self.cache.get(id) {
            Known::Here(_) => Ok(self.here.insert(id)),
            Known::Awaited => Ok(false),
            Known::Never(stop) => Err(stop.into()),
        }
    }

    /// The first schema that a record needs and that is not at hand.
    fn missing(&mut self, record: &Record<'_>) -> Result<Option<u32>, Failure> {
        for bytes in [record.key, record.value] {
            if let Some(id) = bytes.and_then(schema_id)
                && !self.is_here(id)?
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

impl<K: GroupConsumer> HoldingConsumer<K> {
    fn new(inner: K, source: TopicIndex, schemas: Option<SchemaCache>) -> Self {
        let schemas = schemas.map(|cache| Schemas { cache, here: HashSet::new() });
        Self { inner, source, schemas, held: BTreeMap::new() }
    }

    /// Reads on where the schema has arrived.
    fn release(&mut self) -> Result<(), Failure> {
        let Some(schemas) = &mut self.schemas else { return Ok(()) };
        let mut arrived = Vec::new();
        for (partition, hold) in &self.held {
            if schemas.is_here(hold.schema)? {
                arrived.push((*partition, *hold));
            }
        }
        for (partition, hold) in arrived {
            self.inner.start(partition, hold.offset, hold.leader_epoch)?;
            self.held.remove(&partition);
            tracing::info!(
                partition = partition.partition,
                offset = hold.offset,
                schema = hold.schema,
                "the schema is here, the partition is read on"
            );
        }
        Ok(())
    }

    /// Holds a partition back from this record on.
    fn hold(&mut self, partition: TopicPartition, hold: Hold) -> Result<(), Failure> {
        tracing::info!(
            partition = partition.partition,
            offset = hold.offset,
            schema = hold.schema,
            "a record needs a schema that is not at hand, its partition waits"
        );
        // First: were pausing to fail, the engine would read from its own position again.
        self.held.insert(partition, hold);
        self.inner.pause(&[partition])
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.held.remove(partition);
        }
    }
}

/// What a poll came to, beside what the inner consumer says.
enum Met {
    Nothing,
    Delivered,
    Missing(TopicPartition, Hold),
    Failed(Failure),
}

impl<K: GroupConsumer> GroupConsumer for HoldingConsumer<K> {
    type Metadata = K::Metadata;

    fn poll(&mut self, timeout: Duration, on_record: &mut dyn FnMut(&Record<'_>)) -> Result<Polled, Failure> {
        if !self.held.is_empty() {
            self.release()?;
        }
        let mut timeout = timeout;
        loop {
            let Self { inner, source, schemas, held } = self;
            let mut met = Met::Nothing;
            let polled = inner.poll(timeout, &mut |record| {
                // Prefetched before its partition was paused: it is read again.
                if !held.is_empty() && held.contains_key(&record.source) {
                    return;
                }
                if record.source.topic == *source
                    && let Some(schemas) = schemas
                {
                    match schemas.missing(record) {
                        Ok(None) => {}
                        Ok(Some(schema)) => {
                            let Record { offset, leader_epoch, .. } = *record;
                            met = Met::Missing(record.source, Hold { offset, leader_epoch, schema });
                            return;
                        }
                        Err(failure) => {
                            met = Met::Failed(failure);
                            return;
                        }
                    }
                }
                met = Met::Delivered;
                on_record(record);
            })?;
            match (met, &polled) {
                (Met::Failed(failure), _) => return Err(failure),
                (Met::Missing(partition, hold), _) => self.hold(partition, hold)?,
                (Met::Nothing, Polled::Record) => {}
                // The end lies behind the record that is held.
                (_, Polled::End { partition, .. }) if self.held.contains_key(partition) => {}
                _ => return Ok(polled),
            }
            // Nothing was given to the caller: look again, but wait no more.
            timeout = Duration::ZERO;
        }
    }

    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        self.forget(partitions);
        self.inner.assign(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        self.forget(partitions);
        self.inner.unassign(partitions)
    }

    fn start(&mut self, partition: TopicPartition, offset: i64, leader_epoch: Option<i32>) -> Result<(), Failure> {
        self.forget(&[partition]);
        self.inner.start(partition, offset, leader_epoch)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        self.forget(partitions);
        self.inner.pause(partitions)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Failure> {
        self.inner.committed(partitions)
    }

    fn metadata(&mut self) -> Result<Option<Self::Metadata>, Failure> {
        self.inner.metadata()
    }

    fn leave(&mut self) -> Result<(), Failure> {
        self.inner.leave()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use processor_engine::cluster::NoHeaders;
    use schemas::debezium::{Columns, WriterSchema};

    use super::super::client::NoSchema;
    use super::*;

    const SOURCE: TopicIndex = TopicIndex(0);
    const OTHER: TopicIndex = TopicIndex(2);

    fn at(topic: TopicIndex, partition: i32) -> TopicPartition {
        TopicPartition { topic, partition }
    }

    /// What the inner consumer brings next.
    enum Next {
        Record(TopicPartition, i64, Vec<u8>),
        End(TopicPartition, i64),
    }

    /// Gives what it is told to give, and notes what is asked of it.
    #[derive(Default)]
    struct Scripted {
        next: VecDeque<Next>,
        asked: Vec<String>,
    }

    impl GroupConsumer for Scripted {
        type Metadata = ();

        fn poll(&mut self, _: Duration, on_record: &mut dyn FnMut(&Record<'_>)) -> Result<Polled, Failure> {
            match self.next.pop_front() {
                None => Ok(Polled::Idle),
                Some(Next::End(partition, position)) => Ok(Polled::End { partition, position }),
                Some(Next::Record(source, offset, value)) => {
                    on_record(&Record {
                        source,
                        offset,
                        timestamp_ms: None,
                        leader_epoch: Some(3),
                        key: None,
                        value: Some(&value),
                        headers: &NoHeaders,
                    });
                    Ok(Polled::Record)
                }
            }
        }
        fn assign(&mut self, _: &[TopicPartition]) -> Result<(), Failure> {
            Ok(())
        }
        fn unassign(&mut self, _: &[TopicPartition]) -> Result<(), Failure> {
            Ok(())
        }
        fn start(&mut self, at: TopicPartition, offset: i64, epoch: Option<i32>) -> Result<(), Failure> {
            self.asked.push(format!("start {} at {offset} {epoch:?}", at.partition));
            Ok(())
        }
        fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
            self.asked.extend(partitions.iter().map(|at| format!("pause {}", at.partition)));
            Ok(())
        }
        fn committed(&mut self, _: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Failure> {
            Ok(Vec::new())
        }
        fn metadata(&mut self) -> Result<Option<()>, Failure> {
            Ok(Some(()))
        }
        fn leave(&mut self) -> Result<(), Failure> {
            Ok(())
        }
    }

    fn avro(schema: u8) -> Vec<u8> {
        vec![0, 0, 0, 0, schema, 1, 2, 3]
    }

    struct Bench {
        consumer: HoldingConsumer<Scripted>,
        cache: SchemaCache,
        delivered: Vec<(i32, i64)>,
        ends: Vec<(i32, i64)>,
    }

    impl Bench {
        fn new(next: impl IntoIterator<Item = Next>) -> Self {
            let cache = SchemaCache::default();
            let inner = Scripted { next: next.into_iter().collect(), ..Scripted::default() };
            let consumer = HoldingConsumer::new(inner, SOURCE, Some(cache.clone()));
            Self { consumer, cache, delivered: Vec::new(), ends: Vec::new() }
        }

        /// Polls until there is nothing more.
        fn drain(&mut self) -> Result<(), Failure> {
            loop {
                let delivered = &mut self.delivered;
                let before = delivered.len();
                let polled = self
                    .consumer
                    .poll(Duration::ZERO, &mut |record| delivered.push((record.source.partition, record.offset)))?;
                match polled {
                    Polled::Record => assert_eq!(delivered.len(), before + 1, "one record for one answer"),
                    Polled::End { partition, position } => self.ends.push((partition.partition, position)),
                    _ => return Ok(()),
                }
            }
        }

        fn arrives(&self, schema: u32) {
            self.cache.answered(schema, Ok(WriterSchema::json(&Columns::default(), "{}").unwrap()));
        }
    }

    #[test]
    fn only_the_partition_that_needs_the_schema_waits_and_nothing_of_it_is_lost() {
        let json = || b"{}".to_vec();
        let mut bench = Bench::new([
            Next::Record(at(SOURCE, 0), 5, json()),
            Next::Record(at(SOURCE, 0), 6, avro(7)),
            // Prefetched.
            Next::Record(at(SOURCE, 0), 7, json()),
            Next::End(at(SOURCE, 0), 8),
            Next::Record(at(SOURCE, 1), 3, json()),
            Next::Record(at(OTHER, 0), 9, avro(7)),
            Next::End(at(SOURCE, 1), 4),
        ]);
        bench.drain().unwrap();
        assert_eq!(bench.delivered, [(0, 5), (1, 3), (0, 9)], "other topics have no schemas");
        assert_eq!(bench.ends, [(1, 4)], "a held partition is not at its end");
        assert_eq!(bench.consumer.inner.asked, ["pause 0"]);
        bench.drain().unwrap();
        bench.arrives(7);
        bench.consumer.inner.next.extend([
            Next::Record(at(SOURCE, 0), 6, avro(7)),
            Next::Record(at(SOURCE, 0), 7, json()),
            Next::End(at(SOURCE, 0), 8),
        ]);
        bench.drain().unwrap();
        assert_eq!(bench.consumer.inner.asked, ["pause 0", "start 0 at 6 Some(3)"]);
        assert_eq!(bench.delivered[3..], [(0, 6), (0, 7)]);
        assert_eq!(bench.ends[1..], [(0, 8)]);
    }

    #[test]
    fn what_the_engine_says_about_a_partition_ends_the_hold() {
        let one = at(SOURCE, 0);
        for say in [
            |consumer: &mut HoldingConsumer<Scripted>| consumer.start(at(SOURCE, 0), 2, None),
            |consumer: &mut HoldingConsumer<Scripted>| consumer.pause(&[at(SOURCE, 0)]),
            |consumer: &mut HoldingConsumer<Scripted>| consumer.unassign(&[at(SOURCE, 0)]),
            |consumer: &mut HoldingConsumer<Scripted>| consumer.assign(&[at(SOURCE, 0)]),
        ] {
            let mut bench = Bench::new([Next::Record(one, 6, avro(7))]);
            bench.drain().unwrap();
            say(&mut bench.consumer).unwrap();
            let asked = bench.consumer.inner.asked.len();
            bench.arrives(7);
            bench.drain().unwrap();
            assert_eq!(bench.consumer.inner.asked.len(), asked, "no start behind the engine's back");
        }
    }

    #[test]
    fn a_record_that_needs_two_schemas_waits_for_both() {
        let mut bench = Bench::new([]);
        let give = |bench: &mut Bench| {
            let (key, value) = (avro(1), avro(2));
            let record = Record {
                source: at(SOURCE, 0),
                offset: 6,
                timestamp_ms: None,
                leader_epoch: None,
                key: Some(&key),
                value: Some(&value),
                headers: &NoHeaders,
            };
            bench.consumer.schemas.as_mut().unwrap().missing(&record)
        };
        assert_eq!(give(&mut bench), Ok(Some(1)));
        bench.arrives(1);
        assert_eq!(give(&mut bench), Ok(Some(2)));
        bench.arrives(2);
        assert_eq!(give(&mut bench), Ok(None));
    }

    #[test]
    fn a_schema_that_will_never_come_stops() {
        let mut bench = Bench::new([Next::Record(at(SOURCE, 0), 6, avro(7))]);
        bench.drain().unwrap();
        bench.cache.answered(7, Err(NoSchema::Unusable("Protobuf".into())));
        assert!(matches!(bench.drain(), Err(Failure::Stop(stop)) if stop.code == "SCHEMA_UNUSABLE"));
    }

    #[test]
    fn without_a_registry_everything_is_delivered() {
        let mut bench = Bench::new([Next::Record(at(SOURCE, 0), 6, avro(7))]);
        bench.consumer.schemas = None;
        bench.drain().unwrap();
        assert_eq!(bench.delivered, [(0, 6)]);
    }
}
