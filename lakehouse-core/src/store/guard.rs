//! A store for parsers that are not ours: what they would read is looked at first.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::Store;
use crate::model::limits::{Limit, Limits, over};
use crate::model::{PARQUET_TAIL, check_parquet_footer, parquet_footer_length};

/// What is allowed of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// At most so many bytes.
    Bytes(Limit),
    /// The same; larger ones are as if they were not there.
    Hint(Limit),
    /// A Parquet file whose footer can be parsed.
    Parquet,
    /// Its name alone is refused, for this reason.
    Never(&'static str),
}

impl Store {
    /// The object store for a parser that trusts what it reads: `bound` says by an object's key what is allowed.
    /// Errors hold one of ours as their source.
    pub(crate) fn guarded(&self, bound: fn(&str, &Limits) -> Bound) -> Arc<dyn ObjectStore> {
        Arc::new(Guard {
            store: self.clone(),
            bound,
            sizes: Mutex::default(),
        })
    }
}

/// How much of the end of a Parquet file is read at first.
const END_BYTES: u64 = 64 << 10;
/// So many files with sound footers are remembered.
const MOST_SOUND: usize = 10_000;

struct Guard {
    store: Store,
    bound: fn(&str, &Limits) -> Bound,
    /// Parquet files whose footers are sound, with their sizes.
    sizes: Mutex<HashMap<Path, u64>>,
}

impl Guard {
    /// Looks at a Parquet file's footer, once.
    async fn parquet(&self, location: &Path) -> Result<u64> {
        let known = |sizes: &HashMap<Path, u64>| sizes.get(location).copied();
        if let Some(bytes) = known(&self.sizes.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(bytes);
        }
        let bytes = self.check(location.as_ref()).await.map_err(|error| match error {
            crate::Error::Store { source, .. } => source,
            error => ours(error),
        })?;
        let bytes = bytes.ok_or_else(|| absent(location))?;
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.insert(location.clone(), bytes);
        Ok(bytes)
    }

    async fn check(&self, key: &str) -> crate::Result<Option<u64>> {
        let Some(found) = self.store.head(key).await? else {
            return Ok(None);
        };
        // Known from before, unless somebody wrote it anew.
        let sound = || self.store.sound.lock().unwrap_or_else(PoisonError::into_inner);
        if sound().get(key) == Some(&found) {
            return Ok(Some(found.bytes));
        }
        let broken = || crate::Error::invalid("not a Parquet file", key);
        let tail_start = found.bytes.checked_sub(PARQUET_TAIL as u64).ok_or_else(broken)?;
        // Most footers are in what is read first.
        let start = found.bytes.saturating_sub(END_BYTES);
        let end = self.store.get_range(key, start..found.bytes).await?;
        let tail = end.last_chunk::<PARQUET_TAIL>().ok_or_else(broken)?;
        let length = parquet_footer_length(*tail, found.bytes, self.store.limits.parquet_footer_bytes, key)?;
        let footer = match (tail_start - length).checked_sub(start) {
            Some(at) => end.slice(at as usize..end.len() - PARQUET_TAIL),
            None => self.store.get_range(key, tail_start - length..tail_start).await?,
        };
        check_parquet_footer(&footer, key)?;
        let bytes = found.bytes;
        let mut sound = sound();
        if sound.len() >= MOST_SOUND {
            sound.clear();
        }
        sound.insert(key.to_owned(), found);
        Ok(Some(bytes))
    }

    /// Lets objects of a listing through, unless the name alone of one is refused.
    fn listed(
        &self,
        found: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (bound, limits) = (self.bound, Arc::clone(&self.store.limits));
        let allowed = move |meta: Result<ObjectMeta>| {
            let meta = meta?;
            match bound(meta.location.as_ref(), &limits) {
                Bound::Never(why) => Err(ours(crate::Error::invalid(why, meta.location.as_ref()))),
                _ => Ok(meta),
            }
        };
        found.map(allowed).boxed()
    }

    fn bound(&self, location: &Path) -> Bound {
        (self.bound)(location.as_ref(), self.store.limits())
    }
}

fn ours(error: crate::Error) -> Error {
    Error::Generic {
        store: "table",
        source: Box::new(error),
    }
}

fn absent(location: &Path) -> Error {
    Error::NotFound {
        path: location.to_string(),
        source: "it is not used".into(),
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.store).finish()
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Guard {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.store.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let bound = self.bound(location);
        if bound == Bound::Parquet && !options.head {
            self.parquet(location).await?;
        }
        let found = self.store.inner.get_opts(location, options).await?;
        let size = found.meta.size;
        match bound {
            Bound::Bytes(limit) if size > limit.most() => {
                let what = format!("a file of {size} bytes");
                Err(ours(over(&what, limit, location.as_ref())))
            }
            Bound::Hint(limit) if size > limit.most() => Err(absent(location)),
            _ => Ok(found),
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if self.bound(location) == Bound::Parquet {
            let bytes = self.parquet(location).await?;
            // Stores reserve memory for what is asked.
            if let Some(range) = ranges
                .iter()
                .find(|range| range.start > range.end || range.end > bytes)
            {
                let what = format!("the Parquet file is damaged: it points at {range:?} of {bytes} bytes");
                return Err(ours(crate::Error::invalid(what, location.as_ref())));
            }
        }
        self.store.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.store.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.store.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.inner.copy_opts(from, to, options).await
    }
}
