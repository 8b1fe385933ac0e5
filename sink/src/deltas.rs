//! Owns what is made of the stock deltas: the guarded upsert of `remains.remains` (invariant 8).
//!
//! It never reads a row to decide whether to write: the guard is in the statement, so that it also holds against a
//! second sink, a replay, and a batch of a partition that was given up meanwhile.

use schemas::{GoodId, GoodType, Scale, StockDelta};
use sqlx::PgConnection;

use crate::batch::{Batch, Remains, Rows};
use crate::goods::{Good, Goods};
use crate::work::{Record, Types, Unreadable, Work, Written, check_type};

/// The batch of stock deltas.
#[derive(Debug, Default)]
pub struct Deltas(Batch);

/// Ordered by good, so that two sinks lock rows in the same order; rejected: `COPY` into a temporary table and a
/// merge, two more round trips for no gain below some 10,000 rows. A good that fits again is not held any more: in
/// the same statement, so that the columns are sent once, and not looked for while nothing is held, as nearly always.
macro_rules! upsert {
    ($counts:literal) => {
        concat!(
            "WITH released AS (
    DELETE FROM remains.held_goods AS held
    USING UNNEST($1, $3::bigint[], $4::bigint[]) AS new (good_id, epoch, version)
    WHERE held.good_id = new.good_id AND (held.epoch, held.version) <= (new.epoch, new.version)
        AND EXISTS (SELECT FROM remains.held_goods)
)
INSERT INTO remains.remains AS kept (good_id, cnt, epoch, version, updated_at)
SELECT good_id, cnt, epoch, version, now()
FROM UNNEST($1, $2::",
            $counts,
            ", $3::bigint[], $4::bigint[]) AS new (good_id, cnt, epoch, version)
ORDER BY good_id
ON CONFLICT (good_id) DO UPDATE
SET cnt = excluded.cnt, epoch = excluded.epoch, version = excluded.version, updated_at = excluded.updated_at
WHERE (kept.epoch, kept.version) < (excluded.epoch, excluded.version)"
        )
    };
}

const UPSERT: &str = upsert!("bigint[]");
const UPSERT_EXACT: &str = upsert!("text[]::numeric[]");

/// Not held when the target already has a newer version that fits: a replay passes this point again.
const HOLD: &str = "INSERT INTO remains.held_goods AS kept (good_id, remains, epoch, version)
SELECT new.good_id, new.remains::numeric, new.epoch, new.version
FROM UNNEST($1, $2::text[], $3::bigint[], $4::bigint[]) AS new (good_id, remains, epoch, version)
WHERE NOT EXISTS (
    SELECT FROM remains.remains AS row
    WHERE row.good_id = new.good_id AND (row.epoch, row.version) >= (new.epoch, new.version)
)
ORDER BY new.good_id
ON CONFLICT (good_id) DO UPDATE
SET remains = excluded.remains, epoch = excluded.epoch, version = excluded.version
WHERE (kept.epoch, kept.version) < (excluded.epoch, excluded.version)
RETURNING good_id";

impl Work for Deltas {
    type Item = Remains;

    /// None is; of keys that begin so an old rule says it, and a text may.
    fn is_processors_own(key: &[u8], types: Types) -> bool {
        types.goods == GoodType::Integer && key.starts_with(b"#")
    }

    fn read(record: &Record<'_>, types: Types) -> Result<Remains, Unreadable> {
        let (Some(key), Some(value)) = (record.key, record.value) else {
            return Err(Unreadable::Malformed {
                detail: "a stock delta has a key and a value, this record lacks one".to_owned(),
            });
        };
        let delta = StockDelta::decode(key, value, types.pieces)?;
        check_type(&delta.good_id, types.goods)?;
        Remains::from_delta(delta).map_err(|detail| Unreadable::Malformed { detail })
    }

    fn epoch(item: &Remains) -> Option<i64> {
        Some(item.epoch)
    }

    fn add(&mut self, item: Remains) {
        self.0.add(item);
    }

    async fn write(&self, connection: &mut PgConnection, scale: Scale) -> Result<Written, sqlx::Error> {
        let (rows, held) = self.0.rows(scale);
        let mut written = Written::default();
        if !rows.good_ids.0.is_empty() {
            written.rows = upsert(connection, &rows).await?;
        }
        if !held.is_empty() {
            written.held = hold(connection, scale, &held).await?;
        }
        Ok(written)
    }

