//! What every operation is asked and what it answers.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::cluster::Ordered;
use super::compact::CompactedGroup;
use crate::commit::{CommitOptions, Isolation};
use crate::error::{Error, Result};
use crate::model::{Token, Version};

/// How an operation runs. The default is what most callers want.
#[derive(Debug, Clone)]
pub struct Options {
    /// Idempotency key: a second operation with the same key commits nothing and says so.
    pub token: Option<Token>,
    /// How strictly reads are protected against concurrent commits.
    pub isolation: Isolation,
    /// Publish attempts before giving up with a conflict.
    pub max_attempts: u32,
    /// Plan everything, commit nothing, leave nothing behind.
    pub dry_run: bool,
    /// Size at which a data file is closed, in bytes; `None` for the table's own setting.
    pub target_file_bytes: Option<u64>,
    /// Bytes that joins and sorts may hold before they spill or give up; `None` for a share of the machine.
    pub memory_limit: Option<usize>,
    /// What becomes of files of which some rows change.
    pub strategy: Strategy,
    /// What becomes of columns of the input that the table lacks.
    pub schema_mode: SchemaMode,
    /// The branch to write to, whose rows the operation sees; `None` for main, which stays as it is otherwise.
    pub branch: Option<String>,
}

impl Options {
    /// Says what becomes of columns of the input that the table lacks.
    #[must_use]
    pub fn schema_mode(mut self, schema_mode: SchemaMode) -> Self {
        self.schema_mode = schema_mode;
        self
    }
}

/// What append, overwrite and merge do about columns of the input that the table lacks, and about types that
/// are wider than the table's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SchemaMode {
    /// Such a column is refused by its name, a value that does not fit its column by column and row, and the source
    /// of a merge whose structs lack members that updated rows have by the path of the member.
    #[default]
    Strict,
    /// They become columns of the table in the commit that writes the rows: nullable, behind all others, also
    /// inside structs, lists and values of maps. Where the table's format allows it, columns get the
    /// wider type: int to bigint, float to double, decimals more digits of the same scale; not columns that the
    /// table is partitioned by. An operation that writes no row changes no column. Rows that a merge updates keep the
    /// members of structs that its source lacks.
    Merge,
}

impl FromStr for SchemaMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "strict" => Ok(Self::Strict),
            "merge" => Ok(Self::Merge),
            _ => Err(Error::invalid(format!("there is no schema mode {text:?}"), "")
                .with_hint("one of strict, merge")),
        }
    }
}

/// What becomes of files of which some rows change. Words of Iceberg's `write.merge.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// As the table's properties say (`write.merge.mode`, `write.update.mode`, `write.delete.mode`); where
    /// they say nothing, each file is masked or rewritten, whichever costs less.
    #[default]
    Auto,
    /// Rows are masked, whatever it costs readers.
    MergeOnRead,
    /// Files are rewritten, whatever it costs now.
    CopyOnWrite,
}

impl FromStr for Strategy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "merge-on-read" => Ok(Self::MergeOnRead),
            "copy-on-write" => Ok(Self::CopyOnWrite),
            _ => Err(Error::invalid(format!("there is no strategy {text:?}"), "")
                .with_hint("one of auto, merge-on-read, copy-on-write")),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        let commit = CommitOptions::default();
        Self {
            token: None,
            isolation: commit.isolation,
            max_attempts: commit.max_attempts,
            dry_run: false,
            target_file_bytes: None,
            memory_limit: None,
            strategy: Strategy::default(),
            schema_mode: SchemaMode::default(),
            branch: None,
        }
    }
}

/// What an operation did.
#[derive(Debug, Clone)]
pub struct Report {
    /// The verb: `append`, `merge` ...
    pub operation: &'static str,
    /// The version of the table after it.
    pub version: Version,
    /// Whether it made that version. False when there was nothing to do, on a dry run, and when the
    /// idempotency key was already recorded.
    pub committed: bool,
    /// The version that already carried the idempotency key.
    pub already: Option<Version>,
    /// Nothing was committed because nothing was to be.
    pub dry_run: bool,
    /// Publish attempts made.
    pub attempts: u32,
    /// How often it was planned: again only where a concurrent commit could not be fitted in.
    pub plans: u32,
    /// Figures: `num_source_rows`, `num_target_rows_inserted`, `_updated`, `_deleted`, `_unchanged`,
    /// `_copied`, `num_target_row_groups_copied` (with these rows, as they are stored), `num_output_rows`,
    /// `num_target_files_scanned`, `num_target_files_skipped_during_scan`, of these `_skipped_by_partition` and
    /// `_skipped_by_statistics`, `num_target_files_added`, `_removed`, `_masked`, `_rewritten`, `bytes_written`,
    /// `bytes_read`, of these `bytes_copied` and `bytes_decoded`, `num_target_row_groups_decoded`; of a compaction
    /// `num_groups_planned`, `_committed`, `_skipped`, of these `_damaged` (their files cannot be read), `num_commits`, `num_target_rows_carried` (they went while their
    /// file was rewritten, and are masked in the new one); `memory_predicted` (bytes that the source of a merge, the join and new files take at most).
    /// Absent means that the verb has no such figure.
    pub metrics: BTreeMap<&'static str, u64>,
    /// The files of which rows change, and what becomes of them.
    pub files: Vec<TouchedFile>,
    /// Columns that the table did not have before, [`SchemaMode::Merge`]: `tip`, `address.zip`.
    pub columns_added: Vec<String>,
    /// Columns that have a wider type now.
    pub columns_widened: Vec<String>,
    /// What became of the table's definition, in words: `renamed a to b`, `partitioned by day(ts) from now on`.
    pub changes: Vec<String>,
    /// Wall time per phase, in the order in which they ran.
    pub phases: Vec<(&'static str, Duration)>,
    /// The groups of files of a compaction, and what became of each.
    pub groups: Vec<CompactedGroup>,
    /// The order that a compaction put rows in, and what it won.
    pub order: Option<Ordered>,
}

/// A file of which rows change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TouchedFile {
    /// Its path, below the table's root where it is there.
    pub path: String,
    /// All of its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Rows of it that change.
    pub touched: u64,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a file of which rows change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// No row of it is left.
    Remove,
    /// The rows are masked.
    Mask,
    /// Its other rows are written to a new file.
    Rewrite,
}

impl Fate {
    /// The word in reports: `remove`, `mask`, `rewrite`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Mask => "mask",
            Self::Rewrite => "rewrite",
        }
    }
}

impl Report {
    /// One figure; 0 where the verb has none of that name.
    pub fn metric(&self, name: &str) -> u64 {
        self.metrics.get(name).copied().unwrap_or(0)
    }
}
