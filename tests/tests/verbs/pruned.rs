//! For every transform, type and comparison: the files that are read are those that hold a matching row, and no others.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::scan::{MetadataColumns, SnapshotTable, parse_columns};
use lakehouse_core::{Options, Rows, Table, TableFormat};

use super::{FORMATS, lines, query};
use crate::support::memory;

const COLUMNS: &str =
    "k bigint not null, id bigint, n int, s text, p decimal(9, 2), d date, ts timestamptz, w timestamp";

/// 48 rows around zero and 1970, then one of NULLs.
const ROWS: &str = "SELECT value AS k, value * 7 - 100 AS id, arrow_cast(value - 20, 'Int32') AS n, \
     chr(97 + value % 5) || chr(97 + value / 5) AS s, arrow_cast(value - 20, 'Decimal128(9, 2)') AS p, \
     date '1969-12-01' + arrow_cast(value * 20, 'Int32') AS d, \
     arrow_cast(arrow_cast((value * 7 - 60) * 3600000000, 'Int64'), 'Timestamp(Microsecond, Some(\"UTC\"))') AS ts, \
     arrow_cast(arrow_cast((value * 7 - 60) * 3600000000, 'Int64'), 'Timestamp(Microsecond, None)') AS w \
     FROM generate_series(0, 47) UNION ALL SELECT 48, NULL, NULL, NULL, NULL, NULL, NULL, NULL";

/// A column, how the table is partitioned by it, three of its values in order.
const CASES: [(&str, &str, [&str; 3]); 29] = [
    ("id", "id", ["-93", "5", "82"]),
    ("id", "bucket(5, id)", ["-93", "5", "82"]),
    ("id", "truncate(50, id)", ["-93", "5", "82"]),
    ("n", "n", ["-20", "0", "9"]),
    ("n", "bucket(5, n)", ["-20", "0", "9"]),
    ("n", "truncate(10, n)", ["-20", "0", "9"]),
    ("s", "s", ["'ab'", "'cc'", "'eg'"]),
    ("s", "bucket(5, s)", ["'ab'", "'cc'", "'eg'"]),
    ("s", "truncate(1, s)", ["'ab'", "'cc'", "'eg'"]),
    ("p", "p", ["-19.00", "0.00", "9.00"]),
    ("p", "bucket(5, p)", ["-19.00", "0.00", "9.00"]),
    ("p", "truncate(500, p)", ["-19.00", "0.00", "9.00"]),
    (
        "d",
        "d",
        ["date '1969-12-01'", "date '1970-01-10'", "date '1971-05-05'"],
    ),
    (
        "d",
        "bucket(5, d)",
        ["date '1969-12-01'", "date '1970-01-10'", "date '1971-05-05'"],
    ),
    (
        "d",
        "year(d)",
        ["date '1969-12-01'", "date '1970-01-10'", "date '1971-05-05'"],
    ),
    (
        "d",
        "month(d)",
        ["date '1969-12-01'", "date '1970-01-10'", "date '1971-05-05'"],
    ),
    (
        "d",
        "day(d)",
        ["date '1969-12-01'", "date '1970-01-10'", "date '1971-05-05'"],
    ),
    ("w", "w", WALL),
    ("w", "bucket(5, w)", WALL),
    ("w", "year(w)", WALL),
    ("w", "month(w)", WALL),
    ("w", "day(w)", WALL),
    ("w", "hour(w)", WALL),
    ("ts", "ts", INSTANT),
    ("ts", "bucket(5, ts)", INSTANT),
    ("ts", "year(ts)", INSTANT),
    ("ts", "month(ts)", INSTANT),
    ("ts", "day(ts)", INSTANT),
    ("ts", "hour(ts)", INSTANT),
];
const WALL: [&str; 3] = [
    "timestamp '1969-12-29T19:00:00'",
    "timestamp '1970-01-01T10:00:00'",
    "timestamp '1970-01-08T03:00:00'",
];
const INSTANT: [&str; 3] = [
    "timestamptz '1969-12-29T19:00:00Z'",
    "timestamptz '1970-01-01T10:00:00Z'",
    "timestamptz '1970-01-08T03:00:00Z'",
];

fn conditions(column: &str, [low, middle, high]: [&str; 3]) -> Vec<String> {
    let mut conditions: Vec<String> = ["=", "<", "<=", ">", ">="]
        .iter()
        .flat_map(|operator| [low, middle, high].map(|value| format!("{column} {operator} {value}")))
        .collect();
    conditions.extend([
        format!("{column} IN ({low}, {high})"),
        format!("{column} BETWEEN {low} AND {middle}"),
        format!("{column} > {low} AND {column} < {high}"),
        format!("{column} < {low} OR {column} > {high}"),
        format!("{middle} <= {column}"),
        format!("{column} IS NULL"),
        format!("{column} IS NOT NULL"),
        format!("{column} = {high} OR {column} IS NULL"),
        format!("{column} = {low} OR {column} = {high}"),
        format!("{column} IN ({low}, {middle}) OR k = 48"),
        format!("k < 0 OR ({column} = {middle} AND (k < 0 OR {column} IN ({middle}, {high})))"),
        format!("NOT ({column} < {high})"),
    ]);
    conditions
}

async fn table(format: (TableFormat, Option<u8>), partitioning: &str) -> Table {
    let definition = Definition {
        schema: parse_columns(COLUMNS).unwrap(),
        partition_fields: parse_partitioning(partitioning).unwrap(),
        properties: Default::default(),
        format_version: format.1,
    };
    let table = Table::create_in(memory("pruned"), format.0, &definition)
        .await
        .unwrap();
    let (schema, batches) = query(ROWS).await;
    table
        .append(Rows::batches(schema, batches), &Options::default())
        .await
        .unwrap();
    table
}

/// How many files hold a row for which this is true.
async fn ideal(table: &Table, condition: &str) -> u64 {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let columns = MetadataColumns {
        file: true,
        ..MetadataColumns::default()
    };
    let provider = SnapshotTable::new(table.handle().clone(), snapshot).with_metadata_columns(columns);
    let ctx = SessionContext::new();
    ctx.register_table("t", Arc::new(provider)).unwrap();
    let sql = format!("SELECT count(DISTINCT _file) FROM t WHERE {condition}");
    let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    lines(&batches)[0].parse().unwrap()
}

#[tokio::test]
async fn no_file_is_read_that_holds_no_matching_row_whatever_the_transform_and_the_comparison() {
    let dry = Options {
        dry_run: true,
        ..Options::default()
    };
    let mut wrong = Vec::new();
    // Both versions of Iceberg prune alike.
    for format in &FORMATS[1..] {
        for (column, partitioning, values) in CASES {
            let table = table(*format, partitioning).await;
            for condition in conditions(column, values) {
                let report = table.delete(&condition, &dry).await.unwrap();
                let read = report.metric("num_target_files_scanned");
                let ideal = ideal(&table, &condition).await;
                // Delta keeps times of statistics in milliseconds: the largest value may be a little larger.
                let rounded = format.0 == TableFormat::Delta && matches!(column, "w" | "ts");
                let most = ideal + u64::from(rounded && condition.contains("> "));
                if read < ideal || read > most {
                    wrong.push(format!(
                        "{format:?} by {partitioning}, {condition}: {read} files for {ideal}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
