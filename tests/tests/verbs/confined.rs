//! Paths in metadata that lead elsewhere, and what errors must not repeat.

use lakehouse_core::model::At;
use lakehouse_core::store::{StorageOptions, Store};
use lakehouse_core::{Compact, Error, Options, Table};
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

/// A table, and a second one whose only file is the first one's, as in a shallow clone.
async fn clone_of(folder: &std::path::Path, name: &str) -> (Table, String, String) {
    let place = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (original, cloned) = (place("original"), place(name));
    let table = table_in(Store::open(&original).unwrap(), FORMATS[2], "").await;
    append(
        &table,
        "(1, 'eu', 1), (2, 'eu', 2), (3, 'us', 3), (4, 'us', 4), (5, 'us', 5)",
    )
    .await;
    let file = table.files(&At::Latest).await.unwrap().remove(0).path;
    let other = table_in(Store::open(&cloned).unwrap(), FORMATS[2], "").await;
    let entry = table.handle().store.get(ENTRY).await.unwrap();
    let entry = String::from_utf8(entry.to_vec()).unwrap();
    let entry = entry.replace(&file, &format!("file://{original}/{file}"));
    other.handle().store.put(ENTRY, entry.into()).await.unwrap();
    (table, original, cloned)
}

/// Everything below a folder, with its bytes.
async fn everything(folder: &str) -> Vec<(String, Vec<u8>)> {
    let store = Store::open(folder).unwrap();
    let mut found = Vec::new();
    for object in store.list("").await.unwrap() {
        let bytes = store.get(&object.path).await.unwrap();
        found.push((object.path, bytes.to_vec()));
    }
    found
}

#[tokio::test]
async fn files_in_a_place_that_is_allowed_by_name_are_read_and_never_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (table, original, cloned) = clone_of(folder.path(), "clone").await;
    let all = content(&table).await;
    let before = everything(&original).await;

    let refused = Table::open(&cloned)
        .await
        .unwrap()
        .files(&At::Latest)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Denied { .. }), "{refused:?}");
    assert!(refused.to_string().contains("allow_locations"), "{refused}");
    let absent: StorageOptions = [("allow_locations", format!("{original}-not"))]
        .into_iter()
        .collect();
    let refused = Table::open_with(&cloned, &absent).await.unwrap_err().to_string();
    assert!(
        refused.contains("not there") && refused.contains("original-not"),
        "{refused}"
    );
    std::fs::create_dir(format!("{original}-not")).unwrap();
    let beside: StorageOptions = [("allow_locations", format!("{original}-not"))]
        .into_iter()
        .collect();
    let other = Table::open_with(&cloned, &beside).await.unwrap();
    assert!(matches!(
        other.files(&At::Latest).await,
        Err(Error::Denied { .. })
    ));

    let allowed: StorageOptions = [("allow_locations", original.clone())].into_iter().collect();
    let clone = Table::open_with(&cloned, &allowed).await.unwrap();
    assert_eq!(content(&clone).await, all);
    let options = Options::default();
    // A row is masked in the file, then the file is rewritten, then nobody needs it.
    clone.delete("id = 1", &options).await.unwrap();
    assert_eq!(content(&clone).await.len(), 4);
    clone.compact(&Compact::default(), &options).await.unwrap();
    assert_eq!(content(&clone).await.len(), 4);
    clone.delete("id > 0", &options).await.unwrap();
    assert_eq!(content(&clone).await.len(), 0);
    let restored = clone.restore(&At::Version(1), &options).await.unwrap();
    assert!(restored.committed);
    assert_eq!(content(&clone).await, all);
    assert_eq!(
        everything(&original).await,
        before,
        "something was written outside of the table"
    );
    assert_eq!(content(&table).await, all);
}
