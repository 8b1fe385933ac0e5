//! Code, golden bytes, Avro schemas and JSON schemas describe the same records.
//!
//! A golden file is never edited: a changed encoding is a new format, with a directory of its own, and the old
//! directory stays readable.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests; clippy.toml only covers the test functions themselves"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use common::{ID, id};
use schemas::dead_letter::{self, Origin};
use schemas::{
    ChangelogKey, Content, Control, GoodId, GoodType, IdType, Movement, Reason, ReceivedControl, Rejection, RowId,
    Scale, StockDelta, TransactionRecord,
};
use serde_json::Value;

fn file(path: &str) -> Value {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// Key and value of a golden file.
fn golden(name: &str) -> (Vec<u8>, Vec<u8>) {
    let file = file(&format!("golden/v1/{name}.json"));
    let bytes = |field: &str| file[field].as_str().unwrap().as_bytes().to_vec();
    (bytes("key"), bytes("value"))
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"kept".to_vec();
    write(&mut out);
    assert_eq!(&out[..4], b"kept", "writers append");
    out.split_off(4)
}

fn assert_same(found: &[u8], golden: &[u8]) {
    assert_eq!(String::from_utf8_lossy(found), String::from_utf8_lossy(golden));
}

/// What JSON escapes, and what it does not.
fn text_good() -> GoodId {
    GoodId::from_text("M8 \"A2\" größe\n").unwrap()
}

/// Of the golden files whose names end in `-fraction`; all others are of whole pieces.
fn scale_of(name: &str) -> Scale {
    if name.ends_with("-fraction") { Scale::try_from(3).unwrap() } else { Scale::WHOLE }
}

fn live() -> TransactionRecord {
    TransactionRecord {
        content: Some(Content { good_id: 2.into(), pieces: -15 }),
        generation: 26_370_000,
        streaming: true,
        lsn: 26_370_504,
        commit_lsn: Some(26_370_336),
        ts_ms: 1_795_333_820_306,
        incremental_ts_ms: None,
        outdated: false,
    }
}

#[test]
fn changelog_records_are_the_golden_bytes_both_ways() {
    let deleted = TransactionRecord {
        content: None,
        generation: 26_371_000,
        lsn: 26_372_280,
        commit_lsn: None,
        ts_ms: 1_795_333_820_309,
        ..live()
    };
    let incremental = TransactionRecord {
        content: Some(Content { good_id: 1.into(), pieces: 7 }),
        generation: 26_370_000,
        streaming: false,
        lsn: 0,
        commit_lsn: None,
        ts_ms: 0,
        incremental_ts_ms: Some(1_795_336_953_214),
        outdated: false,
    };
    let extremes = TransactionRecord {
        content: Some(Content { good_id: i64::MIN.into(), pieces: i64::MAX }),
        generation: u64::MAX,
        streaming: false,
        lsn: u64::MAX,
        commit_lsn: Some(u64::MAX),
        ts_ms: i64::MIN,
        incremental_ts_ms: Some(i64::MAX),
        outdated: false,
    };
    let text = TransactionRecord { content: Some(Content { good_id: text_good(), pieces: -15 }), ..live() };
    let fraction = TransactionRecord { content: Some(Content { good_id: 2.into(), pieces: -50 }), ..live() };
    let integer = RowId::from_bytes(b"42", IdType::Key).unwrap();
    let several = r#"[1,"M8 \"A2\" größe\n\u001F"]"#;
    let several = RowId::from_bytes(several.as_bytes(), IdType::Key).unwrap();
    for (name, key, record) in [
        ("changelog-fraction", id(ID), fraction),
        ("changelog-key-integer", integer, live()),
        ("changelog-key-several", several, live()),
        ("changelog-text", id(ID), text),
        ("changelog-outdated", id(ID), TransactionRecord { outdated: true, ..live() }),
        ("changelog-live", id(ID), live()),
        ("changelog-deleted", id(ID), deleted),
        ("changelog-incremental", id("001508c0-0578-4949-be20-20c2d3d09fe8"), incremental),
        ("changelog-extremes", id("ffffffff-ffff-ffff-ffff-ffffffffffff"), extremes),
    ] {
        let (golden_key, golden_value) = golden(name);
        let key = ChangelogKey::Transaction(key);
        assert_same(&written(|out| key.encode(out)), &golden_key);
        let scale = scale_of(name);
        assert_same(&written(|out| record.encode(scale, out)), &golden_value);
        assert_eq!(ChangelogKey::decode(&golden_key), Ok(key));
        assert_eq!(TransactionRecord::decode(&golden_value, scale), Ok(record));
    }
    assert_same(&written(|out| ChangelogKey::Partition.encode(out)), b"#partition");
    assert_eq!(ChangelogKey::decode(b"#partition"), Ok(ChangelogKey::Partition));
}

#[test]
fn movements_are_the_golden_bytes_both_ways() {
    for (name, record) in [
        ("movement", Movement { good_id: 2.into(), delta: -15, transactions: 1 }),
        ("movement-fraction", Movement { good_id: 2.into(), delta: -1_250, transactions: 1 }),
        ("movement-text", Movement { good_id: text_good(), delta: -15, transactions: 1 }),
        ("movement-extremes", Movement { good_id: i64::MIN.into(), delta: i128::MIN, transactions: i64::MIN }),
    ] {
        let (key, value) = golden(name);
        assert_same(&written(|out| record.encode_key(out)), &key);
        assert_same(&written(|out| record.encode(scale_of(name), out)), &value);
        assert_eq!(Movement::decode(&key, &value, scale_of(name)), Ok(record));
    }
}

#[test]
fn stock_deltas_are_the_golden_bytes_both_ways() {
    let delta = StockDelta {
        good_id: 2.into(),
        delta: -15,
        remains: 15,
        transactions: 2,
        version: 2,
        epoch: 1_795_333_787_103,
    };
    let extremes = StockDelta {
        good_id: i64::MAX.into(),
        delta: i128::MAX,
        remains: i128::MIN,
        transactions: i64::MIN,
        version: u64::MAX,
        epoch: u64::MAX,
    };
    let text = StockDelta { good_id: text_good(), ..delta };
    let fraction = StockDelta { delta: -1_250, remains: 12_500, ..delta.clone() };
    for (name, record) in
        [("delta", delta), ("delta-fraction", fraction), ("delta-extremes", extremes), ("delta-text", text)]
    {
        let (key, value) = golden(name);
        let scale = scale_of(name);
        assert_same(&written(|out| record.encode_key(out)), &key);
        assert_same(&written(|out| record.encode(scale, out)), &value);
        assert_eq!(StockDelta::decode(&key, &value, scale).as_ref(), Ok(&record));
        assert_eq!(StockDelta::decode_key(&key, record.good_id.good_type()), Ok(record.good_id));
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The fields that the Avro library reads with the schema; it writes the same bytes of them.
fn through_library(schema: &str, payload: &[u8]) -> BTreeMap<String, Avro> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let read = reader.read_value(&mut &*payload).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    assert_eq!(writer.write_value_to_vec(read.clone()).unwrap(), payload);
    let Avro::Record(fields) = read else { panic!("no record") };
    fields.into_iter().collect()
}

/// Bytes of a golden file that is not text.
fn golden_bytes(name: &str) -> (Vec<u8>, Vec<u8>) {
    let file = file(&format!("golden/v1/{name}.json"));
    (file["key"].as_str().unwrap().as_bytes().to_vec(), unhex(file["value_hex"].as_str().unwrap()))
}

/// A stock delta of the Avro library as one of ours, of this scale.
fn delta_from_library(fields: &BTreeMap<String, Avro>, scale: Scale) -> StockDelta {
    let long = |name: &str| if let Avro::Long(value) = fields[name] { value } else { panic!("{name}") };
    let decimal = |name: &str| {
        let Avro::Decimal(value) = &fields[name] else { panic!("{name}") };
        i128::try_from(num_bigint::BigInt::from(value.clone())).unwrap()
    };
    let (format, good_id) = match &fields["good_id"] {
        Avro::Long(value) => (1, GoodId::from(*value)),
        Avro::String(text) => (2, GoodId::from_text(text).unwrap()),
        other => panic!("{other:?}"),
    };
    assert_eq!(fields["format"], Avro::Int(format + 2 * i32::from(scale.digits())));
    StockDelta {
        good_id,
        delta: decimal("delta"),
        remains: decimal("remains"),
        transactions: long("transactions"),
        version: u64::try_from(long("version")).unwrap(),
        epoch: u64::try_from(long("epoch")).unwrap(),
    }
}

/// Code, golden bytes and `delta.avsc` agree: what one writes, the Avro library reads with the schema, and back.
#[test]
fn stock_deltas_in_avro_are_the_golden_bytes_both_ways_and_what_the_schema_says() {
    let delta = StockDelta {
        good_id: 2.into(),
        delta: -15,
        remains: 15,
        transactions: 2,
        version: 2,
        epoch: 1_795_333_787_103,
    };
    // The largest of decimal(38, 0), and of 63 bits.
    let most = 10_i128.pow(38) - 1;
    let largest = i64::MAX.cast_unsigned();
    let extremes = StockDelta {
        good_id: i64::MAX.into(),
        delta: most,
        remains: -most,
        transactions: i64::MIN,
        version: largest,
        epoch: largest,
    };
    let text = StockDelta { good_id: text_good(), ..delta };
    let fraction = StockDelta { delta: -1_250, remains: 12_500, ..delta.clone() };
    let beyond = StockDelta { epoch: largest + 1, ..delta.clone() };
    for (name, record, id) in [
        ("delta-avro", delta, 7),
        ("delta-avro-extremes", extremes, u32::MAX),
        ("delta-avro-text", text.clone(), 7),
        ("delta-avro-fraction", fraction, 7),
        ("delta-avro-text-fraction", text, 7),
    ] {
        let scale = scale_of(name);
        let (key, value) = golden_bytes(name);
        let found = written(|out| record.encode_avro(id, scale, out).unwrap());
        assert_eq!(found, value, "{name}");
        assert_eq!(StockDelta::decode(&key, &value, scale).as_ref(), Ok(&record));
        let schema = schemas::delta::avro_schema(record.good_id.good_type(), scale);
        assert_eq!(delta_from_library(&through_library(&schema, &value[5..]), scale), record, "{name}");
    }
    let mut nothing = Vec::new();
    assert!(beyond.encode_avro(1, Scale::WHOLE, &mut nothing).is_err() && nothing.is_empty());
}

/// The schema of a scale is that of whole pieces with the scale and the format in their places, and nothing else.
#[test]
fn the_avro_schema_of_every_scale_says_it_and_its_format() {
    for (good_type, suffix) in [(GoodType::Integer, ""), (GoodType::Text, "-text")] {
        for digits in 0..=Scale::MAX.digits() {
            let scale = Scale::try_from(digits).unwrap();
            let same = |schema: &str, expected: &Value| {
                assert_eq!(serde_json::from_str::<Value>(schema).unwrap(), *expected, "{suffix} {digits}");
            };
            let expected = |name: &str| {
                let mut expected = file(&format!("avro/{name}{suffix}.avsc"));
                let format = expected["fields"][0]["default"].as_u64().unwrap() + 2 * u64::from(digits);
                expected["fields"][0]["default"] = format.into();
                expected
            };
            let mut delta = expected("delta");
            for field in [2, 3] {
                delta["fields"][field]["type"]["scale"] = digits.into();
            }
            same(&schemas::delta::avro_schema(good_type, scale), &delta);
            let mut changelog = expected("changelog");
            if digits > 0 {
                changelog["fields"][2]["type"][1] = serde_json::json!(
                    {"type": "bytes", "logicalType": "decimal", "precision": 19, "scale": digits}
                );
            }
            same(&schemas::changelog::avro_schema(good_type, scale), &changelog);
        }
    }
}

/// A changelog record of the Avro library as one of ours: pieces that are not whole are decimals there.
fn changelog_from_library(fields: &BTreeMap<String, Avro>) -> TransactionRecord {
    let inner = |name: &str| match &fields[name] {
        Avro::Union(_, inner) => (**inner).clone(),
        plain => plain.clone(),
    };
    let long = |name: &str| match inner(name) {
        Avro::Long(value) => Some(value),
        Avro::Decimal(value) => Some(i64::try_from(num_bigint::BigInt::from(value)).unwrap()),
        Avro::Null => None,
        other => panic!("{name}: {other:?}"),
    };
    let good_id = match inner("good_id") {
        Avro::Long(value) => Some(GoodId::from(value)),
        Avro::String(text) => Some(GoodId::from_text(&text).unwrap()),
        Avro::Null => None,
        other => panic!("{other:?}"),
    };
    let position = |name: &str| long(name).map(|value| u64::try_from(value).unwrap());
    TransactionRecord {
        content: good_id.map(|good_id| Content { good_id, pieces: long("pieces").unwrap() }),
        generation: position("generation").unwrap(),
        streaming: inner("streaming") == Avro::Boolean(true),
        lsn: position("lsn").unwrap(),
        commit_lsn: position("commit_lsn"),
        ts_ms: long("ts_ms").unwrap(),
        incremental_ts_ms: long("incremental_ts_ms"),
        outdated: inner("outdated") == Avro::Boolean(true),
    }
}

/// Code, golden bytes and the `changelog*.avsc` agree: what one writes, the Avro library reads with the schema, and back.
#[test]
fn changelog_records_in_avro_are_the_golden_bytes_both_ways_and_what_the_schemas_say() {
    let largest = i64::MAX.cast_unsigned();
    let deleted = TransactionRecord { content: None, commit_lsn: None, ..live() };
    let extremes = TransactionRecord {
        content: Some(Content { good_id: i64::MIN.into(), pieces: i64::MAX }),
        generation: largest,
        streaming: false,
        lsn: largest,
        commit_lsn: Some(largest),
        ts_ms: i64::MIN,
        incremental_ts_ms: Some(i64::MAX),
        outdated: true,
    };
    let text = TransactionRecord { content: Some(Content { good_id: text_good(), pieces: -15 }), ..live() };
    let fraction = TransactionRecord { content: Some(Content { good_id: 2.into(), pieces: -50 }), ..live() };
    let most = Content { good_id: text_good(), pieces: i64::MAX };
    for (name, goods, record) in [
        ("changelog-avro-fraction", GoodType::Integer, fraction),
        ("changelog-avro-deleted-fraction", GoodType::Integer, deleted.clone()),
        ("changelog-avro-text-fraction", GoodType::Text, TransactionRecord { content: Some(most), ..live() }),
        ("changelog-avro", GoodType::Integer, live()),
        ("changelog-avro-deleted", GoodType::Integer, deleted.clone()),
        ("changelog-avro-extremes", GoodType::Integer, extremes),
        ("changelog-avro-text", GoodType::Text, text),
        ("changelog-avro-text-deleted", GoodType::Text, deleted),
    ] {
        let scale = scale_of(name);
        let (_, value) = golden_bytes(name);
        let found = written(|out| record.encode_avro(goods, scale, 7, out));
        assert_eq!(found, value, "{name}");
        assert_eq!(TransactionRecord::decode(&value, scale).as_ref(), Ok(&record), "{name}");
        let fields = through_library(&schemas::changelog::avro_schema(goods, scale), &value[5..]);
        assert_eq!(changelog_from_library(&fields), record, "{name}");
        let format = if goods == GoodType::Integer { 1 } else { 2 };
        assert_eq!(fields["format"], Avro::Int(format + 2 * i32::from(scale.digits())));
    }
    let beyond = TransactionRecord { lsn: largest + 1, ..live() };
    let json = written(|out| beyond.encode_avro(GoodType::Integer, Scale::WHOLE, 7, out));
    assert_same(&json, &written(|out| beyond.encode(Scale::WHOLE, out)));
}

fn controls() -> [Control; 5] {
    [
        Control::SnapshotComplete { snapshot_lsn: 100, ts_ms: 1_795_339_999_996 },
        Control::EpochComplete { partition: 3, epoch: 1_795_333_787_103, offset: 42 },
        Control::CaughtUp { partition: 3 },
        Control::ApproveSweep { partition: 3, snapshot_lsn: 100 },
        Control::SourceEmptied { snapshot_lsn: 100 },
    ]
}

#[test]
fn control_records_are_the_golden_bytes_both_ways() {
    for record in controls() {
        let (key, value) = golden(&format!("control-{}", record.kind()));
        assert_same(&written(|out| record.encode_key(out)), &key);
        assert_same(&written(|out| record.encode(out)), &value);
        assert_eq!(Control::decode(&value), Ok(ReceivedControl::Known(record)));
    }
}

#[test]
fn a_dead_letter_is_the_record_as_received_plus_the_golden_headers() {
    let (key, value) = golden("dead-letter");
    let file = file("golden/v1/dead-letter.json");
    let expected: Vec<(&str, Vec<u8>)> = file["headers"].as_array().unwrap()[1..]
        .iter()
        .map(|header| (header[0].as_str().unwrap(), header[1].as_str().unwrap().as_bytes().to_vec()))
        .collect();
    let rejection = schemas::debezium::Decoder::new(1_000).decode(Some(&key), Some(&value)).change.unwrap_err();
    let origin = Origin { topic: "warehouse.orders.transactions", partition: 3, offset: 42 };
    let found = dead_letter::headers(origin, &rejection);
    assert_eq!(found.to_vec(), expected);
    let again = dead_letter::headers(origin, &Rejection::new(Reason::NegativePcs, "pcs is -1"));
    let all = found.iter().chain(&again).map(|(name, value)| (*name, value.as_slice()));
    assert_eq!(dead_letter::reason(all), Some(Reason::NegativePcs), "the last one counts");
}

/// Field names in order, and whether the field may be null or absent, as the code writes them.
fn fields(values: &[Vec<u8>]) -> (Vec<String>, BTreeSet<String>) {
    let mut names: Vec<String> = Vec::new();
    let mut seen = BTreeMap::<String, usize>::new();
    let mut nullable = BTreeSet::new();
    for value in values {
        let text = std::str::from_utf8(value).unwrap();
        let object: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
        let mut in_order: Vec<_> =
            object.keys().map(|name| (text.find(&format!("\"{name}\":")).unwrap(), name)).collect();
        in_order.sort_unstable();
        for (_, name) in in_order {
            if !names.contains(name) {
                names.push(name.clone());
            }
            *seen.entry(name.clone()).or_default() += 1;
            if object[name].is_null() {
                nullable.insert(name.clone());
            }
        }
    }
    nullable.extend(seen.into_iter().filter(|(_, count)| *count < values.len()).map(|(name, _)| name));
    (names, nullable)
}

#[test]
fn the_avro_and_json_schemas_have_the_fields_that_the_code_writes() {
    let values = |names: &[&str]| names.iter().map(|name| golden(name).1).collect::<Vec<_>>();
    for (name, values) in [
        ("changelog", values(&["changelog-extremes", "changelog-fraction", "changelog-outdated", "changelog-deleted"])),
        (
            "changelog-text",
            values(&["changelog-extremes", "changelog-text", "changelog-outdated", "changelog-deleted"]),
        ),
        ("movement", values(&["movement", "movement-fraction"])),
        ("movement-text", values(&["movement-text"])),
        ("delta", values(&["delta", "delta-fraction"])),
        ("delta-text", values(&["delta-text"])),
        ("control", controls().iter().map(|control| written(|out| control.encode(out))).collect()),
    ] {
        let (mut written, nullable) = fields(&values);
        let avro = file(&format!("avro/{name}.avsc"));
        let mut declared: Vec<String> = Vec::new();
        let mut optional = BTreeSet::new();
        for field in avro["fields"].as_array().unwrap() {
            let field_name = field["name"].as_str().unwrap().to_owned();
            // Of the Avro form only: JSON of format 1 does not write it.
            if field_name == "format" && name.starts_with("delta") {
                continue;
            }
            if field["type"].as_array().is_some_and(|types| types[0] == "null") {
                optional.insert(field_name.clone());
            }
            declared.push(field_name);
        }
        assert_eq!(declared, written, "{name}.avsc");
        assert_eq!(optional, nullable, "{name}.avsc");

        let json = file(&format!("json/{}.schema.json", name.trim_end_matches("-text")));
        let mut declared: Vec<String> = json["properties"].as_object().unwrap().keys().cloned().collect();
        declared.sort_unstable();
        written.sort_unstable();
        assert_eq!(declared, written, "{name}.schema.json");
        let required: BTreeSet<&str> =
            json["required"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        for field in &written {
            let present = values.iter().all(|value| {
                serde_json::from_slice::<serde_json::Map<String, Value>>(value).unwrap().contains_key(field)
            });
            assert_eq!(required.contains(field.as_str()), present, "{name}.schema.json {field}");
        }
    }
}

/// The versions that have golden files, which are those that were ever released and the one to come.
fn versions() -> Vec<u64> {
    let names = std::fs::read_dir(format!("{}/golden", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut versions: Vec<u64> = names.map(|entry| name(entry).strip_prefix('v').unwrap().parse().unwrap()).collect();
    versions.sort_unstable();
    versions
}

/// What `FULL_TRANSITIVE` means in a registry: whoever has any version of a schema reads what is written with any other.
#[test]
fn every_version_of_every_avro_schema_reads_and_is_read_by_the_current_one() {
    use apache_avro::schema_compatibility::SchemaCompatibility;
    let current = |name: &str| apache_avro::Schema::parse_str(&file(&format!("avro/{name}.avsc")).to_string()).unwrap();
    let versions = versions();
    assert_eq!(versions.last(), Some(&schemas::FORMAT), "each format has a directory of golden files");
    for version in &versions {
        for name in ["changelog", "changelog-text", "control", "delta", "delta-text", "movement", "movement-text"] {
            let frozen = file(&format!("golden/v{version}/avro/{name}.avsc"));
            let frozen = apache_avro::Schema::parse_str(&frozen.to_string()).unwrap();
            let alike = SchemaCompatibility::mutual_read(&frozen, &current(name));
            assert!(alike.is_ok(), "{name}.avsc and that of format {version}: {alike:?}");
        }
    }
    // The check can fail: a field without a default can be read from no older record.
    let mut changed = file("avro/movement.avsc");
    changed["fields"].as_array_mut().unwrap().push(serde_json::json!({"name": "reason", "type": "string"}));
    let changed = apache_avro::Schema::parse_str(&changed.to_string()).unwrap();
    assert!(SchemaCompatibility::mutual_read(&current("movement"), &changed).is_err());
}

/// Within a format only fields that may be absent are added, so that a program of the same format reads them.
#[test]
fn every_golden_record_is_read_with_a_field_more_as_a_later_program_may_write_it() {
    for version in versions() {
        let directory = format!("{}/golden/v{version}", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            // Bytes of Avro have no room for more, and a dead letter is whatever it was.
            if path.is_dir() || name.contains("-avro") || name == "dead-letter" {
                continue;
            }
            let record = file(&format!("golden/v{version}/{name}.json"));
            let (key, value) = (record["key"].as_str().unwrap(), record["value"].as_str().unwrap());
            let later = value.replacen('{', r#"{"of_a_later_program":{"nested":[1,"two",null]},"#, 1);
            let (key, scale) = (key.as_bytes(), scale_of(&name));
            let read = |value: &str| match name.split('-').next() {
                Some("changelog") => {
                    TransactionRecord::decode(value.as_bytes(), scale).map(|record| format!("{record:?}"))
                }
                Some("movement") => Movement::decode(key, value.as_bytes(), scale).map(|record| format!("{record:?}")),
                Some("delta") => StockDelta::decode(key, value.as_bytes(), scale).map(|record| format!("{record:?}")),
                Some("control") => Control::decode(value.as_bytes()).map(|record| format!("{record:?}")),
                other => panic!("{other:?} records are read by no test"),
            };
            assert_eq!(read(&later).unwrap(), read(value).unwrap(), "{name}");
        }
    }
}

#[test]
fn the_readme_lists_every_reason_with_its_remedy() {
    let readme = include_str!("../README.md");
    for reason in Reason::ALL {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{reason}` |")));
        assert!(row.is_some_and(|row| row.ends_with(&format!("| {} |", reason.remedy()))), "{reason}");
    }
}
