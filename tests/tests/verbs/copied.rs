//! Rewritten files: row groups of which no row goes, or few, are copied as they are stored, and nobody can tell.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::scan::{MetadataColumns, SnapshotTable};
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::faulty;
use lakehouse_core::{Compact, Merge, Options, Report, Rows, Table, TableFormat, scan};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::FORMATS;
use crate::support::memory;

const GROUP: &str = "write.parquet.row-group-limit";
/// 20 row groups of 50 rows, or one of 1000.
const ROWS: i64 = 1000;

/// A table of `ROWS` rows in one file, and one more file; row groups of 50 rows if `small`.
pub(super) async fn table(
    store: Store,
    format: (TableFormat, Option<u8>),
    partitioning: &str,
    small: bool,
) -> Table {
    let columns = "id bigint, name string, x double, s struct<a bigint, b string>, l array<bigint>";
    let properties = small.then(|| (GROUP.to_owned(), "50".to_owned()));
    let definition = Definition {
        schema: scan::parse_columns(columns).unwrap(),
        partition_fields: parse_partitioning(partitioning).unwrap(),
        properties: properties.into_iter().collect(),
        format_version: format.1,
    };
    let table = Table::create_in(store, format.0, &definition).await.unwrap();
    for (from, to) in [(0, ROWS - 1), (ROWS, ROWS + 299)] {
        let (schema, batches) = query(&source(from, to)).await;
        let options = Options::default();
        table
            .append(Rows::batches(schema, batches), &options)
            .await
            .unwrap();
    }
    table
}

pub(super) fn source(from: i64, to: i64) -> String {
    format!(
        "SELECT value AS id, CASE WHEN value % 7 = 0 THEN NULL ELSE 'n' || (value % 5) END AS name, \
         CASE WHEN value % 90 = 3 THEN 'NaN'::double ELSE value / 8.0 END AS x, \
         named_struct('a', value * 2, 'b', 'b' || value) AS s, \
         CASE WHEN value % 4 = 0 THEN NULL ELSE [value, value + 1] END AS l FROM generate_series({from}, {to})"
    )
}

pub(super) async fn query(sql: &str) -> (arrow::datatypes::SchemaRef, Vec<RecordBatch>) {
    let frame = scan::session(None).sql(sql).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    (schema, frame.collect().await.unwrap())
}

/// What a query over the newest version returns; row lineage is there where the table has it.
async fn ask(table: &Table, sql: &str) -> RecordBatch {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let columns = MetadataColumns {
        lineage: true,
        ..MetadataColumns::default()
    };
    let provider = SnapshotTable::new(table.handle().clone(), snapshot).with_metadata_columns(columns);
    let ctx = SessionContext::new_with_config(scan::session(None).copied_config());
    ctx.register_table("t", Arc::new(provider)).unwrap();
    let frame = ctx.sql(sql).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    concat_batches(&schema, &frame.collect().await.unwrap()).unwrap()
}

/// Asks both the same; the answers must be equal, whichever way pages and row groups are skipped.
pub(super) async fn same(copied: &Table, decoded: &Table, what: &str) {
    for condition in [
        "true",
        "id = 437",
        "id BETWEEN 120 AND 131 OR id = 999",
        "name = 'n3' AND x < 30",
        "s['a'] >= 1990",
        "x IS NULL OR name IS NULL",
        "isnan(x)",
    ] {
        let sql = format!("SELECT * FROM t WHERE {condition} ORDER BY id");
        // As text: a NaN is not equal to itself.
        let one = pretty_format_batches(&[ask(copied, &sql).await])
            .unwrap()
            .to_string();
        let other = pretty_format_batches(&[ask(decoded, &sql).await])
            .unwrap()
            .to_string();
        assert_eq!(one, other, "{what}: {condition}");
    }
}

/// Every bound that the metadata has holds.
async fn bounds_hold(table: &Table, what: &str) {
    for file in table.files(&At::Latest).await.unwrap() {
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        let provider = SnapshotTable::new(table.handle().clone(), snapshot).with_files(vec![file.clone()]);
        let ctx = SessionContext::new();
        ctx.register_table("t", Arc::new(provider)).unwrap();
        let sql = "SELECT count(*), min(id), max(id), sum(CASE WHEN name IS NULL THEN 1 ELSE 0 END) FROM t WHERE id + 0 = id";
        let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
        let number = |at: usize| batches[0].column(at).as_primitive::<Int64Type>().value(0);
        let visible = file.rows - file.masked_rows().unwrap();
        assert_eq!(visible, number(0) as u64, "{what}");
        let bound = |value: &Option<datafusion::scalar::ScalarValue>| match value {
            Some(datafusion::scalar::ScalarValue::Int64(value)) => *value,
            _ => None,
        };
        let ids = &file.columns["id"];
        if visible < file.rows {
            // Rows that are masked count too.
            let (min, max) = (bound(&ids.min).unwrap(), bound(&ids.max).unwrap());
            assert!(min <= number(1) && max >= number(2), "{what}: {min} to {max}");
            assert!(file.columns["name"].nulls >= Some(number(3) as u64), "{what}");
            continue;
        }
        assert_eq!(
            (bound(&ids.min), bound(&ids.max)),
            (Some(number(1)), Some(number(2))),
            "{what}"
        );
        assert_eq!(file.columns["name"].nulls, Some(number(3) as u64), "{what}");
    }
}

