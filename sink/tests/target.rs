//! The target's side against a real `PostgreSQL`: the upsert's guard, compare-and-set, held goods, epoch removal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy.toml allows it in #[test] functions only")]

mod server;

use std::num::NonZeroU32;
use std::time::Duration;

use schemas::partitioner::partition_for_good;
use schemas::{GoodId, GoodType, IdType, Scale};
use server::Server;
use service::DatabaseUrl;
use sink::batch::Remains;
use sink::deltas::Deltas;
use sink::position::Progress;
use sink::postgres::{self, Advance, Failure, Target};
use sink::transaction_log::TransactionLog;
use sink::work::{Record, Types, Work, Written};
use sqlx::{Connection, PgConnection};

const TOPIC: &str = "warehouse.stock.deltas";

struct Bench {
    target: Target,
    sql: PgConnection,
}

impl Bench {
    async fn new(database: &str) -> Self {
        let url = Server::shared().create_database(database).await;
        let sql = PgConnection::connect(&url).await.unwrap();
        Self { target: connect(&url).await, sql }
    }

    async fn write(&mut self, from: Progress, to: Progress, goods: &[Remains]) -> Result<Written, Failure> {
        let mut deltas = Deltas::default();
        for good in goods {
            deltas.add(good.clone());
        }
        let advance = Advance { partition: 3, from, to };
        self.target.apply(TOPIC, &deltas, &[advance]).await.map(|(written, _)| written)
    }

    async fn rows(&mut self) -> Vec<(i64, i64, i64, i64)> {
        let rows = "SELECT good_id, cnt, epoch, version FROM remains.remains ORDER BY good_id";
        sqlx::query_as(rows).fetch_all(&mut self.sql).await.unwrap()
    }

    #[expect(clippy::indexing_slicing, reason = "a row is always given")]
    async fn progress(&mut self) -> Progress {
        self.target.progress(TOPIC, &[3]).await.unwrap()[&3]
    }
}

async fn connect(url: &str) -> Target {
    let url: DatabaseUrl = url.parse().unwrap();
    let options = postgres::options(&url, None).unwrap();
    Target::connect(&options, Duration::from_secs(30), Types::default()).await.unwrap()
}

fn at(epoch: i64, next_offset: i64) -> Progress {
    Progress { epoch: Some(epoch), next_offset, completed_epoch: None }
}

fn good(good_id: i64, remains: i128, epoch: i64, version: i64) -> Remains {
    Remains { good_id: good_id.into(), remains, epoch, version }
}

#[tokio::test]
async fn no_good_ever_goes_backwards() {
    let mut bench = Bench::new("guard").await;
    assert_eq!(bench.progress().await, Progress::default());
    bench.write(Progress::default(), at(7, 5), &[good(1, 10, 7, 3), good(2, 20, 7, 1)]).await.unwrap();
    let older = [good(1, 99, 7, 2), good(1, 98, 6, 900), good(2, 21, 7, 1)];
    for older in older {
        let written = bench.write(at(7, 5), at(7, 5), std::slice::from_ref(&older)).await.unwrap();
        assert_eq!(written.rows, 0, "{older:?}");
    }
    let newer = [good(1, 11, 7, 4), good(2, 5, 8, 1)];
    assert_eq!(bench.write(at(7, 5), at(8, 6), &newer).await.unwrap().rows, 2);
    assert_eq!(bench.rows().await, [(1, 11, 7, 4), (2, 5, 8, 1)]);
}

#[tokio::test]
async fn rows_and_progress_move_together_or_not_at_all() {
    let mut bench = Bench::new("compare_and_set").await;
    bench.progress().await;
    bench.write(Progress::default(), at(7, 5), &[good(1, 10, 7, 1)]).await.unwrap();
    // A second sink, or the same one after the target was restored, believes something else.
    for wrong in [Progress::default(), at(7, 4), at(6, 5)] {
        let result = bench.write(wrong, at(7, 9), &[good(1, 77, 7, 9)]).await;
        assert!(matches!(result, Err(Failure::Conflict)), "{result:?}");
    }
    assert_eq!(bench.rows().await, [(1, 10, 7, 1)]);
    assert_eq!(bench.progress().await, at(7, 5));
    // Failing rows leave the progress alone.
    sqlx::raw_sql("ALTER TABLE remains.remains ADD CHECK (cnt < 1000)").execute(&mut bench.sql).await.unwrap();
    let result = bench.write(at(7, 5), at(7, 9), &[good(1, 1_000, 7, 2)]).await;
    assert!(matches!(result, Err(Failure::Database(_))), "{result:?}");
    assert_eq!(bench.progress().await, at(7, 5));
}

