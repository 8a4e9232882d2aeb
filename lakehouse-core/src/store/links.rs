//! Links below a table's folder on local disk: whoever made the table may have put some there that lead out of it.
//!
//! The table's folder itself may be a link. Links below it may lead to other places below it, and to folders that the user
//! named; all others are refused, and so is what is neither a file nor a folder, such as a pipe, on which a reader would
//! wait for ever. Nothing is deleted but what is in the table's own folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::{Error, Result};

use super::options::ALLOW_LINKS;

/// A table's folder, and where links in it may lead besides.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    root: Arc<Path>,
    allowed: Arc<[PathBuf]>,
}

impl Bounds {
    /// Folders that are not there allow nothing.
    pub(super) fn new(root: &Path, allowed: &[PathBuf]) -> Self {
        let allowed = allowed
            .iter()
            .filter_map(|folder| std::fs::canonicalize(folder).ok());
        Self {
            root: root.into(),
            allowed: allowed.collect(),
        }
    }

    /// The same without the exceptions.
    pub(super) fn strict(&self) -> Self {
        Self {
            root: Arc::clone(&self.root),
            allowed: Arc::default(),
        }
    }
}

/// Refuses a file that lies elsewhere. False when there is none: it may still come.
pub(super) fn check_file(bounds: &Bounds, file: &Path) -> Result<bool> {
    check(bounds, file)?;
    match std::fs::metadata(file) {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            Err(refused(file, "is neither a file nor a folder".to_owned()))
        }
        // What is not there is for whoever reads it to say.
        found => Ok(found.is_ok()),
    }
}

/// Refuses a path if what there is of it lies elsewhere.
pub(super) fn check(bounds: &Bounds, path: &Path) -> Result<()> {
    let Ok(root) = std::fs::canonicalize(&bounds.root) else {
        return Ok(());
    };
    let is_inside = |there: &Path| {
        there.starts_with(&root) || bounds.allowed.iter().any(|folder| there.starts_with(folder))
    };
    let there = path
        .ancestors()
        .find_map(|ancestor| std::fs::canonicalize(ancestor).ok());
    match there {
        Some(there) if !is_inside(&there) => Err(refused(
            path,
            format!(
                "leads through a link to {}, outside of the table; if that is meant, name a folder around it: \
                 --storage-option {ALLOW_LINKS}=FOLDER",
                there.display()
            ),
        )),
        _ => Ok(()),
    }
}

/// Refuses a file that is to be deleted if its folder lies elsewhere. If it is a link, the link goes.
pub(super) fn check_parent(bounds: &Bounds, file: &Path) -> Result<()> {
    file.parent().map_or(Ok(()), |folder| check(bounds, folder))
}

/// Refuses a folder below which a link leads elsewhere, before anything follows it.
pub(super) fn check_folder(bounds: &Bounds, folder: &Path) -> Result<()> {
    check(bounds, folder)?;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What cannot be read is for whoever lists it to say.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_symlink() => check(bounds, &entry.path())?,
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(())
}

fn refused(path: &Path, why: String) -> Error {
    let what = format!("{} {why}", path.display());
    Error::PermissionDenied {
        path: path.display().to_string(),
        source: Box::new(crate::Error::Denied { what }),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use crate::store::Store;

    #[tokio::test]
    async fn links_that_lead_out_are_refused_and_those_inside_are_followed() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("table");
        std::fs::create_dir_all(root.join("data")).unwrap();
        std::fs::create_dir(home.path().join("table-evil")).unwrap();
        std::fs::write(home.path().join("table-evil/secret"), "secret").unwrap();
        std::fs::write(root.join("data/x"), "x").unwrap();
        symlink(root.join("data"), root.join("inside")).unwrap();
        symlink(home.path().join("table-evil"), root.join("out")).unwrap();
        symlink(home.path().join("table-evil/secret"), root.join("data/secret")).unwrap();
        symlink(&root, home.path().join("also")).unwrap();
        for location in [root.clone(), home.path().join("also")] {
            let store = Store::open(location.to_str().unwrap()).unwrap();
            assert_eq!(&store.get("inside/x").await.unwrap()[..], b"x");
            for refused in [
                store.get("out/secret").await.map(drop),
                store.get("data/secret").await.map(drop),
                store.get_range("data/secret", 0..2).await.map(drop),
                store.head("data/secret").await.map(drop),
                store.put("out/new", "n".into()).await,
                store.put("out/new/deeper", "n".into()).await,
                store.create("out/new", "n".into()).await.map(drop),
                store.delete(&["out/secret".to_owned()]).await,
                store.list("data/").await.map(drop),
                store.list("").await.map(drop),
            ] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("outside of the table"), "{error}");
            }
            assert_eq!(store.list("inside/").await.map(|found| found.len()).ok(), None);
        }
        let left: Vec<_> = std::fs::read_dir(home.path().join("table-evil"))
            .unwrap()
            .collect();
        assert_eq!(left.len(), 1, "nothing was written or deleted there");
        // The link itself may go.
        let store = Store::open(root.to_str().unwrap()).unwrap();
        store.delete(&["data/secret".to_owned()]).await.unwrap();
        assert_eq!(store.list("inside/").await.unwrap().len(), 1);
        assert!(home.path().join("table-evil/secret").exists());
    }

    #[tokio::test]
    async fn links_to_folders_that_the_user_named_are_followed_but_nothing_is_deleted_there() {
        let home = tempfile::tempdir().unwrap();
        let (root, big) = (home.path().join("table"), home.path().join("big"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir_all(big.join("data")).unwrap();
        std::fs::create_dir(home.path().join("other")).unwrap();
        std::fs::write(big.join("data/x"), "x").unwrap();
        symlink(big.join("data"), root.join("data")).unwrap();
        symlink(home.path().join("other"), root.join("other")).unwrap();
        let options = [("allow_links", big.to_str().unwrap())].into_iter().collect();
        let store = Store::open_with(root.to_str().unwrap(), &options).unwrap();
        assert_eq!(&store.get("data/x").await.unwrap()[..], b"x");
        assert_eq!(store.list("data/").await.unwrap().len(), 1);
        store.put("data/y", "y".into()).await.unwrap();
        let error = store.put("other/y", "y".into()).await.unwrap_err().to_string();
        assert!(error.contains("allow_links"), "{error}");
        store.delete(&["data/x".to_owned()]).await.unwrap_err();
        assert!(big.join("data/x").exists() && big.join("data/y").exists());
    }

    #[tokio::test]
    async fn a_pipe_is_refused_instead_of_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let pipe = home.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let store = Store::open(home.path().to_str().unwrap()).unwrap();
        let error = store.get("pipe").await.unwrap_err().to_string();
        assert!(error.contains("neither a file nor a folder"), "{error}");
    }
}
