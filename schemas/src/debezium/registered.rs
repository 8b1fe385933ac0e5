//! Keys and values in a registry's wire format: a zero byte, the id of their schema in four bytes, then Avro or JSON.
//!
//! Owns that framing and what a schema has to say about the bytes behind it. Fetches no schema: whoever calls brings
//! them, because asking a registry is I/O. Whatever comes in, it is read into the same [`Change`] as plain JSON:
//! values of Avro are handed on as the JSON text that the JSON converter would have written for them, so that there is
//! one authority on what they mean (`value`).
//!
//! Which form a record has is told by the record: a topic may change over in the middle.

use std::sync::Arc;

use serde_json::Value;

use super::key::{self, Family};
use super::value::{self, RawEnvelope};
use super::{Change, Columns, Decoder, Key, Record, envelope};
use crate::avro::{Field, Input, Layout, Malformed, Scalar};
use crate::debezium::number::Form;
use crate::json::parse_canonical_uuid;
use crate::row_id::quoted;
use crate::{GoodType, IdType, Reason, Rejection, RowId};

pub use crate::avro::UnusableSchema;

/// First byte of everything in wire format. No JSON text begins so.
const MAGIC: u8 = 0;
/// The magic byte and the id.
const HEADER_BYTES: usize = 5;

/// The schema id of a key or value in wire format; `None` for any other.
pub fn schema_id(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [MAGIC, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// What lies behind the schema id; `None` if it is not in wire format.
pub(crate) fn payload(bytes: &[u8]) -> Option<&[u8]> {
    schema_id(bytes).and_then(|_| bytes.get(HEADER_BYTES..))
}

/// Appends what comes before a payload in wire format.
pub(crate) fn framed(schema_id: u32, out: &mut Vec<u8>) {
    out.push(MAGIC);
    out.extend_from_slice(&schema_id.to_be_bytes());
}

/// A schema of a registry, made ready for reading what was written with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterSchema(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Avro(Layout),
    Json(Forms),
}

/// How the two columns with numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Forms {
    good_id: Form,
    pcs: Form,
}

impl WriterSchema {
    /// An Avro schema; `references` are the named schemas it uses without defining them.
    ///
    /// # Errors
    /// [`UnusableSchema`] says why values of it cannot be read.
    pub fn avro(schema: &str, references: &[String]) -> Result<Self, UnusableSchema> {
        Layout::of(schema, references).map(|layout| Self(Kind::Avro(layout)))
    }

    /// A JSON schema, or the schema of Connect's own JSON converter, of a table with these columns.
    ///
    /// # Errors
    /// [`UnusableSchema`] if it is not JSON.
    pub fn json(columns: &Columns, schema: &str) -> Result<Self, UnusableSchema> {
        let schema: Value =
            serde_json::from_str(schema).map_err(|error| UnusableSchema(format!("no JSON schema: {error}")))?;
        let row = property(&schema, &schema, "after", &mut LOOKS.clone());
        let form = |column| {
            let column = row.and_then(|row| property(&schema, row, column, &mut LOOKS.clone()));
            column.map_or(Form::AsWritten, |column| form(&schema, column, &mut LOOKS.clone()))
        };
        // Where goods are texts, a text is one and no number.
        let good_id = match (columns.good_type(), form(columns.good_id())) {
            (GoodType::Text, Form::Text) => Form::AsWritten,
            (_, form) => form,
        };
        Ok(Self(Kind::Json(Forms { good_id, pcs: form(columns.pcs()) })))
    }
}

