//! What a compaction is asked, and what it tells of each group of files.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::Version;
use crate::operations::RowOrder;

/// Share of masked rows from which on a large file is rewritten, if nobody says otherwise.
pub(super) const DELETE_RATIO: f64 = 0.05;
/// Small files that are worth joining, if nobody says otherwise.
pub(super) const MIN_INPUT_FILES: usize = 2;
/// Bytes of one group, if nobody says otherwise; at least some target sizes.
pub(super) const MAX_REWRITE: u64 = 4 << 30;
/// So many files of the target size fit into a group of that size.
pub(super) const REWRITE_TARGETS: u64 = 8;

/// What to compact.
#[derive(Debug, Clone, Default)]
pub struct Compact {
    /// Size of the new files in bytes; `None` for the operation's or the table's own setting.
    pub target_file_bytes: Option<u64>,
    /// Only files that may hold a row for which this is true.
    pub predicate: Option<String>,
    /// The order of rows in new files. Where there is one, files whose ranges overlap are rewritten too, together.
    pub order: RowOrder,
    /// Which files are taken.
    pub strategy: CompactStrategy,
    /// Fewer small files of one partition than this are left alone, at least 2. `None` for 2.
    pub min_input_files: Option<usize>,
    /// Share of masked rows, 0 to 1, from which on a file is rewritten however large it is. `None` for 0.05.
    pub delete_ratio_threshold: Option<f64>,
    /// Bytes of files that are rewritten together, in one group, and committed together. `None` for 4 GiB, or eight
    /// times the target size if that is more, and commits of 1 GiB where groups are smaller. Files that overlap in the
    /// order of rows are one group, however many bytes they are, unless this or [`Compact::max_bytes`] says less.
    pub max_rewrite: Option<u64>,
    /// Bytes of files that are rewritten at most, all in all: the groups that win the most come first.
    pub max_bytes: Option<u64>,
    /// No group is begun after this time.
    pub max_time: Option<Duration>,
    /// Commits that are worked on at the same time, each of other groups. They share the memory. `None` for one.
    pub max_concurrent_groups: Option<usize>,
}

/// Which files a compaction takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompactStrategy {
    /// Small files that can be joined, small files with masked rows, and large ones of which many rows are masked.
    #[default]
    Auto,
    /// Small files that can be joined.
    SmallFiles,
    /// Files of which many rows are masked.
    MaskedFiles,
    /// Where a partition has a file to be joined, any masked row, or files of another partitioning: all of its files.
    All,
}

impl CompactStrategy {
    /// The words for it, on the command line and in Python.
    pub const NAMES: [&str; 4] = ["auto", "small-files", "masked-files", "all"];
}

impl FromStr for CompactStrategy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "small-files" => Ok(Self::SmallFiles),
            "masked-files" => Ok(Self::MaskedFiles),
            "all" => Ok(Self::All),
            _ => Err(Error::invalid(format!("there is no strategy {text:?}"), "")
                .with_hint(format!("one of {}", Self::NAMES.join(", ")))),
        }
    }
}

impl Compact {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the setting.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |name: &str, says: String| Err(Error::invalid(says, format!("setting {name}")));
        if let Some(files) = self.min_input_files.filter(|files| *files < MIN_INPUT_FILES) {
            return wrong(
                "min-input-files",
                format!(
                    "{files} is less than {MIN_INPUT_FILES}: one file alone would be rewritten again and again"
                ),
            );
        }
        if let Some(ratio) = self
            .delete_ratio_threshold
            .filter(|ratio| !(0.0..=1.0).contains(ratio))
        {
            return wrong(
                "delete-ratio-threshold",
                format!("{ratio} is not between 0 and 1"),
            );
        }
        if self.max_concurrent_groups == Some(0) {
            return wrong("max-concurrent-groups", "0 groups at a time are none".to_owned());
        }
        let sizes = [
            ("target-file-size", self.target_file_bytes),
            ("max-rewrite", self.max_rewrite),
            ("max-bytes", self.max_bytes),
        ];
        match sizes.iter().find(|(_, size)| *size == Some(0)) {
            Some((name, _)) => wrong(name, "0 bytes leave no room for any file".to_owned()),
            None => Ok(()),
        }
    }
}

/// One group of files that a compaction rewrote, or would rewrite.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactedGroup {
    /// The partition, `region=eu/day=2013-01-01`; empty for all rows of an unpartitioned table, and for files of an
    /// older partitioning that go to partitions nobody knows before.
    pub partition: String,
    /// Files that are rewritten.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Rows of them, masked ones included.
    pub rows: u64,
    /// Rows that are masked, as far as the metadata tells without reading masks.
    pub masked_rows: u64,
    /// Files that are expected to come out of it.
    pub expected_files: u64,
    /// What became of it.
    pub outcome: GroupOutcome,
}

/// What became of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupOutcome {
    /// Nothing yet: this was a dry run.
    Planned,
    /// It was rewritten, in the commit that made this version.
    Committed(Version),
    /// It was left as it is, for this reason.
    Skipped(String),
}

impl GroupOutcome {
    /// The word in reports: `planned`, `committed`, `skipped`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Committed(_) => "committed",
            Self::Skipped(_) => "skipped",
        }
    }

    /// The version that it made, if it made one.
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Committed(version) => Some(*version),
            _ => None,
        }
    }

    /// Why it was left, if it was.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Skipped(why) => Some(why),
            _ => None,
        }
    }
}
