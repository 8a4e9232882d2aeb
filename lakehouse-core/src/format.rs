//! The door: what a table format must do. Everything above speaks to this trait only.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::Schema;
use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::{Error, Result};
use crate::model::{
    At, Change, CommitId, CommitInfo, DataFile, Definition, Prune, RowMask, Snapshot, Version,
};
use crate::store::Store;

/// The result of one attempt to publish.
#[derive(Debug)]
pub enum Outcome {
    /// The change is visible as this snapshot.
    Committed(Arc<Snapshot>),
    /// Somebody else took the place; nothing of ours is visible.
    Lost,
    /// The store did not say, and asking again did not settle it.
    Unknown(Error),
}

/// A table in one format at one location.
///
/// A format turns metadata into [`Snapshot`]s and [`DataFile`]s, and a [`Change`] into one commit
/// attempt. It never decides what to do, never retries on policy, and never reads data files.
#[async_trait]
pub trait Format: Send + Sync + Debug {
    /// `"iceberg"` or `"delta"`: for reports only, never to decide anything.
    fn name(&self) -> &'static str;

    /// Makes the table. [`Outcome::Lost`] when one is already there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the definition asks for what the format cannot store.
    async fn create(&self, definition: &Definition, commit_id: &CommitId) -> Result<Outcome>;

    /// Loads one version. [`Error::NotFound`] when there is no table, version or ref of that name.
    async fn snapshot(&self, at: &At) -> Result<Arc<Snapshot>>;

    /// Refuses a version that cannot be written, with the reason.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    fn check_writable(&self, snapshot: &Snapshot) -> Result<()> {
        if snapshot.capabilities.writable {
            return Ok(());
        }
        Err(Error::unsupported(
            "the table can only be read",
            "write to it with the engine that owns it, or copy its rows into a new table",
        ))
    }

    /// The same version as if it had these columns: those it has, perhaps wider, then new ones, by name. Types
    /// become those that the format stores, new fields get their ids. Nothing is written: a [`Change`] that
    /// carries the schema ([`Change::set_schema`]) makes it the table's, with files written for it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming a column that the format cannot store, or whose type cannot change;
    /// [`Error::Invalid`] for a name that cannot be one.
    fn evolve(&self, _snapshot: &Snapshot, _schema: &Schema) -> Result<Arc<Snapshot>> {
        Err(Error::unsupported(
            format!("columns of {} tables cannot be changed", self.name()),
            "leave the new columns out of the input",
        ))
    }

    /// The data files of a version that may hold matching rows. What is skipped is counted in `prune`.
    fn files(&self, snapshot: &Arc<Snapshot>, prune: Arc<Prune>) -> BoxStream<'static, Result<DataFile>>;

    /// The masked positions of each of these files of one version, in the order given.
    async fn masks(&self, snapshot: &Snapshot, files: &[DataFile]) -> Result<Vec<RowMask>>;

    /// Writes masks, each the *complete* mask of its file, without making them visible. Returns the
    /// files with their new `masks`, in the order given, and the objects written.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the table has no masks ([`crate::model::Capabilities::masks`]).
    async fn stage_masks(
        &self,
        snapshot: &Snapshot,
        masks: Vec<(DataFile, RowMask)>,
        operation: &CommitId,
    ) -> Result<(Vec<DataFile>, Vec<String>)>;

    /// What each commit after `base` up to and including `upto` did, oldest first.
    ///
    /// # Errors
    /// [`Error::Conflict`] when `base` is no longer part of the history of `upto` (rule R5).
    async fn changes(&self, base: &Snapshot, upto: &Snapshot) -> Result<Vec<Change>>;

    /// One attempt to make `change` visible as the successor of `base`.
    async fn publish(&self, base: &Arc<Snapshot>, change: &Change) -> Result<Outcome>;

    /// The version that a commit made, if it landed after `base`.
    async fn find(&self, commit_id: &CommitId, base: &Snapshot) -> Result<Option<Arc<Snapshot>>>;

    /// The version that a commit with this idempotency key made, if there was one.
    async fn find_token(&self, snapshot: &Snapshot, token: &str) -> Result<Option<Version>>;

    /// Commits, newest first, at most `limit`.
    async fn history(&self, limit: Option<usize>) -> Result<Vec<CommitInfo>>;

    /// Every object key below the table root that the given versions (all retained ones, if `None`)
    /// still need: metadata, data, masks.
    async fn reachable(&self, keep: Option<&[Version]>) -> Result<BTreeSet<String>>;
}

/// A format and the store it lives in: what operations work on.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Objects below the table root.
    pub store: Store,
    /// The door.
    pub format: Arc<dyn Format>,
}
