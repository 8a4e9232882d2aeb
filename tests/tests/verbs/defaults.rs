//! Columns with defaults, which other engines give to tables of Iceberg's version 3.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, ColumnPath, Definition};
use lakehouse_core::operations::Strategy;
use lakehouse_core::scan::parse_columns;
use lakehouse_core::store::Store;
use lakehouse_core::{Alter, Compact, Merge, Options, Rows, Table, TableFormat};
use serde_json::{Value, json};

use super::{FORMATS, append, content, lines, query, rows, table_in};
use crate::support::memory;

const METADATA: &str = "metadata/v2.metadata.json";

/// `(id, region, n)` with two rows, then columns with defaults: `level` is 7 in old rows and 8 in new ones, `tag`
/// required, `day` and `price` other types, `s.y` inside a struct that is NULL in one row.
async fn with_defaults() -> Table {
    let store = memory("defaults");
    let table = table_in(store.clone(), (TableFormat::Iceberg, Some(3)), "").await;
    append(&table, "(1, 'eu', 10), (2, 'us', 20)").await;
    add(&store, &[
        json!({"id": 11, "name": "level", "required": false, "type": "int", "initial-default": 7, "write-default": 8}),
        json!({"id": 12, "name": "tag", "required": true, "type": "string", "initial-default": "old ☃", "write-default": "new"}),
        json!({"id": 13, "name": "day", "required": false, "type": "date", "initial-default": "1969-12-31"}),
        json!({"id": 14, "name": "price", "required": false, "type": "decimal(9, 2)", "initial-default": "-1.50"}),
    ])
    .await;
    Table::open_in(store).await.unwrap()
}

async fn add(store: &Store, fields: &[Value]) {
    let bytes = store.get(METADATA).await.unwrap();
    let mut metadata: Value = serde_json::from_slice(&bytes).unwrap();
    let schema = metadata["schemas"][0]["fields"].as_array_mut().unwrap();
    schema.extend(fields.iter().cloned());
    metadata["last-column-id"] = json!(20);
    store.put(METADATA, metadata.to_string().into()).await.unwrap();
}

async fn ask(table: &Table, sql: &str) -> Vec<String> {
    let ctx = SessionContext::new();
    ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
        .unwrap();
    lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap())
}

#[tokio::test]
async fn rows_that_were_there_have_the_initial_default_and_new_ones_the_write_default() {
    let table = with_defaults().await;
    assert_eq!(
        ask(&table, "SELECT * FROM t").await,
        [
            "1|eu|10|7|old ☃|1969-12-31|-1.50",
            "2|us|20|7|old ☃|1969-12-31|-1.50"
        ]
    );
    for condition in [
        "level = 7",
        "level < 8 AND day < date '1970-01-01'",
        "tag LIKE 'old%'",
        "price = -1.50",
    ] {
        let sql = format!("SELECT id FROM t WHERE {condition}");
        assert_eq!(ask(&table, &sql).await, ["1", "2"], "{condition}");
    }
    assert!(
        ask(&table, "SELECT id FROM t WHERE level IS NULL OR level = 8")
            .await
            .is_empty()
    );
    append(&table, "(3, 'eu', 30)").await;
    let (schema, batches) = query("SELECT 4 AS id, arrow_cast(NULL, 'Int32') AS level, 'x' AS tag").await;
    table
        .append(Rows::batches(schema, batches), &Options::default())
        .await
        .unwrap();
    assert_eq!(
        ask(&table, "SELECT id, level, tag, day FROM t").await,
        [
            "1|7|old ☃|1969-12-31",
            "2|7|old ☃|1969-12-31",
            "3|8|new|",
            "4||x|"
        ]
    );
}

#[tokio::test]
async fn defaults_survive_every_way_to_rewrite_a_file() {
    for strategy in [Strategy::MergeOnRead, Strategy::CopyOnWrite] {
        let table = with_defaults().await;
        let options = Options {
            strategy,
            ..Options::default()
        };
        table
            .update("n = n + level", Some("id = 2"), &options)
            .await
            .unwrap();
        let merge = Merge::on("id")
            .when_matched_update("region = source.region")
            .when_not_matched_insert_all();
        let feed = rows("id, region", "(1, 'up'), (9, 'in')").await;
        table.merge(feed, &merge, &options).await.unwrap();
        table.delete("level = 7 AND id = 2", &options).await.unwrap();
        let expected = ["1|up|10|7|old ☃", "9|in||8|new"];
        assert_eq!(
            ask(&table, "SELECT id, region, n, level, tag FROM t").await,
            expected,
            "{strategy:?}"
        );
        table.compact(&Compact::default(), &options).await.unwrap();
        assert_eq!(
            ask(&table, "SELECT id, region, n, level, tag FROM t").await,
            expected,
            "{strategy:?}"
        );
    }
}

