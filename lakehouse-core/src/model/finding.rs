//! What a check of a table finds.

use std::fmt;
use std::sync::Arc;

use super::Snapshot;
use crate::error::{Error, Result};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Rows are lost, wrong, or cannot be read, by this reader or by others.
    Error,
    /// Nothing is lost, but readers may be slow, or some of them misled.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Codes with their names, how bad they are, and what they mean.
macro_rules! codes {
    ($($code:ident $name:literal $severity:ident $meaning:literal)*) => {
        /// What kind of thing a finding is. The names are for machines and stay.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $code,)*
        }

        impl Code {
            /// All of them, in the order in which reports have them.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$code => Severity::$severity,)* }
            }

            /// What it means, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)* }
            }
        }
    };
}

codes! {
    MetadataUnreadable "metadata-unreadable" Error "the version cannot be loaded, or its files cannot be listed"
    CurrentVersion "current-version" Error "the metadata names a current version that it does not have"
    RefDangling "ref-dangling" Error "a tag or branch names a version that is not there"
    MetadataLog "metadata-log" Warning "an older metadata file that the metadata names is not there"
    VersionHint "version-hint" Warning "the hint to the newest metadata is missing, stale or wrong"
    LogGap "log-gap" Error "log entries that the version needs are missing"
    LogGapBefore "log-gap-before" Warning "log entries of older versions are missing in the middle: those versions cannot be read"
    LogEntry "log-entry" Error "a log entry cannot be read"
    DuplicateAdd "duplicate-add" Error "one log entry adds the same file twice"
    CommitTime "commit-time" Warning "the time inside a commit is not later than that of the one before"
    CheckpointPointer "checkpoint-pointer" Error "the pointer to the newest checkpoint cannot be read, or names one that is not there"
    CheckpointPointerFigures "checkpoint-pointer-figures" Warning "the pointer to the newest checkpoint says of it what is not so"
    CheckpointPointerStale "checkpoint-pointer-stale" Note "there is a newer checkpoint than the one that the pointer names, or no pointer"
    CheckpointIncomplete "checkpoint-incomplete" Warning "a checkpoint of several parts lacks some of them"
    CheckpointUnreadable "checkpoint-unreadable" Error "a checkpoint cannot be read"
    CheckpointDiffers "checkpoint-differs" Error "a checkpoint has not the content that the log before it gives"
    ManifestUnreadable "manifest-unreadable" Error "a manifest or a manifest list cannot be read"
    ManifestCounts "manifest-counts" Error "a manifest list counts other files or rows than its manifest has"
    ManifestBounds "manifest-bounds" Error "a manifest list gives partition bounds that do not hold all partitions of its manifest"
    ManifestSequence "manifest-sequence" Error "sequence numbers of a manifest contradict each other"
    SummaryTotal "summary-total" Warning "a total in the summary of the version is not what its files add up to"
    StatisticsFile "statistics-file" Warning "a file of statistics about the table is missing or has another size"
    VersionNotRetained "version-not-retained" Note "files of an older version are gone whose time is over: a vacuum takes them"
    VersionIncomplete "version-incomplete" Warning "files of an older version are gone too early, which the newest does not need: a vacuum with a shorter age took them, or they are lost"
    FileMissing "file-missing" Error "a file that the version needs is not there"
    FileSize "file-size" Error "a file has another size than the metadata says"
    FileTwice "file-twice" Error "a data file is listed twice: its rows are read twice"
    FileUnreadable "file-unreadable" Error "a data file cannot be read"
    RowCount "row-count" Error "a data file has another number of rows than the metadata says"
    PartitionValue "partition-value" Error "a partition value is none of its partition field"
    Sequence "sequence" Error "a file claims to be newer than the version that has it"
    MaskUnreadable "mask-unreadable" Error "the masked rows of a data file cannot be read"
    MaskBeyond "mask-beyond" Error "a mask hides rows that its data file does not have"
    MaskCount "mask-count" Error "a mask hides another number of rows than the metadata says"
    MaskTwice "mask-twice" Error "a data file has more than one deletion vector"
    MaskDangling "mask-dangling" Note "a mask belongs to a data file that the version does not have"
    RowIdMissing "row-id-missing" Error "a data file has no row ids, though the table tracks rows"
    RowIdOverlap "row-id-overlap" Error "two data files claim the same row ids"
    RowIdBeyond "row-id-beyond" Error "a data file claims row ids that the table has not given out yet"
    RowIdTwice "row-id-twice" Error "two visible rows have the same row id"
    ChunkUnreadable "chunk-unreadable" Error "a column of a row group cannot be decoded"
    NullCount "null-count" Error "a column has another number of NULLs than its statistics say"
    NanCount "nan-count" Error "a column has another number of NaNs than its statistics say"
    ValueCount "value-count" Error "a column has another number of values than its statistics say"
    Bound "bound" Error "a value lies outside of the bounds in the statistics: filters may miss it"
    RowPartition "row-partition" Error "a row does not belong to the partition of its file: filters may miss it"
    NullInRequired "null-in-required" Error "a column that is NOT NULL has a NULL"
    ConstraintBroken "constraint-broken" Error "a row violates a constraint of the table"
    ConstraintUnchecked "constraint-unchecked" Note "a constraint is not understood and was not checked"
    FootersSkipped "footers-skipped" Note "footers of data files were not read, because there are many: --deep reads them"
}

