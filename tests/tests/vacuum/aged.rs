//! Tables in a store whose objects are dated by a clock that tests set forward, and what others leave in them.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use lakehouse_core::commit::{CommitOptions, Plan, commit};
use lakehouse_core::format::Handle;
use lakehouse_core::model::{Change, CommitId, DataFile, OperationKind, Snapshot};
use lakehouse_core::store::clock::Source;
use lakehouse_core::store::sim::Times;
use lakehouse_core::store::{Store, clock};
use lakehouse_core::{Result, Table, TableFormat};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use crate::support::memory;
use crate::verbs::{FORMATS, table_made};

/// Runs a test on a table of every format, at the time of its clock.
pub(super) async fn each(
    partitioning: &str,
    properties: &[(&str, &str)],
    test: impl AsyncFn((TableFormat, Option<u8>), &Aged),
) {
    for format in FORMATS {
        let aged = Aged::new(format, partitioning, properties).await;
        aged.at(test(format, &aged)).await;
    }
}

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A table and the clock that dates its objects.
pub(crate) struct Aged {
    pub(crate) table: Table,
    pub(crate) clock: Arc<Source>,
}

impl Aged {
    /// An empty table. What works on it runs inside [`Aged::at`].
    pub(crate) async fn new(
        format: (TableFormat, Option<u8>),
        partitioning: &str,
        properties: &[(&str, &str)],
    ) -> Self {
        Self::over(memory("vacuum"), format, partitioning, properties).await
    }

    pub(crate) async fn over(
        store: Store,
        format: (TableFormat, Option<u8>),
        partitioning: &str,
        properties: &[(&str, &str)],
    ) -> Self {
        let clock = Arc::new(Source::new(1));
        let store = Times::new(Arc::clone(&clock)).over(&store);
        let made = table_made(store, format, partitioning, properties);
        let table = clock::simulated(Arc::clone(&clock), made).await;
        Self { table, clock }
    }

    /// Runs something at the time of the table's clock.
    pub(crate) async fn at<T>(&self, run: impl Future<Output = T>) -> T {
        self.skewed(0, run).await
    }

    /// The same on a machine whose clock is fast by so many milliseconds.
    pub(crate) async fn skewed<T>(&self, skew_ms: i64, run: impl Future<Output = T>) -> T {
        clock::simulated(Arc::new(self.clock.actor(1, skew_ms)), run).await
    }

    pub(crate) fn store(&self) -> &Store {
        &self.table.handle().store
    }

    /// All keys.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let listed = self.store().list("").await.unwrap();
        listed.into_iter().map(|object| object.path).collect()
    }

    /// Copies the first file of the newest version to another key, as a file that no version has.
    pub(crate) async fn orphan(&self, key: &str) -> DataFile {
        let files = self
            .table
            .files(&lakehouse_core::model::At::Latest)
            .await
            .unwrap();
        let mut file = files.into_iter().next().expect("a file");
        self.store()
            .put(key, self.store().get(&file.path).await.unwrap())
            .await
            .unwrap();
        file.path = key.to_owned();
        file.recorded = key.to_owned();
        file.first_row_id = None;
        file.sequence = None;
        file.masks.clear();
        file
    }
}

/// Commits a file that is there already, as engines do that know no lease.
pub(crate) async fn take_up(handle: &Handle, file: DataFile, branch: Option<&str>) {
    struct TakeUp(DataFile);

    impl Plan for TakeUp {
        fn plan<'a>(&'a mut self, _: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
            let mut change = Change::new(OperationKind::Append, id);
            change.added.push(self.0.clone());
            Box::pin(async move { Ok(Some(change)) })
        }
    }
    let options = CommitOptions {
        branch: branch.map(str::to_owned),
        ..CommitOptions::default()
    };
    let done = commit(handle, &options, &mut TakeUp(file)).await.unwrap();
    assert!(done.change.is_some());
}

/// Listings to come, and what happens after the last of them.
type Due = (u32, BoxFuture<'static, ()>);

/// A store in memory in which something happens once, after the objects of the whole table were listed for the n-th time
/// from now on.
#[derive(Clone)]
pub(crate) struct Listing {
    inner: Arc<dyn ObjectStore>,
    next: Arc<Mutex<Option<Due>>>,
}

impl Listing {
    pub(crate) fn over(store: &Store) -> (Store, Self) {
        let listing = Self {
            inner: Arc::clone(store.object_store()),
            next: Arc::default(),
        };
        let layer = listing.clone();
        (
            store.layered(move |_| Arc::new(layer.clone()) as Arc<dyn ObjectStore>),
            listing,
        )
    }

    pub(crate) fn after(&self, listing: u32, what: impl Future<Output = ()> + Send + 'static) {
        *self.next.lock().unwrap() = Some((listing, Box::pin(what)));
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }

    fn due(&self) -> Option<BoxFuture<'static, ()>> {
        let mut next = self.next.lock().unwrap();
        if let Some((left, _)) = next.as_mut() {
            *left -= 1;
        }
        next.take_if(|(left, _)| *left == 0).map(|(_, what)| what)
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").finish_non_exhaustive()
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("listed")
    }
}

#[async_trait]
impl ObjectStore for Listing {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let objects = self.inner.list(prefix);
        let Some(due) = prefix.is_none().then(|| self.due()).flatten() else {
            return objects;
        };
        let listed = async move {
            let objects: Vec<ObjectMeta> = objects.try_collect().await?;
            due.await;
            Ok::<_, object_store::Error>(futures::stream::iter(objects.into_iter().map(Ok)))
        };
        futures::stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