#[tokio::test]
async fn a_good_that_does_not_fit_is_held_until_it_fits_and_the_others_go_on() {
    let mut bench = Bench::new("held").await;
    bench.progress().await;
    let too_large = i128::from(i64::MAX) + 1;
    let first = [good(1, 5, 7, 1), good(2, 6, 7, 1)];
    bench.write(Progress::default(), at(7, 2), &first).await.unwrap();
    let written = bench.write(at(7, 2), at(7, 4), &[good(1, too_large, 7, 2), good(2, 8, 7, 2)]).await.unwrap();
    assert_eq!((written.rows, written.held), (1, vec![1.into()]));
    assert_eq!(bench.rows().await, [(1, 5, 7, 1), (2, 8, 7, 2)]);
    assert_eq!(bench.target.held_goods().await.unwrap(), 1);
    let shown: String =
        sqlx::query_scalar("SELECT remains::text FROM remains.held_goods").fetch_one(&mut bench.sql).await.unwrap();
    assert_eq!(shown, too_large.to_string());
    bench.write(at(7, 4), at(7, 5), &[good(1, 4, 7, 3)]).await.unwrap();
    assert_eq!(bench.rows().await, [(1, 4, 7, 3), (2, 8, 7, 2)]);
    assert_eq!(bench.target.held_goods().await.unwrap(), 0);
    // A replay passes the version that did not fit again: it is history, not held.
    let replayed = bench.write(at(7, 5), at(7, 5), &[good(1, too_large, 7, 2)]).await.unwrap();
    assert!(replayed.held.is_empty());
    assert_eq!(bench.target.held_goods().await.unwrap(), 0);
}

#[tokio::test]
async fn goods_that_the_new_epoch_does_not_have_are_removed_in_their_own_partition_only() {
    let mut bench = Bench::new("epochs").await;
    bench.progress().await;
    let ten = NonZeroU32::new(10).unwrap();
    let goods: Vec<Remains> = (0..200).map(|id| good(id, 1, 7, 1)).collect();
    bench.write(Progress::default(), at(8, 5), &goods).await.unwrap();
    let kept = (0..200).find(|id| partition_for_good(&GoodId::from(*id), ten) == 3).unwrap();
    bench.write(at(8, 5), at(8, 6), &[good(kept, 2, 8, 1)]).await.unwrap();

    let to = Progress { completed_epoch: Some(8), ..at(8, 6) };
    let stale = Advance { partition: 3, from: at(8, 5), to };
    let result = bench.target.remove_older(TOPIC, stale, ten, None).await;
    assert!(matches!(result, Err(Failure::Conflict)), "{result:?}");
    let removed = bench.target.remove_older(TOPIC, Advance { from: at(8, 6), ..stale }, ten, None).await.unwrap();
    assert_eq!(removed.next, None);
    let left: Vec<i64> = bench.rows().await.into_iter().map(|row| row.0).collect();
    let expected: Vec<i64> =
        (0..200).filter(|id| *id == kept || partition_for_good(&GoodId::from(*id), ten) != 3).collect();
    assert_eq!(left, expected);
    assert_eq!(bench.progress().await, to);
}

#[tokio::test]
async fn two_sinks_with_the_same_goods_in_any_order_both_get_through() {
    let mut bench = Bench::new("deadlocks").await;
    bench.target.progress(TOPIC, &[0, 1]).await.unwrap();
    let url = Server::shared().url("deadlocks");
    let rounds = async |partition: i32| {
        let mut target = connect(&url).await;
        let (mut from, mut retries) = (Progress::default(), 0);
        for version in 1..=40 {
            let mut deltas = Deltas::default();
            for id in 0..500 {
                deltas.add(good(id, 1, 7, version * 2 + i64::from(partition)));
            }
            let to = at(7, version);
            retries += target.apply(TOPIC, &deltas, &[Advance { partition, from, to }]).await.unwrap().1;
            from = to;
        }
        retries
    };
    let (_, _) = tokio::join!(rounds(0), rounds(1));
    assert_eq!(bench.rows().await.len(), 500);
    assert!(bench.rows().await.iter().all(|row| row.3 == 81));
}

