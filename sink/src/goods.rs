//! Owns what goods are in the target: `bigint` or `text`, one of them in every table, settled while the tables are empty.

use std::error::Error;

use schemas::{GoodId, GoodType};
use service::Coded;
use sqlx::encode::IsNull;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef, Postgres};
use sqlx::{Decode, Encode, PgConnection, Type, ValueRef as _};

use crate::columns::{self, Column};
use crate::postgres::Failure;

type Text = str;

/// A good read from a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good(pub GoodId);

impl Type<Postgres> for Good {
    fn type_info() -> PgTypeInfo {
        <i64 as Type<Postgres>>::type_info()
    }

    fn compatible(column: &PgTypeInfo) -> bool {
        <i64 as Type<Postgres>>::compatible(column) || <Text as Type<Postgres>>::compatible(column)
    }
}

impl<'r> Decode<'r, Postgres> for Good {
    fn decode(value: PgValueRef<'r>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        if <i64 as Type<Postgres>>::compatible(&value.type_info()) {
            return Ok(Self(GoodId::Integer(<i64 as Decode<Postgres>>::decode(value)?)));
        }
        Ok(Self(GoodId::from_text(<&str as Decode<Postgres>>::decode(value)?)?))
    }
}

/// Goods of one type, as a parameter: `bigint[]` or `text[]`. Statements must not cast it, and none may be executed
/// without goods, which have no type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Goods(pub Vec<GoodId>);

impl Goods {
    fn are_texts(&self) -> bool {
        matches!(self.0.first(), Some(GoodId::Text(_)))
    }
}

impl Type<Postgres> for Goods {
    fn type_info() -> PgTypeInfo {
        <Vec<i64> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Goods {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(if self.are_texts() { <Vec<&str> as Type<Postgres>>::type_info() } else { Self::type_info() })
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, Box<dyn Error + Send + Sync>> {
        // Work refuses goods of another type than the target's before they get here.
        const MIXED: &str = "goods of two types in one batch";
        if self.are_texts() {
            let text = |good: &GoodId| if let GoodId::Text(text) = good { Some(text.to_string()) } else { None };
            let texts: Vec<String> = self.0.iter().map(text).collect::<Option<_>>().ok_or(MIXED)?;
            return Encode::<Postgres>::encode_by_ref(&texts, buffer);
        }
        let integers: Vec<i64> = self.0.iter().map(GoodId::integer).collect::<Option<_>>().ok_or(MIXED)?;
        Encode::<Postgres>::encode_by_ref(&integers, buffer)
    }
}

/// Gives the columns the type of the goods while there are none; refuses another one afterwards.
///
/// # Errors
/// `SINK_GOOD_TYPE` when there are goods of the other type.
pub(crate) async fn settle(connection: &mut PgConnection, good_type: GoodType) -> Result<(), Failure> {
    let (wanted, collation) = match good_type {
        GoodType::Integer => ("bigint", ""),
        GoodType::Text => ("text", columns::BYTES),
    };
    let column = |table| Column { table, name: "good_id", wanted: wanted.to_owned(), collation };
    let columns = ["remains", "held_goods", "transaction_log"].map(column);
    let refuse = |found: &str| mismatch(found, good_type);
    columns::settle(connection, &columns, |column, found| found == column.wanted, refuse).await
}

fn mismatch(found: &str, good_type: GoodType) -> Coded {
    Coded::refused(
        "SINK_GOOD_TYPE",
        format!("the target has goods in columns of type {found}, and --good-type is {good_type}"),
        "give --good-type the same value as the processor's, and a target of its own; if the goods of this one are to be \
         of the other type, empty remains.remains, remains.held_goods, remains.transaction_log and remains.progress in \
         one transaction and start again",
    )
}
