//! The face that users hold, and the only place that picks a format.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};

use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::format::{Format, Handle, Outcome};
use crate::iceberg::Iceberg;
use crate::model::{
    At, Checkpoint, CheckpointKind, CommitInfo, DataFile, Definition, Prune, Ref, RefKind, Snapshot,
};
use crate::operations::check::{Check, Checked, Repaired, check, repair};
use crate::operations::diff::{Diff, diff};
use crate::operations::health::{Health, health};
use crate::operations::maintain::ToldStep;
use crate::operations::{
    self, Adopted, Adoption, Alter, Compact, Expire, ExpireReport, Maintained, ManifestsReport, Merge,
    Options, Overlaps, Policy, RefReport, Report, Rows, SetRef, Vacuum, Vacuumed,
};
use crate::scan::{self, SnapshotTable};
use crate::sql::{Open, Session};
use crate::store::{StorageOptions, Store, clock, is_left_over};

/// Which format a new table is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// Apache Iceberg.
    Iceberg,
    /// Delta Lake.
    Delta,
}

impl fmt::Display for TableFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iceberg => "iceberg",
            Self::Delta => "delta",
        })
    }
}

impl FromStr for TableFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "iceberg" => Ok(Self::Iceberg),
            "delta" => Ok(Self::Delta),
            _ => Err(Error::invalid(format!("unknown table format {text:?}"), "")
                .with_hint("use iceberg or delta")),
        }
    }
}

/// A table at one location. Cheap to clone; every call sees the newest version.
#[derive(Debug, Clone)]
pub struct Table {
    handle: Handle,
    location: Arc<str>,
}

impl Table {
    /// Opens the table at a path or URL; its format is found out. Cloud storage is set up by the environment.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Invalid`] when there are two.
    pub async fn open(location: &str) -> Result<Self> {
        Self::open_in(Store::open(location)?).await
    }

    /// The same, with settings of cloud storage that come before those of the environment.
    ///
    /// # Errors
    /// As [`Table::open`]; [`Error::Invalid`] for options that are not known.
    pub async fn open_with(location: &str, options: &StorageOptions) -> Result<Self> {
        Self::open_in(Store::open_with(location, options)?).await
    }

