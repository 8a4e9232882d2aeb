//! Delta Lake behind the door: log, actions, checkpoints, deletion vectors, protocol features, publish.
//!
//! Which files of the log make a version, its protocol and metadata are `delta_kernel`'s work (`kernel.rs`); its files
//! are read (`listing.rs`, `parts.rs`, `sieve.rs`) and written (`publish.rs`, `checkpoint.rs`) by us.
//! Section names in comments are those of Delta's `PROTOCOL.md`.

mod actions;
mod adopt;
mod audit;
mod change_feed;
mod changes;
mod checkpoint;
mod cleanup;
mod clustering;
mod create;
mod evolve;
mod files;
mod footer;
mod hidden;
mod kernel;
mod listing;
mod load;
mod log;
mod mapping;
mod named;
mod needed;
mod partitions;
mod parts;
mod properties;
mod protocol;
mod publish;
mod reachable;
mod row_tracking;
mod schema;
mod sieve;
mod state;
mod stats;
mod upkeep;
mod vectors;
mod walk;
mod z85;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::Schema;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::error::{Error, Result};
use crate::format::{Format, Outcome};
use crate::model::limits;
use crate::model::{
    At, Audit, Change, Checkpoint, CheckpointKind, CleanedUp, Cleanup, CommitId, CommitInfo, DataFile,
    Definition, Keep, Kept, Needed, ObjectKind, Prune, Redefinition, Retained, Retention, RowMask, Snapshot,
    Token, Upkeep, Version,
};
use crate::store::{Created, Store, clock};
use state::State;

/// A Delta table: `_delta_log/N.json` is created if absent.
#[derive(Debug, Clone)]
pub struct Delta {
    store: Store,
    /// The newest version seen: loading a later one reads only what came after it.
    newest: Arc<Mutex<Option<Arc<Snapshot>>>>,
}

impl Delta {
    /// The table at this store's root, whether it exists yet or not.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            newest: Arc::default(),
        }
    }

    /// The store it lives in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The outcome of a log entry that has just been created. Once it is there, failing to read it back
    /// is no failure of the commit: the caller then looks for it.
    async fn created(&self, version: u64, created: Created) -> Outcome {
        match created {
            Created::Exists => return Outcome::Lost,
            Created::Unknown(error) => return Outcome::Unknown(error),
            Created::Yes => {}
        }
        let mut attempts = 3;
        let snapshot = loop {
            attempts -= 1;
            match self.load(Some(version)).await {
                Ok(snapshot) => break snapshot,
                Err(Error::Store { .. }) if attempts > 0 => {}
                Err(error) => return Outcome::Unknown(error),
            }
        };
        if let Err(error) = checkpoint::maybe_write(&self.store, &snapshot).await {
            tracing::warn!(version, %error, "no checkpoint was written; the next interval tries again");
        }
        Outcome::Committed(snapshot)
    }
}

