//! Compactions that meet deletes, updates and merges: what went while files were rewritten is masked in the new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use lakehouse_core::model::At;
use lakehouse_core::operations::Strategy;
use lakehouse_core::store::Store;
use lakehouse_core::{Alter, Compact, Options, Table, TableFormat};
use serde_json::{Value, json};

use super::hooked::{self, Hooked};
use super::{orphans, upsert};
use crate::verbs::check::{checked_all, wrong};
use crate::verbs::lineage::lineage;
use crate::verbs::{FORMATS, append, compact_all, content, delete, rows, table_made};

/// Rows `(id, 'eu' or 'us', id)` with ids below 200 in four files of row groups of eight rows, of which a compaction
/// copies those without a masked row; rows 3, 4 and 50 are masked.
async fn prepare(format: (TableFormat, Option<u8>), partitioning: &str) -> (Table, Table, Hooked) {
    let (store, hooked) = hooked::store();
    let properties = [
        ("write.parquet.row-group-limit", "8"),
        ("delta.enableRowTracking", "true"),
    ];
    let properties = &properties[..if format.0 == TableFormat::Delta { 2 } else { 1 }];
    let table = table_made(store.clone(), format, partitioning, properties).await;
    fill(&table).await;
    let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
    (table, winner, hooked)
}

async fn fill(table: &Table) {
    for file in 0..4 {
        let region = |id: i64| if id % 2 == 0 { "eu" } else { "us" };
        let values: Vec<String> = (file * 50..file * 50 + 50)
            .map(|id| format!("({id}, '{}', {id})", region(id)))
            .collect();
        append(table, &values.join(", ")).await;
    }
    table.delete("id IN (3, 4, 50)", &masking()).await.unwrap();
}

fn masking() -> Options {
    Options {
        strategy: Strategy::MergeOnRead,
        ..Options::default()
    }
}

fn rewriting() -> Options {
    Options {
        strategy: Strategy::CopyOnWrite,
        ..Options::default()
    }
}

/// The ids that are left, each once.
async fn ids(table: &Table, what: &str) -> BTreeSet<i64> {
    let content = content(table).await;
    let ids: Vec<i64> = content
        .iter()
        .map(|row| row.split('|').next().unwrap().parse().unwrap())
        .collect();
    let set: BTreeSet<i64> = ids.iter().copied().collect();
    assert_eq!(set.len(), ids.len(), "{what}: rows are there twice");
    set
}

fn all_but(gone: &[i64]) -> BTreeSet<i64> {
    (0..200)
        .filter(|id| ![3, 4, 50].contains(id) && !gone.contains(id))
        .collect()
}

#[tokio::test]
async fn rows_that_are_deleted_while_their_file_is_rewritten_are_masked_in_the_new_one() {
    for format in FORMATS {
        for partitioning in ["", "region"] {
            let what = format!("{format:?}, {partitioning}");
            let (table, winner, hooked) = prepare(format, partitioning).await;
            hooked.before_commit(async move {
                winner
                    .delete("id IN (0, 5, 51, 120, 199)", &masking())
                    .await
                    .unwrap();
            });
            let report = table.compact(&Compact::default(), &Options::default()).await;
            let left = ids(&table, &what).await;
            assert_eq!(
                left,
                all_but(&[0, 5, 51, 120, 199]),
                "{what}: other rows are there: {report:?}"
            );
            let report = report.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(
                (report.attempts, report.plans),
                (2, 1),
                "{what}: it was planned again"
            );
            assert_eq!(report.metric("num_target_rows_carried"), 5, "{what}");
            assert!(report.metric("num_target_row_groups_copied") > 0, "{what}");
            let files = table.files(&At::Latest).await.unwrap();
            let masked: u64 = files.iter().map(|file| file.masked_rows().unwrap()).sum();
            assert_eq!(masked, 5, "{what}: {files:?}");
            assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
            // The next one has them to take out.
            let again = compact_all(&table).await;
            assert!(again.committed, "{what}");
            assert_eq!(ids(&table, &what).await, all_but(&[0, 5, 51, 120, 199]), "{what}");
            let again = compact_all(&table).await;
            assert!(!again.committed, "{what}");
        }
    }
}

