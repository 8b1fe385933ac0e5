//! Owns columns that are of a type that an operator chooses, settled while their tables are empty.

use service::Coded;
use sqlx::{Connection, PgConnection};

use crate::postgres::Failure;

/// The collation of texts: bytes in order, whatever the locale, which is the order in which sinks lock rows.
pub(crate) const BYTES: &str = "COLLATE \"C\"";

/// A column and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// Table of the schema `remains`.
    pub(crate) table: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    /// The type it is to have, as `PostgreSQL` names it.
    pub(crate) wanted: String,
    /// The collation that goes with that, or nothing.
    pub(crate) collation: &'static str,
}

/// Gives columns that are not as they are to be their type while their tables have no rows; refuses afterwards.
///
/// # Errors
/// What `refuse` makes of the type found, when there are rows.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    columns: &[Column],
    fits: impl Fn(&Column, &str) -> bool,
    refuse: impl FnOnce(&str) -> Coded,
) -> Result<(), Failure> {
    if others(connection, columns, &fits).await?.is_empty() {
        return Ok(());
    }
    let each = |write: &dyn Fn(&str) -> String, between: &str| {
        columns.iter().map(|column| write(column.table)).collect::<Vec<_>>().join(between)
    };
    let filled = format!("SELECT {}", each(&|table| format!("EXISTS (SELECT FROM remains.{table})"), " OR "));
    let mut transaction = connection.begin().await?;
    let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", each(&|table| format!("remains.{table}"), ", "));
    sqlx::raw_sql(&lock).execute(&mut *transaction).await?;
    // Another sink may have been faster.
    let others = others(&mut transaction, columns, &fits).await?;
    if let Some((_, found)) = others.first()
        && sqlx::query_scalar(&filled).fetch_one(&mut *transaction).await?
    {
        return Err(Failure::Refused(refuse(found)));
    }
    for (Column { table, name, wanted, collation }, from) in &others {
        let change =
            format!("ALTER TABLE remains.{table} ALTER COLUMN {name} TYPE {wanted} {collation} USING {name}::{wanted}");
        sqlx::raw_sql(&change).execute(&mut *transaction).await?;
        tracing::info!(table, column = name, from, to = wanted, "no rows yet: a column is of another type now");
    }
    transaction.commit().await?;
    Ok(())
}

/// Those that are of another type, and of which.
async fn others<'c>(
    connection: &mut PgConnection,
    columns: &'c [Column],
    fits: impl Fn(&Column, &str) -> bool,
) -> Result<Vec<(&'c Column, String)>, sqlx::Error> {
    const TYPE: &str = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = ('remains.' || $1)::regclass AND attname = $2";
    let mut others = Vec::new();
    for column in columns {
        let found: String =
            sqlx::query_scalar(TYPE).bind(column.table).bind(column.name).fetch_one(&mut *connection).await?;
        if !fits(column, &found) {
            others.push((column, found));
        }
    }
    Ok(others)
}
