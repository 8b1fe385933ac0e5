//! Owns what is made of the processor's changelog when `--transaction-log` is on: one row per live source transaction.
//!
//! For people who audit by SQL. The rows follow on their own, not in the same commit as `remains.remains`. Within a
//! partition records come in order and progress moves by compare-and-set, so the last record of an id wins; a tombstone
//! or a delete marker removes the row. A changelog that became shorter is a new one: the partition's rows are removed
//! and read again. (A new one that is longer already cannot be told from the old; its rows still become right, only
//! those of ids it does not have any more stay.)

use std::collections::BTreeMap;

use schemas::changelog::PARTITION_KEY;
use schemas::{ChangelogKey, GoodId, RowId, Scale, TransactionRecord};
use sqlx::PgConnection;

use crate::goods::Goods;
use crate::ids::Ids;
use crate::quantities::Quantities;
use crate::work::{Record, Types, Unreadable, Work, Written, check_id_type, check_type};

/// The newest state of each id of the batch.
#[derive(Debug, Default)]
pub struct TransactionLog {
    ids: BTreeMap<RowId, (i32, Option<Row>)>,
}

/// One record, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    id: RowId,
    partition: i32,
    row: Option<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    good_id: GoodId,
    operation: &'static str,
    /// In units of the scale.
    pcs: i64,
    ts_ms: i64,
}

