//! Pairs of operations of which the second must take notice of the first, and commits whose own fate is in doubt.

use lakehouse_core::model::At;
use lakehouse_core::operations::Strategy;
use lakehouse_core::{Compact, Error, Options, Table, TableFormat};

use super::hooked::Answer;
use super::{hooked, prepare};
use crate::verbs::lineage::lineage;
use crate::verbs::{FORMATS, append, content, rows, table_in};

fn masking() -> Options {
    Options {
        strategy: Strategy::MergeOnRead,
        ..Options::default()
    }
}

fn keyed(key: &str) -> Options {
    Options {
        token: Some(key.into()),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_delete_takes_the_new_image_of_a_row_that_the_winner_updated() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            winner.update("n = -1", Some("id = 7"), &masking()).await.unwrap();
        });
        table.delete("id = 7", &masking()).await.unwrap();
        let content = content(&table).await;
        assert!(
            !content.iter().any(|row| row.starts_with("7|")),
            "{format:?}: a deleted row is there in another form"
        );
        assert_eq!(content.len(), 99, "{format:?}");
    }
}

#[tokio::test]
async fn an_update_does_not_bring_back_rows_that_the_winner_deleted() {
    // Of the same file: one of its own rows, then only others.
    for (format, condition) in FORMATS
        .into_iter()
        .flat_map(|f| [(f, "id in (7, 8)"), (f, "id = 8")])
    {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            winner.delete("id in (7, 60)", &masking()).await.unwrap();
        });
        let options = masking();
        let report = table.update("n = -1", Some(condition), &options).await.unwrap();
        let content = content(&table).await;
        let back: Vec<_> = content
            .iter()
            .filter(|row| row.starts_with("7|") || row.starts_with("60|"))
            .collect();
        assert!(
            back.is_empty(),
            "{format:?}, {condition}: deleted rows are back: {back:?}: {report:?}"
        );
        assert_eq!(content.len(), 98, "{format:?}");
    }
}

#[tokio::test]
async fn a_merge_does_not_insert_a_key_that_the_winner_inserted() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(300, 'eu', 1)").await;
        });
        super::merge(&table, "(7, 'us', -7), (300, 'us', 300)").await;
        let content = content(&table).await;
        let found: Vec<_> = content.iter().filter(|row| row.starts_with("300|")).collect();
        assert_eq!(found, ["300|us|300"], "{format:?}: a key is there twice");
        assert_eq!(content.len(), 101, "{format:?}");
    }
}

#[tokio::test]
async fn a_compaction_does_not_bring_back_rows_that_were_deleted_meanwhile() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            winner.delete("id in (7, 60)", &masking()).await.unwrap();
        });
        let report = table.compact(&Compact::default(), &Options::default()).await;
        let content = content(&table).await;
        assert_eq!(content.len(), 98, "{format:?}: deleted rows are back: {report:?}");
        assert!(report.unwrap().committed, "{format:?}");
    }
}

#[tokio::test]
async fn of_an_overwrite_and_what_came_before_it_only_its_rows_are_left() {
    for format in FORMATS {
        for empty in [true, false] {
            for overwrites in [true, false] {
                let (store, hooked) = hooked::store();
                let table = table_in(store.clone(), format, "").await;
                if !empty {
                    append(&table, "(1, 'eu', 1)").await;
                }
                let winner = Table::open_in(hooked.plain(&store)).await.unwrap();
                hooked.before_commit(async move {
                    let input = rows("id, region, n", "(2, 'eu', 2)").await;
                    let options = Options::default();
                    match overwrites {
                        true => winner.overwrite(input, None, &options).await.unwrap(),
                        false => winner.append(input, &options).await.unwrap(),
                    };
                });
                let input = rows("id, region, n", "(3, 'eu', 3)").await;
                table.overwrite(input, None, &Options::default()).await.unwrap();
                assert_eq!(
                    content(&table).await,
                    ["3|eu|3"],
                    "{format:?}: an overwrite left rows of its winner (empty {empty}, overwrites {overwrites})"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_restore_does_not_undo_what_it_did_not_see() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(200, 'eu', 1)").await;
        });
        let restored = table.restore(&At::Version(-1), &Options::default()).await;
        assert_eq!(
            content(&table).await.len(),
            101,
            "{format:?}: acknowledged rows are gone: {restored:?}"
        );
        let error = restored.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{format:?}: {error}");
    }
}

#[tokio::test]
async fn a_commit_by_another_handle_is_seen_by_the_next_read() {
    for format in FORMATS {
        let (table, winner, _) = prepare(format).await;
        assert_eq!(content(&table).await.len(), 100, "{format:?}");
        append(&winner, "(200, 'eu', 1)").await;
        assert_eq!(
            content(&table).await.len(),
            101,
            "{format:?}: a version of another writer is not seen"
        );
    }
}

#[tokio::test]
async fn of_two_commits_with_one_key_the_second_does_nothing() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        let input = || rows("id, region, n", "(200, 'eu', 200)");
        hooked.before_commit(async move {
            winner.append(input().await, &keyed("one")).await.unwrap();
        });
        let second = table.append(input().await, &keyed("one")).await.unwrap();
        assert!(
            second.already.is_some(),
            "{format:?}: one key has committed twice: {second:?}"
        );
        assert_eq!(content(&table).await.len(), 101, "{format:?}");
        assert_eq!(super::orphans(&table).await, Vec::<String>::new(), "{format:?}");
    }
}

#[tokio::test]
async fn rows_of_commits_that_raced_have_ids_of_their_own() {
    let (table, winner, hooked) = prepare((TableFormat::Iceberg, Some(3))).await;
    hooked.before_commit(async move {
        append(&winner, "(200, 'eu', 1), (201, 'eu', 1), (202, 'eu', 1)").await;
    });
    append(&table, "(300, 'eu', 1), (301, 'eu', 1)").await;
    let found = lineage(&table).await;
    let ids: std::collections::BTreeSet<i64> = found.values().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 105, "row ids were given twice: {found:?}");
}

/// A put without an answer may be carried out whenever. What the store says to the next one says nothing of it.
#[tokio::test]
async fn a_full_disk_after_a_put_without_an_answer_is_no_certain_failure() {
    for format in FORMATS {
        let (table, _, hooked) = prepare(format).await;
        let mut answers = vec![Answer::Late];
        answers.extend([Answer::Full; 20]);
        hooked.answer(&answers);
        let input = rows("id, region, n", "(200, 'eu', 200)").await;
        let error = table.append(input, &Options::default()).await.unwrap_err();
        assert!(
            matches!(error, Error::CommitUnknown { .. }),
            "{format:?}: a commit that can still land was given up: {error}"
        );
        hooked.deliver().await;
        assert_eq!(content(&table).await.len(), 101, "{format:?}");
    }
}
