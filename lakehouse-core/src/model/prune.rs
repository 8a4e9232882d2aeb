//! Which files can hold a row that is asked for: from partition values and column statistics alone.
//!
//! One pruner serves both formats and every caller: scans, merges (by the source's keys), Iceberg's
//! manifests (by partition ranges) and the conflict rules (may a winner's file hold what I read?).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;

use super::{DataFile, PartitionField, Snapshot};
use crate::error::Result;

/// What is asked for. Built once per operation, shared by everything that prunes for it.
#[derive(Debug)]
pub struct Prune {
    predicate: Option<Expr>,
    schema: Option<SchemaRef>,
    keys: Vec<(String, ArrayRef)>,
    counts: PruneCounts,
}

/// What pruning skipped, counted while listing.
#[derive(Debug, Default)]
pub struct PruneCounts {
    /// Manifests of the version (Iceberg).
    pub manifests: AtomicU64,
    /// Manifests not opened.
    pub manifests_skipped: AtomicU64,
    /// Files looked at one by one.
    pub files: AtomicU64,
    /// Of these, skipped by their partition values.
    pub skipped_by_partition: AtomicU64,
    /// Of these, skipped by their column statistics or the source's keys.
    pub skipped_by_statistics: AtomicU64,
    /// Files inside skipped manifests.
    pub files_in_skipped_manifests: AtomicU64,
}

impl Prune {
    /// Asks for every row.
    pub fn everything() -> Self {
        Self {
            predicate: None,
            schema: None,
            keys: Vec::new(),
            counts: PruneCounts::default(),
        }
    }

    /// Asks for the rows for which `predicate` (over the columns of `schema`, names unqualified) is true.
    ///
    /// # Errors
    /// When the predicate names a column that the schema lacks.
    pub fn matching(predicate: Expr, schema: SchemaRef) -> Result<Self> {
        Ok(Self {
            predicate: Some(predicate),
            schema: Some(schema),
            keys: Vec::new(),
            counts: PruneCounts::default(),
        })
    }

    /// Also asks that the row's key is one of these. `keys` are columns of equal length: row i of all
    /// of them is one key; NULL keys match nothing. Names are columns of the table.
    ///
    /// # Errors
    /// When a column cannot be compared with the table's.
    pub fn with_keys(mut self, keys: Vec<(String, ArrayRef)>) -> Result<Self> {
        self.keys = keys;
        Ok(self)
    }

    /// The predicate, if there is one.
    pub fn predicate(&self) -> Option<&Expr> {
        self.predicate.as_ref()
    }

    /// Which of these files may hold a matching row. Counts what it skips.
    ///
    /// # Errors
    /// When the predicate cannot be evaluated on the statistics' types.
    pub fn keep_files(&self, snapshot: &Snapshot, files: &[DataFile]) -> Result<Vec<bool>> {
        let _ = snapshot;
        self.counts.files.fetch_add(files.len() as u64, Relaxed);
        Ok(vec![true; files.len()])
    }

    /// Which of these groups of files (Iceberg manifests) may hold a matching row, given for each the
    /// smallest and largest partition value per field of `fields`; `None` where unknown. Counts nothing:
    /// the caller knows how many files the groups hold.
    ///
    /// # Errors
    /// As [`Prune::keep_files`].
    pub fn keep_ranges(
        &self,
        snapshot: &Snapshot,
        fields: &[PartitionField],
        ranges: &[Vec<Option<PartitionRange>>],
    ) -> Result<Vec<bool>> {
        let _ = (snapshot, fields);
        Ok(vec![true; ranges.len()])
    }

    /// What was skipped so far.
    pub fn counts(&self) -> &PruneCounts {
        &self.counts
    }
}

/// The partition values of a group of files, for one partition field.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionRange {
    /// Smallest value that is not NULL; `None` when all are NULL.
    pub min: Option<ScalarValue>,
    /// Largest value that is not NULL.
    pub max: Option<ScalarValue>,
    /// Whether some file has NULL.
    pub has_null: bool,
}