    /// Nothing: rows of the old log are older by their epoch, and go when the new epoch is complete.
    async fn start_over(_: &mut PgConnection, _: i32) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

async fn upsert(connection: &mut PgConnection, rows: &Rows) -> Result<u64, sqlx::Error> {
    let upserted = sqlx::query(rows.counts.either(UPSERT, UPSERT_EXACT))
        .bind(&rows.good_ids)
        .bind(&rows.counts)
        .bind(&rows.epochs)
        .bind(&rows.versions)
        .execute(connection)
        .await?;
    Ok(upserted.rows_affected())
}

async fn hold(connection: &mut PgConnection, scale: Scale, held: &[Remains]) -> Result<Vec<GoodId>, sqlx::Error> {
    let column = |value: fn(&Remains) -> i64| held.iter().map(value).collect::<Vec<i64>>();
    let returned: Vec<Good> = sqlx::query_scalar(HOLD)
        .bind(Goods(held.iter().map(|good| good.good_id.clone()).collect()))
        .bind(held.iter().map(|good| scale.text(good.remains)).collect::<Vec<String>>())
        .bind(column(|good| good.epoch))
        .bind(column(|good| good.version))
        .fetch_all(connection)
        .await?;
    Ok(returned.into_iter().map(|Good(good_id)| good_id).collect())
}

#[cfg(test)]
mod tests {
    use schemas::Scale;

    use super::*;

    fn read(key: &str, value: Option<&str>) -> Result<Remains, Unreadable> {
        let record = Record { partition: 0, offset: 0, key: Some(key.as_bytes()), value: value.map(str::as_bytes) };
        Deltas::read(&record, Types::default())
    }

    #[test]
    fn a_stock_delta_is_read() {
        let value = r#"{"good_id":2,"delta":-15,"remains":15,"transactions":2,"version":2,"epoch":1795333787103}"#;
        let expected = Remains { good_id: 2.into(), remains: 15, epoch: 1_795_333_787_103, version: 2 };
        assert_eq!(read("2", Some(value)), Ok(expected));
    }

    #[test]
    fn a_good_of_the_other_type_stops_the_sink_with_its_own_code() {
        let value = r#"{"good_id":"2","delta":1,"remains":1,"transactions":1,"version":1,"epoch":1}"#;
        let error = read("2", Some(value)).unwrap_err().stop("warehouse.stock.deltas", 3, 4711);
        assert_eq!(error.code, "SINK_GOOD_TYPE");
        let record = Record { partition: 0, offset: 0, key: Some(b"2"), value: Some(value.as_bytes()) };
        let of = |goods| Types { goods, ..Types::default() };
        assert_eq!(Deltas::read(&record, of(GoodType::Text)).unwrap().good_id, GoodId::from_text("2").unwrap());
        let own = |good_type| Deltas::is_processors_own(b"#1", of(good_type));
        assert!(!own(GoodType::Text) && own(GoodType::Integer));
    }

    #[test]
    fn quantities_of_another_scale_stop_the_sink_with_their_own_code() {
        let value = r#"{"good_id":2,"delta":-1.250,"remains":12.500,"transactions":1,"version":1,"epoch":1}"#;
        let error = read("2", Some(value)).unwrap_err().stop("warehouse.stock.deltas", 3, 4711);
        assert_eq!(error.code, "SINK_PIECES_SCALE");
        let record = Record { partition: 0, offset: 0, key: Some(b"2"), value: Some(value.as_bytes()) };
        let pieces = Scale::try_from(3).unwrap();
        assert_eq!(Deltas::read(&record, Types { pieces, ..Types::default() }).unwrap().remains, 12_500);
    }

    #[test]
    fn what_is_no_stock_delta_stops_the_sink_with_its_place() {
        for value in [None, Some("not json"), Some("{}"), Some(r#"{"good_id":3,"version":1}"#)] {
            let error = read("2", value).unwrap_err().stop("warehouse.stock.deltas", 3, 4711);
            assert_eq!(error.code, "SINK_RECORD_UNREADABLE");
            assert!(error.what.starts_with("warehouse.stock.deltas, partition 3, offset 4711: "), "{error}");
        }
    }
}