#[tokio::test]
async fn rows_that_a_merge_updates_meanwhile_are_there_once_and_new() {
    for format in FORMATS {
        for options in [masking(), rewriting()] {
            let what = format!("{format:?}, {:?}", options.strategy);
            let (table, winner, hooked) = prepare(format, "").await;
            hooked.before_commit(async move {
                let source = rows(
                    "id, region, n",
                    "(7, 'ap', -7), (61, 'ap', -61), (500, 'ap', 500)",
                )
                .await;
                winner.merge(source, &upsert(), &options).await.unwrap();
            });
            let report = compact_all(&table).await;
            let mut expected = all_but(&[]);
            expected.insert(500);
            assert_eq!(ids(&table, &what).await, expected, "{what}: {report:?}");
            let content = content(&table).await;
            for row in ["7|ap|-7", "61|ap|-61", "500|ap|500", "8|eu|8"] {
                assert!(content.iter().any(|line| line == row), "{what}: {row} is missing");
            }
            assert!(report.committed, "{what}");
            assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
        }
    }
}

#[tokio::test]
async fn files_that_others_rewrite_meanwhile_are_left_to_them() {
    for format in FORMATS {
        let what = format!("{format:?}");
        let (table, winner, hooked) = prepare(format, "").await;
        hooked.before_commit(async move {
            // All of the first file, and one row of the second, which is written anew.
            winner.delete("id < 50", &rewriting()).await.unwrap();
            winner.delete("id = 77", &rewriting()).await.unwrap();
        });
        let report = compact_all(&table).await;
        let gone: Vec<i64> = (0..50).chain([77]).collect();
        assert_eq!(ids(&table, &what).await, all_but(&gone), "{what}: {report:?}");
        assert_eq!(
            (report.attempts, report.plans),
            (2, 1),
            "{what}: it was planned again"
        );
        assert_eq!(report.metric("num_target_rows_carried"), 48 + 49, "{what}");
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn a_compaction_that_would_carry_most_of_its_rows_is_planned_again_and_one_without_rows_ends() {
    for format in FORMATS {
        for (condition, left) in [("id < 140", 60), ("true", 0)] {
            let what = format!("{format:?}, {condition}");
            let (table, winner, hooked) = prepare(format, "").await;
            hooked.before_commit(async move {
                winner.delete(condition, &masking()).await.unwrap();
            });
            let report = compact_all(&table).await;
            assert_eq!(report.plans, 2, "{what}: {report:?}");
            assert_eq!(report.metric("num_target_rows_carried"), 0, "{what}");
            assert_eq!(ids(&table, &what).await.len(), left, "{what}");
            assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
        }
    }
}

#[tokio::test]
async fn what_is_carried_stays_carried_when_others_come_first_again() {
    for format in FORMATS {
        let what = format!("{format:?}");
        let (table, winner, hooked) = prepare(format, "region").await;
        let again = hooked.clone();
        hooked.before_commit(async move {
            winner.delete("id IN (0, 60)", &masking()).await.unwrap();
            again.clone().before_commit(async move {
                // Of another file, of the same, and rows that nobody else has to do with.
                winner.delete("id IN (1, 61, 150)", &masking()).await.unwrap();
                append(&winner, "(900, 'eu', 900)").await;
                again.before_commit(async move {
                    winner.delete("id IN (151, 900)", &rewriting()).await.unwrap();
                });
            });
        });
        let report = compact_all(&table).await;
        assert_eq!(
            ids(&table, &what).await,
            all_but(&[0, 60, 1, 61, 150, 151]),
            "{what}: {report:?}"
        );
        assert_eq!((report.attempts, report.plans), (4, 1), "{what}");
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn two_compactions_at_once_leave_each_row_once() {
    for format in FORMATS {
        let what = format!("{format:?}");
        let (table, winner, hooked) = prepare(format, "region").await;
        hooked.before_commit(async move {
            let report = compact_all(&winner).await;
            assert!(report.committed);
        });
        let report = compact_all(&table).await;
        assert!(!report.committed, "{what}: {report:?}");
        assert_eq!(report.metric("num_groups_skipped"), 2, "{what}: {report:?}");
        assert_eq!(ids(&table, &what).await, all_but(&[]), "{what}");
        assert_eq!(table.files(&At::Latest).await.unwrap().len(), 2, "{what}");
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
    }
}

/// Later groups are followed through what others did since the plan.
#[tokio::test]
async fn groups_that_wait_are_rewritten_as_they_are_by_then() {
    for (format, concurrent) in FORMATS
        .into_iter()
        .flat_map(|format| [(format, 1), (format, 2), (format, 4)])
    {
        let what = format!("{format:?}, {concurrent} at a time");
        let (table, winner, hooked) = prepare(format, "region").await;
        hooked.before_commit(async move {
            winner.delete("id IN (1, 2, 101)", &masking()).await.unwrap();
            // The other partition goes altogether.
            delete(&winner, "region = 'us'").await;
            append(&winner, "(901, 'us', 901)").await;
        });
        let compact = Compact {
            max_rewrite: Some(4_000),
            max_concurrent_groups: Some(concurrent),
            ..Compact::default()
        };
        let report = table.compact(&compact, &Options::default()).await.unwrap();
        let gone: Vec<i64> = (0..200).filter(|id| id % 2 == 1).chain([2]).collect();
        let mut expected = all_but(&gone);
        expected.insert(901);
        assert_eq!(ids(&table, &what).await, expected, "{what}: {report:?}");
        // Side by side, all of them may have been begun.
        let skipped = report.metric("num_groups_skipped");
        assert!(skipped >= 1 || concurrent > 1, "{what}: {report:?}");
        let again = table.compact(&compact, &Options::default()).await.unwrap();
        assert!(
            !again.committed || again.metric("num_groups_committed") == 1,
            "{what}: {again:?}"
        );
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
    }
}

/// What a winner made of the files of a group is compacted in the same run, and the key is recorded then.
#[tokio::test]
async fn a_partition_whose_files_others_rewrote_is_planned_again_and_the_key_goes_along() {
    for format in FORMATS {
        let what = format!("{format:?}");
        let (store, hooked) = hooked::store();
        let table = table_made(store.clone(), format, "", &[]).await;
        append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
        append(&table, "(3, 'eu', 3), (4, 'eu', 4)").await;
        let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
        hooked.before_commit(async move {
            for id in ["id = 1", "id = 3"] {
                winner.update("n = -n", Some(id), &rewriting()).await.unwrap();
            }
        });
        let options = Options {
            token: Some("night".into()),
            ..Options::default()
        };
        let report = table.compact(&Compact::default(), &options).await.unwrap();
        assert_eq!(ids(&table, &what).await, (1..5).collect(), "{what}: {report:?}");
        assert_eq!(
            table.files(&At::Latest).await.unwrap().len(),
            1,
            "{what}: {report:?}"
        );
        let again = table.compact(&Compact::default(), &options).await.unwrap();
        assert_eq!(again.already, Some(report.version), "{what}: {report:?}");
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
    }
}

/// Of a table whose rows come to have ids meanwhile.
async fn keeps_ids(
    table: &Table,
    hooked: &Hooked,
    carried: bool,
    switch_on: impl Future<Output = ()> + Send + 'static,
    winner: Table,
    other: Table,
    what: &str,
) {
    let given = Arc::new(Mutex::new(BTreeMap::new()));
    let kept = Arc::clone(&given);
    let again = hooked.clone();
    let meanwhile = async move {
        switch_on.await;
        append(&winner, "(900, 'eu', 900)").await;
        let ids = lineage(&winner).await;
        *kept.lock().unwrap() = ids;
    };
    match carried {
        false => hooked.before_commit(meanwhile),
        true => {
            hooked.before_commit(async move {
                other.delete("id IN (0, 60)", &masking()).await.unwrap();
                again.before_commit(meanwhile);
            });
        }
    }
    let report = compact_all(table).await;
    assert!(report.committed, "{what}: {report:?}");
    let expected = given.lock().unwrap().clone();
    assert!(expected.len() > 190, "{what}");
    assert_eq!(lineage(table).await, expected, "{what}: rows lost their ids");
    assert_eq!(wrong(&checked_all(table).await).len(), 0, "{what}");
    assert_eq!(orphans(table).await, Vec::<String>::new(), "{what}");
}

#[tokio::test]
async fn a_compaction_over_an_upgrade_keeps_the_ids_that_rows_got_with_it() {
    let format = (TableFormat::Iceberg, Some(2));
    for carried in [false, true] {
        let what = format!("carried: {carried}");
        let (store, hooked) = hooked::store();
        let properties = [("write.parquet.row-group-limit", "8")];
        let table = table_made(store.clone(), format, "", &properties).await;
        fill(&table).await;
        let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
        let other = Table::open_in(hooked.plain(&store)).await.unwrap();
        let upgraded = Table::open_in(hooked.plain(&store)).await.unwrap();
        let upgrade = async move {
            let upgrade = Alter::default().format_version(3);
            upgraded.alter(&upgrade, &Options::default()).await.unwrap();
        };
        keeps_ids(&table, &hooked, carried, upgrade, winner, other, &what).await;
    }
}

/// As Spark does it: the features, ids for the files that are there, then the property.
async fn track_rows(store: &Store) {
    let table = Table::open_in(store.clone()).await.unwrap();
    let newest = table.snapshot(&At::Latest).await.unwrap();
    let mut entries = Vec::new();
    for version in 0..=newest.version {
        let entry = store
            .get(&format!("_delta_log/{version:020}.json"))
            .await
            .unwrap();
        let text = String::from_utf8(entry.to_vec()).unwrap();
        entries.extend(
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()),
        );
    }
    let last = |key: &str| {
        entries
            .iter()
            .rev()
            .find_map(|entry| entry.get(key).cloned())
            .unwrap()
    };
    let mut protocol = last("protocol");
    let writers = protocol["writerFeatures"].as_array_mut().unwrap();
    writers.extend(["rowTracking".into(), "domainMetadata".into()]);
    let mut metadata = last("metaData");
    for (key, value) in [
        ("delta.enableRowTracking", "true"),
        ("delta.rowTracking.materializedRowIdColumnName", "_row-id"),
        (
            "delta.rowTracking.materializedRowCommitVersionColumnName",
            "_row-version",
        ),
    ] {
        metadata["configuration"][key] = value.into();
    }
    let mut live = BTreeMap::new();
    for entry in &entries {
        for (key, file) in [("remove", entry.get("remove")), ("add", entry.get("add"))] {
            let Some(file) = file else { continue };
            let path = file["path"].as_str().unwrap().to_owned();
            // A commit that masks rows removes and adds one file.
            match key {
                "add" => live.insert(path, file.clone()),
                _ => live.remove(&path),
            };
        }
    }
    let version = newest.version + 1;
    let info =
        json!({"timestamp": newest.timestamp_ms + 1, "operation": "ALTER TABLE", "operationParameters": {}});
    let mut lines = vec![
        json!({"commitInfo": info}),
        json!({"protocol": protocol}),
        json!({"metaData": metadata}),
    ];
    let mut next = 0;
    for mut file in live.into_values() {
        file["baseRowId"] = next.into();
        file["defaultRowCommitVersion"] = version.into();
        file["dataChange"] = false.into();
        next += 50;
        lines.push(json!({"add": file}));
    }
    let domain = json!({"rowIdHighWaterMark": next - 1}).to_string();
    lines.push(
        json!({"domainMetadata": {"domain": "delta.rowTracking", "configuration": domain, "removed": false}}),
    );
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let key = format!("_delta_log/{version:020}.json");
    store.put(&key, lines.join("\n").into()).await.unwrap();
}

#[tokio::test]
async fn a_compaction_over_row_tracking_keeps_the_ids_that_rows_got_with_it() {
    let format = (TableFormat::Delta, None);
    for carried in [false, true] {
        let what = format!("carried: {carried}");
        let (store, hooked) = hooked::store();
        let properties = [
            ("write.parquet.row-group-limit", "8"),
            ("delta.enableDeletionVectors", "true"),
        ];
        let table = table_made(store.clone(), format, "", &properties).await;
        fill(&table).await;
        let plain = hooked.plain(&store);
        let winner = Table::open_in(plain.clone()).await.unwrap();
        let other = Table::open_in(plain.clone()).await.unwrap();
        let tracked = async move { track_rows(&plain).await };
        keeps_ids(&table, &hooked, carried, tracked, winner, other, &what).await;
    }
}