#[tokio::test]
async fn a_schema_made_by_a_newer_sink_is_refused() {
    let mut bench = Bench::new("newer").await;
    sqlx::raw_sql(
        "INSERT INTO remains._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (29990101000000, 'from the future', true, '\\x00', 0)",
    )
    .execute(&mut bench.sql)
    .await
    .unwrap();
    let url: DatabaseUrl = Server::shared().url("newer").parse().unwrap();
    let options = postgres::options(&url, None).unwrap();
    let failure = Target::connect(&options, Duration::from_secs(30), Types::default()).await.unwrap_err();
    assert!(matches!(&failure, Failure::Refused(error) if error.code == "SINK_TARGET_NEWER"), "{failure:?}");
}

#[tokio::test]
async fn a_role_without_the_right_to_create_schemas_can_use_one_that_is_there() {
    let mut bench = Bench::new("plain_role").await;
    sqlx::raw_sql(
        "CREATE ROLE plain LOGIN PASSWORD 'plain';
         GRANT USAGE, CREATE ON SCHEMA remains TO plain; GRANT ALL ON ALL TABLES IN SCHEMA remains TO plain",
    )
    .execute(&mut bench.sql)
    .await
    .unwrap();
    let url = Server::shared().url("plain_role").replace("postgres:postgres@", "plain:plain@");
    let mut target = connect(&url).await;
    assert_eq!(target.progress(TOPIC, &[3]).await.unwrap()[&3], Progress::default());
}

fn text(good: &str) -> GoodId {
    GoodId::from_text(good).unwrap()
}

async fn connect_as(url: &str, types: Types) -> Result<Target, Failure> {
    let options = postgres::options(&url.parse().unwrap(), None).unwrap();
    Target::connect(&options, Duration::from_secs(30), types).await
}

fn with_goods(goods: GoodType) -> Types {
    Types { goods, ..Types::default() }
}

#[tokio::test]
async fn goods_that_are_texts_are_written_held_and_removed_like_integers() {
    let url = Server::shared().create_database("texts").await;
    let mut target = connect_as(&url, with_goods(GoodType::Text)).await.unwrap();
    target.progress(TOPIC, &[3]).await.unwrap();
    let mut from = Progress::default();
    let mut write = async |target: &mut Target, to: Progress, goods: &[(&str, i128, i64, i64)]| {
        let mut deltas = Deltas::default();
        for (good_id, remains, epoch, version) in goods {
            deltas.add(Remains { good_id: text(good_id), ..good(0, *remains, *epoch, *version) });
        }
        let written = target.apply(TOPIC, &deltas, &[Advance { partition: 3, from, to }]).await.unwrap().0;
        from = to;
        written
    };
    let too_large = i128::from(i64::MAX) + 1;
    let names: Vec<String> = (0..100).map(|number| format!("#good '{number}\"")).collect();
    let goods: Vec<_> = names.iter().map(|name| (name.as_str(), 5, 7, 1)).collect();
    assert_eq!(write(&mut target, at(7, 1), &goods).await.rows, 100);
    assert_eq!(write(&mut target, at(7, 2), &[("2", too_large, 7, 1), (&names[0], 4, 7, 1)]).await.held, [text("2")]);
    assert_eq!(write(&mut target, at(8, 3), &[(&names[0], 6, 8, 1)]).await.rows, 1);
    let ten = NonZeroU32::new(10).unwrap();
    let to = Progress { completed_epoch: Some(8), ..at(8, 3) };
    let advance = Advance { partition: 3, from: at(8, 3), to };
    let gone = names[1..].iter().filter(|name| partition_for_good(&text(name), ten) == 3).count();
    let removed = target.remove_older(TOPIC, advance, ten, None).await.unwrap();
    assert_eq!((usize::try_from(removed.rows).unwrap(), removed.next), (gone, None));
    let mut sql = PgConnection::connect(&url).await.unwrap();
    let kept: Vec<(String, i64)> =
        sqlx::query_as("SELECT good_id, cnt FROM remains.remains WHERE epoch = 8").fetch_all(&mut sql).await.unwrap();
    assert_eq!(kept, [(names[0].clone(), 6)]);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM remains.remains").fetch_one(&mut sql).await.unwrap();
    assert_eq!(usize::try_from(left).unwrap(), 100 - gone);
    // A later step begins after a good.
    let to = Progress { completed_epoch: Some(9), ..at(8, 3) };
    let from = Progress { completed_epoch: Some(8), ..at(8, 3) };
    target.remove_older(TOPIC, Advance { partition: 3, from, to }, ten, Some(&text("#good"))).await.unwrap();
}

