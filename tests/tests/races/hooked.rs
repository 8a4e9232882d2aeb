//! A store that lets something happen right before a commit's own request.

use std::collections::VecDeque;
use std::fmt;
use std::io::{Error as IoError, ErrorKind};
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
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What a request that makes a version is answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// Nothing in time; it is carried out with [`Hooked::deliver`].
    Late,
    /// There is no room.
    Full,
}

/// What shall happen before the next commit.
#[derive(Clone, Default)]
pub(super) struct Hooked {
    next: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    late: Arc<Mutex<Option<(Path, PutPayload, PutOptions)>>>,
    inner: Arc<InMemory>,
}

impl Hooked {
    /// Once, right before the next request that makes a version.
    pub(super) fn before_commit(&self, what: impl Future<Output = ()> + Send + 'static) {
        *self.next.lock().unwrap() = Some(Box::pin(what));
    }

    /// How the next requests that make a version fail.
    pub(super) fn answer(&self, answers: &[Answer]) {
        self.answers.lock().unwrap().extend(answers);
    }

    /// Carries out the late request.
    pub(super) async fn deliver(&self) {
        let late = self.late.lock().unwrap().take();
        let (path, payload, options) = late.expect("a request that is late");
        self.inner.put_opts(&path, payload, options).await.unwrap();
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
        if makes_a_version(path.as_ref()) {
            let next = self.next.lock().unwrap().take();
            if let Some(next) = next {
                next.await;
            }
            let answer = self.answers.lock().unwrap().pop_front();
            if let Some(answer) = answer {
                let kind = match answer {
                    Answer::Late => ErrorKind::TimedOut,
                    Answer::Full => ErrorKind::StorageFull,
                };
                if matches!(answer, Answer::Late) {
                    *self.late.lock().unwrap() = Some((path.clone(), payload, options));
                }
                return Err(Error::Generic {
                    store: "hooked",
                    source: IoError::from(kind).into(),
                });
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
