//! How much of what somebody else wrote is read. A table may come from anywhere: what it says about itself must not
//! take the process down, nor more memory than these numbers allow.
//!
//! Nesting is bounded where it is met: JSON by serde_json (128), Avro, Parquet schemas and Thrift by the walks over
//! their bytes (64), expressions by the parser (100).

use std::io::{self, Read};

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
/// Values in one Avro file: numbers, texts, NULLs, lists, records. Manifests that `lake` writes have a quarter of them at most.
pub const AVRO_VALUES: u64 = 64_000_000;
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

/// Of what is decompressed, so much is kept at once. What is larger is counted first: a buffer that grows as it is
/// filled takes three times what it holds.
const KEPT_BYTES: u64 = 4 << 20;

/// All that a reader gives, `None` if that is more than `most` bytes. `open` starts it from the beginning.
pub(crate) fn read_within<R: Read>(
    open: impl Fn() -> io::Result<R>,
    most: u64,
) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let mut reader = open()?;
    let kept = reader.by_ref().take(KEPT_BYTES).read_to_end(&mut out)? as u64;
    let more = match kept {
        KEPT_BYTES => io::copy(&mut reader.by_ref().take(most + 1), &mut io::sink())?,
        _ => 0,
    };
    drop(reader);
    let size = kept + more;
    if size > most {
        return Ok(None);
    }
    if more > 0 {
        out = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        open()?.take(size).read_to_end(&mut out)?;
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_whole_up_to_the_limit_and_nothing_above_it() {
        for size in [0, 10, KEPT_BYTES - 1, KEPT_BYTES, KEPT_BYTES + 1] {
            let given: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            for limit in [size, size + 1, size * 2] {
                let found = read_within(|| Ok(given.as_slice()), limit).unwrap();
                assert!(found.as_ref() == Some(&given), "{size} of {limit}");
            }
            if size > 0 {
                assert!(
                    read_within(|| Ok(given.as_slice()), size - 1).unwrap().is_none(),
                    "{size}"
                );
            }
        }
    }
}
