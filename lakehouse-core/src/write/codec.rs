//! How the pages of data files are compressed.

use std::str::FromStr;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};

use crate::error::{Error, Result};

/// A codec of Parquet with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec(Compression);

impl Default for Codec {
    /// zstd with the least effort.
    fn default() -> Self {
        Self(Compression::ZSTD(ZstdLevel::default()))
    }
}

impl Codec {
    /// zstd with this effort, 1 to 22; levels that there are not give the usual one.
    pub fn zstd(level: i32) -> Self {
        Self(Compression::ZSTD(ZstdLevel::try_new(level).unwrap_or_default()))
    }

    /// By the names that Iceberg gives to codecs and levels (table properties `write.parquet.compression-codec`,
    /// `write.parquet.compression-level`), in any case.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a codec or a level that there is not.
    pub fn parse(name: &str, level: Option<&str>) -> Result<Self> {
        let of_level = |levels: &str| {
            Error::invalid(
                format!("{:?} is no level of {name}: {levels}", level.unwrap_or_default()),
                "property write.parquet.compression-level",
            )
        };
        // Codecs without levels pass over what is meant for another one.
        let codec = match name.to_lowercase().as_str() {
            "zstd" => Compression::ZSTD(match level {
                Some(level) => of(level, ZstdLevel::try_new).ok_or_else(|| of_level("1 to 22"))?,
                None => ZstdLevel::default(),
            }),
            "gzip" => Compression::GZIP(match level {
                Some(level) => of(level, GzipLevel::try_new).ok_or_else(|| of_level("0 to 9"))?,
                None => GzipLevel::default(),
            }),
            "brotli" => Compression::BROTLI(match level {
                Some(level) => of(level, BrotliLevel::try_new).ok_or_else(|| of_level("0 to 11"))?,
                None => BrotliLevel::default(),
            }),
            "snappy" => Compression::SNAPPY,
            "lz4" | "lz4_raw" => Compression::LZ4_RAW,
            "uncompressed" | "none" => Compression::UNCOMPRESSED,
            _ => {
                return Err(Error::invalid(
                    format!("{name:?} is no codec that is written"),
                    "property write.parquet.compression-codec",
                )
                .with_hint("zstd, snappy, gzip, brotli, lz4 or uncompressed"));
            }
        };
        Ok(Self(codec))
    }

    pub(super) fn parquet(self) -> Compression {
        self.0
    }
}

/// A level that is a number and that the codec has.
fn of<N: FromStr, L, E>(level: &str, make: impl Fn(N) -> Result<L, E>) -> Option<L> {
    make(level.trim().parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_known_by_icebergs_names_and_levels_are_checked() {
        for (name, level, expected) in [
            ("zstd", None, Compression::ZSTD(ZstdLevel::default())),
            (
                "ZSTD",
                Some("7"),
                Compression::ZSTD(ZstdLevel::try_new(7).unwrap()),
            ),
            ("snappy", Some("fast"), Compression::SNAPPY),
            (
                "gzip",
                Some("9"),
                Compression::GZIP(GzipLevel::try_new(9).unwrap()),
            ),
            ("uncompressed", None, Compression::UNCOMPRESSED),
            ("lz4", None, Compression::LZ4_RAW),
        ] {
            assert_eq!(Codec::parse(name, level).unwrap().parquet(), expected, "{name}");
        }
        for (name, level) in [
            ("lzo", None),
            ("zstd", Some("99")),
            ("gzip", Some("-1")),
            ("zstd", Some("x")),
        ] {
            let error = Codec::parse(name, level).unwrap_err();
            assert!(error.to_string().contains("write.parquet.compression"), "{error}");
        }
    }
}
