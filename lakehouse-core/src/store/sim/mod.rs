//! Stores that fail on purpose: the tests of every crate put one below a table and let each request
//! fail in turn.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use lakehouse_core::store::{Store, sim::{Fault, faulty}};
//! let (store, faults) = faulty(&Store::open("memory://sim-example")?);
//! faults.fail_at(1, Fault::FailAfter);
//! store.put("a", "1".into()).await?;
//! assert_eq!(faults.requests(), 2, "the reply to the first put was lost, so it was sent again");
//! # Ok::<(), lakehouse_core::Error>(()) }).unwrap();
//! ```

mod times;
mod upload;

pub use times::Times;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::Store;
use upload::FaultUpload;

/// How one request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; the error is one that may pass.
    FailBefore,
    /// The request is carried out and its reply lost; the error is one that may pass.
    FailAfter,
    /// A create is answered "already exists" although nothing was written. Other requests fail as
    /// with [`Fault::FailBefore`].
    FalseExists,
    /// A write fails, and is carried out all the same after two more requests. Other requests, uploads in parts and
    /// copies fail as with [`Fault::FailBefore`].
    Late,
    /// A write fails, and is carried out all the same when nobody waits for it any more: [`Faults::deliver`]. Other
    /// requests, uploads in parts and copies fail as with [`Fault::FailBefore`].
    Stray,
    /// An upload in parts is given up by the store at this request: it can no longer be completed. Other requests
    /// fail as with [`Fault::FailBefore`].
    Torn,
    /// This request and the next three fail as with [`Fault::FailBefore`].
    Throttle,
    /// A read breaks off in the middle. Other requests fail as with [`Fault::FailBefore`].
    CutShort,
    /// A listing lacks its last object. Other requests fail as with [`Fault::FailBefore`].
    StaleList,
    /// This request and every later one does nothing and fails.
    Crash,
}

impl Fault {
    /// Whether a client may take it for something that passes.
    pub(super) fn is_transient(self) -> bool {
        self != Self::Crash
    }

    /// Whether a client may take it for certain that nothing was written.
    pub(super) fn is_certain(self) -> bool {
        false
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FailBefore | Self::FalseExists | Self::Throttle | Self::StaleList => {
                "injected: the request did not arrive"
            }
            Self::Torn => "injected: there is no such upload",
            Self::Late | Self::Stray => "injected: no reply in time",
            Self::CutShort => "injected: the reply broke off",
            Self::FailAfter => "injected: the reply was lost",
            Self::Crash => "injected: the store is gone",
        })
    }
}

impl std::error::Error for Fault {}

/// What a store refuses, as long as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Writing, because no space is left.
    DiskFull,
    /// Writing and deleting, because the file system is mounted read-only.
    ReadOnly,
    /// Writing and deleting, because the user may not.
    Permission,
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Reading an object or ranges of it.
    Get,
    /// Looking up size and time.
    Head,
    /// Writing under a name, replacing what is there; also each step of an upload in parts, and copies.
    Put,
    /// Writing under a name that must be new.
    Create,
    /// Listing.
    List,
    /// Deleting one object.
    Delete,
}

impl Kind {
    /// Whether it changes what is stored.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::Create | Self::Delete)
    }
}

/// What a store was asked for since the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub get: u64,
    /// Bytes that reads returned.
    pub get_bytes: u64,
    /// Look-ups of size and time.
    pub head: u64,
    /// Writes, each step of an upload in parts, copies.
    pub put: u64,
    /// Bytes that puts sent.
    pub put_bytes: u64,
    /// Writes under a new name.
    pub create: u64,
    /// Bytes that creates sent.
    pub create_bytes: u64,
    /// Listings.
    pub list: u64,
    /// Objects deleted.
    pub delete: u64,
}

/// A write that is still under way.
#[derive(Debug)]
struct Late {
    /// The request before which it is carried out, if any.
    due: Option<u64>,
    location: Path,
    write: Option<(PutPayload, PutOptions)>,
}

