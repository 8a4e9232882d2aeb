//! Pages to a column chunk.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use super::bounds::Index;
use crate::write::copy::{Chunk, Stored};

/// The chunk begins where the first one of a file does: some readers take offset 0 for none.
const START: u64 = 4;
/// A codec that was not asked for is left out where it saves less than this share of a page, as a divisor.
const WORTH_IT: usize = 8;

/// How pages are compressed.
#[derive(Debug, Clone, Copy)]
pub(in crate::write) struct Packing {
    /// Level of zstd; `None`: not at all.
    level: Option<ZstdLevel>,
    /// Also what hardly gets smaller.
    always: bool,
}

/// A chunk in the making.
pub(super) struct Joining {
    out: TrackedWrite<Vec<u8>>,
    codec: Compression,
    compressor: Option<Compressor<'static>>,
    /// Bytes before compression, headers included.
    plain: usize,
    /// Of the dictionary page.
    first: usize,
    pages: i32,
}

impl Packing {
    /// `None` for codecs that only the encoder knows. `always`: also what hardly gets smaller.
    pub(in crate::write) fn of(codec: Compression, always: bool) -> Option<Self> {
        match codec {
            Compression::ZSTD(level) => Some(Self {
                level: Some(level),
                always,
            }),
            Compression::UNCOMPRESSED => Some(Self { level: None, always }),
            _ => None,
        }
    }
}

impl Joining {
    /// A chunk with this dictionary; which tells with the first data page whether it is compressed.
    pub(super) fn begin(packing: Packing, dictionary: &[u8], entries: usize, page: &[u8]) -> Option<Self> {
        let mut joining = Self {
            out: TrackedWrite::new(Vec::new()),
            codec: Compression::UNCOMPRESSED,
            compressor: None,
            plain: 0,
            first: 0,
            pages: 0,
        };
        if let Some(level) = packing.level {
            let mut compressor = Compressor::new(level.compression_level()).ok()?;
            let sample = [dictionary, page].concat();
            if packing.always
                || compressor.compress(&sample).ok()?.len() < sample.len() - sample.len() / WORTH_IT
            {
                (joining.codec, joining.compressor) = (Compression::ZSTD(level), Some(compressor));
            }
        }
        let dictionary = joining.packed(dictionary.to_vec())?;
        let spec = joining.write(dictionary, |buf| Page::DictionaryPage {
            buf,
            num_values: entries as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        })?;
        joining.first = spec.compressed_size;
        Some(joining)
    }

    /// Adds a data page; returns where it is and its size.
    pub(super) fn add(&mut self, values: u32, page: Vec<u8>) -> Option<(u64, usize)> {
        let packed = self.packed(page)?;
        let spec = self.write(packed, |buf| Page::DataPage {
            buf,
            num_values: values,
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })?;
        self.pages += 1;
        Some((START + spec.offset, spec.compressed_size))
    }

    /// The bytes as they are stored, and how many they were.
    fn packed(&mut self, plain: Vec<u8>) -> Option<(Bytes, usize)> {
        let length = plain.len();
        let packed = match &mut self.compressor {
            Some(compressor) => compressor.compress(&plain).ok()?,
            None => plain,
        };
        Some((packed.into(), length))
    }

    fn write(
        &mut self,
        (bytes, plain): (Bytes, usize),
        page: impl FnOnce(Bytes) -> Page,
    ) -> Option<PageWriteSpec> {
        let page = CompressedPage::new(page(bytes), plain);
        let spec = SerializedPageWriter::new(&mut self.out).write_page(page).ok()?;
        self.plain += spec.uncompressed_size;
        Some(spec)
    }

    /// The chunk, and what the file's metadata says of it. `olds` are those that it was made of.
    pub(super) fn finish(
        self,
        column: ColumnDescPtr,
        olds: &[&ColumnChunkMetaData],
        statistics: Statistics,
        index: Option<Index>,
    ) -> Option<Chunk> {
        let (bounds, places) = match index {
            Some(index) => {
                let (bounds, places) = index.finish()?;
                (Some(bounds), Some(places))
            }
            None => (None, None),
        };
        let bytes = self.out.into_inner().ok()?;
        let count = |page_type, encoding, count| PageEncodingStats {
            page_type,
            encoding,
            count,
        };
        let unencoded = olds.iter().map(|old| old.unencoded_byte_array_data_bytes());
        let rows = olds.iter().map(|old| old.num_values()).sum();
        let metadata = ColumnChunkMetaData::builder(column)
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_num_values(rows)
            .set_compression(self.codec)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.plain as i64)
            .set_dictionary_page_offset(Some(START as i64))
            .set_data_page_offset(START as i64 + self.first as i64)
            .set_statistics(statistics)
            .set_page_encoding_stats(vec![
                count(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
                count(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, self.pages),
            ])
            .set_unencoded_byte_array_data_bytes(unencoded.sum())
            .build()
            .ok()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows.cast_unsigned(),
            metadata,
            bloom_filter: None,
            column_index: bounds,
            offset_index: places,
        };
        Some(Chunk {
            stored: Stored::new(START, bytes.into()),
            close,
        })
    }
}
