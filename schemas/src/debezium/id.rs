//! The columns of the id in a row: found by name, and compared with what the record key says.

use uuid::Uuid;

use super::Columns;
use crate::rejection::excerpt;
use crate::row_id::{joined, one_text};
use crate::{Reason, Rejection, RowId};

/// What was found in the columns of an id. Nearly always there is one, for which nothing is allocated.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ids<T> {
    first: Option<T>,
    /// The other columns in the order in which they are configured, or none where nothing was found in any.
    others: Vec<Option<T>>,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self { first: None, others: Vec::new() }
    }
}

impl<T> FromIterator<Option<T>> for Ids<T> {
    /// Of all columns, in the order in which they are configured.
    fn from_iter<I: IntoIterator<Item = Option<T>>>(columns: I) -> Self {
        let mut columns = columns.into_iter();
        let first = columns.next().flatten();
        let others: Vec<_> = columns.collect();
        Self { first, others: if others.iter().any(Option::is_some) { others } else { Vec::new() } }
    }
}

impl<T> Ids<T> {
    /// Where the value of a column belongs, if it is one of the id.
    #[inline]
    pub(super) fn column(&mut self, columns: &Columns, name: &str) -> Option<&mut Option<T>> {
        if name == columns.id() {
            return Some(&mut self.first);
        }
        let others = columns.other_ids();
        if others.is_empty() {
            return None;
        }
        let at = others.iter().position(|other| other == name)?;
        self.others.resize_with(others.len(), || None);
        self.others.get_mut(at)
    }

    /// The same columns with something else in them.
    pub(super) fn map<'a, U>(&'a self, of: impl Fn(&'a T) -> Option<U>) -> Ids<U> {
        let first = self.first.as_ref().and_then(&of);
        Ids { first, others: self.others.iter().map(|value| value.as_ref().and_then(&of)).collect() }
    }

    /// Whether anything was found.
    pub(super) fn is_there(&self) -> bool {
        self.first.is_some() || !self.others.is_empty()
    }
}

impl Ids<&str> {
    /// That these values, each as it stands in JSON, are the id of the key. `row` is what they were found in.
    pub(super) fn same(&self, columns: &Columns, id: &RowId, row: &str) -> Result<(), Rejection> {
        match id {
            RowId::Uuid(id) => self.same_uuid(*id, row),
            RowId::Key(key) if self.others.is_empty() && self.first == Some(&**key) => Ok(()),
            RowId::Key(key) => self.same_key(columns, key, row),
        }
    }

    fn same_uuid(&self, id: Uuid, row: &str) -> Result<(), Rejection> {
        let Some(raw) = self.first else {
            return Err(Rejection::new(Reason::NoId, format!("{row}.id is missing")));
        };
        let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
        match Uuid::try_parse_ascii(text.as_bytes()) {
            Ok(found) if found == id => Ok(()),
            Ok(found) => {
                Err(Rejection::new(Reason::KeyValueDisagree, format!("{row}.id is {found}, the key says {id}")))
            }
            Err(_) => Err(Rejection::new(Reason::NoId, format!("{row}.id is no uuid: {}", excerpt(raw.as_bytes())))),
        }
    }

    /// By their texts: a value in Avro may be written in other characters than a key in JSON.
    fn same_key(&self, columns: &Columns, key: &str, row: &str) -> Result<(), Rejection> {
        let mut texts = Vec::with_capacity(columns.id_columns().len());
        let values = std::iter::once(self.first).chain(self.others.iter().copied()).chain(std::iter::repeat(None));
        for (column, value) in columns.id_columns().iter().zip(values) {
            let no_id = |what: String| Rejection::new(Reason::NoId, format!("{row}.{column}{what}"));
            let value = value.ok_or_else(|| no_id(" is missing".to_owned()))?;
            texts.push(one_text(value).map_err(|why| no_id(format!(": {why}: {}", excerpt(value.as_bytes()))))?);
        }
        let found = match texts.as_slice() {
            [text] => text.clone().into_owned(),
            texts => joined(texts.iter().map(|text| &**text)),
        };
        if found == key {
            return Ok(());
        }
        let (found, key) = (excerpt(found.as_bytes()), excerpt(key.as_bytes()));
        Err(Rejection::new(Reason::KeyValueDisagree, format!("the id in {row} is {found}, the key says {key}")))
    }
}
