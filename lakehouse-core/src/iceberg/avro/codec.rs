//! How the blocks of a file are compressed (Avro specification, "Required Codecs", "Optional Codecs").

use std::borrow::Cow;
use std::fmt::Display;

use super::super::metadata::broken;
use super::CUT_SHORT;
use crate::error::{Error, Result};
use crate::model::limits::{self, Limit};

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

impl Codec {
    /// The codec that a header names.
    pub(super) fn named(name: Option<&[u8]>, place: &str) -> Result<Self> {
        Ok(match name {
            None | Some(b"null") => Self::Null,
            Some(b"deflate") => Self::Deflate,
            Some(b"snappy") => Self::Snappy,
            Some(b"zstandard") => Self::Zstandard,
            Some(other) => {
                return Err(Error::unsupported(
                    format!(
                        "{place} is compressed with {:?}; deflate, snappy and zstandard are read",
                        String::from_utf8_lossy(other)
                    ),
                    "let the engine that wrote the table rewrite its manifests",
                ));
            }
        })
    }

    /// A block as it was before it was compressed, within bounds; in the memory of `used`, which is a block that nobody
    /// needs any more.
    pub(super) fn decompress<'a>(
        self,
        stored: &'a [u8],
        limit: Limit,
        place: &str,
        used: Vec<u8>,
    ) -> Result<Cow<'a, [u8]>> {
        let failed = |e: &dyn Display| broken(place, format!("a block cannot be decompressed: {e}"));
        let too_large = || {
            let what = "a block of the Avro file has more bytes after decompression";
            limits::over(what, limit, place)
        };
        let block = match self {
            Self::Null => {
                if stored.len() as u64 > limit.most() {
                    return Err(too_large());
                }
                return Ok(stored.into());
            }
            Self::Deflate => {
                let open = || Ok(flate2::bufread::DeflateDecoder::new(stored));
                let read = limits::read_within_into(open, limit, used);
                read.map_err(|e| failed(&e))?.ok_or_else(too_large)?
            }
            Self::Zstandard => {
                let open = || zstd::stream::read::Decoder::with_buffer(stored);
                let read = limits::read_within_into(open, limit, used);
                read.map_err(|e| failed(&e))?.ok_or_else(too_large)?
            }
            Self::Snappy => {
                let (data, sum) = stored.split_last_chunk::<4>().ok_or_else(|| failed(&CUT_SHORT))?;
                let size = snap::raw::decompress_len(data).map_err(|e| failed(&e))?;
                if size as u64 > limit.most() {
                    return Err(too_large());
                }
                let mut out = used;
                out.resize(size, 0);
                let written = snap::raw::Decoder::new()
                    .decompress(data, &mut out)
                    .map_err(|e| failed(&e))?;
                out.truncate(written);
                if crc32fast::hash(&out).to_be_bytes() != *sum {
                    return Err(failed(&"its checksum does not agree"));
                }
                out
            }
        };
        Ok(block.into())
    }
}
