//! Commits that come first, at the worst moment: right before an operation publishes. What it planned is
//! fitted to them or planned again; either way the table must be as if the others had run before it.

mod altered;
mod columns;
mod compacted;
mod differential;
mod feed;
mod hooked;
mod isolation;

use lakehouse_core::model::At;
use lakehouse_core::operations::Strategy;
use lakehouse_core::store::StorageOptions;
use lakehouse_core::{Compact, Merge, Options, Report, Table};

use crate::verbs::{FORMATS, append, compact_all, content, delete, rows, table_in, table_made};
use hooked::Hooked;

/// A hundred rows `(id, 'eu', id)` in two files, and a handle on the table whose next commit meets a winner.
async fn prepare(format: (lakehouse_core::TableFormat, Option<u8>)) -> (Table, Table, Hooked) {
    let (store, hooked) = hooked::store();
    let table = table_in(store.clone(), format, "").await;
    for file in [0..50, 50..100] {
        let values: Vec<String> = file.map(|id| format!("({id}, 'eu', {id})")).collect();
        append(&table, &values.join(", ")).await;
    }
    let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
    (table, winner, hooked)
}

fn upsert() -> Merge {
    Merge::on("id")
        .when_matched_update_all()
        .when_not_matched_insert_all()
}

async fn merge(table: &Table, values: &str) -> Report {
    let options = Options::default();
    table
        .merge(rows("id, region, n", values).await, &upsert(), &options)
        .await
        .unwrap()
}

/// Objects of the table that no version needs.
pub(crate) async fn orphans(table: &Table) -> Vec<String> {
    let reachable = table.handle().format.reachable(None).await.unwrap();
    let all = table.handle().store.list("").await.unwrap();
    all.into_iter()
        .map(|found| found.path)
        .filter(|path| !reachable.contains(path) && !path.ends_with("version-hint.text"))
        .collect()
}

#[tokio::test]
async fn masks_of_different_rows_of_one_file_are_united() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            delete(&winner, "id in (5, 60)").await;
        });
        let report = merge(&table, "(7, 'us', -7), (61, 'us', -61), (200, 'us', 200)").await;
        assert_eq!((report.attempts, report.plans), (2, 1), "{format:?}");
        let content = content(&table).await;
        assert_eq!(content.len(), 99, "{format:?}");
        for row in ["7|us|-7", "61|us|-61", "200|us|200"] {
            assert!(content.iter().any(|line| line == row), "{format:?}: {row}");
        }
        assert!(
            !content
                .iter()
                .any(|line| line.starts_with("5|") || line.starts_with("60|"))
        );
        assert_eq!(table.files(&At::Latest).await.unwrap().len(), 3);
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{format:?}");
    }
}

#[tokio::test]
async fn a_matched_row_that_the_winner_deleted_is_inserted() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            delete(&winner, "id = 7").await;
        });
        let report = merge(&table, "(7, 'us', -7), (8, 'us', -8)").await;
        assert_eq!(report.plans, 2, "{format:?}");
        assert_eq!(report.metric("num_target_rows_inserted"), 1);
        assert_eq!(content(&table).await.len(), 100, "{format:?}");
    }
}

#[tokio::test]
async fn a_winners_rows_in_between_the_keys_are_no_reason_to_plan_again() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(-1, 'eu', 1), (1000, 'eu', 1)").await;
        });
        let report = merge(&table, "(7, 'us', -7), (300, 'us', 300)").await;
        assert_eq!((report.attempts, report.plans), (2, 1), "{format:?}");
        assert_eq!(content(&table).await.len(), 103, "{format:?}");
    }
}

#[tokio::test]
async fn a_row_that_the_winner_inserted_under_the_same_key_is_updated() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(300, 'eu', 1)").await;
        });
        let report = merge(&table, "(300, 'us', 300)").await;
        assert_eq!(report.plans, 2, "{format:?}");
        let content = content(&table).await;
        assert_eq!(content.len(), 101, "{format:?}");
        assert!(content.iter().any(|line| line == "300|us|300"), "{format:?}");
    }
}

