//! The targets.

use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use processor_core::{Partition, Row, Sum};
use schemas::debezium::{Columns, Decoder, Names, PiecesType, WriterSchema};
use schemas::{
    ChangelogKey, Control, GoodType, IdType, Movement, ReceivedControl, Scale, StockDelta, TransactionRecord, headers,
};
use service::configuration::{Common, parse_from};
use uuid::Uuid;

use crate::inputs::split;
use crate::{bounded, seeds};

/// What a decoder may allocate for each byte it is given, and for none: details of refusals, buffers that grow.
const PER_BYTE: usize = 64;
const AT_LEAST: usize = 64 << 10;
/// A schema is a tree in memory, and every type in it some hundred bytes.
const PER_BYTE_OF_SCHEMA: usize = 20_000;
/// Longest value that a decoder lets pass.
const LIMIT: usize = 500;

/// Scales that records are read as: whole pieces, and that of the golden fractions.
fn scales() -> impl Iterator<Item = Scale> {
    [0, 3].into_iter().flat_map(Scale::try_from)
}

const fn allowed(bytes: &[u8]) -> usize {
    AT_LEAST + PER_BYTE * bytes.len()
}

/// Of the usual table, of one whose goods are texts, of one whose key has two columns, and of two whose pieces are not
/// whole.
fn decoders() -> &'static [Decoder] {
    static DECODERS: LazyLock<Vec<Decoder>> = LazyLock::new(|| {
        let of = |columns| Decoder { columns, ..Decoder::new(LIMIT) };
        let id = ["id", "created_at"].map(str::to_owned).to_vec();
        let keys = Columns::new(Names { id, id_type: IdType::Key, ..Names::default() });
        let texts = Columns::default().with_goods(GoodType::Text);
        let pieces = |pieces_type| Columns::default().with_pieces(pieces_type, Scale::MAX);
        let tables = [Columns::default(), texts, pieces(PiecesType::Number), pieces(PiecesType::Decimal)];
        tables.into_iter().chain(keys).map(of).collect()
    });
    &DECODERS
}

/// Change events in JSON: key and value.
pub fn events_json(input: &[u8]) {
    let (key, value) = split(input);
    for decoder in decoders() {
        bounded("events in JSON", allowed(input), || {
            drop(decoder.decode(Some(key), Some(value)));
            drop(decoder.decode_value(&Uuid::nil().into(), Some(value)));
        });
    }
}

/// Change events in Avro: key and value, framed or not as they are, and framed for certain.
pub fn events_avro(input: &[u8]) {
    static SCHEMA: LazyLock<Arc<WriterSchema>> = LazyLock::new(|| Arc::new(seeds::avro_schema()));
    registered("events in Avro", input, &SCHEMA);
}

/// The same in JSON behind a schema.
pub fn events_json_schema(input: &[u8]) {
    static SCHEMA: LazyLock<Arc<WriterSchema>> = LazyLock::new(|| Arc::new(seeds::json_schema()));
    registered("events of a JSON schema", input, &SCHEMA);
}

fn registered(what: &str, input: &[u8], schema: &Arc<WriterSchema>) {
    let (key, value) = split(input);
    let framed = [&[0, 0, 0, 0, 7], value].concat();
    for decoder in decoders() {
        bounded(what, 3 * allowed(input), || {
            let known = |_| Ok::<_, ()>(Arc::clone(schema));
            for (key, value) in [(key, value), (key, &framed), (&framed, value), (&framed, &framed)] {
                drop(decoder.decode_registered(Some(key), Some(value), known));
            }
        });
    }
}

