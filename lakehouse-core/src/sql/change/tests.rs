use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use futures::future::join_all;

use super::qualify::Qualifiers;
use crate::error::{Error, Result};
use crate::model::{At, Definition, parse_partitioning};
use crate::operations::{Merge, Options, Report, Rows};
use crate::scan::{self, MetadataColumns, SnapshotTable};
use crate::sql::{Executed, Session};
use crate::store::StorageOptions;
use crate::{Table, TableFormat};

const FORMATS: [(TableFormat, Option<u8>); 3] = [
    (TableFormat::Iceberg, Some(2)),
    (TableFormat::Iceberg, Some(3)),
    (TableFormat::Delta, None),
];

const ROWS: [&str; 2] = [
    "(1, 'eu', 1), (2, 'us', 2), (3, 'eu', NULL)",
    "(4, 'us', 4), (5, NULL, 5), (6, 'eu', 6)",
];
const SOURCE: &str = "(2, 20, 'U'), (4, 40, 'D'), (6, NULL, 'U'), (9, 90, 'I')";

static COUNT: AtomicU64 = AtomicU64::new(0);

/// `t(id, region, n)` in two commits, and `s(id, v, op)`.
struct Lab {
    table: Table,
    session: Session,
}

impl Lab {
    async fn new(format: (TableFormat, Option<u8>)) -> Self {
        let definition = Definition {
            schema: Arc::new(Schema::new(vec![
                Field::new("id", DataType::Int64, false),
                Field::new("region", DataType::Utf8, true),
                Field::new("n", DataType::Int32, true),
            ])),
            partition_fields: parse_partitioning("region").unwrap(),
            properties: Default::default(),
            format_version: format.1,
        };
        let place = format!("memory://sql-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let table = Table::create(&place, format.0, &definition).await.unwrap();
        for values in ROWS {
            table
                .append(literal("id, region, n", values).await, &Options::default())
                .await
                .unwrap();
        }
        let mut session = Table::session(None, &StorageOptions::new());
        session.table("t", table.handle().clone(), At::Latest);
        let source = values("id, v, op", SOURCE).await;
        let source = MemTable::try_new(source[0].schema(), vec![source]).unwrap();
        session.register("s", Arc::new(source)).unwrap();
        Self { table, session }
    }

    async fn each() -> Vec<Self> {
        join_all(FORMATS.map(Self::new)).await
    }

    async fn try_run(&self, sql: &str) -> Result<Report> {
        match self.session.execute(sql, &Options::default()).await? {
            Executed::Changed { report, .. } => Ok(*report),
            Executed::Rows(_) => panic!("{sql} gave rows"),
        }
    }

    async fn run(&self, sql: &str) -> Report {
        self.try_run(sql).await.unwrap_or_else(|error| {
            panic!("{sql}: {error} | {}", error.hint().unwrap_or_default());
        })
    }

    async fn refused(&self, sql: &str) -> String {
        let before = self.table.snapshot(&At::Latest).await.unwrap().state;
        let error = match self.try_run(sql).await {
            Ok(report) => panic!("{sql} ran: {report:?}"),
            Err(error) => error,
        };
        let after = self.table.snapshot(&At::Latest).await.unwrap().state;
        assert_eq!(before, after, "{sql} changed the table");
        format!("{error} | {}", error.hint().unwrap_or_default())
    }

    /// `id|region|n`, sorted.
    async fn content(&self) -> Vec<String> {
        lines(&self.query("SELECT id, region, n FROM t").await)
    }

    async fn query(&self, sql: &str) -> Vec<RecordBatch> {
        self.session.query(sql).await.unwrap().collect().await.unwrap()
    }
}

async fn values(columns: &str, values: &str) -> Vec<RecordBatch> {
    let sql = format!("SELECT * FROM (VALUES {values}) AS x({columns})");
    let frame = scan::session(None).sql(&sql).await.unwrap();
    frame.collect().await.unwrap()
}

async fn literal(columns: &str, text: &str) -> Rows {
    let batches = values(columns, text).await;
    Rows::batches(batches[0].schema(), batches)
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines: Vec<String> = batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows()).map(|row| {
                let cells = batch.columns().iter();
                let cells: Vec<String> = cells.map(|c| array_value_to_string(c, row).unwrap()).collect();
                cells.join("|")
            })
        })
        .collect();
    lines.sort();
    lines
}

