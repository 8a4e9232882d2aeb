//! A store whose objects are older than they are: how clean-up is tested that asks for two days of age.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lakehouse_core::store::Store;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What was written before the last [`Age::pass`] is this much older.
const DAYS: Duration = Duration::from_secs(1000 * 24 * 3600);

/// The clock of the store.
#[derive(Debug, Clone)]
pub(crate) struct Age {
    mark: Arc<Mutex<Option<SystemTime>>>,
    inner: Arc<dyn ObjectStore>,
}

impl Age {
    /// A long time passes for all that is there by now.
    pub(crate) async fn pass(&self) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let probe = Path::from(".mark");
        self.inner.put(&probe, PutPayload::new()).await.unwrap();
        let written = self.inner.head(&probe).await.unwrap().last_modified;
        self.inner.delete(&probe).await.unwrap();
        *self.mark.lock().unwrap() = Some(written.into());
    }

    fn of(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let mark = *self.mark.lock().unwrap();
        if mark.is_some_and(|mark| SystemTime::from(meta.last_modified) < mark) {
            meta.last_modified -= DAYS;
        }
        meta
    }
}

/// The same objects with that clock.
pub(crate) fn aged(store: &Store) -> (Store, Age) {
    let age = Age {
        mark: Arc::default(),
        inner: Arc::clone(store.object_store()),
    };
    let clock = age.clone();
    let aged = store.layered(move |inner| {
        Arc::new(Aged {
            inner,
            age: clock.clone(),
        })
    });
    (aged, age)
}

#[derive(Debug)]
struct Aged {
    inner: Arc<dyn ObjectStore>,
    age: Age,
}

impl Aged {
    fn meta(&self, meta: ObjectMeta) -> ObjectMeta {
        self.age.of(meta)
    }

    fn all(&self, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let age = self.age.clone();
        list.map(move |found| found.map(|meta| age.of(meta))).boxed()
    }
}

impl fmt::Display for Aged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aged {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Aged {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(to, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(from, options).await?;
        found.meta = self.meta(found.meta);
        Ok(found)
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(from, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.all(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        after: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.all(self.inner.list_with_offset(prefix, after))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects = found.objects.into_iter().map(|meta| self.meta(meta)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
