//! Table features of Delta that are switched on where rows are there already (row tracking: lineage.rs).

use std::sync::Arc;

use lakehouse_core::model::{At, DataFile, Prune};
use lakehouse_core::operations::{SchemaMode, Strategy};
use lakehouse_core::{Alter, Options, Rows, Table, TableFormat};

use super::{append, content, query, table_with};

const DELTA: (TableFormat, Option<u8>) = (TableFormat::Delta, None);

async fn set(table: &Table, property: &str) {
    let change = Alter::default().property(property, Some("true"));
    let done = table.alter(&change, &Options::default()).await.unwrap();
    assert!(done.committed);
}

async fn files(table: &Table) -> Vec<DataFile> {
    use futures::TryStreamExt;
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let files = table
        .handle()
        .format
        .files(&snapshot, Arc::new(Prune::everything()));
    files.try_collect().await.unwrap()
}

#[tokio::test]
async fn rows_are_masked_once_deletion_vectors_are_switched_on_and_not_before() {
    let table = table_with(DELTA, "", &[("delta.enableDeletionVectors", "false")]).await;
    append(&table, "(1, 'eu', 1), (2, 'eu', 2), (3, 'us', 3)").await;
    let masking = Options {
        strategy: Strategy::MergeOnRead,
        ..Options::default()
    };
    let error = table.delete("id = 1", &masking).await.unwrap_err();
    assert!(
        error.hint().unwrap().contains("delta.enableDeletionVectors=true"),
        "{error}"
    );
    table.delete("id = 1", &Options::default()).await.unwrap();
    assert!(files(&table).await.iter().all(|file| file.masks.is_empty()));
    set(&table, "delta.enableDeletionVectors").await;
    table.delete("id = 2", &masking).await.unwrap();
    assert!(files(&table).await.iter().any(|file| !file.masks.is_empty()));
    assert_eq!(content(&table).await, ["3|us|3"]);
    let features = &table.snapshot(&At::Latest).await.unwrap().features;
    assert!(
        features.iter().any(|feature| feature == "deletionVectors"),
        "{features:?}"
    );
}

#[tokio::test]
async fn changed_rows_are_kept_from_when_the_change_feed_is_switched_on() {
    let table = table_with(DELTA, "", &[]).await;
    append(&table, "(1, 'eu', 1), (2, 'eu', 2)").await;
    let kept = async || table.handle().store.list("_change_data").await.unwrap().len();
    let options = Options::default();
    table.update("n = 5", Some("id = 1"), &options).await.unwrap();
    assert_eq!(kept().await, 0);
    set(&table, "delta.enableChangeDataFeed").await;
    table.update("n = 6", Some("id = 1"), &options).await.unwrap();
    assert_eq!(kept().await, 1);
    assert_eq!(content(&table).await, ["1|eu|6", "2|eu|2"]);
}

#[tokio::test]
async fn columns_become_wider_with_rows_once_that_is_switched_on() {
    let table = table_with(DELTA, "", &[]).await;
    append(&table, "(1, 'eu', 1)").await;
    let options = Options::default().schema_mode(SchemaMode::Merge);
    let wide = async || {
        let (schema, batches) = query("SELECT 2 AS id, arrow_cast(5000000000, 'Int64') AS n").await;
        table.append(Rows::batches(schema, batches), &options).await
    };
    let error = wide().await.unwrap_err();
    assert!(error.to_string().contains("does not fit Int32"), "{error}");
    set(&table, "delta.enableTypeWidening").await;
    wide().await.unwrap();
    assert_eq!(content(&table).await, ["1|eu|1", "2||5000000000"]);
}
