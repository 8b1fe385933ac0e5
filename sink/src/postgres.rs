//! Owns the target: one connection, its migrations, and the transactions that move rows and progress together.
//!
//! Guards invariant 9: every transaction first moves the progress rows by compare-and-set. When one of them is not what
//! this sink believes, another sink was faster or the target was restored: nothing is written, the caller reads the
//! rows again and goes there. It never retries what has an unknown outcome: the rows tell after reconnecting.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use schemas::partitioner::partition_for_good;
use schemas::{GoodId, Scale};
use service::{Coded, DatabaseUrl, Secret};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::goods::{self, Good, Goods};
use crate::ids;
use crate::position::Progress;
use crate::quantities;
use crate::work::{Types, Work, Written};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Rows looked at in one step of removing an older epoch.
const REMOVAL_STEP: i64 = 20_000;

/// Why something was not written.
#[derive(Debug)]
pub enum Failure {
    /// The target's progress is not what this sink believes: read it again.
    Conflict,
    /// The connection is of no use any more: connect again, then read the progress.
    Database(sqlx::Error),
    /// Stop.
    Refused(Coded),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The move of one partition's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The partition.
    pub partition: i32,
    /// What the row must say now.
    pub from: Progress,
    /// What it says afterwards.
    pub to: Progress,
}

/// A step of removing rows of older epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Rows removed in this step.
    pub rows: u64,
    /// Go on after this good; `None` when all is done and the progress row says so.
    pub next: Option<GoodId>,
}

/// Reads a database URL; a password beside it counts more than one in it.
///
/// # Errors
/// `DATABASE_URL`; the text itself is not repeated.
pub fn options(url: &DatabaseUrl, password: Option<&Secret>) -> Result<PgConnectOptions, Coded> {
    url.expose()
        .parse::<PgConnectOptions>()
        .map(|options| options.application_name("sink").disable_statement_logging())
        .map(|options| match password {
            Some(password) => options.password(password.expose()),
            None => options,
        })
        .map_err(|error| {
            let what = format!("the database URL cannot be used: {error}");
            Coded::usage("DATABASE_URL", what, "give --database-url as postgres://user:password@host:port/database")
        })
}

/// A connection to the target.
#[derive(Debug)]
pub struct Target {
    connection: PgConnection,
    /// Of the quantities in its columns.
    scale: Scale,
}

impl Target {
    /// Connects, and brings the schema up to date when necessary: a target restored from an earlier copy may be older.
    ///
    /// # Errors
    /// [`Failure::Refused`] with `SINK_TARGET_NEWER` when a newer sink has changed the schema, with `SINK_GOOD_TYPE` when
    /// there are goods of another type, with `SINK_ID_TYPE` when there are ids of another type, with `SINK_PIECES_SCALE`
    /// when there are quantities of another scale.
    pub async fn connect(options: &PgConnectOptions, step: Duration, types: Types) -> Result<Self, Failure> {
        let mut connection = PgConnection::connect_with(options).await?;
        // A sink that vanished must not keep rows locked for the next one.
        let limits = format!(
            "SET search_path = remains; SET statement_timeout = {0}; SET idle_in_transaction_session_timeout = {0}",
            step.as_millis()
        );
        sqlx::raw_sql(&limits).execute(&mut connection).await?;
        // Not simply IF NOT EXISTS: that needs the right to create even when the schema is there.
        let exists: bool =
            sqlx::query_scalar("SELECT to_regnamespace('remains') IS NOT NULL").fetch_one(&mut connection).await?;
        if !exists {
            sqlx::raw_sql("CREATE SCHEMA IF NOT EXISTS remains").execute(&mut connection).await?;
        }
        MIGRATIONS.run_direct(&mut connection).await.map_err(migration_failure)?;
        goods::settle(&mut connection, types.goods).await?;
        if let Some(id_type) = types.ids {
            ids::settle(&mut connection, id_type).await?;
        }
        quantities::settle(&mut connection, types.pieces).await?;
        Ok(Self { connection, scale: types.pieces })
    }

