//! The only place that builds object stores. A [`Store`] is confined to one table: every key is
//! relative to the table root.

pub mod clock;
mod create;
mod location;
pub mod sim;

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use url::Url;

pub use create::Created;
pub use location::Location;

use crate::error::Result;

/// Objects below one table root.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    root: Url,
    local: Option<std::path::PathBuf>,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Key below the table root.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Last change by the store's clock, in milliseconds since 1970 UTC.
    pub modified_ms: i64,
}

impl Store {
    /// A store over any object store whose keys are relative to the table root (tests, faults).
    /// `root` is what metadata shall name as the table's location.
    pub fn over(inner: Arc<dyn ObjectStore>, root: Url) -> Self {
        Self {
            inner,
            root,
            local: None,
        }
    }

    /// The table's location, without a trailing slash.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// The object store itself, for the engine's Parquet readers and writers.
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// Reads a whole object.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        let _ = path;
        unimplemented!()
    }

    /// Reads a whole object, `None` if it is not there.
    pub async fn get_opt(&self, path: &str) -> Result<Option<Bytes>> {
        let _ = path;
        unimplemented!()
    }

    /// Reads a range of bytes.
    pub async fn get_range(&self, path: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        let _ = (path, range);
        unimplemented!()
    }

    /// Writes an object under a name that nobody else uses (staged files, hints). On local disk the
    /// file is synced before this returns.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let _ = (path, bytes);
        unimplemented!()
    }

    /// Writes an object if none of that name exists, and is certain of the answer: see [`Created`].
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<Created> {
        let _ = (path, bytes);
        unimplemented!()
    }

    /// Objects whose key starts with `prefix` (a folder, ends with `/`, or empty), in key order.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let _ = prefix;
        unimplemented!()
    }

    /// The same, only keys greater than `after`.
    pub async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<Listed>> {
        let _ = (prefix, after);
        unimplemented!()
    }

    /// Deletes objects; those that are not there are no error.
    pub async fn delete(&self, paths: &[String]) -> Result<()> {
        let _ = paths;
        unimplemented!()
    }
}