/// Conditions over `t`, some that only a query can judge.
const CONDITIONS: [&str; 20] = [
    "true",
    "1 = 0",
    "NULL",
    "id = 2",
    "t.n > 2 AND t.region = 'eu'",
    "n IS NULL OR n = - -2",
    "id IN (SELECT id FROM s)",
    "id NOT IN (SELECT id FROM s)",
    "n * 10 NOT IN (SELECT v FROM s)",
    "EXISTS (SELECT 1 FROM s WHERE s.id = t.id AND s.v > 20)",
    "NOT EXISTS (SELECT 1 FROM s WHERE s.id = t.id)",
    "n > (SELECT avg(v) FROM s) / 20",
    "n = (SELECT max(n) FROM t)",
    "n < (SELECT min(v) FROM s WHERE s.id = t.id)",
    "id IN (SELECT x.id + 1 FROM t AS x WHERE x.region = 'eu')",
    "id IN (SELECT id FROM s WHERE op = 'U') OR region IS NULL",
    "region = 'eu' AND id IN (WITH w AS (SELECT id FROM s) SELECT id FROM w)",
    "n IN (SELECT v FROM s WHERE false)",
    "n NOT IN (SELECT v FROM s WHERE false)",
    "EXISTS (SELECT 1 FROM s WHERE false)",
];