fn rewriting() -> Options {
    Options {
        strategy: lakehouse_core::operations::Strategy::CopyOnWrite,
        ..Options::default()
    }
}

/// What is done, on both tables.
async fn delete(table: &Table) -> Report {
    table
        .delete("id IN (3, 4, 512) OR id = 1200", &rewriting())
        .await
        .unwrap()
}

async fn update(table: &Table) -> Report {
    let set = "name = 'changed'";
    table
        .update(set, Some("id BETWEEN 740 AND 760"), &rewriting())
        .await
        .unwrap()
}

async fn merge(table: &Table) -> Report {
    let (schema, batches) = query(&source(990, 1010).replace("value % 5", "value % 3")).await;
    let merge = Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all();
    table
        .merge(Rows::batches(schema, batches), &merge, &rewriting())
        .await
        .unwrap()
}

#[tokio::test]
async fn nobody_can_tell_row_groups_that_were_copied() {
    for format in FORMATS {
        for partitioning in ["", "bucket(2, id)"] {
            let what = format!("{format:?} {partitioning}");
            let copied = table(memory("copied"), format, partitioning, true).await;
            let decoded = table(memory("decoded"), format, partitioning, false).await;
            same(&copied, &decoded, &what).await;
            let mut groups = 0;
            for step in 0..3 {
                let (one, other) = match step {
                    0 => (delete(&copied).await, delete(&decoded).await),
                    1 => (update(&copied).await, update(&decoded).await),
                    _ => (merge(&copied).await, merge(&decoded).await),
                };
                let what = format!("{what} {}", one.operation);
                same(&copied, &decoded, &what).await;
                bounds_hold(&copied, &what).await;
                for metric in [
                    "num_target_rows_copied",
                    "num_output_rows",
                    "num_target_files_rewritten",
                ] {
                    assert_eq!(one.metric(metric), other.metric(metric), "{what}: {metric}");
                }
                assert_eq!(other.metric("num_target_row_groups_copied"), 0, "{what}");
                groups += one.metric("num_target_row_groups_copied");
                assert!(one.metric("num_target_row_groups_copied") > 5, "{what}: {one:?}");
            }
            assert!(groups > 30, "{what}: {groups}");

            // Rows that were masked, then their files rewritten by a compaction.
            for table in [&copied, &decoded] {
                let masking = Options {
                    strategy: lakehouse_core::operations::Strategy::MergeOnRead,
                    ..Options::default()
                };
                table.delete("id % 100 = 17", &masking).await.unwrap();
                table
                    .compact(&Compact::default(), &Options::default())
                    .await
                    .unwrap();
            }
            same(&copied, &decoded, &format!("{what} compact")).await;
            bounds_hold(&copied, &what).await;
        }
    }
}

/// A table of one file of 4 MB that nothing can compress, in 20 row groups.
async fn heavy(store: Store, format: (TableFormat, Option<u8>)) -> Table {
    let definition = Definition {
        schema: scan::parse_columns("id bigint, payload string").unwrap(),
        partition_fields: Vec::new(),
        properties: [(GROUP.to_owned(), "100".to_owned())].into(),
        format_version: format.1,
    };
    let table = Table::create_in(store, format.0, &definition).await.unwrap();
    let mut state = 1u64;
    let mut text = || -> String {
        let mut digits = (0..256).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            format!("{:016x}", state ^ (state >> 29))
        });
        digits.by_ref().collect()
    };
    let ids: Int64Array = (0..2000).collect();
    let payloads: StringArray = (0..2000).map(|_| Some(text())).collect();
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("payload", Arc::new(payloads))];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    table
        .append(Rows::batches(rows.schema(), vec![rows]), &Options::default())
        .await
        .unwrap();
    table
}

#[tokio::test]
async fn row_groups_that_are_copied_are_read_once() {
    // Footers are looked for in the last 256 KiB: by the scan that finds the row, before the row groups are
    // copied, and by the scan of the others.
    const FOOTERS: u64 = 3 * (256 << 10);
    for format in FORMATS {
        let (store, requests) = faulty(&memory("read-once"));
        let table = heavy(store, format).await;
        let file = table.files(&At::Latest).await.unwrap().remove(0);
        assert!(file.bytes > 3 << 20, "{}", file.bytes);
        requests.reset();
        let report = table.delete("id = 430", &rewriting()).await.unwrap();
        assert_eq!(report.metric("num_target_row_groups_copied"), 19, "{format:?}");
        assert_eq!(report.metric("num_target_rows_copied"), 1999, "{format:?}");
        let received = requests.counts().get_bytes;
        assert!(
            received < file.bytes + FOOTERS + (300 << 10),
            "{format:?}: {received} of {}",
            file.bytes
        );
        // Of the row group that was decoded only its own bytes were read: a scan of it all would have
        // taken every byte a second time.
        let planned = file.bytes;
        let rewritten = report.metric("bytes_read") - planned;
        assert!(
            rewritten <= file.bytes && rewritten > file.bytes / 10 * 9,
            "{format:?}: {rewritten}"
        );
        assert_eq!(
            ask(&table, "SELECT id FROM t WHERE payload > ''")
                .await
                .num_rows(),
            1999
        );
    }
}

