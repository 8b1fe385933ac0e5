//! Owns the type of a column that depends on the source: settled while its tables are empty, and kept afterwards.

use service::Coded;
use sqlx::{Connection, PgConnection};

use crate::postgres::Failure;

/// A column that has one type in all its tables of the schema `remains`.
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: &'static str,
    /// The tables.
    pub(crate) tables: &'static [&'static str],
    /// The type it is to have, as `PostgreSQL` writes it.
    pub(crate) wanted: &'static str,
}

impl Column {
    /// Gives the column its type while the tables are empty; refuses with the type it has if they are not.
    ///
    /// # Errors
    /// What `refusal` says, when there are rows and the type is another one.
    pub(crate) async fn settle(
        &self,
        connection: &mut PgConnection,
        refusal: impl FnOnce(&str) -> Coded,
    ) -> Result<(), Failure> {
        let Self { name, tables, wanted } = self;
        if self.found(connection).await? == *wanted {
            return Ok(());
        }
        let each = |write: &dyn Fn(&str) -> String, between: &str| {
            tables.iter().map(|table| write(table)).collect::<Vec<_>>().join(between)
        };
        let mut transaction = connection.begin().await?;
        let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", each(&|table| format!("remains.{table}"), ", "));
        sqlx::raw_sql(&lock).execute(&mut *transaction).await?;
        let found = self.found(&mut transaction).await?;
        // Another sink may have been faster.
        if found != *wanted {
            let filled = each(&|table| format!("EXISTS (SELECT FROM remains.{table})"), " OR ");
            if sqlx::query_scalar(&format!("SELECT {filled}")).fetch_one(&mut *transaction).await? {
                return Err(Failure::Refused(refusal(&found)));
            }
            // Bytes in order, whatever the locale: the order in which sinks lock rows.
            let collation = if *wanted == "text" { "COLLATE \"C\"" } else { "" };
            for table in *tables {
                let change = format!(
                    "ALTER TABLE remains.{table} ALTER COLUMN {name} TYPE {wanted} {collation} USING {name}::{wanted}"
                );
                sqlx::raw_sql(&change).execute(&mut *transaction).await?;
            }
            tracing::info!(
                column = name,
                from = found,
                to = wanted,
                "the target has no rows yet: a column is of another type now"
            );
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The type it has, in the first of its tables.
    async fn found(&self, connection: &mut PgConnection) -> Result<String, sqlx::Error> {
        const TYPE: &str = "SELECT format_type(atttypid, NULL) FROM pg_attribute
            WHERE attrelid = to_regclass('remains.' || $1) AND attname = $2";
        let table = self.tables.first().copied().unwrap_or_default();
        sqlx::query_scalar(TYPE).bind(table).bind(self.name).fetch_one(connection).await
    }
}
