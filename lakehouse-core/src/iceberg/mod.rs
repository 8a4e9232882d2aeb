//! Apache Iceberg v2 and v3 behind the door: metadata, manifests, delete files, Puffin, publish.
//!
//! ```text
//! load     vN.metadata.json, found through the hint           metadata  its bytes       view  one version of it
//! create   version 1                                          types, values, paths     the vocabulary
//! files    manifests -> data files, pruned                    manifests, convert       entries and files
//! deletes  which masks concern a file                         masks     position_deletes, puffin: their bytes
//! publish  one attempt                                        staged, rewrite, summary its parts
//! evolve   columns added and widened
//! changes  the difference of two versions                     history   looking back
//! ```
//!
//! The catalog is the path itself: `metadata/vN.metadata.json` is created if absent.

mod changes;
mod convert;
mod create;
mod deletes;
mod evolve;
mod files;
mod history;
mod load;
mod manifests;
mod masks;
mod metadata;
mod paths;
mod position_deletes;
mod publish;
mod puffin;
mod rewrite;
mod staged;
mod summary;
mod tokens;
mod types;
mod values;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::Result;
use crate::format::{Format, Outcome};
use crate::model::{
    At, Change, CommitId, CommitInfo, DataFile, Definition, Prune, RowMask, Snapshot, Version,
};
use crate::store::Store;
use view::View;

/// An Iceberg table in the path catalog: `metadata/vN.metadata.json` is created if absent.
#[derive(Debug, Clone)]
pub struct Iceberg {
    store: Store,
}

impl Iceberg {
    /// The table at this store's root, whether it exists yet or not.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store it lives in.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

#[async_trait]
impl Format for Iceberg {
    fn name(&self) -> &'static str {
        "iceberg"
    }

    async fn create(&self, definition: &Definition, commit_id: &CommitId) -> Result<Outcome> {
        create::create(&self.store, definition, commit_id).await
    }

    async fn snapshot(&self, at: &At) -> Result<Arc<Snapshot>> {
        view::open(&Arc::new(load::newest(&self.store).await?), at)
    }

    fn check_writable(&self, snapshot: &Snapshot) -> Result<()> {
        View::of(snapshot)?.state.check_writable()
    }

    fn evolve(&self, snapshot: &Snapshot, schema: &Schema) -> Result<Arc<Snapshot>> {
        evolve::evolve(snapshot, schema)
    }

    fn files(&self, snapshot: &Arc<Snapshot>, prune: Arc<Prune>) -> BoxStream<'static, Result<DataFile>> {
        files::files(self.store.clone(), Arc::clone(snapshot), prune)
    }

    async fn masks(&self, _snapshot: &Snapshot, files: &[DataFile]) -> Result<Vec<RowMask>> {
        masks::read(&self.store, files).await
    }

    async fn stage_masks(
        &self,
        snapshot: &Snapshot,
        masks: Vec<(DataFile, RowMask)>,
        operation: &CommitId,
    ) -> Result<(Vec<DataFile>, Vec<String>)> {
        masks::stage(&self.store, &*View::of(snapshot)?, masks, operation).await
    }

    async fn changes(&self, base: &Snapshot, upto: &Snapshot) -> Result<Vec<Change>> {
        changes::changes(&self.store, base, upto).await
    }

    async fn publish(&self, base: &Arc<Snapshot>, change: &Change) -> Result<Outcome> {
        publish::publish(&self.store, base, change).await
    }

    async fn find(&self, commit_id: &CommitId, base: &Snapshot) -> Result<Option<Arc<Snapshot>>> {
        history::find(&self.store, commit_id, base).await
    }

    async fn find_token(&self, snapshot: &Snapshot, token: &str) -> Result<Option<Version>> {
        tokens::find(View::of(snapshot)?.metadata(), token)
    }

    async fn history(&self, limit: Option<usize>) -> Result<Vec<CommitInfo>> {
        history::history(&self.store, limit).await
    }

    async fn reachable(&self, keep: Option<&[Version]>) -> Result<BTreeSet<String>> {
        history::reachable(&self.store, keep).await
    }
}
