//! A filter on the metadata of a table leaves what it leaves of all files once they are read in full, and reads no more
//! of the others than what decides: with many files, planning a scan must cost what the filter asks for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use lakehouse_core::format::Outcome;
use lakehouse_core::model::{
    At, Change, ColumnStats, CommitId, DataFile, Definition, OperationKind, Prune, Snapshot,
    parse_partitioning,
};
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::faulty;
use lakehouse_core::{Table, TableFormat};
use object_store::memory::InMemory;

use super::FORMATS;
use crate::cli::lab::lake;
use crate::support::data_file;

/// What a filter leaves, and what it counted: files looked at, skipped by partition, by statistics, read in full.
async fn sifted(table: &Table, snapshot: &Arc<Snapshot>, filter: &Expr) -> (Vec<DataFile>, [u64; 4]) {
    let prune = Arc::new(Prune::matching(filter.clone(), Arc::clone(&snapshot.schema)).unwrap());
    let files = table.handle().format.files(snapshot, Arc::clone(&prune));
    let files = sorted(files.try_collect().await.unwrap());
    (files, counted(&prune))
}

fn counted(prune: &Prune) -> [u64; 4] {
    let counts = prune.counts();
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
    [
        read(&counts.files) + read(&counts.files_in_skipped_manifests),
        read(&counts.skipped_by_partition) + read(&counts.files_in_skipped_manifests),
        read(&counts.skipped_by_statistics),
        read(&counts.read_in_full),
    ]
}

/// The same, of all files, read in full.
fn naive(all: &[DataFile], snapshot: &Snapshot, filter: &Expr) -> (Vec<DataFile>, [u64; 3]) {
    let prune = Prune::matching(filter.clone(), Arc::clone(&snapshot.schema)).unwrap();
    let keep = prune.keep_files(snapshot, all).unwrap();
    let kept = all.iter().zip(keep).filter(|(_, keep)| *keep);
    let [files, by_partition, by_statistics, _] = counted(&prune);
    (
        kept.map(|(file, _)| file.clone()).collect(),
        [files, by_partition, by_statistics],
    )
}

fn sorted(mut files: Vec<DataFile>) -> Vec<DataFile> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