/// What becomes of a request that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    Through,
    /// Carry it out, then lose the reply.
    Lost,
    /// Carry it out some requests later, or when told to.
    Late,
    Stray,
    CutShort,
    Stale,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    log: Vec<(Kind, String)>,
    armed: BTreeMap<u64, Fault>,
    fired: u64,
    crashed: bool,
    /// Requests that still fail for an earlier one.
    throttled: u32,
    late: Vec<Late>,
    refusal: Option<Refusal>,
}

/// The handle that sets faults and reads counts; clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// Lets the n-th request from the last reset on fail (the first is 1). May be called several times.
    pub fn fail_at(&self, request: u64, fault: Fault) {
        self.state().armed.insert(request, fault);
    }

    /// From now on refuses what `refusal` says; `None` heals.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.state().refusal = refusal;
    }

    /// Heals everything and counts from zero again.
    pub fn reset(&self) {
        *self.state() = State::default();
    }

    /// Requests since the last reset, those that failed included.
    pub fn requests(&self) -> u64 {
        self.state().log.len() as u64
    }

    /// How many faults set with [`Faults::fail_at`] were met.
    pub fn fired(&self) -> u64 {
        self.state().fired
    }

    /// Requests by kind, with bytes.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Every request since the last reset: its kind and the key (or folder) it named.
    pub fn log(&self) -> Vec<(Kind, String)> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next request.
    fn next(&self) -> u64 {
        self.state().log.len() as u64 + 1
    }

    /// Writes that are due before this request.
    fn due(&self, now: u64) -> Vec<Late> {
        let mut state = self.state();
        let (due, late) = std::mem::take(&mut state.late)
            .into_iter()
            .partition(|late| late.due.is_some_and(|due| due <= now));
        state.late = late;
        due
    }

    /// Carries out every write that is still under way, on this store: that of the table without the faults. Returns
    /// how many there were.
    pub async fn deliver(&self, store: &Store) -> usize {
        let late = std::mem::take(&mut self.state().late);
        let count = late.len();
        carry_out(&**store.object_store(), late).await;
        count
    }

    fn later(&self, met: Met, location: &Path, write: Option<(PutPayload, PutOptions)>) -> Error {
        let mut state = self.state();
        let due = (met == Met::Late).then(|| state.log.len() as u64 + 3);
        state.late.push(Late {
            due,
            location: location.clone(),
            write,
        });
        injected_error(Fault::Late)
    }

    /// Counts a request.
    fn meet(&self, kind: Kind, path: &str, bytes: u64) -> Result<Met> {
        let mut state = self.state();
        state.log.push((kind, path.to_owned()));
        let counts = &mut state.counts;
        match kind {
            Kind::Get => counts.get += 1,
            Kind::Head => counts.head += 1,
            Kind::Put => {
                counts.put += 1;
                counts.put_bytes += bytes;
            }
            Kind::Create => {
                counts.create += 1;
                counts.create_bytes += bytes;
            }
            Kind::List => counts.list += 1,
            Kind::Delete => counts.delete += 1,
        }
        let number = state.log.len() as u64;
        let fault = state.armed.remove(&number);
        state.fired += u64::from(fault.is_some());
        state.crashed |= fault == Some(Fault::Crash);
        if state.crashed {
            return Err(injected_error(Fault::Crash));
        }
        if let Some(refusal) = state.refusal {
            refuse(refusal, kind, path)?;
        }
        if state.throttled > 0 {
            state.throttled -= 1;
            return Err(injected_error(Fault::Throttle));
        }
        match fault {
            None => Ok(Met::Through),
            Some(Fault::FailAfter) => Ok(Met::Lost),
            Some(Fault::Late) if kind.is_write() => Ok(Met::Late),
            Some(Fault::Stray) if kind.is_write() => Ok(Met::Stray),
            Some(Fault::CutShort) if kind == Kind::Get => Ok(Met::CutShort),
            Some(Fault::StaleList) if kind == Kind::List => Ok(Met::Stale),
            Some(Fault::Throttle) => {
                state.throttled = 3;
                Err(injected_error(Fault::Throttle))
            }
            Some(Fault::FalseExists) if kind == Kind::Create => Err(Error::AlreadyExists {
                path: path.to_owned(),
                source: Fault::FalseExists.into(),
            }),
            Some(other) => Err(injected_error(other)),
        }
    }

    fn received(&self, bytes: u64) {
        self.state().counts.get_bytes += bytes;
    }
}