/// Schemas, which come from a registry and not from whoever writes the topic.
pub fn writer_schemas(input: &[u8]) {
    let Ok(schema) = std::str::from_utf8(input) else { return };
    bounded("schemas", AT_LEAST + PER_BYTE_OF_SCHEMA * schema.len(), || {
        drop(WriterSchema::avro(schema, &[]));
        drop(WriterSchema::json(&Columns::default(), schema));
    });
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Records of the changelog and of the control topic: what is accepted is written again and read as the same.
pub fn changelog(input: &[u8]) {
    let (key, value) = split(input);
    let (key, partition, control) = bounded("the changelog", 4 * allowed(input), || {
        (ChangelogKey::decode(key), Partition::decode(value), Control::decode(value))
    });
    if let Ok(key) = key {
        assert_eq!(ChangelogKey::decode(&written(|out| key.encode(out))), Ok(key));
    }
    for scale in scales() {
        let record = bounded("the rows' changelog", allowed(input), || TransactionRecord::decode(value, scale));
        let Ok(record) = record else { continue };
        let read = |value: Vec<u8>| TransactionRecord::decode(&value, scale);
        assert_eq!(read(written(|out| record.encode(scale, out))).as_ref(), Ok(&record));
        let goods = record.content.as_ref().map_or(GoodType::Integer, |content| content.good_id.good_type());
        assert_eq!(read(written(|out| record.encode_avro(goods, scale, 7, out))), Ok(record));
    }
    if let Ok(partition) = partition {
        assert_eq!(Partition::decode(&written(|out| partition.encode(out))), Ok(partition));
    }
    if let Ok(ReceivedControl::Known(control)) = control {
        let again = Control::decode(&written(|out| control.encode(out)));
        assert_eq!(again, Ok(ReceivedControl::Known(control)));
    }
}

/// Movements and stock deltas, and what their headers say.
pub fn outputs(input: &[u8]) {
    let (key, value) = split(input);
    bounded("outputs", 2 * allowed(input), || {
        let _ = (headers::parse_next_offset(Some(value)), headers::parse_sequence(Some(value)));
        let _ = [GoodType::Integer, GoodType::Text].map(|goods| StockDelta::decode_key(key, goods));
    });
    for scale in scales() {
        let (movement, delta) = bounded("outputs", 2 * allowed(input), || {
            (Movement::decode(key, value, scale), StockDelta::decode(key, value, scale))
        });
        if let Ok(movement) = movement {
            let key = written(|out| movement.encode_key(out));
            assert_eq!(Movement::decode(&key, &written(|out| movement.encode(scale, out)), scale), Ok(movement));
        }
        if let Ok(delta) = delta {
            let key = written(|out| delta.encode_key(out));
            let json = written(|out| delta.encode(scale, out));
            assert_eq!(StockDelta::decode(&key, &json, scale).as_ref(), Ok(&delta));
            let mut avro = Vec::new();
            if delta.encode_avro(7, scale, &mut avro).is_ok() {
                assert_eq!(StockDelta::decode(&key, &avro, scale), Ok(delta));
            }
        }
    }
}

/// Values of the local store.
pub fn state(input: &[u8]) {
    let (row, sum) = bounded("the state", allowed(input), || {
        let sum = Sum::scale(input).and_then(|scale| Sum::decode(input, scale).map(|sum| (sum, scale)));
        (Row::decode(input), sum)
    });
    if let Ok(row) = row {
        assert_eq!(Row::decode(&written(|out| row.encode(out))), Ok(row));
    }
    if let Ok((sum, scale)) = sum {
        assert_eq!(written(|out| sum.encode(scale, out)), input);
    }
}

#[derive(Debug, clap::Parser)]
struct Program {
    #[command(flatten)]
    _common: Common,
    /// A number
    #[arg(long, default_value_t = 1)]
    _batch_records: u32,
    /// Several
    #[arg(long, action = clap::ArgAction::Append)]
    _label: Vec<String>,
}

/// Files with settings. They are the operator's own, so what reading one allocates is not counted.
pub fn configuration(input: &[u8]) {
    let write = || -> std::io::Result<tempfile::NamedTempFile> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(input)?;
        Ok(file)
    };
    let Ok(file) = write() else { return };
    let words = ["program".into(), "--config".into(), file.path().as_os_str().to_owned()];
    let _ = parse_from::<Program>("FUZZ", words, []);
}
