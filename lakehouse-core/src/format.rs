//! The door: what a table format must do. Everything above speaks to this trait only.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::Schema;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::error::{Error, Result};
use crate::model::{
    At, Audit, Change, Checkpoint, CheckpointKind, CleanedUp, Cleanup, CommitId, CommitInfo, DataFile,
    Definition, Keep, Kept, Needed, ObjectKind, Prune, Redefinition, Regrouping, Retained, Retention,
    RowMask, Snapshot, Token, Upkeep, Version,
};
use crate::store::Store;

/// The result of one attempt to publish.
#[derive(Debug)]
pub enum Outcome {
    /// The change is visible as this snapshot.
    Committed(Arc<Snapshot>),
    /// Somebody else took the place, or the change was too old when its turn came ([`Change::begun`]); nothing of ours is
    /// visible.
    Lost,
    /// The store did not say, and asking again did not settle it.
    Unknown(Error),
}

/// A table in one format at one location.
///
/// A format turns metadata into [`Snapshot`]s and [`DataFile`]s, and a [`Change`] into one commit
/// attempt. It never decides what to do, never retries on policy, and never reads data files.
///
/// Futures are boxed by hand, here and in the traits of the operations: the bounds that `async_trait` adds
/// make the compiler prove again in every method that DataFusion's plans are `Send`, which took two thirds
/// of the build of this crate.
pub trait Format: Send + Sync + Debug {
    /// `"iceberg"` or `"delta"`: for reports only, never to decide anything.
    fn name(&self) -> &'static str;