fn refuse(refusal: Refusal, kind: Kind, path: &str) -> Result<()> {
    let writes = matches!(kind, Kind::Put | Kind::Create);
    let error = match refusal {
        Refusal::DiskFull if writes => io::Error::from(ErrorKind::StorageFull),
        Refusal::ReadOnly if writes || kind == Kind::Delete => io::Error::from(ErrorKind::ReadOnlyFilesystem),
        Refusal::Permission if writes || kind == Kind::Delete => {
            return Err(Error::PermissionDenied {
                path: path.to_owned(),
                source: io::Error::from(ErrorKind::PermissionDenied).into(),
            });
        }
        _ => return Ok(()),
    };
    Err(Error::Generic {
        store: "local disk",
        source: error.into(),
    })
}

fn injected_error(fault: Fault) -> Error {
    Error::Generic {
        store: "simulated",
        source: fault.into(),
    }
}

/// The fault that made this error, if one did.
pub(super) fn injected(error: &Error) -> Option<Fault> {
    match error {
        Error::Generic { source, .. } => source.downcast_ref().copied(),
        _ => None,
    }
}

/// The same table over a store that fails when told to, and the handle that tells it.
pub fn faulty(store: &Store) -> (Store, Faults) {
    let faults = Faults::default();
    let faulty = store.layered(|inner| Arc::new(FaultStore::new(inner, faults.clone())));
    (faulty, faults)
}

/// An object store that counts requests and fails as its [`Faults`] say.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
}

impl FaultStore {
    /// Puts faults over a store.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with faults", self.inner)
    }
}

/// The result, or the loss of it.
fn reply<T>(met: Met, result: Result<T>) -> Result<T> {
    match result {
        Ok(_) if met == Met::Lost => Err(injected_error(Fault::FailAfter)),
        Ok(_) if met == Met::CutShort => Err(injected_error(Fault::CutShort)),
        other => other,
    }
}

/// Carries out late writes; nobody waits for their answers.
async fn carry_out(inner: &dyn ObjectStore, late: Vec<Late>) {
    for late in late {
        let done = match late.write {
            Some((payload, options)) => {
                let put = inner.put_opts(&late.location, payload, options).await;
                put.map(drop)
            }
            None => inner.delete(&late.location).await,
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a late write did nothing");
        }
    }
}

impl FaultStore {
    /// Carries out the late writes that are due.
    async fn deliver(&self) {
        carry_out(&*self.inner, self.faults.due(self.faults.next())).await;
    }