    /// The progress of `partitions`; a missing row is created as "nothing yet".
    pub async fn progress(&mut self, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, Progress>, sqlx::Error> {
        const CREATE: &str = "INSERT INTO remains.progress (topic, partition, next_offset)
            SELECT $1, partition, 0 FROM UNNEST($2::int[]) AS new (partition) ORDER BY partition
            ON CONFLICT DO NOTHING";
        let mut rows = self.read_progress(topic, partitions).await?;
        if rows.len() < partitions.len() {
            sqlx::query(CREATE).bind(topic).bind(partitions).execute(&mut self.connection).await?;
            rows = self.read_progress(topic, partitions).await?;
        }
        Ok(rows)
    }

    async fn read_progress(&mut self, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, Progress>, sqlx::Error> {
        const READ: &str = "SELECT partition, epoch, next_offset, completed_epoch FROM remains.progress
            WHERE topic = $1 AND partition = ANY($2)";
        let rows: Vec<(i32, Option<i64>, i64, Option<i64>)> =
            sqlx::query_as(READ).bind(topic).bind(partitions).fetch_all(&mut self.connection).await?;
        let progress = |(partition, epoch, next_offset, completed_epoch)| {
            (partition, Progress { epoch, next_offset, completed_epoch })
        };
        Ok(rows.into_iter().map(progress).collect())
    }

    /// Writes a batch and its progress in one transaction; also gives how often it was tried again.
    ///
    /// # Errors
    /// After [`Failure::Conflict`] nothing was written. After [`Failure::Database`] the outcome may be unknown.
    pub async fn apply<W: Work>(
        &mut self,
        topic: &str,
        work: &W,
        advances: &[Advance],
    ) -> Result<(Written, u64), Failure> {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(5))
            .with_max_delay(Duration::from_millis(500))
            .with_max_times(8)
            .with_jitter()
            .build();
        let mut retries = 0;
        loop {
            match self.try_apply(topic, work, advances).await {
                Ok(written) => return Ok((written, retries)),
                Err(Failure::Database(error)) if is_transient(&error) => {
                    let Some(wait) = waits.next() else { return Err(Failure::Database(error)) };
                    retries += 1;
                    tracing::debug!(topic, %error, "the batch is tried again");
                    tokio::time::sleep(wait).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn try_apply<W: Work>(&mut self, topic: &str, work: &W, advances: &[Advance]) -> Result<Written, Failure> {
        let mut transaction = self.connection.begin().await?;
        compare_and_set(&mut transaction, topic, advances).await?;
        let written = work.write(&mut transaction, self.scale).await?;
        transaction.commit().await?;
        Ok(written)
    }

    /// Sets a partition back to its beginning, because its log is a new one.
    pub async fn start_over<W: Work>(&mut self, topic: &str, advance: Advance) -> Result<(), Failure> {
        let mut transaction = self.connection.begin().await?;
        compare_and_set(&mut transaction, topic, &[advance]).await?;
        W::start_over(&mut transaction, advance.partition).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Removes rows of epochs older than `advance.to.completed_epoch` whose good belongs to the partition, one step
    /// at a time, starting after the good `after`. The progress row is compared in every step and set by the last.
    pub async fn remove_older(
        &mut self,
        topic: &str,
        advance: Advance,
        partitions: NonZeroU32,
        after: Option<&GoodId>,
    ) -> Result<Removed, Failure> {
        const FIRST: &str = "SELECT good_id, epoch < $1 FROM remains.remains ORDER BY good_id LIMIT $2";
        const NEXT: &str = "SELECT good_id, epoch < $1 FROM remains.remains
            WHERE good_id > ALL($3) ORDER BY good_id LIMIT $2";
        const HELD: &str = "SELECT good_id FROM remains.held_goods WHERE epoch < $1";
        let epoch = advance.to.completed_epoch;
        let belongs = |good_id: &GoodId| partition_for_good(good_id, partitions) == advance.partition;
        let mut transaction = self.connection.begin().await?;
        // Unchanged, only compared and locked: another sink that moved it knows better.
        compare_and_set(&mut transaction, topic, &[Advance { to: advance.from, ..advance }]).await?;
        let candidates = sqlx::query_as(if after.is_some() { NEXT } else { FIRST }).bind(epoch).bind(REMOVAL_STEP);
        let candidates = match after {
            Some(after) => candidates.bind(Goods(vec![after.clone()])),
            None => candidates,
        };
        let seen: Vec<(Good, bool)> = candidates.fetch_all(&mut *transaction).await?;
        let older = seen.iter().filter(|(_, older)| *older).map(|(Good(good), _)| good.clone()).filter(belongs);
        let older = Goods(older.collect());
        let rows = remove(&mut transaction, "remains", &older, epoch).await?;
        let full = i64::try_from(seen.len()).is_ok_and(|seen| seen == REMOVAL_STEP);
        let next = seen.last().map(|(Good(good), _)| good.clone()).filter(|_| full);
        if next.is_none() {
            let held: Vec<Good> = sqlx::query_scalar(HELD).bind(epoch).fetch_all(&mut *transaction).await?;
            let held = Goods(held.into_iter().map(|Good(good)| good).filter(belongs).collect());
            remove(&mut transaction, "held_goods", &held, epoch).await?;
            compare_and_set(&mut transaction, topic, &[advance]).await?;
        }
        transaction.commit().await?;
        Ok(Removed { rows, next })
    }

    /// How many goods are held back.
    pub async fn held_goods(&mut self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT count(*) FROM remains.held_goods").fetch_one(&mut self.connection).await
    }
}

/// Removes rows of goods that are of an older epoch.
async fn remove(
    connection: &mut PgConnection,
    table: &str,
    goods: &Goods,
    epoch: Option<i64>,
) -> Result<u64, sqlx::Error> {
    if goods.0.is_empty() {
        return Ok(0);
    }
    let delete = format!("DELETE FROM remains.{table} WHERE good_id = ANY($1) AND epoch < $2");
    Ok(sqlx::query(&delete).bind(goods).bind(epoch).execute(connection).await?.rows_affected())
}

/// Moves progress rows from what they are believed to be; [`Failure::Conflict`] when any is not.
async fn compare_and_set(connection: &mut PgConnection, topic: &str, advances: &[Advance]) -> Result<(), Failure> {
    const MOVE: &str = "UPDATE remains.progress AS row
        SET epoch = new.epoch, next_offset = new.next_offset, completed_epoch = new.completed_epoch, updated_at = now()
        FROM UNNEST($2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
            AS new (partition, old_epoch, old_offset, epoch, next_offset, completed_epoch)
        WHERE row.topic = $1 AND row.partition = new.partition
            AND row.epoch IS NOT DISTINCT FROM new.old_epoch AND row.next_offset = new.old_offset";
    let column = |value: fn(&Advance) -> i64| advances.iter().map(value).collect::<Vec<i64>>();
    let nullable = |value: fn(&Advance) -> Option<i64>| advances.iter().map(value).collect::<Vec<Option<i64>>>();
    let moved = sqlx::query(MOVE)
        .bind(topic)
        .bind(advances.iter().map(|advance| advance.partition).collect::<Vec<i32>>())
        .bind(nullable(|advance| advance.from.epoch))
        .bind(column(|advance| advance.from.next_offset))
        .bind(nullable(|advance| advance.to.epoch))
        .bind(column(|advance| advance.to.next_offset))
        .bind(nullable(|advance| advance.to.completed_epoch))
        .execute(connection)
        .await?;
    if usize::try_from(moved.rows_affected()).is_ok_and(|moved| moved == advances.len()) {
        Ok(())
    } else {
        Err(Failure::Conflict)
    }
}

/// What a failed first connection means where waiting does not help: a wrong login, a certificate that cannot be
/// believed, a missing right. Everything else is an outage, which passes.
pub fn refusal(error: &sqlx::Error) -> Option<Coded> {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    let refused = |code, remedy| Some(Coded::refused(code, format!("the target refuses the sink: {error}"), remedy));
    match (error, code.as_ref()) {
        // invalid_authorization_specification, invalid_password
        (_, "28000" | "28P01") => refused(
            "SINK_DATABASE_NOT_AUTHENTICATED",
            "check user and password (--database-url, --database-password-file) and the server's pg_hba.conf",
        ),
        (_, "42501") => refused(
            "SINK_DATABASE_NOT_AUTHORIZED",
            "give the role its rights: deploy/postgres/target-roles.sql has all of them",
        ),
        // A failed handshake comes as an I/O error; so does a file of certificates that is not there.
        (sqlx::Error::Tls(_), _) => refused("SINK_DATABASE_TLS", TLS_REMEDY),
        (sqlx::Error::Io(io), _) if matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::NotFound) => {
            refused("SINK_DATABASE_TLS", TLS_REMEDY)
        }
        _ => None,
    }
}

const TLS_REMEDY: &str = "check that sslrootcert in --database-url is a file with the authority that issued the \
                          server's certificate, that the certificate is valid for the host name in the URL, and that the \
                          server has ssl=on";

/// Deadlock, serialization failure, lock timeout: the same again may succeed at once.
fn is_transient(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01" | "55P03"))
}

fn migration_failure(error: MigrateError) -> Failure {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) | MigrateError::VersionTooNew(..) => {
            let what = format!("the target's schema was made by another version of the sink: {error}");
            Failure::Refused(Coded::refused("SINK_TARGET_NEWER", what, "run at least the version that made it"))
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Failure::Database(error),
        error => Failure::Database(sqlx::Error::Configuration(Box::new(error))),
    }
}
