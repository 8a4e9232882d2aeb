//! The metadata of an Iceberg table is damaged: the hint, the metadata file, manifests. What only the bytes of manifests
//! can say is tested beside the code.

use std::collections::BTreeSet;

use lakehouse_core::TableFormat;
use lakehouse_core::model::{At, Code, RefKind, Severity};
use lakehouse_core::operations::SetRef;
use lakehouse_core::operations::check::Check;
use lakehouse_core::store::Store;
use lakehouse_core::{Options, Table};
use serde_json::{Value, json};

use super::damage::{edit, found, one, sound};

const HINT: &str = "metadata/version-hint.text";
const VERSIONS: [(TableFormat, Option<u8>); 2] =
    [(TableFormat::Iceberg, Some(2)), (TableFormat::Iceberg, Some(3))];

async fn newest(table: &Table) -> String {
    format!(
        "metadata/v{}.metadata.json",
        table.snapshot(&At::Latest).await.unwrap().state
    )
}

async fn rewrite(store: &Store, path: &str, change: impl FnOnce(&mut Value)) {
    edit(store, path, |bytes| {
        let mut value: Value = serde_json::from_slice(bytes).unwrap();
        change(&mut value);
        *bytes = value.to_string().into_bytes();
    })
    .await;
}

#[tokio::test]
async fn a_hint_that_is_missing_stale_or_wrong_is_a_warning() {
    let (store, table) = sound(VERSIONS[0], "").await;
    let number = table.snapshot(&At::Latest).await.unwrap().state;
    for text in [
        "1".to_owned(),
        (number + 5).to_string(),
        "v3".to_owned(),
        String::new(),
    ] {
        store.put(HINT, text.clone().into()).await.unwrap();
        let checked = super::checked(&store, false).await;
        let codes: Vec<_> = checked
            .findings
            .iter()
            .map(|finding| (finding.code, finding.path.as_str()))
            .collect();
        assert_eq!(codes, [(Code::VersionHint, HINT)], "{text:?}");
        assert_eq!(checked.count(Severity::Error), 0);
    }
    store.delete(&[HINT.to_owned()]).await.unwrap();
    assert_eq!(found(&store, false).await, one(Code::VersionHint, HINT));
    let check = Check::default();
    let told = table.repair(&check, true).await.unwrap();
    assert_eq!(
        told.repaired
            .iter()
            .map(|finding| finding.code)
            .collect::<Vec<_>>(),
        [Code::VersionHint]
    );
    assert!(
        store.get_opt(HINT).await.unwrap().is_none(),
        "a dry run writes nothing"
    );
    let done = table.repair(&check, false).await.unwrap();
    assert_eq!(
        (done.repaired, done.checked.findings),
        (told.repaired, Vec::new())
    );
    assert_eq!(store.get(HINT).await.unwrap(), number.to_string());
}

#[tokio::test]
async fn versions_that_the_metadata_names_and_does_not_have_are_found() {
    for version in VERSIONS {
        let (store, table) = sound(version, "").await;
        let tag: SetRef = SetRef::new(RefKind::Tag, "v1");
        table.set_ref(&tag, &Options::default()).await.unwrap();
        let file = newest(&table).await;
        let good = store.get(&file).await.unwrap();
        rewrite(&store, &file, |metadata| {
            metadata["refs"]["v1"]["snapshot-id"] = 77.into();
        })
        .await;
        assert_eq!(found(&store, false).await, one(Code::RefDangling, &file));
        store.put(&file, good.clone()).await.unwrap();
        rewrite(&store, &file, |metadata| {
            metadata["current-snapshot-id"] = 77.into();
        })
        .await;
        let codes: BTreeSet<Code> = found(&store, false)
            .await
            .into_iter()
            .map(|(code, _)| code)
            .collect();
        assert!(codes.contains(&Code::CurrentVersion), "{codes:?}");
        store.put(&file, good.slice(..good.len() - 7)).await.unwrap();
        assert_eq!(found(&store, false).await, one(Code::MetadataUnreadable, &file));
        store.put(&file, good).await.unwrap();
        let older = "metadata/v2.metadata.json".to_owned();
        store.delete(std::slice::from_ref(&older)).await.unwrap();
        assert_eq!(found(&store, false).await, one(Code::MetadataLog, &older));
    }
}

