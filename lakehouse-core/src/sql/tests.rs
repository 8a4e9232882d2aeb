use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::ArrowWriter;

use super::{Open, Opener, Session, parse_instant};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::At;

/// Tables that can only be read.
struct Fakes<F>(F);

impl<F> Open for Fakes<F>
where
    F: Fn(String, At) -> BoxFuture<'static, Result<Option<Arc<dyn TableProvider>>>> + Send + Sync,
{
    fn table<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Handle>>> {
        async { Ok(None) }.boxed()
    }

    fn provider<'a>(
        &'a self,
        place: &'a str,
        at: &'a At,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn TableProvider>>>> {
        (self.0)(place.to_owned(), at.clone())
    }
}

/// Tables of one row: where they are, and which version was asked for.
fn opener() -> Opener {
    Arc::new(Fakes(|place: String, at: At| {
        async move {
            if place.contains("nowhere") {
                return Ok(None);
            }
            let version = match at {
                At::Latest => "latest".to_owned(),
                At::Version(version) => version.to_string(),
                At::Timestamp(time) => format!("{time} ms"),
                At::Ref(name) => format!("tag {name}"),
            };
            let batch = RecordBatch::try_from_iter([
                ("place", Arc::new(StringArray::from(vec![place])) as ArrayRef),
                ("version", Arc::new(StringArray::from(vec![version])) as ArrayRef),
                ("rowId", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ])?;
            let table: Arc<dyn TableProvider> =
                Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?);
            Ok(Some(table))
        }
        .boxed()
    }))
}

fn session() -> Session {
    let mut session = Session::new(opener(), None);
    session.name("flights", "/data/flights", At::Latest);
    session.name("old", "/data/flights", At::Version(3));
    session
}

async fn run(session: &Session, sql: &str) -> Result<Vec<String>> {
    let batches = session.query(sql).await?.collect().await?;
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = batch
                .columns()
                .iter()
                .map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
            rows.push(values.collect::<Vec<_>>().join(" "));
        }
    }
    Ok(rows)
}

async fn refused(sql: &str) -> String {
    let error = run(&session(), sql).await.unwrap_err();
    format!("{error} | {}", error.hint().unwrap_or_default())
}

#[tokio::test]
async fn names_paths_and_urls_are_tables() {
    let session = session();
    for (sql, expected) in [
        ("SELECT place, version FROM flights", "/data/flights latest"),
        ("SELECT place, version FROM old", "/data/flights 3"),
        ("SELECT place FROM '/data/t'", "/data/t"),
        ("SELECT place FROM \"./t\"", "./t"),
        (
            "SELECT place FROM 's3://bucket/a/t' AS x WHERE x.\"rowId\" = 1",
            "s3://bucket/a/t",
        ),
        (
            "SELECT place FROM 's3://bucket/a/t' x WHERE x.rowId = 1",
            "s3://bucket/a/t",
        ),
        ("SELECT place FROM lake.ns.tab", "lake.ns.tab"),
        (
            "SELECT tab.place FROM lake.ns.tab WHERE tab.rowId = 1",
            "lake.ns.tab",
        ),
        (
            "SELECT a.place || b.place FROM '/a' a JOIN '/b' b ON a.rowId = b.rowId",
            "/a/b",
        ),
        ("SELECT a.place || b.place FROM '/a' a, '/b' b", "/a/b"),
        ("SELECT (SELECT max(place) FROM '/it''s') FROM flights", "/it's"),
        (
            "SELECT place FROM flights WHERE rowId IN (SELECT rowId FROM '/b')",
            "/data/flights",
        ),
        ("WITH c AS (SELECT place FROM '/a') SELECT place FROM c", "/a"),
        (
            "WITH flights AS (SELECT 'cte' AS place) SELECT place FROM flights",
            "cte",
        ),
        ("VALUES (1)", "1"),
        ("SELECT 1;", "1"),
    ] {
        assert_eq!(run(&session, sql).await.unwrap(), [expected], "{sql}");
    }
}

