package streams;

import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Named;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;

/**
 * The same job as a carefully written Kafka Streams application: exactly_once_v2, RocksDB with bounded memory, a repartition topic
 * between the steps, redeliveries recognised by lsn. It has no answer to new snapshots.
 */
public final class StreamsApp {
    private static final List<String> FLAGS =
        List.of("bootstrap", "application-id", "source", "output", "state-dir", "partitions", "threads", "commit-interval-ms", "emit");

    public static void main(String[] words) throws Exception {
        Arguments arguments = new Arguments(words, FLAGS);
        Properties properties = properties(arguments);
        KafkaStreams streams = new KafkaStreams(topology(arguments, properties), properties);
        streams.setStateListener((now, before) -> System.out.println(before + " -> " + now));
        streams.setUncaughtExceptionHandler(exception -> {
            exception.printStackTrace();
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        CountDownLatch done = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(30));
            done.countDown();
        }));
        streams.start();
        done.await();
    }

    private static Properties properties(Arguments arguments) {
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments.required("application-id"));
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments.required("bootstrap"));
        p.put(StreamsConfig.STATE_DIR_CONFIG, arguments.required("state-dir"));
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments.number("threads", 2));
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, arguments.number("commit-interval-ms", 100));
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 3);
        p.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64L << 20);
        p.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, RocksTuning.class);
        producer(p, ProducerConfig.COMPRESSION_TYPE_CONFIG, "lz4");
        producer(p, ProducerConfig.LINGER_MS_CONFIG, 100);
        producer(p, ProducerConfig.BATCH_SIZE_CONFIG, 256 << 10);
        producer(p, ProducerConfig.BUFFER_MEMORY_CONFIG, 128L << 20);
        // The first produce of a transaction is refused with CONCURRENT_TRANSACTIONS while the markers of the one before are being
        // written, and then waits out the producer's back-off: 100 ms by default, growing to 1 s.
        producer(p, ProducerConfig.RETRY_BACKOFF_MS_CONFIG, 20);
        producer(p, ProducerConfig.RETRY_BACKOFF_MAX_MS_CONFIG, 50);
        consumer(p, ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 2000);
        consumer(p, ConsumerConfig.FETCH_MAX_BYTES_CONFIG, 50 << 20);
        consumer(p, ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, 2 << 20);
        consumer(p, ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 10_000);
        consumer(p, ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 2_000);
        p.put(StreamsConfig.restoreConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
        return p;
    }

    private static void producer(Properties p, String name, Object value) { p.put(StreamsConfig.producerPrefix(name), value); }

    private static void consumer(Properties p, String name, Object value) { p.put(StreamsConfig.mainConsumerPrefix(name), value); }

    private static Topology topology(Arguments arguments, Properties properties) {
        String output = arguments.required("output");
        StreamsBuilder builder = new StreamsBuilder();
        KStream<Long, Long> movements = builder
            .stream(arguments.required("source"), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .process(step(Transactions::new, store(Transactions.STORE, Serdes.Bytes()).withCachingDisabled()), Named.as("transactions"))
            .repartition(Repartitioned.<Long, Long>as("movements").withKeySerde(Serdes.Long()).withValueSerde(Serdes.Long())
                .withNumberOfPartitions(arguments.number("partitions", 10)));
        KStream<byte[], byte[]> deltas = switch (arguments.text("emit", "every")) {
            case "every" -> movements.process(step(Goods::new, store(Goods.STORE, Serdes.Long()).withCachingEnabled()), Named.as("goods"));
            case "commit" -> newestPerCommit(movements);
            default -> throw new IllegalArgumentException("--emit every|commit");
        };
        deltas.to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        return builder.build(properties);
    }

    /** A cached table forwards only the newest value of each good at a commit (or when the cache is full). */
    private static KStream<byte[], byte[]> newestPerCommit(KStream<Long, Long> movements) {
        ThreadLocal<Ascii> text = ThreadLocal.withInitial(Ascii::new);
        return movements
            .groupByKey(Grouped.with(Serdes.Long(), Serdes.Long()))
            .aggregate(() -> new byte[24], (good, delta, old) -> {
                ByteBuffer sum = ByteBuffer.wrap(old);
                return ByteBuffer.allocate(24).putLong(sum.getLong() + delta).putLong(sum.getLong() + 1).putLong(delta).array();
            }, Materialized.<Long, byte[]>as(Stores.persistentTimestampedKeyValueStore(Goods.STORE))
                .withKeySerde(Serdes.Long()).withValueSerde(Serdes.ByteArray()).withCachingEnabled())
            .toStream()
            .map((good, value) -> {
                ByteBuffer sum = ByteBuffer.wrap(value);
                Ascii buffer = text.get();
                return KeyValue.pair(Goods.key(buffer, good), Goods.value(buffer, good, sum.getLong(), sum.getLong(), sum.getLong()));
            });
    }

    private static <K> StoreBuilder<KeyValueStore<K, byte[]>> store(String name, Serde<K> key) {
        return Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(name), key, Serdes.ByteArray()).withLoggingEnabled(Map.of());
    }

    private static <A, B, C, D> ProcessorSupplier<A, B, C, D> step(java.util.function.Supplier<Processor<A, B, C, D>> processor, StoreBuilder<?> store) {
        return new ProcessorSupplier<>() {
            @Override public Processor<A, B, C, D> get() { return processor.get(); }
            @Override public Set<StoreBuilder<?>> stores() { return Set.of(store); }
        };
    }
}
