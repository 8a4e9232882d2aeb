//! A store that dates its objects by the clock of a simulation.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::store::Store;
use crate::store::clock::Source;

/// When the objects of a store were written last, by a clock that all who use the store share. Those that were there
/// before are as old as the clock. Clones share one state.
#[derive(Debug, Clone)]
pub struct Times {
    clock: Arc<Source>,
    start_ms: i64,
    written: Arc<Mutex<HashMap<Path, i64>>>,
}

impl Times {
    /// By this clock, which is the store's own: give it no skew.
    pub fn new(clock: Arc<Source>) -> Self {
        Self {
            start_ms: clock.now_ms(),
            clock,
            written: Arc::default(),
        }
    }

    /// The same table, its objects dated so.
    pub fn over(&self, store: &Store) -> Store {
        store.layered(|inner| {
            Arc::new(Dated {
                inner,
                times: self.clone(),
            })
        })
    }

    /// When an object was written last, in milliseconds since 1970 UTC.
    pub fn of(&self, key: &str) -> i64 {
        self.look(&Path::from(key))
    }

    fn look(&self, path: &Path) -> i64 {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(path).copied().unwrap_or(self.start_ms)
    }

    fn note(&self, path: &Path) {
        let now = self.clock.now_ms();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(path.clone(), now);
    }

    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let time = DateTime::from_timestamp_millis(self.look(&meta.location));
        meta.last_modified = time.unwrap_or(meta.last_modified);
        meta
    }
}

#[derive(Debug)]
struct Dated {
    inner: Arc<dyn ObjectStore>,
    times: Times,
}

impl fmt::Display for Dated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with a clock of its own", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Dated {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, options).await?;
        self.times.note(location);
        Ok(put)
    }

    /// As S3 does it, the object is as old as the beginning of its upload.
    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.times.note(location);
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.inner.get_opts(location, options).await?;
        result.meta = self.times.dated(result.meta);
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let times = self.times.clone();
        let objects = self.inner.list(prefix);
        objects.map_ok(move |meta| times.dated(meta)).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let times = self.times.clone();
        let objects = self.inner.list_with_offset(prefix, offset);
        objects.map_ok(move |meta| times.dated(meta)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects = found
            .objects
            .into_iter()
            .map(|meta| self.times.dated(meta))
            .collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.times.note(to);
        Ok(())
    }
}