impl Code {
    /// Whether it is about what only leads readers to the newest version, and can be written anew from what is there:
    /// [`crate::format::Format::repoint`].
    pub fn is_advice(self) -> bool {
        matches!(
            self,
            Self::VersionHint
                | Self::CheckpointPointer
                | Self::CheckpointPointerFigures
                | Self::CheckpointPointerStale
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing it is.
    pub code: Code,
    /// The object concerned, a key below the table root; empty where it is the whole table.
    pub path: String,
    /// What is wrong, with figures.
    pub what: String,
    /// What to do about it.
    pub todo: String,
}

impl Finding {
    /// A finding as bad as its code says.
    pub fn new(
        code: Code,
        path: impl Into<String>,
        what: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self {
            severity: code.severity(),
            code,
            path: path.into(),
            what: what.into(),
            todo: todo.into(),
        }
    }

    /// What an error tells of damage.
    ///
    /// # Errors
    /// The error itself where it tells of something else: the store failed, or what the table needs is not offered.
    pub fn of(code: Code, error: Error, path: &str, todo: &str) -> Result<Self> {
        let (what, place) = match &error {
            Error::Invalid { what, place, .. } | Error::Limit { what, place, .. } => {
                (what.clone(), place.clone())
            }
            Error::NotFound { what, .. } => (format!("{what} is not there"), what.clone()),
            // Of the engine: a decoder gave up.
            Error::Engine(inner) => (inner.strip_backtrace(), String::new()),
            _ => return Err(error),
        };
        let path = if path.is_empty() { &place } else { path };
        let todo = error.hint().filter(|_| todo.is_empty()).unwrap_or(todo);
        Ok(Self::new(code, path, what, todo))
    }
}

/// An object of the metadata that a version needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededObject {
    /// Its key below the table root.
    pub path: String,
    /// Its size in bytes, where the metadata says it.
    pub bytes: Option<u64>,
    /// What it is where it is not there; one of another size is [`Code::FileSize`] where this is [`Code::FileMissing`].
    pub code: Code,
}

/// What a format says about the metadata of one version.
#[derive(Debug, Default)]
pub struct Audit {
    /// The version; `None` where it cannot be loaded: the findings say why.
    pub snapshot: Option<Arc<Snapshot>>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Objects of the metadata that were not looked up.
    pub needed: Vec<NeededObject>,
    /// The row id that the next new row gets; `None` where rows have none.
    pub next_row_id: Option<i64>,
    /// Every data file has row ids.
    pub row_ids_required: bool,
    /// The sequence number of the version: none of its files has a higher one.
    pub sequence: Option<i64>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_codes_are_unique_and_spelled_alike() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        let sound = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(names.iter().all(sound), "{names:?}");
    }

    #[test]
    fn an_error_that_tells_of_no_damage_stays_an_error() {
        let refused = Error::unsupported("geometry is not read", "");
        assert!(Finding::of(Code::MetadataUnreadable, refused, "", "").is_err());
        let broken = Error::invalid("it is cut off", "metadata/a.avro").with_hint("copy it again");
        let finding = Finding::of(Code::ManifestUnreadable, broken, "", "").unwrap();
        assert_eq!(
            (finding.path.as_str(), finding.todo.as_str()),
            ("metadata/a.avro", "copy it again")
        );
    }
}