fn name(column: &str) -> ColumnPath {
    column.parse().unwrap()
}

#[tokio::test]
async fn a_default_that_is_set_is_for_new_rows_and_that_of_a_new_column_for_all() {
    let options = Options::default();
    for format in FORMATS {
        let table = table_in(memory("defaults"), format, "").await;
        append(&table, "(1, 'eu', 10)").await;
        let mut change = Alter::default()
            .default_value(name("n"), Some("3 + 4"))
            .default_value(name("region"), Some("'it''s'"));
        if format.1 == Some(2) {
            let error = table.alter(&change, &options).await.unwrap_err();
            assert!(error.hint().unwrap().contains("format version 3"), "{error}");
            change = change.format_version(3);
        }
        table.alter(&change, &options).await.unwrap();
        table.append(rows("id", "(2)").await, &options).await.unwrap();
        table
            .append(rows("id, n", "(3, CAST(NULL AS INT))").await, &options)
            .await
            .unwrap();
        table
            .alter(&Alter::default().default_value(name("n"), Some("8")), &options)
            .await
            .unwrap();
        let upsert = Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        let feed = rows("id, region", "(1, 'us'), (4, 'us')").await;
        table.merge(feed, &upsert, &options).await.unwrap();
        table
            .alter(&Alter::default().default_value(name("n"), None), &options)
            .await
            .unwrap();
        table.append(rows("id", "(5)").await, &options).await.unwrap();
        let expected = ["1|us|10", "2|it's|7", "3|it's|", "4|us|8", "5|it's|"];
        assert_eq!(content(&table).await, expected, "{format:?}");

        let added = Alter::default()
            .add_column("day date")
            .unwrap()
            .default_value(name("day"), Some("DATE '2024-02-29'"));
        let done = table.alter(&added, &options).await;
        if format.0 == TableFormat::Delta {
            assert!(
                done.unwrap_err()
                    .to_string()
                    .contains("in rows that are there it is NULL")
            );
            let twice = [
                Alter::default().add_column("day date").unwrap(),
                Alter::default().default_value(name("day"), Some("DATE '2024-02-29'")),
            ];
            for change in twice {
                table.alter(&change, &options).await.unwrap();
            }
        } else {
            done.unwrap();
        }
        table.append(rows("id", "(6)").await, &options).await.unwrap();
        let old = if format.0 == TableFormat::Delta {
            ""
        } else {
            "2024-02-29"
        };
        let days = ask(&table, "SELECT id, day FROM t WHERE id IN (1, 6)").await;
        assert_eq!(
            days,
            [format!("1|{old}"), "6|2024-02-29".to_owned()],
            "{format:?}"
        );
        for (column, value, said) in [
            ("n", "'x'", "cannot be the default of column n"),
            ("n", "id + 1", "cannot be the default of column n"),
            ("nosuch", "1", "no column nosuch"),
        ] {
            let change = Alter::default().default_value(name(column), Some(value));
            let error = table.alter(&change, &options).await.unwrap_err().to_string();
            assert!(error.contains(said), "{format:?}: {error}");
        }
    }
}

