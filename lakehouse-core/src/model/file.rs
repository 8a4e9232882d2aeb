//! One data file and what the metadata knows about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::scalar::ScalarValue;

use super::SortColumn;

/// One data file of a version: where it is, how large, what is in it, what is masked in it.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Object key below the table root, decoded: `data/day=2013-01-01/00000-1.parquet`.
    pub path: String,
    /// The path as the metadata spells it. Equal to `path` or a URL; the identity of the file in commits.
    pub recorded: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Rows in the file, masked ones included.
    pub rows: u64,
    /// Which partition spec `partition` belongs to.
    pub spec_id: i32,
    /// One value per partition field of that spec; typed NULL where the value is NULL.
    pub partition: Vec<ScalarValue>,
    /// Statistics by column name; `a.b` for a field inside a struct.
    pub columns: BTreeMap<String, ColumnStats>,
    /// Where the masks of this file are; empty when all rows are visible.
    pub masks: Vec<MaskRef>,
    /// Equality deletes that apply to this file (Iceberg, written by others).
    pub equality_deletes: Vec<Arc<EqualityDelete>>,
    /// Iceberg's data sequence number, Delta's default row commit version: when rows of the file last changed that
    /// do not say themselves. `None` before the file is committed, and where the table does not keep it.
    pub sequence: Option<i64>,
    /// Row id of the first row, where rows have ids.
    pub first_row_id: Option<i64>,
    /// Byte offsets of the row groups, for readers that split files.
    pub split_offsets: Vec<i64>,
    /// What else is noted about the file and stays when its mask changes; `None` for nothing.
    pub notes: Option<Arc<FileNotes>>,
}

/// The name under which we put rows into files that lie close together (Delta's `clusteringProvider`).
pub const CLUSTERING: &str = "lakehouse";

/// An order of rows that a writer gives its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileOrder {
    /// What it is, in one spelling: files note it in their Parquet metadata, with the id of who wrote them.
    pub name: String,
    /// The columns that rows are sorted by; none for rows along a curve.
    pub sorted_by: Vec<SortColumn>,
}

impl FileOrder {
    /// Under which key files note the name of the order.
    pub const NAME_KEY: &str = "lakehouse.order";
    /// Under which key files note who wrote them: those that have it in common are in order, one after the other.
    pub const RUN_KEY: &str = "lakehouse.run";
    /// Under which key files note the size in bytes that files of the run were to have.
    pub const TARGET_KEY: &str = "lakehouse.target-file-bytes";
}

/// Notes about a data file beside what is in it (of others: Delta's `tags` and `clusteringProvider`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileNotes {
    /// By name.
    pub tags: BTreeMap<String, Option<String>>,
    /// What put rows that lie close together into the file.
    pub clustering: Option<String>,
    /// The order of its rows, where that is the table's sort order (Iceberg's `sort_order_id`). Of new files only.
    pub sorted_by: Vec<SortColumn>,
}

impl DataFile {
    /// The objects that the file consists of: itself first, then what hides rows of it, each with its size in bytes where
    /// that is recorded.
    pub fn objects(&self) -> impl Iterator<Item = (&str, Option<u64>)> {
        let masks = self.masks.iter().filter(|mask| mask.inline.is_none());
        let masks = masks.map(|mask| (mask.path.as_str(), mask.bytes.filter(|_| mask.offset.is_none())));
        let deletes = self
            .equality_deletes
            .iter()
            .map(|delete| (delete.path.as_str(), Some(delete.bytes)));
        [(self.path.as_str(), Some(self.bytes))]
            .into_iter()
            .chain(masks)
            .chain(deletes)
    }

    /// How many rows are masked; `None` when only reading the masks can tell.
    pub fn masked_rows(&self) -> Option<u64> {
        if !self.equality_deletes.is_empty() {
            return None;
        }
        match self.masks.as_slice() {
            [] => Some(0),
            [one] if !one.shared => one.rows,
            // Several position-delete files may name the same row twice.
            _ => None,
        }
    }
}

/// What the metadata knows about one column of one file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnStats {
    /// Number of values, NULLs included.
    pub values: Option<u64>,
    /// Number of NULLs.
    pub nulls: Option<u64>,
    /// Number of NaNs (floating point only).
    pub nans: Option<u64>,
    /// No value is smaller. Of the column's Arrow type.
    pub min: Option<ScalarValue>,
    /// No value is larger. Of the column's Arrow type.
    pub max: Option<ScalarValue>,
    /// `min` and `max` are values of the file, neither truncated nor those of masked rows.
    pub exact: bool,
    /// Compressed bytes of the column.
    pub bytes: Option<u64>,
}

/// Where a mask is stored: a deletion vector inside a file, inline in the log, or a position-delete file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MaskRef {
    /// Object key below the table root; empty when `inline`.
    pub path: String,
    /// The path as the metadata spells it.
    pub recorded: String,
    /// Where the blob starts; `None` for a whole file.
    pub offset: Option<u64>,
    /// Bytes of the blob or file.
    pub bytes: Option<u64>,
    /// The blob itself, when the metadata carries it.
    pub inline: Option<Vec<u8>>,
    /// Rows masked, if known.
    pub rows: Option<u64>,
    /// The same position-delete file may mask rows of other data files too.
    pub shared: bool,
}

/// A file of key values whose rows are deleted (Iceberg equality delete). We read them, never write them.
#[derive(Debug, Clone, PartialEq)]
pub struct EqualityDelete {
    /// Object key below the table root.
    pub path: String,
    /// The path as the metadata spells it.
    pub recorded: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows in the file.
    pub rows: u64,
    /// Names of the columns that are compared; NULL equals NULL.
    pub columns: Vec<String>,
    /// Rows of data files with a smaller sequence number are deleted.
    pub sequence: i64,
}
