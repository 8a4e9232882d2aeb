//! A store whose requests wait for their turn: the only moments at which one actor can notice what another did.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::{Fault, Kind};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::{Notify, oneshot};

/// No actor takes this long from one turn to the next: it hangs.
const STUCK: Duration = Duration::from_secs(60);

/// How often it is looked whether a task has ended.
const LOOK: Duration = Duration::from_millis(1);

/// What an actor waits to be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    /// To begin at all.
    Start,
    /// A request of this kind for this key (or folder).
    Store(Kind, String),
}

impl Request {
    /// Whether the two give different results in different orders.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let (Self::Store(mine, key), Self::Store(theirs, its_key)) = (self, other) else {
            return false;
        };
        let writes = |kind: &Kind| matches!(kind, Kind::Put | Kind::Create | Kind::Delete);
        match (mine, theirs) {
            (Kind::List, kind) => writes(kind) && its_key.starts_with(key.as_str()),
            (kind, Kind::List) => writes(kind) && key.starts_with(its_key.as_str()),
            _ => key == its_key && (writes(mine) || writes(theirs)),
        }
    }
}

/// Which requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Points {
    /// Those that make a version, look for one that is not there, or list; and those for advice on where to look
    /// (Iceberg's version hint, Delta's last checkpoint).
    All,
    /// All but those for advice.
    Versions,
}

/// What becomes of a request whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Go,
    /// It is carried out and its reply lost.
    LoseReply,
    /// The run is over: everything fails.
    Stop,
}

#[derive(Default)]
struct Actor {
    waiting: VecDeque<(Request, oneshot::Sender<(Turn, Busy)>)>,
    /// Requests that had their turn and are being carried out.
    busy: usize,
    done: bool,
}

/// Where the actors of one run wait, and where the scheduler lets them go on. Clones share one state.
#[derive(Clone)]
pub(crate) struct Gate {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    points: Points,
}

struct State {
    actors: Vec<Actor>,
    /// Versions that were read without waiting, since they were there already.
    passed: Vec<(usize, Request)>,
    closed: bool,
}

impl Gate {
    pub(crate) fn new(actors: usize, points: Points) -> Self {
        let actors = (0..actors).map(|_| Actor::default()).collect();
        Self {
            state: Arc::new(Mutex::new(State {
                actors,
                passed: Vec::new(),
                closed: false,
            })),
            changed: Arc::default(),
            points,
        }
    }

    /// The same objects, as this actor reaches them.
    pub(crate) fn store(&self, actor: usize, plain: &Store) -> Store {
        plain.layered(|inner| {
            Arc::new(Gated {
                inner,
                gate: self.clone(),
                actor,
            })
        })
    }

    /// Runs an actor: it waits for its first turn, and is done when the future is.
    pub(crate) async fn actor<T>(&self, actor: usize, run: impl Future<Output = T>) -> Option<T> {
        let done = Done(self.clone(), actor);
        let turn = self.turn(actor, Request::Start).await;
        drop(turn.1);
        let result = match turn.0 {
            Turn::Stop => None,
            _ => Some(run.await),
        };
        drop(done);
        result
    }

    /// The actors that can go on, each with its request, once all have come to a request or are done.
    pub(crate) async fn settled(&self) -> Vec<(usize, Request)> {
        loop {
            if let Some(waiting) = self.waiting() {
                return waiting;
            }
            let changed = tokio::time::timeout(STUCK, self.changed.notified()).await;
            changed.unwrap_or_else(|_| panic!("an actor neither asks for anything nor ends"));
        }
    }

    fn waiting(&self) -> Option<Vec<(usize, Request)>> {
        let first = |(at, place, request)| (place == 0).then_some((at, request));
        Some(self.waiting_of(|_| 1)?.into_iter().filter_map(first).collect())
    }

