//! Tables that are altered while others write to them.

use lakehouse_core::operations::Alter;
use lakehouse_core::{Error, Options, Table, TableFormat};

use super::{merge, orphans, prepare};
use crate::verbs::{FORMATS, append, compact_all, content, delete, lines, rows};

async fn ask(table: &Table, condition: &str) -> Vec<String> {
    let ctx = datafusion::prelude::SessionContext::new();
    let provider = table.provider(&lakehouse_core::model::At::Latest).await.unwrap();
    ctx.register_table("t", provider).unwrap();
    let sql = format!("SELECT id FROM t WHERE {condition}");
    lines(&ctx.sql(&sql).await.unwrap().collect().await.unwrap())
}

/// `n` is called `m` from now on, and a new column `n`.
async fn swap(table: &Table) {
    let change = Alter::default()
        .rename_column("n".parse().unwrap(), "m")
        .add_column("n int")
        .unwrap();
    table.alter(&change, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn rows_appended_over_a_rename_get_the_columns_that_have_their_names_by_then() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move { swap(&winner).await });
        let report = append(&table, "(300, 'us', 3)").await;
        // Also by the statistics of the file: `m` has none of its values there.
        let found = (ask(&table, "n = 3").await, ask(&table, "m = 3").await);
        let expected = (vec!["300".to_owned()], vec!["3".to_owned()]);
        assert_eq!(
            found, expected,
            "{format:?}: a value came to be in another column"
        );
        assert_eq!(ask(&table, "m IS NULL").await, ["300"], "{format:?}");
        assert_eq!((report.attempts, report.plans), (2, 2), "{format:?}");
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{format:?}");
    }
}

#[tokio::test]
async fn a_compaction_over_a_rename_moves_no_value_to_another_column() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        append(&table, "(200, 'eu', 1)").await;
        hooked.before_commit(async move { swap(&winner).await });
        compact_all(&table).await;
        assert_eq!(ask(&table, "m = 7").await, ["7"], "{format:?}");
        assert!(ask(&table, "n IS NOT NULL").await.is_empty(), "{format:?}");
    }
}

#[tokio::test]
async fn a_table_is_altered_over_winners_that_only_wrote_rows() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(200, 'us', 2)").await;
            delete(&winner, "id < 3").await;
            merge(&winner, "(50, 'us', -50)").await;
        });
        let change = Alter::default()
            .rename_column("n".parse().unwrap(), "m")
            .add_column("tip double")
            .unwrap();
        let report = table.alter(&change, &Options::default()).await.unwrap();
        assert_eq!((report.attempts, report.plans), (2, 1), "{format:?}");
        assert_eq!(ask(&table, "m IN (2, -50)").await, ["200", "50"], "{format:?}");
        assert_eq!(content(&table).await.len(), 98, "{format:?}");
    }
}

#[tokio::test]
async fn a_column_is_not_required_over_a_winner_that_appended_a_null() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(200, 'us', NULL)").await;
        });
        let change = Alter::default().nullable("n".parse().unwrap(), false);
        let error = table.alter(&change, &Options::default()).await.unwrap_err();
        assert!(
            matches!(error, Error::Invalid { .. }) && error.to_string().contains("| 200 "),
            "{format:?}: {error}"
        );

        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            append(&winner, "(200, 'us', 2)").await;
        });
        table.alter(&change, &Options::default()).await.unwrap();
        assert_eq!(content(&table).await.len(), 101, "{format:?}");
    }
}

#[tokio::test]
async fn a_null_is_not_appended_over_a_winner_that_required_the_column() {
    for format in FORMATS {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            let change = Alter::default().nullable("n".parse().unwrap(), false);
            winner.alter(&change, &Options::default()).await.unwrap();
        });
        let nulls = rows("id, region, n", "(200, 'us', CAST(NULL AS INT))").await;
        let error = table.append(nulls, &Options::default()).await.unwrap_err();
        assert!(error.to_string().contains("column 'n'"), "{format:?}: {error}");
        assert_eq!(content(&table).await.len(), 100, "{format:?}");
        assert_eq!(orphans(&table).await, Vec::<String>::new(), "{format:?}");
    }
}

#[tokio::test]
async fn rows_land_over_a_winner_that_changed_the_partitioning() {
    for format in FORMATS
        .into_iter()
        .filter(|format| format.0 == TableFormat::Iceberg)
    {
        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            let change = Alter::default().partition_by("bucket(4, id)").unwrap();
            winner.alter(&change, &Options::default()).await.unwrap();
        });
        append(&table, "(200, 'us', 2)").await;
        assert_eq!(ask(&table, "id = 200").await, ["200"], "{format:?}");

        let (table, winner, hooked) = prepare(format).await;
        hooked.before_commit(async move {
            let change = Alter::default().partition_by("bucket(4, id)").unwrap();
            winner.alter(&change, &Options::default()).await.unwrap();
        });
        let report = merge(&table, "(5, 'us', -5), (200, 'us', 2)").await;
        assert_eq!(report.plans, 2, "{format:?}");
        assert_eq!(
            ask(&table, "n IN (-5, 2) AND region = 'us'").await,
            ["200", "5"],
            "{format:?}"
        );
        assert_eq!(content(&table).await.len(), 101, "{format:?}");
    }
}

#[tokio::test]
async fn rows_appended_over_a_new_constraint_are_held_against_it() {
    let (table, winner, hooked) = prepare((TableFormat::Delta, None)).await;
    hooked.before_commit(async move {
        let change = Alter::default().property("delta.constraints.small", Some("n < 1000"));
        winner.alter(&change, &Options::default()).await.unwrap();
    });
    let rows = rows("id, region, n", "(300, 'us', 1000)").await;
    let error = table.append(rows, &Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("CHECK constraint small"), "{error}");
    assert_eq!(orphans(&table).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_constraint_that_rows_break_which_came_meanwhile_is_refused() {
    let (table, winner, hooked) = prepare((TableFormat::Delta, None)).await;
    hooked.before_commit(async move {
        append(&winner, "(300, 'us', 1000)").await;
    });
    let change = Alter::default().property("delta.constraints.small", Some("n < 1000"));
    let error = table.alter(&change, &Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("does not hold"), "{error}");
}
