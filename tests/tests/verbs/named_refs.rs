//! `t.branch_x` and `t.tag_x` in SQL: read, written, and refused where they are not understood.

use lakehouse_core::model::{At, RefKind};
use lakehouse_core::operations::SetRef;
use lakehouse_core::sql::{Executed, Session};
use lakehouse_core::store::{StorageOptions, Store};
use lakehouse_core::{Error, Options, Report, Table, TableFormat};

use super::{FORMATS, append, lines, table_in};

/// A table `t` on disk, a branch `audit` that has a row more, a tag `v1` that has one less.
struct Lab {
    folder: tempfile::TempDir,
    table: Table,
    session: Session,
}

impl Lab {
    async fn new(format: (TableFormat, Option<u8>)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let table = Self::made(&folder, "t", format).await;
        append(&table, "(1, 'eu', 1)").await;
        if format.0 == TableFormat::Iceberg {
            make(&table, RefKind::Tag, "v1").await;
        }
        append(&table, "(2, 'us', 2)").await;
        if format.0 == TableFormat::Iceberg {
            make(&table, RefKind::Branch, "audit").await;
            let options = on("audit");
            let rows = super::rows("id, region, n", "(3, 'eu', 3)").await;
            table.append(rows, &options).await.unwrap();
        }
        let mut session = Table::session(None, &StorageOptions::default());
        session.table("t", table.handle().clone(), At::Latest);
        session.name("old", table.location(), At::Version(-1));
        Self {
            folder,
            table,
            session,
        }
    }

    async fn iceberg() -> [Self; 2] {
        [Self::new(FORMATS[0]).await, Self::new(FORMATS[1]).await]
    }

    async fn made(folder: &tempfile::TempDir, name: &str, format: (TableFormat, Option<u8>)) -> Table {
        let path = folder.path().join(name).display().to_string();
        table_in(Store::open(&path).unwrap(), format, "").await
    }

    /// A path below the folder, in quotes.
    fn path(&self, name: &str) -> String {
        format!("'{}/{name}'", self.folder.path().display())
    }

    async fn try_read(&self, sql: &str) -> Result<Vec<String>, Error> {
        let frame = self.session.query(sql).await?;
        Ok(lines(&frame.collect().await?))
    }

