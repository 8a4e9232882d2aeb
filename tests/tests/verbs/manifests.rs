//! Manifests are written anew and nothing else changes.

use std::collections::{BTreeMap, BTreeSet};

use lakehouse_core::model::{At, DataFile};
use lakehouse_core::{Alter, Error, Options, Table};

use super::check::{checked_all, wrong};
use super::lineage::lineage;
use super::{FORMATS, append, content, table_with};

/// What the metadata says of each file, by path.
async fn files(table: &Table) -> BTreeMap<String, DataFile> {
    let files = table.files(&At::Latest).await.unwrap();
    files.into_iter().map(|file| (file.path.clone(), file)).collect()
}

#[tokio::test]
async fn fewer_manifests_say_the_same_of_every_file_and_a_second_run_does_nothing() {
    for format in &FORMATS[..2] {
        let table = table_with(*format, "region", &[]).await;
        for id in 0..12 {
            append(
                &table,
                &format!(
                    "({id}, 'eu', 1), ({}, 'us', 2), ({}, NULL, 3)",
                    id + 100,
                    id + 200
                ),
            )
            .await;
            if id % 4 == 3 {
                table
                    .delete(&format!("id = {id}"), &Options::default())
                    .await
                    .unwrap();
            }
        }
        append(
            &table,
            "(500, 'eu', 1), (501, 'eu', 1), (502, 'eu', 1), (503, 'eu', 1), (504, 'eu', 1)",
        )
        .await;
        let masking = Options {
            strategy: lakehouse_core::operations::Strategy::MergeOnRead,
            ..Options::default()
        };
        table.delete("id = 501", &masking).await.unwrap();
        let (before, rows) = (files(&table).await, content(&table).await);
        let dry = Options {
            dry_run: true,
            ..Options::default()
        };
        let said = table.rewrite_manifests(&dry).await.unwrap();
        assert!(!said.committed && said.manifests.replaced > 10, "{said:?}");
        let report = table.rewrite_manifests(&Options::default()).await.unwrap();
        assert!(report.committed, "{report:?}");
        assert_eq!(report.manifests, said.manifests);
        assert_eq!(report.manifests.created, 1, "{report:?}");
        assert_eq!(
            files(&table).await,
            before,
            "{format:?}: sequence numbers, row ids, masks and all"
        );
        assert_eq!(content(&table).await, rows);
        let commit = table.history(Some(1)).await.unwrap().remove(0);
        assert_eq!(commit.summary["operation"], "replace");
        assert_eq!(
            commit.summary["manifests-created"],
            report.manifests.created.to_string()
        );
        assert_eq!(
            commit.summary["manifests-replaced"],
            report.manifests.replaced.to_string()
        );
        assert_eq!(commit.summary["total-data-files"], before.len().to_string());
        let again = table.rewrite_manifests(&Options::default()).await.unwrap();
        assert!(!again.committed && again.manifests.replaced == 0, "{again:?}");
        // What follows builds upon it.
        table
            .update("n = n + 1", Some("id < 3"), &Options::default())
            .await
            .unwrap();
        append(&table, "(900, 'eu', 1)").await;
        assert_eq!(content(&table).await.len(), rows.len() + 1);
    }
}

#[tokio::test]
async fn manifests_of_the_target_size_hold_one_range_of_partitions_each() {
    let properties = [("commit.manifest.target-size-bytes", "20000")];
    let table = table_with(FORMATS[0], "region", &properties).await;
    for id in 0..30 {
        append(
            &table,
            &format!("({id}, 'r{:02}', 1), ({id}, 'r{:02}', 1)", id % 10, (id + 5) % 10),
        )
        .await;
    }
    let rows = content(&table).await;
    let report = table.rewrite_manifests(&Options::default()).await.unwrap();
    let made = report.manifests.created;
    assert!(report.committed && made > 1 && made < 30, "{report:?}");
    assert_eq!(content(&table).await, rows);
    // A reader of one partition opens a part of them.
    let newest = table.snapshot(&At::Latest).await.unwrap();
    let found = table.files_where(&newest, "region = 'r03'").await.unwrap();
    assert_eq!(found.len(), 6);
}

