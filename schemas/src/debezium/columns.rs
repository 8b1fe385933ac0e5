//! What the columns of the source table are called, what its two operations are, and of which type its goods, ids and
//! pieces.
//!
//! Owns the names, checked once: plain enough to stand in JSON unescaped, so that readers compare them as they are
//! written. Never says what a value means.

use std::fmt;

use super::key::{Family, KeyEncoding};
use super::number::{Form, Quantities};
use crate::{GoodType, IdType, Scale};

/// Names as an operator gives them; the default is the table of this project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Columns of the row's id, of which the record key consists. The order is part of the ids, unless there is one.
    pub id: Vec<String>,
    /// What the id is: a uuid, which has one column, or the values of its columns.
    pub id_type: IdType,
    /// Column of the good.
    pub good_id: String,
    /// Column that says whether pieces came or went.
    pub operation: String,
    /// Column of the number of pieces.
    pub pcs: String,
    /// What stands in `operation` when pieces came.
    pub add: String,
    /// What stands in `operation` when pieces went.
    pub remove: String,
}

impl Default for Names {
    fn default() -> Self {
        let [id, good_id, operation, pcs, add, remove] =
            ["id", "good_id", "operation", "pcs", "add", "remove"].map(str::to_owned);
        Self { id: vec![id], id_type: IdType::default(), good_id, operation, pcs, add, remove }
    }
}

/// Names that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NamesInvalid(String);

/// How the connector writes quantities where no schema says it, which is in plain JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PiecesType {
    /// As JSON numbers: integers, and `numeric` with `decimal.handling.mode` = `double`.
    #[default]
    Number,
    /// As texts: `numeric` with `decimal.handling.mode` = `string`.
    Text,
    /// As Connect's decimals, base64 of the units: `numeric` with `decimal.handling.mode` = `precise`. Of a column whose
    /// scale is that of the quantities, since it is written nowhere else; one without a scale writes it into each value.
    Decimal,
}

/// Checked [`Names`], ready for comparing, and the types of goods and pieces.
#[derive(Clone, PartialEq, Eq)]
pub struct Columns {
    names: Names,
    good_type: GoodType,
    quantities: Quantities,
    /// The two operations as they stand in JSON, quotes included.
    add: String,
    remove: String,
    /// With several columns there is none.
    plain_key: Option<PlainKey>,
    /// Whether a column of the id is also that of the good, the operation or the pieces.
    shared: bool,
}

/// The record key that a connector writes all day: of one column, in plain JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlainKey {
    /// What comes before the id.
    pub(super) prefix: String,
    /// What comes after it.
    pub(super) suffix: &'static str,
    pub(super) encoding: KeyEncoding,
}

impl PlainKey {
    /// Of a uuid, in its quotes, or of an integer, which has none.
    fn of(id: &str, id_type: IdType) -> Self {
        let (quote, suffix) = match id_type {
            IdType::Uuid => ("\"", "\"}"),
            IdType::Key => ("", "}"),
        };
        let prefix = format!("{{\"{id}\":{quote}");
        let encoding = KeyEncoding::of_template(&[prefix.as_bytes(), suffix.as_bytes()], Family::Json);
        Self { prefix, suffix, encoding }
    }
}

