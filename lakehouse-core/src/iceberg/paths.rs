//! Paths as the metadata spells them, and keys below the table root.
//!
//! Iceberg records absolute locations, verbatim and without escapes: `{location}/{key}`. A table that
//! was copied elsewhere still names its old location; its files are found by re-rooting them.

use crate::error::Result;
use crate::store::Store;

/// Translates between recorded paths and keys below the table root.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    store: Store,
    location: String,
}

impl Paths {
    /// For metadata in this store that names `location`.
    pub(super) fn new(store: &Store, location: &str) -> Self {
        Self {
            store: store.clone(),
            location: location.trim_end_matches('/').to_owned(),
        }
    }

    /// The location that the metadata names.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Whether the metadata names another place than where it was found.
    pub(super) fn moved(&self) -> bool {
        !self.store.is_root(&self.location)
    }

    /// How a key is recorded. What is recorded already stays as it is.
    pub(super) fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') || path.contains(":/") {
            path.to_owned()
        } else {
            format!("{}/{path}", self.location)
        }
    }

    /// The key of a recorded path.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied) when it lies outside the table.
    pub(super) fn relative(&self, recorded: &str) -> Result<String> {
        self.store.relative_to(&self.location, recorded)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use url::Url;

    use super::*;

    #[test]
    fn what_is_recorded_is_found_again_even_with_escapes_in_it() {
        let root = Url::parse("file:///w/a%20b").unwrap();
        let paths = Paths::new(&Store::over(Arc::new(InMemory::new()), root), "file:///w/a b/");
        assert!(!paths.moved());
        let recorded = paths.absolute("data/x=%2F/f");
        assert_eq!(recorded, "file:///w/a b/data/x=%2F/f");
        assert_eq!(paths.absolute(&recorded), recorded);
        assert_eq!(paths.relative(&recorded).unwrap(), "data/x=%2F/f");
        assert!(paths.relative("file:///w/other/f").is_err());
    }
}
