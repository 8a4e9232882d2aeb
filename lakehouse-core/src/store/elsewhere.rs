//! Places outside of the table that the user allows its metadata to name: read, and never written.
//!
//! An object there has a key like any other, in a folder that no table has: `__elsewhere__/0/part-0.parquet` lies in the
//! first place that was allowed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::location::{Location, Root};
use super::options::ALLOW_LOCATIONS;

/// The folder that stands for all of them.
const FOLDER: &str = "__elsewhere__";

/// One place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) root: Arc<Root>,
    pub(super) store: Arc<dyn ObjectStore>,
}

/// # Errors
/// When a place on local disk is no folder: a part of a name, most likely, or one that is misspelt.
pub(super) fn check_place(place: &Location) -> crate::Result<()> {
    match place.local_path() {
        Ok(folder) if place.0.scheme() == "file" && !folder.is_dir() => {
            let what = format!("the storage option {ALLOW_LOCATIONS} names a folder that is not there");
            Err(crate::Error::invalid(what, folder.display().to_string())
                .with_hint("places stand one after the other with blanks between them; a blank in a name is %20 in a URL: file:///my%20folder"))
        }
        _ => Ok(()),
    }
}

/// The key of an object in the place of this number.
pub(super) fn key(place: usize, key: &str) -> String {
    format!("{FOLDER}/{place}/{key}")
}

/// Whether a key below the table's root would be taken for one elsewhere.
pub(super) fn is_taken(key: &str) -> bool {
    key.split('/').next() == Some(FOLDER)
}

/// The place of a key elsewhere, and the key there.
pub(super) fn split<'a, 'k>(places: &'a [Place], key: &'k str) -> Option<(&'a Place, &'k str)> {
    let rest = key.strip_prefix(FOLDER)?.strip_prefix('/')?;
    let (number, key) = rest.split_once('/')?;
    Some((places.get(number.parse::<usize>().ok()?)?, key))
}

/// The table's own store, and beside it the places.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) own: Arc<dyn ObjectStore>,
    pub(super) places: Vec<Place>,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {} other places", self.own, self.places.len())
    }
}

impl Elsewhere {
    /// Where an object is: the store, and its key there.
    fn find(&self, location: &Path) -> Result<(&Arc<dyn ObjectStore>, Path)> {
        match split(&self.places, location.as_ref()) {
            Some((place, key)) => Ok((&place.store, Path::parse(key)?)),
            None => Ok((&self.own, location.clone())),
        }
    }
}

/// # Errors
/// When the object is elsewhere.
fn own(location: &Path) -> Result<()> {
    match is_taken(location.as_ref()) {
        false => Ok(()),
        true => Err(Error::PermissionDenied {
            path: location.to_string(),
            source: "nothing is written or deleted outside of the table".into(),
        }),
    }
}

#[async_trait]
impl ObjectStore for Elsewhere {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        own(location)?;
        self.own.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        own(location)?;
        self.own.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (store, key) = self.find(location)?;
        store.get_opts(&key, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (store, key) = self.find(location)?;
        store.get_ranges(&key, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let checked = locations.map(|location| {
            let location = location?;
            own(&location).map(|()| location)
        });
        self.own.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.own.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.own.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.own.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        own(from)?;
        own(to)?;
        self.own.copy_opts(from, to, options).await
    }
}
