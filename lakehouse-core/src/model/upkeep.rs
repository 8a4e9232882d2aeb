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
}
