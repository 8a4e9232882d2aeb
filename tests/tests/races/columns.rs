//! Columns that come with rows, and commits that come first.

use lakehouse_core::operations::{Report, SchemaMode};
use lakehouse_core::{Merge, Options, Table, TableFormat};

use super::{orphans, prepare, upsert};
use crate::verbs::{FORMATS, append, compact_all, content, delete, rows};

async fn append_with_tip(table: &Table, values: &str) -> Report {
    let options = Options::default().schema_mode(SchemaMode::Merge);
    let input = rows("id, tip", values).await;
    table.append(input, &options).await.unwrap()
}

async fn has(table: &Table, expected: &[&str]) {
    let content = content(table).await;
    for row in expected {
        assert!(
            content.iter().any(|line| line == row),
            "{row} is missing: {content:?}"
        );
    }
}

#[tokio::test]
async fn two_appends_that_add_one_column_both_land_and_add_it_once() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            let report = append_with_tip(&winner, "(200, 0.5)").await;
            assert_eq!(report.columns_added, ["tip"]);
        });
        let report = append_with_tip(&table, "(300, 1.5)").await;
        assert_eq!((report.attempts, report.plans), (2, 2), "{format:?}");
        assert!(report.columns_added.is_empty(), "{format:?}: the winner added it");
        assert_eq!(content(&table).await.len(), 102, "{format:?}");
        has(&table, &["0|eu|0|", "200|||0.5", "300|||1.5"]).await;
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{format:?}");
    }
}

#[tokio::test]
async fn two_appends_that_add_different_columns_both_land() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            let options = Options::default().schema_mode(SchemaMode::Merge);
            winner
                .append(rows("id, note", "(200, 'x')").await, &options)
                .await
                .unwrap();
        });
        let report = append_with_tip(&table, "(300, 1.5)").await;
        assert_eq!((report.plans, report.columns_added.len()), (2, 1), "{format:?}");
        has(&table, &["0|eu|0||", "200|||x|", "300||||1.5"]).await;
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{format:?}");
    }
}

#[tokio::test]
async fn columns_are_added_over_a_winner_that_only_appended() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(200, 'us', 2)").await;
        });
        let report = append_with_tip(&table, "(300, 1.5)").await;
        assert_eq!((report.attempts, report.plans), (2, 1), "{format:?}");
        assert_eq!(report.columns_added, ["tip"], "{format:?}");
        has(&table, &["200|us|2|", "300|||1.5"]).await;
        assert_eq!(content(&table).await.len(), 102, "{format:?}");
    }
}

#[tokio::test]
async fn a_merge_that_adds_a_column_survives_a_compaction() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            let report = compact_all(&winner).await;
            assert!(report.committed);
        });
        let options = Options::default().schema_mode(SchemaMode::Merge);
        let source = rows("id, n, tip", "(7, -7, 0.5), (61, -61, 1.5), (200, 200, 2.5)").await;
        let report = table.merge(source, &upsert(), &options).await.unwrap();
        assert_eq!(report.columns_added, ["tip"], "{format:?}");
        assert_eq!(content(&table).await.len(), 101, "{format:?}");
        has(
            &table,
            &["6|eu|6|", "7|eu|-7|0.5", "61|eu|-61|1.5", "200||200|2.5"],
        )
        .await;
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{format:?}");
    }
}

#[tokio::test]
async fn a_merge_that_adds_a_column_and_one_that_masked_other_rows_both_count() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            delete(&winner, "id in (5, 60)").await;
        });
        let options = Options::default().schema_mode(SchemaMode::Merge);
        let source = rows("id, n, tip", "(7, -7, 0.5), (200, 200, 2.5)").await;
        let report = table.merge(source, &upsert(), &options).await.unwrap();
        assert_eq!((report.attempts, report.plans), (2, 1), "{format:?}");
        assert_eq!(report.columns_added, ["tip"], "{format:?}");
        assert_eq!(content(&table).await.len(), 99, "{format:?}");
        has(&table, &["7|eu|-7|0.5", "200||200|2.5"]).await;
    }
}

#[tokio::test]
async fn rows_without_the_column_land_over_a_winner_that_added_it() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append_with_tip(&winner, "(200, 0.5)").await;
        });
        let report = append(&table, "(300, 'us', 3)").await;
        // Iceberg finds columns by id, so that files of the older schema still fit.
        let plans = if format.0 == TableFormat::Delta { 2 } else { 1 };
        assert_eq!((report.attempts, report.plans), (2, plans), "{format:?}");
        has(&table, &["200|||0.5", "300|us|3|"]).await;

        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append_with_tip(&winner, "(200, 0.5)").await;
        });
        let report = table
            .update("n = n + 1", Some("id = 200"), &Options::default())
            .await
            .unwrap();
        assert!(!report.committed || report.plans == 2, "{format:?}");
        let report = super::merge(&table, "(1, 'us', -1), (200, 'us', 2)").await;
        assert!(report.committed, "{format:?}");
        has(&table, &["1|us|-1|", "200|us|2|0.5"]).await;
    }
}

#[tokio::test]
async fn narrow_files_land_over_a_winner_that_widened_their_column() {
    for format in FORMATS
        .into_iter()
        .filter(|format| format.0 == TableFormat::Iceberg)
    {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            let options = Options::default().schema_mode(SchemaMode::Merge);
            let input = rows("id, n", "(200, 5000000000)").await;
            let report = winner.append(input, &options).await.unwrap();
            assert_eq!(report.columns_widened, ["n"]);
        });
        let report = append(&table, "(300, 'us', 3)").await;
        assert_eq!((report.attempts, report.plans), (2, 1), "{format:?}");
        has(&table, &["200||5000000000", "300|us|3", "3|eu|3"]).await;
        let options = Options::default();
        table.delete("n = 3 OR n > 4000000000", &options).await.unwrap();
        assert_eq!(content(&table).await.len(), 99, "{format:?}");

        // The keys of a merge that widens are compared with what a winner stored narrow.
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(300, 'us', 333)").await;
        });
        let by_n = Merge::on("n").when_matched_update_all();
        let merging = options.schema_mode(SchemaMode::Merge);
        let source = rows("n, region", "(7, 'x'), (333, 'y'), (5000000000, 'z')").await;
        let report = table.merge(source, &by_n, &merging).await.unwrap();
        assert_eq!(report.columns_widened, ["n"], "{format:?}");
        has(&table, &["7|x|7", "300|y|333", "8|eu|8"]).await;
    }
}
