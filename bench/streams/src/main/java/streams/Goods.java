package streams;

import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

import java.nio.ByteBuffer;

/** Step 2: remains and version of each good; one output record per movement. */
final class Goods implements Processor<Long, Long, byte[], byte[]> {
    static final String STORE = "goods";
    private static final byte[] GOOD = Ascii.of("{\"good_id\":"), REMAINS = Ascii.of(",\"remains\":"),
        VERSION = Ascii.of(",\"version\":"), DELTA = Ascii.of(",\"delta\":");

    private final Ascii text = new Ascii();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<Long, byte[]> store;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<Long, Long> record) {
        long good = record.key(), delta = record.value(), remains = 0, version = 0;
        byte[] old = store.get(good);
        if (old != null) {
            ByteBuffer sum = ByteBuffer.wrap(old);
            remains = sum.getLong();
            version = sum.getLong();
        }
        remains += delta;
        version++;
        store.put(good, ByteBuffer.allocate(16).putLong(remains).putLong(version).array());
        context.forward(new Record<>(key(text, good), value(text, good, remains, version, delta), record.timestamp()));
    }

    static byte[] key(Ascii text, long good) { return text.reset().put(GOOD).put(good).put('}').bytes(); }

    static byte[] value(Ascii text, long good, long remains, long version, long delta) {
        return text.reset().put(GOOD).put(good).put(REMAINS).put(remains).put(VERSION).put(version).put(DELTA).put(delta).put('}').bytes();
    }
}
