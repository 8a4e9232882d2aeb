//! Locations as users write them, paths as metadata records them.

use object_store::ObjectStoreExt;
use object_store::path::Path;
use url::Url;

use super::Store;
use super::location::{Location, Root};
use crate::error::{Error, Result};

fn url(text: &str) -> String {
    Location::parse(text).unwrap().0.to_string()
}

fn root(text: &str) -> Root {
    Root::new(&Location::parse(text).unwrap().0)
}

fn denied(result: Result<String>) -> bool {
    matches!(result, Err(Error::Denied { .. }))
}

fn invalid(result: Result<String>) -> bool {
    matches!(result, Err(Error::Invalid { .. }))
}

#[test]
fn paths_and_urls_of_one_folder_are_one_location() {
    for text in [
        "/tmp/t",
        "/tmp/t/",
        "/tmp//t",
        "/tmp/./t",
        "/tmp/x/../t",
        "file:///tmp/t",
        "file:/tmp/t",
        "file:///tmp/t/",
        "file://localhost/tmp/t",
        "FILE:///tmp/t",
    ] {
        assert_eq!(url(text), "file:///tmp/t", "{text}");
    }
    assert_eq!(url("/tmp/my t"), "file:///tmp/my%20t");
    assert_eq!(url("file:///tmp/my%20t"), "file:///tmp/my%20t");
    assert_eq!(
        url("/tmp/100%25"),
        "file:///tmp/100%2525",
        "a path is not decoded"
    );
    let here = std::env::current_dir().unwrap();
    assert_eq!(url("t"), format!("file://{}/t", here.display()));
    assert_eq!(url("a:b"), format!("file://{}/a:b", here.display()));
    assert_eq!(url("memory://x"), "memory://x");
    assert_eq!(url("memory://x/y/"), "memory://x/y");
}

#[test]
fn a_location_that_cannot_be_a_table_says_why() {
    for (text, expected) in [
        ("", "empty"),
        (" ", "empty"),
        ("memory:///x", "does not name a table"),
        ("file://host/tmp/t", "this machine"),
        ("file:///tmp/t?x=1", "query"),
        ("file:///tmp/t#x", "fragment"),
        ("ftp://host/t", "not a kind of storage"),
        ("s3:///t", "names no bucket"),
    ] {
        let error = Location::parse(text).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert!(error.hint().is_some(), "{text}");
    }
    let error = Location::parse("ftp://host/t").unwrap_err();
    assert!(error.hint().unwrap().contains("s3://"), "{error}");
}

#[test]
fn credentials_in_a_location_are_refused_and_not_repeated() {
    let error = Location::parse("s3://user:secret@bucket/t").unwrap_err();
    assert!(!format!("{error:?} {error}").contains("secret"), "{error}");
}

#[test]
fn recorded_paths_below_the_root_become_keys() {
    let root = root("/tmp/my t");
    for recorded in [
        "file:///tmp/my t/data/a b",
        "file:/tmp/my t/data/a b",
        "/tmp/my t/data/a b",
        "file://localhost/tmp/my t/data/a b",
        "data/a b",
    ] {
        assert_eq!(root.relative(recorded).unwrap(), "data/a b", "{recorded}");
    }
    for recorded in [
        "file:///tmp/my%20t/data/a%20b",
        "file:/tmp/my%20t/data/a%20b",
        "data/a%20b",
        "data/a b",
    ] {
        assert_eq!(root.relative_encoded(recorded).unwrap(), "data/a b", "{recorded}");
    }
    // Iceberg's spelling is verbatim, Delta's is decoded exactly once.
    assert_eq!(root.relative("p=a%2Fb/x").unwrap(), "p=a%2Fb/x");
    assert_eq!(root.relative_encoded("p=a%252Fb/x").unwrap(), "p=a%2Fb/x");
    assert_eq!(root.relative_encoded("t=12:30/x").unwrap(), "t=12:30/x");
    assert_eq!(
        Root::new(&Url::parse("memory://t").unwrap())
            .relative("memory://t/a")
            .unwrap(),
        "a"
    );
}