/// `(id, s)` with three rows, of which one has no struct; then members that these files lack: `s.y` is 5 in old rows and 6
/// in new ones, `s.note` required.
async fn with_defaults_inside() -> Table {
    let store = memory("defaults");
    let definition = Definition {
        schema: parse_columns("id bigint not null, s struct<x int>").unwrap(),
        partition_fields: Vec::new(),
        properties: Default::default(),
        format_version: Some(3),
    };
    let table = Table::create_in(store.clone(), TableFormat::Iceberg, &definition)
        .await
        .unwrap();
    let (schema, batches) = query(
        "SELECT 1 AS id, named_struct('x', 10) AS s UNION ALL SELECT 2, NULL UNION ALL SELECT 3, \
         named_struct('x', arrow_cast(NULL, 'Int64'))",
    )
    .await;
    table
        .append(Rows::batches(schema, batches), &Options::default())
        .await
        .unwrap();
    let bytes = store.get(METADATA).await.unwrap();
    let mut metadata: Value = serde_json::from_slice(&bytes).unwrap();
    let members = metadata["schemas"][0]["fields"][1]["type"]["fields"]
        .as_array_mut()
        .unwrap();
    members.extend([
        json!({"id": 11, "name": "y", "required": false, "type": "int", "initial-default": 5, "write-default": 6}),
        json!({"id": 12, "name": "note", "required": true, "type": "string", "initial-default": "old", "write-default": "new"}),
    ]);
    metadata["last-column-id"] = json!(20);
    store.put(METADATA, metadata.to_string().into()).await.unwrap();
    Table::open_in(store).await.unwrap()
}

const INSIDE: &str = "SELECT id, s['x'], s['y'], s['note'], s IS NULL FROM t";

#[tokio::test]
async fn members_that_files_lack_have_their_default_where_the_struct_is_there() {
    let table = with_defaults_inside().await;
    assert_eq!(
        ask(&table, INSIDE).await,
        ["1|10|5|old|false", "2||||true", "3||5|old|false"]
    );
    for (condition, ids) in [
        ("s['y'] = 5", &["1", "3"][..]),
        ("s['y'] IS NULL", &["2"]),
        ("s['y'] <> 5", &[]),
        ("s['note'] LIKE 'o%' AND s['x'] = 10", &["1"]),
        ("s['y'] = 5 OR id = 2", &["1", "2", "3"]),
        ("NOT (s['y'] < 5)", &["1", "3"]),
    ] {
        let sql = format!("SELECT id FROM t WHERE {condition}");
        assert_eq!(ask(&table, &sql).await, ids, "{condition}");
        let counted = format!("SELECT count(*) FROM t WHERE {condition}");
        assert_eq!(
            ask(&table, &counted).await,
            [ids.len().to_string()],
            "{condition}"
        );
    }
    let (schema, batches) = query("SELECT 4 AS id, named_struct('x', 40) AS s").await;
    table
        .append(Rows::batches(schema, batches), &Options::default())
        .await
        .unwrap();
    // A member that is a key, a condition and what is set.
    let options = Options::default();
    assert_eq!(
        table
            .delete("s['y'] = 5 AND id = 3", &options)
            .await
            .unwrap()
            .metric("num_target_rows_deleted"),
        1
    );
    table
        .update("id = id + 100", Some("s['y'] = 5"), &options)
        .await
        .unwrap();
    let expected = ["101|10|5|old|false", "2||||true", "4|40|6|new|false"];
    assert_eq!(ask(&table, INSIDE).await, expected);
    table.compact(&Compact::default(), &options).await.unwrap();
    assert_eq!(
        ask(&table, INSIDE).await,
        expected,
        "written out they are what they were"
    );
}

#[tokio::test]
async fn defaults_of_members_and_of_bytes_are_set_where_the_format_has_them() {
    let options = Options::default();
    for format in FORMATS {
        let table = table_in(memory("defaults"), format, "").await;
        append(&table, "(1, 'eu', 10)").await;
        let structs = Alter::default().add_column("s struct<x int>").unwrap();
        table.alter(&structs, &options).await.unwrap();
        let set = Alter::default().default_value(name("s.x"), Some("7"));
        if format != (TableFormat::Iceberg, Some(3)) {
            let error = table.alter(&set, &options).await.unwrap_err();
            let said = format!("{error}; {}", error.hint().unwrap_or_default());
            assert!(
                said.contains("cannot have a default") && said.contains("version 3"),
                "{said}"
            );
            continue;
        }
        table.alter(&set, &options).await.unwrap();
        let more = Alter::default()
            .add_column("s.y bigint")
            .unwrap()
            .default_value(name("s.y"), Some("8"))
            .add_column("b binary")
            .unwrap()
            .default_value(name("b"), Some("X'00fF'"));
        let (schema, batches) = query("SELECT 2 AS id, named_struct('x', 1) AS s").await;
        table
            .append(Rows::batches(schema, batches), &options)
            .await
            .unwrap();
        table.alter(&more, &options).await.unwrap();
        let (schema, batches) = query("SELECT 3 AS id, named_struct('y', 1) AS s, X'01' AS b").await;
        table
            .append(Rows::batches(schema, batches), &options)
            .await
            .unwrap();
        table.append(rows("id", "(4)").await, &options).await.unwrap();
        assert_eq!(
            ask(&table, "SELECT id, s['x'], s['y'], encode(b, 'hex') FROM t").await,
            ["1|||00ff", "2|1|8|00ff", "3|7|1|01", "4|||00ff"]
        );
        assert_eq!(
            ask(&table, "SELECT id FROM t WHERE b = X'00ff'").await,
            ["1", "2", "4"]
        );
        for (column, value, said) in [
            ("s.x", "'x'", "cannot be the default"),
            ("s.nosuch", "1", "no column s.nosuch"),
            ("b", "1", "cannot be the default of column b"),
            ("s", "1", "cannot be the default of column s"),
        ] {
            let change = Alter::default().default_value(name(column), Some(value));
            let error = table.alter(&change, &options).await.unwrap_err().to_string();
            assert!(error.contains(said), "{column}: {error}");
        }
        let lists = Alter::default()
            .add_column("l array<int>")
            .unwrap()
            .default_value(name("l.element"), Some("1"));
        let error = table.alter(&lists, &options).await.unwrap_err().to_string();
        assert!(error.contains("l.element"), "{error}");
    }
}

