//! How much of what somebody else wrote is read. A table may come from anywhere: what it says about itself must not
//! take the process down, nor more memory than these numbers allow.
//!
//! Nesting is bounded where it is met: JSON by serde_json (128), Avro, Parquet schemas and Thrift by the walks over
//! their bytes (64), expressions by the parser (100).
//!
//! What a sound table may come to have too, if it is large enough, its user can allow: those limits are [`Limits`],
//! and each is named by a storage option.

use std::io::{self, Read};

use super::parse_size;
use crate::error::{Error, Result};

/// At most so many are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    most: u64,
    option: &'static str,
}

impl Limit {
    /// One that nobody needs to move.
    pub const fn fixed(most: u64) -> Self {
        Self { most, option: "" }
    }

    const fn named(option: &'static str, most: u64) -> Self {
        Self { most, option }
    }

    /// The number itself.
    pub const fn most(self) -> u64 {
        self.most
    }
}

/// The limits of one table that storage options move. They are numbers; those of bytes may have a unit (`128MB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Iceberg's table metadata, after decompression.
    pub metadata_bytes: Limit,
    /// Keys and values in that: each takes far more memory than its text.
    pub metadata_values: Limit,
    /// A log entry of Delta.
    pub commit_bytes: Limit,
    /// A manifest or manifest list, as stored and after decompression.
    pub avro_bytes: Limit,
    /// One block of an Avro file, after decompression.
    pub avro_block_bytes: Limit,
    /// Values in one Avro file: numbers, texts, NULLs, lists, records. Manifests that `lake` writes have a quarter of
    /// the usual number at most.
    pub avro_values: Limit,
    /// A deletion vector or position-delete file.
    pub mask_bytes: Limit,
    /// Rows of a position-delete file: their encoding may take next to no bytes.
    pub mask_rows: Limit,
    /// The footer of a Parquet file.
    pub parquet_footer_bytes: Limit,
    /// A page of a data file, after decompression.
    pub page_bytes: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata_bytes: Limit::named("max_metadata_bytes", 64 << 20),
            metadata_values: Limit::named("max_metadata_values", 4_000_000),
            commit_bytes: Limit::named("max_commit_bytes", 256 << 20),
            avro_bytes: Limit::named("max_avro_bytes", 256 << 20),
            avro_block_bytes: Limit::named("max_avro_block_bytes", 64 << 20),
            avro_values: Limit::named("max_avro_values", AVRO_VALUES),
            mask_bytes: Limit::named("max_mask_bytes", 1 << 30),
            mask_rows: Limit::named("max_mask_rows", 1 << 30),
            parquet_footer_bytes: Limit::named("max_parquet_footer_bytes", PARQUET_FOOTER_BYTES.most),
            page_bytes: Limit::named("max_page_bytes", 512 << 20),
        }
    }
}

impl Limits {
    /// How the names of all their options start, and of no other ones.
    pub const PREFIX: &'static str = "max_";

    fn all(&mut self) -> [&mut Limit; 10] {
        [
            &mut self.metadata_bytes,
            &mut self.metadata_values,
            &mut self.commit_bytes,
            &mut self.avro_bytes,
            &mut self.avro_block_bytes,
            &mut self.avro_values,
            &mut self.mask_bytes,
            &mut self.mask_rows,
            &mut self.parquet_footer_bytes,
            &mut self.page_bytes,
        ]
    }

    /// Moves the limit that `option` names.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the option when there is none of this name, or `text` is no number above zero.
    pub fn set(&mut self, option: &str, text: &str) -> Result<()> {
        let place = format!("storage option {option}");
        let mut all = self.all();
        let Some(limit) = all.iter_mut().find(|limit| limit.option == option) else {
            let known: Vec<_> = all.iter().map(|limit| limit.option).collect();
            return Err(Error::invalid("there is no such limit", place)
                .with_hint(format!("limits are {}", known.join(", "))));
        };
        let (parsed, form) = match option.ends_with("_bytes") {
            true => (
                parse_size(text),
                "write a number of bytes, or one with a unit: 128MB",
            ),
            false => (
                text.trim().parse().ok().filter(|number| *number > 0),
                "write a number above zero",
            ),
        };
        // Values of options are never repeated: this one may have been meant for another.
        limit.most = parsed.ok_or_else(|| Error::invalid("this is no limit", place).with_hint(form))?;
        Ok(())
    }
}

/// A file that only names another one: `version-hint.text`, `_last_checkpoint`. Larger ones are not hints.
pub const HINT_BYTES: Limit = Limit::fixed(64 << 10);
/// Values in one Avro file, where the user says nothing.
pub const AVRO_VALUES: u64 = 64_000_000;
/// The footer of a Parquet file that is not part of a table.
pub const PARQUET_FOOTER_BYTES: Limit = Limit::fixed(64 << 20);
/// Rows of one Parquet row group.
pub const ROW_GROUP_ROWS: i64 = 1 << 32;
/// Numbers of versions: there is room above for those that follow.
pub const VERSION: u64 = 1 << 53;

