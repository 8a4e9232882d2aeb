//! One thing is damaged at a time, and exactly that is found: in every format, through the door that both share.

use std::collections::BTreeSet;

use bytes::Bytes;
use datafusion::scalar::ScalarValue;
use lakehouse_core::format::Outcome;
use lakehouse_core::model::{At, Change, Code, CommitId, DataFile, MaskRef, OperationKind, RowMask};
use lakehouse_core::operations::Strategy;
use lakehouse_core::operations::check::Check;
use lakehouse_core::store::Store;
use lakehouse_core::{Options, Table, TableFormat};

use super::{checked, checked_all, wrong};
use crate::support::memory;
use crate::verbs::{FORMATS, append, table_in};

type Format = (TableFormat, Option<u8>);

/// A table in several commits, with masks, and its store.
pub(super) async fn sound(format: Format, partitioning: &str) -> (Store, Table) {
    let store = memory("checked");
    let table = table_in(store.clone(), format, partitioning).await;
    append(
        &table,
        "(1, 'eu', 10), (2, 'us', NULL), (3, 'eu', 30), (4, 'us', 40)",
    )
    .await;
    append(
        &table,
        "(5, 'eu', 50), (6, 'us', 60), (7, 'eu', 70), (8, 'eu', 80), (9, 'eu', 90)",
    )
    .await;
    let masked = Options {
        strategy: Strategy::MergeOnRead,
        ..Options::default()
    };
    table.delete("id IN (5, 7)", &masked).await.unwrap();
    assert_eq!(
        wrong(&checked_all(&table).await),
        Vec::<&lakehouse_core::model::Finding>::new()
    );
    (store, table)
}

/// The files of the newest version: the one with masks, and another one, of more than one row.
async fn files(table: &Table) -> (DataFile, DataFile) {
    let files = table.files(&At::Latest).await.unwrap();
    let masked = files.iter().find(|file| !file.masks.is_empty()).unwrap().clone();
    let other = files
        .iter()
        .find(|file| file.masks.is_empty() && file.rows > 1)
        .unwrap()
        .clone();
    (masked, other)
}

/// What is found, without notes: codes with paths.
pub(super) async fn found(store: &Store, deep: bool) -> BTreeSet<(Code, String)> {
    let checked = checked(store, deep).await;
    let wrong = wrong(&checked).into_iter();
    wrong
        .map(|finding| (finding.code, finding.path.clone()))
        .collect()
}

pub(super) fn one(code: Code, path: &str) -> BTreeSet<(Code, String)> {
    BTreeSet::from([(code, path.to_owned())])
}

pub(super) async fn edit(store: &Store, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = store.get(path).await.unwrap().to_vec();
    edit(&mut bytes);
    store.put(path, Bytes::from(bytes)).await.unwrap();
}

