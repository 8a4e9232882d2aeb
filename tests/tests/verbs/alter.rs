//! Tables that change: columns, partitioning, properties, format version.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, ColumnPath, Definition, Place};
use lakehouse_core::operations::{Alter, Strategy};
use lakehouse_core::{Compact, Error, Merge, Options, Report, Result, Rows, Table, TableFormat};

use super::{FORMATS, append, content, lines, query, rows, table};
use crate::support::memory;

const ROWS: &str = "(1, 'eu', 10), (2, 'us', 20)";
const ICEBERG: [(TableFormat, Option<u8>); 2] =
    [(TableFormat::Iceberg, Some(2)), (TableFormat::Iceberg, Some(3))];

fn path(text: &str) -> ColumnPath {
    text.parse().unwrap()
}

async fn filled(format: (TableFormat, Option<u8>), partitioning: &str) -> Table {
    let table = table(format, partitioning).await;
    append(&table, ROWS).await;
    table
}

async fn alter(table: &Table, alter: Alter) -> Result<Report> {
    table.alter(&alter, &Options::default()).await
}

async fn altered(table: &Table, change: Alter) -> Report {
    let report = alter(table, change).await.unwrap();
    assert!(report.committed);
    report
}

async fn refused(table: &Table, change: Alter) -> String {
    let before = table.snapshot(&At::Latest).await.unwrap();
    let error = alter(table, change).await.unwrap_err();
    let after = table.snapshot(&At::Latest).await.unwrap();
    assert_eq!(
        before.state, after.state,
        "a refused change leaves the table alone"
    );
    format!("{error} {}", error.hint().unwrap_or_default())
}

async fn select_at(table: &Table, at: &At, sql: &str) -> Vec<String> {
    let ctx = SessionContext::new();
    ctx.register_table("t", table.provider(at).await.unwrap())
        .unwrap();
    lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap())
}

async fn select(table: &Table, sql: &str) -> Vec<String> {
    select_at(table, &At::Latest, sql).await
}