#[tokio::test]
async fn rows_that_a_compaction_moved_are_found_again() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            let report = compact_all(&winner).await;
            assert!(report.committed);
        });
        let report = merge(&table, "(7, 'us', -7), (61, 'us', -61), (200, 'us', 200)").await;
        assert_eq!((report.attempts, report.plans), (2, 1), "{format:?}");
        let content = content(&table).await;
        assert_eq!(content.len(), 101, "{format:?}");
        assert!(content.iter().any(|line| line == "61|us|-61"), "{format:?}");
        assert_eq!(table.files(&At::Latest).await.unwrap().len(), 2);
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{format:?}");
    }
}

#[tokio::test]
async fn a_rewritten_file_that_a_compaction_took_is_planned_again() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            compact_all(&winner).await;
        });
        let options = Options {
            strategy: Strategy::CopyOnWrite,
            ..Options::default()
        };
        let source = rows("id, region, n", "(7, 'us', -7)").await;
        let report = table.merge(source, &upsert(), &options).await.unwrap();
        assert_eq!(report.plans, 2, "{format:?}");
        assert_eq!(report.metric("num_target_files_masked"), 0);
        assert_eq!(report.metric("num_target_files_rewritten"), 1);
        assert_eq!(content(&table).await.len(), 100, "{format:?}");
    }
}

#[tokio::test]
async fn whole_files_that_an_overwrite_takes_are_planned_again() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            delete(&winner, "id = 7").await;
        });
        let all = rows("id, region, n", "(1, 'us', 1)").await;
        let report = table.overwrite(all, None, &Options::default()).await.unwrap();
        assert_eq!(report.plans, 2, "{format:?}");
        assert_eq!(content(&table).await, ["1|us|1"]);
    }
}

#[tokio::test]
async fn a_row_that_a_restore_brings_back_is_matched() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        let before = table.snapshot(&At::Latest).await.unwrap().version;
        delete(&table, "id = 5").await;
        hooked.before_commit(async move {
            let options = Options::default();
            winner.restore(&At::Version(before), &options).await.unwrap();
        });
        merge(&table, "(5, 'us', -5)").await;
        let content = content(&table).await;
        assert_eq!(content.len(), 100, "{format:?}");
        assert!(content.iter().any(|line| line == "5|us|-5"), "{format:?}");
    }
}

#[tokio::test]
async fn a_matched_row_that_stays_and_that_the_winner_deleted_is_inserted() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            delete(&winner, "id = 7").await;
        });
        let source = rows("id, region, n", "(7, 'eu', 7), (60, 'us', -60)").await;
        let merge = upsert().skip_unchanged();
        table.merge(source, &merge, &Options::default()).await.unwrap();
        let content = content(&table).await;
        assert!(content.iter().any(|line| line == "7|eu|7"), "{format:?}");
    }
}

#[tokio::test]
async fn a_compaction_that_was_compatible_is_not_forgotten_in_the_next_race() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        // So that only the first file is compacted.
        delete(&table, "id = 1").await;
        let again = hooked.clone();
        hooked.before_commit(async move {
            let first = Compact {
                predicate: Some("id < 50".to_owned()),
                ..Compact::default()
            };
            let report = winner.compact(&first, &Options::default()).await.unwrap();
            assert!(report.committed);
            again.before_commit(async move {
                delete(&winner, "id in (7, 61)").await;
            });
        });
        let source = rows("id, region, n", "(7, 'eu', 7), (60, 'us', -60)").await;
        let merge = upsert().skip_unchanged();
        table.merge(source, &merge, &Options::default()).await.unwrap();
        let content = content(&table).await;
        assert!(content.iter().any(|line| line == "7|eu|7"), "{format:?}");
    }
}

#[tokio::test]
async fn a_table_without_masks_gets_none_when_a_compaction_comes_first() {
    for format in FORMATS {
        let (store, hooked) = hooked::store();
        let definition = lakehouse_core::model::Definition {
            schema: crate::verbs::schema(),
            partition_fields: Vec::new(),
            properties: [
                ("delta.enableDeletionVectors".to_owned(), "false".to_owned()),
                ("write.delete.mode".to_owned(), "copy-on-write".to_owned()),
            ]
            .into(),
            format_version: format.1,
        };
        let table = Table::create_in(store.clone(), format.0, &definition)
            .await
            .unwrap();
        append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
        append(&table, "(3, 'eu', 3), (4, 'eu', 4)").await;
        let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
        hooked.before_commit(async move {
            compact_all(&winner).await;
        });
        let report = delete(&table, "id < 3").await;
        assert_eq!(report.metric("num_target_files_masked"), 0, "{format:?}");
        assert_eq!(content(&table).await, ["3|eu|3", "4|eu|4"], "{format:?}");
        let files = table.files(&At::Latest).await.unwrap();
        assert!(files.iter().all(|file| file.masks.is_empty()), "{format:?}");
    }
}

