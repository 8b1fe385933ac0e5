//! Owns what ids are in the transaction log: `uuid` or `text`, settled while the table is empty.

use std::error::Error;

use schemas::{IdType, RowId};
use service::Coded;
use sqlx::encode::IsNull;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, Postgres};
use sqlx::{Encode, PgConnection, Type};
use uuid::Uuid;

use crate::columns::{self, Column};
use crate::postgres::Failure;

/// Ids of one type, as a parameter: `uuid[]` or `text[]`. Statements must not cast it, and none may be executed without
/// ids, which have no type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids(pub Vec<RowId>);

impl Ids {
    fn are_keys(&self) -> bool {
        matches!(self.0.first(), Some(RowId::Key(_)))
    }
}

impl Type<Postgres> for Ids {
    fn type_info() -> PgTypeInfo {
        <Vec<Uuid> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Ids {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(if self.are_keys() { <Vec<&str> as Type<Postgres>>::type_info() } else { Self::type_info() })
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, Box<dyn Error + Send + Sync>> {
        // Records with ids of another type than the table's are refused before they get here.
        const MIXED: &str = "ids of two types in one batch";
        if self.are_keys() {
            let text = |id: &RowId| if let RowId::Key(text) = id { Some(text.to_string()) } else { None };
            let texts: Vec<String> = self.0.iter().map(text).collect::<Option<_>>().ok_or(MIXED)?;
            return Encode::<Postgres>::encode_by_ref(&texts, buffer);
        }
        let uuid = |id: &RowId| if let RowId::Uuid(uuid) = id { Some(*uuid) } else { None };
        let uuids: Vec<Uuid> = self.0.iter().map(uuid).collect::<Option<_>>().ok_or(MIXED)?;
        Encode::<Postgres>::encode_by_ref(&uuids, buffer)
    }
}

/// Gives the column the type of the ids while there are none; refuses another one afterwards.
///
/// # Errors
/// `SINK_ID_TYPE` when there are ids of the other type.
pub(crate) async fn settle(connection: &mut PgConnection, id_type: IdType) -> Result<(), Failure> {
    let (wanted, collation) = match id_type {
        IdType::Uuid => ("uuid", ""),
        IdType::Key => ("text", columns::BYTES),
    };
    let column = Column { table: "transaction_log", name: "id", wanted: wanted.to_owned(), collation };
    let refuse = |found: &str| mismatch(found, id_type);
    columns::settle(connection, &[column], |column, found| found == column.wanted, refuse).await
}

fn mismatch(found: &str, id_type: IdType) -> Coded {
    Coded::refused(
        "SINK_ID_TYPE",
        format!("the transaction log has ids in a column of type {found}, and --id-type is {id_type}"),
        "give --id-type the same value as the processor's, and a target of its own; if the ids of this one are to be of \
         the other type, empty remains.transaction_log and the rows of its topic in remains.progress in one transaction \
         and start again",
    )
}