#[test]
fn recorded_paths_that_lead_out_of_the_table_are_denied() {
    let root = root("/data/tenant-a");
    for recorded in [
        "/data/tenant-a-evil/x",
        "/data/tenant-b/x",
        "/etc/passwd",
        "file:///etc/passwd",
        "file://host/data/tenant-a/x",
        "s3://data/tenant-a/x",
        "memory://data/tenant-a/x",
        "s3:/data/tenant-a/x",
        "/data/tenant-a",
    ] {
        assert!(denied(root.relative(recorded)), "{recorded}");
        assert!(denied(root.relative_encoded(recorded)), "{recorded}");
    }
    for recorded in [
        "",
        "../x",
        "a/../x",
        "./x",
        "a/./x",
        "a//x",
        "a/",
        "a\\b",
        "a\0b",
        "/data/tenant-a/../tenant-b/x",
        "/data/tenant-a/",
        "file:///data/tenant-a//x",
        "file:///data/tenant-a/..",
    ] {
        assert!(
            invalid(root.relative(recorded)),
            "{recorded:?}: {:?}",
            root.relative(recorded)
        );
        assert!(invalid(root.relative_encoded(recorded)), "{recorded:?}");
    }
    for recorded in [
        "%2e%2e/x",
        "a/%2E%2E/x",
        "a%2F..%2Fx",
        "a%2F%2Fx",
        "a%00b",
        "a%5Cb",
        "%FF",
        "%2Fetc/passwd",
        "file:///data/tenant-a/%2e%2e/x",
        "file:///data/tenant-a/x?versionId=1",
    ] {
        assert!(invalid(root.relative_encoded(recorded)), "{recorded}");
    }
    assert!(denied(root.relative_encoded("file:///data/tenant%2Da-evil/x")));
    // Only decoded once: what looks like `..` after a second decoding is a name.
    assert_eq!(root.relative_encoded("%252e%252e/x").unwrap(), "%2e%2e/x");
}

#[test]
fn paths_of_a_copied_table_are_looked_for_below_its_new_root() {
    let root = root("/new/t");
    for (old, recorded) in [
        ("s3://bucket/wh/t", "s3://bucket/wh/t/data/x"),
        ("s3://bucket/wh/t/", "s3://bucket/wh/t/data/x"),
        ("file:///old/t", "/old/t/data/x"),
        ("/old/t", "file:/old/t/data/x"),
        ("wh/db/t", "wh/db/t/data/x"),
        ("wh/db/t/", "wh/db/t/data/x"),
        ("s3://bucket/wh/t", "file:///new/t/data/x"),
        ("s3://bucket/wh/t", "data/x"),
    ] {
        assert_eq!(
            root.relative_to(old, recorded).unwrap(),
            "data/x",
            "{old} {recorded}"
        );
    }
    for (old, recorded) in [
        ("s3://bucket/wh/t", "s3://bucket/wh/t-evil/data/x"),
        ("s3://bucket/wh/t", "s3://other/wh/t/data/x"),
        ("s3://bucket/wh/t", "/etc/passwd"),
        ("wh/db/t", "wh/db/other/x"),
        ("wh/db/t", "data/x"),
    ] {
        assert!(denied(root.relative_to(old, recorded)), "{old} {recorded}");
    }
    for (old, recorded) in [
        ("s3://bucket/wh/t", "s3://bucket/wh/t/../x"),
        ("/", "/../etc/passwd"),
        ("wh", "wh/../../etc"),
        ("", "../x"),
    ] {
        assert!(root.relative_to(old, recorded).is_err(), "{old} {recorded}");
    }
}