    /// All requests that wait, each by its actor and its place among those of that actor, once every actor has come to as
    /// many as it has tasks that ask for something, or is done. When a task ends, nobody tells: it is looked again and again.
    pub(crate) async fn all_waiting(&self, tasks: impl Fn(usize) -> usize) -> Vec<(usize, usize, Request)> {
        let started = Instant::now();
        loop {
            if let Some(waiting) = self.waiting_of(&tasks) {
                return waiting;
            }
            assert!(
                started.elapsed() < STUCK,
                "an actor neither asks for anything nor ends"
            );
            let changed = tokio::time::timeout(LOOK, self.changed.notified()).await;
            // Or not: then it is looked as well.
            drop(changed);
        }
    }

    fn waiting_of(&self, tasks: impl Fn(usize) -> usize) -> Option<Vec<(usize, usize, Request)>> {
        let mut state = self.state();
        for actor in &mut state.actors {
            // Some lose interest: a listing that is dropped halfway.
            actor.waiting.retain(|(_, waiter)| !waiter.is_closed());
        }
        let mut actors = state.actors.iter().enumerate();
        let settled = |(at, actor): (usize, &Actor)| {
            actor.busy == 0 && (actor.done || actor.waiting.len() >= tasks(at).max(1))
        };
        actors.all(settled).then(|| {
            let of_actor = |(at, actor): (usize, &Actor)| {
                let places = actor.waiting.iter().enumerate();
                let requests = places.map(|(place, (request, _))| (at, place, request.clone()));
                requests.collect::<Vec<_>>()
            };
            state.actors.iter().enumerate().flat_map(of_actor).collect()
        })
    }

    /// What was asked for since the last call that would have waited, had it come before what another actor did.
    pub(crate) fn passed(&self) -> Vec<(usize, Request)> {
        std::mem::take(&mut self.state().passed)
    }

    /// Lets an actor's request go on.
    pub(crate) fn release(&self, actor: usize, turn: Turn) {
        self.release_at(actor, 0, turn);
    }

    /// Lets the request at this place among those of an actor go on.
    pub(crate) fn release_at(&self, actor: usize, place: usize, turn: Turn) {
        let waiter = self.state().actors[actor].waiting.remove(place);
        let (_, waiter) = waiter.expect("it waits");
        // If nobody waits any more, what comes with the turn is dropped here.
        drop(waiter.send((turn, self.busy(actor))));
    }

    /// Lets everything fail from now on, so that the actors come to an end.
    pub(crate) fn close(&self) {
        let left: Vec<_> = {
            let mut state = self.state();
            state.closed = true;
            let actors = state.actors.iter_mut().enumerate();
            actors
                .flat_map(|(at, actor)| {
                    std::mem::take(&mut actor.waiting)
                        .into_iter()
                        .map(move |w| (at, w))
                })
                .collect()
        };
        for (actor, (_, waiter)) in left {
            drop(waiter.send((Turn::Stop, self.busy(actor))));
        }
    }

    fn busy(&self, actor: usize) -> Busy {
        self.state().actors[actor].busy += 1;
        Busy(self.clone(), actor)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits for a turn. The request is under way until what comes with the turn is dropped.
    async fn turn(&self, actor: usize, request: Request) -> (Turn, Busy) {
        let receiver = {
            let mut state = self.state();
            let (sender, receiver) = oneshot::channel();
            if !state.closed {
                state.actors[actor].waiting.push_back((request, sender));
            }
            receiver
        };
        self.changed.notify_one();
        match receiver.await {
            Ok(turn) => turn,
            Err(_) => (Turn::Stop, self.busy(actor)),
        }
    }
}

/// A request under way.
struct Busy(Gate, usize);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().actors[self.1].busy -= 1;
        self.0.changed.notify_one();
    }
}

struct Done(Gate, usize);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.state().actors[self.1].done = true;
        self.0.changed.notify_one();
    }
}

/// The store of one actor.
struct Gated {
    inner: Arc<dyn ObjectStore>,
    gate: Gate,
    actor: usize,
}