    /// A listing, with the late writes that are due carried out before it.
    fn listed(
        &self,
        prefix: Option<&Path>,
        list: impl FnOnce(&dyn ObjectStore) -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, faults) = (Arc::clone(&self.inner), self.faults.clone());
        let now = faults.next();
        let met = faults.meet(Kind::List, prefix.map_or("", Path::as_ref), 0);
        let objects = async move {
            carry_out(&*inner, faults.due(now)).await;
            lose_list(met, list(&*inner))
        };
        objects.flatten_stream().boxed()
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let kind = match opts.mode {
            PutMode::Create => Kind::Create,
            _ => Kind::Put,
        };
        self.deliver().await;
        let bytes = payload.content_length() as u64;
        let met = self.faults.meet(kind, location.as_ref(), bytes)?;
        if matches!(met, Met::Late | Met::Stray) {
            return Err(self.faults.later(met, location, Some((payload, opts))));
        }
        reply(met, self.inner.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.deliver().await;
        let met = not_late(self.faults.meet(Kind::Put, location.as_ref(), 0))?;
        let upload = reply(met, self.inner.put_multipart_opts(location, opts).await)?;
        Ok(Box::new(FaultUpload {
            inner: upload,
            faults: self.faults.clone(),
            path: location.to_string(),
            torn: false,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { Kind::Head } else { Kind::Get };
        self.deliver().await;
        let met = self.faults.meet(kind, location.as_ref(), 0)?;
        let result = self.inner.get_opts(location, options).await;
        if met == Met::CutShort {
            return result.map(cut_short);
        }
        let result = reply(met, result)?;
        if kind == Kind::Get {
            self.faults.received(result.range.end - result.range.start);
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.deliver().await;
        let met = self.faults.meet(Kind::Get, location.as_ref(), 0)?;
        let parts = reply(met, self.inner.get_ranges(location, ranges).await)?;
        self.faults
            .received(parts.iter().map(|part| part.len() as u64).sum());
        Ok(parts)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let inner = Arc::clone(&self.inner);
        let faults = self.faults.clone();
        locations
            .then(move |location| {
                let inner = Arc::clone(&inner);
                let faults = faults.clone();
                async move {
                    let location = location?;
                    carry_out(&*inner, faults.due(faults.next())).await;
                    let met = faults.meet(Kind::Delete, location.as_ref(), 0)?;
                    if matches!(met, Met::Late | Met::Stray) {
                        return Err(faults.later(met, &location, None));
                    }
                    reply(met, inner.delete(&location).await)?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.cloned();
        self.listed(prefix, move |inner| inner.list(folder.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (folder, offset) = (prefix.cloned(), offset.clone());
        self.listed(prefix, move |inner| {
            inner.list_with_offset(folder.as_ref(), &offset)
        })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.deliver().await;
        let met = self.faults.meet(Kind::List, prefix.map_or("", Path::as_ref), 0)?;
        let mut listed = reply(met, self.inner.list_with_delimiter(prefix).await)?;
        if met == Met::Stale {
            listed.objects.pop();
        }
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.deliver().await;
        let met = not_late(self.faults.meet(Kind::Put, to.as_ref(), 0))?;
        reply(met, self.inner.copy_opts(from, to, options).await)
    }
}

/// Writes in several steps are not carried out later.
fn not_late(met: Result<Met>) -> Result<Met> {
    match met? {
        Met::Late | Met::Stray => Err(injected_error(Fault::Late)),
        met => Ok(met),
    }
}

/// The first half of a reply, then an error.
fn cut_short(result: GetResult) -> GetResult {
    let (meta, range, attributes) = (
        result.meta.clone(),
        result.range.clone(),
        result.attributes.clone(),
    );
    let half = ((range.end - range.start) / 2) as usize;
    let begin = futures::stream::once(async move { Ok(result.bytes().await?.slice(..half)) });
    let end = futures::stream::once(async { Err(injected_error(Fault::CutShort)) });
    GetResult {
        payload: GetResultPayload::Stream(begin.chain(end).boxed()),
        meta,
        range,
        attributes,
    }
}

/// A listing whose reply is lost delivers part of it first; a stale one lacks its last object.
fn lose_list(
    met: Result<Met>,
    objects: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    match met {
        Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        Ok(Met::Stale) => futures::stream::once(objects.try_collect::<Vec<_>>())
            .map_ok(|mut all| {
                all.sort_by(|a, b| a.location.cmp(&b.location));
                all.pop();
                futures::stream::iter(all.into_iter().map(Ok))
            })
            .try_flatten()
            .boxed(),
        Ok(Met::Through | Met::Late | Met::Stray | Met::CutShort) => objects,
        Ok(Met::Lost) => objects
            .take(1)
            .chain(futures::stream::once(async {
                Err(injected_error(Fault::FailAfter))
            }))
            .into_stream()
            .boxed(),
    }
}
