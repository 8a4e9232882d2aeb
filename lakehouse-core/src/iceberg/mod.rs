//! Apache Iceberg v2 and v3 behind the door: metadata, manifests, delete files, Puffin, publish.
//!
//! ```text
//! load     vN.metadata.json, found through the hint           metadata  its bytes       view  one version of it
//! create   version 1                                          types, values, paths     the vocabulary
//! adopt    version 1 with files that were there before
//! files    manifests -> data files, pruned                    manifests, entries, avro, convert: their bytes
//! deletes  which masks concern a file                         masks     position_deletes, puffin: their bytes
//! publish  one attempt                                        staged, rewrite, regroup, summary its parts
//! catalog  who decides what is current
//! cleanup  metadata files that nobody needs any more
//! evolve   columns added and widened                        refs      tags and branches
//! audit    what is wrong with the metadata                     audit_manifests  of a version      upkeep  how much there is
//! changes  the difference of two versions                     history, committed  looking back
//! ```
//!
//! Which metadata file is current is decided by the path itself (`metadata/vN.metadata.json` is created if absent) or
//! by a catalog that holds a pointer ([`catalog`]).

mod adopt;
mod audit;
mod audit_manifests;
mod avro;
pub mod catalog;
mod changes;
mod cleanup;
mod commits;
mod committed;
mod convert;
mod create;
mod deletes;
mod entries;
mod evolve;
mod files;
mod flow;
mod history;
mod load;
mod manifests;
mod masks;
mod metadata;
mod names;
mod needed;
mod paths;
mod position_deletes;
mod properties;
mod publish;
mod puffin;
mod refs;
mod regroup;
mod rewrite;
mod sieve;
mod staged;
mod streams;
mod summary;
mod tokens;
mod types;
mod upkeep;
mod values;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::error::Result;
use crate::format::{Format, Outcome};
use crate::model::{
    At, Audit, Change, CleanedUp, Cleanup, CommitId, CommitInfo, DataFile, Definition, Keep, Kept, Needed,
    ObjectKind, Prune, Redefinition, Regrouping, Retained, Retention, RowMask, Snapshot, Token, Upkeep,
    Version,
};
use crate::store::{Store, clock};
use catalog::{Catalog, Pointer};
use view::View;

/// An Iceberg table at one place.
#[derive(Debug, Clone)]
pub struct Iceberg {
    store: Store,
    catalog: Catalog,
}

