//! The store on local disk, in memory, and failing.

use std::path::Path as FsPath;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::sim::{Fault, Kind, Refusal, faulty};
use super::{Created, Store, clock};
use crate::error::Error;

/// A fresh table in memory, and one in a folder that does not exist yet.
fn stores(folder: &tempfile::TempDir) -> [Store; 2] {
    [memory(), local(folder)]
}

fn memory() -> Store {
    Store::open(&format!("memory://{}", clock::new_commit_id())).unwrap()
}

fn local(folder: &tempfile::TempDir) -> Store {
    Store::open(folder.path().join("warehouse/a table").to_str().unwrap()).unwrap()
}

fn names(listed: Vec<super::Listed>) -> Vec<String> {
    listed.into_iter().map(|object| object.path).collect()
}

/// Every file below a folder, temporary ones included.
fn files_below(folder: &FsPath) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_table_whose_folder_is_missing_is_empty_until_something_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        assert_eq!(store.list("").await.unwrap(), []);
        assert_eq!(store.list("_delta_log/").await.unwrap(), []);
        assert_eq!(store.get_opt("a/b").await.unwrap(), None);
        assert_eq!(store.head("a/b").await.unwrap(), None);
        let error = store.get("a/b").await.unwrap_err();
        assert!(
            matches!(&error, Error::NotFound { what, .. } if what == "a/b"),
            "{error}"
        );
        store.delete(&["a/b".into()]).await.unwrap();
        store.put("a/b", "one".into()).await.unwrap();
        assert_eq!(store.get("a/b").await.unwrap(), "one");
    }
    assert_eq!(files_below(folder.path()), ["b"]);
}

#[tokio::test]
async fn objects_are_read_whole_in_ranges_listed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        for name in ["log/2", "log/10", "log/deep/1", "logs/1", "x"] {
            store.put(name, Bytes::from("0123456789")).await.unwrap();
        }
        assert_eq!(store.get_range("x", 2..5).await.unwrap(), "234");
        assert_eq!(store.get_range("x", 5..5).await.unwrap(), "");
        for beyond in [8..12, 10..12, 20..22] {
            assert!(store.get_range("x", beyond).await.is_err());
        }
        assert_eq!(
            names(store.list("").await.unwrap()),
            ["log/10", "log/2", "log/deep/1", "logs/1", "x"]
        );
        assert_eq!(
            names(store.list("log/").await.unwrap()),
            ["log/10", "log/2", "log/deep/1"]
        );
        assert_eq!(names(store.list("log/1").await.unwrap()), ["log/10"]);
        assert_eq!(names(store.list("lo").await.unwrap()).len(), 4);
        assert_eq!(
            names(store.list_after("log/", "log/10").await.unwrap()),
            ["log/2", "log/deep/1"]
        );
        let head = store.head("x").await.unwrap().unwrap();
        assert_eq!((head.path.as_str(), head.bytes), ("x", 10));
        assert!((clock::now_ms() - head.modified_ms).abs() < 60_000);
        let gone = ["x".to_owned(), "never/was".to_owned(), "log/2".to_owned()];
        store.delete(&gone).await.unwrap();
        assert_eq!(
            names(store.list("").await.unwrap()),
            ["log/10", "log/deep/1", "logs/1"]
        );
        store.put("log/10", "new".into()).await.unwrap();
        assert_eq!(store.get("log/10").await.unwrap(), "new");
    }
}

#[tokio::test]
async fn keys_may_hold_whatever_foreign_writers_use() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [
        "data/day=2013-01-01/part 0.parquet",
        "data/name=a%2Fb/x.parquet",
        "data/name=100%/x.parquet",
        "data/city=Zürich/große?.parquet",
        "data/k=a:b&c#d/x+y.parquet",
        "data/日本=語/[1]{2}~^`|<>*'\".parquet",
        "data/.hidden/_x",
    ];
    for store in stores(&folder) {
        for key in keys {
            store.put(key, key.into()).await.unwrap();
            assert_eq!(store.get(key).await.unwrap(), key);
            assert_eq!(store.head(key).await.unwrap().unwrap().path, key);
        }
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        assert_eq!(names(store.list("data/").await.unwrap()), sorted);
        store.delete(&keys.map(str::to_owned)).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), []);
    }
}

#[tokio::test]
async fn local_files_are_named_on_disk_as_their_keys_are() {
    let folder = tempfile::tempdir().unwrap();
    let store = local(&folder);
    store.put("a=1%/ü b.txt", "x".into()).await.unwrap();
    assert!(folder.path().join("warehouse/a table/a=1%/ü b.txt").is_file());
    assert!(store.root().as_str().ends_with("/warehouse/a%20table"));
    assert!(store.location().ends_with("/warehouse/a table"));
}

#[tokio::test]
async fn a_key_cannot_leave_the_table() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        for key in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/./x",
            "a//x",
            "a/",
            "a\\b",
            "a\0b",
            "a\nb",
        ] {
            for error in [
                store.get(key).await.unwrap_err(),
                store.put(key, "x".into()).await.unwrap_err(),
                store.create(key, "x".into()).await.unwrap_err(),
                store.delete(&[key.into()]).await.unwrap_err(),
            ] {
                assert!(matches!(error, Error::Invalid { .. }), "{key:?}: {error}");
            }
        }
        assert_eq!(store.list("").await.unwrap(), []);
    }
}

