//! File paths: percent-encoded in the log, relative to the table root (Delta protocol, "Add File and
//! Remove File"), and decoded keys everywhere else.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::error::{Error, Result};

/// What is written as it is; everything else is percent-encoded, the percent sign included.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b'=')
    .remove(b'+')
    .remove(b',')
    .remove(b'@')
    .remove(b'$')
    .remove(b'!')
    .remove(b'(')
    .remove(b')');

/// A key as the log spells it.
pub(super) fn encode(key: &str) -> String {
    utf8_percent_encode(key, ENCODED).to_string()
}

/// The key of a path as the log spells it: relative, or absolute below the table root.
///
/// # Errors
/// [`Error::Denied`] when it leaves the table; [`Error::Invalid`] when it is not UTF-8.
pub(super) fn key(recorded: &str, root: &Url) -> Result<String> {
    let outside = || Error::Denied {
        what: format!("the file {recorded:?} of the Delta log lies outside the table"),
    };
    let absolute = recorded.starts_with('/') || recorded.contains("://") || Url::parse(recorded).is_ok();
    let relative = if absolute {
        let base = root.as_str().trim_end_matches('/');
        let path = root.path().trim_end_matches('/');
        let below = |prefix: &str| recorded.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        let short_file = format!("file:{path}");
        [base, &short_file, path]
            .into_iter()
            .find_map(below)
            .ok_or_else(outside)?
    } else {
        recorded
    };
    let decoded = percent_decode_str(relative)
        .decode_utf8()
        .map_err(|_| Error::invalid(format!("the path {recorded:?} is not UTF-8"), "the Delta log"))?;
    confined(decoded.into_owned())
}

/// The key itself, if it stays below the table root.
///
/// # Errors
/// [`Error::Denied`] when it does not.
pub(super) fn confined(key: String) -> Result<String> {
    let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if key.split('/').all(sound) {
        return Ok(key);
    }
    Err(Error::Denied {
        what: format!("the file {key:?} of the Delta log lies outside the table"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_way_through_the_log() {
        let root = Url::parse("file:///data/t").unwrap();
        for key_ in ["a.parquet", "d=2013-01-01/x y.parquet", "r=100%25/ä?#.parquet", "a:b/c+d.parquet"] {
            assert_eq!(key(&encode(key_), &root).unwrap(), key_);
        }
        assert_eq!(encode("r=a%20b/c.parquet"), "r=a%2520b/c.parquet");
    }

    #[test]
    fn absolute_paths_count_only_below_the_root() {
        let root = Url::parse("file:///data/t").unwrap();
        for path in ["file:///data/t/a%20b.parquet", "file:/data/t/a%20b.parquet", "/data/t/a%20b.parquet"] {
            assert_eq!(key(path, &root).unwrap(), "a b.parquet", "{path}");
        }
        for path in [
            "s3://bucket/a.parquet",
            "file:///data/t2/a.parquet",
            "/etc/passwd",
            "../a",
            "a/%2e%2e/b",
            "a//b",
            "a%2F..%2Fb",
        ] {
            assert!(matches!(key(path, &root), Err(Error::Denied { .. })), "{path}");
        }
    }
}