impl Iceberg {
    /// The table at this store's root, whether it exists yet or not; its versions are the metadata files there.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            catalog: Catalog::Path,
        }
    }

    /// The same; which version is current is what a catalog says.
    pub fn in_catalog(store: Store, pointer: Arc<dyn Pointer>) -> Self {
        Self {
            store,
            catalog: Catalog::Pointer(pointer),
        }
    }

    /// The store it lives in.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl Format for Iceberg {
    fn name(&self) -> &'static str {
        "iceberg"
    }

    fn create<'a>(
        &'a self,
        definition: &'a Definition,
        commit_id: &'a CommitId,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move { create::create(&self.store, &self.catalog, definition, commit_id).await })
    }

    fn draft<'a>(&'a self, definition: &'a Definition) -> BoxFuture<'a, Result<Arc<Snapshot>>> {
        Box::pin(async move { adopt::draft(&self.store, definition, &clock::new_commit_id()) })
    }

    fn create_with<'a>(
        &'a self,
        definition: &'a Definition,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move { adopt::create_with(&self.store, &self.catalog, definition, change).await })
    }

    fn snapshot<'a>(&'a self, at: &'a At) -> BoxFuture<'a, Result<Arc<Snapshot>>> {
        Box::pin(async move { view::open(&Arc::new(self.catalog.newest(&self.store).await?), at) })
    }

    fn check_writable(&self, snapshot: &Snapshot) -> Result<()> {
        View::of(snapshot)?.state.check_writable()
    }

    fn evolve(
        &self,
        snapshot: &Snapshot,
        schema: &Schema,
        redefinition: &Redefinition,
    ) -> Result<Arc<Snapshot>> {
        evolve::evolve(snapshot, schema, redefinition)
    }

    fn as_committed<'a>(
        &'a self,
        snapshot: &'a Arc<Snapshot>,
    ) -> BoxFuture<'a, Result<Option<Arc<Snapshot>>>> {
        Box::pin(async move { committed::as_committed(&self.store, snapshot).await })
    }

    fn files(&self, snapshot: &Arc<Snapshot>, prune: Arc<Prune>) -> BoxStream<'static, Result<DataFile>> {
        files::files(self.store.clone(), Arc::clone(snapshot), prune)
    }

    fn masks<'a>(
        &'a self,
        _snapshot: &'a Snapshot,
        files: &'a [DataFile],
    ) -> BoxFuture<'a, Result<Vec<RowMask>>> {
        Box::pin(async move { masks::read(&self.store, files).await })
    }

    fn stage_masks<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        masks: Vec<(DataFile, RowMask)>,
        operation: &'a CommitId,
    ) -> BoxFuture<'a, Result<(Vec<DataFile>, Vec<String>)>> {
        Box::pin(async move { masks::stage(&self.store, &*View::of(snapshot)?, masks, operation).await })
    }

    fn changes<'a>(&'a self, base: &'a Snapshot, upto: &'a Snapshot) -> BoxFuture<'a, Result<Vec<Change>>> {
        Box::pin(async move { changes::changes(&self.store, base, upto).await })
    }

    fn publish<'a>(&'a self, base: &'a Arc<Snapshot>, change: &'a Change) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move { publish::publish(&self.store, &self.catalog, base, change).await })
    }

    fn find<'a>(
        &'a self,
        commit_id: &'a CommitId,
        base: &'a Snapshot,
    ) -> BoxFuture<'a, Result<Option<Arc<Snapshot>>>> {
        Box::pin(async move { history::find(&self.store, &self.catalog, commit_id, base).await })
    }

    fn find_token<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        token: &'a Token,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(async move { tokens::find(&*View::of(snapshot)?, token) })
    }

    fn last_step<'a>(&'a self, snapshot: &'a Snapshot, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move { tokens::last_step(&*View::of(snapshot)?, key) })
    }

    fn history<'a>(&'a self, at: &'a At, limit: Option<usize>) -> BoxFuture<'a, Result<Vec<CommitInfo>>> {
        Box::pin(async move { history::history(&self.store, &self.catalog, at, limit).await })
    }

    fn is_ancestor(&self, snapshot: &Snapshot, ancestor: Version, version: Version) -> Result<bool> {
        let view = View::of(snapshot)?;
        Ok(refs::descent(view.metadata(), ancestor, version) == refs::Descent::Yes)
    }

    fn versions<'a>(&'a self, snapshot: &'a Snapshot) -> BoxFuture<'a, Result<Vec<Retained>>> {
        Box::pin(async move { Ok(history::versions(&*View::of(snapshot)?)) })
    }

    fn retention(&self, snapshot: &Snapshot, asked: Retention) -> Result<Retention> {
        properties::retention(&snapshot.properties, asked)
    }

    fn clean_up<'a>(
        &'a self,
        _snapshot: &'a Arc<Snapshot>,
        what: &'a Cleanup,
    ) -> BoxFuture<'a, Result<CleanedUp>> {
        Box::pin(async move { cleanup::clean_up(&self.store, &self.catalog, what).await })
    }

    fn regrouping<'a>(&'a self, snapshot: &'a Arc<Snapshot>) -> BoxFuture<'a, Result<Regrouping>> {
        Box::pin(async move { regroup::regrouping(&self.store, &*View::of(snapshot)?).await })
    }

    fn audit<'a>(&'a self, at: &'a At) -> BoxFuture<'a, Result<Audit>> {
        Box::pin(async move { audit::audit(&self.store, &self.catalog, at).await })
    }

    fn repoint(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { audit::repoint(&self.store, &self.catalog).await })
    }

    fn upkeep<'a>(&'a self, snapshot: &'a Snapshot) -> BoxFuture<'a, Result<Upkeep>> {
        Box::pin(async move { upkeep::upkeep(&self.store, snapshot).await })
    }

    fn reachable<'a>(&'a self, keep: Option<&'a [Version]>) -> BoxFuture<'a, Result<BTreeSet<String>>> {
        Box::pin(async move { history::reachable(&self.store, &self.catalog, keep).await })
    }

    fn needed<'a>(
        &'a self,
        keep: &'a Keep,
        tell: &'a mut (dyn FnMut(Needed<'_>) + Send),
    ) -> BoxFuture<'a, Result<Kept>> {
        Box::pin(needed::needed(&self.store, &self.catalog, keep, tell))
    }

    fn kind(&self, snapshot: &Snapshot, key: &str) -> ObjectKind {
        needed::kind(snapshot, key)
    }
}
