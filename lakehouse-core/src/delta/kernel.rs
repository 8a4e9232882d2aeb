//! Loading a version by `delta_kernel`: the only file that names it. The files of a version are read by `listing.rs`.
//!
//! The kernel is synchronous and asks an engine for I/O. It runs on a blocking thread of the runtime
//! that called us, and its I/O is driven from there by the same runtime's handle: no second runtime,
//! no thread that outlives the call, nothing to deadlock with on a current-thread runtime.
//!
//! Of its `internal-api` we use the table configuration (protocol and metadata as recorded), the log
//! segment (which checkpoint a version was loaded from) and the metadata domains of features.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::num::NonZero;
use std::sync::Arc;

use delta_kernel::path::ParsedLogPath;
use delta_kernel::snapshot::SnapshotRef;
use delta_kernel::{KernelError, KernelResult, Snapshot};
use delta_kernel_default_engine::executor::TaskExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use futures::TryFutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::OnceCell;

use super::actions::{Metadata, Protocol, from_value};
use super::{clustering, log, row_tracking};
use crate::error::{Error, Result};
use crate::model::limits::Limits;
use crate::store::{Bound, Store};

/// Keys of a [`Store`] are relative to the table root, so the kernel's table lies at the root. The
/// scheme makes its engine sort listings, which local stores do not.
const ROOT: &str = "file:///";

/// The domains that are looked up.
const DOMAINS: [&str; 2] = [row_tracking::DOMAIN, clustering::DOMAIN];

/// How many log entries the kernel reads at the same time.
const READ_AHEAD: NonZero<usize> = NonZero::new(16).unwrap();

/// How many log entries are read to bring the metadata domains of an earlier version up to date. More of them, and the
/// kernel is asked, which begins at the last checkpoint.
const FOLLOWED: u64 = 16;

/// One version of the log as the kernel holds it.
#[derive(Debug, Clone)]
pub(super) struct Replay {
    snapshot: SnapshotRef,
    domains: Arc<OnceCell<Domains>>,
    /// Those of an earlier version, which was loaded before.
    earlier: Option<(u64, Domains)>,
}

/// What a table keeps under the names of features (Delta protocol, "Domain Metadata").
type Domains = BTreeMap<String, String>;

/// Drives the kernel's I/O on the runtime that called us.
struct Caller(Handle);

impl TaskExecutor for Caller {
    type Guard<'a> = EnterGuard<'a>;

    fn block_on<T>(&self, task: T) -> T::Output
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        self.0.block_on(task)
    }

    fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn(task);
    }

    fn spawn_blocking<T, R>(&self, task: T) -> BoxFuture<'_, KernelResult<R>>
    where
        T: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Box::pin(self.0.spawn_blocking(task).map_err(KernelError::join_failure))
    }

    fn enter(&self) -> Self::Guard<'_> {
        self.0.enter()
    }
}

fn engine(store: &Store, bound: fn(&str, &Limits) -> Bound, handle: Handle) -> DefaultEngine<Caller> {
    DefaultEngineBuilder::new(store.guarded(bound))
        .with_task_executor(Arc::new(Caller(handle)))
        .with_buffer_size(READ_AHEAD)
        .build()
}

/// Runs the kernel on a blocking thread with an engine over `store`.
async fn run<T: Send + 'static>(
    store: &Store,
    task: impl FnOnce(&DefaultEngine<Caller>) -> Result<T> + Send + 'static,
) -> Result<T> {
    run_within(store, log::bound, task).await
}

/// The same; the engine sees of the log what `bound` allows.
async fn run_within<T: Send + 'static>(
    store: &Store,
    bound: fn(&str, &Limits) -> Bound,
    task: impl FnOnce(&DefaultEngine<Caller>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = store.clone();
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || task(&engine(&store, bound, handle)))
        .await
        .unwrap_or_else(|e| Err(gave_up(&e)))
}

impl Replay {
    /// Loads a version (`None`: the newest), reading only what came after `base` where one is given.
    pub(super) async fn load(store: &Store, base: Option<Self>, version: Option<u64>) -> Result<Self> {
        let loaded = Self::load_within(store, log::bound, base.clone(), version).await;
        let Err(Error::Invalid { .. } | Error::NotFound { .. }) = &loaded else {
            return loaded;
        };
        // `_last_checkpoint` may name a checkpoint that is not there, or no longer. It is advice: the log is whole
        // without it, where its entries or another checkpoint are.
        if store.head(log::LAST_CHECKPOINT).await?.is_none() {
            return loaded;
        }
        let again = Self::load_within(store, log::bound_without_pointer, base, version).await;
        again.or(loaded)
    }

    async fn load_within(
        store: &Store,
        bound: fn(&str, &Limits) -> Bound,
        base: Option<Self>,
        version: Option<u64>,
    ) -> Result<Self> {
        run_within(store, bound, move |engine| {
            let earlier = base.as_ref().and_then(Self::known_domains);
            let built = match (base, version) {
                (Some(base), None) => Snapshot::builder_from(base.snapshot).build(engine),
                (Some(base), Some(v)) => Snapshot::builder_from(base.snapshot).at_version(v).build(engine),
                (None, None) => Snapshot::builder_for(ROOT).build(engine),
                (None, Some(v)) => Snapshot::builder_for(ROOT).at_version(v).build(engine),
            };
            let built = built.map(|snapshot| Self {
                snapshot,
                domains: Arc::default(),
                earlier,
            });
            built.map_err(translate)
        })
        .await
    }

    /// The same version as a reader finds it who knows nothing yet: the log may have been cleaned up beneath this one.
    pub(super) async fn again(&self, store: &Store) -> Result<Self> {
        Self::load(store, None, Some(self.version())).await
    }

