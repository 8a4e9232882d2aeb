//! What comes after a key in one folder of the local disk: of a log with tens of thousands of files the last few.
//!
//! Names up to the key are passed over before anything else is done with them: no path is made of them, nothing is asked
//! of the file system about them. What is no ordinary file under a plain name is left to the general way.

use std::fs;
use std::io::ErrorKind;
use std::path::Path as FsPath;

use object_store::path::Path;
use object_store::{Error, ObjectMeta, Result};

use super::links::{self, Bounds};

/// The objects in `folder`, whose key is `prefix`, that come after the one called `after` there; `None` where there is
/// something else than files under plain names.
///
/// # Errors
/// When the folder lies elsewhere, or cannot be read.
pub(super) fn files_after(
    bounds: &Bounds,
    folder: &FsPath,
    prefix: &Path,
    after: &str,
) -> Result<Option<Vec<ObjectMeta>>> {
    links::check(bounds, folder)?;
    let failed = |error: std::io::Error| Error::Generic {
        store: "local disk",
        source: Box::new(error),
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(Vec::new())),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_plain(name)) else {
            return Ok(None);
        };
        if !entry.file_type().map_err(failed)?.is_file() {
            return Ok(None);
        }
        if name <= after {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // It went meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        found.push(ObjectMeta {
            location: prefix.clone().join(name),
            last_modified: metadata.modified().map_err(failed)?.into(),
            size: metadata.len(),
            e_tag: None,
            version: None,
        });
    }
    Ok(Some(found))
}

/// The name of a key, if it lies in this folder itself.
pub(super) fn name_in(folder: &Path, key: &Path) -> Option<String> {
    let mut rest = key.prefix_match(folder)?;
    let name = rest.next()?.as_ref().to_owned();
    rest.next().is_none().then_some(name)
}

/// Whether a name is spelled the same as a key.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'='))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::store::Store;

    async fn after(store: &Store, key: &str) -> Vec<(String, u64)> {
        let found = store.list_after("log/", key).await.unwrap();
        found
            .into_iter()
            .map(|object| (object.path, object.bytes))
            .collect()
    }

    /// However the folder is read, what comes after a key is the rest of the whole listing.
    #[tokio::test]
    async fn what_comes_after_a_key_is_the_rest_of_the_listing_whatever_else_is_there() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path().to_str().unwrap()).unwrap();
        assert!(after(&store, "log/00").await.is_empty());
        let log = home.path().join("log");
        fs::create_dir(&log).unwrap();
        let same = async || {
            let all = store.list("log/").await.unwrap();
            for key in [
                "log/00",
                "log/03.json",
                "log/03",
                "log/_last",
                "log/05.json",
                "log/zz",
            ] {
                let rest = all.iter().filter(|object| object.path.as_str() > key);
                let rest: Vec<_> = rest.map(|object| (object.path.clone(), object.bytes)).collect();
                assert_eq!(after(&store, key).await, rest, "{key}");
            }
            all.len()
        };
        for name in [
            "01.json",
            "03.json",
            "03.checkpoint.parquet",
            "05.json",
            "_last_checkpoint",
        ] {
            fs::write(log.join(name), name).unwrap();
        }
        assert_eq!(same().await, 5);
        // Names that keys spell otherwise, folders, links.
        fs::write(log.join("04 %.json"), "four").unwrap();
        assert_eq!(same().await, 6);
        fs::create_dir(log.join("_sidecars")).unwrap();
        fs::write(log.join("_sidecars/a.parquet"), "a").unwrap();
        assert_eq!(same().await, 7);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(log.join("01.json"), log.join("06.json")).unwrap();
            assert_eq!(same().await, 8);
            std::os::unix::fs::symlink("/etc/hostname", log.join("00.json")).unwrap();
            store.list_after("log/", "log/05.json").await.unwrap_err();
        }
    }
}
