//! SQL against the source and the target database.
//!
//! Owns a small connection pool and the few queries that many scenarios need. Statements may come as any text,
//! results as text: scenarios compare, they do not compute.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Column as _, Row as _, ValueRef as _};

use super::quantity::units;
use super::runtime::block_on;

/// How long it may take to have a connection; while the server refuses any, it is tried again.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(60);

/// Connections to one database. Reconnects by itself after the server was down.
#[derive(Debug, Clone)]
pub struct Sql {
    pool: PgPool,
}

impl Sql {
    /// Connects; fails when the database does not accept a query within a minute.
    pub fn connect(url: &str) -> Result<Self> {
        Self::connect_within(url, ACQUIRE_WITHIN)
    }

    /// Connects; fails when the database does not accept a query within `time`, now or later.
    pub fn connect_within(url: &str, time: Duration) -> Result<Self> {
        let pool =
            block_on(async { PgPoolOptions::new().max_connections(4).acquire_timeout(time).connect(url).await })??;
        Ok(Self { pool })
    }

    /// Runs one or more statements; returns the number of rows they changed.
    pub fn execute(&self, sql: &str) -> Result<u64> {
        let result = block_on(async { sqlx::raw_sql(sql).execute(&self.pool).await })?;
        Ok(result.with_context(|| format!("failed: {sql}"))?.rows_affected())
    }

    /// Rows of a query, each value as PostgreSQL prints it (`None` = NULL).
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let rows = block_on(async { sqlx::raw_sql(sql).fetch_all(&self.pool).await })?;
        rows.with_context(|| format!("failed: {sql}"))?
            .iter()
            .map(|row| {
                row.columns()
                    .iter()
                    .map(|column| {
                        let value = row.try_get_raw(column.ordinal())?;
                        if value.is_null() {
                            return Ok(None);
                        }
                        let text = value.as_str().map_err(|error| anyhow::anyhow!(error))?;
                        Ok(Some(text.to_owned()))
                    })
                    .collect()
            })
            .collect()
    }

    /// `remains.remains` of the target: good → pieces, or units of a piece. Empty while the table does not exist yet.
    pub fn remains(&self) -> Result<BTreeMap<i64, i64>> {
        if self.rows("SELECT 1 WHERE to_regclass('remains.remains') IS NOT NULL")?.is_empty() {
            return Ok(BTreeMap::new());
        }
        pairs(self.rows("SELECT good_id, cnt FROM remains.remains")?)
    }

    /// What the target has to show: Σ over the live rows of the source, per good.
    pub fn source_sums(&self) -> Result<BTreeMap<i64, i64>> {
        pairs(self.rows(
            "SELECT good_id, sum(CASE operation WHEN 'add' THEN pcs ELSE -pcs END) FROM orders.transactions GROUP BY good_id",
        )?)
    }
}

fn pairs(rows: Vec<Vec<Option<String>>>) -> Result<BTreeMap<i64, i64>> {
    let pair = |row: Vec<Option<String>>| {
        let [good, quantity] = <[Option<String>; 2]>::try_from(row).ok().context("expected two columns")?;
        let quantity = units(&quantity.context("unexpected NULL")?)?;
        Ok((good.context("unexpected NULL")?.parse()?, i64::try_from(quantity)?))
    };
    rows.into_iter().map(pair).collect()
}