impl Decoder {
    /// Reads one record whose key, value, or both are in wire format; as [`Decoder::decode`] otherwise. `schema` is asked
    /// for the schema of an id.
    ///
    /// # Errors
    /// Those of `schema`: then nothing is said about the record.
    pub fn decode_registered<E>(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        mut schema: impl FnMut(u32) -> Result<Arc<WriterSchema>, E>,
    ) -> Result<Record, E> {
        let columns = &self.columns;
        let mut schema_of = |bytes: Option<&[u8]>| bytes.and_then(schema_id).map(&mut schema).transpose();
        let (key_schema, value_schema) = (schema_of(key)?, schema_of(value)?);
        let decoded = match (key, &key_schema) {
            (Some(key), Some(schema)) => decode_key(columns, key, schema),
            _ => self.decode_key(key),
        };
        let is_truncate = || match (value, &value_schema) {
            (Some(value), Some(schema)) => {
                schema.read(columns, value, |envelope| Ok(envelope.op == Some(r#""t""#))) == Ok(true)
            }
            _ => value::is_truncate(columns, value),
        };
        Ok(match decoded {
            Ok(key) => {
                let change = match (value, &value_schema) {
                    (Some(value), Some(schema)) => {
                        let change = schema.read(columns, value, |envelope| envelope.change(columns, &key.id));
                        value::limited(value.len(), self.max_value_bytes, change)
                    }
                    _ => self.decode_value(&key.id, value),
                };
                Record { key: Some(key), change }
            }
            Err(_) if is_truncate() => Record { key: None, change: Ok(Change::Truncate) },
            Err(rejection) => Record { key: None, change: Err(rejection) },
        })
    }
}

impl WriterSchema {
    /// Reads a value in wire format and hands its envelope over.
    fn read<T>(
        &self,
        columns: &Columns,
        value: &[u8],
        with: impl FnOnce(RawEnvelope<'_>) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let payload = payload(value).unwrap_or_default();
        match &self.0 {
            Kind::Avro(layout) => with(envelope::read(columns, layout, payload)?.raw()),
            Kind::Json(forms) => {
                let Some(mut envelope) = value::parse(columns, payload)? else {
                    return Err(Rejection::new(Reason::NotAnEnvelope, "null behind a schema id"));
                };
                let text = |raw: Option<&str>, form: Form| raw.and_then(|raw| form.text(raw));
                let row = envelope.after.as_ref();
                let good_id = row.and_then(|row| text(row.good_id, forms.good_id));
                let pcs = row.and_then(|row| text(row.pcs, forms.pcs));
                if let Some(row) = &mut envelope.after {
                    row.good_id = good_id.as_deref().or(row.good_id);
                    row.pcs = pcs.as_deref().or(row.pcs);
                    row.pcs_is_exact = pcs.is_some();
                }
                with(envelope)
            }
        }
    }
}

/// Reads a key in wire format: the id and nothing else, as for any key.
fn decode_key(columns: &Columns, key: &[u8], schema: &WriterSchema) -> Result<Key, Rejection> {
    let payload = payload(key).unwrap_or_default();
    let read = match (&schema.0, columns.id_type()) {
        (Kind::Avro(layout), IdType::Uuid) => avro_uuid(columns, layout, key, payload),
        (Kind::Avro(layout), IdType::Key) => match layout.fields() {
            Some(fields) => avro_key(columns, fields, key, payload),
            None => Err("no record"),
        },
        (Kind::Json(_), _) => key::find(columns, payload)
            .and_then(|found| key::of_values(columns, key, &found.values, Family::RegisteredJson)),
    };
    read.map_err(|why| key::not_the_id(key, why))
}

/// An Avro key whose only field is a uuid.
fn avro_uuid(columns: &Columns, layout: &Layout, key: &[u8], payload: &[u8]) -> Result<Key, &'static str> {
    let Some([(name, Layout::Text)]) = layout.fields() else { return Err("not exactly one text field") };
    if **name != *columns.id() {
        return Err(key::not_exactly(columns));
    }
    let mut input = Input::new(payload);
    let text = input.text().map_err(|Malformed(why)| why)?;
    if input.left() != 0 {
        return Err("more than its schema says");
    }
    let id = parse_canonical_uuid(text.as_bytes()).map(RowId::Uuid).ok_or(key::NO_UUID)?;
    // Its length, which stands before it, is always the same.
    let gap = key.len() - text.len()..key.len();
    let encoding = key::encoding(key, vec![gap], Family::Avro).ok_or("id not found in the key")?;
    Ok(Key { id, encoding })
}

/// An Avro key whose fields are the columns of the id.
fn avro_key(columns: &Columns, fields: &[Field], key: &[u8], payload: &[u8]) -> Result<Key, &'static str> {
    let not_exactly = key::not_exactly(columns);
    let mut values: Vec<Option<String>> = vec![None; columns.id_columns().len()];
    let (mut gaps, mut input) = (Vec::with_capacity(fields.len()), Input::new(payload));
    for (name, layout) in fields {
        let at = columns.id_columns().iter().position(|column| **column == **name).ok_or(not_exactly)?;
        let start = key.len() - input.left();
        let value = match input.scalar(layout).map_err(|Malformed(why)| why)? {
            Scalar::Integer(integer) => integer.to_string(),
            Scalar::Text(text) => quoted(text),
            _ => return Err("a column of the id is neither a 64-bit integer nor a text"),
        };
        // Whole, because the bytes of an integer, and of a text's length, are as many as it needs.
        gaps.push(start..key.len() - input.left());
        *values.get_mut(at).ok_or(not_exactly)? = Some(value);
    }
    if input.left() != 0 {
        return Err("more than its schema says");
    }
    let values: Vec<&str> = values.iter().map(Option::as_deref).collect::<Option<_>>().ok_or(not_exactly)?;
    let id = RowId::of_values(&values)?;
    let encoding = key::encoding(key, gaps, Family::Avro).ok_or("id not found in the key")?;
    Ok(Key { id, encoding })
}

/// How many references and alternatives are looked into for one field; they may lead in circles.
const LOOKS: u32 = 200;

/// What a schema says about a field: in a JSON schema, also behind `$ref` and among alternatives; in Connect's own.
fn property<'a>(root: &'a Value, schema: &'a Value, name: &str, looks: &mut u32) -> Option<&'a Value> {
    *looks = looks.checked_sub(1)?;
    if let Some(found) = schema.get("properties").and_then(|properties| properties.get(name)) {
        return Some(found);
    }
    if let Some(fields) = schema.get("fields").and_then(Value::as_array) {
        return fields.iter().find(|field| field.get("field").and_then(Value::as_str) == Some(name));
    }
    alternatives(root, schema).find_map(|schema| property(root, schema, name, looks))
}

/// What a schema refers to, and the alternatives it gives.
fn alternatives<'a>(root: &'a Value, schema: &'a Value) -> impl Iterator<Item = &'a Value> {
    let referenced = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    let referenced = referenced.and_then(|path| root.pointer(path));
    let lists = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|list| schema.get(list).and_then(Value::as_array));
    referenced.into_iter().chain(lists.flatten())
}

/// How numbers of a column are written.
fn form(root: &Value, column: &Value, looks: &mut u32) -> Form {
    let Some(left) = looks.checked_sub(1) else { return Form::AsWritten };
    *looks = left;
    let text = |name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default();
    // Connect's own schema names types in `name`, a JSON schema made of it in `title`.
    let named = |wanted: &str| text("name") == wanted || text("title") == wanted;
    if named("org.apache.kafka.connect.data.Decimal") && matches!(text("type"), "bytes" | "string") {
        let scale = ["parameters", "connect.parameters"].into_iter().find_map(|parameters| {
            let scale = column.get(parameters)?.get("scale")?;
            scale.as_i64().or_else(|| scale.as_str()?.parse().ok())
        });
        return Form::Decimal { scale: scale.unwrap_or(0) };
    }
    if named("io.debezium.data.VariableScaleDecimal") {
        return Form::VariableScaleDecimal;
    }
    match text("type") {
        "string" => Form::Text,
        "" => {
            let mut forms = alternatives(root, column).map(|column| form(root, column, looks));
            forms.find(|form| *form != Form::AsWritten).unwrap_or(Form::AsWritten)
        }
        _ => Form::AsWritten,
    }
}