    /// Opens the table at the root of a store.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn open_in(store: Store) -> Result<Self> {
        match Found::look(&store).await? {
            Found::Iceberg => Ok(Self::new(store, TableFormat::Iceberg)),
            Found::Delta => Ok(Self::new(store, TableFormat::Delta)),
            Found::Both => Err(
                Error::invalid("there are two tables, one in each format", store.location())
                    .with_hint("move either metadata/ (Iceberg) or _delta_log/ (Delta) elsewhere"),
            ),
            Found::Nothing => Err(Error::not_found("table", store.location())
                .with_hint("looked for metadata/*.metadata.json (Iceberg) and _delta_log/*.json (Delta)")),
        }
    }

    /// Makes a new, empty table at a path or URL.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when a table is there; [`Error::Invalid`] when other files are.
    pub async fn create(location: &str, format: TableFormat, definition: &Definition) -> Result<Self> {
        Self::create_in(Store::open(location)?, format, definition).await
    }

    /// The same, with settings of cloud storage that come before those of the environment.
    ///
    /// # Errors
    /// As [`Table::create`]; [`Error::Invalid`] for options that are not known.
    pub async fn create_with(
        location: &str,
        options: &StorageOptions,
        format: TableFormat,
        definition: &Definition,
    ) -> Result<Self> {
        Self::create_in(Store::open_with(location, options)?, format, definition).await
    }

    /// Makes a new, empty table at the root of a store.
    ///
    /// # Errors
    /// As [`Table::create`].
    pub async fn create_in(store: Store, format: TableFormat, definition: &Definition) -> Result<Self> {
        let exists = |store: &Store| Error::AlreadyExists {
            what: format!("a table at {}", store.location()),
        };
        if Found::look(&store).await? != Found::Nothing {
            return Err(exists(&store));
        }
        if let Some(other) = store
            .list("")
            .await?
            .into_iter()
            .find(|o| !o.path.starts_with('.') && !is_left_over(&o.path))
        {
            // Perhaps of a table that somebody else is making.
            if Found::look(&store).await? != Found::Nothing {
                return Err(exists(&store));
            }
            return Err(Error::invalid(
                format!("the folder is no table and not empty: it holds {}", other.path),
                store.location(),
            )
            .with_hint("choose an empty or new folder"));
        }
        let table = Self::new(store, format);
        let commit_id = clock::new_commit_id();
        match table.handle.format.create(definition, &commit_id).await? {
            Outcome::Committed(_) => Ok(table),
            Outcome::Lost => Err(exists(&table.handle.store)),
            Outcome::Unknown(source) => Err(Error::CommitUnknown {
                table: table.location.to_string(),
                commit_id: commit_id.0,
                source: Box::new(source),
            }),
        }
    }

    /// Makes a table of Parquet files that are below its place already: [`operations::adopt`]. The table is not there
    /// after a dry run.
    ///
    /// # Errors
    /// As there; [`Error::AlreadyExists`] when a table is there.
    pub async fn adopt_in(
        store: Store,
        format: TableFormat,
        adoption: &Adoption,
        dry_run: bool,
    ) -> Result<(Self, Adopted)> {
        if Found::look(&store).await? != Found::Nothing {
            return Err(Error::AlreadyExists {
                what: format!("a table at {}", store.location()),
            });
        }
        let table = Self::new(store, format);
        let adopted = operations::adopt(&table.handle, adoption, dry_run).await?;
        Ok((table, adopted))
    }

    fn new(store: Store, format: TableFormat) -> Self {
        let format: Arc<dyn Format> = match format {
            TableFormat::Iceberg => Arc::new(Iceberg::new(store.clone())),
            TableFormat::Delta => Arc::new(Delta::new(store.clone())),
        };
        Self::over(Handle { store, format })
    }

    /// The table behind a door, for instance one in a catalog
    /// ([`Iceberg::in_catalog`](crate::iceberg::Iceberg::in_catalog)). Nothing is asked of it yet.
    pub fn over(handle: Handle) -> Self {
        let location = Arc::from(handle.store.location());
        Self { handle, location }
    }

    /// Where it is: a path for local tables, else a URL.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// `"iceberg"` or `"delta"`.
    pub fn format(&self) -> &'static str {
        self.handle.format.name()
    }

    /// The door and the store behind it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Loads one version.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such version.
    pub async fn snapshot(&self, at: &At) -> Result<Arc<Snapshot>> {
        self.handle.format.snapshot(at).await
    }

    /// One version as a table for DataFusion.
    ///
    /// # Errors
    /// As [`Table::snapshot`].
    pub async fn provider(&self, at: &At) -> Result<Arc<SnapshotTable>> {
        let snapshot = self.snapshot(at).await?;
        Ok(Arc::new(SnapshotTable::new(self.handle.clone(), snapshot)))
    }

    /// Adds rows: [`operations::append`].
    ///
    /// # Errors
    /// As there.
    pub async fn append(&self, rows: Rows, options: &Options) -> Result<Report> {
        operations::append(&self.handle, rows, options).await
    }

    /// Replaces all rows, or those that match: [`operations::overwrite`].
    ///
    /// # Errors
    /// As there.
    pub async fn overwrite(&self, rows: Rows, predicate: Option<&str>, options: &Options) -> Result<Report> {
        operations::overwrite(&self.handle, rows, predicate, options).await
    }

    /// Deletes the rows that match: [`operations::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, predicate: &str, options: &Options) -> Result<Report> {
        operations::delete(&self.handle, predicate, options).await
    }

    /// Sets columns (`"c = expr, .."`) in the rows that match: [`operations::update`].
    ///
    /// # Errors
    /// As there.
    pub async fn update(
        &self,
        assignments: &str,
        predicate: Option<&str>,
        options: &Options,
    ) -> Result<Report> {
        operations::update(&self.handle, assignments, predicate, options).await
    }

    /// Merges source rows: [`operations::merge`].
    ///
    /// # Errors
    /// As there.
    pub async fn merge(&self, source: Rows, merge: &Merge, options: &Options) -> Result<Report> {
        operations::merge(&self.handle, source, merge, options).await
    }

    /// Rewrites small and masked files: [`operations::compact`].
    ///
    /// # Errors
    /// As there.
    pub async fn compact(&self, compact: &Compact, options: &Options) -> Result<Report> {
        operations::compact(&self.handle, compact, options).await
    }

    /// Removes objects that no retained version needs: [`operations::vacuum()`].
    ///
    /// # Errors
    /// As there.
    pub async fn vacuum(&self, vacuum: &Vacuum) -> Result<Vacuumed> {
        operations::vacuum(&self.handle, vacuum).await
    }

    /// How far these files of a version overlap: [`operations::overlaps`].
    ///
    /// # Errors
    /// As there.
    pub async fn overlaps(
        &self,
        snapshot: &Snapshot,
        files: &[DataFile],
        columns: Option<&[String]>,
    ) -> Result<Option<Overlaps>> {
        operations::overlaps(&self.handle, snapshot, files, columns).await
    }

    /// Makes an older version current again: [`operations::restore`].
    ///
    /// # Errors
    /// As there.
    pub async fn restore(&self, at: &At, options: &Options) -> Result<Report> {
        operations::restore(&self.handle, at, options).await
    }

    /// Lets old versions go: [`operations::expire`]. Data files stay.
    ///
    /// # Errors
    /// As there.
    pub async fn expire(&self, expire: &Expire, options: &Options) -> Result<ExpireReport> {
        operations::expire(&self.handle, expire, options).await
    }

    /// Writes a checkpoint of the newest version, from which readers can begin, and compares it with the log.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format has none, or not of this kind.
    pub async fn checkpoint(&self, kind: CheckpointKind) -> Result<Checkpoint> {
        let newest = self.snapshot(&At::Latest).await?;
        self.handle.format.checkpoint(&newest, kind).await
    }

    /// Writes manifests anew, by partition and in the table's target size: [`operations::rewrite_manifests`].
    ///
    /// # Errors
    /// As there.
    pub async fn rewrite_manifests(&self, options: &Options) -> Result<ManifestsReport> {
        operations::rewrite_manifests(&self.handle, options).await
    }

    /// All that it needs from time to time, step by step, each of which is told: [`operations::maintain()`].
    ///
    /// # Errors
    /// As there.
    pub async fn maintain(
        &self,
        policy: &Policy,
        options: &Options,
        told: &mut ToldStep<'_>,
    ) -> Result<Maintained> {
        operations::maintain(&self.handle, policy, options, told).await
    }

    /// Changes columns, partitioning, properties: [`operations::alter`].
    ///
    /// # Errors
    /// As there.
    pub async fn alter(&self, alter: &Alter, options: &Options) -> Result<Report> {
        operations::alter(&self.handle, alter, options).await
    }

    /// What is different between two versions: [`operations::diff`]. No data file is read yet.
    ///
    /// # Errors
    /// As there.
    pub async fn diff(&self, from: &At, to: &At) -> Result<Diff> {
        diff(&self.handle, from, to).await
    }

    /// What is wrong with it: [`operations::check`]. Nothing is written.
    ///
    /// # Errors
    /// As there.
    pub async fn check(&self, wanted: &Check) -> Result<Checked> {
        check(&self.handle, wanted).await
    }

    /// The same, and writes hints and pointers anew that are missing or lie, unless it is a dry run: [`operations::check`].
    ///
    /// # Errors
    /// As there.
    pub async fn repair(&self, wanted: &Check, dry_run: bool) -> Result<Repaired> {
        repair(&self.handle, wanted, dry_run).await
    }

    /// The figures that say whether it needs care: [`operations::health`].
    ///
    /// # Errors
    /// As there.
    pub async fn health(&self) -> Result<Health> {
        health(&self.handle).await
    }

    /// The tags and branches: [`operations::refs`].
    ///
    /// # Errors
    /// As there.
    pub async fn refs(&self) -> Result<BTreeMap<String, Ref>> {
        operations::refs(&self.handle).await
    }

    /// Makes a tag or branch, or replaces it: [`operations::set_ref`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_ref(&self, wanted: &SetRef, options: &Options) -> Result<RefReport> {
        operations::set_ref(&self.handle, wanted, options).await
    }

    /// Drops a tag or branch: [`operations::drop_ref`].
    ///
    /// # Errors
    /// As there.
    pub async fn drop_ref(&self, kind: RefKind, name: &str, options: &Options) -> Result<RefReport> {
        operations::drop_ref(&self.handle, kind, name, options).await
    }

    /// Moves a branch forward to another: [`operations::fast_forward`].
    ///
    /// # Errors
    /// As there.
    pub async fn fast_forward(&self, branch: &str, to: &str, options: &Options) -> Result<RefReport> {
        operations::fast_forward(&self.handle, branch, to, options).await
    }

    /// A session for SQL in which quoted paths and URLs are tables, cloud storage being set up by `storage` and
    /// the environment. For `memory_limit` see [`scan::session`].
    pub fn session(memory_limit: Option<usize>, storage: &StorageOptions) -> Session {
        Session::new(Arc::new(Places::new(storage.clone())), memory_limit)
    }

    /// The last step of a stream of changes ([`Token::step`](crate::model::Token::step)) that a branch (main if
    /// `None`) has; `None` before the first.
    ///
    /// # Errors
    /// When the metadata cannot be read, or there is no such branch.
    pub async fn last_step(&self, key: &str, branch: Option<&str>) -> Result<Option<u64>> {
        let newest = crate::commit::newest(&self.handle, branch).await?;
        self.handle.format.last_step(&newest, key).await
    }

    /// Commits of main, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn history(&self, limit: Option<usize>) -> Result<Vec<CommitInfo>> {
        self.history_at(&At::Latest, limit).await
    }

    /// The commits that led to a version, newest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Table::snapshot`].
    pub async fn history_at(&self, at: &At, limit: Option<usize>) -> Result<Vec<CommitInfo>> {
        self.handle.format.history(at, limit).await
    }

    /// The data files of one version that may hold a row for which `condition` (over the table's columns) is true, as
    /// far as partition values and statistics tell. They have the statistics of the condition's columns only.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a condition that cannot be understood; whatever the format meets while listing.
    pub async fn files_where(&self, snapshot: &Arc<Snapshot>, condition: &str) -> Result<Vec<DataFile>> {
        let columns = scan::columns_of(&snapshot.schema, None)?;
        let predicate = scan::parse_predicate(condition, &columns)?;
        let prune = Prune::matching(predicate, Arc::clone(&snapshot.schema))?.telling_of([]);
        scan::plan_files(&self.handle, snapshot, Arc::new(prune)).await
    }

    /// The data files of one version.
    ///
    /// # Errors
    /// As [`Table::snapshot`].
    pub async fn files(&self, at: &At) -> Result<Vec<DataFile>> {
        let snapshot = self.snapshot(at).await?;
        let everything = Arc::new(Prune::everything());
        self.handle
            .format
            .files(&snapshot, everything)
            .try_collect()
            .await
    }
}