impl Columns {
    /// Checks names. Goods are integers, unless [`Columns::with_goods`] says otherwise; pieces are whole, unless
    /// [`Columns::with_pieces`] does.
    ///
    /// # Errors
    /// [`NamesInvalid`] for a name that is empty or would be escaped in JSON, for two columns or two operations of one
    /// name, for an id column called like a field of the converter's wrapper, and for an id of no column, or a uuid of
    /// several.
    pub fn new(names: Names) -> Result<Self, NamesInvalid> {
        let ids: Vec<&String> = names.id.iter().collect();
        let others = vec![&names.good_id, &names.operation, &names.pcs];
        for name in ids.iter().chain(&others).copied().chain([&names.add, &names.remove]) {
            let plain = |byte: u8| byte >= 0x20 && !matches!(byte, b'"' | b'\\');
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(NamesInvalid(format!("{name:?} is empty or needs escaping")));
            }
        }
        // A key may contain the good, say. A uuid is nothing else.
        let groups = match names.id_type {
            IdType::Uuid => vec![[ids, others].concat()],
            IdType::Key => vec![ids, others],
        };
        for columns in groups {
            let before = |at: usize, name| columns.iter().take(at).any(|other| other == name);
            if let Some((_, name)) = columns.iter().enumerate().find(|(at, name)| before(*at, *name)) {
                return Err(NamesInvalid(format!("two columns are called {name:?}")));
            }
        }
        if names.add == names.remove {
            return Err(NamesInvalid(format!("both operations are called {:?}", names.add)));
        }
        if let Some(name) = names.id.iter().find(|name| matches!(name.as_str(), "schema" | "payload")) {
            return Err(NamesInvalid(format!("a record key with the field {name:?} looks like a wrapper")));
        }
        match (names.id.len(), names.id_type) {
            (0, _) => return Err(NamesInvalid("an id has a column".to_owned())),
            (1, _) | (_, IdType::Key) => {}
            (columns, IdType::Uuid) => return Err(NamesInvalid(format!("a uuid has one column, not {columns}"))),
        }
        Ok(Self::of(names))
    }

    /// Of names that are known to be good.
    fn of(names: Names) -> Self {
        let quoted = |text: &str| format!("\"{text}\"");
        let plain_key = match names.id.as_slice() {
            [id] => Some(PlainKey::of(id, names.id_type)),
            _ => None,
        };
        let shared = [&names.good_id, &names.operation, &names.pcs].iter().any(|name| names.id.contains(name));
        Self {
            shared,
            add: quoted(&names.add),
            remove: quoted(&names.remove),
            plain_key,
            good_type: GoodType::default(),
            quantities: Quantities::default(),
            names,
        }
    }

    /// The same columns with goods of this type.
    #[must_use]
    pub fn with_goods(self, good_type: GoodType) -> Self {
        Self { good_type, ..self }
    }

    /// Of which type the goods are.
    pub fn good_type(&self) -> GoodType {
        self.good_type
    }

    /// The same columns with quantities of this type, in units of this scale.
    #[must_use]
    pub fn with_pieces(self, pieces_type: PiecesType, scale: Scale) -> Self {
        let form = match pieces_type {
            PiecesType::Number => Form::AsWritten,
            PiecesType::Text => Form::Text,
            PiecesType::Decimal => Form::Decimal { scale: scale.digits().into() },
        };
        Self { quantities: Quantities { scale, form }, ..self }
    }

    /// How many digits quantities have behind the point.
    pub fn pieces_scale(&self) -> Scale {
        self.quantities.scale
    }

    /// How quantities are read.
    pub(super) fn quantities(&self) -> &Quantities {
        &self.quantities
    }

    /// Of which type the ids are.
    pub fn id_type(&self) -> IdType {
        self.names.id_type
    }

    /// Columns of the id; one, where it is a uuid.
    pub fn id_columns(&self) -> &[String] {
        &self.names.id
    }

    /// First column of the id.
    pub(super) fn id(&self) -> &str {
        self.names.id.first().map_or("", String::as_str)
    }

    /// Its other columns.
    pub(super) fn other_ids(&self) -> &[String] {
        self.names.id.get(1..).unwrap_or_default()
    }

    /// Whether a column of the id is also that of the good, the operation or the pieces.
    pub(super) fn are_shared(&self) -> bool {
        self.shared
    }

    /// Column of the good.
    pub(super) fn good_id(&self) -> &str {
        &self.names.good_id
    }

    /// Column of the operation.
    pub(super) fn operation(&self) -> &str {
        &self.names.operation
    }

    /// Column of the pieces.
    pub(super) fn pcs(&self) -> &str {
        &self.names.pcs
    }

    /// The operation that adds, as JSON.
    pub(super) fn add(&self) -> &str {
        &self.add
    }

    /// The operation that removes, as JSON.
    pub(super) fn remove(&self) -> &str {
        &self.remove
    }

    /// The record key in its plain form, if it has one.
    pub(super) fn plain_key(&self) -> Option<&PlainKey> {
        self.plain_key.as_ref()
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self::of(Names::default())
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, goods: {}, pieces: {:?}", self.names, self.good_type, self.quantities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_made_of_the_default_names() {
        assert_eq!(Columns::new(Names::default()).unwrap(), Columns::default());
        let plain = PlainKey { prefix: "{\"id\":\"".into(), suffix: "\"}", encoding: KeyEncoding::PLAIN };
        assert_eq!(Columns::default().plain_key(), Some(&plain));
    }

    #[test]
    fn names_that_cannot_be_told_apart_or_compared_are_refused() {
        let refused = |change: fn(&mut Names)| {
            let mut names = Names::default();
            change(&mut names);
            Columns::new(names).unwrap_err().to_string()
        };
        assert_eq!(refused(|names| names.pcs = "id".into()), "two columns are called \"id\"");
        assert_eq!(refused(|names| names.add = "remove".into()), "both operations are called \"remove\"");
        assert_eq!(refused(|names| names.operation = String::new()), "\"\" is empty or needs escaping");
        assert_eq!(refused(|names| names.good_id = "a\"b".into()), "\"a\\\"b\" is empty or needs escaping");
        assert_eq!(refused(|names| names.remove = "a\nb".into()), "\"a\\nb\" is empty or needs escaping");
        let wrapper = refused(|names| names.id = vec!["payload".into()]);
        assert_eq!(wrapper, "a record key with the field \"payload\" looks like a wrapper");
        assert_eq!(refused(|names| names.id = Vec::new()), "an id has a column");
        assert_eq!(refused(|names| names.id.push("line".into())), "a uuid has one column, not 2");
        let twice = refused(|names| (names.id, names.id_type) = (vec!["a".into(), "a".into()], IdType::Key));
        assert_eq!(twice, "two columns are called \"a\"");
    }
}