#[tokio::test]
async fn the_same_name_in_memory_is_the_same_table_and_another_is_not() {
    let name = format!("memory://{}/db/t", clock::new_commit_id());
    Store::open(&name).unwrap().put("a", "1".into()).await.unwrap();
    let again = Store::open(&format!("{name}/")).unwrap();
    assert_eq!(again.get("a").await.unwrap(), "1");
    assert_eq!(again.root().as_str(), name);
    assert_eq!(
        Store::open(&format!("{name}2"))
            .unwrap()
            .get_opt("a")
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn create_tells_who_has_the_name() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        assert!(matches!(
            store.create("log/1", "mine".into()).await.unwrap(),
            Created::Yes
        ));
        assert!(matches!(
            store.create("log/1", "other".into()).await.unwrap(),
            Created::Exists
        ));
        assert_eq!(store.get("log/1").await.unwrap(), "mine");
        // The same bytes are the same commit, repeated.
        assert!(matches!(
            store.create("log/1", "mine".into()).await.unwrap(),
            Created::Yes
        ));
    }
    assert_eq!(files_below(folder.path()), ["1"], "no temporary file is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creators_of_one_name_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        for round in 0..20 {
            let creators = (0..8).map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let bytes = Bytes::from(format!("{writer}"));
                    matches!(
                        store.create(&format!("log/{round}"), bytes).await.unwrap(),
                        Created::Yes
                    )
                })
            });
            let won = futures::future::join_all(creators).await;
            assert_eq!(won.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
        }
    }
}

#[tokio::test]
async fn files_written_in_parts_appear_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        let key = Path::parse("data/x.parquet").unwrap();
        let mut upload = store.object_store().put_multipart(&key).await.unwrap();
        let parts = [
            upload.put_part("one".into()),
            upload.put_part("two".into()),
            upload.put_part("3".into()),
        ];
        // Parts may arrive in any order.
        let [first, second, third] = parts;
        third.await.unwrap();
        first.await.unwrap();
        assert_eq!(store.get_opt("data/x.parquet").await.unwrap(), None);
        second.await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(store.get("data/x.parquet").await.unwrap(), "onetwo3");

        let key = Path::parse("data/y.parquet").unwrap();
        let mut aborted = store.object_store().put_multipart(&key).await.unwrap();
        aborted.put_part("one".into()).await.unwrap();
        aborted.abort().await.unwrap();
        let mut dropped = store.object_store().put_multipart(&key).await.unwrap();
        dropped.put_part("one".into()).await.unwrap();
        drop(dropped);
        assert_eq!(names(store.list("").await.unwrap()), ["data/x.parquet"]);
    }
    assert_eq!(files_below(folder.path()), ["x.parquet"]);
}

#[tokio::test]
async fn the_engine_sees_keys_below_the_root_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = local(&folder);
    store.put("data/x", "1".into()).await.unwrap();
    let engine = store.object_store();
    let found = engine.list_with_delimiter(None).await.unwrap();
    assert_eq!(found.common_prefixes, [Path::from("data")]);
    let got = engine.get(&Path::from("data/x")).await.unwrap();
    assert_eq!(got.meta.location, Path::from("data/x"));
    let copy = Path::from("deep/copy");
    engine.copy(&Path::from("data/x"), &copy).await.unwrap();
    engine.delete(&Path::from("data/x")).await.unwrap();
    assert_eq!(names(store.list("").await.unwrap()), ["deep/copy"]);
    let put = engine.put(&copy, PutPayload::from_static(b"2")).await;
    put.unwrap();
    assert_eq!(store.get("deep/copy").await.unwrap(), "2");
}

#[tokio::test]
async fn a_lost_or_late_reply_to_a_create_never_makes_a_commit_look_like_another_s() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::FalseExists] {
        for request in 1..=4 {
            let (store, faults) = faulty(&memory());
            faults.fail_at(request, fault);
            let created = store.create("log/1", "mine".into()).await.unwrap();
            assert!(
                matches!(created, Created::Yes),
                "{fault:?} at {request}: {created:?}"
            );
            let other = store.create("log/1", "other".into()).await.unwrap();
            assert!(
                matches!(other, Created::Exists),
                "{fault:?} at {request}: {other:?}"
            );
            assert_eq!(store.get("log/1").await.unwrap(), "mine");
        }
    }
}