/// The ids of the rows that a condition is true for, by a query over a copy in memory.
async fn chosen(lab: &Lab, condition: &str) -> BTreeSet<i64> {
    let ctx = scan::session(None);
    let copy = lab.query("SELECT * FROM t").await;
    let copy = MemTable::try_new(copy[0].schema(), vec![copy]).unwrap();
    ctx.register_table("t", Arc::new(copy)).unwrap();
    let source = values("id, v, op", SOURCE).await;
    let source = MemTable::try_new(source[0].schema(), vec![source]).unwrap();
    ctx.register_table("s", Arc::new(source)).unwrap();
    let sql = format!("SELECT id FROM t WHERE {condition}");
    let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

fn id(line: &str) -> i64 {
    line.split('|').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn delete_takes_the_rows_that_a_query_with_its_condition_finds() {
    for condition in CONDITIONS {
        for lab in Lab::each().await {
            let gone = chosen(&lab, condition).await;
            let mut expected = lab.content().await;
            expected.retain(|line| !gone.contains(&id(line)));
            let report = lab.run(&format!("DELETE FROM t WHERE {condition}")).await;
            assert_eq!(lab.content().await, expected, "{condition}");
            assert_eq!(
                report.metric("num_target_rows_deleted"),
                gone.len() as u64,
                "{condition}"
            );
            assert_eq!(report.committed, !gone.is_empty(), "{condition}");
            assert_eq!(report.operation, "delete");
        }
    }
}

#[tokio::test]
async fn update_sets_the_rows_that_a_query_with_its_condition_finds() {
    for condition in CONDITIONS {
        for lab in Lab::each().await {
            let set = chosen(&lab, condition).await;
            let mut expected: Vec<String> = lab.content().await;
            for line in &mut expected {
                if set.contains(&id(line)) {
                    let n = line.rsplit('|').next().unwrap();
                    let n = n
                        .parse::<i32>()
                        .map_or_else(|_| String::new(), |n| (n + 100).to_string());
                    *line = format!("{}|new|{n}", id(line));
                }
            }
            expected.sort();
            let sql = format!("UPDATE t SET n = n + 100, t.region = 'new' WHERE {condition}");
            let report = lab.run(&sql).await;
            assert_eq!(lab.content().await, expected, "{condition}");
            assert_eq!(
                report.metric("num_target_rows_updated"),
                set.len() as u64,
                "{condition}"
            );
            assert_eq!(report.committed, !set.is_empty(), "{condition}");
        }
    }
}

#[tokio::test]
async fn order_and_limit_choose_rows_by_their_old_values() {
    for lab in Lab::each().await {
        let report = lab.run("DELETE FROM t ORDER BY n DESC NULLS LAST LIMIT 2").await;
        assert_eq!(report.metric("num_target_rows_deleted"), 2);
        assert_eq!(lab.content().await, ["1|eu|1", "2|us|2", "3|eu|", "4|us|4"]);
        lab.run("UPDATE t AS x SET n = -x.n WHERE x.n > 0 ORDER BY n LIMIT 1")
            .await;
        assert_eq!(lab.content().await, ["1|eu|-1", "2|us|2", "3|eu|", "4|us|4"]);
        lab.run("DELETE FROM t LIMIT 3").await;
        assert_eq!(lab.content().await.len(), 1);
        assert!(!lab.run("DELETE FROM t LIMIT 0").await.committed);
    }
}

#[tokio::test]
async fn other_tables_decide_in_using_and_from() {
    for lab in Lab::each().await {
        lab.run("DELETE FROM t AS x USING s WHERE x.id = s.id AND s.op = 'D'")
            .await;
        lab.run("UPDATE t SET n = s.v + t.n, region = op FROM s WHERE s.id = t.id AND t.id < 6")
            .await;
        lab.run("WITH w AS (SELECT id FROM s WHERE op = 'U') UPDATE t SET n = 0 WHERE id IN (SELECT id FROM w) AND id = 6")
            .await;
        lab.run("UPDATE t SET n = (SELECT max(v) FROM s WHERE s.id = t.id + 4) WHERE id = 5")
            .await;
        assert_eq!(
            lab.content().await,
            ["1|eu|1", "2|U|22", "3|eu|", "5||90", "6|eu|0"]
        );
        lab.run(
            "UPDATE t SET region = b.region FROM t AS b JOIN s ON b.id = s.id WHERE t.id = 1 AND b.id = 2",
        )
        .await;
        assert_eq!(lab.content().await[0], "1|U|1");
    }
}

#[tokio::test]
async fn a_row_that_would_be_updated_twice_is_named() {
    for lab in Lab::each().await {
        let message = lab.refused("UPDATE t SET n = s.v FROM s WHERE t.id = 3").await;
        assert!(
            message.contains("more than once") && message.contains("id = 3"),
            "{message}"
        );
        let message = lab.refused("UPDATE t SET n = (SELECT v FROM s)").await;
        assert!(!message.is_empty());
        lab.refused("DELETE FROM t WHERE n = (SELECT v FROM s)").await;
    }
}

#[tokio::test]
async fn insert_puts_values_into_columns_by_their_place() {
    for lab in Lab::each().await {
        lab.run("DELETE FROM t WHERE id > 1").await;
        lab.run("INSERT INTO t VALUES (7, 'x', '70')").await;
        lab.run("INSERT INTO t (n, id) SELECT v, id + 10 FROM s WHERE op = 'D'")
            .await;
        lab.run("INSERT INTO TABLE t WITH w AS (SELECT 8) SELECT *, 'w', NULL FROM w")
            .await;
        lab.run("WITH w AS (SELECT 9 AS a) INSERT INTO t (id) SELECT a FROM w")
            .await;
        lab.run("INSERT INTO t SELECT max(id) + 1, 'self', count(*) FROM t")
            .await;
        assert_eq!(
            lab.content().await,
            ["14||40", "15|self|5", "1|eu|1", "7|x|70", "8|w|", "9||"]
        );
        lab.run("INSERT OVERWRITE t SELECT id, region, n + 1 FROM t WHERE id < 9")
            .await;
        assert_eq!(lab.content().await, ["1|eu|2", "7|x|71", "8|w|"]);
        lab.run("INSERT OVERWRITE TABLE t VALUES (1, NULL, NULL)").await;
        assert_eq!(lab.content().await, ["1||"]);
        for (sql, expected) in [
            ("INSERT INTO t VALUES (1, 'a')", "2 values for 3 columns"),
            (
                "INSERT INTO t (id, region) VALUES (1, 'a', 1)",
                "3 values for 2 columns",
            ),
            ("INSERT INTO t (id, nosuch) VALUES (1, 'a')", "no column nosuch"),
            ("INSERT INTO t (id, id) VALUES (1, 1)", "twice"),
            ("INSERT INTO t (region) VALUES ('a')", "requires a value"),
            ("INSERT INTO t VALUES (1, 'a', 'b')", "column 'n'"),
        ] {
            let message = lab.refused(sql).await;
            assert!(message.contains(expected), "{sql}: {message}");
        }
        let report = lab.run("TRUNCATE TABLE t").await;
        assert_eq!(report.metric("num_target_rows_deleted"), 1);
        assert!(lab.content().await.is_empty());
    }
}

/// SQL, and the same for the verb.
fn merges() -> Vec<(&'static str, Merge)> {
    let on = "target.id = source.id";
    let upsert = Merge::on(on)
        .when_matched_update("n = source.v")
        .when_not_matched_insert("id = source.id, n = source.v");
    vec![
        (
            "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = v \
             WHEN NOT MATCHED THEN INSERT (id, n) VALUES (id, s.v)",
            upsert.clone(),
        ),
        (
            "WITH w AS (SELECT * FROM s) MERGE t AS source USING w AS target ON source.id = target.id \
             WHEN MATCHED THEN UPDATE SET source.n = target.v \
             WHEN NOT MATCHED BY TARGET THEN INSERT (id, n) VALUES (target.id, target.v)",
            upsert,
        ),
        (
            "MERGE INTO t USING (SELECT id, v, op FROM s) AS x ON t.id = x.id \
             WHEN MATCHED AND x.op = 'D' AND t.n > 3 THEN DELETE \
             WHEN MATCHED AND v IS NULL THEN UPDATE SET n = -n, region = op \
             WHEN MATCHED THEN UPDATE SET n = n + v \
             WHEN NOT MATCHED AND op = 'I' THEN INSERT VALUES (id * 10, 'in', v) \
             WHEN NOT MATCHED BY SOURCE AND n IS NULL THEN DELETE \
             WHEN NOT MATCHED BY SOURCE AND region = 'eu' THEN UPDATE SET n = n + 1000",
            Merge::on(on)
                .when_matched_delete()
                .only_if("source.op = 'D' AND target.n > 3")
                .when_matched_update("n = -target.n, region = source.op")
                .only_if("source.v IS NULL")
                .when_matched_update("n = target.n + source.v")
                .when_not_matched_insert("id = source.id * 10, region = 'in', n = source.v")
                .only_if("source.op = 'I'")
                .when_not_matched_by_source_delete()
                .only_if("target.n IS NULL")
                .when_not_matched_by_source_update("n = target.n + 1000")
                .only_if("target.region = 'eu'"),
        ),
        (
            "MERGE INTO t USING s ON t.id = s.id AND t.region = 'us' WHEN MATCHED THEN DELETE",
            Merge::on("target.id = source.id AND target.region = 'us'").when_matched_delete(),
        ),
        (
            "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED BY SOURCE THEN DELETE",
            Merge::on(on).when_not_matched_by_source_delete(),
        ),
    ]
}

#[tokio::test]
async fn merge_does_what_the_verb_does() {
    for (sql, merge) in merges() {
        for (lab, twin) in Lab::each().await.into_iter().zip(Lab::each().await) {
            let report = lab.run(sql).await;
            let source = literal("id, v, op", SOURCE).await;
            let same = twin
                .table
                .merge(source, &merge, &Options::default())
                .await
                .unwrap();
            assert_eq!(lab.content().await, twin.content().await, "{sql}");
            assert!(report.committed);
            for figure in ["inserted", "updated", "deleted"] {
                let figure = format!("num_target_rows_{figure}");
                assert_eq!(report.metric(&figure), same.metric(&figure), "{sql}: {figure}");
            }
        }
    }
}

#[tokio::test]
async fn merge_takes_all_columns_paths_values_and_itself() {
    for lab in Lab::each().await {
        let path = lab.table.location();
        lab.run(&format!(
            "MERGE INTO '{path}' AS t USING (VALUES (1, 10, 'a'), (7, 70, 'b')) AS x(id, n, region) ON t.id = x.id \
             WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED AND x.n < 0 THEN INSERT * \
             WHEN NOT MATCHED THEN INSERT *;"
        ))
        .await;
        assert_eq!(
            lab.content().await,
            ["1|a|10", "2|us|2", "3|eu|", "4|us|4", "5||5", "6|eu|6", "7|b|70"]
        );
        lab.run(&format!(
            "MERGE INTO t USING (SELECT id + 1 AS id, n * 2 AS n FROM '{path}' WHERE id >= 6) s ON t.id = s.id \
             WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT *"
        ))
        .await;
        assert_eq!(lab.content().await[5..], ["6|eu|6", "7|b|12", "8||140"]);
        lab.run(
            "MERGE INTO t USING t VERSION AS OF -1 AS old ON t.id = old.id WHEN MATCHED THEN UPDATE SET *",
        )
        .await;
        assert_eq!(lab.content().await[5..], ["6|eu|6", "7|b|70", "8||140"]);
        let message = lab
            .refused("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET *")
            .await;
        assert!(message.contains("no column v, op"), "{message}");
    }
}

#[tokio::test]
async fn forms_that_are_not_known_are_refused_by_name() {
    let lab = Lab::new(FORMATS[0]).await;
    let merge = "MERGE INTO t USING s ON t.id = s.id WHEN";
    for (sql, expected) in [
        ("DELETE FROM t WHERE id = 1 RETURNING id", "RETURNING"),
        ("DELETE FROM t, s WHERE t.id = s.id", "more than one table"),
        ("DELETE FROM t JOIN s ON t.id = s.id", "JOIN in FROM"),
        ("DELETE FROM t USING t WHERE true", "two tables are called t"),
        ("DELETE FROM t USING s LIMIT 1", "LIMIT over more than one table"),
        ("DELETE FROM t ORDER BY id", "ORDER BY without LIMIT"),
        ("DELETE FROM t ORDER BY 1 LIMIT 1", "number of a column"),
        ("DELETE FROM t VERSION AS OF 3", "only the newest"),
        (
            "DELETE FROM t FOR TIMESTAMP AS OF '2020-01-01' WHERE id = 1",
            "only the newest",
        ),
        ("UPDATE t VERSION AS OF 3 SET n = 1", "only the newest"),
        ("INSERT INTO t VERSION AS OF 3 VALUES (1)", "only the newest"),
        (
            "INSERT OVERWRITE TABLE t VERSION AS OF 3 VALUES (1)",
            "only the newest",
        ),
        ("TRUNCATE TABLE t VERSION AS OF 3", "only the newest"),
        (
            "MERGE INTO t VERSION AS OF 3 USING s ON true WHEN MATCHED THEN DELETE",
            "only the newest",
        ),
        ("DELETE FROM old", "stands for an old version"),
        ("WITH t AS (SELECT 1 AS id) DELETE FROM t", "a name in WITH"),
        (
            "WITH w AS (DELETE FROM t) DELETE FROM t WHERE id = 1",
            "a statement of its own",
        ),
        ("DELETE FROM s", "s is not a table that can be changed"),
        ("DELETE FROM (SELECT * FROM t) AS x", "not a table"),
        ("DELETE FROM t AS x(a, b, c) WHERE a = 1", "not a table"),
        ("DELETE FROM t TABLESAMPLE (10 PERCENT)", "TABLESAMPLE"),
        ("DELETE FROM information_schema.tables", "not a table"),
        ("DELETE FROM nosuch", "table nosuch not found"),
        ("DELETE FROM 'memory://nosuch'", "not found"),
        ("DELETE FROM t WHERE nosuch = 1", "no column nosuch"),
        ("DELETE FROM t WHERE _pos = 1 LIMIT 1", "no column _pos"),
        ("DELETE FROM t WHERE id = 1 OR nosuch IN (SELECT 1)", "nosuch"),
        ("DELETE FROM t AS x WHERE t.id = 1", "t"),
        ("DELETE FROM t WHERE count(*) > 1", "aggregate"),
        (
            "UPDATE t SET n = (SELECT max(v) FROM s WHERE s.id > t.id)",
            "in a way that cannot run",
        ),
        ("UPDATE t SET n = 1, n = 2", "set twice"),
        ("UPDATE t SET (n, region) = (1, 'x')", "several columns at once"),
        ("UPDATE t SET nosuch = 1", "no column nosuch"),
        (
            "UPDATE t SET s.v = 1 FROM s WHERE s.id = t.id",
            "s.v cannot be set",
        ),
        ("UPDATE t JOIN s ON t.id = s.id SET n = 1", "JOIN"),
        ("UPDATE OR IGNORE t SET n = 1", "OR .. for conflicts"),
        ("UPDATE t SET n = 1 RETURNING id", "RETURNING"),
        (
            "UPDATE t SET n = s.v FROM s WHERE t.id = s.id LIMIT 1",
            "LIMIT over",
        ),
        ("UPDATE t SET id = NULL WHERE id = (SELECT 1)", "requires a value"),
        ("UPDATE t SET n = 'x' WHERE id = (SELECT 1)", "column 'n'"),
        (
            "INSERT INTO t VALUES (1, 'a', 1) ON CONFLICT DO NOTHING",
            "ON CONFLICT",
        ),
        ("INSERT INTO t VALUES (1, 'a', 1) RETURNING id", "RETURNING"),
        (
            "INSERT OVERWRITE t PARTITION (region = 'eu') SELECT 1, 2",
            "PARTITION",
        ),
        (
            "INSERT OR REPLACE INTO t VALUES (1, 'a', 1)",
            "OR .. for conflicts",
        ),
        ("INSERT INTO t DEFAULT VALUES", "DEFAULT VALUES"),
        ("INSERT INTO t BY NAME SELECT 1 AS id", "cannot be understood"),
        ("TRUNCATE TABLE t, s", "more than one table"),
        ("TRUNCATE TABLE IF EXISTS t", "IF EXISTS"),
        ("EXPLAIN DELETE FROM t", "cannot run in a query"),
        ("DELETE FROM t; DELETE FROM t", "one statement"),
        ("CREATE TABLE x AS SELECT 1", "CREATE TABLE"),
        ("MERGE INTO t USING s ON t.id = s.id", "without clauses"),
        (
            "MERGE INTO t USING t ON true WHEN MATCHED THEN DELETE",
            "both sides are called t",
        ),
        (
            "MERGE INTO t USING (t x JOIN s ON x.id = s.id) ON true WHEN MATCHED THEN DELETE",
            "source of a MERGE",
        ),
        (
            "MERGE INTO t USING s ON region WHEN MATCHED THEN DELETE",
            "true or false",
        ),
        (
            "MERGE INTO t USING s ON target.id = source.id WHEN MATCHED THEN DELETE",
            "no table called target",
        ),
        (
            "MERGE INTO t USING s ON id = 1 WHEN MATCHED THEN DELETE",
            "ambiguous",
        ),
        (
            "MERGE INTO t USING s ON t.id IN (SELECT 1) WHEN MATCHED THEN DELETE",
            "a subquery",
        ),
        (
            &format!("{merge} MATCHED AND EXISTS (SELECT 1) THEN DELETE"),
            "a subquery",
        ),
        (
            &format!("{merge} MATCHED THEN UPDATE SET n = (SELECT 1)"),
            "a subquery",
        ),
        (&format!("{merge} MATCHED THEN DO NOTHING"), "DO NOTHING"),
        (
            &format!("{merge} MATCHED THEN UPDATE SET n = 1 WHERE s.v > 1"),
            "UPDATE .. WHERE",
        ),
        (&format!("{merge} NOT MATCHED THEN INSERT ROW"), "INSERT ROW"),
        (
            &format!("{merge} NOT MATCHED THEN INSERT (id) VALUES (t.id)"),
            "no target row",
        ),
        (
            &format!("{merge} NOT MATCHED THEN INSERT (id) VALUES (1, 2)"),
            "2 values for 1 columns",
        ),
        (
            &format!("{merge} NOT MATCHED THEN INSERT (id) VALUES (1), (2)"),
            "one row",
        ),
        (
            &format!("{merge} NOT MATCHED BY SOURCE THEN UPDATE SET *"),
            "UPDATE SET *",
        ),
        (
            &format!("{merge} NOT MATCHED BY SOURCE THEN UPDATE SET n = s.v"),
            "no source row",
        ),
        (
            &format!("{merge} MATCHED THEN UPDATE SET s.v = 1"),
            "s.v cannot be set",
        ),
        (&format!("{merge} MATCHED THEN DELETE RETURNING id"), "RETURNING"),
    ] {
        let mut session = Table::session(None, &StorageOptions::new());
        session.table("t", lab.table.handle().clone(), At::Latest);
        session.table("old", lab.table.handle().clone(), At::Version(-1));
        let source = values("id, v, op", SOURCE).await;
        session
            .register(
                "s",
                Arc::new(MemTable::try_new(source[0].schema(), vec![source]).unwrap()),
            )
            .unwrap();
        let one = Lab {
            table: lab.table.clone(),
            session,
        };
        let message = one.refused(sql).await;
        assert!(message.contains(expected), "{sql}: {message}");
        assert!(!message.contains("__lakehouse"), "{sql}: {message}");
    }
    let old = Table::session(None, &StorageOptions::new()).with_version(At::Version(1));
    let refused = old.execute("DELETE FROM 'memory://x'", &Options::default()).await;
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
}

#[tokio::test]
async fn statements_that_race_are_planned_anew_on_what_the_winner_left() {
    for lab in Lab::each().await {
        let step = "UPDATE t SET n = n + (SELECT count(*) FROM s WHERE op = 'D') WHERE id IN (SELECT 1)";
        let insert = "INSERT INTO t SELECT max(id) + 1, 'race', 0 FROM t";
        let merge = "MERGE INTO t USING (SELECT id, n + 1 AS n FROM t WHERE id = 2) x ON t.id = x.id \
                     WHEN MATCHED THEN UPDATE SET *";
        let all = (0..4).flat_map(|_| [step, insert, merge]).map(|sql| lab.run(sql));
        join_all(all).await;
        let content = lab.content().await;
        assert!(content.contains(&"1|eu|5".to_owned()), "{content:?}");
        assert!(content.contains(&"2|us|6".to_owned()), "{content:?}");
        let ids: BTreeSet<i64> = content.iter().map(|line| id(line)).collect();
        assert_eq!(ids, (1..=10).collect(), "{content:?}");
    }
}

#[tokio::test]
async fn dry_runs_and_idempotency_keys_count_for_statements() {
    for lab in Lab::each().await {
        let before = lab.table.handle().store.list("").await.unwrap();
        let dry = Options {
            dry_run: true,
            ..Options::default()
        };
        let token = Options {
            token: Some("once".into()),
            ..Options::default()
        };
        for sql in [
            "UPDATE t SET n = 0 WHERE id IN (SELECT id FROM s)",
            "DELETE FROM t LIMIT 2",
            "INSERT INTO t SELECT id + 100, region, n FROM t",
            "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE",
        ] {
            let Executed::Changed { table, report } = lab.session.execute(sql, &dry).await.unwrap() else {
                panic!("{sql} gave rows");
            };
            assert!(table == "t" && report.dry_run && !report.committed, "{sql}");
        }
        assert_eq!(lab.table.handle().store.list("").await.unwrap(), before);
        for committed in [true, false] {
            let sql = "UPDATE t SET n = n + 1 WHERE id = (SELECT 1)";
            let Executed::Changed { report, .. } = lab.session.execute(sql, &token).await.unwrap() else {
                panic!("{sql} gave rows");
            };
            assert_eq!(report.committed, committed);
        }
        assert_eq!(lab.content().await[0], "1|eu|2");
    }
}

#[test]
fn qualifiers_become_the_sides_of_a_merge() {
    let sides = Qualifiers::default()
        .rename("t", Some("target"))
        .rename("s", Some("source"));
    let columns = ["i", "s", "list", "info"].map(str::to_owned);
    let implied = sides.implying("source", columns);
    for (given, plain, by_source) in [
        ("t.a = s.b", "target.a = source.b", "target.a = source.b"),
        ("i + j", "i + j", "source.i + j"),
        ("s.s.x", "source.s.x", "source.s.x"),
        ("s", "s", "source.s"),
        ("info.x", "info.x", "source.info.x"),
        (
            "t.list[s.i].x",
            "target.list[source.i].x",
            "target.list[source.i].x",
        ),
        ("list[i + 1]", "list[i + 1]", "source.list[source.i + 1]"),
        (
            "f(i, 's.i') - -i",
            "f(i, 's.i') - -i",
            "f(source.i, 's.i') - -source.i",
        ),
        ("- - -i", "-(-(-i))", "-(-(-source.i))"),
        (
            "CASE WHEN t.\"A b\" THEN 1 ELSE i END",
            "CASE WHEN target.\"A b\" THEN 1 ELSE i END",
            "CASE WHEN target.\"A b\" THEN 1 ELSE source.i END",
        ),
    ] {
        let expr = crate::sql::statement::parser(given)
            .unwrap()
            .parse_expr()
            .unwrap();
        assert_eq!(sides.text(&expr, "ON").unwrap(), plain);
        assert_eq!(implied.text(&expr, "ON").unwrap(), by_source);
    }
}

#[tokio::test]
async fn members_and_elements_of_columns_are_found() {
    for format in FORMATS {
        let text = "id bigint, tags array<int>, info struct<x int>";
        let definition = Definition {
            schema: scan::parse_columns(text).unwrap(),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: format.1,
        };
        let place = format!("memory://sql-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let table = Table::create(&place, format.0, &definition).await.unwrap();
        let mut session = Table::session(None, &StorageOptions::new());
        session.table("t", table.handle().clone(), At::Latest);
        let lab = Lab { table, session };
        lab.run(
            "INSERT INTO t VALUES (1, make_array(1, 2), named_struct('x', 10)), \
             (2, make_array(2), named_struct('x', 20)), (3, NULL, NULL)",
        )
        .await;
        lab.run("DELETE FROM t AS a WHERE a.tags[1] = 2 AND a.info.x = 20")
            .await;
        lab.run(
            "MERGE INTO t AS a USING (SELECT id, make_array(id + 6) AS tags FROM t) AS b ON a.id = b.id \
             WHEN MATCHED AND a.info.x = 10 AND b.tags[1] > a.tags[2] THEN UPDATE SET tags = b.tags",
        )
        .await;
        lab.run("UPDATE t SET info = named_struct('x', t.tags[1]) WHERE id IN (SELECT 1)")
            .await;
        let found = lab.query("SELECT id, tags[1], info['x'] FROM t").await;
        assert_eq!(lines(&found), ["1|7|7", "3||"]);
    }
}

#[tokio::test]
async fn updated_rows_keep_their_ids() {
    let lab = Lab::new(FORMATS[1]).await;
    let ids = async || -> Vec<(i64, Option<i64>)> {
        let snapshot = lab.table.snapshot(&At::Latest).await.unwrap();
        let table =
            SnapshotTable::new(lab.table.handle().clone(), snapshot).with_metadata_columns(MetadataColumns {
                lineage: true,
                ..MetadataColumns::default()
            });
        let frame = scan::session(None).read_table(Arc::new(table)).unwrap();
        let mut pairs = Vec::new();
        for batch in frame.collect().await.unwrap() {
            let ids = batch["id"].as_primitive::<Int64Type>();
            let rows: &Int64Array = batch["_row_id"].as_primitive();
            pairs.extend(ids.values().iter().copied().zip(rows.iter()));
        }
        pairs.sort_unstable();
        pairs
    };
    let before = ids().await;
    assert!(before.iter().all(|(_, row)| row.is_some()));
    lab.run("UPDATE t SET n = s.v, region = 'z' FROM s WHERE s.id = t.id")
        .await;
    lab.run("DELETE FROM t WHERE id IN (SELECT 9)").await;
    assert_eq!(ids().await, before);
}

#[tokio::test]
async fn conditions_on_the_table_alone_skip_files() {
    for lab in Lab::each().await {
        let report = lab
            .run("DELETE FROM t WHERE id IN (SELECT id FROM s) AND region = 'us' AND t.id > 3")
            .await;
        assert_eq!(report.metric("num_target_files_scanned"), 1, "{report:?}");
        let report = lab
            .run("UPDATE t SET n = s.v FROM s WHERE s.id = t.id AND (t.region = 'eu') AND t.id < 4")
            .await;
        assert_eq!(report.metric("num_target_files_scanned"), 1, "{report:?}");
    }
}

#[tokio::test]
async fn alter_table_changes_columns_and_properties() {
    for lab in Lab::each().await {
        let report = lab
            .run(
                "ALTER TABLE t RENAME COLUMN n TO m, ADD COLUMN n double AFTER id, ADD COLUMN note text COMMENT 'free', \
                 ALTER COLUMN m SET DATA TYPE bigint",
            )
            .await;
        assert_eq!(report.operation, "alter");
        let rows = lines(&lab.query("SELECT * FROM t WHERE m = 2").await);
        assert_eq!(rows, ["2||us|2|"]);
        lab.run("ALTER TABLE t DROP COLUMN note").await;
        lab.run("ALTER TABLE t SET TBLPROPERTIES ('owner' = 'me')").await;
        let refused = lab.refused("ALTER TABLE t ALTER COLUMN m SET NOT NULL").await;
        assert!(refused.contains("required"), "{refused}");
        if lab.table.snapshot(&At::Latest).await.unwrap().features != ["v2"] {
            lab.run("ALTER TABLE t ALTER COLUMN m SET DEFAULT 3").await;
            lab.run("INSERT INTO t (id) VALUES (9)").await;
            assert_eq!(lines(&lab.query("SELECT m FROM t WHERE id = 9").await), ["3"]);
            lab.run("ALTER TABLE t ALTER COLUMN m DROP DEFAULT").await;
            lab.run("DELETE FROM t WHERE id = 9").await;
        }
        lab.run("ALTER TABLE t ALTER COLUMN id DROP NOT NULL").await;
        let snapshot = lab.table.snapshot(&At::Latest).await.unwrap();
        let names: Vec<&str> = snapshot
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        assert_eq!(names, ["id", "n", "region", "m"]);
        assert_eq!(snapshot.properties.get("owner").map(String::as_str), Some("me"));
        assert!(snapshot.schema.field(0).is_nullable());
        for (sql, expected) in [
            (
                "ALTER TABLE t ADD COLUMN IF NOT EXISTS n int",
                "cannot run in ALTER TABLE",
            ),
            ("ALTER TABLE t DROP COLUMN nosuch", "there is no column nosuch"),
            ("ALTER TABLE t RENAME TO u", "cannot run in ALTER TABLE"),
            (
                "ALTER TABLE t ALTER COLUMN m SET DEFAULT 'x'",
                "cannot be the default of column m",
            ),
            ("ALTER TABLE IF EXISTS t DROP COLUMN m", "IF EXISTS"),
            (
                "ALTER TABLE s ADD COLUMN x int",
                "not a table that can be changed",
            ),
        ] {
            let refused = lab.refused(sql).await;
            assert!(refused.contains(expected), "{sql}: {refused}");
        }
    }
}
