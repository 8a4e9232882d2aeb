//! Which files can hold a row that is asked for: from partition values and column statistics alone.
//!
//! One pruner serves both formats and every caller: scans, merges (by the source's keys), Iceberg's
//! manifests (by partition ranges) and the conflict rules (may a winner's file hold what I read?).

mod evidence;
mod keys;
mod outlines;
mod predicate;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;

use self::evidence::{Place, Witness};
use self::keys::Keys;
pub use self::outlines::{Bounds, Outlines, Partition};
use self::predicate::Analysed;
use super::{DataFile, PartitionField, Snapshot};
use crate::error::Result;

/// What is asked for. Built once per operation, shared by everything that prunes for it.
#[derive(Debug)]
pub struct Prune {
    predicate: Option<Expr>,
    analysed: Option<Analysed>,
    keys: Option<Keys>,
    told: Option<BTreeSet<String>>,
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
    /// Files of which everything that the metadata knows was read, not only what decides.
    pub read_in_full: AtomicU64,
}

impl Prune {
    /// Asks for every row.
    pub fn everything() -> Self {
        Self {
            predicate: None,
            analysed: None,
            keys: None,
            told: None,
            counts: PruneCounts::default(),
        }
    }

    /// Asks for the rows for which `predicate` (over the columns of `schema`) is true. Parts of it that
    /// say nothing about ranges of values (subqueries, functions of columns) skip nothing.
    ///
    /// # Errors
    /// When the predicate names a column that the schema lacks.
    pub fn matching(predicate: Expr, schema: SchemaRef) -> Result<Self> {
        Ok(Self {
            analysed: Analysed::new(&predicate, &schema)?,
            predicate: Some(predicate),
            keys: None,
            told: None,
            counts: PruneCounts::default(),
        })
    }

    /// Also asks that the row's key is one of these. `keys` are columns of equal length: row i of all
    /// of them is one key; NULL keys match nothing. Names are columns of the table. A key column whose
    /// type cannot be compared with the table's skips nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the columns differ in length.
    pub fn with_keys(mut self, keys: Vec<(String, ArrayRef)>) -> Result<Self> {
        self.keys = Keys::new(keys)?;
        Ok(self)
    }

    /// Files are listed with the statistics of these columns and of those that decide, and no others: a thousand files
    /// of two hundred columns are many megabytes of them. Not for files that are recorded anew, which keep all.
    #[must_use]
    pub fn telling_of(mut self, columns: impl IntoIterator<Item = String>) -> Self {
        self.told = Some(columns.into_iter().collect());
        self
    }