async fn names(table: &Table, at: &At) -> Vec<String> {
    let snapshot = table.snapshot(at).await.unwrap();
    snapshot
        .schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

async fn of(sql: &str) -> Rows {
    let (schema, batches) = query(sql).await;
    Rows::batches(schema, batches)
}

async fn add_rows(table: &Table, sql: &str) {
    table.append(of(sql).await, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn columns_are_added_renamed_moved_and_dropped_in_one_commit_and_old_versions_keep_theirs() {
    for format in FORMATS {
        let table = filled(format, "").await;
        let before = table.snapshot(&At::Latest).await.unwrap();
        let change = Alter::default()
            .rename_column(path("n"), "amount")
            .drop_column(path("region"))
            .add_column("tip double comment 'in EUR'")
            .unwrap()
            .move_column(path("tip"), Place::First)
            .comment(path("id"), Some("the key"));
        let report = altered(&table, change).await;
        assert_eq!(report.operation, "alter");
        for expected in [
            "renamed n to amount",
            "dropped region",
            "added tip",
            "moved tip to the front",
        ] {
            assert!(
                report.changes.iter().any(|change| change == expected),
                "{:?}",
                report.changes
            );
        }
        assert_eq!(names(&table, &At::Latest).await, ["tip", "id", "amount"]);
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        assert_eq!(snapshot.schema.field(0).metadata()["comment"], "in EUR");
        assert_eq!(snapshot.schema.field(1).metadata()["comment"], "the key");
        assert_eq!(content(&table).await, ["|1|10", "|2|20"]);
        add_rows(&table, "SELECT 3 AS id, 30 AS amount, 0.5 AS tip").await;
        assert_eq!(content(&table).await, ["0.5|3|30", "|1|10", "|2|20"]);
        if format.0 == TableFormat::Delta {
            // An Iceberg table makes no version of it.
            let old = At::Version(before.version);
            assert_eq!(names(&table, &old).await, ["id", "region", "n"]);
            assert_eq!(
                select_at(&table, &old, "SELECT * FROM t").await,
                ["1|eu|10", "2|us|20"]
            );
        }
    }
}

#[tokio::test]
async fn a_new_column_with_the_name_of_an_old_one_does_not_get_its_values() {
    for format in FORMATS {
        let table = filled(format, "").await;
        altered(
            &table,
            Alter::default()
                .rename_column(path("n"), "was_n")
                .add_column("n int")
                .unwrap(),
        )
        .await;
        assert_eq!(
            select(&table, "SELECT id, was_n, n FROM t").await,
            ["1|10|", "2|20|"]
        );
        altered(&table, Alter::default().drop_column(path("was_n"))).await;
        altered(&table, Alter::default().add_column("was_n int").unwrap()).await;
        assert_eq!(select(&table, "SELECT id, was_n, n FROM t").await, ["1||", "2||"]);
        add_rows(&table, "SELECT 3 AS id, 7 AS n, 8 AS was_n").await;
        assert_eq!(
            select(&table, "SELECT id, was_n, n FROM t WHERE n = 7 OR was_n IS NULL").await,
            ["1||", "2||", "3|8|7"]
        );
        assert!(
            select(&table, "SELECT id FROM t WHERE was_n = 10 OR n = 10")
                .await
                .is_empty()
        );
        let rewriting = Options {
            strategy: Strategy::CopyOnWrite,
            ..Options::default()
        };
        table.delete("id = 1", &rewriting).await.unwrap();
        table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(
            select(&table, "SELECT id, was_n, n FROM t").await,
            ["2||", "3|8|7"]
        );
    }
}

#[tokio::test]
async fn every_verb_works_on_a_table_of_which_columns_were_renamed_dropped_and_widened() {
    for format in FORMATS {
        for strategy in [Strategy::MergeOnRead, Strategy::CopyOnWrite] {
            let table = table(format, "region").await;
            append(
                &table,
                "(1, 'eu', 10), (2, 'us', 20), (3, 'us', 30), (4, NULL, 40)",
            )
            .await;
            let change = Alter::default()
                .widen("n bigint")
                .unwrap()
                .rename_column(path("n"), "amount")
                .rename_column(path("region"), "area")
                .add_column("note text")
                .unwrap();
            altered(&table, change).await;
            let options = Options {
                strategy,
                ..Options::default()
            };
            let feed = of(
                "SELECT * FROM (VALUES (2, 'us', 5000000000, 'big'), (9, 'eu', 90, NULL)) AS t(id, area, amount, note)",
            );
            let merge = Merge::on("id")
                .when_matched_update_all()
                .when_not_matched_insert_all();
            table.merge(feed.await, &merge, &options).await.unwrap();
            table
                .update("note = 'seen'", Some("area = 'us'"), &options)
                .await
                .unwrap();
            table.delete("amount = 40", &options).await.unwrap();
            let expected = ["1|eu|10|", "2|us|5000000000|seen", "3|us|30|seen", "9|eu|90|"];
            assert_eq!(content(&table).await, expected, "{format:?} {strategy:?}");
            table.compact(&Compact::default(), &options).await.unwrap();
            assert_eq!(content(&table).await, expected);
            assert_eq!(
                select(&table, "SELECT id FROM t WHERE area = 'eu' AND amount < 50").await,
                ["1"]
            );
            altered(&table, Alter::default().drop_column(path("note"))).await;
            let kept = ["1|eu|10", "2|us|5000000000", "3|us|30", "9|eu|90"];
            assert_eq!(content(&table).await, kept);
            table
                .overwrite(
                    of("SELECT 1 AS id, 'eu' AS area, 11 AS amount").await,
                    Some("id = 1"),
                    &options,
                )
                .await
                .unwrap();
            assert_eq!(content(&table).await[0], "1|eu|11");
        }
    }
}

#[tokio::test]
async fn fields_inside_structs_lists_and_maps_change_too() {
    let stop = DataType::Struct(
        vec![
            Field::new("at", DataType::Int32, true),
            Field::new("name", DataType::Utf8, true),
        ]
        .into(),
    );
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("s", stop.clone(), true),
        Field::new(
            "l",
            DataType::List(Arc::new(Field::new("element", stop, true))),
            true,
        ),
    ]));
    for format in FORMATS {
        let definition = Definition {
            schema: Arc::clone(&schema),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("nested"), format.0, &definition)
            .await
            .unwrap();
        add_rows(&table, "SELECT 1 AS id, named_struct('at', 5, 'name', 'x') AS s, [named_struct('at', 6, 'name', 'y')] AS l").await;
        let change = Alter::default()
            .widen("s.at bigint")
            .unwrap()
            .rename_column(path("s.name"), "label")
            .rename_column(path("l.element.at"), "minute")
            .drop_column(path("l.element.name"))
            .add_column("s.zone text")
            .unwrap()
            .add_column("l.element.name text")
            .unwrap()
            .move_column(path("s.zone"), Place::First);
        altered(&table, change).await;
        add_rows(
            &table,
            "SELECT 2 AS id, named_struct('zone', 'z', 'at', 7000000000, 'label', 'w') AS s, \
                          [named_struct('minute', 8, 'name', 'new')] AS l",
        )
        .await;
        let sql =
            "SELECT id, s.zone, s.at, s.label, get_field(l[1], 'minute'), get_field(l[1], 'name') FROM t";
        assert_eq!(
            select(&table, sql).await,
            ["1||5|x|6|", "2|z|7000000000|w|8|new"],
            "{format:?}"
        );
        table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(
            select(&table, sql).await,
            ["1||5|x|6|", "2|z|7000000000|w|8|new"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_column_becomes_required_only_when_no_row_lacks_it_and_stays_so() {
    for format in FORMATS {
        let table = filled(format, "").await;
        append(&table, "(3, NULL, 30)").await;
        let message = refused(&table, Alter::default().nullable(path("region"), false)).await;
        assert!(message.contains("| 3 "), "the row is shown: {message}");
        table.delete("id = 3", &Options::default()).await.unwrap();
        altered(&table, Alter::default().nullable(path("region"), false)).await;
        let bad = of("SELECT 4 AS id, CAST(NULL AS text) AS region, 1 AS n").await;
        let error = table.append(bad, &Options::default()).await.unwrap_err();
        assert!(error.to_string().contains("region"), "{error}");
        // The version with the NULL in it does not come back as if nothing had changed.
        let back = if format.0 == TableFormat::Delta { 2 } else { 1 };
        let with_null = At::Version(table.history(None).await.unwrap()[back].version);
        let before = table.snapshot(&At::Latest).await.unwrap().state;
        table.restore(&with_null, &Options::default()).await.unwrap_err();
        assert_eq!(table.snapshot(&At::Latest).await.unwrap().state, before);
        altered(&table, Alter::default().nullable(path("region"), true)).await;
        append(&table, "(5, NULL, 1)").await;
        assert_eq!(content(&table).await.len(), 3);
        table.restore(&with_null, &Options::default()).await.unwrap();
        assert_eq!(content(&table).await, ["1|eu|10", "2|us|20", "3||30"]);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name_and_changes_nothing() {
    for format in FORMATS {
        let table = filled(format, "region").await;
        for (change, expected) in [
            (Alter::default(), "nothing is to be changed"),
            (
                Alter::default().drop_column(path("nosuch")),
                "those there are id, region, n",
            ),
            (
                Alter::default().add_column("N text").unwrap(),
                "there is a column n",
            ),
            (
                Alter::default().add_column("x int not null").unwrap(),
                "rows that are there have no value",
            ),
            (Alter::default().widen("id int").unwrap(), "id"),
            (Alter::default().widen("n text").unwrap(), "n"),
            (Alter::default().drop_column(path("region")), "partitioned by it"),
            (Alter::default().rename_column(path("n"), "_file"), "reserved"),
            (
                Alter::default().property("lakehouse.x", Some("1")),
                "kept by the table itself",
            ),
        ] {
            let message = refused(&table, change).await;
            assert!(message.contains(expected), "{format:?} {expected}: {message}");
        }
        let nothing = alter(&table, Alter::default().nullable(path("n"), true))
            .await
            .unwrap();
        assert!(!nothing.committed, "what is so already commits nothing");
    }
    let delta = filled((TableFormat::Delta, None), "bucket(4, id)").await;
    for (change, expected) in [
        (
            Alter::default().partition_by("region").unwrap(),
            "partitioning of a Delta table",
        ),
        (Alter::default().sort_by("id").unwrap(), "no sort order"),
        (Alter::default().identifier(vec!["id".into()]), "no identifier"),
        (Alter::default().format_version(3), "no format version"),
        (
            Alter::default().rename_column(path("id"), "key"),
            "computed from it",
        ),
        (
            Alter::default().property("delta.columnMapping.mode", Some("id")),
            "column mapping cannot go",
        ),
    ] {
        let message = refused(&delta, change).await;
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[tokio::test]
async fn properties_are_set_and_taken_away_and_switch_features_on() {
    for format in FORMATS {
        let table = filled(format, "").await;
        altered(
            &table,
            Alter::default()
                .property("owner", Some("me"))
                .property("x", Some("1")),
        )
        .await;
        altered(&table, Alter::default().property("x", None)).await;
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        assert_eq!(snapshot.properties.get("owner").map(String::as_str), Some("me"));
        assert!(!snapshot.properties.contains_key("x"));
        let again = alter(&table, Alter::default().property("owner", Some("me")))
            .await
            .unwrap();
        assert!(!again.committed);
    }
    let delta = filled((TableFormat::Delta, None), "").await;
    let report = altered(
        &delta,
        Alter::default()
            .rename_column(path("n"), "m")
            .widen("m bigint")
            .unwrap(),
    )
    .await;
    let needed = report.changes.last().unwrap();
    assert!(
        needed.contains("columnMapping") && needed.contains("typeWidening"),
        "{needed}"
    );
    altered(
        &delta,
        Alter::default().property("delta.appendOnly", Some("true")),
    )
    .await;
    let error = delta.delete("id = 1", &Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("appendOnly"), "{error}");
}

#[tokio::test]
async fn partitioning_changes_and_every_verb_works_on_files_of_several_specs() {
    for format in ICEBERG {
        for strategy in [Strategy::MergeOnRead, Strategy::CopyOnWrite] {
            let table = filled(format, "").await;
            altered(&table, Alter::default().partition_by("region").unwrap()).await;
            append(&table, "(3, 'eu', 30), (4, 'us', 40)").await;
            altered(
                &table,
                Alter::default().partition_by("bucket(4, id), region").unwrap(),
            )
            .await;
            append(&table, "(5, 'eu', 50), (6, NULL, 60)").await;
            altered(&table, Alter::default().partition_by("bucket(8, id)").unwrap()).await;
            append(&table, "(7, 'eu', 70)").await;
            let specs = table.snapshot(&At::Latest).await.unwrap();
            assert_eq!(specs.specs.len(), 4);
            let fields: Vec<_> = specs.specs.values().flatten().collect();
            let region: Vec<i32> = fields
                .iter()
                .filter(|f| f.source == "region")
                .map(|f| f.field_id)
                .collect();
            assert!(
                region.windows(2).all(|pair| pair[0] == pair[1]),
                "the same field keeps its id"
            );
            let mut buckets: Vec<&str> = fields
                .iter()
                .filter(|f| f.source == "id")
                .map(|f| f.name.as_str())
                .collect();
            buckets.dedup();
            assert_eq!(buckets, ["id_bucket", "id_bucket_8"]);

            let options = Options {
                strategy,
                ..Options::default()
            };
            let feed = rows(
                "id, region, n",
                "(1, 'us', 11), (4, 'us', 41), (6, 'eu', 61), (8, 'ap', 80)",
            )
            .await;
            let merge = Merge::on("id")
                .when_matched_update_all()
                .when_not_matched_insert_all();
            table.merge(feed, &merge, &options).await.unwrap();
            table.delete("region = 'eu' AND n < 60", &options).await.unwrap();
            table
                .update("n = n + 1", Some("id >= 7"), &options)
                .await
                .unwrap();
            let expected = ["1|us|11", "2|us|20", "4|us|41", "6|eu|61", "7|eu|71", "8|ap|81"];
            assert_eq!(content(&table).await, expected, "{format:?} {strategy:?}");
            assert_eq!(
                select(&table, "SELECT id FROM t WHERE region = 'us' AND id = 4").await,
                ["4"]
            );
            table.compact(&Compact::default(), &options).await.unwrap();
            assert_eq!(content(&table).await, expected);
            table
                .overwrite(
                    rows("id, region, n", "(9, 'us', 90)").await,
                    Some("region = 'us'"),
                    &options,
                )
                .await
                .unwrap();
            let expected = ["6|eu|61", "7|eu|71", "8|ap|81", "9|us|90"];
            assert_eq!(content(&table).await, expected);
            altered(&table, Alter::default().partition_by("").unwrap()).await;
            append(&table, "(10, 'eu', 1)").await;
            assert_eq!(content(&table).await.len(), 5);
            let first = table.history(None).await.unwrap().last().unwrap().version;
            table.restore(&At::Version(first), &options).await.unwrap();
            assert_eq!(content(&table).await, ["1|eu|10", "2|us|20"]);
        }
    }
}

#[tokio::test]
async fn partition_columns_are_renamed_widened_and_given_up() {
    for format in ICEBERG {
        let table = table(format, "n, region").await;
        append(&table, ROWS).await;
        altered(
            &table,
            Alter::default()
                .widen("n bigint")
                .unwrap()
                .rename_column(path("n"), "m"),
        )
        .await;
        add_rows(&table, "SELECT 3 AS id, 'eu' AS region, 5000000000 AS m").await;
        assert_eq!(
            select(&table, "SELECT id FROM t WHERE m = 20 OR m > 4000000000").await,
            ["2", "3"]
        );
        table.delete("m = 10", &Options::default()).await.unwrap();
        let feed = of("SELECT 2 AS id, 'us' AS region, 6000000000 AS m").await;
        let merge = Merge::on("id, region").when_matched_update_all();
        table.merge(feed, &merge, &Options::default()).await.unwrap();
        assert_eq!(content(&table).await, ["2|us|6000000000", "3|eu|5000000000"]);
        altered(
            &table,
            Alter::default()
                .partition_by("region")
                .unwrap()
                .drop_column(path("m")),
        )
        .await;
        append_ids(&table, "(4, 'ap')").await;
        assert_eq!(content(&table).await, ["2|us", "3|eu", "4|ap"]);
        table.delete("region = 'us'", &Options::default()).await.unwrap();
        table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(content(&table).await, ["3|eu", "4|ap"]);
    }
}

async fn append_ids(table: &Table, values: &str) {
    table
        .append(rows("id, region", values).await, &Options::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn sort_order_identifier_and_format_version_are_kept_by_iceberg() {
    let table = filled((TableFormat::Iceberg, Some(2)), "").await;
    table
        .delete("id = 1", &Options::default().merge_on_read())
        .await
        .unwrap();
    let change = Alter::default()
        .sort_by("n desc, id")
        .unwrap()
        .identifier(vec!["id".into()])
        .format_version(3);
    let report = altered(&table, change).await;
    assert!(
        report
            .changes
            .contains(&"sort order n desc nulls last, id asc nulls first".to_owned()),
        "{report:?}"
    );
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    assert_eq!(snapshot.features, ["v3"]);
    assert_eq!(snapshot.identifier, ["id"]);
    let message = refused(&table, Alter::default().drop_column(path("n"))).await;
    assert!(message.contains("sort order"), "{message}");
    let message = refused(&table, Alter::default().format_version(2)).await;
    assert!(message.contains("cannot go back"), "{message}");
    // Position deletes of before and deletion vectors of after.
    append(&table, "(3, 'eu', 30), (4, 'us', 40)").await;
    table
        .delete("id IN (2, 3)", &Options::default().merge_on_read())
        .await
        .unwrap();
    assert_eq!(content(&table).await, ["4|us|40"]);
    altered(
        &table,
        Alter::default().sort_by("").unwrap().identifier(Vec::new()),
    )
    .await;
    altered(&table, Alter::default().drop_column(path("n"))).await;
    assert_eq!(content(&table).await, ["4|us"]);
}

trait MergeOnRead {
    fn merge_on_read(self) -> Self;
}

impl MergeOnRead for Options {
    fn merge_on_read(self) -> Self {
        Self {
            strategy: Strategy::MergeOnRead,
            ..self
        }
    }
}

#[tokio::test]
async fn changes_of_different_columns_meet_and_of_the_same_one_exclude_each_other() {
    for format in FORMATS {
        let table = filled(format, "").await;
        let both = ["tip double", "note text"].map(|column| Alter::default().add_column(column).unwrap());
        let options = Options::default();
        let done = futures::future::join_all(both.iter().map(|change| table.alter(change, &options))).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        let mut found = names(&table, &At::Latest).await;
        found.sort();
        assert_eq!(found, ["id", "n", "note", "region", "tip"]);
        let same = [
            Alter::default().add_column("x int").unwrap(),
            Alter::default().add_column("x text").unwrap(),
        ];
        let done = futures::future::join_all(same.iter().map(|change| table.alter(change, &options))).await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
        let error = done.into_iter().find_map(Result::err).unwrap();
        assert!(
            matches!(error, Error::Invalid { .. }) && error.to_string().contains("there is a column x"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_second_change_with_the_same_key_does_nothing() {
    for format in FORMATS {
        let table = filled(format, "").await;
        let options = Options {
            token: Some("once".into()),
            ..Options::default()
        };
        let change = Alter::default().add_column("tip double").unwrap();
        assert!(table.alter(&change, &options).await.unwrap().committed);
        let again = table.alter(&change, &options).await.unwrap();
        assert!(!again.committed && again.already.is_some());
        let dry = Options {
            dry_run: true,
            ..Options::default()
        };
        let report = table
            .alter(&Alter::default().drop_column(path("tip")), &dry)
            .await
            .unwrap();
        assert!(report.dry_run && report.changes[0] == "dropped tip", "{report:?}");
        assert!(names(&table, &At::Latest).await.contains(&"tip".to_owned()));
    }
}

#[tokio::test]
async fn an_older_version_comes_back_under_the_columns_of_today() {
    for format in FORMATS {
        let table = filled(format, "").await;
        let first = table.snapshot(&At::Latest).await.unwrap().version;
        altered(
            &table,
            Alter::default()
                .rename_column(path("n"), "m")
                .drop_column(path("region"))
                .add_column("tip int")
                .unwrap(),
        )
        .await;
        add_rows(&table, "SELECT 3 AS id, 30 AS m, 1 AS tip").await;
        table
            .restore(&At::Version(first), &Options::default())
            .await
            .unwrap();
        assert_eq!(
            select(&table, "SELECT id, m, tip FROM t").await,
            ["1|10|", "2|20|"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_truncated_partition_column_that_became_wider_still_prunes() {
    for format in ICEBERG {
        let table = table(format, "truncate(10, n)").await;
        append(&table, "(1, 'eu', 5), (2, 'us', 15), (3, 'us', 25)").await;
        altered(&table, Alter::default().widen("n bigint").unwrap()).await;
        add_rows(&table, "SELECT 4 AS id, 'eu' AS region, 16 AS n").await;
        assert_eq!(
            select(&table, "SELECT id FROM t WHERE n > 14 AND n < 20").await,
            ["2", "4"]
        );
        table.delete("n > 15", &Options::default()).await.unwrap();
        table
            .update("region = 'x'", Some("n <> 5"), &Options::default())
            .await
            .unwrap();
        let feed = of("SELECT 1 AS id, 'up' AS region, 5 AS n").await;
        let merge = Merge::on("id, n").when_matched_update_all();
        table.merge(feed, &merge, &Options::default()).await.unwrap();
        assert_eq!(content(&table).await, ["1|up|5", "2|x|15"]);
    }
}

#[tokio::test]
async fn a_column_is_not_required_while_a_branch_may_lack_it_nor_a_branch_made_that_does() {
    use lakehouse_core::model::RefKind;
    use lakehouse_core::operations::SetRef;
    for format in ICEBERG {
        let table = filled(format, "").await;
        append(&table, "(3, NULL, 30)").await;
        let with_null = table.snapshot(&At::Latest).await.unwrap().version;
        table.delete("id = 3", &Options::default()).await.unwrap();
        let branch = SetRef::new(RefKind::Branch, "audit");
        table.set_ref(&branch, &Options::default()).await.unwrap();
        let message = refused(&table, Alter::default().nullable(path("region"), false)).await;
        assert!(message.contains("branches: audit"), "{message}");
        table
            .drop_ref(RefKind::Branch, "audit", &Options::default())
            .await
            .unwrap();
        altered(&table, Alter::default().nullable(path("region"), false)).await;
        let old = SetRef {
            at: Some(At::Version(with_null)),
            ..branch
        };
        let error = table.set_ref(&old, &Options::default()).await.unwrap_err();
        assert!(error.to_string().contains("required by now"), "{error}");
    }
}

#[tokio::test]
async fn what_would_leave_a_delta_table_unwritable_or_its_columns_mixed_up_is_refused() {
    let delta = filled((TableFormat::Delta, None), "region").await;
    let message = refused(
        &delta,
        Alter::default().drop_column(path("id")).drop_column(path("n")),
    )
    .await;
    assert!(message.contains("no column would be left"), "{message}");
    for (key, value, expected) in [
        ("delta.checkpointInterval", "abc", "is no value of"),
        ("delta.logRetentionDuration", "garbage", "is no length of time"),
        (
            "delta.universalFormat.enabledFormats",
            "iceberg",
            "is not written",
        ),
        ("write.parquet.compression-codec", "foo", "foo"),
        ("write.target-file-size-bytes", "abc", "is not a size"),
        ("schema.name-mapping.default", "[]", "kept by the table itself"),
    ] {
        let message = refused(&delta, Alter::default().property(key, Some(value))).await;
        assert!(message.contains(expected), "{key}: {message}");
    }
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new(
            "s",
            DataType::Struct(vec![Field::new("b", DataType::Int32, true)].into()),
            true,
        ),
    ]);
    for format in FORMATS {
        let definition = Definition {
            schema: Arc::new(schema.clone()),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("dots"), format.0, &definition)
            .await
            .unwrap();
        refused(&table, Alter::default().add_column("\"s.b\" int").unwrap()).await;
        refused(&table, Alter::default().rename_column(path("id"), "s.b")).await;
    }
}

#[tokio::test]
async fn a_new_delta_table_may_map_its_columns_from_the_start() {
    for mode in ["name", "id"] {
        let table = super::table_with(
            (TableFormat::Delta, None),
            "region",
            &[("delta.columnMapping.mode", mode)],
        )
        .await;
        append(&table, ROWS).await;
        let feed = rows("id, region, n", "(2, 'us', 21), (3, NULL, 30)").await;
        let merge = Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        table.merge(feed, &merge, &Options::default()).await.unwrap();
        altered(
            &table,
            Alter::default()
                .rename_column(path("n"), "m")
                .drop_column(path("id"))
                .add_column("\"a b\" int")
                .unwrap(),
        )
        .await;
        assert_eq!(content(&table).await, ["eu|10|", "us|21|", "|30|"]);
        table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(content(&table).await, ["eu|10|", "us|21|", "|30|"]);
    }
}
