//! A parsed schema made ready for reading: names resolved, everything that does not change the bytes taken off.

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

/// Records in records in records: deeper is no change event, and would cost stack.
const MAX_DEPTH: usize = 32;
/// Types in a schema, named ones counted wherever they are used: more is no change event, and would cost memory.
const MAX_NODES: usize = 20_000;

/// How the bytes of one type lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    Null,
    Boolean,
    /// `int`, and what is written as one.
    Int,
    /// `long`, and what is written as one.
    Long,
    Float,
    Double,
    Bytes,
    Text,
    /// So many bytes.
    Fixed(usize),
    /// Two's complement, most significant byte first, times 10^−`scale`; in so many bytes, or with a length before it.
    Decimal {
        scale: i64,
        fixed: Option<usize>,
    },
    /// An index below this number of symbols.
    Enum(usize),
    Array(Box<Self>),
    Map(Box<Self>),
    Union(Vec<Self>),
    Record(Vec<Field>),
}

/// A field of a record: its name and how its bytes lie.
pub(crate) type Field = (Box<str>, Layout);

/// Why values of a schema cannot be read here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableSchema(pub(crate) String);

impl Layout {
    /// Reads a schema; `references` are the named schemas that it uses without defining them.
    pub(crate) fn of(schema: &str, references: &[String]) -> Result<Self, UnusableSchema> {
        let refuse = |error: apache_avro::Error| UnusableSchema(format!("no Avro schema: {error}"));
        let (schema, others) = Schema::parse_str_with_list(schema, references).map_err(refuse)?;
        let mut names = HashMap::new();
        for schema in others.iter().chain([&schema]) {
            collect_names(schema, &mut names, 0)?;
        }
        let mut open = HashSet::new();
        let mut nodes = 0;
        Builder { names: &names, open: &mut open, nodes: &mut nodes }.layout(&schema)
    }

    /// Whether a value may take no bytes at all: an array of such says nothing about its length by its bytes.
    pub(super) fn may_be_empty(&self) -> bool {
        match self {
            Self::Null | Self::Fixed(0) | Self::Decimal { fixed: Some(0), .. } => true,
            Self::Record(fields) => fields.iter().all(|(_, field)| field.may_be_empty()),
            _ => false,
        }
    }

    /// The fields of a record.
    pub(crate) fn fields(&self) -> Option<&[Field]> {
        if let Self::Record(fields) = self { Some(fields) } else { None }
    }
}

struct Builder<'a> {
    names: &'a HashMap<Name, &'a Schema>,
    /// Named types around this one.
    open: &'a mut HashSet<Name>,
    nodes: &'a mut usize,
}

impl Builder<'_> {
    fn layout(&mut self, schema: &Schema) -> Result<Layout, UnusableSchema> {
        *self.nodes += 1;
        if *self.nodes > MAX_NODES {
            return Err(UnusableSchema(format!("the schema has more than {MAX_NODES} types")));
        }
        Ok(match schema {
            Schema::Null => Layout::Null,
            Schema::Boolean => Layout::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Layout::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Layout::Long,
            Schema::Float => Layout::Float,
            Schema::Double => Layout::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Layout::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Layout::Text,
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Layout::Fixed(fixed.size)
            }
            Schema::Decimal(decimal) => {
                let fixed = match &decimal.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                };
                let scale = i64::try_from(decimal.scale);
                Layout::Decimal { scale: scale.map_err(|_| UnusableSchema("a decimal's scale".into()))?, fixed }
            }
            Schema::Enum(symbols) => Layout::Enum(symbols.symbols.len()),
            Schema::Array(array) => Layout::Array(Box::new(self.layout(&array.items)?)),
            Schema::Map(map) => Layout::Map(Box::new(self.layout(&map.types)?)),
            Schema::Union(union) => {
                Layout::Union(union.variants().iter().map(|variant| self.layout(variant)).collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let name = record.name.clone();
                if !self.open.insert(name.clone()) {
                    return Err(UnusableSchema(format!("{name} contains itself")));
                }
                if self.open.len() > MAX_DEPTH {
                    return Err(too_deep());
                }
                let fields = record.fields.iter();
                let fields = fields
                    .map(|field| Ok((field.name.as_str().into(), self.layout(&field.schema)?)))
                    .collect::<Result<_, UnusableSchema>>();
                self.open.remove(&name);
                Layout::Record(fields?)
            }
            Schema::Ref { name } => match self.names.get(name) {
                Some(schema) if !self.open.contains(name) => self.layout(schema)?,
                Some(_) => return Err(UnusableSchema(format!("{name} contains itself"))),
                None => return Err(UnusableSchema(format!("{name} is not defined"))),
            },
        })
    }
}

/// Named types by name, wherever in the schema they are defined.
fn collect_names<'a>(
    schema: &'a Schema,
    names: &mut HashMap<Name, &'a Schema>,
    depth: usize,
) -> Result<(), UnusableSchema> {
    // A nullable record is two levels: the union and the record.
    if depth > 2 * MAX_DEPTH {
        return Err(too_deep());
    }
    let mut inner = |schema| collect_names(schema, names, depth + 1);
    match schema {
        Schema::Array(array) => inner(&array.items)?,
        Schema::Map(map) => inner(&map.types)?,
        Schema::Union(union) => union.variants().iter().try_for_each(inner)?,
        Schema::Record(record) => record.fields.iter().try_for_each(|field| inner(&field.schema))?,
        _ => {}
    }
    if let Some(name) = schema.name() {
        // A reference has a name, too, but defines nothing.
        if !matches!(schema, Schema::Ref { .. }) {
            names.insert(name.clone(), schema);
        }
    }
    Ok(())
}

fn too_deep() -> UnusableSchema {
    UnusableSchema(format!("the schema is nested deeper than {MAX_DEPTH} levels"))
}