#[tokio::test]
async fn a_version_in_from_is_the_version_that_is_read() {
    let session = session();
    for (clause, expected) in [
        ("VERSION AS OF 3", "3"),
        ("FOR VERSION AS OF 3", "3"),
        ("for version as of -1", "-1"),
        ("VERSION AS OF 'v1'", "tag v1"),
        ("VERSION AS OF '17'", "17"),
        ("FOR SYSTEM_VERSION AS OF 9", "9"),
        ("TIMESTAMP AS OF '1970-01-01T00:00:01'", "1000 ms"),
        ("FOR TIMESTAMP AS OF '1970-01-02'", "86400000 ms"),
        ("FOR SYSTEM_TIME AS OF TIMESTAMP '1970-01-01 00:00:02'", "2000 ms"),
    ] {
        for (from, place) in [
            ("flights", "/data/flights"),
            ("old", "/data/flights"),
            ("'/data/t'", "/data/t"),
            ("lake.ns.tab", "lake.ns.tab"),
        ] {
            for alias in ["", " AS x", " x"] {
                let sql = format!("SELECT place, version FROM {from} {clause}{alias} WHERE rowId = 1");
                let expected = format!("{place} {expected}");
                assert_eq!(run(&session, &sql).await.unwrap(), [expected], "{sql}");
            }
        }
    }
    let sql = "SELECT new.version, before.version, flights.version FROM flights new \
               JOIN flights VERSION AS OF 2 AS before ON new.rowId = before.rowId, \
               flights VERSION AS OF 1 WHERE flights.rowId = 1";
    assert_eq!(run(&session, sql).await.unwrap(), ["latest 2 1"]);
}

#[tokio::test]
async fn columns_called_version_are_columns() {
    let session = session();
    for (sql, expected) in [
        ("SELECT version AS of FROM flights", "latest"),
        ("SELECT place, version AS of FROM flights", "/data/flights latest"),
        ("SELECT version FROM flights ORDER BY version", "latest"),
    ] {
        assert_eq!(run(&session, sql).await.unwrap(), [expected], "{sql}");
    }
}

#[tokio::test]
async fn a_version_that_is_not_understood_is_never_ignored() {
    for (sql, expected) in [
        ("SELECT * FROM flights VERSION AS OF tag", "found tag"),
        ("SELECT * FROM flights VERSION AS OF", "found the end"),
        ("SELECT * FROM flights VERSION AS OF 1.5", "1.5 is no version"),
        ("SELECT * FROM flights TIMESTAMP AS OF now()", "a time in quotes"),
        (
            "SELECT * FROM flights TIMESTAMP AS OF 'yesterday'",
            "is not a time",
        ),
        (
            "SELECT * FROM (SELECT 1) FOR VERSION AS OF 3",
            "must follow a table's name",
        ),
        (
            "SELECT * FROM flights AS f FOR VERSION AS OF 3",
            "must follow a table's name",
        ),
        (
            "SELECT * FROM flights AS f VERSION AS OF 3",
            "cannot be understood",
        ),
        ("SELECT * FROM flights AT (VERSION => 3)", "cannot be understood"),
        ("SELECT * FROM flights TABLESAMPLE (10 PERCENT)", "TABLESAMPLE"),
    ] {
        let message = refused(sql).await;
        assert!(message.contains(expected), "{sql}: {message}");
    }
}

#[tokio::test]
async fn the_session_version_applies_where_the_query_names_none() {
    let mut session = session().with_version(At::Version(7));
    session.name("other", "/data/other", At::Latest);
    for (from, expected) in [
        ("other", "7"),
        ("'/x'", "7"),
        ("old", "3"),
        ("other VERSION AS OF 9", "9"),
    ] {
        let sql = format!("SELECT version FROM {from}");
        assert_eq!(run(&session, &sql).await.unwrap(), [expected], "{sql}");
    }
}

#[tokio::test]
async fn what_changes_something_names_its_verb() {
    for (sql, expected) in [
        ("INSERT INTO flights VALUES ('a', 'b', 1)", "Session::execute"),
        ("UPDATE flights SET place = 'x'", "Session::execute"),
        ("DELETE FROM flights WHERE rowId = 1", "Session::execute"),
        ("TRUNCATE TABLE flights", "Session::execute"),
        (
            "MERGE INTO flights t USING old s ON t.rowId = s.rowId WHEN MATCHED THEN DELETE",
            "Session::execute",
        ),
        ("CREATE TABLE x (a INT)", "lake create"),
        ("CREATE TABLE x AS SELECT 1", "lake create"),
        (
            "CREATE EXTERNAL TABLE x (a INT) STORED AS CSV LOCATION '/tmp/x'",
            "cannot",
        ),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", "-o FILE"),
        ("COPY flights TO '/tmp/x.csv'", "-o FILE"),
        ("DROP TABLE flights", "remove that"),
        ("EXPLAIN DELETE FROM flights", "--dry-run"),
        (
            "WITH x AS (SELECT 1) INSERT INTO flights SELECT * FROM x",
            "Session::execute",
        ),
        (
            "WITH x AS (DELETE FROM flights) SELECT 1",
            "a statement of its own",
        ),
        (
            "SET datafusion.execution.batch_size = 1",
            "this statement cannot run",
        ),
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "empty"),
        ("SELEC 1", "cannot be understood"),
    ] {
        let message = refused(sql).await;
        assert!(message.contains(expected), "{sql}: {message}");
    }
}