macro_rules! upsert {
    ($pcs:literal) => {
        concat!(
            "INSERT INTO remains.transaction_log AS kept
    (id, good_id, operation, pcs, partition, changed_at, updated_at)
SELECT id, good_id, operation, pcs, partition, to_timestamp(ts_ms / 1000.0), now()
FROM UNNEST($1, $2, $3::text[], $4::",
            $pcs,
            ", $5::int[], $6::bigint[])
    AS new (id, good_id, operation, pcs, partition, ts_ms)
ORDER BY id
ON CONFLICT (id) DO UPDATE
SET good_id = excluded.good_id, operation = excluded.operation, pcs = excluded.pcs, partition = excluded.partition,
    changed_at = excluded.changed_at, updated_at = excluded.updated_at
WHERE (kept.good_id, kept.operation, kept.pcs, kept.partition, kept.changed_at)
    IS DISTINCT FROM (excluded.good_id, excluded.operation, excluded.pcs, excluded.partition, excluded.changed_at)"
        )
    };
}

const UPSERT: &str = upsert!("bigint[]");
const UPSERT_EXACT: &str = upsert!("text[]::numeric[]");

impl Work for TransactionLog {
    type Item = Change;

    fn is_processors_own(key: &[u8], _: Types) -> bool {
        key.starts_with(PARTITION_KEY.as_bytes())
    }

    fn read(record: &Record<'_>, types: Types) -> Result<Change, Unreadable> {
        let unreadable = |detail: String| Unreadable::Malformed { detail };
        let key = record.key.ok_or_else(|| unreadable("a changelog record has a key, this one has none".to_owned()))?;
        let ChangelogKey::Transaction(id) = ChangelogKey::decode(key).map_err(|error| unreadable(error.to_string()))?
        else {
            return Err(unreadable("the partition's own record reached the transaction log".to_owned()));
        };
        check_id_type(&id, types.ids)?;
        let Some(value) = record.value else { return Ok(Change { id, partition: record.partition, row: None }) };
        let state = TransactionRecord::decode(value, types.pieces)?;
        let row = state.content.map(|content| {
            check_type(&content.good_id, types.goods)?;
            let pcs = i64::try_from(content.pieces.unsigned_abs())
                .map_err(|_| unreadable(format!("{} pieces are more than any row can have", content.pieces)))?;
            let operation = if content.pieces < 0 { "remove" } else { "add" };
            Ok::<_, Unreadable>(Row { good_id: content.good_id, operation, pcs, ts_ms: state.ts_ms })
        });
        Ok(Change { id, partition: record.partition, row: row.transpose()? })
    }

    fn epoch(_: &Change) -> Option<i64> {
        None
    }

    fn add(&mut self, item: Change) {
        self.ids.insert(item.id, (item.partition, item.row));
    }

    async fn write(&self, connection: &mut PgConnection, scale: Scale) -> Result<Written, sqlx::Error> {
        let live: Vec<(&RowId, i32, &Row)> =
            self.ids.iter().filter_map(|(id, (partition, row))| Some((id, *partition, row.as_ref()?))).collect();
        let gone = self.ids.iter().filter(|(_, (_, row))| row.is_none()).map(|(id, _)| id.clone());
        let gone = Ids(gone.collect());
        let mut rows = 0;
        // Without rows their goods and ids have no type.
        if !live.is_empty() {
            let pcs = Quantities::of_rows(scale, live.iter().map(|(.., row)| row.pcs));
            let upserted = sqlx::query(pcs.either(UPSERT, UPSERT_EXACT))
                .bind(Ids(live.iter().map(|(id, ..)| (*id).clone()).collect()))
                .bind(Goods(live.iter().map(|(.., row)| row.good_id.clone()).collect()))
                .bind(live.iter().map(|(.., row)| row.operation).collect::<Vec<&str>>())
                .bind(pcs)
                .bind(live.iter().map(|(_, partition, _)| *partition).collect::<Vec<i32>>())
                .bind(live.iter().map(|(.., row)| row.ts_ms).collect::<Vec<i64>>())
                .execute(&mut *connection)
                .await?;
            rows += upserted.rows_affected();
        }
        if !gone.0.is_empty() {
            let deleted = sqlx::query("DELETE FROM remains.transaction_log WHERE id = ANY($1)")
                .bind(&gone)
                .execute(connection)
                .await?;
            rows += deleted.rows_affected();
        }
        Ok(Written { rows, held: Vec::new() })
    }

    async fn start_over(connection: &mut PgConnection, partition: i32) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM remains.transaction_log WHERE partition = $1")
            .bind(partition)
            .execute(connection)
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use schemas::IdType;

    use super::*;

    const ID: &str = "63703d1f-0000-4000-8000-000000000001";

    fn read(value: Option<&str>) -> Result<Change, Unreadable> {
        let record = Record { partition: 4, offset: 0, key: Some(ID.as_bytes()), value: value.map(str::as_bytes) };
        TransactionLog::read(&record, Types { ids: Some(IdType::Uuid), ..Types::default() })
    }

    fn value(good_id: &str, pieces: &str) -> String {
        format!(
            r#"{{"format":1,"good_id":{good_id},"pieces":{pieces},"generation":1,"streaming":true,"lsn":26370504,"commit_lsn":26370336,"ts_ms":1795333820306}}"#
        )
    }

    #[test]
    fn signed_pieces_become_operation_and_pcs() {
        let row = |value: &str| read(Some(value)).unwrap().row.map(|row| (row.good_id, row.operation, row.pcs));
        assert_eq!(row(&value("2", "-15")), Some((2.into(), "remove", 15)));
        assert_eq!(row(&value("2", "30")), Some((2.into(), "add", 30)));
        assert_eq!(row(&value("2", "0")), Some((2.into(), "add", 0)));
    }

    #[test]
    fn delete_markers_and_tombstones_remove_the_row() {
        assert_eq!(read(Some(&value("null", "null"))).unwrap().row, None);
        assert_eq!(read(None).unwrap().row, None);
    }

    #[test]
    fn an_id_of_another_type_than_the_tables_is_refused() {
        let read = |key: &str, ids| {
            let record = Record { partition: 4, offset: 0, key: Some(key.as_bytes()), value: None };
            TransactionLog::read(&record, Types { ids: Some(ids), ..Types::default() }).map(|change| change.row)
        };
        for (key, is) in [(ID, IdType::Uuid), ("42", IdType::Key), ("[1,\"A-7\"]", IdType::Key)] {
            for wanted in [IdType::Uuid, IdType::Key] {
                let expected = if is == wanted { Ok(None) } else { Err(Unreadable::IdType { found: is }) };
                assert_eq!(read(key, wanted), expected, "{key}");
            }
        }
    }

    #[test]
    fn what_is_no_changelog_record_is_refused() {
        assert!(read(Some("not json")).is_err());
    }
}
