//! How much of what somebody else wrote is read. A table may come from anywhere: what it says about itself must not
//! take the process down, nor more memory than these numbers allow.
//!
//! Nesting is bounded where it is met: JSON by serde_json (128), Avro, Parquet schemas and Thrift by the walks over
//! their bytes (64), expressions by the parser (100).

use crate::error::{Error, Result};

/// Table metadata, after decompression.
pub const METADATA_BYTES: u64 = 64 << 20;
/// Values in one JSON document: each takes far more memory than its text.
pub const JSON_VALUES: u64 = 4_000_000;
/// A file that only names another one: `version-hint.text`, `_last_checkpoint`. Larger ones are not hints.
pub const HINT_BYTES: u64 = 64 << 10;
/// A log entry of Delta.
pub const COMMIT_BYTES: u64 = 256 << 20;
/// A manifest or manifest list, as stored and after decompression.
pub const AVRO_BYTES: u64 = 256 << 20;
/// One block of an Avro file, after decompression.
pub const AVRO_BLOCK_BYTES: u64 = 64 << 20;
/// Values in one Avro file.
pub const AVRO_VALUES: u64 = 32_000_000;
/// A deletion vector or position-delete file.
pub const MASK_BYTES: u64 = 1 << 30;
/// Rows of a position-delete file: their encoding may take next to no bytes.
pub const MASK_ROWS: u64 = 1 << 30;
/// The footer of a Parquet file.
pub const PARQUET_FOOTER_BYTES: u64 = 64 << 20;
/// Rows of one Parquet row group.
pub const ROW_GROUP_ROWS: i64 = 1 << 32;
/// Numbers of versions: there is room above for those that follow.
pub const VERSION: u64 = 1 << 53;

/// Refuses `value` above `most`; `what` is what is counted (`bytes of table metadata`), `place` the file.
///
/// # Errors
/// [`Error::Limit`].
pub fn at_most(value: u64, most: u64, what: &str, place: &str) -> Result<()> {
    if value <= most {
        return Ok(());
    }
    Err(over(&format!("{value} {what}"), most, place))
}

/// The error for something that is over its limit.
pub fn over(what: &str, most: u64, place: &str) -> Error {
    Error::Limit {
        what: format!("{what}; at most {most} are read"),
        place: place.to_owned(),
    }
}
