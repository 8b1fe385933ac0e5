package streams;

import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

import java.io.IOException;
import java.nio.ByteBuffer;

/** Step 1: the newest accepted version of each transaction id; forwards by how much each good moved against what was counted before. */
final class Transactions implements Processor<byte[], byte[], Long, Long> {
    static final String STORE = "transactions";
    private static final int ROW_BYTES = 25;

    private final Envelope event = new Envelope();
    private ProcessorContext<Long, Long> context;
    /** Id (16 bytes) to good (8), pieces (8), lsn (8), live (1). */
    private KeyValueStore<Bytes, byte[]> store;

    @Override
    public void init(ProcessorContext<Long, Long> context) {
        this.context = context;
        store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        // A tombstone has no lsn; the delete event before it did the work.
        if (record.value() == null || record.key() == null) return;
        boolean readable;
        try {
            readable = event.parse(record.value());
        } catch (IOException malformed) {
            readable = false;
        }
        boolean deleted = event.op == 'd';
        if (!readable || !(deleted || event.hasAfter && (event.op == 'c' || event.op == 'r' || event.op == 'u'))) return;
        Bytes id = Envelope.id(record.key());
        byte[] old = store.get(id);
        long oldGood = 0, oldPieces = 0, oldLsn = -1;
        boolean live = false;
        if (old != null) {
            ByteBuffer row = ByteBuffer.wrap(old);
            oldGood = row.getLong();
            oldPieces = row.getLong();
            oldLsn = row.getLong();
            live = row.get() == 1;
            if (event.lsn >= 0 && event.lsn <= oldLsn) return; // redelivered
        }
        long lsn = Math.max(event.lsn, oldLsn), timestamp = record.timestamp();
        if (deleted) {
            // A marker stays, so that a late redelivery of an older version cannot count again.
            store.put(id, row(0, 0, lsn, false));
            if (live) forward(oldGood, -oldPieces, timestamp);
            return;
        }
        store.put(id, row(event.good, event.pieces, lsn, true));
        if (!live) {
            forward(event.good, event.pieces, timestamp);
        } else if (oldGood != event.good) {
            forward(oldGood, -oldPieces, timestamp);
            forward(event.good, event.pieces, timestamp);
        } else if (oldPieces != event.pieces) {
            forward(event.good, event.pieces - oldPieces, timestamp);
        }
    }

    private void forward(long good, long pieces, long timestamp) {
        context.forward(new Record<>(good, pieces, timestamp)); // Debezium's headers are not carried on
    }

    private static byte[] row(long good, long pieces, long lsn, boolean live) {
        return ByteBuffer.allocate(ROW_BYTES).putLong(good).putLong(pieces).putLong(lsn).put((byte) (live ? 1 : 0)).array();
    }
}