#[tokio::test]
async fn a_create_that_fails_twice_in_different_ways_is_still_certain() {
    let faults_of = [Fault::FailBefore, Fault::FailAfter, Fault::FalseExists];
    for first in faults_of {
        for second in faults_of {
            for request in 2..=4 {
                let (store, faults) = faulty(&memory());
                faults.fail_at(1, first);
                faults.fail_at(request, second);
                let created = store.create("log/1", "mine".into()).await.unwrap();
                assert!(
                    matches!(created, Created::Yes),
                    "{first:?}, {second:?} at {request}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_is_gone_leaves_a_create_unknown() {
    let inner = memory();
    let (store, faults) = faulty(&inner);
    faults.fail_at(1, Fault::Crash);
    assert!(matches!(
        store.create("log/1", "mine".into()).await.unwrap(),
        Created::Unknown(_)
    ));
    assert_eq!(inner.get_opt("log/1").await.unwrap(), None);
    // The same when it went away right after it did what was asked.
    faults.reset();
    faults.fail_at(1, Fault::FailAfter);
    faults.fail_at(2, Fault::Crash);
    assert!(matches!(
        store.create("log/1", "mine".into()).await.unwrap(),
        Created::Unknown(_)
    ));
    assert_eq!(inner.get("log/1").await.unwrap(), "mine");
}

#[tokio::test]
async fn one_passing_failure_fails_no_request() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        let (store, faults) = faulty(&memory());
        store.put("a", "1".into()).await.unwrap();
        store.put("b", "2".into()).await.unwrap();
        let next = || {
            faults.reset();
            faults.fail_at(1, fault);
        };
        next();
        store.put("a", "1".into()).await.unwrap();
        next();
        assert_eq!(store.get("a").await.unwrap(), "1");
        next();
        assert_eq!(store.get_opt("never").await.unwrap(), None);
        next();
        assert_eq!(store.get_range("a", 0..1).await.unwrap(), "1");
        next();
        assert!(store.head("a").await.unwrap().is_some());
        next();
        assert_eq!(names(store.list("").await.unwrap()), ["a", "b"]);
        next();
        store.delete(&["a".into(), "b".into()]).await.unwrap();
        assert_eq!(
            faults.counts().delete,
            3,
            "only the one that failed is asked for again"
        );
        assert_eq!(faults.fired(), 1);
        assert_eq!(store.list("").await.unwrap(), []);
    }
}

#[tokio::test]
async fn requests_are_counted_by_kind_with_their_bytes() {
    let (store, faults) = faulty(&memory());
    store.put("a", "12345".into()).await.unwrap();
    store.create("b", "678".into()).await.unwrap();
    store.get("a").await.unwrap();
    store.get_range("a", 1..3).await.unwrap();
    store.head("a").await.unwrap();
    store.list("").await.unwrap();
    store.delete(&["a".into()]).await.unwrap();
    let counts = faults.counts();
    assert_eq!((counts.put, counts.put_bytes), (1, 5));
    assert_eq!((counts.create, counts.create_bytes), (1, 3));
    assert_eq!((counts.get, counts.get_bytes), (2, 7));
    assert_eq!((counts.head, counts.list, counts.delete), (1, 1, 1));
    assert_eq!(faults.requests(), 7);
    assert_eq!(faults.log()[1], (Kind::Create, "b".to_owned()));
}

#[tokio::test]
async fn nothing_is_done_after_a_crash() {
    let inner = memory();
    let (store, faults) = faulty(&inner);
    faults.fail_at(2, Fault::Crash);
    store.put("a", "1".into()).await.unwrap();
    assert!(store.put("b", "2".into()).await.is_err());
    assert!(store.put("c", "3".into()).await.is_err());
    assert!(store.get("a").await.is_err());
    assert!(store.list("").await.is_err());
    assert!(store.delete(&["a".into()]).await.is_err());
    assert_eq!(names(inner.list("").await.unwrap()), ["a"]);
}

#[tokio::test]
async fn a_full_or_forbidden_disk_is_named_with_the_file_and_what_to_do() {
    let cases = [
        (Refusal::DiskFull, "no storage space", "free some space"),
        (Refusal::ReadOnly, "read-only", "remount"),
        (Refusal::Permission, "denied", "check who"),
    ];
    for (refusal, what, hint) in cases {
        let (store, faults) = faulty(&memory());
        faults.refuse(Some(refusal));
        for error in [
            store.put("data/x", "1".into()).await.unwrap_err(),
            store.create("data/x", "1".into()).await.unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("data/x") && text.contains(what), "{text}");
            let told = text.contains(hint) || error.hint().is_some_and(|found| found.contains(hint));
            assert!(told, "{error:?}");
        }
        assert_eq!(faults.requests(), 2, "there is no point in asking again");
        faults.refuse(None);
        store.put("data/x", "1".into()).await.unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_may_not_be_written_is_denied_and_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    store.put("a", "1".into()).await.unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o555)).unwrap();
    let root_user = std::fs::write(folder.path().join("probe"), "").is_ok();
    let results = [
        store.put("b", "1".into()).await.map(|()| Created::Yes),
        store.create("c", "1".into()).await,
    ];
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    if root_user {
        return; // Permissions do not bind this user.
    }
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    }
    assert_eq!(files_below(folder.path()), ["a"]);
}

#[tokio::test]
async fn a_file_in_the_place_of_the_table_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.parquet");
    std::fs::write(&file, "x").unwrap();
    let error = Store::open(file.to_str().unwrap()).unwrap_err();
    assert!(error.to_string().contains("not a table"), "{error}");
    assert!(error.hint().is_some());
}
