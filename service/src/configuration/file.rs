//! Owns reading the TOML file: its keys are the long names of the settings, everything else in it is refused.
//!
//! Unknown keys are refused because a misspelt key that is silently ignored is a setting that silently has its default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::kafka::{KafkaTables, Properties};
use crate::errors::Coded;

/// What a file says, as texts for the arguments' own parsers.
#[derive(Debug, Default)]
pub(super) struct Contents {
    path: PathBuf,
    pub(super) settings: BTreeMap<String, Vec<String>>,
    pub(super) kafka: KafkaTables,
}

impl Contents {
    pub(super) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// Reads `path`; `settings` are the known keys and whether each takes several values.
pub(super) fn read(path: &Path, settings: &BTreeMap<String, bool>) -> Result<Contents, Coded> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let remedy = "give --config a file that exists and is readable";
        Coded::usage("CONFIG_UNREADABLE", format!("{shown} cannot be read: {error}"), remedy)
    })?;
    // toml's error shows the line it stumbled over, which may hold a password: only its message and place are kept.
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let what = format!("{shown}, line {line}: {}", error.message());
        Coded::usage("CONFIG_NOT_TOML", what, "correct the file's syntax")
    })?;
    let mut contents = Contents { path: path.to_owned(), ..Contents::default() };
    for (key, value) in table {
        if key == "kafka" {
            contents.kafka = kafka(path, value)?;
            continue;
        }
        let Some(many) = settings.get(&key) else {
            return Err(unknown(path, &key, settings.keys().map(String::as_str).chain(["kafka"])));
        };
        contents.settings.insert(key.clone(), texts(path, &key, value, *many)?);
    }
    Ok(contents)
}

fn kafka(path: &Path, value: Value) -> Result<KafkaTables, Coded> {
    let mut tables = KafkaTables::default();
    for (name, value) in table(path, "kafka", value)? {
        let properties = match name.as_str() {
            "consumer" => &mut tables.consumer,
            "producer" => &mut tables.producer,
            "admin" => &mut tables.admin,
            _ => {
                return Err(unknown(
                    path,
                    &format!("kafka.{name}"),
                    ["kafka.consumer", "kafka.producer", "kafka.admin"],
                ));
            }
        };
        let place = format!("kafka.{name}");
        let mut entries = BTreeMap::new();
        flatten(path, &place, "", table(path, &place, value)?, &mut entries)?;
        *properties = Properties::new(place, entries);
    }
    Ok(tables)
}

/// librdkafka's names have dots: written without quotes, TOML reads them as nested tables, which means the same here.
fn flatten(
    path: &Path,
    place: &str,
    start: &str,
    table: Table,
    entries: &mut BTreeMap<String, String>,
) -> Result<(), Coded> {
    for (name, value) in table {
        let name = if start.is_empty() { name } else { format!("{start}.{name}") };
        match value {
            Value::Table(table) => flatten(path, place, &name, table, entries)?,
            value => {
                let key = format!("{place}.{name}");
                let text = text(&value).ok_or_else(|| bad(path, &key, "a text, a number, or true or false"))?;
                entries.insert(name, text);
            }
        }
    }
    Ok(())
}

fn table(path: &Path, key: &str, value: Value) -> Result<Table, Coded> {
    match value {
        Value::Table(table) => Ok(table),
        _ => Err(bad(path, key, "a table")),
    }
}

fn texts(path: &Path, key: &str, value: Value, many: bool) -> Result<Vec<String>, Coded> {
    let wanted = if many { "a text, a number, or a list of those" } else { "a text, a number, or true or false" };
    match value {
        Value::Array(values) if many => values.iter().map(text).collect::<Option<Vec<_>>>(),
        value => text(&value).map(|text| vec![text]),
    }
    .ok_or_else(|| bad(path, key, wanted))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

fn bad(path: &Path, key: &str, wanted: &str) -> Coded {
    let what = format!("{}: the key {key} must be {wanted}", path.display());
    Coded::usage("CONFIG_BAD_VALUE", what, "correct the key; --help describes the settings")
}

fn unknown<'a>(path: &Path, key: &str, known: impl IntoIterator<Item = &'a str>) -> Coded {
    let known: Vec<&str> = known.into_iter().collect();
    let what = format!("{}: the key {key} is unknown", path.display());
    Coded::usage("CONFIG_UNKNOWN_KEY", what, format!("remove or correct it; known here: {}", known.join(", ")))
}