#[tokio::test]
async fn the_type_of_goods_is_settled_by_the_first_of_them() {
    let url = Server::shared().create_database("types").await;
    for good_type in [GoodType::Integer, GoodType::Text, GoodType::Integer] {
        connect_as(&url, with_goods(good_type)).await.unwrap();
    }
    let mut sql = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("INSERT INTO remains.remains VALUES (2, 1, 1, 1, now())").execute(&mut sql).await.unwrap();
    let failure = connect_as(&url, with_goods(GoodType::Text)).await.unwrap_err();
    assert!(matches!(&failure, Failure::Refused(error) if error.code == "SINK_GOOD_TYPE"), "{failure:?}");
    connect_as(&url, Types::default()).await.unwrap();
}

fn with_pieces(digits: u8) -> Types {
    Types { pieces: Scale::try_from(digits).unwrap(), ..Types::default() }
}

async fn texts(sql: &mut PgConnection, query: &str) -> Vec<(i64, String)> {
    sqlx::query_as(query).fetch_all(sql).await.unwrap()
}

#[tokio::test]
async fn quantities_are_written_and_held_with_every_digit() {
    let url = Server::shared().create_database("digits").await;
    let mut target = connect_as(&url, with_pieces(3)).await.unwrap();
    let mut sql = PgConnection::connect(&url).await.unwrap();
    target.progress(TOPIC, &[3]).await.unwrap();
    let most = 10_i128.pow(38) - 1;
    let mut deltas = Deltas::default();
    for (number, remains) in [(1, 12_500), (2, -50), (3, most), (4, -most), (5, most + 1), (6, i128::MIN), (7, 0)] {
        deltas.add(good(number, remains, 7, 1));
    }
    let advance = Advance { partition: 3, from: Progress::default(), to: at(7, 1) };
    let (written, _) = target.apply(TOPIC, &deltas, &[advance]).await.unwrap();
    assert_eq!((written.rows, written.held), (5, [5, 6].map(GoodId::from).to_vec()));
    let digits = "99999999999999999999999999999999999.999";
    let expected = [(1, "12.500"), (2, "-0.050"), (3, digits), (4, &format!("-{digits}")), (7, "0.000")];
    let remains = texts(&mut sql, "SELECT good_id, cnt::text FROM remains.remains ORDER BY good_id").await;
    assert_eq!(remains, expected.map(|(good, text)| (good, text.to_owned())));
    let held = texts(&mut sql, "SELECT good_id, remains::text FROM remains.held_goods ORDER BY good_id").await;
    let expected = [(5, "100000000000000000000000000000000000.000"), (6, "-170141183460469231731687303715884105.728")];
    assert_eq!(held, expected.map(|(good, text)| (good, text.to_owned())));
    // One that fits again is released, as among whole pieces.
    let mut deltas = Deltas::default();
    deltas.add(good(5, 1, 7, 2));
    target.apply(TOPIC, &deltas, &[Advance { partition: 3, from: at(7, 1), to: at(7, 2) }]).await.unwrap();
    assert_eq!(target.held_goods().await.unwrap(), 1);
    assert_eq!(
        texts(&mut sql, "SELECT good_id, cnt::text FROM remains.remains WHERE good_id = 5").await,
        [(5, "0.001".into())]
    );
}

#[tokio::test]
async fn the_transaction_log_has_every_digit() {
    const TRANSACTIONS: &str = "warehouse.stock.transactions";
    let types = Types { ids: Some(IdType::Uuid), ..with_pieces(3) };
    let url = Server::shared().create_database("log_digits").await;
    let mut target = connect_as(&url, types).await.unwrap();
    target.progress(TRANSACTIONS, &[3]).await.unwrap();
    let mut log = TransactionLog::default();
    for (number, pieces) in [(1, "12.500"), (2, "-0.050"), (3, "9223372036854775.807")] {
        let key = format!("63703d1f-0000-4000-8000-{number:012}");
        let value = format!(
            r#"{{"format":1,"good_id":{number},"pieces":{pieces},"generation":1,"streaming":true,"lsn":26370504,"commit_lsn":null,"ts_ms":1795333820306}}"#
        );
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        let record = Record { partition: 3, offset: number, key, value };
        assert!(TransactionLog::read(&record, Types { pieces: Scale::WHOLE, ..types }).is_err(), "of another scale");
        log.add(TransactionLog::read(&record, types).unwrap());
    }
    let to = Progress { next_offset: 4, ..Progress::default() };
    let advance = Advance { partition: 3, from: Progress::default(), to };
    assert_eq!(target.apply(TRANSACTIONS, &log, &[advance]).await.unwrap().0.rows, 3);
    let mut sql = PgConnection::connect(&url).await.unwrap();
    let query = "SELECT good_id, operation || ' ' || pcs FROM remains.transaction_log ORDER BY good_id";
    let expected = [(1, "add 12.500"), (2, "remove 0.050"), (3, "add 9223372036854775.807")];
    assert_eq!(texts(&mut sql, query).await, expected.map(|(good, text)| (good, text.to_owned())));
}

