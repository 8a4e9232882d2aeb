//! A store that lets something happen right before a commit's own request.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use lakehouse_core::store::Store;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What shall happen before the next commit.
#[derive(Clone, Default)]
pub(super) struct Hooked {
    next: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
    inner: Arc<InMemory>,
}

impl Hooked {
    /// Once, right before the next request that makes a version.
    pub(super) fn before_commit(&self, what: impl Future<Output = ()> + Send + 'static) {
        *self.next.lock().unwrap() = Some(Box::pin(what));
    }

    /// The same objects without the hook.
    pub(super) fn plain(&self, store: &Store) -> Store {
        let inner = Arc::clone(&self.inner);
        store.layered(|_| Arc::clone(&inner) as Arc<dyn ObjectStore>)
    }
}

/// A store of its own in memory.
pub(super) fn store() -> (Store, Hooked) {
    let hooked = Hooked::default();
    let root = "memory://races".parse().unwrap();
    (Store::over(Arc::new(hooked.clone()), root), hooked)
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").finish_non_exhaustive()
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hooked")
    }
}

fn makes_a_version(path: &str) -> bool {
    (path.contains("_delta_log/") && path.ends_with(".json"))
        || (path.contains("metadata/v") && path.ends_with(".metadata.json"))
}

#[async_trait]
impl ObjectStore for Hooked {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode == PutMode::Create && makes_a_version(path.as_ref()) {
            let next = self.next.lock().unwrap().take();
            if let Some(next) = next {
                next.await;
            }
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
