package streams;

import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.*;

import java.util.Map;

/** Bounds RocksDB memory over all stores of the process and speeds up negative point look-ups (a new tx id is always a miss). */
public final class RocksTuning implements RocksDBConfigSetter {
    private static final long BLOCK_CACHE_BYTES = 256L << 20, MEMTABLE_BYTES = 192L << 20, WRITE_BUFFER_BYTES = 32L << 20;
    private static Cache cache;
    private static WriteBufferManager wbm;

    private static synchronized void init() {
        if (cache != null) return;
        cache = new LRUCache(BLOCK_CACHE_BYTES + MEMTABLE_BYTES, -1, false, 0.1);
        wbm = new WriteBufferManager(MEMTABLE_BYTES, cache);
    }

    @Override public void setConfig(String store, Options o, Map<String, Object> cfg) {
        init();
        BlockBasedTableConfig t = (BlockBasedTableConfig) o.tableFormatConfig();
        t.setBlockCache(cache);
        t.setCacheIndexAndFilterBlocks(true);
        t.setCacheIndexAndFilterBlocksWithHighPriority(true);
        t.setPinTopLevelIndexAndFilter(true);
        t.setBlockSize(4096);
        o.setTableFormatConfig(t);
        o.setWriteBufferManager(wbm);
        o.setWriteBufferSize(WRITE_BUFFER_BYTES);
        o.setMaxWriteBufferNumber(3);
        o.setMemtablePrefixBloomSizeRatio(0.1);
        o.setMemtableWholeKeyFiltering(true);
    }

    @Override public void close(String store, Options o) { /* shared objects stay open */ }
}