/// The manifests of the table, by the list that the newest version names.
async fn manifests(store: &Store) -> Vec<String> {
    let objects = store
        .list("metadata/")
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.path);
    objects.filter(|path| path.ends_with(".avro")).collect()
}

#[tokio::test]
async fn a_manifest_that_is_gone_cut_or_damaged_is_named() {
    for version in VERSIONS {
        let (store, table) = sound(version, "").await;
        let metadata: Value =
            serde_json::from_slice(&store.get(&newest(&table).await).await.unwrap()).unwrap();
        let current = metadata["current-snapshot-id"].clone();
        let snapshots = metadata["snapshots"].as_array().unwrap();
        let snapshot = snapshots
            .iter()
            .find(|snapshot| snapshot["snapshot-id"] == current)
            .unwrap();
        let list = snapshot["manifest-list"].as_str().unwrap();
        let list = &list[list.find("metadata/").unwrap()..];
        let reachable = table
            .handle()
            .format
            .reachable(Some(&[current.as_i64().unwrap()]))
            .await
            .unwrap();
        let needed = manifests(&store)
            .await
            .into_iter()
            .filter(|path| reachable.contains(path));
        for manifest in needed {
            let good = store.get(&manifest).await.unwrap();
            let is_list = manifest == list;
            let whole = if is_list {
                Code::ManifestUnreadable
            } else {
                Code::FileMissing
            };
            store.delete(std::slice::from_ref(&manifest)).await.unwrap();
            assert_eq!(found(&store, true).await, one(whole, &manifest), "{version:?}");
            store.put(&manifest, good.slice(..good.len() - 20)).await.unwrap();
            let cut = if is_list {
                Code::ManifestUnreadable
            } else {
                Code::FileSize
            };
            assert_eq!(found(&store, true).await, one(cut, &manifest), "{version:?}");
            store.put(&manifest, good.clone()).await.unwrap();
            edit(&store, &manifest, |bytes| bytes[..4].fill(0)).await;
            assert_eq!(
                found(&store, true).await,
                one(Code::ManifestUnreadable, &manifest),
                "{version:?}"
            );
            store.put(&manifest, good).await.unwrap();
        }
        assert_eq!(found(&store, true).await, BTreeSet::new());
    }
}

#[tokio::test]
async fn figures_of_the_metadata_that_are_not_so_are_found() {
    for version in VERSIONS {
        let (store, table) = sound(version, "").await;
        let file = newest(&table).await;
        let good = store.get(&file).await.unwrap();
        let metadata: Value = serde_json::from_slice(&good).unwrap();
        let at = metadata["snapshots"].as_array().unwrap().len() - 1;
        for total in [
            "total-records",
            "total-data-files",
            "total-position-deletes",
            "total-files-size",
        ] {
            rewrite(&store, &file, |metadata| {
                metadata["snapshots"][at]["summary"][total] = "7777".into();
            })
            .await;
            let codes: Vec<Code> = found(&store, false)
                .await
                .into_iter()
                .map(|(code, _)| code)
                .collect();
            assert_eq!(codes, [Code::SummaryTotal], "{version:?} {total}");
            store.put(&file, good.clone()).await.unwrap();
        }
        let statistics = "metadata/stats.puffin";
        rewrite(&store, &file, |metadata| {
            metadata["statistics"] = json!([{
                "snapshot-id": metadata["current-snapshot-id"], "file-footer-size-in-bytes": 4,
                "statistics-path": format!("{}/{statistics}", metadata["location"].as_str().unwrap()),
                "file-size-in-bytes": 9, "blob-metadata": [],
            }]);
        })
        .await;
        assert_eq!(found(&store, false).await, one(Code::StatisticsFile, statistics));
        store.put(statistics, "12345678".into()).await.unwrap();
        assert_eq!(found(&store, false).await, one(Code::StatisticsFile, statistics));
        store.put(statistics, "123456789".into()).await.unwrap();
        assert_eq!(found(&store, false).await, BTreeSet::new());
        store.put(&file, good).await.unwrap();
        if version.1 == Some(3) {
            rewrite(&store, &file, |metadata| metadata["next-row-id"] = 5.into()).await;
            let codes: BTreeSet<Code> = found(&store, false)
                .await
                .into_iter()
                .map(|(code, _)| code)
                .collect();
            assert_eq!(codes, BTreeSet::from([Code::RowIdBeyond]));
        }
    }
}