    /// Whether files are listed with the statistics of this column (`a.b` inside structs).
    pub fn tells_of(&self, column: &str) -> bool {
        let Some(told) = &self.told else {
            return true;
        };
        let inside = |outer: &str| {
            column
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        told.iter().any(|outer| inside(outer)) || self.deciding().any(inside)
    }

    /// The predicate, if there is one.
    pub fn predicate(&self) -> Option<&Expr> {
        self.predicate.as_ref()
    }

    /// Whether keys were given, too.
    pub fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Which of these files may hold a matching row. Counts what it skips.
    ///
    /// # Errors
    /// When a value of a partition or a statistic cannot be read.
    pub fn keep_files(&self, snapshot: &Snapshot, files: &[DataFile]) -> Result<Vec<bool>> {
        let mut keep = vec![true; files.len()];
        let count = |of: &AtomicU64, n: usize| of.fetch_add(n as u64, Ordering::Relaxed);
        count(&self.counts.files, files.len());
        if self.analysed.is_none() && self.keys.is_none() {
            return Ok(keep);
        }
        if snapshot.specs.values().any(|fields| !fields.is_empty()) {
            let kept = self.narrow(&mut keep, files, |files| {
                let places = files.iter().map(|file| (file.spec_id, file.partition.as_slice()));
                self.judge_places(snapshot, &places.collect::<Vec<_>>())
            })?;
            count(&self.counts.skipped_by_partition, files.len() - kept);
        }
        let before = keep.iter().filter(|k| **k).count();
        let after = self.narrow(&mut keep, files, |files| {
            self.judge(&Witness::Files { snapshot, files }, &snapshot.schema)
        })?;
        count(&self.counts.skipped_by_statistics, before - after);
        Ok(keep)
    }

    /// Whether anything is asked that could skip a file.
    pub fn is_selective(&self) -> bool {
        self.analysed.is_some() || self.keys.is_some()
    }

    /// The columns whose statistics decide which files are kept (`a.b` inside structs), in no order.
    pub fn columns(&self) -> BTreeSet<&str> {
        self.deciding().collect()
    }

    fn deciding(&self) -> impl Iterator<Item = &str> {
        let analysed = self.analysed.iter().flat_map(Analysed::columns);
        analysed.chain(self.keys.iter().flat_map(Keys::columns))
    }

    /// Which of these partitions may hold a matching row. Counts nothing: see [`Prune::count`].
    ///
    /// # Errors
    /// As [`Prune::keep_files`].
    pub fn keep_partitions(&self, snapshot: &Snapshot, partitions: &[Partition]) -> Result<Vec<bool>> {
        let places = partitions.iter().map(|p| (p.spec_id, p.values.as_slice()));
        self.judge_places(snapshot, &places.collect::<Vec<_>>())
    }

    /// Which of these files may hold a matching row, by their statistics and partitions, as
    /// [`Prune::keep_files`] would decide once they are read in full: of the statistics it takes those of
    /// [`Prune::columns`]. Counts nothing: see [`Prune::count`].
    ///
    /// # Errors
    /// As [`Prune::keep_files`].
    pub fn keep_outlines(&self, snapshot: &Snapshot, outlines: &Outlines) -> Result<Vec<bool>> {
        self.judge(&Witness::Outlines { snapshot, outlines }, &snapshot.schema)
    }

    /// Counts files that were looked at, and how many of them were skipped by partition and by statistics.
    pub fn count(&self, files: usize, by_partition: usize, by_statistics: usize) {
        let add = |to: &AtomicU64, count: usize| to.fetch_add(count as u64, Ordering::Relaxed);
        add(&self.counts.files, files);
        add(&self.counts.skipped_by_partition, by_partition);
        add(&self.counts.skipped_by_statistics, by_statistics);
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
        let mut keep = self.judge(&Witness::Ranges { fields, ranges }, &snapshot.schema)?;
        if let Some(keys) = &self.keys {
            narrowed(&mut keep, keys.in_partition_ranges(snapshot, fields, ranges)?);
        }
        Ok(keep)
    }

    /// What was skipped so far.
    pub fn counts(&self) -> &PruneCounts {
        &self.counts
    }

    /// Asks `judge` about the files that are still kept; returns how many remain.
    fn narrow(
        &self,
        keep: &mut [bool],
        files: &[DataFile],
        judge: impl FnOnce(&[&DataFile]) -> Result<Vec<bool>>,
    ) -> Result<usize> {
        let (indices, asked): (Vec<usize>, Vec<&DataFile>) =
            files.iter().enumerate().filter(|(i, _)| keep[*i]).unzip();
        if asked.is_empty() {
            return Ok(0);
        }
        for (index, kept) in indices.into_iter().zip(judge(&asked)?) {
            keep[index] = kept;
        }
        Ok(keep.iter().filter(|k| **k).count())
    }

    /// What the predicate says of each partition, and the keys.
    fn judge_places(&self, snapshot: &Snapshot, places: &[Place<'_>]) -> Result<Vec<bool>> {
        let mut keep = match &self.analysed {
            Some(analysed) => analysed.keep(&Witness::Places { snapshot, places })?,
            None => vec![true; places.len()],
        };
        if let Some(keys) = &self.keys {
            narrowed(&mut keep, keys.in_partitions(snapshot, places)?);
        }
        Ok(keep)
    }

    /// What the predicate says of each container, and the keys by their ranges.
    fn judge(&self, witness: &Witness<'_>, schema: &SchemaRef) -> Result<Vec<bool>> {
        let mut keep = match &self.analysed {
            Some(analysed) => analysed.keep(witness)?,
            None => vec![true; witness.len()],
        };
        if let Some(keys) = &self.keys {
            narrowed(&mut keep, keys.in_ranges(witness, schema)?);
        }
        Ok(keep)
    }
}

fn narrowed(keep: &mut [bool], also: Vec<bool>) {
    keep.iter_mut().zip(also).for_each(|(keep, also)| *keep &= also);
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
