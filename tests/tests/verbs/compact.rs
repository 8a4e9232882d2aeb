//! Compaction, case by case.

use lakehouse_core::model::At;
use lakehouse_core::{Compact, Options};

use super::{FORMATS, append, content, table};

#[tokio::test]
async fn small_and_masked_files_become_one_per_partition_and_a_second_run_does_nothing() {
    for format in FORMATS {
        let table = table(format, "region").await;
        for id in 0..4 {
            append(&table, &format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 100)).await;
        }
        table.delete("id IN (1, 101)", &Options::default()).await.unwrap();
        let before = content(&table).await;
        let report = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert!(report.committed);
        assert_eq!(report.metric("num_target_rows_copied"), 6);
        let files = table.files(&At::Latest).await.unwrap();
        assert_eq!(files.len(), 2);
        assert!(
            files.iter().all(|f| f.masks.is_empty() && f.rows == 3),
            "{files:?}"
        );
        assert_eq!(content(&table).await, before);
        let again = table
            .compact(&Compact::default(), &Options::default())
            .await
            .unwrap();
        assert!(!again.committed, "{again:?}");
    }
}

#[tokio::test]
async fn only_partitions_that_may_hold_such_rows_are_compacted() {
    for format in FORMATS {
        let table = table(format, "region").await;
        for id in 0..3 {
            append(&table, &format!("({id}, 'eu', 1), ({}, 'us', 2)", id + 100)).await;
        }
        let compact = Compact {
            predicate: Some("region = 'eu'".to_owned()),
            ..Compact::default()
        };
        let report = table.compact(&compact, &Options::default()).await.unwrap();
        assert_eq!(report.metric("num_target_files_removed"), 3, "{report:?}");
        assert_eq!(table.files(&At::Latest).await.unwrap().len(), 4);
    }
}

#[tokio::test]
async fn good_files_are_left_alone_whatever_their_number() {
    for format in FORMATS {
        let table = table(format, "").await;
        for id in 0..3 {
            let values: Vec<String> = (0..500)
                .map(|n| format!("({}, 'r{}', {n})", id * 1000 + n, n * 7919))
                .collect();
            append(&table, &values.join(", ")).await;
        }
        let bytes = table.files(&At::Latest).await.unwrap()[0].bytes;
        let compact = Compact {
            target_file_bytes: Some(bytes),
            predicate: None,
        };
        let report = table.compact(&compact, &Options::default()).await.unwrap();
        assert!(!report.committed, "{report:?}");
    }
}