#[tokio::test]
async fn rows_drawn_by_chance_are_drawn_once() {
    for turn in 0..24 {
        let format = FORMATS[turn % 3];
        let (store, hooked) = hooked::store();
        let table = table_in(store.clone(), format, "").await;
        append(&table, "(1, 'eu', 0), (2, 'eu', 0)").await;
        append(&table, "(3, 'eu', 0), (4, 'eu', 0)").await;
        let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
        hooked.before_commit(async move {
            compact_all(&winner).await;
        });
        let options = Options {
            strategy: Strategy::MergeOnRead,
            ..Options::default()
        };
        table
            .update("n = n + 1", Some("random() < 0.5"), &options)
            .await
            .unwrap();
        let ids: Vec<String> = content(&table)
            .await
            .iter()
            .map(|row| row[..1].to_owned())
            .collect();
        assert_eq!(ids, ["1", "2", "3", "4"], "turn {turn}, {format:?}");
    }
}

#[tokio::test]
async fn statements_that_read_what_the_other_deletes_do_not_both_run() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        let run = |table: Table, gone: i64, while_there: i64| async move {
            let mut session = Table::session(None, &StorageOptions::new());
            session.table("t", table.handle().clone(), At::Latest);
            let sql = format!(
                "DELETE FROM t WHERE id = {gone} AND EXISTS (SELECT 1 FROM t WHERE id = {while_there})"
            );
            session.execute(&sql, &Options::default()).await.unwrap();
        };
        hooked.before_commit(run(winner, 60, 1));
        run(table.clone(), 1, 60).await;
        assert_eq!(content(&table).await.len(), 99, "{format:?}");
    }
}

/// A delete that rewrites one file, with a mask in the new one, and masks a row of the other.
#[tokio::test]
async fn a_new_file_keeps_its_mask_when_others_come_first() {
    const DELETED: &str = "id < 18 OR id = 60";
    // What comes first, and whether it can be fitted to it.
    for (winner_deletes, plans) in [("id = 99", 1), ("id = 61", 1), ("id = 30", 2)] {
        for format in FORMATS {
            let (store, hooked) = hooked::store();
            // Row groups of four rows, so that one of them keeps half of its rows.
            let table = table_made(
                store.clone(),
                format,
                "",
                &[("write.parquet.row-group-limit", "4")],
            )
            .await;
            for file in [0..50, 50..100] {
                let values: Vec<String> = file.map(|id| format!("({id}, 'eu', {id})")).collect();
                append(&table, &values.join(", ")).await;
            }
            let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
            hooked.before_commit(async move {
                delete(&winner, winner_deletes).await;
            });
            let report = delete(&table, DELETED).await;
            let what = format!("{format:?} after {winner_deletes}");
            assert_eq!((report.attempts, report.plans), (2, plans), "{what}");
            assert_eq!(report.metric("num_target_files_rewritten"), 1, "{what}");
            assert_eq!(content(&table).await.len(), 100 - 19 - 1, "{what}");
            let files = table.files(&At::Latest).await.unwrap();
            let mut masked: Vec<_> = files.iter().map(|file| (file.rows, file.masked_rows())).collect();
            masked.sort_unstable();
            // Of the file that the winner deletes of, the row group that it hits is decoded or copied too.
            assert_eq!(
                masked[1],
                (50, Some(if plans == 1 { 2 } else { 1 })),
                "{what}: {masked:?}"
            );
            assert_eq!(
                masked[0].0 - masked[0].1.unwrap(),
                if plans == 1 { 32 } else { 31 },
                "{what}"
            );
            assert!(masked[0].1 > Some(0), "{what}: {masked:?}");
            assert_eq!(orphans(&table).await, Vec::<String>::new(), "{what}");
        }
    }
}
