//! Columns that come with rows: `--schema-mode merge`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, Definition};
use lakehouse_core::operations::{Report, SchemaMode, Strategy};
use lakehouse_core::{Error, Merge, Options, Rows, Table, TableFormat};

use super::{FORMATS, append, content, lines, query, rows, table, table_with};
use crate::support::memory;

fn merging() -> Options {
    Options::default().schema_mode(SchemaMode::Merge)
}

fn upsert() -> Merge {
    Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all()
}

async fn of(sql: &str) -> Rows {
    let (schema, batches) = query(sql).await;
    Rows::batches(schema, batches)
}

async fn select(table: &Table, sql: &str) -> Vec<String> {
    let ctx = SessionContext::new();
    let provider = table.provider(&At::Latest).await.unwrap();
    ctx.register_table("t", provider).unwrap();
    lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap())
}

async fn names(table: &Table, at: &At) -> Vec<String> {
    let snapshot = table.snapshot(at).await.unwrap();
    snapshot
        .schema
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect()
}

async fn type_of(table: &Table, column: &str) -> DataType {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    snapshot
        .schema
        .field_with_name(column)
        .unwrap()
        .data_type()
        .clone()
}

const ROWS: &str = "(1, 'eu', 10), (2, 'us', 20)";

/// `(1, eu, 10)` and `(2, us, 20)`.
async fn filled(format: (TableFormat, Option<u8>), partitioning: &str) -> Table {
    let table = table(format, partitioning).await;
    append(&table, ROWS).await;
    table
}

/// The same, and its columns may become wider. Iceberg's always may.
async fn growing(format: (TableFormat, Option<u8>), partitioning: &str) -> Table {
    let table = table_with(format, partitioning, &[("delta.enableTypeWidening", "true")]).await;
    append(&table, ROWS).await;
    table
}