#[tokio::test]
async fn explain_show_and_describe_run() {
    let session = session();
    let text = run(&session, "EXPLAIN SELECT place FROM '/data/t'")
        .await
        .unwrap()
        .join("\n");
    assert!(text.contains("TableScan"), "{text}");
    let text = run(&session, "SHOW TABLES").await.unwrap().join("\n");
    assert!(text.contains("flights") && text.contains("old"), "{text}");
    let text = run(&session, "DESCRIBE flights").await.unwrap().join("\n");
    assert!(text.contains("rowId Int64"), "{text}");
}

#[tokio::test]
async fn errors_say_what_exists() {
    for (sql, expected) in [
        ("SELECT * FROM nosuch", "table nosuch not found"),
        ("SELECT * FROM nosuch", "Named tables: flights, old"),
        ("SELECT * FROM '/nowhere/t'", "table /nowhere/t not found"),
        ("SELECT rowid FROM flights", "did you mean flights.rowId"),
        ("SELECT rowId FROM flights a, old b", "ambiguous"),
        ("SELECT nosuch(rowId) FROM flights", "nosuch"),
    ] {
        let message = refused(sql).await;
        assert!(message.contains(expected), "{sql}: {message}");
    }
}

#[tokio::test]
async fn every_query_sees_the_newest_version() {
    let count = Arc::new(AtomicI64::new(0));
    let opener: Opener = Arc::new(Fakes(move |_, _| {
        let opened = count.fetch_add(1, Ordering::Relaxed);
        async move {
            let batch =
                RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![opened])) as ArrayRef)])?;
            let table: Arc<dyn TableProvider> =
                Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?);
            Ok(Some(table))
        }
        .boxed()
    }));
    let session = Session::new(opener, None);
    for expected in 0..3 {
        assert_eq!(
            run(&session, "SELECT n FROM '/t' AS t").await.unwrap(),
            [expected.to_string()]
        );
    }
}

#[tokio::test]
async fn plain_files_are_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("a.csv"), "id,name\n1,x\n2,\n").unwrap();
    std::fs::write(path("b.ndjson"), "{\"id\": 1}\n{\"id\": 2}\n").unwrap();
    std::fs::write(path("b.json"), "{\"id\": 5}\n").unwrap();
    let batch =
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![3, 4])) as ArrayRef)]).unwrap();
    let mut writer = ArrowWriter::try_new(
        std::fs::File::create(path("c d.parquet")).unwrap(),
        batch.schema(),
        None,
    )
    .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let session = Session::new(Arc::new(Fakes(|_, _| async { Ok(None) }.boxed())), None);
    let sum = async |file: &str| -> Result<i64> {
        let sql = format!("SELECT sum(id) FROM '{}'", path(file));
        let batches = session.query(&sql).await?.collect().await?;
        Ok(batches[0].column(0).as_primitive::<Int64Type>().value(0))
    };
    assert_eq!(sum("a.csv").await.unwrap(), 3);
    assert_eq!(sum("b.ndjson").await.unwrap(), 3);
    assert_eq!(sum("b.json").await.unwrap(), 5);
    assert_eq!(sum("c d.parquet").await.unwrap(), 7);
    std::fs::write(path("bad.parquet"), "id,name\n1,x\n2,y\n").unwrap();
    let error = sum("bad.parquet").await.unwrap_err();
    assert!(
        matches!(&error, Error::Invalid { .. }) && error.to_string().contains("not a Parquet file"),
        "{error}"
    );
    std::fs::write(path("x.txt"), "hello").unwrap();
    assert!(
        sum("x.txt")
            .await
            .unwrap_err()
            .to_string()
            .contains("does not tell")
    );
    assert!(matches!(
        sum("missing.csv").await.unwrap_err(),
        Error::NotFound { .. }
    ));
}

#[test]
fn instants_are_utc_unless_they_name_a_zone() {
    for (text, expected) in [
        ("1970-01-02", 86_400_000),
        ("1970-01-01 00:00:01", 1000),
        ("1970-01-01T00:00:01.5Z", 1500),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T23:59:59.999", -1),
    ] {
        assert_eq!(parse_instant(text).unwrap(), expected, "{text}");
    }
    assert!(parse_instant("yesterday").is_err());
}
