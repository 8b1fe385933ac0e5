//! How fast one core reads change events and writes our records: `cargo run --release -p schemas --example codec_rate`.
//!
//! Prints figures, asserts none: they depend on the machine.

use std::hint::black_box;
use std::time::Instant;

use schemas::{Content, Scale, StockDelta, TransactionRecord, debezium};
use uuid::Uuid;

const PLAIN: &str = concat!(
    r#"{"before":null,"after":{"id":"78c14186-0000-4000-8000-000000000004","good_id":2,"operation":"remove","pcs":15,"#,
    r#""created_at":"2026-11-22T07:50:20.305990Z"},"source":{"version":"3.6.0.Final","connector":"postgresql","#,
    r#""name":"warehouse","ts_ms":1795333820306,"snapshot":"false","db":"goods_db","#,
    r#""sequence":"[\"26370336\",\"26370504\"]","ts_us":1795333820306131,"ts_ns":1795333820306131000,"#,
    r#""schema":"orders","table":"transactions","txId":732,"lsn":26370504,"xmin":null,"origin":null,"#,
    r#""origin_lsn":null},"transaction":null,"op":"c","ts_ms":1795333820669,"ts_us":1795333820669456,"#,
    r#""ts_ns":1795333820669456597}"#
);
const KEY: &str = r#"{"id":"78c14186-0000-4000-8000-000000000004"}"#;
const WRAPPED_KEY: &str = concat!(
    r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"name":"io.debezium.data.Uuid","#,
    r#""version":1,"field":"id"}],"optional":false,"name":"warehouse.orders.transactions.Key"},"#,
    r#""payload":{"id":"78c14186-0000-4000-8000-000000000004"}}"#
);

/// The fastest of many short rounds: a neighbour on the machine spoils some of them, not all.
fn rate(name: &str, bytes: usize, mut work: impl FnMut()) {
    const CALLS: u32 = 1_000;
    let mut best = f64::MAX;
    for _ in 0..500 {
        let start = Instant::now();
        for _ in 0..CALLS {
            work();
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(CALLS));
    }
    println!("{name:32} {bytes:4} bytes  {:7.0} ns  {:6.2} M/s", best * 1e9, 1e-6 / best);
}

fn main() {
    let decode =
        |key: &str, value: &str| debezium::Decoder::new(1_000_000).decode(Some(key.as_bytes()), Some(value.as_bytes()));
    rate("change event", PLAIN.len(), || {
        black_box(decode(black_box(KEY), black_box(PLAIN)).change.is_ok());
    });
    let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{PLAIN}}}"#);
    rate("change event, wrapped", wrapped.len(), || {
        black_box(decode(black_box(WRAPPED_KEY), black_box(&wrapped)).change.is_ok());
    });
    rate("key", KEY.len(), || {
        black_box(debezium::Decoder::new(0).decode_key(Some(black_box(KEY.as_bytes()))).is_ok());
    });
    rate("key, wrapped", WRAPPED_KEY.len(), || {
        black_box(debezium::Decoder::new(0).decode_key(Some(black_box(WRAPPED_KEY.as_bytes()))).is_ok());
    });

    let record = TransactionRecord {
        content: Some(Content { good_id: 2.into(), pieces: -15 }),
        generation: 1,
        streaming: true,
        lsn: 26_370_504,
        commit_lsn: Some(26_370_336),
        ts_ms: 1_795_333_820_306,
        incremental_ts_ms: None,
        outdated: false,
    };
    let delta = StockDelta {
        good_id: 2.into(),
        delta: -15,
        remains: 15,
        transactions: 2,
        version: 2,
        epoch: 1_795_333_787_103,
    };
    let id = Uuid::from_u128(0x78c1_4186_0000_4000_8000_0000_0000_0004);
    let mut out = Vec::with_capacity(1_000);
    record.encode(Scale::WHOLE, &mut out);
    let encoded = out.clone();
    rate("changelog, write key and value", 36 + encoded.len(), || {
        out.clear();
        schemas::ChangelogKey::Transaction(black_box(id).into()).encode(&mut out);
        black_box(&record).encode(black_box(Scale::WHOLE), &mut out);
        black_box(&out);
    });
    rate("changelog, read", encoded.len(), || {
        black_box(TransactionRecord::decode(black_box(&encoded), black_box(Scale::WHOLE)).is_ok());
    });
    out.clear();
    delta.encode(Scale::WHOLE, &mut out);
    rate("delta, write", out.len(), || {
        out.clear();
        black_box(&delta).encode(black_box(Scale::WHOLE), &mut out);
        black_box(&out);
    });
    let encoded = out.clone();
    rate("delta, read", encoded.len(), || {
        black_box(StockDelta::decode(b"2", black_box(&encoded), black_box(Scale::WHOLE)).is_ok());
    });
}
