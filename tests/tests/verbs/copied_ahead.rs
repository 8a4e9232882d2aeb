//! Merges that will rewrite files: row groups in which no key lies are copied while rows are matched, and nobody can tell.

use std::collections::BTreeSet;

use lakehouse_core::model::At;
use lakehouse_core::operations::Strategy;
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::{Fault, Refusal, faulty};
use lakehouse_core::{Compact, Merge, Options, Report, Result, Rows, Table};

use super::FORMATS;
use super::copied::{query, same, source, table};
use crate::support::memory;

/// Files of so many bytes: a quarter of it is worth copying ahead.
const TARGET: u64 = 64_000;

fn ahead() -> Options {
    Options {
        target_file_bytes: Some(TARGET),
        ..Options::default()
    }
}

/// With a memory limit nothing is copied ahead.
fn in_turn() -> Options {
    Options {
        memory_limit: Some(1 << 30),
        ..ahead()
    }
}

/// Merges rows with the ids of a range, which have other names than those of the table.
async fn merge(table: &Table, (low, high): (i64, i64), merge: Merge, options: &Options) -> Result<Report> {
    let (schema, batches) = query(&source(low, high).replace("value % 5", "value % 3")).await;
    table.merge(Rows::batches(schema, batches), &merge, options).await
}

fn upsert() -> Merge {
    Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all()
}

/// Objects of data that no version of the table needs.
async fn unneeded(store: &Store, table: &Table) -> BTreeSet<String> {
    let needed = table.handle().format.reachable(None).await.unwrap();
    let objects = store.list("").await.unwrap().into_iter();
    let data = objects
        .map(|object| object.path)
        .filter(|path| path.ends_with(".parquet"));
    data.filter(|path| !needed.contains(path)).collect()
}

async fn added(table: &Table, before: &BTreeSet<String>) -> usize {
    let files = table.files(&At::Latest).await.unwrap();
    files.iter().filter(|file| !before.contains(&file.path)).count()
}