#[tokio::test]
async fn manifests_from_before_a_partition_column_was_widened_are_joined_with_those_after() {
    for format in &FORMATS[..2] {
        let table = table_with(*format, "n, region", &[]).await;
        for id in 0..4 {
            append(&table, &format!("({id}, 'eu', {id}), ({}, NULL, NULL)", id + 100)).await;
        }
        let wider = Alter::default().widen("n bigint").unwrap();
        table.alter(&wider, &Options::default()).await.unwrap();
        for id in 4..8 {
            append(&table, &format!("({id}, 'eu', {id})")).await;
        }
        let (before, rows) = (files(&table).await, content(&table).await);
        let report = table.rewrite_manifests(&Options::default()).await.unwrap();
        assert_eq!(
            (report.manifests.replaced, report.manifests.created),
            (8, 1),
            "{format:?}"
        );
        // Partition values are of the new type by now.
        let told = |files: &BTreeMap<String, DataFile>| -> Vec<String> {
            let files = files.values().map(|file| {
                let values = file.partition.iter().map(ToString::to_string);
                let values = values.collect::<Vec<_>>().join("/");
                let file = DataFile {
                    partition: Vec::new(),
                    ..file.clone()
                };
                format!("{values} {file:?}")
            });
            files.collect()
        };
        assert_eq!(told(&files(&table).await), told(&before), "{format:?}");
        assert_eq!(content(&table).await, rows, "{format:?}");
        let newest = table.snapshot(&At::Latest).await.unwrap();
        assert_eq!(table.files_where(&newest, "n = 2").await.unwrap().len(), 1);
        let again = table.rewrite_manifests(&Options::default()).await.unwrap();
        assert!(
            !again.committed && again.manifests.replaced == 0,
            "{format:?}: {again:?}"
        );
        assert!(wrong(&checked_all(&table).await).is_empty(), "{format:?}");
    }
}

#[tokio::test]
async fn a_commit_joins_small_manifests_from_before_a_partition_column_was_widened() {
    let properties = [("commit.manifest.min-count-to-merge", "4")];
    for format in &FORMATS[..2] {
        let table = table_with(*format, "n", &properties).await;
        append(&table, "(1, 'eu', 1)").await;
        append(&table, "(2, 'eu', 2)").await;
        let wider = Alter::default().widen("n bigint").unwrap();
        table.alter(&wider, &Options::default()).await.unwrap();
        for id in 3..20 {
            append(&table, &format!("({id}, 'eu', {id})")).await;
        }
        let said = table
            .rewrite_manifests(&Options::default())
            .await
            .unwrap()
            .manifests;
        assert!(said.replaced <= 4, "{format:?}: {said:?}");
        assert_eq!(content(&table).await.len(), 19, "{format:?}");
        assert!(wrong(&checked_all(&table).await).is_empty(), "{format:?}");
    }
}

#[tokio::test]
async fn manifests_from_before_rows_had_ids_are_written_anew_and_their_rows_get_ids() {
    let table = table_with(FORMATS[0], "", &[]).await;
    for id in 0..6 {
        append(&table, &format!("({id}, 'eu', 1), ({}, 'eu', 1)", id + 100)).await;
    }
    let upgrade = Alter::default().format_version(3);
    table.alter(&upgrade, &Options::default()).await.unwrap();
    let report = table.rewrite_manifests(&Options::default()).await.unwrap();
    assert_eq!((report.manifests.replaced, report.manifests.created), (6, 1));
    let ids: BTreeSet<i64> = lineage(&table).await.values().map(|(id, _)| *id).collect();
    assert_eq!(ids, (0..12).collect());
    let again = table.rewrite_manifests(&Options::default()).await.unwrap();
    assert!(!again.committed && again.manifests.replaced == 0, "{again:?}");
    append(&table, "(900, 'eu', 1)").await;
    assert_eq!(lineage(&table).await["900"].0, 12);
    assert!(wrong(&checked_all(&table).await).is_empty());
}

#[tokio::test]
async fn a_table_without_manifests_says_what_to_use_instead() {
    let table = table_with(FORMATS[2], "", &[]).await;
    let refused = table.rewrite_manifests(&Options::default()).await;
    let Err(Error::Unsupported { hint, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(hint.contains("lake checkpoint"), "{hint}");
}
