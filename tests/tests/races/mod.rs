//! Commits that come first, at the worst moment: right before an operation publishes. What it planned is
//! fitted to them or planned again; either way the table must be as if the others had run before it.

mod differential;
mod hooked;

use lakehouse_core::model::At;
use lakehouse_core::operations::Strategy;
use lakehouse_core::{Compact, Merge, Options, Report, Table};

use crate::verbs::{FORMATS, append, content, rows, table_in};
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
async fn orphans(table: &Table) -> Vec<String> {
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
            winner.delete("id in (5, 60)", &Options::default()).await.unwrap();
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
            winner.delete("id = 7", &Options::default()).await.unwrap();
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
            let report = winner
                .compact(&Compact::default(), &Options::default())
                .await
                .unwrap();
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
            winner
                .compact(&Compact::default(), &Options::default())
                .await
                .unwrap();
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
            winner.delete("id = 7", &Options::default()).await.unwrap();
        });
        let all = rows("id, region, n", "(1, 'us', 1)").await;
        let report = table.overwrite(all, None, &Options::default()).await.unwrap();
        assert_eq!(report.plans, 2, "{format:?}");
        assert_eq!(content(&table).await, ["1|us|1"]);
    }
}