    pub(super) fn version(&self) -> u64 {
        self.snapshot.version()
    }

    pub(super) fn protocol(&self) -> Result<Protocol> {
        let value = serde_json::to_value(self.snapshot.table_configuration().protocol());
        from_value(value.unwrap_or_default(), "protocol")
    }

    pub(super) fn metadata(&self) -> Result<Metadata> {
        let value = serde_json::to_value(self.snapshot.table_configuration().metadata());
        from_value(value.unwrap_or_default(), "metadata")
    }

    /// The version and the object keys of the checkpoint that this version was loaded from.
    pub(super) fn checkpoint(&self) -> Option<(u64, Vec<String>)> {
        let segment = self.snapshot.log_segment();
        let version = segment.checkpoint_version?;
        let parts = &segment.listed.checkpoint_parts;
        Some((
            version,
            parts
                .iter()
                .map(|part| format!("_delta_log/{}", part.filename))
                .collect(),
        ))
    }

    /// The version that an application has recorded, if it is not expired.
    pub(super) async fn application(&self, store: &Store, id: String) -> Result<Option<i64>> {
        self.ask(store, move |snapshot, engine| {
            snapshot.get_app_id_version(&id, engine).map_err(translate)
        })
        .await
    }

    /// Asks the kernel about this version; once more as a new reader, where the log it was loaded from is not there any
    /// more.
    async fn ask<T: Send + 'static>(
        &self,
        store: &Store,
        question: impl Fn(&SnapshotRef, &DefaultEngine<Caller>) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let (snapshot, first) = (Arc::clone(&self.snapshot), question.clone());
        let answer = run(store, move |engine| first(&snapshot, engine)).await;
        let Err(Error::NotFound { .. } | Error::Invalid { .. }) = &answer else {
            return answer;
        };
        match self.again(store).await {
            Ok(again) if again.checkpoint() != self.checkpoint() => {
                run(store, move |engine| question(&again.snapshot, engine)).await
            }
            _ => answer,
        }
    }

    /// What the table keeps under these names (Delta protocol, "Domain Metadata"), as far as it does: names of `DOMAINS`.
    pub(super) async fn domains(&self, store: &Store, names: &[&str]) -> Result<Domains> {
        if names.is_empty() {
            return Ok(Domains::new());
        }
        let load = || async {
            match self.followed(store).await? {
                Some(domains) => Ok(domains),
                None => self.asked(store).await,
            }
        };
        let all = self.domains.get_or_try_init(load).await?;
        let wanted = all.iter().filter(|(name, _)| names.contains(&name.as_str()));
        Ok(wanted.map(|(name, text)| (name.clone(), text.clone())).collect())
    }

    /// Of which version the domains are known, and those.
    fn known_domains(&self) -> Option<(u64, Domains)> {
        let known = self
            .domains
            .get()
            .map(|domains| (self.version(), domains.clone()));
        known.or_else(|| self.earlier.clone())
    }

    /// The domains of an earlier version with what was committed since; `None` where that is too much, or not there any more.
    async fn followed(&self, store: &Store) -> Result<Option<Domains>> {
        let Some((version, mut domains)) = self.earlier.clone() else {
            return Ok(None);
        };
        if self.version() - version > FOLLOWED {
            return Ok(None);
        }
        for version in version + 1..=self.version() {
            let Some(entry) = log::read(store, version).await? else {
                return Ok(None);
            };
            for domain in entry.into_iter().filter_map(|action| action.domain_metadata) {
                match domain.removed {
                    true => domains.remove(&domain.domain),
                    false => domains.insert(domain.domain, domain.configuration),
                };
            }
        }
        Ok(Some(domains))
    }

    async fn asked(&self, store: &Store) -> Result<Domains> {
        self.ask(store, move |snapshot, engine| {
            let found = snapshot.get_domain_metadatas_internal(engine, Some(&DOMAINS.into()));
            let found = found.map_err(translate)?;
            Ok(found
                .into_iter()
                .map(|(name, domain)| (name, domain.configuration().to_owned()))
                .collect())
        })
        .await
    }

    /// The files of the checkpoint that this version was loaded from, with their sizes in bytes: of version 1 all its
    /// parts, of version 2 the one that names the others.
    pub(super) fn checkpoint_files(&self) -> Vec<(String, u64)> {
        let parts = &self.snapshot.log_segment().listed.checkpoint_parts;
        let file = |part: &ParsedLogPath| (format!("_delta_log/{}", part.filename), part.location.size);
        parts.iter().map(file).collect()
    }
}

pub(super) fn gave_up(why: &dyn fmt::Display) -> Error {
    Error::invalid(format!("the log cannot be read: {why}"), "_delta_log")
        .with_hint("a file of the log is damaged: restore it from a backup")
}

/// The kernel's error as one of ours.
fn translate(error: KernelError) -> Error {
    if let Some(ours) = Error::within(&error) {
        return ours;
    }
    match error {
        KernelError::Backtraced { source, .. } => translate(*source),
        KernelError::ObjectStore(source) => Error::within(&source).unwrap_or(Error::Store {
            action: "read",
            path: "_delta_log".into(),
            source,
        }),
        KernelError::Unsupported(what) => Error::unsupported(
            format!("the Delta table cannot be read: {what}"),
            "read it with a tool that has this feature",
        ),
        KernelError::FileNotFound(path) => Error::not_found("a file of the log", path),
        other => Error::invalid(
            format!("the log cannot be read: {}", other.to_string().replace(ROOT, "")),
            "_delta_log",
        ),
    }
}