/// Opens tables at paths and URLs for a [`Session`].
#[derive(Debug, Clone)]
pub struct Places {
    storage: StorageOptions,
    missing: fn(&str) -> Option<String>,
}

impl Places {
    /// Cloud storage is set up by `storage` and the environment.
    pub fn new(storage: StorageOptions) -> Self {
        Self {
            storage,
            missing: |_| None,
        }
    }

    /// The same; where `hint` knows what to do about a place without a table, that is an error with this hint.
    #[must_use]
    pub fn with_hint(self, hint: fn(&str) -> Option<String>) -> Self {
        Self {
            missing: hint,
            ..self
        }
    }
}

impl Open for Places {
    fn table<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Option<Handle>>> {
        async move {
            match Table::open_with(place, &self.storage).await {
                Ok(table) => Ok(Some(table.handle)),
                // Not so the bucket around it.
                Err(error) if matches!(&error, Error::NotFound { what, .. } if what == "table") => {
                    match (self.missing)(place) {
                        Some(hint) => Err(error.with_hint(hint)),
                        None => Ok(None),
                    }
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Iceberg,
    Delta,
    Both,
}

impl Found {
    /// What tables leave under names that are known is looked up first; folders are listed only where that does not
    /// settle it.
    async fn look(store: &Store) -> Result<Self> {
        let (hint, first, checkpoint) = futures::join!(
            store.head("metadata/version-hint.text"),
            store.head("_delta_log/00000000000000000000.json"),
            store.head("_delta_log/_last_checkpoint"),
        );
        let hint = hint?;
        let iceberg = match &hint {
            Some(_) => true,
            None => {
                let listed = store.list("metadata/").await?;
                let endings = [".metadata.json", ".metadata.json.gz"];
                listed
                    .iter()
                    .any(|object| endings.iter().any(|ending| object.path.ends_with(ending)))
            }
        };
        let delta = match first?.or(checkpoint?) {
            Some(_) => true,
            None if hint.is_some() => false,
            None => {
                let listed = store.list("_delta_log/").await?;
                listed.iter().any(|object| is_log_entry(&object.path))
            }
        };
        Ok(match (iceberg, delta) {
            (false, false) => Self::Nothing,
            (true, false) => Self::Iceberg,
            (false, true) => Self::Delta,
            (true, true) => Self::Both,
        })
    }
}

/// A commit or a checkpoint: twenty digits, then `.json` or `.checkpoint..`.
fn is_log_entry(path: &str) -> bool {
    let name = path.strip_prefix("_delta_log/").unwrap_or(path);
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    digits == 20 && (name[digits..] == *".json" || name[digits..].starts_with(".checkpoint"))
}

impl Rows {
    /// The rows of one version of another table.
    ///
    /// # Errors
    /// As [`Table::snapshot`].
    pub async fn table(table: &Table, at: &At) -> Result<Self> {
        let provider = table.provider(at).await?;
        Ok(Self::frame(scan::session(None).read_table(provider)?))
    }
}