/// Refuses `value` above the limit; `what` is what is counted (`bytes of table metadata`), `place` the file.
///
/// # Errors
/// [`Error::Limit`].
pub fn at_most(value: u64, limit: Limit, what: &str, place: &str) -> Result<()> {
    if value <= limit.most {
        return Ok(());
    }
    Err(over(&format!("{value} {what}"), limit, place))
}

/// The error for something that is over its limit.
pub fn over(what: &str, limit: Limit, place: &str) -> Error {
    let Limit { most, option } = limit;
    let error = Error::Limit {
        what: format!("{what}; at most {most} are read"),
        place: place.to_owned(),
        hint: String::new(),
    };
    if option.is_empty() {
        return error;
    }
    error.with_hint(format!(
        "if the table is sound, and only large, raise the limit by the storage option {option}"
    ))
}

/// Of what is decompressed, so much is kept at once. What is larger is counted first: a buffer that grows as it is
/// filled takes three times what it holds.
const KEPT_BYTES: u64 = 4 << 20;

/// All that a reader gives, `None` if that is more bytes than the limit. `open` starts it from the beginning.
pub(crate) fn read_within<R: Read>(
    open: impl Fn() -> io::Result<R>,
    limit: Limit,
) -> io::Result<Option<Vec<u8>>> {
    read_within_into(open, limit, Vec::new())
}

/// The same into memory that was used before; what it holds goes.
pub(crate) fn read_within_into<R: Read>(
    open: impl Fn() -> io::Result<R>,
    limit: Limit,
    mut out: Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    out.clear();
    let mut reader = open()?;
    let kept = reader.by_ref().take(KEPT_BYTES).read_to_end(&mut out)? as u64;
    let more = match kept {
        KEPT_BYTES => io::copy(
            &mut reader.by_ref().take(limit.most.saturating_add(1)),
            &mut io::sink(),
        )?,
        _ => 0,
    };
    drop(reader);
    let size = kept + more;
    if size > limit.most {
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
            for most in [size, size + 1, size * 2, u64::MAX] {
                let found = read_within(|| Ok(given.as_slice()), Limit::fixed(most)).unwrap();
                assert!(found.as_ref() == Some(&given), "{size} of {most}");
                let used = vec![7; 99];
                let found = read_within_into(|| Ok(given.as_slice()), Limit::fixed(most), used).unwrap();
                assert!(found.as_ref() == Some(&given), "{size} of {most}, in used memory");
            }
            if size > 0 {
                let less = read_within(|| Ok(given.as_slice()), Limit::fixed(size - 1)).unwrap();
                assert!(less.is_none(), "{size}");
            }
        }
    }

    #[test]
    fn every_limit_is_moved_by_its_own_option_and_named_by_its_error() {
        let usual = Limits::default();
        for at in 0..usual.clone().all().len() {
            let mut limits = usual;
            let option = limits.all()[at].option;
            limits.set(option, "17").unwrap();
            let moved = *limits.all()[at];
            at_most(17, moved, "of them", "f").unwrap();
            let error = at_most(18, moved, "of them", "f").unwrap_err();
            assert_eq!(error.to_string(), "18 of them; at most 17 are read (in f)");
            assert!(error.hint().unwrap().ends_with(option), "{option}");
            // Only this one.
            let mut before = usual;
            *limits.all()[at] = *before.all()[at];
            assert_eq!(limits, usual, "{option}");
            let mut place = "places";
            match option.ends_with("_bytes") {
                true => {
                    limits.set(option, "128MB").unwrap();
                    assert_eq!(limits.all()[at].most, 128 << 20, "{option}");
                }
                false => place = "128MB",
            }
            for wrong in ["", "-1", "0", "1.5", "many", place] {
                let error = limits.set(option, wrong).unwrap_err();
                let said = format!("{error} {}", error.hint().unwrap());
                assert!(said.contains(option) && said.contains("number"), "{said}");
            }
        }
        let error = usual.clone().set("max_metdata_bytes", "1").unwrap_err();
        assert!(error.to_string().contains("max_metdata_bytes"), "{error}");
        assert!(error.hint().unwrap().contains("max_metadata_bytes"), "{error}");
    }

    #[test]
    fn what_nobody_can_move_says_nothing_of_options() {
        let error = at_most(65_537, HINT_BYTES, "bytes", "f").unwrap_err();
        assert_eq!(error.hint(), None);
    }
}