#[tokio::test]
async fn uuids_and_bytes_of_a_fixed_length_have_defaults() {
    let uuid = HashMap::from([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())]);
    let definition = Definition {
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("u", DataType::FixedSizeBinary(16), true).with_metadata(uuid),
            Field::new("f", DataType::FixedSizeBinary(3), true),
        ])),
        partition_fields: Vec::new(),
        properties: Default::default(),
        format_version: Some(3),
    };
    let (store, options) = (memory("defaults"), Options::default());
    let table = Table::create_in(store.clone(), TableFormat::Iceberg, &definition)
        .await
        .unwrap();
    let text = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
    let set = Alter::default()
        .default_value(name("u"), Some(&format!("'{text}'")))
        .default_value(name("f"), Some("X'00fF01'"));
    table.alter(&set, &options).await.unwrap();
    let long = Alter::default().default_value(name("f"), Some("X'00ff'"));
    assert!(table.alter(&long, &options).await.is_err(), "of another length");
    // As the metadata spell them.
    let metadata: Value = serde_json::from_slice(&store.get(METADATA).await.unwrap()).unwrap();
    let fields = &metadata["schemas"][1]["fields"];
    assert_eq!(fields[1]["write-default"], text);
    assert_eq!(fields[2]["write-default"], "00ff01");
    let table = Table::open_in(store).await.unwrap();
    table.append(rows("id", "(1)").await, &options).await.unwrap();
    let bytes =
        "SELECT id, encode(arrow_cast(u, 'Binary'), 'hex'), encode(arrow_cast(f, 'Binary'), 'hex') FROM t";
    assert_eq!(
        ask(&table, bytes).await,
        [format!("1|{}|00ff01", text.replace('-', ""))]
    );
}

/// Metadata are read and written with every commit.
#[tokio::test]
async fn doubles_of_defaults_do_not_drift_over_commits() {
    // Read by way of its digits as a whole number and a power of ten, it comes out one unit higher.
    const NUMBER: &str = "12.968106020774835";
    let store = memory("defaults");
    let table = table_in(store.clone(), (TableFormat::Iceberg, Some(3)), "").await;
    append(&table, "(1, 'eu', 10)").await;
    let number: f64 = NUMBER.parse().unwrap();
    add(&store, &[
        json!({"id": 11, "name": "x", "required": false, "type": "double", "initial-default": number, "write-default": number}),
    ])
    .await;
    let table = Table::open_in(store.clone()).await.unwrap();
    for id in 2..5 {
        append(&table, &format!("({id}, 'eu', 10)")).await;
    }
    let newest = store.get("metadata/v5.metadata.json").await.unwrap();
    let text = String::from_utf8(newest.to_vec()).unwrap();
    assert_eq!(text.matches(&format!(":{NUMBER}")).count(), 2, "{text}");
    let sql = format!("SELECT count(*) FROM t WHERE x = {NUMBER}");
    assert_eq!(ask(&table, &sql).await, ["4"]);
}
