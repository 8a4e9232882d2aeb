//! Objects below a table's root: what each of them is by its name, and which of them must stay.

use std::sync::Arc;

use super::{Snapshot, Version};

/// What an object is, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A data file.
    Data,
    /// A file of masks or deletes.
    Mask,
    /// A file of changed rows.
    Changes,
    /// A manifest.
    Manifest,
    /// A manifest list.
    ManifestList,
    /// Statistics of a table or its partitions.
    Statistics,
    /// An index of a data file.
    Index,
    /// The checksum that Hadoop keeps beside a file.
    Checksum,
    /// What a writer that ended too early left: a file without its name, a probe.
    Temporary,
    /// What makes a version: a log, table metadata, a hint. Nobody takes their names twice, so that they stay until
    /// versions expire.
    Version,
    /// Hidden by its name or that of a folder: somebody else's.
    Hidden,
    /// Nothing that the format writes.
    Other,
}

impl ObjectKind {
    /// The word in reports: `data`, `manifest list` ...
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Mask => "mask",
            Self::Changes => "changed rows",
            Self::Manifest => "manifest",
            Self::ManifestList => "manifest list",
            Self::Statistics => "statistics",
            Self::Index => "index",
            Self::Checksum => "checksum",
            Self::Temporary => "temporary",
            Self::Version => "version",
            Self::Hidden => "hidden",
            Self::Other => "other",
        }
    }

    /// Whether it may go when no version needs it.
    pub fn is_removable(self) -> bool {
        !matches!(self, Self::Version | Self::Hidden | Self::Other)
    }
}

/// Which versions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Now by the store's clock, in milliseconds since 1970 UTC.
    pub now_ms: i64,
    /// How long a version stays after the next one was committed, in milliseconds; `None` for what the table or its
    /// format says.
    pub older_than_ms: Option<i64>,
    /// These stay besides.
    pub versions: Vec<Version>,
}

/// What is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The newest version.
    pub snapshot: Arc<Snapshot>,
    /// How many versions are kept.
    pub versions: u64,
    /// The oldest of them that is not kept by name.
    pub oldest: Version,
    /// [`Keep::older_than_ms`], or what the table or its format says.
    pub older_than_ms: i64,
}

/// One object that a kept version needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed<'a> {
    /// Its key below the table root.
    Key(&'a str),
    /// A path, as the metadata spells it, that leads out of the table.
    Outside(&'a str),
}

/// The file that a checksum belongs to: `.NAME.crc` lies beside `NAME` (Hadoop's file systems with checksums).
pub fn checksummed(key: &str) -> Option<String> {
    let (folder, name) = key
        .rsplit_once('/')
        .map_or(("", key), |(folder, name)| (folder, name));
    let name = name.strip_prefix('.')?.strip_suffix(".crc")?;
    match folder {
        "" => Some(name.to_owned()),
        folder => Some(format!("{folder}/{name}")),
    }
}

/// The outermost folder on the way to an object that is hidden, or the object itself if it is: its name starts with `_`
/// or `.`, is not one of a partition, and not `open`.
pub fn hidden<'a>(snapshot: &Snapshot, key: &'a str, open: impl Fn(&str) -> bool) -> Option<&'a str> {
    let of_partition = |part: &str| {
        part.split_once('=').is_some_and(|(name, _)| {
            let mut fields = snapshot.specs.values().flatten();
            fields.any(|field| field.name == name)
        })
    };
    let mut end = 0;
    for part in key.split('/') {
        end += part.len();
        if part.starts_with(['_', '.']) && !open(part) && !of_partition(part) {
            return Some(&key[..end]);
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_lies_beside_its_file() {
        assert_eq!(checksummed(".a.parquet.crc").as_deref(), Some("a.parquet"));
        assert_eq!(
            checksummed("p=1/.a.parquet.crc").as_deref(),
            Some("p=1/a.parquet")
        );
        assert_eq!(checksummed("p=1/a.parquet.crc"), None);
        assert_eq!(checksummed("p=1/.a.parquet"), None);
    }
}
