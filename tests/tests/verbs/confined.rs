//! Paths in metadata that lead elsewhere, and what errors must not repeat.

use lakehouse_core::model::At;
use lakehouse_core::store::Store;
use lakehouse_core::{Error, Table};
use object_store::memory::InMemory;
use std::sync::Arc;

use super::{FORMATS, append, content, table_in};

const ENTRY: &str = "_delta_log/00000000000000000001.json";

/// A Delta table of one row whose only file the log names like this.
async fn naming(path: &str) -> Store {
    let root = "memory://lake/tenant-a".parse().unwrap();
    let store = Store::over(Arc::new(InMemory::new()), root);
    let table = table_in(store.clone(), FORMATS[2], "").await;
    append(&table, "(1, 'eu', 1)").await;
    let file = table.files(&At::Latest).await.unwrap().remove(0).path;
    // What a mistake could lead to is there.
    let bytes = store.get(&file).await.unwrap();
    for decoy in [
        "a b.parquet",
        "-evil/x.parquet",
        "lake/tenant-b/x.parquet",
        "etc/x.parquet",
    ] {
        store.put(decoy, bytes.clone()).await.unwrap();
    }
    let entry = String::from_utf8(store.get(ENTRY).await.unwrap().to_vec()).unwrap();
    assert!(entry.contains(&file), "{entry}");
    store.put(ENTRY, entry.replace(&file, path).into()).await.unwrap();
    store.delete(&[file]).await.unwrap();
    store
}

async fn refusal(path: &str) -> Error {
    let table = Table::open_in(naming(path).await).await.unwrap();
    match table.files(&At::Latest).await {
        Ok(files) => panic!("a path that leads out of the table was accepted: {path} as {files:?}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn paths_outside_the_table_are_denied() {
    for path in [
        "memory://lake/tenant-b/x.parquet",
        "memory://lake/tenant-a-evil/x.parquet",
        "memory://lake/tenant-a%2Devil/x.parquet",
        "file:///etc/x.parquet",
        "/etc/x.parquet",
    ] {
        let error = refusal(path).await;
        assert!(matches!(error, Error::Denied { .. }), "{path}: {error:?}");
    }
    for path in [
        "../x.parquet",
        "%2e%2e/x.parquet",
        "a/%2E%2E/%2e%2e/x.parquet",
        "..%2Fx.parquet",
    ] {
        let error = refusal(path).await;
        assert!(matches!(error, Error::Invalid { .. }), "{path}: {error:?}");
    }
    // Iceberg spells paths verbatim.
    let store = naming("x").await;
    for path in [
        "memory://lake/tenant-a-evil/x",
        "memory://lake/tenant-b/x",
        "s3://lake/tenant-a/x",
    ] {
        let found = store.relative(path);
        assert!(matches!(found, Err(Error::Denied { .. })), "{path}: {found:?}");
    }
}

#[tokio::test]
async fn a_path_is_decoded_once() {
    // A file whose name has a percent sign in it, next to the one that decoding twice would find.
    let store = naming("a%2520b.parquet").await;
    let table = Table::open_in(store.clone()).await.unwrap();
    let files = table.files(&At::Latest).await.unwrap();
    assert_eq!(files[0].path, "a%20b.parquet", "a path was not decoded once");
    let there = store.get("a b.parquet").await.unwrap();
    store.put("a%20b.parquet", there).await.unwrap();
    store.delete(&["a b.parquet".to_owned()]).await.unwrap();
    assert_eq!(content(&table).await, ["1|eu|1"]);
    let store = naming("%252e%252e/x.parquet").await;
    let table = Table::open_in(store).await.unwrap();
    let files = table.files(&At::Latest).await.unwrap();
    assert_eq!(files[0].path, "%2e%2e/x.parquet", "a path was not decoded once");
}

#[tokio::test]
async fn a_password_in_a_location_is_refused_and_not_repeated() {
    for location in [
        "s3://lake:canary-secret@bucket/t",
        "file://lake:canary-secret@host/t",
        "s3://bucket/t?X-Amz-Signature=canary-secret",
    ] {
        let error = Table::open(location).await.unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.hint());
        assert!(
            !shown.contains("canary-secret"),
            "an error repeats a secret: {shown}"
        );
    }
}