#[tokio::test]
async fn a_local_table_is_rewritten_the_same_way() {
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let name = format!("{format:?}").replace(|c: char| !c.is_alphanumeric(), "");
        let store = Store::open(folder.path().join(name).to_str().unwrap()).unwrap();
        let table = table(store, format, "", true).await;
        let report = delete(&table).await;
        assert_eq!(
            report.metric("num_target_row_groups_copied"),
            18 + 5,
            "{format:?}"
        );
        assert_eq!(ask(&table, "SELECT * FROM t").await.num_rows(), 1296);
    }
}

/// Updates, deletes, or updates by a merge the rows of a range, the file by file decision left to the table or not.
async fn change(table: &Table, what: u32, (low, high): (i64, i64), options: &Options) -> Report {
    let range = format!("id BETWEEN {low} AND {high}");
    match what {
        0 => table
            .update("name = 'u' || id", Some(&range), options)
            .await
            .unwrap(),
        1 => table
            .delete(&format!("{range} AND id % 3 > 0"), options)
            .await
            .unwrap(),
        _ => {
            let (schema, batches) = query(&source(low, high).replace("value % 5", "value % 3")).await;
            let merge = Merge::on("id").when_matched_update_all();
            let rows = Rows::batches(schema, batches);
            table.merge(rows, &merge, options).await.unwrap()
        }
    }
}

/// Paths of the files, and of those that have masks.
async fn paths(table: &Table) -> (BTreeSet<String>, BTreeSet<String>) {
    let files = table.files(&At::Latest).await.unwrap();
    let masked = files.iter().filter(|file| !file.masks.is_empty());
    let masked = masked.map(|file| file.path.clone()).collect();
    (files.into_iter().map(|file| file.path).collect(), masked)
}

#[tokio::test]
async fn row_groups_of_which_few_rows_go_are_copied_and_masked_in_the_new_file() {
    for format in FORMATS {
        let mut masked_anew = 0;
        for seed in 0..4 {
            let mut random = StdRng::seed_from_u64(seed);
            let partitioning = ["", "bucket(2, id)"][seed as usize % 2];
            let auto = table(memory("auto"), format, partitioning, true).await;
            let decoded = table(memory("decoded"), format, partitioning, false).await;
            for round in 0..6 {
                let low = random.random_range(0..ROWS - 300);
                let range = (low, low + random.random_range(100..600));
                let what = random.random_range(0..3);
                let before = paths(&auto).await.0;
                let report = change(&auto, what, range, &Options::default()).await;
                let other = change(&decoded, what, range, &rewriting()).await;
                let what = format!(
                    "{format:?}, seed {seed}, round {round}: {} {range:?}",
                    report.operation
                );
                same(&auto, &decoded, &what).await;
                bounds_hold(&auto, &what).await;
                for metric in ["num_target_rows_updated", "num_target_rows_deleted"] {
                    assert_eq!(report.metric(metric), other.metric(metric), "{what}: {metric}");
                }
                assert_eq!(paths(&decoded).await.1, BTreeSet::new(), "{what}");
                let (_, masked) = paths(&auto).await;
                masked_anew += masked.difference(&before).count();
            }
            for table in [&auto, &decoded] {
                let options = Options::default();
                table.compact(&Compact::default(), &options).await.unwrap();
                assert_eq!(paths(table).await.1, BTreeSet::new(), "{format:?}, seed {seed}");
            }
            same(&auto, &decoded, &format!("{format:?}, seed {seed}: compact")).await;
        }
        assert!(masked_anew > 5, "{format:?}: {masked_anew}");
    }
}

#[tokio::test]
async fn of_a_third_of_a_file_nothing_is_decoded_where_its_keys_are_together() {
    for format in FORMATS {
        let (store, requests) = faulty(&memory("third"));
        let table = heavy(store, format).await;
        let file = table.files(&At::Latest).await.unwrap().remove(0);
        requests.reset();
        // Six row groups, and half of another one.
        let report = table.delete("id < 650", &Options::default()).await.unwrap();
        assert_eq!(report.metric("num_target_files_rewritten"), 1, "{format:?}");
        assert_eq!(report.metric("num_target_row_groups_copied"), 14, "{format:?}");
        assert_eq!(report.metric("num_target_rows_copied"), 1350, "{format:?}");
        let new = table.files(&At::Latest).await.unwrap().remove(0);
        assert!(new.path != file.path, "{format:?}");
        assert_eq!((new.rows, new.masked_rows()), (1400, Some(50)), "{format:?}");
        let rows = ask(&table, "SELECT min(id), count(*) FROM t WHERE payload > ''").await;
        let number = |column: usize| rows.column(column).as_primitive::<Int64Type>().value(0);
        assert_eq!((number(0), number(1)), (650, 1350), "{format:?}");
    }
}
