//! Row groups that become one, column by column. Where all values of a column are codes of dictionaries, none is decoded:
//! the dictionaries are put together, and the codes are written under their new numbers; pages stay what they are, with
//! their levels and bounds. Where that cannot be (other encodings, large dictionaries, no page index), values are decoded
//! and encoded.
//!
//! ```text
//! dictionary   the entries of all dictionaries, each once
//! codes        the codes of a page under their new numbers
//! bounds       statistics of the chunk, bounds of its pages
//! chunk        pages to a column chunk
//! ```

mod bounds;
mod chunk;
mod codes;
mod dictionary;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::datatypes::Fields;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter};
use parquet::basic::{Encoding, PageType};
use parquet::column::page::{Page, PageReader};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use rayon::iter::{ParallelBridge, ParallelIterator};

use super::copy::{Chunk, StoredRows};
use super::rows::{close, encode_stored};
use crate::error::Result;
use chunk::Joining;
use dictionary::Dictionary;

pub(super) use chunk::Packing;

/// What a row group that is put together has in common with the others of its file.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) fields: &'a Fields,
    pub(super) parquet: &'a SchemaDescriptor,
    /// `None`: a codec that only the encoder knows.
    pub(super) packing: Option<Packing>,
    pub(super) indexed: bool,
    /// Pages with fewer rows, on average, are made anew.
    pub(super) page_rows: usize,
}

/// A column chunk that is complete.
pub(super) enum Finished {
    Encoded(ArrowColumnChunk),
    Joined(Chunk),
}

impl Finished {
    pub(super) fn close(&self) -> &ColumnCloseResult {
        match self {
            Self::Encoded(chunk) => chunk.close(),
            Self::Joined(chunk) => &chunk.close,
        }
    }

    /// What it tells of the encoder's choices.
    pub(super) fn encoded(&self) -> Option<&ColumnCloseResult> {
        match self {
            Self::Encoded(chunk) => Some(chunk.close()),
            Self::Joined(_) => None,
        }
    }

    pub(super) fn append<W: std::io::Write + Send>(
        self,
        to: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        match self {
            Self::Encoded(chunk) => chunk.append_to_row_group(to)?,
            Self::Joined(chunk) => to.append_column(&chunk.stored, chunk.close)?,
        }
        Ok(())
    }
}

/// The columns of these row groups, one after the other, as those of one. `columns` encode what has to be; NaNs are added
/// to `nans`, by leaf.
///
/// # Errors
/// When values cannot be decoded or encoded.
pub(super) fn row_group(
    frame: Frame<'_>,
    parts: &[&StoredRows],
    columns: Vec<ArrowColumnWriter>,
    nans: &mut [Option<u64>],
) -> Result<Vec<Finished>> {
    let mut fields = Vec::with_capacity(frame.fields.len());
    let (mut columns, mut nans, mut leaf) = (columns.into_iter(), nans, 0);
    for field in 0..frame.fields.len() {
        let own = (leaf..frame.parquet.num_columns())
            .take_while(|leaf| frame.parquet.get_column_root_idx(*leaf) == field);
        let own = own.count();
        let (counts, others) = nans.split_at_mut(own);
        fields.push((
            field,
            leaf,
            columns.by_ref().take(own).collect::<Vec<_>>(),
            counts,
        ));
        (nans, leaf) = (others, leaf + own);
    }
    // The largest first, so that no thread waits for one that came last.
    fields.sort_by_cached_key(|(_, leaf, ..)| {
        Reverse(parts.iter().map(|part| part.chunk_bytes(*leaf)).sum::<u64>())
    });
    let finish = |(field, leaf, mut columns, nans): (usize, usize, Vec<ArrowColumnWriter>, &mut [_])| {
        let whole = if columns.len() == 1 {
            joined(frame, parts, leaf)
        } else {
            None
        };
        let chunks = match whole {
            Some(chunk) => vec![Finished::Joined(chunk)],
            None => {
                for part in parts {
                    encode_stored(part, field, &frame.fields[field], &mut columns, nans)?;
                }
                let closed = columns.into_iter().map(|column| close(column, frame.indexed));
                closed
                    .map(|chunk| chunk.map(Finished::Encoded))
                    .collect::<Result<_>>()?
            }
        };
        Ok((field, chunks))
    };
    let mut finished: Vec<(usize, Vec<Finished>)> = fields
        .into_iter()
        .par_bridge()
        .map(finish)
        .collect::<Result<_>>()?;
    finished.sort_by_key(|(field, _)| *field);
    Ok(finished.into_iter().flat_map(|(_, chunks)| chunks).collect())
}