    async fn read(&self, sql: &str) -> Vec<String> {
        self.try_read(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn ids(&self, from: &str) -> Vec<String> {
        self.read(&format!("SELECT id FROM {from}")).await
    }

    async fn run_with(&self, sql: &str, options: &Options) -> Result<Report, Error> {
        match self.session.execute(sql, options).await? {
            Executed::Changed { report, .. } => Ok(*report),
            Executed::Rows(_) => panic!("{sql} gave rows"),
        }
    }

    async fn run(&self, sql: &str) -> Report {
        let done = self.run_with(sql, &Options::default()).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The error and hint of a statement, which changed nothing.
    async fn refused(&self, sql: &str, options: &Options) -> String {
        let before = self.table.snapshot(&At::Latest).await.unwrap().state;
        let done = match Session::changes(sql) {
            Ok(true) => self.run_with(sql, options).await.map(|_| ()),
            Ok(false) => self.try_read(sql).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let error = match done {
            Ok(()) => panic!("{sql} ran"),
            Err(error) => error,
        };
        let after = self.table.snapshot(&At::Latest).await.unwrap().state;
        assert_eq!(before, after, "{sql} changed the table");
        format!("{error}; {}", error.hint().unwrap_or_default())
    }
}

fn on(branch: &str) -> Options {
    Options {
        branch: Some(branch.to_owned()),
        ..Options::default()
    }
}

async fn make(table: &Table, kind: RefKind, name: &str) {
    let wanted = SetRef::new(kind, name);
    table.set_ref(&wanted, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_branch_or_tag_in_a_name_is_what_is_read() {
    for lab in Lab::iceberg().await {
        make(&lab.table, RefKind::Tag, "v1.2/rc").await;
        for (from, expected) in [
            ("t", &["1", "2"][..]),
            ("t.branch_audit", &["1", "2", "3"]),
            ("t.branch_audit AS x", &["1", "2", "3"]),
            ("\"t\".\"branch_audit\" x", &["1", "2", "3"]),
            ("\"t.branch_audit\"", &["1", "2", "3"]),
            ("t.branch_main", &["1", "2"]),
            ("t.tag_v1", &["1"]),
            ("t.\"tag_v1.2/rc\"", &["1", "2"]),
            // The version that a name stands for does not matter to its branches.
            ("old", &["1"]),
            ("old.branch_audit", &["1", "2", "3"]),
            (&lab.path("t"), &["1", "2"]),
            (&lab.path("t.branch_audit"), &["1", "2", "3"]),
            (&lab.path("t.tag_v1"), &["1"]),
            (&lab.path("t.tag_v1.2/rc"), &["1", "2"]),
            (&lab.path("t.branch_audit").replace('\'', "\""), &["1", "2", "3"]),
        ] {
            assert_eq!(lab.ids(from).await, expected, "{from}");
        }
        let sql = "SELECT a.id FROM t.branch_audit a LEFT JOIN t ON a.id = t.id WHERE t.id IS NULL";
        assert_eq!(lab.read(sql).await, ["3"]);
        let sql = "SELECT count(*) FROM t.branch_audit WHERE branch_audit.id IN (SELECT id FROM t.tag_v1)";
        assert_eq!(lab.read(sql).await, ["1"]);
        let sql = "WITH x AS (SELECT * FROM t.branch_audit) SELECT max(id) FROM x";
        assert_eq!(lab.read(sql).await, ["3"]);
    }
}

#[tokio::test]
async fn the_ways_to_name_a_version_mean_the_same_in_both_formats() {
    for format in FORMATS {
        let lab = Lab::new(format).await;
        let history = lab.table.history(None).await.unwrap();
        let (newest, first) = (history[0].version, history[1].version);
        let path = lab.path("t");
        for (clause, expected) in [
            (format!("VERSION AS OF {first}"), &["1"][..]),
            (format!("FOR VERSION AS OF {first}"), &["1"]),
            (format!("VERSION AS OF '{first}'"), &["1"]),
            (format!("FOR SYSTEM_VERSION AS OF {newest}"), &["1", "2"]),
            ("VERSION AS OF -1".to_owned(), &["1"]),
            ("FOR TIMESTAMP AS OF '2199-01-01'".to_owned(), &["1", "2"]),
            ("TIMESTAMP AS OF '2199-01-01 00:00:00'".to_owned(), &["1", "2"]),
            (
                "FOR SYSTEM_TIME AS OF TIMESTAMP '2199-01-01'".to_owned(),
                &["1", "2"],
            ),
        ] {
            for table in ["t", &path] {
                assert_eq!(lab.ids(&format!("{table} {clause}")).await, expected, "{clause}");
            }
        }
        if format.0 == TableFormat::Iceberg {
            for (name, expected) in [("v1", 1), ("audit", 3), ("main", 2)] {
                let found = lab.ids(&format!("t FOR VERSION AS OF '{name}'")).await;
                assert_eq!(found.len(), expected, "{name}");
            }
        }
        for (clause, expected) in [
            ("VERSION AS OF 'nosuch'", "nosuch"),
            ("FOR VERSION AS OF 123456789", "123456789"),
            ("TIMESTAMP AS OF '1970-01-02'", "before"),
        ] {
            let refused = lab
                .refused(&format!("SELECT * FROM t {clause}"), &Options::default())
                .await;
            assert!(refused.contains(expected), "{clause}: {refused}");
        }
    }
}

#[tokio::test]
async fn every_statement_writes_to_the_branch_that_its_table_names() {
    for lab in Lab::iceberg().await {
        let newest = lab.table.snapshot(&At::Latest).await.unwrap().version;
        let path = lab.path("t.branch_audit");
        for sql in [
            "INSERT INTO t.branch_audit VALUES (4, 'eu', 4)".to_owned(),
            format!("INSERT INTO {path} (id, n) SELECT id + 4, n FROM t.branch_audit WHERE id = 1"),
            "UPDATE t.branch_audit SET n = 40 WHERE id = 4".to_owned(),
            format!("UPDATE {path} AS x SET n = (SELECT max(n) FROM t.branch_audit) WHERE x.id = 5"),
            "DELETE FROM t.branch_audit WHERE id = 2".to_owned(),
            format!("DELETE FROM {path} WHERE n = (SELECT min(n) FROM {path})"),
            "MERGE INTO t.branch_audit AS x USING (VALUES (3, 33), (9, 99)) AS s(id, n) ON x.id = s.id \
             WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, s.n)"
                .to_owned(),
        ] {
            assert!(lab.run(&sql).await.committed, "{sql}");
        }
        assert_eq!(
            lab.read("SELECT id, n FROM t.branch_audit").await,
            ["3|33", "4|40", "5|40", "9|99"]
        );
        assert_eq!(lab.ids("t").await, ["1", "2"]);
        assert_eq!(lab.table.snapshot(&At::Latest).await.unwrap().version, newest);
        // The same branch said twice, and main by its name.
        let sql = "DELETE FROM t.branch_audit WHERE id = 9";
        assert!(lab.run_with(sql, &on("audit")).await.unwrap().committed);
        lab.run("INSERT INTO t.branch_main VALUES (7, NULL, 7)").await;
        assert_eq!(lab.ids("t").await, ["1", "2", "7"]);
        lab.run("INSERT OVERWRITE t.branch_audit SELECT * FROM t").await;
        assert_eq!(lab.ids("t.branch_audit").await, ["1", "2", "7"]);
        lab.run("TRUNCATE TABLE t.branch_audit").await;
        assert_eq!(lab.ids("t.branch_audit").await, Vec::<String>::new());
        assert_eq!(lab.ids("t").await, ["1", "2", "7"]);
    }
}

#[tokio::test]
async fn a_name_without_a_branch_means_main_beside_one_that_has_one() {
    for lab in Lab::iceberg().await {
        // Main lacks row 3: on the branch, it is the only one that goes.
        let sql = "DELETE FROM t.branch_audit WHERE id NOT IN (SELECT id FROM t)";
        lab.run(sql).await;
        assert_eq!(lab.ids("t.branch_audit").await, ["1", "2"]);
        let sql =
            "MERGE INTO t USING t.branch_audit AS s ON t.id = s.id AND s.id = 1 WHEN MATCHED THEN DELETE";
        lab.run(sql).await;
        assert_eq!(lab.ids("t").await, ["2"]);
        // With the branch as an option, names without one mean it, as ever.
        let sql = "INSERT INTO t SELECT id + 10, region, n FROM t";
        lab.run_with(sql, &on("audit")).await.unwrap();
        assert_eq!(lab.ids("t.branch_audit").await, ["1", "11", "12", "2"]);
        // And the branch by its name is the one that is written.
        let sql = "DELETE FROM t WHERE id = (SELECT max(id) FROM t.branch_audit)";
        lab.run_with(sql, &on("audit")).await.unwrap();
        assert_eq!(lab.ids("t.branch_audit").await, ["1", "11", "2"]);
    }
}

#[tokio::test]
async fn what_is_not_understood_is_an_error_and_never_the_table() {
    for lab in Lab::iceberg().await {
        let file = lab.folder.path().join("rows.csv");
        std::fs::write(&file, "id\n1\n").unwrap();
        let values = arrow::array::RecordBatch::new_empty(super::schema());
        let memory = datafusion::datasource::MemTable::try_new(super::schema(), vec![vec![values]]).unwrap();
        lab.session.register("m", std::sync::Arc::new(memory)).unwrap();
        for (name, expected) in [
            ("t.branch_nosuch", "it has audit, main"),
            ("t.tag_nosuch", "it has v1"),
            ("t.branch_v1", "\"v1\" is a tag, not a branch"),
            ("t.tag_audit", "write branch_audit"),
            ("t.branch_", "branch \"\""),
            ("t.tag_", "tag \"\""),
            ("t.branch_audit.x", "branch \"audit.x\""),
            ("t.branch_audit.tag_v1", "branch \"audit.tag_v1\""),
            ("t.branch", "not found"),
            ("t.audit", "not found"),
            ("t.BRANCH_audit", "not found"),
            ("t.branchaudit", "not found"),
            ("t.branch-audit", "cannot be understood"),
            ("t.snapshot_id_1", "not found"),
            ("t.at_timestamp_1", "not found"),
            ("branch_audit", "not found"),
            ("x.branch_audit", "not found"),
            ("m.branch_audit", "has no tags and branches"),
            ("t.branch_audit VERSION AS OF 1", "names a branch and a version"),
            ("t.tag_v1 FOR VERSION AS OF 'v1'", "names a tag and a version"),
            (
                "t.branch_audit TIMESTAMP AS OF '2199-01-01'",
                "names a branch and a version",
            ),
            (
                "t.branch_audit FOR SYSTEM_TIME AS OF '2199-01-01' AS x",
                "names a branch and a version",
            ),
            ("t VERSION AS OF 1.branch_audit", ""),
            (&lab.path("t.branch_nosuch"), "it has audit, main"),
            (&lab.path("t.branch_audit/"), "branch \"audit/\""),
            (&lab.path("nosuch.branch_audit"), "not found"),
            (
                &lab.path("rows.csv.branch_audit"),
                "which has no tags and branches",
            ),
            ("'.branch_audit'", "not found"),
            ("\"t.branch_nosuch\"", "it has audit, main"),
        ] {
            let refused = lab
                .refused(&format!("SELECT * FROM {name}"), &Options::default())
                .await;
            assert!(refused.contains(expected), "{name}: {refused}");
            let plain = [" AS OF", " VERSION", " TIMESTAMP"]
                .iter()
                .all(|word| !name.contains(word));
            if plain {
                let sql = format!("DELETE FROM {name} WHERE id = 1");
                lab.refused(&sql, &Options::default()).await;
            }
        }
        let audit = on("audit");
        let none = Options::default();
        for (sql, options, expected) in [
            (
                "INSERT INTO t.tag_v1 VALUES (9, 'x', 9)",
                &none,
                "is a tag, which stays as it is",
            ),
            ("UPDATE t.tag_v1 SET n = 0", &none, "is a tag"),
            ("DELETE FROM t.tag_v1", &none, "is a tag"),
            ("TRUNCATE TABLE t.tag_v1", &none, "is a tag"),
            (
                "MERGE INTO t.tag_v1 AS x USING t AS s ON x.id = s.id WHEN MATCHED THEN DELETE",
                &none,
                "is a tag",
            ),
            (
                "INSERT INTO t.branch_main VALUES (9, 'x', 9)",
                &audit,
                "names one branch",
            ),
            (
                "INSERT INTO t.branch_audit VERSION AS OF 1 VALUES (9, 'x', 9)",
                &none,
                "cannot be changed",
            ),
            ("DELETE FROM t VERSION AS OF 1", &none, "cannot be changed"),
            (
                "UPDATE t FOR VERSION AS OF 'audit' SET n = 0",
                &none,
                "cannot be changed",
            ),
            (
                "ALTER TABLE t.branch_audit ADD COLUMN x INT",
                &none,
                "all of them have the table's columns",
            ),
            (
                "INSERT INTO m.branch_audit VALUES (9, 'x', 9)",
                &none,
                "has no tags and branches",
            ),
        ] {
            let refused = lab.refused(sql, options).await;
            assert!(refused.contains(expected), "{sql}: {refused}");
        }
        assert_eq!(lab.ids("t.branch_audit").await, ["1", "2", "3"]);
    }
}

#[tokio::test]
async fn a_delta_table_says_that_it_has_no_branches() {
    let lab = Lab::new(FORMATS[2]).await;
    let path = lab.path("t.branch_audit");
    for sql in [
        "SELECT * FROM t.branch_audit".to_owned(),
        "SELECT * FROM t.tag_v1".to_owned(),
        "SELECT * FROM t.branch_main".to_owned(),
        format!("SELECT * FROM {path}"),
        "INSERT INTO t.branch_audit VALUES (9, 'x', 9)".to_owned(),
        format!("DELETE FROM {path}"),
        "UPDATE t.branch_audit SET n = 0".to_owned(),
        "MERGE INTO t.branch_main AS x USING t AS s ON x.id = s.id WHEN MATCHED THEN DELETE".to_owned(),
    ] {
        let refused = lab.refused(&sql, &Options::default()).await;
        assert!(
            refused.contains("this delta table has no tags and branches"),
            "{sql}: {refused}"
        );
    }
}

#[tokio::test]
async fn a_table_that_is_really_called_so_comes_first() {
    for format in FORMATS {
        let mut lab = Lab::new(format).await;
        let real = Lab::made(&lab.folder, "t.branch_audit", format).await;
        append(&real, "(100, 'x', 1)").await;
        let path = lab.path("t.branch_audit");
        assert_eq!(lab.ids(&path).await, ["100"]);
        lab.run(&format!("INSERT INTO {path} VALUES (101, 'x', 1)")).await;
        assert_eq!(lab.ids(&path).await, ["100", "101"]);
        assert_eq!(lab.ids(&format!("{path} VERSION AS OF -1")).await, ["100"]);
        assert_eq!(lab.ids("t").await, ["1", "2"]);
        // Its own branches.
        if format.0 == TableFormat::Iceberg {
            make(&real, RefKind::Branch, "b").await;
            lab.run(&format!(
                "DELETE FROM {} WHERE id = 100",
                lab.path("t.branch_audit.branch_b")
            ))
            .await;
            assert_eq!(lab.ids(&lab.path("t.branch_audit.branch_b")).await, ["101"]);
            assert_eq!(
                lab.ids("t.branch_audit").await,
                ["1", "2", "3"],
                "the name, not the path"
            );
        }
        lab.session.name("t.branch_audit", real.location(), At::Latest);
        assert_eq!(lab.ids("t.branch_audit").await, ["100", "101"]);
        // A folder on the way that is called so.
        let inner = Lab::made(&lab.folder, "x.branch_y/t", format).await;
        append(&inner, "(7, 'x', 7)").await;
        assert_eq!(lab.ids(&lab.path("x.branch_y/t")).await, ["7"]);
    }
}
