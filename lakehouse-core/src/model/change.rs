//! What one commit does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::{Begun, DataFile, Prune, Redefinition, RefChange, Token, Version};

/// The id that a commit carries, so that its author can find it again after a lost reply.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommitId(pub String);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of operation, for history and conflict rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// The table was created.
    Create,
    /// Rows were added.
    Append,
    /// Rows (all, or those that match a predicate) were replaced.
    Overwrite,
    /// Rows were deleted.
    Delete,
    /// Rows were updated.
    Update,
    /// A merge.
    Merge,
    /// The table's columns, partitioning, properties or version were changed.
    Alter,
    /// Files were rewritten, rows unchanged.
    Compact,
    /// An older version was made current.
    Restore,
    /// Tags and branches were made, moved or dropped; no row changed.
    Refs,
    /// The lists of data files were written anew; no file changed.
    RewriteManifests,
    /// Versions, tags and branches that are old enough left the metadata; no row changed.
    Expire,
    /// Something that we do not write ourselves.
    Other,
}

impl OperationKind {
    /// The name in reports: `append`, `merge` ...
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Append => "append",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Merge => "merge",
            Self::Alter => "alter",
            Self::Compact => "compact",
            Self::Restore => "restore",
            Self::Refs => "refs",
            Self::RewriteManifests => "rewrite-manifests",
            Self::Expire => "expire",
            Self::Other => "other",
        }
    }
}

/// What one commit does to a table: mine before it is published, or a winner's read back.
#[derive(Debug, Clone)]
pub struct Change {
    /// What kind of operation it is.
    pub operation: OperationKind,
    /// The id of this commit.
    pub commit_id: CommitId,
    /// When its planning began, before anything was staged for it. [`crate::store::clock::is_overdue`] tells a format right
    /// before it publishes whether a vacuum may have taken what was staged. Not told of winners.
    pub begun: Option<Begun>,
    /// The user's idempotency key: a second commit with the same one does nothing.
    pub token: Option<Token>,
    /// What was read to make this change: a row that may match it and that a winner added is a
    /// conflict. `None` for a blind change, and unknown for a winner.
    pub read: Option<Arc<Prune>>,
    /// Files added, masks staged with them included.
    pub added: Vec<DataFile>,
    /// Files removed, as they stood in the base (their masks too).
    pub removed: Vec<DataFile>,
    /// Files whose mask is replaced: as it stood in the base, and with its new `masks`.
    pub masked: Vec<(DataFile, DataFile)>,
    /// The rows of the table change. False for compaction.
    pub data_change: bool,
    /// Which parts of the metadata change (always set on winners that change them).
    pub metadata: MetadataChange,
    /// The table's columns from this commit on, as [`crate::format::Format::evolve`] gave them; `None` if they
    /// stay. Set with [`Change::set_schema`]. Of a winner, what its columns were then, if they changed.
    pub schema: Option<SchemaRef>,
    /// What else of the table's definition changes. Set with [`Change::redefine`].
    pub redefinition: Redefinition,
    /// Make this version's content current again; then `added`, `removed` and `masked` are empty.
    pub restore: Option<Version>,
    /// Tags and branches made, moved or dropped, by name; then it changes nothing else. Not told of winners: what
    /// [`crate::model::Snapshot::refs`] were and are tells it.
    pub refs: BTreeMap<String, RefChange>,
    /// Versions that leave the metadata, and their tags and branches in `refs`; then it changes nothing else. No
    /// version is made. Not told of winners.
    pub expired: BTreeSet<Version>,
    /// The lists of data files are written anew; then it changes nothing else.
    pub manifests: bool,
    /// Files of changed rows, where the table asks for them ([`super::Capabilities::change_files`]) and the files above
    /// do not tell. Not told of winners.
    pub change_files: Vec<DataFile>,
    /// Figures for the format's own summary: rows inserted, files scanned ... in words of `[a-z_]`.
    pub metrics: BTreeMap<String, u64>,
    /// Everything written for this change, object keys below the table root: what is deleted after a
    /// *certain* failure.
    pub staged: Vec<String>,
}

impl Change {
    /// A change that does nothing yet.
    pub fn new(operation: OperationKind, commit_id: CommitId) -> Self {
        Self {
            operation,
            commit_id,
            begun: None,
            token: None,
            read: None,
            added: Vec::new(),
            removed: Vec::new(),
            masked: Vec::new(),
            data_change: !matches!(operation, OperationKind::Compact | OperationKind::Alter),
            metadata: MetadataChange::default(),
            schema: None,
            redefinition: Redefinition::default(),
            restore: None,
            refs: BTreeMap::new(),
            expired: BTreeSet::new(),
            manifests: false,
            change_files: Vec::new(),
            metrics: BTreeMap::new(),
            staged: Vec::new(),
        }
    }

    /// Changes the table's columns together with the rows.
    pub fn set_schema(&mut self, schema: SchemaRef) {
        self.metadata.schema = true;
        self.schema = Some(schema);
    }

    /// Changes more of the table's definition than its columns.
    pub fn redefine(&mut self, redefinition: Redefinition) {
        self.metadata.partitioning |= redefinition.partitioning.is_some();
        self.metadata.schema |= redefinition.format_version.is_some() || redefinition.identifier.is_some();
        self.metadata.properties |= !redefinition.properties.is_empty() || redefinition.sort_order.is_some();
        self.redefinition = redefinition;
    }

    /// Whether it touches no file.
    pub fn is_without_files(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.masked.is_empty()
    }

    /// Whether publishing it would change anything.
    pub fn is_empty(&self) -> bool {
        self.is_without_files()
            && self.restore.is_none()
            && self.refs.is_empty()
            && self.expired.is_empty()
            && !self.manifests
            && self.schema.is_none()
            && self.metadata == MetadataChange::default()
    }
}

/// Which parts of the metadata a commit changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataChange {
    /// Columns, or the protocol that governs how they are read and written.
    pub schema: bool,
    /// Partitioning.
    pub partitioning: bool,
    /// Properties only.
    pub properties: bool,
}

/// One line of a table's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The version that the commit made.
    pub version: Version,
    /// The version before it, if there is one.
    pub parent: Option<Version>,
    /// When, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// What it did, in the word of who wrote it (`append`, `MERGE` ...).
    pub operation: String,
    /// Figures and notes that the format keeps with the commit.
    pub summary: BTreeMap<String, String>,
}
