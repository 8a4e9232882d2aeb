//! What a table's metadata still has, and what of it is to go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Version;

/// How old staged files, and the version they were planned on, may become before they are published. What is
/// older than twice this and belongs to no version is nobody's; a name that stands for a version is not freed before.
pub const LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Twice the lease, in milliseconds: what nobody needs goes at this age and not before, and neither does a name that
/// stands for a version.
pub const FLOOR_MS: i64 = 2 * LEASE.as_millis() as i64;

/// When something began, by two clocks: one of them may be set back, the other stand still while a machine sleeps.
/// `store::clock` makes it and tells how long ago it was.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// In milliseconds since 1970 UTC.
    pub wall_ms: i64,
    /// By the clock that is never set; `None` where time is simulated.
    pub steady: Option<Instant>,
}

/// One version that the metadata still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retained {
    /// The version.
    pub version: Version,
    /// The version that it was made on; it may be gone.
    pub parent: Option<Version>,
    /// When it was committed, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// Where the version is a file whose name goes with it: when that was written, by the store's clock, in
    /// milliseconds since 1970 UTC. A writer that is late could take the name again while this is young.
    pub named_ms: Option<i64>,
}

/// Which files of a table's metadata are to go.
#[derive(Debug, Clone)]
pub struct Cleanup {
    /// The versions that stay.
    pub kept: BTreeSet<Version>,
    /// Files written after this stay, by the store's clock, in milliseconds since 1970 UTC.
    pub not_after_ms: i64,
    /// Say what would go, and delete nothing.
    pub dry_run: bool,
}

/// What became of files of the metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanedUp {
    /// Files that are gone (on a dry run: would be), keys below the table's root.
    pub files: Vec<String>,
    /// Their size in bytes.
    pub bytes: u64,
    /// Files that nothing needs and that stay because they are too young.
    pub too_young: u64,
    /// The version whose checkpoint stands for the log that is gone.
    pub checkpoint: Option<Version>,
}

/// What writing the manifests of a version anew does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Regrouping {
    /// Manifests that stay.
    pub kept: u64,
    /// Manifests that are replaced.
    pub replaced: u64,
    /// Manifests that take their place.
    pub created: u64,
}

/// Which kind of checkpoint is written (Delta protocol, "Checkpoints").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CheckpointKind {
    /// As the table's features and properties say.
    #[default]
    Auto,
    /// One file under the classic name, which every reader knows.
    Classic,
    /// A file that names the files with the list of data files. Needs the table feature `v2Checkpoint`.
    V2,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The version that it holds.
    pub version: Version,
    /// Its files, keys below the table's root.
    pub files: Vec<String>,
    /// Their size in bytes.
    pub bytes: u64,
    /// Data files that it lists.
    pub data_files: u64,
    /// It was there before.
    pub already: bool,
}