async fn everything(table: &Table, snapshot: &Arc<Snapshot>) -> Vec<DataFile> {
    let all = Arc::new(Prune::everything());
    let files = table.handle().format.files(snapshot, all);
    sorted(files.try_collect().await.unwrap())
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// Filters on a column, from what files know of it.
fn filters(field: &Field, snapshot: &Snapshot, files: &[DataFile]) -> Vec<Expr> {
    let of_partition = |file: &DataFile| -> Vec<ScalarValue> {
        let fields = snapshot.specs[&file.spec_id].iter().zip(&file.partition);
        fields
            .filter(|(partition, _)| partition.source == *field.name())
            .map(|(_, value)| value.clone())
            .collect()
    };
    let of_statistics = |file: &DataFile| {
        let stats = file.columns.get(field.name());
        stats.map_or_else(Vec::new, |stats| {
            [&stats.min, &stats.max].into_iter().flatten().cloned().collect()
        })
    };
    let values = files
        .iter()
        .flat_map(|file| [of_partition(file), of_statistics(file)].concat());
    let values: Vec<ScalarValue> = values
        .filter(|value| value.data_type() == *field.data_type() && !value.is_null())
        .collect();
    let name = || column(field.name());
    let mut filters = vec![name().is_null(), name().is_not_null()];
    let step = (values.len() / 4).max(1);
    for value in values.iter().step_by(step) {
        let value = || lit(value.clone());
        filters.extend([
            name().eq(value()),
            name().lt(value()),
            name().gt_eq(value()),
            name().not_eq(value()).and(name().is_not_null()),
        ]);
    }
    if let (Some(first), Some(last)) = (values.first(), values.last()) {
        let list = vec![lit(first.clone()), lit(last.clone())];
        filters.push(name().in_list(list.clone(), false));
        filters.push(name().in_list(list, true));
    }
    filters
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_tables_that_others_wrote_filters_leave_what_they_leave_of_files_read_in_full() {
    let mut tables: Vec<PathBuf> = ["spark", "foreign"]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(fixtures().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path().join("table"))
        .filter(|table| table.is_dir())
        .collect();
    tables.sort();
    let (mut asked, mut skipped, mut opened) = (0, 0, 0);
    for place in tables {
        let Ok(table) = Table::open(place.to_str().unwrap()).await else {
            continue;
        };
        let Ok(snapshot) = table.snapshot(&At::Latest).await else {
            continue;
        };
        let all = Arc::new(Prune::everything());
        let files = table.handle().format.files(&snapshot, all);
        // Some have files that are refused.
        let Ok(files) = files.try_collect().await else {
            continue;
        };
        let files = sorted(files);
        opened += 1;
        for field in snapshot.schema.fields() {
            for filter in filters(field, &snapshot, &files) {
                let (found, counts) = sifted(&table, &snapshot, &filter).await;
                let (wanted, counted) = naive(&files, &snapshot, &filter);
                let what = format!("{}: {filter}", place.display());
                assert_eq!(found, wanted, "{what}");
                // Which of the two skips a file may differ: a manifest's range is wider than its files' values.
                assert_eq!(counts[0], counted[0], "{what}");
                assert_eq!(counts[1] + counts[2], counted[1] + counted[2], "{what}");
                asked += 1;
                skipped += counts[1] + counts[2];
            }
        }
    }
    assert!(
        opened > 40 && asked > 1000 && skipped > 1000,
        "{opened} {asked} {skipped}"
    );
}

/// `day`, by which it is partitioned, `key`, and so many columns more.
fn schema(columns: usize) -> SchemaRef {
    let mut fields = vec![
        Field::new("day", DataType::Date32, true),
        Field::new("key", DataType::Int64, true),
    ];
    fields.extend((0..columns).map(|at| {
        let data_type = if at % 2 == 0 {
            DataType::Utf8
        } else {
            DataType::Int64
        };
        Field::new(format!("c{at}"), data_type, true)
    }));
    Arc::new(Schema::new(fields))
}

const PER_DAY: i64 = 100;
const COMMITS: i64 = 10;

/// A file that is not there: a hundred lie in each partition, and their keys do not follow their days.
fn file(number: i64, files: i64, columns: usize, snapshot: &Snapshot) -> DataFile {
    let key = number * 7919 % files * 10;
    let day = i32::try_from(number / PER_DAY).unwrap();
    let stats = |min, max| ColumnStats {
        values: Some(1000),
        nulls: Some(u64::from(number % 3 == 0)),
        min: Some(min),
        max: Some(max),
        exact: true,
        ..ColumnStats::default()
    };
    let day_value = ScalarValue::Date32(Some(day));
    let mut known = BTreeMap::from([(
        "key".to_owned(),
        stats(ScalarValue::Int64(Some(key)), ScalarValue::Int64(Some(key + 9))),
    )]);
    for at in 0..columns {
        let bound = |more: i64| match at % 2 {
            0 => ScalarValue::Utf8(Some(format!("{:08}", number + more))),
            _ => ScalarValue::Int64(Some(number + more)),
        };
        known.insert(format!("c{at}"), stats(bound(0), bound(5)));
    }
    let path = format!(
        "{}day={day}/{number:08}.parquet",
        snapshot.capabilities.data_prefix
    );
    DataFile {
        spec_id: snapshot.spec_id,
        partition: vec![day_value],
        columns: known,
        ..data_file(path, 1_000_000, 1000)
    }
}

/// A table of so many files in ten commits, after which Delta writes a checkpoint, and one commit more that replaces
/// some.
async fn large(store: Store, format: (TableFormat, Option<u8>), files: i64, columns: usize) -> Table {
    let definition = Definition {
        schema: schema(columns),
        partition_fields: parse_partitioning("day").unwrap(),
        properties: BTreeMap::from([("delta.dataSkippingNumIndexedCols".to_owned(), "-1".to_owned())]),
        format_version: format.1,
    };
    let table = Table::create_in(store, format.0, &definition).await.unwrap();
    let mut snapshot = table.snapshot(&At::Latest).await.unwrap();
    let each = files / COMMITS;
    for commit in 0..=COMMITS {
        let mut change = Change::new(OperationKind::Append, CommitId(format!("commit-{commit}")));
        let numbers = commit * each..(commit + 1) * each;
        if commit < COMMITS {
            change.added = numbers.map(|n| file(n, files, columns, &snapshot)).collect();
        } else {
            let all = everything(&table, &snapshot).await;
            change.removed = all
                .iter()
                .filter(|file| file.path.contains("day=1/"))
                .cloned()
                .collect();
            change.added = change
                .removed
                .iter()
                .map(|file| {
                    let path = file.path.replace(".parquet", "-again.parquet");
                    DataFile {
                        recorded: path.clone(),
                        path,
                        sequence: None,
                        first_row_id: None,
                        ..file.clone()
                    }
                })
                .collect();
            assert_eq!(change.removed.len() as i64, PER_DAY);
        }
        let outcome = table.handle().format.publish(&snapshot, &change).await.unwrap();
        let Outcome::Committed(next) = outcome else {
            panic!("{outcome:?}")
        };
        snapshot = next;
    }
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_files_only_those_that_a_filter_leaves_are_read_in_full() {
    const FILES: i64 = 20_000;
    for format in FORMATS.into_iter().rev() {
        let root = "memory://sifted".parse().unwrap();
        let (store, faults) = faulty(&Store::over(Arc::new(InMemory::new()), root));
        let table = large(store, format, FILES, 10).await;
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        faults.reset();
        let all = everything(&table, &snapshot).await;
        let whole = faults.counts();
        assert_eq!(
            all.len() as i64,
            FILES,
            "{format:?}: files are listed that a later commit replaced"
        );
        let day = |day: i32| column("day").eq(lit(ScalarValue::Date32(Some(day))));
        let key = |key: i64| column("key").eq(lit(key));
        let some_key = 77 * 7919 % FILES * 10 + 3;
        let cases = [
            (day(150), PER_DAY),
            (day(1), PER_DAY),
            (key(some_key), 1),
            (day(0).and(key(some_key)), 1),
            (day(3).and(key(some_key)), 0),
            (
                day(0)
                    .and(key(some_key))
                    .or(day(150).and(key(150 * 100 * 7919 % FILES * 10))),
                2,
            ),
            (key(some_key).and(column("c0").eq(lit("00000077"))), 1),
            (column("key").in_list([3, 14, 25].map(lit).to_vec(), false), 3),
            (column("key").lt(lit(50_i64)), 5),
        ];
        for (filter, left) in cases {
            faults.reset();
            let (found, counts) = sifted(&table, &snapshot, &filter).await;
            let asked = faults.counts();
            let (wanted, _) = naive(&all, &snapshot, &filter);
            let what = format!("{format:?}: {filter}");
            assert_eq!(found, wanted, "{what}");
            assert_eq!(found.len() as i64, left, "{what}");
            let [files, by_partition, by_statistics, read] = counts;
            assert_eq!(files as i64, FILES, "{what}");
            assert_eq!((files - by_partition - by_statistics) as i64, left, "{what}");
            // In the log of Delta, files of the entries after the checkpoint are read first.
            let tail = if format.0 == TableFormat::Delta {
                PER_DAY
            } else {
                0
            };
            assert!(read as i64 <= left + tail, "{what}: {read} read in full");
            // Chunks of columns that no wanted file lies in are not asked for, nor are manifests.
            assert!(asked.get <= whole.get + 3, "{what}: {} requests", asked.get);
            let allowed = whole.get_bytes + whole.get_bytes / 2;
            assert!(asked.get_bytes <= allowed, "{what}: {} bytes", asked.get_bytes);
        }
        if format.0 == TableFormat::Iceberg {
            faults.reset();
            sifted(&table, &snapshot, &day(150)).await;
            let asked = faults.counts();
            assert!(
                asked.get_bytes * 4 < whole.get_bytes,
                "{format:?}: {} bytes",
                asked.get_bytes
            );
        }
    }
}

/// The peak memory of a command in kilobytes.
pub(super) fn peak(folder: &Path, args: &[&str]) -> u64 {
    let lake = lake();
    let numbers = folder.join("numbers");
    let done = Command::new(lake.with_file_name("peak"))
        .arg(&numbers)
        .arg(&lake)
        .args(args)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let text = std::fs::read_to_string(numbers).unwrap();
    let mut numbers = text.split(' ');
    let kilobytes = numbers.next().unwrap().parse().unwrap();
    assert_eq!(
        numbers.nth(1),
        Some("0"),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    kilobytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_grows_neither_with_files_that_are_skipped_nor_with_columns_that_are_not_named() {
    for format in [FORMATS[1], FORMATS[2]] {
        let folder = tempfile::tempdir().unwrap();
        let mut taken = BTreeMap::new();
        for (files, columns) in [(2_000, 10), (20_000, 10), (4_000, 100)] {
            let place = folder.path().join(format!("{files}-{columns}"));
            let place = place.to_str().unwrap();
            large(Store::open(place).unwrap(), format, files, columns).await;
            for filter in ["day = date '1970-01-11'", "key = 77"] {
                let used = peak(folder.path(), &["files", place, "--where", filter, "--json"]);
                taken.insert((filter, files, columns), used);
            }
        }
        for filter in ["day = date '1970-01-11'", "key = 77"] {
            let small = taken[&(filter, 2_000, 10)];
            for other in [(filter, 20_000, 10), (filter, 4_000, 100)] {
                let more = taken[&other].saturating_sub(small);
                // In full, a file of ten columns takes about five kilobytes, one of a hundred fifty.
                assert!(
                    more < 30_000,
                    "{format:?}: {other:?} took {more} kB more than {small}"
                );
            }
        }
    }
}
