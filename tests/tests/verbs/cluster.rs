//! Compaction that puts rows in order: what readers gain, what stays, and that it comes to an end.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, DataFile, Definition, parse_partitioning};
use lakehouse_core::operations::{Clustering, CompactStrategy, RowOrder};
use lakehouse_core::scan::parse_sort_order;
use lakehouse_core::{Alter, Compact, Options, Report, Rows, Table, TableFormat};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{FORMATS, append, content, lines, query, table, table_with};
use crate::support::memory;

fn sorted(by: &str) -> RowOrder {
    RowOrder::By(Clustering::Sort(parse_sort_order(by).unwrap()))
}

fn names(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|name| (*name).to_owned()).collect()
}

fn zorder(columns: &[&str]) -> RowOrder {
    RowOrder::By(Clustering::ZOrder(names(columns)))
}

fn hilbert(columns: &[&str]) -> RowOrder {
    RowOrder::By(Clustering::Hilbert(names(columns)))
}

/// Files of some kilobytes, so that a few thousand rows are many files.
fn small_files(order: RowOrder) -> Compact {
    Compact {
        order,
        target_file_bytes: Some(4096),
        ..Compact::default()
    }
}

async fn compact(table: &Table, order: &RowOrder) -> Report {
    table
        .compact(&small_files(order.clone()), &Options::default())
        .await
        .unwrap()
}

async fn files(table: &Table) -> Vec<DataFile> {
    table.files(&At::Latest).await.unwrap()
}

async fn paths(table: &Table) -> BTreeSet<String> {
    files(table).await.into_iter().map(|file| file.path).collect()
}

/// The depth of all columns together, and the share of files that overlap others.
async fn figures(table: &Table, columns: &[&str]) -> (f64, f64) {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let found = table
        .overlaps(&snapshot, &files(table).await, Some(&names(columns)))
        .await
        .unwrap()
        .unwrap();
    let together = found.together;
    (
        together.depth,
        together.overlapping as f64 / together.files as f64,
    )
}

/// How many files a filter leaves on average, of these.
async fn left_by(table: &Table, filters: &[String]) -> f64 {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let mut left = 0;
    for filter in filters {
        left += table.files_where(&snapshot, filter).await.unwrap().len();
    }
    left as f64 / filters.len() as f64
}

/// Rows that lie in no order, `rows` in each of so many files: ids without a pattern, four regions, numbers of many
/// sizes. A file is cut after 8,192 rows at the earliest.
pub(super) async fn scattered(table: &Table, files: i64, rows: i64, n: &str) {
    for part in 0..files {
        let (schema, batches) = query(&format!(
            "SELECT (v * {files} + {part}) * 2654435761 % 1000003 AS id, \
             CASE v * 31 % 4 WHEN 0 THEN 'eu' WHEN 1 THEN 'us' WHEN 2 THEN NULL ELSE 'asia' END AS region, \
             arrow_cast({n}, 'Int32') AS n \
             FROM (SELECT value AS v, (value * 69621 + {part} * 17) % 6007 AS r FROM generate_series(1, {rows}) AS t(value))"
        ))
        .await;
        table
            .append(Rows::batches(schema, batches), &Options::default())
            .await
            .unwrap();
    }
}

/// Numbers of which most are small.
const SKEWED: &str = "floor(pow(10.0, r / 1001.0))";

