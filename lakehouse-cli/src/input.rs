//! Rows from files and from stdin.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use lakehouse_core::Error;
use lakehouse_core::operations::{InputFormat, Rows};
use tempfile::TempDir;

use crate::exit::Failure;

/// Rows to write, and the temporary file behind them, if there is one.
pub(crate) struct Input {
    pub(crate) rows: Rows,
    /// A copy of stdin, deleted when the rows are no longer needed.
    _spool: Option<TempDir>,
}

impl Input {
    /// Rows that need no file.
    pub(crate) fn of(rows: Rows) -> Self {
        Self { rows, _spool: None }
    }

    /// The rows of several files, one after the other.
    pub(crate) async fn open_all(names: &[String], format: Option<InputFormat>) -> Result<Self, Failure> {
        if let [name] = names {
            return Self::open(name, format).await;
        }
        if names.iter().filter(|name| *name == "-").count() > 1 {
            return Err(Failure::usage("stdin can be read once", "name - once"));
        }
        let mut rows = Vec::with_capacity(names.len());
        let mut spool = None;
        for name in names {
            let input = Self::open(name, format).await?;
            rows.push(input.rows);
            spool = input._spool.or(spool);
        }
        Ok(Self {
            rows: Rows::several(rows),
            _spool: spool,
        })
    }

    /// The rows of a file, or of stdin if it is called `-`.
    pub(crate) async fn open(name: &str, format: Option<InputFormat>) -> Result<Self, Failure> {
        if name != "-" {
            let path = Path::new(name);
            let format = match format {
                None if path.extension().is_none() && path.is_file() => {
                    sniff(&mut File::open(path).map_err(Failure::io("read", path))?)
                }
                given => given,
            };
            return Ok(Self::of(Rows::file(path, format).map_err(with_format_hint)?));
        }
        // Formats are read from both ends and more than once.
        let spool = tokio::task::spawn_blocking(|| {
            // Errors name the file: it is called what it is.
            let spool = TempDir::with_prefix("lake-")?;
            let mut file = File::create(spool.path().join("stdin"))?;
            std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
            std::io::Result::Ok(spool)
        })
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(Failure::io("read", Path::new("stdin")))?;
        let path = spool.path().join("stdin");
        let format = match format {
            Some(format) => Some(format),
            None => sniff(&mut File::open(&path).map_err(Failure::io("read", &path))?),
        };
        let Some(format) = format else {
            return Err(Failure::usage(
                "the first bytes of stdin do not tell its format",
                "add --input-format parquet, csv, ndjson or arrow",
            ));
        };
        Ok(Self {
            rows: Rows::file(&path, Some(format))?,
            _spool: Some(spool),
        })
    }
}

fn with_format_hint(error: Error) -> Error {
    match error {
        Error::Invalid { .. } => error.with_hint("add --input-format parquet, csv, ndjson or arrow"),
        Error::NotFound { .. } => error.with_hint("check the path; - reads stdin"),
        other => other,
    }
}

/// What the first bytes of a file say. CSV has no such bytes.
fn sniff(file: &mut File) -> Option<InputFormat> {
    let mut head = [0; 8];
    file.rewind().ok()?;
    let length = file.read(&mut head).ok()?;
    file.rewind().ok()?;
    let head = &head[..length];
    if head.starts_with(b"PAR1") {
        Some(InputFormat::Parquet)
    } else if head.starts_with(b"ARROW1") || head.starts_with(&[0xff; 4]) {
        Some(InputFormat::Arrow)
    } else if head.trim_ascii_start().starts_with(b"{") {
        Some(InputFormat::Ndjson)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_first_bytes_tell_the_format() {
        for (bytes, expected) in [
            (b"PAR1....".as_slice(), Some(InputFormat::Parquet)),
            (b"ARROW1\0\0", Some(InputFormat::Arrow)),
            (b"\xff\xff\xff\xff\x10\0\0\0", Some(InputFormat::Arrow)),
            (b"\n {\"a\":1}", Some(InputFormat::Ndjson)),
            (b"a,b\n1,2", None),
            (b"", None),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            assert_eq!(sniff(&mut file), expected);
        }
    }
}