    /// Makes the table. [`Outcome::Lost`] when one is already there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the definition asks for what the format cannot store.
    fn create<'a>(
        &'a self,
        definition: &'a Definition,
        commit_id: &'a CommitId,
    ) -> BoxFuture<'a, Result<Outcome>>;

    /// The table that [`Format::create_with`] would make, without a file: its columns have the types that the format
    /// stores, and their field ids. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the column that the format cannot store.
    fn draft<'a>(&'a self, _definition: &'a Definition) -> BoxFuture<'a, Result<Arc<Snapshot>>> {
        Box::pin(async { Err(no_adoption(self.name())) })
    }

    /// Makes the table with the files that `change` adds, in one commit: they are of the draft's only partitioning,
    /// and the columns that they lack are identity partition columns or nullable. Columns are found in them by the
    /// field ids that the definition's fields carry, else by their names. [`Outcome::Lost`] when a table is
    /// already there.
    ///
    /// # Errors
    /// As [`Format::draft`].
    fn create_with<'a>(
        &'a self,
        _definition: &'a Definition,
        _change: &'a Change,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async { Err(no_adoption(self.name())) })
    }

    /// Loads one version. [`Error::NotFound`] when there is no table, version or ref of that name.
    fn snapshot<'a>(&'a self, at: &'a At) -> BoxFuture<'a, Result<Arc<Snapshot>>>;

    /// The version as the table was defined when it was committed: partitioning, sort order, properties and what
    /// readers and writers need. The newest version of a branch is as it is today. `None` where the format keeps these
    /// for the table, and what they were then is not known any more.
    ///
    /// # Errors
    /// Those of the store.
    fn as_committed<'a>(
        &'a self,
        snapshot: &'a Arc<Snapshot>,
    ) -> BoxFuture<'a, Result<Option<Arc<Snapshot>>>> {
        Box::pin(async { Ok(Some(Arc::clone(snapshot))) })
    }

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

    /// The same version as if it had these columns and no others, in this order, and were defined so. A field is
    /// the one of the table that has its id, or that its [`ORIGIN`](crate::model::schema::ORIGIN) names, or, if it
    /// says neither, that has its name. Types become those that the format stores, new fields get their ids.
    /// Nothing is written: a [`Change`] that carries both ([`Change::set_schema`], [`Change::redefine`]) makes it
    /// the table's, with files written for it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming a column that the format cannot store or change so, or what else it does not
    /// have; [`Error::Invalid`] for a name that cannot be one.
    fn evolve(
        &self,
        _snapshot: &Snapshot,
        _schema: &Schema,
        _redefinition: &Redefinition,
    ) -> Result<Arc<Snapshot>> {
        Err(Error::unsupported(
            format!("columns of {} tables cannot be changed", self.name()),
            "leave the new columns out of the input",
        ))
    }

    /// The columns that a version's rows shall lie close together by, no one before another (Delta's clustering
    /// columns); `a.b` inside structs. None where the format has no such thing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the metadata that name them cannot be read.
    fn clustering<'a>(&'a self, _snapshot: &'a Snapshot) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// The data files of a version that may hold matching rows. What is skipped is counted in `prune`.
    fn files(&self, snapshot: &Arc<Snapshot>, prune: Arc<Prune>) -> BoxStream<'static, Result<DataFile>>;

    /// The masked positions of each of these files of one version, in the order given.
    fn masks<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        files: &'a [DataFile],
    ) -> BoxFuture<'a, Result<Vec<RowMask>>>;

    /// Writes masks, each the *complete* mask of its file, without making them visible. Returns the
    /// files with their new `masks`, in the order given, and the objects written.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the table has no masks ([`crate::model::Capabilities::masks`]).
    fn stage_masks<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        masks: Vec<(DataFile, RowMask)>,
        operation: &'a CommitId,
    ) -> BoxFuture<'a, Result<(Vec<DataFile>, Vec<String>)>>;

    /// What each commit after `base` up to and including `upto` did, oldest first.
    ///
    /// # Errors
    /// [`Error::Conflict`] when `base` is no longer part of the history of `upto` (rule R5).
    fn changes<'a>(&'a self, base: &'a Snapshot, upto: &'a Snapshot) -> BoxFuture<'a, Result<Vec<Change>>>;

    /// One attempt to make `change` visible as the successor of `base`, on the branch that `base` is the newest
    /// version of. A change of tags and branches makes no version.
    fn publish<'a>(&'a self, base: &'a Arc<Snapshot>, change: &'a Change) -> BoxFuture<'a, Result<Outcome>>;

    /// The version that a commit made, if it landed after `base`.
    fn find<'a>(
        &'a self,
        commit_id: &'a CommitId,
        base: &'a Snapshot,
    ) -> BoxFuture<'a, Result<Option<Arc<Snapshot>>>>;

    /// The version that a commit with this idempotency key made, if there was one and the branch has it whose newest
    /// version `snapshot` is. Of a step, a version that has it, where the format does not know which made it.
    fn find_token<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        token: &'a Token,
    ) -> BoxFuture<'a, Result<Option<Version>>>;

    /// The last step of this stream ([`Token::step`]) that the branch has whose newest version `snapshot` is.
    fn last_step<'a>(&'a self, snapshot: &'a Snapshot, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>>;

    /// The commits that led to a version, newest first, at most `limit`.
    fn history<'a>(&'a self, at: &'a At, limit: Option<usize>) -> BoxFuture<'a, Result<Vec<CommitInfo>>>;

    /// Whether `ancestor` is `version`, or one from which it descends, as far as the metadata tells that `snapshot`
    /// was loaded from. Expired versions between them make that unknown, which is `false`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the snapshot was made by another format.
    fn is_ancestor(&self, _snapshot: &Snapshot, ancestor: Version, version: Version) -> Result<bool> {
        // Without branches there is one line of versions.
        Ok(ancestor <= version)
    }

    /// Every version that can still be read, as far as the metadata tells that `snapshot`, the newest, was loaded
    /// from: in no particular order, those of no branch included.
    fn versions<'a>(&'a self, _snapshot: &'a Snapshot) -> BoxFuture<'a, Result<Vec<Retained>>> {
        Box::pin(async { Err(no_expiry(self.name())) })
    }

    /// How long versions, tags and branches are kept that say nothing themselves: as was `asked`, where nothing was
    /// asked as the table's properties have it, else as the format does. What is `None` is kept for ever.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a property that counts and cannot be read.
    fn retention(&self, _snapshot: &Snapshot, asked: Retention) -> Result<Retention> {
        Ok(asked)
    }

    /// The oldest version whose files are promised to be there at this time, in milliseconds since 1970 UTC by the
    /// store's clock, where files may go before the versions that have them. `None` where they never do.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a property that counts and cannot be read; those of the store.
    fn files_kept_since<'a>(
        &'a self,
        _snapshot: &'a Snapshot,
        _now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(async { Ok(None) })
    }

    /// Deletes the files of the metadata that none of the kept versions needs, so that each of them can be read at
    /// every moment, also when this ends in between. `snapshot` is the newest version. Data files, masks and
    /// lists of them are left alone.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the table forbids it; [`Error::Invalid`] when what is to stand for the deleted
    /// files does not say the same. Nothing is deleted then.
    fn clean_up<'a>(
        &'a self,
        _snapshot: &'a Arc<Snapshot>,
        _what: &'a Cleanup,
    ) -> BoxFuture<'a, Result<CleanedUp>> {
        Box::pin(async { Err(no_expiry(self.name())) })
    }

    /// Writes the state of a version into files of its own, from which readers can begin, and points readers to it.
    /// One that is there already is kept.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format has none, or not of this kind; [`Error::Invalid`] when it does not
    /// read back as it was written. Nothing is pointed to it then.
    fn checkpoint<'a>(
        &'a self,
        _snapshot: &'a Arc<Snapshot>,
        _kind: CheckpointKind,
    ) -> BoxFuture<'a, Result<Checkpoint>> {
        Box::pin(async {
            Err(Error::unsupported(
                format!("{} tables have no checkpoints", self.name()),
                "to shorten what readers have to read, rewrite the manifests: lake rewrite-manifests",
            ))
        })
    }

    /// What a change would do whose [`Change::manifests`] is set.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format has no such lists.
    fn regrouping<'a>(&'a self, _snapshot: &'a Arc<Snapshot>) -> BoxFuture<'a, Result<Regrouping>> {
        Box::pin(async {
            Err(Error::unsupported(
                format!("{} tables have no manifests", self.name()),
                "to shorten what readers have to read, write a checkpoint: lake checkpoint",
            ))
        })
    }

    /// What is wrong with the metadata of a version, and with what leads to it: hints, pointers, logs, manifests. What
    /// is the same in every format (files, masks, statistics) is not looked at here.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such version, [`Error::Unsupported`] when it cannot be read at all; those
    /// of the store. Damage is none: it is found.
    fn audit<'a>(&'a self, at: &'a At) -> BoxFuture<'a, Result<Audit>> {
        Box::pin(async move {
            Ok(Audit {
                snapshot: Some(self.snapshot(at).await?),
                ..Audit::default()
            })
        })
    }

    /// Writes anew what only leads readers to the newest version (hints, pointers), as the rest of the metadata says. It
    /// is advice: a writer who is at work meanwhile loses nothing.
    ///
    /// # Errors
    /// When the newest version cannot be loaded; those of the store.
    fn repoint(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// What the metadata of a version amounts to.
    ///
    /// # Errors
    /// When it cannot be read; those of the store.
    fn upkeep<'a>(&'a self, _snapshot: &'a Snapshot) -> BoxFuture<'a, Result<Upkeep>> {
        Box::pin(async { Ok(Upkeep::default()) })
    }

    /// Every object key below the table root that the given versions (all retained ones, if `None`)
    /// still need: metadata, data, masks. Nothing is decided by it: it is what tests hold [`Format::needed`] against, by which a
    /// vacuum goes, so that both are found in ways of their own.
    fn reachable<'a>(&'a self, keep: Option<&'a [Version]>) -> BoxFuture<'a, Result<BTreeSet<String>>>;

    /// Tells each object but those of [`ObjectKind::Version`] that the kept versions need, one at a time, some more than
    /// once. Iceberg keeps every version of the metadata; of others, [`Keep`] says which. The newest version is loaded
    /// first, and is what is newest then.
    ///
    /// # Errors
    /// [`Error::NotFound`] when metadata goes while it is read, and for versions to keep that are not there;
    /// [`Error::Unsupported`] when the table's owner forbids that files are removed.
    fn needed<'a>(
        &'a self,
        _keep: &'a Keep,
        _tell: &'a mut (dyn FnMut(Needed<'_>) + Send),
    ) -> BoxFuture<'a, Result<Kept>> {
        let name = self.name();
        Box::pin(async move {
            Err(Error::unsupported(
                format!("files of {name} tables are not removed"),
                "let the engine that owns the table remove them",
            ))
        })
    }

    /// What an object below the table root is, by its key.
    fn kind(&self, _snapshot: &Snapshot, _key: &str) -> ObjectKind {
        ObjectKind::Other
    }
}

fn no_expiry(format: &str) -> Error {
    Error::unsupported(
        format!("versions of {format} tables do not expire"),
        "expire them with the engine that owns the table",
    )
}

fn no_adoption(format: &str) -> Error {
    Error::unsupported(
        format!("{format} tables cannot be made of files that are there"),
        "make a new table and append the files to it",
    )
}

/// A format and the store it lives in: what operations work on.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Objects below the table root.
    pub store: Store,
    /// The door.
    pub format: Arc<dyn Format>,
}