#[test]
fn the_recorded_location_is_recognised_in_every_spelling() {
    let root = root("/tmp/my t");
    for text in [
        "file:///tmp/my t",
        "file:/tmp/my t/",
        "/tmp/my t",
        "file:///tmp/my%20t",
    ] {
        assert!(root.is_root(text), "{text}");
    }
    for text in ["/tmp/my t2", "s3://tmp/my t", "tmp/my t", ""] {
        assert!(!root.is_root(text), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_table_opened_through_a_link_knows_its_real_path() {
    let folder = tempfile::tempdir().unwrap();
    let real = std::fs::canonicalize(folder.path()).unwrap();
    std::fs::create_dir(real.join("real")).unwrap();
    std::os::unix::fs::symlink(real.join("real"), real.join("link")).unwrap();
    let store = Store::open(real.join("link").to_str().unwrap()).unwrap();
    let recorded = real.join("real/data/x");
    assert_eq!(store.relative(recorded.to_str().unwrap()).unwrap(), "data/x");
    assert!(store.location().ends_with("/link"));
}

#[test]
fn one_bucket_has_several_spellings_and_no_other_bucket_is_it() {
    let s3 = root("s3://bucket/wh/t");
    for recorded in [
        "s3://bucket/wh/t/data/x",
        "s3a://bucket/wh/t/data/x",
        "s3n://bucket/wh/t/data/x",
    ] {
        assert_eq!(s3.relative(recorded).unwrap(), "data/x", "{recorded}");
    }
    for recorded in [
        "s3://other/wh/t/data/x",
        "s3://bucket/wh/t-evil/data/x",
        "gs://bucket/wh/t/data/x",
        "https://bucket/wh/t/data/x",
        "s3://user@bucket/wh/t/data/x",
    ] {
        assert!(denied(s3.relative(recorded)), "{recorded}");
    }
    let azure = root("abfss://box@account.dfs.core.windows.net/wh/t");
    let recorded = "abfs://box@account.dfs.core.windows.net/wh/t/data/x";
    assert_eq!(azure.relative(recorded).unwrap(), "data/x");
    assert!(denied(
        azure.relative("abfss://box@other.dfs.core.windows.net/wh/t/data/x")
    ));
    assert!(denied(
        azure.relative("abfss://bag@account.dfs.core.windows.net/wh/t/data/x")
    ));
}

#[test]
fn folders_with_odd_names_are_found_in_a_bucket() {
    let odd = root("s3://bucket/a b/ü%25");
    assert_eq!(odd.verbatim(), "s3://bucket/a b/ü%");
    assert_eq!(odd.relative("s3://bucket/a b/ü%/data/x").unwrap(), "data/x");
}

#[test]
fn places_that_are_allowed_by_name_hold_what_is_named_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (table, first, second) = (place("t"), place("a b"), place("c"));
    for name in [&first, &second] {
        std::fs::create_dir(name).unwrap();
    }
    let url = Url::from_directory_path(&first).unwrap();
    let allowed = [("allow_locations", format!("{url} {second}"))]
        .into_iter()
        .collect();
    let store = Store::open_with(&table, &allowed).unwrap();

    assert_eq!(
        store.relative(&format!("{first}/x%20y")).unwrap(),
        "__elsewhere__/0/x%20y"
    );
    assert_eq!(
        store.relative_encoded(&format!("{url}x%20y")).unwrap(),
        "__elsewhere__/0/x y"
    );
    assert_eq!(
        store.relative(&format!("file:{second}/d/x")).unwrap(),
        "__elsewhere__/1/d/x"
    );
    let moved = |recorded: &str| store.relative_to("s3://old/t", recorded);
    assert_eq!(moved("s3://old/t/d/x").unwrap(), "d/x");
    assert_eq!(moved(&format!("{second}/x")).unwrap(), "__elsewhere__/1/x");
    assert_eq!(store.shown("__elsewhere__/1/d/x"), format!("file://{second}/d/x"));
    assert_eq!(store.shown("d/x"), "d/x");

    for recorded in [format!("{second}-not/x"), "s3://a/x".to_owned(), place("x")] {
        assert!(denied(store.relative(&recorded)), "{recorded}");
        assert!(denied(moved(&recorded)), "{recorded}");
    }
    // A place is none for what is named by the way to it from somewhere that is not known any more.
    assert!(denied(store.relative_to("wh/t", "wh/c/x")));
    assert!(denied(store.relative("__elsewhere__/0/x")));
    assert!(denied(store.relative(&format!("{table}/__elsewhere__/0/x"))));
    for recorded in [format!("{second}/../t/x"), format!("{second}//x")] {
        assert!(invalid(store.relative(&recorded)), "{recorded}");
    }
}

#[tokio::test]
async fn nothing_is_written_in_a_place_that_is_allowed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("x"), "kept").unwrap();
    let allowed = [("allow_locations", place.to_str().unwrap())]
        .into_iter()
        .collect();
    let store = Store::open_with(folder.path().join("t").to_str().unwrap(), &allowed).unwrap();
    let there = store.relative(place.join("x").to_str().unwrap()).unwrap();
    assert_eq!(&store.get(&there).await.unwrap()[..], b"kept");
    assert_eq!(&store.get_range(&there, 1..3).await.unwrap()[..], b"ep");
    assert_eq!(store.head(&there).await.unwrap().unwrap().bytes, 4);

    store.put(&there, "new".into()).await.unwrap_err();
    store.create("__elsewhere__/0/y", "new".into()).await.unwrap_err();
    store.delete(std::slice::from_ref(&there)).await.unwrap_err();
    let objects = store.object_store();
    let (from, to) = (Path::from(there), Path::from("y"));
    objects.copy(&from, &to).await.unwrap_err();
    objects.rename(&from, &to).await.unwrap_err();
    objects.put_multipart(&from).await.unwrap_err();
    let names: Vec<_> = std::fs::read_dir(&place).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(std::fs::read(place.join("x")).unwrap(), b"kept");
    assert!(store.list("").await.unwrap().is_empty());
}
