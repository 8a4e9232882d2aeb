//! How data files are written: as the operation was asked to, as the table's properties say, else as usual.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Options;
use crate::error::{Error, Result};
use crate::model::{FileOrder, parse_size};
use crate::write::{Codec, WriteOptions};

/// Table properties that say how large data files shall be, the first that is set counts.
const FILE_SIZE: [&str; 2] = ["write.target-file-size-bytes", "delta.targetFileSize"];

/// Table properties that say how large row groups shall be: in bytes (Iceberg's), in rows (PyIceberg's).
const GROUP_BYTES: [&str; 1] = ["write.parquet.row-group-size-bytes"];
const GROUP_ROWS: [&str; 1] = ["write.parquet.row-group-limit"];

/// Table properties that say how pages are compressed (Iceberg's).
const CODEC: &str = "write.parquet.compression-codec";
const LEVEL: &str = "write.parquet.compression-level";

/// The share of the rows or bytes of a row group of a new file that one must have to be copied into files that are meant
/// to stay: two of half the size are as good as one, and readers gain little from joining them.
const LASTING_SHARE: f64 = 0.5;

/// How one operation writes data files.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    target_file_bytes: Option<u64>,
    memory_limit: Option<usize>,
    lasting: bool,
    trace: bool,
    /// Writers that share the memory.
    writers: usize,
    /// The order in which rows come.
    order: Option<Arc<FileOrder>>,
}

impl Settings {
    /// `two`: files of changed rows are written beside data files.
    pub(super) fn new(options: &Options, two: bool) -> Self {
        Self {
            target_file_bytes: options.target_file_bytes,
            memory_limit: options.memory_limit,
            lasting: false,
            trace: false,
            writers: if two { 2 } else { 1 },
            order: None,
        }
    }

    /// The files are meant to stay: row groups that are not large already are joined instead of copied. `target_file_bytes` is another size than the options say.
    pub(super) fn for_lasting_files(&mut self, target_file_bytes: Option<u64>) {
        self.lasting = true;
        self.target_file_bytes = target_file_bytes.or(self.target_file_bytes);
    }

    /// The order in which rows come that are written from now on, for the next files.
    pub(super) fn in_order(&mut self, order: Option<Arc<FileOrder>>) {
        self.order = order;
    }

    /// Says whether it is noted where rows that move come to be.
    pub(super) fn trace_rows(&mut self, trace: bool) {
        self.trace = trace;
    }

    /// Whether it is noted where rows that move come to be.
    pub(super) fn traces_rows(&self) -> bool {
        self.trace
    }

    /// Size at which data files are closed: what was asked for, the table's property, or 512 MiB.
    ///
    /// # Errors
    /// When the property is not a size.
    pub(super) fn target_file_bytes(&self, properties: &BTreeMap<String, String>) -> Result<u64> {
        if let Some(bytes) = self.target_file_bytes {
            return Ok(bytes.max(1));
        }
        let size = size(properties, &FILE_SIZE)?;
        Ok(size.unwrap_or(WriteOptions::default().target_file_bytes))
    }

    /// What open files may hold: half of the memory limit, the other half is for reading and joining.
    pub(super) fn writer_memory(&self) -> usize {
        let usual = WriteOptions::default().memory_bytes;
        self.memory_limit.map_or(usual, |limit| usual.min(limit / 2))
    }

    /// All of it together.
    ///
    /// # Errors
    /// When a property says what cannot be done.
    pub(super) fn write_options(
        &self,
        properties: &BTreeMap<String, String>,
        lineage: bool,
    ) -> Result<WriteOptions> {
        let usual = WriteOptions::default();
        let limit =
            |size: Option<u64>, usual| size.map_or(usual, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let row_group_bytes = limit(size(properties, &GROUP_BYTES)?, usual.row_group_bytes);
        Ok(WriteOptions {
            target_file_bytes: self.target_file_bytes(properties)?,
            lineage,
            memory_bytes: self.writer_memory() / self.writers,
            row_group_rows: limit(size(properties, &GROUP_ROWS)?, usual.row_group_rows),
            row_group_bytes,
            copy_from_bytes: if self.lasting {
                // The share alone decides.
                Some(u64::MAX)
            } else {
                usual.copy_from_bytes
            },
            copy_from_share: if self.lasting {
                LASTING_SHARE
            } else {
                usual.copy_from_share
            },
            codec: codec(properties)?,
            order: self.order.clone(),
            trace: self.trace,
        })
    }
}

/// How pages are compressed.
fn codec(properties: &BTreeMap<String, String>) -> Result<Codec> {
    let set = |name: &str| properties.get(name).map(String::as_str);
    match (set(CODEC), set(LEVEL)) {
        (None, None) => Ok(Codec::default()),
        (name, level) => Codec::parse(name.unwrap_or("zstd"), level),
    }
}

/// The first of these properties that is set.
fn size(properties: &BTreeMap<String, String>, names: &[&str]) -> Result<Option<u64>> {
    let set = names.iter().find_map(|name| Some((name, properties.get(*name)?)));
    let Some((name, text)) = set else {
        return Ok(None);
    };
    let wrong = || Error::invalid(format!("{text:?} is not a size"), format!("property {name}"));
    parse_size(text).map(Some).ok_or_else(wrong)
}
