//! What the metadata of a table amounts to.

/// Objects of one kind that are read before the first data file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataPart {
    /// `manifests`, `log entries since the checkpoint` ...
    pub kind: &'static str,
    /// How many there are.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// The metadata of a version, and all that there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// What planning a scan of all files reads.
    pub read: Vec<MetadataPart>,
    /// Objects in the folder of the metadata, also those of other versions.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// When the summary of the log that the version is loaded from was written, in milliseconds since 1970 UTC; `None`
    /// where there is none, or none is needed.
    pub checkpoint_ms: Option<i64>,
    /// How much of a log comes after its last summary; `None` where the format has no such log.
    pub log: Option<LogTail>,
}

/// The part of a log that comes after its last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTail {
    /// Entries after the checkpoint, all of them where there is none.
    pub entries: u64,
    /// How many the table wants between two checkpoints (`delta.checkpointInterval`).
    pub interval: u64,
}

impl LogTail {
    /// Whether it is time for a checkpoint.
    pub fn is_due(&self) -> bool {
        self.entries >= self.interval
    }
}