/// Sums over the rows that no row can be missing from, or be in twice.
pub(super) async fn digest(table: &Table) -> Vec<String> {
    let ctx = SessionContext::new();
    ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
        .unwrap();
    let sql = "SELECT count(*), sum(id), sum(n), count(region), sum(id % 1009 * (n % 1013)), \
        sum(character_length(region) * (id % 10007)) FROM t";
    lines(&ctx.sql(sql).await.unwrap().collect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_order_keeps_the_rows_makes_filters_read_fewer_files_and_a_second_run_does_nothing() {
    let orders = [
        (sorted("id"), vec!["id"]),
        (sorted("n desc nulls last, id"), vec!["n"]),
        (sorted("region, id"), vec!["region", "id"]),
        (zorder(&["id", "n"]), vec!["id", "n"]),
        (hilbert(&["id", "n"]), vec!["id", "n"]),
        (hilbert(&["id", "region", "n"]), vec!["id", "region", "n"]),
    ];
    let mut random = StdRng::seed_from_u64(1);
    for (number, (order, columns)) in orders.iter().enumerate() {
        let format = FORMATS[number % 3];
        let partitioning = ["", "bucket(2, id)", ""][number / 2];
        let what = format!("{order:?}, {format:?}, {partitioning:?}");
        let table = table(format, partitioning).await;
        scattered(&table, 8, 16_000, SKEWED).await;
        table.delete("id % 7 = 3", &Options::default()).await.unwrap();
        let rows = digest(&table).await;
        let filters: Vec<String> = (0..20)
            .map(|_| {
                let (id, n) = (
                    random.random_range(0..1_000_000),
                    10f64.powf(random.random_range(0.0..6.0)) as i64,
                );
                format!(
                    "id BETWEEN {id} AND {} AND n BETWEEN {n} AND {}",
                    id + 50_000,
                    n + n / 4
                )
            })
            .collect();
        let count = files(&table).await.len() as f64;
        let (depth, read) = (
            figures(&table, columns).await.0,
            left_by(&table, &filters).await / count,
        );
        let report = compact(&table, order).await;
        assert!(report.committed, "{what}");
        assert_eq!(digest(&table).await, rows, "{what}");
        let count = files(&table).await.len();
        assert!(count >= 8, "{what}: {count} files");
        let (depth_now, share) = figures(&table, columns).await;
        let read_now = left_by(&table, &filters).await / count as f64;
        assert!(
            depth_now < depth / 2.0,
            "{what}: {depth_now} files instead of {depth} are looked into"
        );
        assert!(
            read_now < read * 0.75,
            "{what}: {read_now} of the files instead of {read} are left by a filter"
        );
        if let RowOrder::By(Clustering::Sort(_)) = order {
            assert!(
                share < 0.01 && depth_now < 2.5,
                "{what}: {share} overlap, {depth_now}"
            );
        }
        let told = report.order.unwrap();
        assert!(
            told.before.together.depth > told.after.unwrap().together.depth,
            "{what}"
        );
        let again = compact(&table, order).await;
        assert!(!again.committed, "{what}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rows_are_merged_with_what_they_overlap_and_the_other_files_stay() {
    for format in FORMATS {
        for order in [sorted("id"), hilbert(&["id", "n"])] {
            let what = format!("{format:?}, {order:?}");
            let table = table(format, "").await;
            scattered(&table, 6, 16_000, "r").await;
            assert!(compact(&table, &order).await.committed, "{what}");
            let before = paths(&table).await;
            assert!(before.len() >= 8, "{what}: {}", before.len());
            // Rows that lie among those of a few files.
            for from in [1000, 1010] {
                let few: Vec<String> = (from..from + 60)
                    .map(|id| format!("({id}, 'new', {})", id % 100 + 10))
                    .collect();
                append(&table, &few.join(", ")).await;
            }
            let rows = digest(&table).await;
            let report = compact(&table, &order).await;
            assert!(report.committed, "{what}");
            assert_eq!(digest(&table).await, rows, "{what}");
            let after = paths(&table).await;
            let stayed = before.intersection(&after).count();
            let least = if matches!(order, RowOrder::By(Clustering::Sort(_))) {
                before.len() - 2
            } else {
                before.len() / 4
            };
            assert!(
                stayed >= least && stayed < before.len(),
                "{what}: {stayed} of {} stayed",
                before.len()
            );
            let again = compact(&table, &order).await;
            assert!(!again.committed, "{what}: {again:?}");
        }
    }
}

#[tokio::test]
async fn rows_that_come_in_order_are_left_where_they_are() {
    for format in FORMATS {
        let table = table(format, "").await;
        for day in 0..5 {
            let rows: Vec<String> = (0..1500)
                .map(|n| format!("({}, 'r{}', {n})", day * 10_000 + n, n * 7919))
                .collect();
            append(&table, &rows.join(", ")).await;
        }
        let compact = |order: &str| Compact {
            order: sorted(order),
            target_file_bytes: Some(15_000),
            ..Compact::default()
        };
        for file in files(&table).await {
            assert!(
                (11_250..22_500).contains(&file.bytes),
                "neither small nor large: {}",
                file.bytes
            );
        }
        // No range overlaps another one, in whatever direction.
        for order in ["id", "id desc"] {
            let report = table.compact(&compact(order), &Options::default()).await.unwrap();
            assert!(!report.committed, "{format:?}: {report:?}");
        }
        assert!(
            table
                .compact(&compact("n"), &Options::default())
                .await
                .unwrap()
                .committed
        );
    }
}

/// A table of every type that can be sorted by.
fn every_type() -> SchemaRef {
    let inside = vec![Field::new("x", DataType::Int32, true)];
    Arc::new(Schema::new(vec![
        Field::new("i", DataType::Int32, true),
        Field::new("f", DataType::Float64, true),
        Field::new("g", DataType::Float32, true),
        Field::new("d", DataType::Decimal128(12, 2), true),
        Field::new("day", DataType::Date32, true),
        Field::new(
            "ts",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            true,
        ),
        Field::new("flag", DataType::Boolean, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("raw", DataType::Binary, true),
        Field::new("s", DataType::Struct(inside.into()), true),
        Field::new("a.b", DataType::Int64, true),
    ]))
}

/// Values of all those types for the numbers of a series: NULLs, NaNs, zeros of both signs, texts that begin alike for
/// longer than bounds are.
const TYPED: &str = "SELECT arrow_cast(CASE WHEN k % 11 = 0 THEN NULL ELSE k END, 'Int32') AS i, \
    CASE WHEN k % 13 = 0 THEN NULL WHEN k % 17 = 0 THEN 'NaN'::double WHEN k % 19 = 0 THEN -0.0 WHEN k % 23 = 0 THEN 0.0 \
        ELSE exp(k % 40) - 1000 END AS f, \
    arrow_cast(CASE WHEN k % 29 = 0 THEN 'NaN'::double ELSE k / 7.0 END, 'Float32') AS g, \
    arrow_cast(k * 1.25, 'Decimal128(12, 2)') AS d, \
    arrow_cast(arrow_cast(k % 3000, 'Int32'), 'Date32') AS day, \
    arrow_cast(k * 1000003, 'Timestamp(Microsecond, Some(\"UTC\"))') AS ts, \
    k % 2 = 0 AS flag, \
    CASE WHEN k % 31 = 0 THEN NULL ELSE concat('https://example.org/of/everybody/and/longer/', k) END AS name, \
    arrow_cast(concat('x', k % 100), 'Binary') AS raw, \
    named_struct('x', arrow_cast(k % 50, 'Int32')) AS s, \
    k AS \"a.b\" \
    FROM (SELECT value * 7919 % 100003 AS k FROM generate_series(1, 20000) AS t(value))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_every_type_are_put_in_order_and_stay_the_same() {
    let orders = [
        sorted("i nulls last"),
        sorted("f desc nulls first, i"),
        sorted("name desc, ts"),
        sorted("flag, day, d"),
        sorted("s.x, \"a.b\""),
        zorder(&["f", "name"]),
        zorder(&["g", "raw", "flag", "day"]),
        hilbert(&["ts", "name"]),
        hilbert(&["s.x", "d", "i", "f", "a.b", "name"]),
    ];
    for format in FORMATS {
        let definition = Definition {
            schema: every_type(),
            partition_fields: parse_partitioning("").unwrap(),
            properties: [].into(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("typed"), format.0, &definition)
            .await
            .unwrap();
        for part in 0..4 {
            let (schema, batches) = query(&format!("{TYPED} WHERE k % 4 = {part}")).await;
            table
                .append(Rows::batches(schema, batches), &Options::default())
                .await
                .unwrap();
        }
        let rows = content(&table).await;
        assert_eq!(rows.len(), 20_000);
        for order in &orders {
            let what = format!("{format:?}, {order:?}");
            // Delta keeps no bounds of booleans and bytes: which files overlap in them, nobody can tell.
            let told = format.0 != TableFormat::Delta || !what.contains("flag");
            assert_eq!(compact(&table, order).await.committed, told, "{what}");
            let again = compact(&table, order).await;
            assert!(!again.committed, "{what}: {again:?}");
        }
        assert!(content(&table).await == rows, "{format:?}: other rows");
    }
}

/// Reads a file by itself, in its own order.
async fn stored(table: &Table, file: &DataFile) -> Vec<String> {
    let bytes = table.handle().store.get(&file.path).await.unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let batches: Vec<_> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            rows.extend(lines(&[batch.slice(row, 1)]));
        }
    }
    rows
}

#[tokio::test]
async fn rows_of_each_file_are_in_the_order_that_was_asked_for() {
    for format in FORMATS {
        let table = table(format, "").await;
        scattered(&table, 3, 300, SKEWED).await;
        let compact = Compact {
            order: sorted("region desc nulls first, id"),
            ..Compact::default()
        };
        table.compact(&compact, &Options::default()).await.unwrap();
        let written = files(&table).await;
        assert_eq!(written.len(), 1);
        let ctx = SessionContext::new();
        ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
            .unwrap();
        let expected = ctx
            .sql("SELECT id, region FROM t ORDER BY region DESC NULLS FIRST, id")
            .await
            .unwrap();
        let expected = expected.collect().await.unwrap();
        let mut ordered = Vec::new();
        for batch in &expected {
            (0..batch.num_rows()).for_each(|row| ordered.extend(lines(&[batch.slice(row, 1)])));
        }
        let stored = stored(&table, &written[0]).await;
        let stored: Vec<String> = stored
            .iter()
            .map(|row| row.split('|').take(2).collect::<Vec<_>>().join("|"))
            .collect();
        assert_eq!(stored, ordered, "{format:?}");
    }
}

/// Statistics tell nothing of the rows of one file: it is put in the order that is asked for, and says so.
#[tokio::test]
async fn a_file_that_is_alone_is_put_in_the_order_that_is_asked_for_once() {
    for format in FORMATS {
        for order in [
            sorted("id"),
            sorted("n desc"),
            zorder(&["id", "n"]),
            hilbert(&["n", "id"]),
        ] {
            for partitioning in ["", "region"] {
                let what = format!("{format:?}, {partitioning}, {order:?}");
                let table = table(format, partitioning).await;
                scattered(&table, 1, 300, SKEWED).await;
                let (before, rows) = (paths(&table).await, content(&table).await);
                let compact = Compact {
                    order: order.clone(),
                    ..Compact::default()
                };
                let dry = Options {
                    dry_run: true,
                    ..Options::default()
                };
                let planned = table.compact(&compact, &dry).await.unwrap();
                assert_eq!(planned.groups.len(), before.len(), "{what}: {planned:?}");
                let report = table.compact(&compact, &Options::default()).await.unwrap();
                assert!(report.committed, "{what}: {report:?}");
                assert!(paths(&table).await.is_disjoint(&before), "{what}");
                assert_eq!(content(&table).await, rows, "{what}");
                if order == sorted("id") {
                    for file in files(&table).await {
                        let stored = stored(&table, &file).await;
                        let id = |row: &String| row.split('|').next().unwrap().parse::<i64>().unwrap();
                        assert!(stored.is_sorted_by_key(id), "{what}: {stored:?}");
                    }
                }
                let again = table.compact(&compact, &Options::default()).await.unwrap();
                assert!(!again.committed, "{what}: {again:?}");
                let checked = super::check::checked_all(&table).await;
                assert!(super::check::wrong(&checked).is_empty(), "{what}: {checked:?}");
                // Another order is another question.
                let other = Compact {
                    order: sorted("n, id"),
                    ..Compact::default()
                };
                assert!(
                    table
                        .compact(&other, &Options::default())
                        .await
                        .unwrap()
                        .committed,
                    "{what}"
                );
                assert_eq!(content(&table).await, rows, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn files_of_an_older_partitioning_are_put_in_order_in_the_new_one() {
    for format in FORMATS
        .into_iter()
        .filter(|(format, _)| *format == TableFormat::Iceberg)
    {
        let table = table(format, "").await;
        scattered(&table, 4, 800, SKEWED).await;
        let alter = Alter::default().partition_by("bucket(3, id)").unwrap();
        table.alter(&alter, &Options::default()).await.unwrap();
        scattered(&table, 2, 800, SKEWED).await;
        let rows = content(&table).await;
        let compact = Compact {
            order: zorder(&["id", "n"]),
            strategy: CompactStrategy::All,
            ..Compact::default()
        };
        assert!(
            table
                .compact(&compact, &Options::default())
                .await
                .unwrap()
                .committed
        );
        assert_eq!(content(&table).await, rows);
        let (depth, _) = figures(&table, &["id", "n"]).await;
        assert!(depth < 3.0, "{depth}");
        let partitions: BTreeSet<String> = files(&table)
            .await
            .iter()
            .map(|file| format!("{:?}", file.partition))
            .collect();
        assert_eq!(partitions.len(), 3);
        let again = table.compact(&compact, &Options::default()).await.unwrap();
        assert!(!again.committed, "{again:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_ordered_by_is_refused_by_name() {
    for format in FORMATS {
        let table = table(format, "region").await;
        append(&table, "(1, 'eu', 1)").await;
        for (order, said) in [
            (sorted("nowhere"), "there is no column nowhere"),
            (zorder(&["id", "id"]), "column id is named twice"),
            (hilbert(&["region"]), "partitioned by these columns"),
            (hilbert(&[]), "no column is named"),
            (zorder(&["id", "region.x"]), "there is no column region.x"),
        ] {
            let error = table
                .compact(&small_files(order.clone()), &Options::default())
                .await
                .unwrap_err();
            assert!(error.to_string().contains(said), "{format:?}, {order:?}: {error}");
            assert!(
                error.to_string().contains("id") || error.hint().is_some(),
                "{error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skewed_values_are_clustered_too() {
    for order in [zorder(&["id", "n"]), hilbert(&["id", "n"])] {
        let table = table_with(FORMATS[1], "", &[]).await;
        // Half of the rows have one number, most others lie close together.
        scattered(
            &table,
            6,
            16_000,
            "CASE WHEN v % 2 = 0 THEN 7 ELSE floor(pow(10.0, r / 1001.0)) END",
        )
        .await;
        let (before, _) = figures(&table, &["id", "n"]).await;
        compact(&table, &order).await;
        let (after, _) = figures(&table, &["id", "n"]).await;
        let count = files(&table).await.len();
        assert!(
            count >= 8 && after < before * 0.6,
            "{order:?}: {after} of {count}, before {before}"
        );
        assert!(!compact(&table, &order).await.committed);
    }
}

#[tokio::test]
async fn rows_keep_their_ids_where_they_are_put_in_order() {
    for (format, needed) in super::lineage::KINDS {
        for order in [sorted("n, id desc"), hilbert(&["id", "n"])] {
            let table = table_with(format, "", needed).await;
            scattered_once(&table).await;
            table
                .update("n = n + 1", Some("id % 5 = 2"), &Options::default())
                .await
                .unwrap();
            let before = super::lineage::lineage(&table).await;
            assert!(compact(&table, &order).await.committed);
            assert_eq!(
                super::lineage::lineage(&table).await,
                before,
                "{format:?}, {order:?}"
            );
        }
    }
}

/// Several files of rows with ids of their own.
async fn scattered_once(table: &Table) {
    for part in 0..4 {
        let rows: Vec<String> = (0..400)
            .map(|n| format!("({}, 'eu', {})", n * 4 + part, n * 7919 % 1000))
            .collect();
        append(table, &rows.join(", ")).await;
    }
}

#[tokio::test]
async fn the_sort_order_of_a_table_is_kept_unless_rows_shall_stay_as_they_lie() {
    for format in FORMATS
        .into_iter()
        .filter(|(format, _)| *format == TableFormat::Iceberg)
    {
        let table = table(format, "").await;
        let alter = Alter::default().sort_by("n desc nulls last, id").unwrap();
        table.alter(&alter, &Options::default()).await.unwrap();
        scattered_once(&table).await;
        let rows = content(&table).await;
        let unordered = Compact {
            order: RowOrder::AsItIs,
            ..Compact::default()
        };
        table.compact(&unordered, &Options::default()).await.unwrap();
        let first = stored(&table, &files(&table).await[0]).await;
        let numbers: Vec<&str> = first.iter().filter_map(|row| row.split('|').nth(2)).collect();
        assert!(!numbers.is_sorted_by_key(|n| -n.parse::<i64>().unwrap()));
        // One file overlaps nothing: new rows make a reason.
        append(&table, "(9999, 'us', 500)").await;
        assert!(
            table
                .compact(&Compact::default(), &Options::default())
                .await
                .unwrap()
                .committed
        );
        let written = files(&table).await;
        assert_eq!(written.len(), 1);
        let ordered = stored(&table, &written[0]).await;
        let keys: Vec<(i64, i64)> = ordered
            .iter()
            .map(|row| {
                let cells: Vec<&str> = row.split('|').collect();
                (-cells[2].parse::<i64>().unwrap(), cells[0].parse().unwrap())
            })
            .collect();
        assert!(keys.is_sorted());
        assert_eq!(content(&table).await.len(), rows.len() + 1);
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        let figures = table.overlaps(&snapshot, &written, None).await.unwrap().unwrap();
        let named: Vec<&str> = figures
            .columns
            .iter()
            .map(|(column, _)| column.as_str())
            .collect();
        assert_eq!(named, ["n", "id"]);
    }
}

/// A table that Spark made with CLUSTER BY, copied to where it can be changed.
async fn clustered(columns: &str) -> (tempfile::TempDir, Table) {
    let folder = tempfile::tempdir().unwrap();
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures/spark/delta_clustered/table/_delta_log");
    let to = folder.path().join("_delta_log");
    std::fs::create_dir(&to).unwrap();
    let log = std::fs::read_to_string(from.join("00000000000000000000.json")).unwrap();
    let log = log.replace("[[\\\"id\\\"]]", columns);
    std::fs::write(to.join("00000000000000000000.json"), log).unwrap();
    let table = Table::open(folder.path().to_str().unwrap()).await.unwrap();
    (folder, table)
}

#[tokio::test]
async fn a_clustered_delta_table_is_put_in_order_by_its_columns_and_files_say_who_did_it() {
    for (columns, named) in [
        ("[[\\\"id\\\"]]", vec!["id"]),
        ("[[\\\"s\\\"],[\\\"id\\\"]]", vec!["s", "id"]),
    ] {
        let (folder, table) = clustered(columns).await;
        for part in 0..3 {
            let (schema, batches) = query(&format!(
                "SELECT arrow_cast(value * 3 + {part}, 'Int32') AS id, concat('r', value * 7919 % 10007) AS s \
                 FROM generate_series(1, 16000) AS t(value)"
            ))
            .await;
            table
                .append(Rows::batches(schema, batches), &Options::default())
                .await
                .unwrap();
        }
        let report = compact(&table, &RowOrder::OfTable).await;
        assert!(report.committed);
        let (depth, _) = figures(&table, &named).await;
        assert!(depth < 3.0 && files(&table).await.len() > 4, "{depth}");
        let newest = folder
            .path()
            .join(format!("_delta_log/{:020}.json", report.version));
        let log = std::fs::read_to_string(newest).unwrap();
        assert!(log.contains(r#""clusteringProvider":"lakehouse""#), "{log}");
        assert!(!compact(&table, &RowOrder::OfTable).await.committed);
        // Without the feature there is no such note.
        let plain = super::table(FORMATS[2], "").await;
        scattered_once(&plain).await;
        let report = compact(&plain, &hilbert(&["id", "n"])).await;
        let log = plain
            .handle()
            .store
            .get(&format!("_delta_log/{:020}.json", report.version))
            .await
            .unwrap();
        assert!(!String::from_utf8_lossy(&log).contains("clusteringProvider"));
    }
}

#[tokio::test]
async fn files_that_another_implementation_clustered_are_left_to_it_unless_an_order_is_asked_for() {
    let (folder, table) = clustered("[[\\\"id\\\"]]").await;
    for part in 0..2 {
        let (schema, batches) = query(&format!(
            "SELECT arrow_cast(value * 2 + {part}, 'Int32') AS id, 'x' AS s FROM generate_series(1, 10) AS t(value)"
        ))
        .await;
        let report = table
            .append(Rows::batches(schema, batches), &Options::default())
            .await
            .unwrap();
        let entry = folder
            .path()
            .join(format!("_delta_log/{:020}.json", report.version));
        let log = std::fs::read_to_string(&entry).unwrap();
        let noted = log.replace(
            r#""dataChange":true"#,
            r#""dataChange":true,"clusteringProvider":"liquid""#,
        );
        assert_ne!(log, noted);
        std::fs::write(&entry, noted).unwrap();
    }
    let table = Table::open(folder.path().to_str().unwrap()).await.unwrap();
    assert!(!compact(&table, &RowOrder::OfTable).await.committed);
    assert!(compact(&table, &sorted("id")).await.committed);
}

/// Rows that are many times what may be held are sorted on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sorting_keeps_to_the_memory_limit() {
    let folder = tempfile::tempdir().unwrap();
    let mut taken = Vec::new();
    for (number, (order, limit, format)) in [
        ("--hilbert=id,n", "32MB", FORMATS[1]),
        ("--sort-by=region, id", "32MB", FORMATS[2]),
        ("--zorder=id,n", "4GB", FORMATS[1]),
    ]
    .into_iter()
    .enumerate()
    {
        let place = folder.path().join(number.to_string());
        let place = place.to_str().unwrap();
        let table = super::table_in(lakehouse_core::store::Store::open(place).unwrap(), format, "").await;
        for part in 0..5 {
            let (schema, batches) = query(&format!(
                "SELECT v * 7919 % 1000003 AS id, concat(repeat('x', 350), v * 31 % 100003) AS region, \
                 arrow_cast(v % 977, 'Int32') AS n \
                 FROM (SELECT value * 5 + {part} AS v FROM generate_series(1, 200000) AS t(value))"
            ))
            .await;
            table
                .append(Rows::batches(schema, batches), &Options::default())
                .await
                .unwrap();
        }
        let args = ["compact", place, order, "--memory-limit", limit, "--json"];
        taken.push(super::sifted::peak(folder.path(), &args));
        assert_eq!(
            files(&table).await.iter().map(|file| file.rows).sum::<u64>(),
            1_000_000
        );
    }
    // Held whole, the rows are some 370 MB before they are encoded.
    let [hilbert, sort, free] = taken[..] else {
        panic!("{taken:?}")
    };
    assert!(hilbert + 150_000 < free && sort + 150_000 < free, "{taken:?} kB");
}
