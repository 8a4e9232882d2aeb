//! Page indexes (`ColumnIndex` and `OffsetIndex` of the Parquet format) of a file of which row groups are copied.

use std::ops::Range;
use std::sync::Arc;

use parquet::DecodeResult;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataPushDecoder};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

use super::Stored;
use crate::error::Result;
use crate::model::{DataFile, is_sane_parquet_index};
use crate::store::Store;
use crate::write::buffers::Buffers;

/// Page indexes of a file that take more are left behind.
const MAX_BYTES: u64 = 64 << 20;

/// The metadata with the page indexes of all row groups, and the bytes read for it. Without any if a chunk
/// has no offset index, or what is there makes no sense: they only help.
///
/// # Errors
/// Those of the store.
pub(super) async fn load(
    store: &Store,
    file: &DataFile,
    metadata: &ParquetMetaData,
    buffers: &Arc<Buffers>,
) -> Result<(Option<ParquetMetaData>, u64)> {
    let Some(places) = places(metadata, file.bytes) else {
        return Ok((None, 0));
    };
    let start = places.iter().map(|place| place.start).min().unwrap_or_default();
    let end = places.iter().map(|place| place.end).max().unwrap_or_default();
    if end - start > MAX_BYTES {
        return Ok((None, 0));
    }
    let read = Stored::read(store, &file.path, start..end, buffers).await?;
    let bytes = read.bytes;
    let slice = |place: &Range<u64>| &bytes[(place.start - start) as usize..(place.end - start) as usize];
    if !places.iter().all(|place| is_sane_parquet_index(slice(place))) {
        return Ok((None, end - start));
    }
    let decode = || {
        let mut decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(file.bytes, metadata.clone())?;
        decoder.push_range(start..end, bytes.clone())?;
        decoder.try_decode()
    };
    let complete = match decode() {
        Ok(DecodeResult::Data(complete)) => Some(complete),
        _ => None,
    };
    Ok((complete.filter(fits), end - start))
}

/// Where the indexes of all column chunks are.
fn places(metadata: &ParquetMetaData, file_bytes: u64) -> Option<Vec<Range<u64>>> {
    let place = |offset: Option<i64>, length: Option<i32>| {
        let start = u64::try_from(offset?).ok()?;
        let end = start.checked_add(u64::try_from(length?).ok()?)?;
        (start < end && end <= file_bytes).then_some(start..end)
    };
    let mut places = Vec::new();
    for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        places.push(place(chunk.offset_index_offset(), chunk.offset_index_length())?);
        if chunk.column_index_offset().is_some() {
            places.push(place(chunk.column_index_offset(), chunk.column_index_length())?);
        }
    }
    Some(places)
}

/// Whether every page lies in its chunk, pages cover the rows in their order, and bounds are as many as pages.
fn fits(metadata: &ParquetMetaData) -> bool {
    let Some(index) = metadata.offset_index() else {
        return false;
    };
    let as_many = |group: usize, column: usize| {
        let bounds = metadata.column_index().map(|index| &index[group][column]);
        match bounds {
            None | Some(ColumnIndexMetaData::NONE) => true,
            Some(bounds) => bounds.num_pages() == index[group][column].page_locations().len() as u64,
        }
    };
    let mut groups = metadata.row_groups().iter().zip(index).enumerate();
    groups.all(|(number, (group, index))| {
        let mut chunks = group.columns().iter().zip(index).enumerate();
        chunks.all(|(column, (chunk, pages))| {
            as_many(number, column) && pages_fit(chunk, pages, group.num_rows())
        })
    })
}

fn pages_fit(chunk: &ColumnChunkMetaData, pages: &OffsetIndexMetaData, rows: i64) -> bool {
    let (start, length) = chunk.byte_range();
    let (mut at, end) = (start, start.saturating_add(length));
    let mut next_row = 0;
    for (number, page) in pages.page_locations().iter().enumerate() {
        let (Ok(offset), Ok(bytes)) = (
            u64::try_from(page.offset),
            u64::try_from(page.compressed_page_size),
        ) else {
            return false;
        };
        let first = page.first_row_index;
        if offset < at || offset.saturating_add(bytes) > end || first < next_row || first >= rows.max(1) {
            return false;
        }
        if number == 0 && first != 0 {
            return false;
        }
        (at, next_row) = (offset + bytes, first);
    }
    true
}