impl Format for Delta {
    fn name(&self) -> &'static str {
        "delta"
    }

    fn create<'a>(
        &'a self,
        definition: &'a Definition,
        commit_id: &'a CommitId,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let entry = create::first_entry(definition, commit_id, Vec::new())?;
            if create::exists(&self.store).await? {
                return Ok(Outcome::Lost);
            }
            let created = self.store.create(&log::commit_key(0), entry.into()).await?;
            Ok(self.created(0, created).await)
        })
    }

    fn draft<'a>(&'a self, definition: &'a Definition) -> BoxFuture<'a, Result<Arc<Snapshot>>> {
        Box::pin(async move { adopt::draft(&self.store, definition).await })
    }

    fn create_with<'a>(
        &'a self,
        definition: &'a Definition,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let entry = adopt::first_entry(&self.store, definition, change).await?;
            if create::exists(&self.store).await? {
                return Ok(Outcome::Lost);
            }
            let created = self.store.create(&log::commit_key(0), entry.into()).await?;
            Ok(self.created(0, created).await)
        })
    }

    fn snapshot<'a>(&'a self, at: &'a At) -> BoxFuture<'a, Result<Arc<Snapshot>>> {
        Box::pin(async move { self.load_at(at).await })
    }

    fn check_writable(&self, snapshot: &Snapshot) -> Result<()> {
        State::of(snapshot)?.check_writable()
    }

    fn evolve(
        &self,
        snapshot: &Snapshot,
        schema: &Schema,
        redefinition: &Redefinition,
    ) -> Result<Arc<Snapshot>> {
        evolve::evolve(snapshot, schema, redefinition)
    }

    fn clustering<'a>(&'a self, snapshot: &'a Snapshot) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            let state = State::of(snapshot)?;
            if !state.protocol.has(clustering::FEATURE) {
                return Ok(Vec::new());
            }
            let domains = state.replay.domains(&self.store, &[clustering::DOMAIN]).await?;
            let domain = domains.get(clustering::DOMAIN).map(String::as_str);
            clustering::logical(&clustering::columns(&state.protocol, domain)?, state.columns())
        })
    }

    fn files(&self, snapshot: &Arc<Snapshot>, prune: Arc<Prune>) -> BoxStream<'static, Result<DataFile>> {
        files::stream(self.store.clone(), Arc::clone(snapshot), prune)
    }

    fn masks<'a>(&'a self, _: &'a Snapshot, files: &'a [DataFile]) -> BoxFuture<'a, Result<Vec<RowMask>>> {
        Box::pin(async move { vectors::read(&self.store, files).await })
    }

    fn stage_masks<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        masks: Vec<(DataFile, RowMask)>,
        operation: &'a CommitId,
    ) -> BoxFuture<'a, Result<(Vec<DataFile>, Vec<String>)>> {
        Box::pin(async move {
            State::of(snapshot)?.check_writable()?;
            if !snapshot.capabilities.masks {
                return Err(Error::unsupported(
                    "rows of this Delta table cannot be masked: it has no deletion vectors",
                    "rewrite the files instead",
                ));
            }
            vectors::stage(&self.store, masks, operation).await
        })
    }

    fn changes<'a>(&'a self, base: &'a Snapshot, upto: &'a Snapshot) -> BoxFuture<'a, Result<Vec<Change>>> {
        Box::pin(async move { changes::between(&self.store, base, upto).await })
    }

    fn publish<'a>(&'a self, base: &'a Arc<Snapshot>, change: &'a Change) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            if change.manifests {
                return Err(Error::unsupported(
                    "Delta tables have no manifests",
                    "to shorten what readers have to read, write a checkpoint: lake checkpoint",
                ));
            }
            if !change.expired.is_empty() {
                State::of(base)?.check_writable()?;
                // Versions are in no list: they go with the files of the log.
                return Ok(Outcome::Committed(Arc::clone(base)));
            }
            let restored = match change.restore {
                Some(version) => Some(self.load_at(&At::Version(version)).await?),
                None => None,
            };
            let entry = publish::entry(&self.store, base, change, restored.as_deref()).await?;
            let key = log::commit_key(base.state + 1);
            // What could not be read back is not published.
            let limit = self.store.limits().commit_bytes;
            limits::at_most(entry.len() as u64, limit, "bytes of a log entry", &key)?;
            if clock::is_overdue(change) {
                return Ok(Outcome::Lost);
            }
            let version = base.state + 1;
            let created = self.store.create(&key, entry.into()).await?;
            Ok(self.created(version, created).await)
        })
    }

    fn find<'a>(
        &'a self,
        commit_id: &'a CommitId,
        base: &'a Snapshot,
    ) -> BoxFuture<'a, Result<Option<Arc<Snapshot>>>> {
        Box::pin(async move {
            match changes::find(&self.store, commit_id, base.state).await? {
                Some(version) => self.load(Some(version)).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn find_token<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        token: &'a Token,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(async move {
            let Some(step) = token.step else {
                let replay = &State::of(snapshot)?.replay;
                return replay.application(&self.store, publish::application(token)).await;
            };
            let last = self.last_step(snapshot, &token.key).await?;
            Ok(last.filter(|last| *last >= step).map(|_| snapshot.version))
        })
    }

    fn last_step<'a>(&'a self, snapshot: &'a Snapshot, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move {
            let replay = &State::of(snapshot)?.replay;
            let id = publish::application(&Token::step(key, 0));
            let last = replay.application(&self.store, id).await?;
            // Who counts below zero has not begun.
            Ok(last.and_then(|last| u64::try_from(last).ok()))
        })
    }

    fn history<'a>(&'a self, at: &'a At, limit: Option<usize>) -> BoxFuture<'a, Result<Vec<CommitInfo>>> {
        Box::pin(async move {
            let newest = self.load_at(at).await?;
            changes::history(&self.store, newest.state, limit.unwrap_or(usize::MAX)).await
        })
    }

    fn versions<'a>(&'a self, snapshot: &'a Snapshot) -> BoxFuture<'a, Result<Vec<Retained>>> {
        Box::pin(async move { cleanup::versions(&self.store, snapshot).await })
    }

    fn retention(&self, snapshot: &Snapshot, asked: Retention) -> Result<Retention> {
        properties::retention(&snapshot.properties, asked)
    }

    fn files_kept_since<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(async move { needed::kept_since(self, snapshot, now_ms).await.map(Some) })
    }

    fn clean_up<'a>(
        &'a self,
        snapshot: &'a Arc<Snapshot>,
        what: &'a Cleanup,
    ) -> BoxFuture<'a, Result<CleanedUp>> {
        Box::pin(async move {
            let done = cleanup::clean_up(&self.store, State::of(snapshot)?, what).await;
            // What it was loaded from may be gone.
            *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = None;
            done
        })
    }

    fn checkpoint<'a>(
        &'a self,
        snapshot: &'a Arc<Snapshot>,
        kind: CheckpointKind,
    ) -> BoxFuture<'a, Result<Checkpoint>> {
        Box::pin(async move {
            let state = State::of(snapshot)?;
            state.check_writable()?;
            checkpoint::ensure(&self.store, state, kind, checkpoint::Remembered::by(state)?).await
        })
    }

    fn audit<'a>(&'a self, at: &'a At) -> BoxFuture<'a, Result<Audit>> {
        Box::pin(async move { audit::audit(&self.store, at).await })
    }

    fn repoint(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { audit::repoint(&self.store).await })
    }

    fn upkeep<'a>(&'a self, snapshot: &'a Snapshot) -> BoxFuture<'a, Result<Upkeep>> {
        Box::pin(async move { upkeep::upkeep(&self.store, snapshot).await })
    }

    fn reachable<'a>(&'a self, keep: Option<&'a [Version]>) -> BoxFuture<'a, Result<BTreeSet<String>>> {
        Box::pin(async move {
            match keep {
                None => reachable::everything(self).await,
                Some(versions) => reachable::of_versions(self, versions).await,
            }
        })
    }

    fn needed<'a>(
        &'a self,
        keep: &'a Keep,
        tell: &'a mut (dyn FnMut(Needed<'_>) + Send),
    ) -> BoxFuture<'a, Result<Kept>> {
        Box::pin(needed::needed(self, keep, tell))
    }

    fn kind(&self, snapshot: &Snapshot, key: &str) -> ObjectKind {
        needed::kind(snapshot, key)
    }
}
