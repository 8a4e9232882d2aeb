//! One version of a table as a DataFusion table.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::format::Handle;
use crate::model::{DataFile, Prune, Snapshot};

/// Which metadata columns follow the table's own, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataColumns {
    /// `_file` (Utf8): the data file's `path`.
    pub file: bool,
    /// `_pos` (Int64): the row's position in the file, masked rows counted.
    pub position: bool,
    /// `_row_id` and `_last_updated_sequence_number` (Int64): NULL where the table has no row ids.
    pub lineage: bool,
}

/// One version of a table as a DataFusion [`TableProvider`](datafusion::catalog::TableProvider):
/// pruned by partition and statistics, masked rows never decoded, columns found by field id or
/// physical name, exact row counts from metadata.
#[derive(Debug)]
pub struct SnapshotTable {
    handle: Handle,
    snapshot: Arc<Snapshot>,
    metadata: MetadataColumns,
    keys: Option<Arc<Prune>>,
    files: Option<Arc<Vec<DataFile>>>,
    report: Arc<ScanReport>,
}

/// What a scan did, filled while it is planned and run.
#[derive(Debug, Default)]
pub struct ScanReport {
    /// Data files that were planned to be read.
    pub files_scanned: AtomicU64,
    /// Bytes of these files.
    pub bytes_planned: AtomicU64,
    /// Data files skipped, by whatever means.
    pub files_skipped: AtomicU64,
}

impl SnapshotTable {
    /// Every row and column of `snapshot`.
    pub fn new(handle: Handle, snapshot: Arc<Snapshot>) -> Self {
        Self {
            handle,
            snapshot,
            metadata: MetadataColumns::default(),
            keys: None,
            files: None,
            report: Arc::default(),
        }
    }

    /// Appends metadata columns to the schema.
    #[must_use]
    pub fn with_metadata_columns(mut self, columns: MetadataColumns) -> Self {
        self.metadata = columns;
        self
    }

    /// Lists files through this prune (a merge's keys, an operation's predicate) in addition to the
    /// filters that the engine pushes down.
    #[must_use]
    pub fn with_prune(mut self, prune: Arc<Prune>) -> Self {
        self.keys = Some(prune);
        self
    }

    /// Reads exactly these files of the version instead of listing them.
    #[must_use]
    pub fn with_files(mut self, files: Vec<DataFile>) -> Self {
        self.files = Some(Arc::new(files));
        self
    }

    /// What the scans of this table did so far.
    pub fn report(&self) -> Arc<ScanReport> {
        Arc::clone(&self.report)
    }
}