/// The chunks of a leaf as one, if no value has to be decoded for it.
fn joined(frame: Frame<'_>, parts: &[&StoredRows], leaf: usize) -> Option<Chunk> {
    let packing = frame.packing?;
    let column = frame.parquet.column(leaf);
    let chunks: Vec<&ColumnChunkMetaData> =
        parts.iter().map(|part| part.chunk(leaf)).collect::<Option<_>>()?;
    let rows: i64 = chunks.iter().map(|chunk| chunk.num_values()).sum();
    let pages: Vec<usize> = chunks
        .iter()
        .map(|chunk| coded_pages(chunk))
        .collect::<Option<_>>()?;
    let flat = column.max_rep_level() == 0 && column.max_def_level() <= 1;
    if !flat || usize::try_from(rows).ok()? < pages.iter().sum::<usize>().max(1) * frame.page_rows {
        return None;
    }
    if !parts.iter().all(|part| part.is_sound(leaf)) {
        return None;
    }
    let statistics = bounds::together(&column, &chunks)?;
    let mut dictionary = Dictionary::new(&column)?;
    let mut sources = Vec::with_capacity(parts.len());
    for (part, chunk) in parts.iter().zip(&chunks) {
        let rows = usize::try_from(chunk.num_values()).ok()?;
        let mut pages = SerializedPageReader::new(Arc::new(part.chunks().clone()), chunk, rows, None).ok()?;
        let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page().ok()? else {
            return None;
        };
        sources.push((pages, dictionary.add(buf, num_values)?));
    }
    // Some readers know no codes of no bits.
    let width = codes::width(dictionary.len()).max(1);
    let mut joining: Option<Joining> = None;
    let mut index = frame.indexed.then(|| bounds::Index::new(&column));
    for ((mut pages, numbers), (part, chunk)) in sources.into_iter().zip(parts.iter().zip(&chunks)) {
        let (mut values, mut count) = (0, 0);
        while let Some(page) = pages.get_next_page().ok()? {
            let coded = renumbered(&page, &column, &numbers, width)?;
            let joining = match &mut joining {
                Some(joining) => joining,
                None => joining.insert(Joining::begin(
                    packing,
                    dictionary.plain(),
                    dictionary.len(),
                    &coded,
                )?),
            };
            let place = joining.add(page.num_values(), coded)?;
            index
                .iter_mut()
                .for_each(|index| index.place(page.num_values(), place));
            (values, count) = (values + i64::from(page.num_values()), count + 1);
        }
        if values != chunk.num_values() {
            return None;
        }
        if let Some(index) = &mut index {
            let (bounds, places) = part.index(leaf)?;
            index.bounds(bounds, places, count)?;
        }
    }
    joining?.finish(column, &chunks, statistics, index)
}

/// The number of data pages of a chunk, if all values in them are codes of its dictionary.
pub(super) fn coded_pages(chunk: &ColumnChunkMetaData) -> Option<usize> {
    chunk.dictionary_page_offset()?;
    let mut pages = 0;
    for page in chunk.page_encoding_stats()? {
        match (page.page_type, page.encoding) {
            (PageType::DATA_PAGE, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) => {
                pages += usize::try_from(page.count).ok()?;
            }
            (PageType::DICTIONARY_PAGE, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) => {}
            _ => return None,
        }
    }
    (pages > 0).then_some(pages)
}

/// A data page ("Data Pages" of the Parquet format, version 1) with its codes under their new numbers.
fn renumbered(page: &Page, column: &ColumnDescPtr, numbers: &[u32], width: u32) -> Option<Vec<u8>> {
    let Page::DataPage {
        buf,
        encoding: Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY,
        def_level_encoding,
        ..
    } = page
    else {
        return None;
    };
    let levels = match column.max_def_level() {
        0 => 0,
        _ if *def_level_encoding != Encoding::RLE => return None,
        _ => 4_usize.checked_add(u32::from_le_bytes(*buf.first_chunk()?) as usize)?,
    };
    let (levels, codes): (&[u8], &[u8]) = buf.split_at_checked(levels)?;
    let rows = u64::from(page.num_values());
    let values = match levels {
        [] => rows,
        levels => codes::ones(&levels[4..], rows)?,
    };
    let mut out = Vec::with_capacity(buf.len() + buf.len() / 2);
    out.extend(levels);
    let mut found = 0;
    if let [from, codes @ ..] = codes {
        out.push(width as u8);
        found = codes::renumber(codes, u32::from(*from), numbers, width, &mut out)?;
    }
    // The last group is filled.
    (values..values + 8).contains(&found).then_some(out)
}