fn added(report: &Report) -> Vec<&str> {
    report.columns_added.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn an_append_adds_columns_or_refuses_them_by_name() {
    for format in FORMATS {
        let table = filled(format, "").await;
        let before = table.snapshot(&At::Latest).await.unwrap();
        let input = || of("SELECT 3 AS id, 'as' AS region, 1.5 AS tip, TIMESTAMP '2024-01-01' AS seen");
        let refused = table
            .append(input().await, &Options::default())
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("tip"), "{refused}");

        let dry = Options {
            dry_run: true,
            ..merging()
        };
        let planned = table.append(input().await, &dry).await.unwrap();
        assert_eq!(added(&planned), ["tip", "seen"], "{format:?}");
        assert_eq!(
            names(&table, &At::Latest).await.len(),
            3,
            "a dry run changes nothing"
        );

        let report = table.append(input().await, &merging()).await.unwrap();
        assert_eq!(added(&report), ["tip", "seen"], "{format:?}");
        assert_eq!(
            names(&table, &At::Latest).await,
            ["id", "region", "n", "tip", "seen"]
        );
        assert_eq!(
            content(&table).await,
            ["1|eu|10||", "2|us|20||", "3|as||1.5|2024-01-01T00:00:00"],
            "{format:?}"
        );
        // Files that lack the column are NULL in it, whatever is asked.
        assert_eq!(
            select(&table, "SELECT id FROM t WHERE tip IS NULL").await,
            ["1", "2"]
        );
        assert_eq!(select(&table, "SELECT id FROM t WHERE tip = 1.5").await, ["3"]);
        assert_eq!(
            select(&table, "SELECT id FROM t WHERE tip > 2 OR id = 1").await,
            ["1"]
        );
        assert_eq!(
            select(&table, "SELECT id FROM t WHERE tip <> 9 OR seen IS NULL").await,
            ["1", "2", "3"]
        );
        assert_eq!(
            select(&table, "SELECT count(tip), max(tip), count(*) FROM t").await,
            ["1|1.5|3"]
        );
        let old = At::Version(before.version);
        assert_eq!(names(&table, &old).await, ["id", "region", "n"]);
        let provider = table.provider(&old).await.unwrap();
        let frame = SessionContext::new().read_table(provider).unwrap();
        assert_eq!(lines(&frame.collect().await.unwrap()), ["1|eu|10", "2|us|20"]);

        // What works on rows works on those that are older than the column.
        let options = Options::default();
        table.update("tip = 0.5", Some("id = 1"), &options).await.unwrap();
        table.delete("tip IS NULL", &options).await.unwrap();
        assert_eq!(
            select(&table, "SELECT id, tip FROM t").await,
            ["1|0.5", "3|1.5"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn fields_are_added_inside_structs_and_lists() {
    for format in FORMATS {
        let member = Field::new("x", DataType::Int64, true);
        let place = DataType::Struct(vec![member].into());
        let stops = DataType::List(Arc::new(Field::new("element", place.clone(), true)));
        let definition = Definition {
            schema: Arc::new(Schema::new(vec![
                Field::new("id", DataType::Int64, true),
                Field::new("place", place, true),
                Field::new("stops", stops, true),
            ])),
            partition_fields: Vec::new(),
            properties: Default::default(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("nested"), format.0, &definition)
            .await
            .unwrap();
        let narrow = "SELECT 1 AS id, named_struct('x', 1) AS place, [named_struct('x', 1)] AS stops";
        table.append(of(narrow).await, &Options::default()).await.unwrap();
        let wide = "SELECT 2 AS id, named_struct('y', 'new', 'x', 2) AS place, \
                    [named_struct('x', 2, 'z', 0.5)] AS stops";
        let refused = table
            .append(of(wide).await, &Options::default())
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("place.y"), "{refused}");
        let report = table.append(of(wide).await, &merging()).await.unwrap();
        assert_eq!(added(&report), ["place.y", "stops.element.z"], "{format:?}");
        assert_eq!(
            select(&table, "SELECT id, place['x'], place['y'], stops[1]['z'] FROM t").await,
            ["1|1||", "2|2|new|0.5"],
            "{format:?}"
        );
        assert_eq!(
            select(&table, "SELECT id FROM t WHERE place['y'] IS NULL").await,
            ["1"]
        );
        assert_eq!(
            select(&table, "SELECT id FROM t WHERE place['y'] = 'new'").await,
            ["2"]
        );
    }
}

#[tokio::test]
async fn columns_of_a_delta_table_become_wider_only_if_its_owner_allows_it() {
    let table = filled((TableFormat::Delta, None), "").await;
    let refused = table
        .append(
            of("SELECT 3 AS id, 'eu' AS region, 5000000000 AS n").await,
            &merging(),
        )
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("column 'n'"), "{refused}");
    let fits = table
        .append(of("SELECT 3 AS id, 30 AS n").await, &merging())
        .await
        .unwrap();
    assert!(fits.columns_widened.is_empty());
    assert_eq!(type_of(&table, "n").await, DataType::Int32);
}

#[tokio::test]
async fn types_become_wider_and_narrow_files_are_read_so() {
    let large = "SELECT 3 AS id, 'eu' AS region, 5000000000 AS n";
    for format in FORMATS {
        let table = growing(format, "").await;
        let result = table.append(of(large).await, &merging()).await;
        assert_eq!(result.unwrap().columns_widened, ["n"], "{format:?}");
        assert_eq!(type_of(&table, "n").await, DataType::Int64);
        assert_eq!(content(&table).await, ["1|eu|10", "2|us|20", "3|eu|5000000000"]);
        assert_eq!(select(&table, "SELECT id FROM t WHERE n < 15").await, ["1"]);
        assert_eq!(
            select(&table, "SELECT id FROM t WHERE n > 4000000000").await,
            ["3"]
        );
        assert_eq!(
            select(&table, "SELECT min(n), max(n), sum(n) FROM t").await,
            ["10|5000000000|5000000030"]
        );
        // Narrow rows meet the wide column in every other verb.
        table
            .update("n = n + 1", Some("id = 1"), &Options::default())
            .await
            .unwrap();
        let narrow = "SELECT 2 AS id, arrow_cast(21, 'Int32') AS n";
        table
            .merge(of(narrow).await, &upsert(), &Options::default())
            .await
            .unwrap();
        table
            .compact(&Default::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(
            content(&table).await,
            ["1|eu|11", "2|us|21", "3|eu|5000000000"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_key_that_becomes_wider_matches_the_rows_that_were_there() {
    for format in FORMATS {
        let table = growing(format, "").await;
        let source = "SELECT * FROM (VALUES (10, 'x'), (5000000000, 'y')) AS t(n, region)";
        let merge = Merge::on("n")
            .when_matched_update("region = source.region")
            .when_not_matched_insert("id = 9, n = source.n");
        // Nothing takes all columns, so nothing changes them.
        let strict = table.merge(of(source).await, &merge, &merging()).await;
        assert!(strict.is_err(), "5000000000 does not fit");
        let merge = Merge::on("n")
            .when_matched_update_all()
            .when_not_matched_insert("id = 9, n = source.n");
        let report = table.merge(of(source).await, &merge, &merging()).await.unwrap();
        assert_eq!(report.columns_widened, ["n"]);
        assert_eq!(
            content(&table).await,
            ["1|x|10", "2|us|20", "9||5000000000"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_column_that_partitions_the_table_keeps_its_type() {
    for format in FORMATS {
        let table = growing(format, "n").await;
        let fits = table
            .append(of("SELECT 3 AS id, 10 AS n, 1 AS more").await, &merging())
            .await
            .unwrap();
        assert!(fits.columns_widened.is_empty(), "{format:?}");
        assert_eq!(added(&fits), ["more"]);
        let refused = table
            .append(of("SELECT 4 AS id, 5000000000 AS n").await, &merging())
            .await;
        assert!(refused.unwrap_err().to_string().contains("column 'n'"));
        assert_eq!(
            select(&table, "SELECT id, more FROM t WHERE n = 10").await,
            ["1|", "3|1"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn an_overwrite_adds_columns_to_what_stays_and_what_comes() {
    for format in FORMATS {
        for strategy in [Strategy::MergeOnRead, Strategy::CopyOnWrite] {
            let table = filled(format, "").await;
            let options = Options {
                strategy,
                ..merging()
            };
            let new = "SELECT 1 AS id, 'eu' AS region, 11 AS n, true AS flag";
            let refused = table
                .overwrite(of(new).await, Some("region = 'eu'"), &Options::default())
                .await;
            assert!(refused.unwrap_err().to_string().contains("flag"));
            let report = table
                .overwrite(of(new).await, Some("region = 'eu'"), &options)
                .await
                .unwrap();
            assert_eq!(added(&report), ["flag"], "{format:?}");
            assert_eq!(
                content(&table).await,
                ["1|eu|11|true", "2|us|20|"],
                "{format:?} {strategy:?}"
            );
            let all = "SELECT 7 AS id, 'x' AS more";
            let report = table.overwrite(of(all).await, None, &options).await.unwrap();
            assert_eq!(added(&report), ["more"]);
            assert_eq!(content(&table).await, ["7||||x"], "{format:?}");
        }
    }
}

#[tokio::test]
async fn a_merge_adds_the_columns_that_update_all_and_insert_all_write() {
    for format in FORMATS {
        for strategy in [Strategy::MergeOnRead, Strategy::CopyOnWrite] {
            let table = filled(format, "bucket(2, id)").await;
            let options = Options {
                strategy,
                ..merging()
            };
            let source = || rows("id, n, tip", "(2, 21, 0.5), (3, 30, 1.5)");
            let refused = table
                .merge(source().await, &upsert(), &Options::default())
                .await
                .unwrap_err();
            assert!(refused.to_string().contains("tip"), "{refused}");
            let report = table.merge(source().await, &upsert(), &options).await.unwrap();
            assert_eq!(added(&report), ["tip"], "{format:?}");
            assert_eq!(
                content(&table).await,
                ["1|eu|10|", "2|us|21|0.5", "3||30|1.5"],
                "{format:?} {strategy:?}"
            );
            let again = table
                .merge(source().await, &upsert().skip_unchanged(), &options)
                .await
                .unwrap();
            assert!(!again.committed && again.columns_added.is_empty(), "{format:?}");
        }
    }
}

#[tokio::test]
async fn columns_that_only_conditions_and_feeds_name_are_not_added() {
    for format in FORMATS {
        let table = filled(format, "").await;
        let source = || {
            rows(
                "id, n, op, seq, tip",
                "(1, 11, 'D', 5, 0.5), (3, 30, 'I', 6, 1.5)",
            )
        };
        let set = Merge::on("id")
            .when_matched_update("n = source.n")
            .when_not_matched_insert("id = source.id, n = source.n");
        let report = table.merge(source().await, &set, &merging()).await.unwrap();
        assert!(report.columns_added.is_empty(), "{format:?}");

        let clauses = Merge::on("id").sequence_by("seq").delete_when("source.op = 'D'");
        let clauses = clauses.when_matched_update_all().when_not_matched_insert_all();
        let report = table.merge(source().await, &clauses, &merging()).await.unwrap();
        assert_eq!(added(&report), ["tip"], "{format:?}");
        assert_eq!(names(&table, &At::Latest).await, ["id", "region", "n", "tip"]);

        let feed = Merge::on("id").cdc("op=op,sequence=seq".parse().unwrap());
        let more = rows("id, op, seq, note", "(3, 'U', 7, 'x'), (4, 'I', 8, 'y')").await;
        let report = table.merge(more, &feed, &merging()).await.unwrap();
        assert_eq!(added(&report), ["note"], "{format:?}");
        assert_eq!(
            content(&table).await,
            ["2|us|20||", "3||30|1.5|x", "4||||y"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_merge_that_changes_no_row_adds_no_column() {
    for format in FORMATS {
        let table = filled(format, "").await;
        let before = table.snapshot(&At::Latest).await.unwrap().version;
        let update = Merge::on("id").when_matched_update_all();
        let report = table
            .merge(rows("id, tip", "(9, 1.5)").await, &update, &merging())
            .await
            .unwrap();
        assert!(!report.committed && report.columns_added.is_empty(), "{format:?}");
        let empty = of("SELECT 1 AS id, 2 AS tip WHERE false").await;
        let report = table.append(empty, &merging()).await.unwrap();
        assert!(!report.committed && report.columns_added.is_empty(), "{format:?}");
        let after = table.snapshot(&At::Latest).await.unwrap();
        assert_eq!((after.version, after.schema.fields().len()), (before, 3));
    }
}

#[tokio::test]
async fn names_that_differ_in_case_are_one_column_and_reserved_ones_are_none() {
    for format in FORMATS {
        let table = filled(format, "bucket(2, id)").await;
        let cased = table
            .append(of("SELECT 3 AS \"ID\", 'as' AS \"Region\"").await, &merging())
            .await
            .unwrap();
        assert!(cased.columns_added.is_empty(), "{format:?}");
        for wrong in ["_file", "_row_id", "_change_type", "id_bucket"] {
            let input = of(&format!("SELECT 4 AS id, 1 AS \"{wrong}\"")).await;
            let refused = table.append(input, &merging()).await.unwrap_err();
            assert!(
                matches!(refused, Error::Invalid { .. }),
                "{format:?} {wrong}: {refused}"
            );
            assert!(refused.to_string().contains(wrong), "{refused}");
        }
        assert_eq!(names(&table, &At::Latest).await, ["id", "region", "n"]);
    }
}

#[tokio::test]
async fn many_changes_of_columns_stay_readable_version_by_version() {
    for format in FORMATS {
        let table = table(format, "").await;
        let mut versions = Vec::new();
        for round in 0..13 {
            let input = of(&format!("SELECT {round} AS id, {round} AS c{round}")).await;
            let report = table.append(input, &merging()).await.unwrap();
            assert_eq!(report.columns_added, [format!("c{round}")]);
            versions.push(report.version);
        }
        table
            .compact(&Default::default(), &Options::default())
            .await
            .unwrap();
        for (round, version) in versions.iter().enumerate() {
            assert_eq!(
                names(&table, &At::Version(*version)).await.len(),
                4 + round,
                "{format:?}"
            );
        }
        let sums = select(&table, "SELECT count(*), sum(c0), sum(c12), count(c5) FROM t").await;
        assert_eq!(sums, ["13|0|12|1"], "{format:?}");
    }
}

#[tokio::test]
async fn a_restore_brings_rows_back_and_keeps_the_columns() {
    for format in FORMATS {
        let table = filled(format, "bucket(2, id)").await;
        let before = table.snapshot(&At::Latest).await.unwrap().version;
        let input = of("SELECT 1 AS id, 1.5 AS tip").await;
        table.overwrite(input, None, &merging()).await.unwrap();
        let options = Options::default();
        table.restore(&At::Version(before), &options).await.unwrap();
        assert_eq!(content(&table).await, ["1|eu|10|", "2|us|20|"], "{format:?}");
        let tip = of("SELECT 2 AS id, 2.5 AS tip").await;
        table.merge(tip, &upsert(), &options).await.unwrap();
        assert_eq!(content(&table).await, ["1|eu|10|", "2|us|20|2.5"], "{format:?}");
    }
}

#[tokio::test]
async fn new_keys_of_json_objects_become_fields() {
    for format in FORMATS {
        let table = filled(format, "").await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.ndjson");
        let read = || Rows::file(&file, None).unwrap();
        std::fs::write(&file, "{\"id\": 3, \"place\": {\"x\": 1}}\n").unwrap();
        let report = table.append(read(), &merging()).await.unwrap();
        assert_eq!(added(&report), ["place"], "{format:?}");
        let more = "{\"id\": 3, \"place\": {\"x\": 2, \"y\": \"new\"}}\n{\"id\": 4, \"place\": null}\n";
        std::fs::write(&file, more).unwrap();
        let refused = table.append(read(), &Options::default()).await.unwrap_err();
        assert!(refused.to_string().contains("place.y"), "{refused}");
        let report = table.merge(read(), &upsert(), &merging()).await.unwrap();
        assert_eq!(added(&report), ["place.y"], "{format:?}");
        let found = select(&table, "SELECT id, place['x'], place['y'] FROM t WHERE id > 1").await;
        assert_eq!(found, ["2||", "3|2|new", "4||"], "{format:?}");
    }
}

#[tokio::test]
async fn a_version_is_restored_whose_columns_became_wider_since_or_came_and_became_wider() {
    for format in FORMATS {
        let table = growing(format, "").await;
        let first = table.snapshot(&At::Latest).await.unwrap().version;
        for rows in [
            "SELECT 3 AS id, arrow_cast(7, 'Int32') AS more",
            "SELECT 4 AS id, 5000000000 AS more, 5000000000 AS n",
        ] {
            table.append(of(rows).await, &merging()).await.unwrap();
        }
        assert_eq!(type_of(&table, "more").await, DataType::Int64, "{format:?}");
        table
            .restore(&At::Version(first), &Options::default())
            .await
            .unwrap();
        assert_eq!(
            select(&table, "SELECT id, n, more FROM t").await,
            ["1|10|", "2|20|"],
            "{format:?}"
        );
        assert_eq!(type_of(&table, "n").await, DataType::Int64);
    }
}