/// Publishes a change as no operation would: past the guard that operations have.
async fn publish(table: &Table, change: &Change) {
    let base = table.snapshot(&At::Latest).await.unwrap();
    let outcome = table.handle().format.publish(&base, change).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

fn change(id: &str) -> Change {
    Change::new(OperationKind::Overwrite, CommitId(id.to_owned()))
}

/// Records another file in the place of a file: what the metadata says of it is not so.
async fn tamper(table: &Table, file: &DataFile, with: impl FnOnce(&mut DataFile)) {
    let mut lie = file.clone();
    with(&mut lie);
    let mut change = change("6b1c8a44-64b7-4d0c-8a1d-9ad2b3a1c001");
    // In a Delta log, a file that is added again has what is said of it last.
    if table.format() == "iceberg" {
        change.removed.push(file.clone());
    }
    change.added.push(lie);
    publish(table, &change).await;
}

#[tokio::test]
async fn a_data_file_that_is_gone_cut_or_damaged_is_named() {
    for format in FORMATS {
        let (store, table) = sound(format, "").await;
        let (masked, other) = files(&table).await;
        let good = store.get(&other.path).await.unwrap();

        store.delete(std::slice::from_ref(&other.path)).await.unwrap();
        assert_eq!(
            found(&store, false).await,
            one(Code::FileMissing, &other.path),
            "{format:?}"
        );
        assert_eq!(
            found(&store, true).await,
            one(Code::FileMissing, &other.path),
            "{format:?}"
        );

        store
            .put(&other.path, good.slice(..good.len() - 9))
            .await
            .unwrap();
        assert_eq!(
            found(&store, true).await,
            one(Code::FileSize, &other.path),
            "{format:?}"
        );

        store.put(&other.path, good.clone()).await.unwrap();
        let end = good.len();
        edit(&store, &other.path, |bytes| bytes[end - 12..end - 8].fill(0xFF)).await;
        edit(&store, &other.path, |bytes| bytes[end - 40..end - 8].fill(0xFF)).await;
        assert_eq!(
            found(&store, false).await,
            one(Code::FileUnreadable, &other.path),
            "{format:?}"
        );

        // The header of the first page, which is of column id.
        store.put(&other.path, good.clone()).await.unwrap();
        edit(&store, &other.path, |bytes| bytes[4..12].fill(0xFF)).await;
        assert_eq!(
            found(&store, false).await,
            BTreeSet::new(),
            "{format:?}: only reading tells"
        );
        let deep = checked(&store, true).await;
        assert_eq!(wrong(&deep).len(), 1, "{format:?}: {:#?}", deep.findings);
        let finding = wrong(&deep)[0];
        assert_eq!(
            (finding.code, &finding.path),
            (Code::ChunkUnreadable, &other.path)
        );
        assert!(
            finding.what.starts_with("column id of row group 0"),
            "{finding:?}"
        );

        // The data of two files changes places.
        store
            .put(&other.path, store.get(&masked.path).await.unwrap())
            .await
            .unwrap();
        store.put(&masked.path, good).await.unwrap();
        let both = BTreeSet::from([(Code::FileSize, other.path), (Code::FileSize, masked.path)]);
        assert_eq!(found(&store, false).await, both, "{format:?}");
    }
}

#[tokio::test]
async fn files_of_one_size_that_changed_places_are_found_by_their_rows() {
    for format in FORMATS {
        let store = memory("checked");
        let table = table_in(store.clone(), format, "bucket(8, id)").await;
        append(
            &table,
            "(1, 'eu', 10), (2, 'us', 20), (3, 'eu', 30), (4, 'us', 40)",
        )
        .await;
        let files = table.files(&At::Latest).await.unwrap();
        let pairs = files.iter().flat_map(|a| files.iter().map(move |b| (a, b)));
        let mut same = pairs.filter(|(a, b)| a.path < b.path && a.bytes == b.bytes && a.rows == b.rows);
        let (a, b) = same.next().expect("two files of one size");
        let content = store.get(&a.path).await.unwrap();
        store
            .put(&a.path, store.get(&b.path).await.unwrap())
            .await
            .unwrap();
        store.put(&b.path, content).await.unwrap();
        assert_eq!(found(&store, false).await, BTreeSet::new(), "{format:?}");
        let deep = found(&store, true).await;
        for file in [a, b] {
            for code in [Code::Bound, Code::RowPartition] {
                assert!(
                    deep.contains(&(code, file.path.clone())),
                    "{format:?}: {code} in {deep:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_the_metadata_says_of_a_file_and_is_not_so_is_found() {
    type Lie = fn(&mut DataFile);
    let lies: [(&str, Code, bool, Lie); 8] = [
        ("rows", Code::RowCount, false, |file| file.rows += 1),
        ("fewer rows", Code::RowCount, false, |file| file.rows -= 1),
        ("bytes", Code::FileSize, false, |file| file.bytes += 1),
        ("upper bound", Code::Bound, true, |file| {
            file.columns.get_mut("id").unwrap().max = Some(ScalarValue::Int64(Some(3)));
        }),
        ("lower bound", Code::Bound, true, |file| {
            file.columns.get_mut("region").unwrap().min = Some(ScalarValue::from("f"));
        }),
        ("NULLs", Code::NullCount, true, |file| {
            file.columns.get_mut("n").unwrap().nulls = Some(0);
        }),
        ("partition", Code::RowPartition, true, |file| {
            file.partition[0] = ScalarValue::Int64(Some(1_000_000));
        }),
        ("no partition", Code::RowPartition, true, |file| {
            file.partition[0] = ScalarValue::Int64(None);
        }),
    ];
    for format in FORMATS {
        for (what, code, only_deep, lie) in &lies {
            let (store, table) = sound(format, "truncate(1000, id)").await;
            let (_, other) = files(&table).await;
            tamper(&table, &other, *lie).await;
            let expected = one(*code, &other.path);
            let light = if *only_deep {
                BTreeSet::new()
            } else {
                expected.clone()
            };
            assert_eq!(found(&store, false).await, light, "{format:?}: {what}, light");
            // Counts that are not of the file's rows follow from their number.
            let mut deep = found(&store, true).await;
            deep.retain(|(code, _)| *code != Code::ValueCount);
            assert_eq!(deep, expected, "{format:?}: {what}, deep");
            let table = Table::open_in(store).await.unwrap();
            let before = Check {
                at: At::Version(-1),
                ..Check::default()
            };
            let before = table.check(&before).await.unwrap();
            assert!(before.is_clean(), "{format:?}: {what}, the version before");
        }
    }
}

#[tokio::test]
async fn the_value_of_an_identity_partition_is_held_against_the_rows_where_files_store_it() {
    for format in [(TableFormat::Iceberg, Some(2)), (TableFormat::Iceberg, Some(3))] {
        let (store, table) = sound(format, "region").await;
        let files = table.files(&At::Latest).await.unwrap();
        let other = files.into_iter().find(|file| file.masks.is_empty()).unwrap();
        tamper(&table, &other, |file| file.partition[0] = ScalarValue::from("zz")).await;
        assert_eq!(found(&store, false).await, BTreeSet::new(), "{format:?}");
        assert_eq!(
            found(&store, true).await,
            one(Code::RowPartition, &other.path),
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_partition_value_that_no_row_can_have_is_found_without_reading_rows() {
    for format in FORMATS {
        let (store, table) = sound(format, "bucket(4, id)").await;
        let other = table
            .files(&At::Latest)
            .await
            .unwrap()
            .into_iter()
            .find(|file| file.masks.is_empty())
            .unwrap();
        tamper(&table, &other, |file| {
            file.partition[0] = ScalarValue::Int32(Some(4));
        })
        .await;
        assert_eq!(
            found(&store, false).await,
            one(Code::PartitionValue, &other.path),
            "{format:?}"
        );
    }
}

/// Publishes another mask of a file that has one.
async fn remask(table: &Table, file: &DataFile, masks: Vec<MaskRef>) {
    let mut change = change("6b1c8a44-64b7-4d0c-8a1d-9ad2b3a1c002");
    change.masked.push((
        file.clone(),
        DataFile {
            masks,
            ..file.clone()
        },
    ));
    publish(table, &change).await;
}

#[tokio::test]
async fn masks_that_are_gone_damaged_miscounted_or_beyond_their_file_are_found() {
    for format in FORMATS {
        let (store, table) = sound(format, "").await;
        let (masked, _) = files(&table).await;
        let mask = masked.masks[0].clone();
        assert_eq!(mask.rows, Some(2));
        let good = store.get(&mask.path).await.unwrap();

        store.delete(std::slice::from_ref(&mask.path)).await.unwrap();
        assert_eq!(
            found(&store, true).await,
            one(Code::FileMissing, &mask.path),
            "{format:?}"
        );
        store.put(&mask.path, good.clone()).await.unwrap();
        let at = usize::try_from(mask.offset.unwrap_or(0)).unwrap() + 12;
        edit(&store, &mask.path, |bytes| bytes[at..at + 8].fill(0xFF)).await;
        assert_eq!(
            found(&store, true).await,
            one(Code::MaskUnreadable, &mask.path),
            "{format:?}"
        );
        store.put(&mask.path, good).await.unwrap();

        // Over a mask that is as it was, another count is no change of it: it is written anew.
        let operation = CommitId("6b1c8a44-64b7-4d0c-8a1d-9ad2b3a1c003".to_owned());
        let base = table.snapshot(&At::Latest).await.unwrap();
        let stage = async |positions: &[u64], rows: u64| {
            let file = DataFile {
                rows,
                ..masked.clone()
            };
            let mask: RowMask = positions.iter().copied().collect();
            let staged = table
                .handle()
                .format
                .stage_masks(&base, vec![(file, mask)], &operation);
            staged.await.unwrap().0.remove(0).masks
        };
        let mut miscounted = stage(&[0, 1, 2], masked.rows).await;
        miscounted.iter_mut().for_each(|mask| mask.rows = Some(2));
        remask(&table, &masked, miscounted).await;
        assert_eq!(
            found(&store, true).await,
            one(Code::MaskCount, &masked.path),
            "{format:?}"
        );

        let (store, table) = sound(format, "").await;
        let (masked, _) = files(&table).await;
        let base = table.snapshot(&At::Latest).await.unwrap();
        let far: RowMask = [0, 77].into_iter().collect();
        let file = DataFile {
            rows: 100,
            ..masked.clone()
        };
        let staged = table
            .handle()
            .format
            .stage_masks(&base, vec![(file, far)], &operation)
            .await
            .unwrap();
        remask(&table, &masked, staged.0[0].masks.clone()).await;
        assert_eq!(
            found(&store, false).await,
            one(Code::MaskBeyond, &masked.path),
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_file_that_is_listed_twice_is_found() {
    for format in [(TableFormat::Iceberg, Some(2)), (TableFormat::Iceberg, Some(3))] {
        let (store, table) = sound(format, "").await;
        let (_, other) = files(&table).await;
        let mut change = change("6b1c8a44-64b7-4d0c-8a1d-9ad2b3a1c004");
        change.added.push(other.clone());
        publish(&table, &change).await;
        assert_eq!(
            found(&store, false).await,
            one(Code::FileTwice, &other.path),
            "{format:?}"
        );
    }
}