#[tokio::test]
async fn the_scale_of_quantities_is_settled_by_the_first_of_them() {
    let url = Server::shared().create_database("scales").await;
    let mut sql = PgConnection::connect(&url).await.unwrap();
    for digits in [0, 3, 9, 0, 3] {
        connect_as(&url, with_pieces(digits)).await.unwrap();
    }
    sqlx::raw_sql("INSERT INTO remains.remains VALUES (2, 1.125, 1, 1, now())").execute(&mut sql).await.unwrap();
    for digits in [0, 2, 4] {
        let failure = connect_as(&url, with_pieces(digits)).await.unwrap_err();
        assert!(matches!(&failure, Failure::Refused(error) if error.code == "SINK_PIECES_SCALE"), "{failure:?}");
    }
    connect_as(&url, with_pieces(3)).await.unwrap();
    assert_eq!(texts(&mut sql, "SELECT good_id, cnt::text FROM remains.remains").await, [(2, "1.125".to_owned())]);
    // Columns without a limit have room for all.
    sqlx::raw_sql(
        "ALTER TABLE remains.remains ALTER cnt TYPE numeric; ALTER TABLE remains.held_goods ALTER remains TYPE numeric;
         ALTER TABLE remains.transaction_log ALTER pcs TYPE numeric",
    )
    .execute(&mut sql)
    .await
    .unwrap();
    connect_as(&url, with_pieces(5)).await.unwrap();
    // One that would round is none of them, also where only it is.
    sqlx::raw_sql("ALTER TABLE remains.transaction_log ALTER pcs TYPE numeric(20,2)").execute(&mut sql).await.unwrap();
    assert!(connect_as(&url, with_pieces(5)).await.is_err());
}

#[tokio::test]
async fn the_transaction_log_has_uuids_or_the_texts_of_keys_and_settles_which_by_the_first_of_them() {
    const TRANSACTIONS: &str = "warehouse.stock.transactions";
    let url = Server::shared().create_database("ids").await;
    let log = |ids| Types { ids: Some(ids), ..Types::default() };
    let uuid = "63703d1f-0000-4000-8000-000000000001";
    let value =
        br#"{"format":1,"good_id":2,"pieces":-15,"generation":1,"streaming":true,"lsn":10,"commit_lsn":9,"ts_ms":1}"#;
    let mut from = Progress::default();
    for (ids, other, keys) in [
        (IdType::Uuid, IdType::Key, [uuid, "63703d1f-0000-4000-8000-000000000002"]),
        (IdType::Key, IdType::Uuid, ["42", r#"[1,"A-7 größe \\"]"#]),
    ] {
        let mut target = connect_as(&url, log(ids)).await.unwrap();
        let mut sql = PgConnection::connect(&url).await.unwrap();
        target.progress(TRANSACTIONS, &[3]).await.unwrap();
        let mut write = async |changes: [(&str, Option<&[u8]>); 2]| {
            let mut batch = TransactionLog::default();
            for (key, value) in changes {
                let record = Record { partition: 3, offset: 0, key: Some(key.as_bytes()), value };
                batch.add(TransactionLog::read(&record, log(ids)).unwrap());
            }
            let to = Progress { next_offset: from.next_offset + 2, ..from };
            target.apply(TRANSACTIONS, &batch, &[Advance { partition: 3, from, to }]).await.unwrap();
            from = to;
        };
        write([(keys[0], Some(value)), (keys[1], Some(value))]).await;
        let rows = "SELECT id::text, good_id, operation, pcs FROM remains.transaction_log ORDER BY id";
        let rows: Vec<(String, i64, String, i64)> = sqlx::query_as(rows).fetch_all(&mut sql).await.unwrap();
        let expected = keys.map(|key| (key.to_owned(), 2, "remove".to_owned(), 15));
        assert_eq!(rows, expected);
        let failure = connect_as(&url, log(other)).await.unwrap_err();
        assert!(matches!(&failure, Failure::Refused(error) if error.code == "SINK_ID_TYPE"), "{failure:?}");
        // Without the log it is nobody's business.
        connect_as(&url, Types::default()).await.unwrap();
        write([(keys[0], Some(value)), (keys[1], None)]).await;
        write([(keys[0], None), (keys[1], None)]).await;
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM remains.transaction_log").fetch_one(&mut sql).await.unwrap();
        assert_eq!(left, 0);
    }
}
