//! A folder of the table that a user names by its place.

use std::path::Component;

use super::{Location, Store};
use crate::error::{Error, Result};

impl Store {
    /// The key of the folder at a path or URL below the table's root; empty for the root itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is elsewhere, or cannot be a folder's place; [`Error::NotFound`] when there is no such
    /// folder on local disk.
    pub fn folder(&self, place: &str) -> Result<String> {
        let location = Location::parse(place)?;
        let elsewhere = || {
            Error::invalid(format!("the folder is not inside of {}", self.location()), place)
                .with_hint(
                    "a table's files are below its own place: make the table at this folder or one around it, move the \
                     files, or make an empty table and load them with `lake append`",
                )
        };
        let Some(root) = self.local_path() else {
            let (root, folder) = (self.root().as_str().trim_end_matches('/'), location.0.as_str());
            if folder.trim_end_matches('/') == root {
                return Ok(String::new());
            }
            return self.root.relative_encoded(folder).map_err(|_| elsewhere());
        };
        if location.0.scheme() != "file" {
            return Err(elsewhere());
        }
        let folder = location.local_path()?;
        let folder = match std::fs::canonicalize(&folder) {
            Ok(folder) if folder.is_dir() => folder,
            Ok(_) => {
                return Err(Error::invalid("this is a file, not a folder", place)
                    .with_hint("name the folder that it is in"));
            }
            Err(_) => return Err(Error::not_found("folder", place)),
        };
        let root = std::fs::canonicalize(root).map_err(|_| elsewhere())?;
        let below = folder.strip_prefix(&root).map_err(|_| elsewhere())?;
        let parts: Option<Vec<&str>> = below
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        Ok(parts.ok_or_else(elsewhere)?.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_inside_are_keys_and_others_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let table = place.path().join("a table");
        std::fs::create_dir_all(table.join("raw/x=1 %")).unwrap();
        let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        let store = Store::open(&text(table.clone())).unwrap();
        assert_eq!(store.folder(&text(table.clone())).unwrap(), "");
        assert_eq!(store.folder(&text(table.join("raw/x=1 %"))).unwrap(), "raw/x=1 %");
        assert_eq!(store.folder(&text(table.join("raw/../raw/"))).unwrap(), "raw");
        assert!(matches!(
            store.folder(&text(table.join("none"))),
            Err(Error::NotFound { .. })
        ));
        for elsewhere in [text(place.path().to_owned()), "s3://bucket/a".to_owned()] {
            let error = store.folder(&elsewhere).unwrap_err();
            assert!(error.to_string().contains("not inside"), "{error}");
        }

        let store = Store::open("memory://folders/t").unwrap();
        assert_eq!(store.folder("memory://folders/t/").unwrap(), "");
        assert_eq!(
            store.folder("memory://folders/t/raw%20files").unwrap(),
            "raw files"
        );
        assert!(store.folder("memory://folders/other").is_err());
    }
}