async fn paths(table: &Table) -> BTreeSet<String> {
    let files = table.files(&At::Latest).await.unwrap();
    files.into_iter().map(|file| file.path).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_groups_in_which_no_key_lies_are_copied_ahead_and_nobody_can_tell() {
    for format in FORMATS {
        for partitioning in ["", "bucket(2, id)"] {
            for strategy in [Strategy::Auto, Strategy::CopyOnWrite] {
                let what = format!("{format:?} {partitioning} {strategy:?}");
                let store = memory("ahead");
                let one = table(store.clone(), format, partitioning, true).await;
                let other = table(memory("in-turn"), format, partitioning, true).await;
                let before = [paths(&one).await, paths(&other).await];
                // Both ends in the middle of row groups.
                let range = (320, 720);
                let options = Options { strategy, ..ahead() };
                let report = merge(&one, range, upsert(), &options).await.unwrap();
                let options = Options {
                    strategy,
                    ..in_turn()
                };
                let reported = merge(&other, range, upsert(), &options).await.unwrap();
                same(&one, &other, &what).await;
                for metric in [
                    "num_target_rows_updated",
                    "num_target_rows_copied",
                    "num_target_files_rewritten",
                    "num_target_files_removed",
                ] {
                    assert_eq!(report.metric(metric), reported.metric(metric), "{what}: {metric}");
                }
                assert!(
                    report.metric("num_target_row_groups_copied") >= 8,
                    "{what}: {report:?}"
                );
                // What was copied ahead is in files of its own; elsewhere it is too little to be worth one.
                if strategy == Strategy::Auto && partitioning.is_empty() {
                    let [more, fewer] = [added(&one, &before[0]).await, added(&other, &before[1]).await];
                    assert!(more > fewer, "{what}: {report:?}");
                }
                assert_eq!(unneeded(&store, &one).await, BTreeSet::new(), "{what}");
                // And again, from the files that it made.
                merge(&one, (100, 900), upsert(), &ahead()).await.unwrap();
                merge(&other, (100, 900), upsert(), &in_turn()).await.unwrap();
                same(&one, &other, &format!("{what}, again")).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_copied_ahead_for_nothing_is_removed() {
    for format in FORMATS {
        let what = format!("{format:?}");
        let store = memory("for-nothing");
        let one = table(store.clone(), format, "", true).await;
        let other = table(memory("in-turn"), format, "", true).await;
        // All keys lie in the range of a file, and its row with each of them is gone: nothing matches.
        for table in [&one, &other] {
            let masking = Options {
                strategy: Strategy::MergeOnRead,
                ..Options::default()
            };
            table
                .update("id = id + 10000", Some("id BETWEEN 320 AND 720"), &masking)
                .await
                .unwrap();
            table
                .compact(&Compact::default(), &Options::default())
                .await
                .unwrap();
        }
        let before = paths(&one).await;
        let report = merge(&one, (320, 720), upsert(), &ahead()).await.unwrap();
        merge(&other, (320, 720), upsert(), &in_turn()).await.unwrap();
        assert_eq!(report.metric("num_target_rows_inserted"), 401, "{what}");
        assert_eq!(report.metric("num_target_files_removed"), 0, "{what}");
        assert_eq!(report.metric("num_target_row_groups_copied"), 0, "{what}");
        assert_eq!(added(&one, &before).await, 1, "{what}");
        assert_eq!(unneeded(&store, &one).await, BTreeSet::new(), "{what}");
        same(&one, &other, &what).await;

        // A merge that fails leaves nothing either: two rows of the source for one of the table.
        let (schema, batches) = query(&format!("{0} UNION ALL {0}", source(320, 720))).await;
        let rows = Rows::batches(schema, batches);
        let update = Merge::on("id").when_matched_update_all();
        let error = one.merge(rows, &update, &ahead()).await.unwrap_err();
        assert!(
            error.to_string().contains("several source rows"),
            "{what}: {error}"
        );
        assert_eq!(unneeded(&store, &one).await, BTreeSet::new(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_fail_once_while_row_groups_are_copied_ahead_cost_no_row_and_leave_no_file() {
    for format in FORMATS {
        let expected = table(memory("expected"), format, "", true).await;
        let untouched = table(memory("untouched"), format, "", true).await;
        merge(&expected, (320, 720), upsert(), &in_turn()).await.unwrap();
        let (mut fired, mut passed) = (0, 0);
        for at in 1.. {
            let over = memory("faulty");
            table(over.clone(), format, "", true).await;
            let (store, faults) = faulty(&over);
            let shaky = Table::open_in(store).await.unwrap();
            faults.reset();
            let fault = if at % 2 == 0 {
                Fault::FailBefore
            } else {
                Fault::FailAfter
            };
            faults.fail_at(at, fault);
            let ended = merge(&shaky, (320, 720), upsert(), &ahead()).await;
            let what = format!("{format:?}, {fault:?} at {at}: {ended:?}");
            let after = Table::open_in(over.clone()).await.unwrap();
            let right = if ended.is_ok() { &expected } else { &untouched };
            same(&after, right, &what).await;
            assert_eq!(unneeded(&over, &after).await, BTreeSet::new(), "{what}");
            if faults.fired() == 0 {
                break;
            }
            fired += 1;
            passed += u32::from(ended.is_ok());
        }
        assert!(fired > 20 && passed > 20, "{format:?}: {passed} of {fired}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_merge_and_leaves_the_table_as_it_was() {
    for format in FORMATS {
        let over = memory("full");
        let before = table(over.clone(), format, "", true).await;
        let untouched = table(memory("untouched"), format, "", true).await;
        let (store, faults) = faulty(&over);
        let full = Table::open_in(store).await.unwrap();
        faults.refuse(Some(Refusal::DiskFull));
        let error = merge(&full, (320, 720), upsert(), &ahead()).await;
        assert!(error.is_err(), "{format:?}");
        same(&before, &untouched, &format!("{format:?}")).await;
        assert_eq!(unneeded(&over, &before).await, BTreeSet::new(), "{format:?}");
    }
}