/// What makes a version: a log entry, a metadata file.
pub(crate) fn makes_a_version(key: &str) -> bool {
    let log_entry = key.starts_with("_delta_log/") && key.ends_with(".json");
    log_entry || (key.starts_with("metadata/v") && key.ends_with(".metadata.json"))
}

fn is_advice(key: &str) -> bool {
    matches!(key, "metadata/version-hint.text" | "_delta_log/_last_checkpoint")
        || key.contains(".checkpoint.")
}

fn failure(fault: Fault) -> Error {
    Error::Generic {
        store: "simulated",
        source: fault.into(),
    }
}

impl Gated {
    /// Waits for a turn, if what it asks for may be changed by others or noticed by them. What has a name of its own
    /// (data files, masks, manifests) and versions that are there stay as they are, whoever comes first.
    async fn turn(&self, kind: Kind, key: &str) -> Result<(Turn, Option<Busy>)> {
        let waits = match kind {
            Kind::List => true,
            _ if is_advice(key) => self.gate.points == Points::All,
            Kind::Get | Kind::Head => {
                makes_a_version(key) && self.inner.head(&Path::from(key)).await.is_err()
            }
            Kind::Put | Kind::Create | Kind::Delete => makes_a_version(key),
        };
        let request = Request::Store(kind, key.to_owned());
        if !waits {
            let mut state = self.gate.state();
            if state.closed {
                return Err(failure(Fault::Crash));
            }
            if makes_a_version(key) {
                state.passed.push((self.actor, request));
            }
            return Ok((Turn::Go, None));
        }
        match self.gate.turn(self.actor, request).await {
            (Turn::Stop, _) => Err(failure(Fault::Crash)),
            (turn, busy) => Ok((turn, Some(busy))),
        }
    }

    fn listed(
        &self,
        prefix: Option<&Path>,
        list: impl FnOnce(&Self) -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = Self {
            inner: Arc::clone(&self.inner),
            gate: self.gate.clone(),
            actor: self.actor,
        };
        let folder = prefix.map_or(String::new(), |prefix| format!("{prefix}/"));
        futures::stream::once(async move {
            let _turn = this.turn(Kind::List, &folder).await?;
            let objects: Vec<ObjectMeta> = list(&this).try_collect().await?;
            Ok::<_, Error>(futures::stream::iter(objects.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gated").field("actor", &self.actor).finish()
    }
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as actor {} sees it", self.inner, self.actor)
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let kind = match options.mode {
            PutMode::Create => Kind::Create,
            _ => Kind::Put,
        };
        let (turn, _busy) = self.turn(kind, path.as_ref()).await?;
        let put = self.inner.put_opts(path, payload, options).await?;
        match turn {
            Turn::LoseReply => Err(failure(Fault::FailAfter)),
            _ => Ok(put),
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let _turn = self.turn(Kind::Put, path.as_ref()).await?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { Kind::Head } else { Kind::Get };
        let _turn = self.turn(kind, path.as_ref()).await?;
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let _turn = self.turn(Kind::Get, path.as_ref()).await?;
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, gate, actor) = (Arc::clone(&self.inner), self.gate.clone(), self.actor);
        let this = Self { inner, gate, actor };
        let deleted = futures::stream::unfold((paths, this), |(mut paths, this)| async move {
            let path = paths.next().await?;
            let done = match path {
                Ok(path) => match this.turn(Kind::Delete, path.as_ref()).await {
                    Ok(_turn) => this.inner.delete(&path).await.map(|()| path),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            Some((done, (paths, this)))
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.cloned();
        self.listed(prefix, move |this| this.inner.list(folder.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        after: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (folder, after) = (prefix.cloned(), after.clone());
        self.listed(prefix, move |this| {
            this.inner.list_with_offset(folder.as_ref(), &after)
        })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.map_or(String::new(), |prefix| format!("{prefix}/"));
        let _turn = self.turn(Kind::List, &folder).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _turn = self.turn(Kind::Put, to.as_ref()).await?;
        self.inner.copy_opts(from, to, options).await
    }
}
