//! Rows that are decoded column by column, on the thread that encodes the column: no batch of all columns is made of them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder};
use arrow::compute::filter;
use arrow::datatypes::FieldRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::reader::ChunkReader;

use super::{Chunks, CopySource, Stored, spans};
use crate::error::{Error, Result};
use crate::model::{RowMask, largest_parquet_page, limits};
use crate::store::Store;
use crate::write::layout::renamed;

/// Rows that are decoded at once: values of most columns stay in the caches until they are encoded.
const BATCH_ROWS: usize = 8 << 10;

/// Rows of a row group as they are stored.
#[derive(Debug, Clone)]
pub struct StoredRows {
    /// Path of their file.
    path: Arc<str>,
    reading: ArrowReaderMetadata,
    group: usize,
    chunks: Chunks,
    /// Which rows of the row group these are; `None`: all.
    selection: Option<Arc<RowSelection>>,
    /// Of them, those to take.
    taken: Range<usize>,
    /// Leaves whose bounds can be trusted.
    sound: Arc<[bool]>,
    /// Bytes of memory that the metadata of the row group takes.
    metadata: usize,
    /// The row group's page indexes, if it has any that are of use here.
    indexed: Option<Arc<ParquetMetaData>>,
    /// So many columns, and leaves of them, are stored here.
    columns: usize,
    leaves: usize,
    /// Values of the columns after them.
    lineage: Option<[ArrayRef; 2]>,
    /// Their positions in the file.
    pub(in crate::write) positions: Arc<[Range<u64>]>,
    bytes: u64,
}

impl CopySource {
    /// Reads the rows of a row group that are not hidden, to be decoded later ([`super::TableWriter::write_stored`]).
    ///
    /// # Errors
    /// When the row group cannot be read; [`Error::Limit`] when a page of it is larger than the store allows.
    pub async fn read(&self, store: &Store, group: usize, hidden: &RowMask) -> Result<StoredRows> {
        let (lineage, mut bytes) = self.lineage(store, group).await?;
        let columns = self.columns(lineage.is_some());
        let (chunks, read) = self.read_chunks(store, group, 0..columns).await?;
        bytes += read;
        let rows = self.positions(group);
        let whole = hidden.hidden_in(rows.clone()) == 0;
        let joinable = whole && self.may_be_joined(group);
        if joinable {
            bytes += self.load_pages(store).await?;
        }
        let positions = if whole {
            vec![rows.clone()]
        } else {
            visible(&rows, hidden)
        };
        let count = positions.iter().map(length).sum();
        let within = |run: &Range<u64>| {
            let start = usize::try_from(run.start - rows.start).unwrap_or(usize::MAX);
            start..start + length(run)
        };
        let lineage = match lineage {
            Some([ids, updated]) if !whole => {
                let kept = kept(positions.iter().map(within), ids.len());
                Some([filter(&ids, &kept)?, filter(&updated, &kept)?])
            }
            all => all,
        };
        let selection = (!whole).then(|| {
            let runs = positions.iter().map(within);
            Arc::new(RowSelection::from_consecutive_ranges(runs, length(&rows)))
        });
        Ok(StoredRows {
            path: self.file.path.as_str().into(),
            reading: self.reading.clone(),
            group,
            chunks: Chunks(chunks.into()),
            selection,
            taken: 0..count,
            indexed: self.indexed().filter(|_| joinable).cloned(),
            sound: self.sound(group),
            metadata: self.memory_each(),
            columns: self.roots(columns),
            leaves: columns,
            lineage,
            positions: positions.into(),
            bytes,
        })
    }
}

impl CopySource {
    /// Chunks of a row group, and the bytes read for them.
    ///
    /// # Errors
    /// Those of reading; [`Error::Limit`] when a page of them is larger than the store allows.
    pub(super) async fn read_chunks(
        &self,
        store: &Store,
        group: usize,
        columns: Range<usize>,
    ) -> Result<(Vec<Stored>, u64)> {
        let places = &self.places(group)[columns];
        let (mut chunks, mut read) = (Vec::new(), 0);
        for (range, columns) in spans(places) {
            let stored = Stored::read(store, &self.file.path, range, &self.buffers).await?;
            for place in &places[columns] {
                let pages = stored.get_bytes(place.start, length(place))?;
                let largest = largest_parquet_page(&pages, &self.file.path)?;
                limits::at_most(
                    largest,
                    store.limits().page_bytes,
                    "bytes in a page",
                    &self.file.path,
                )?;
            }
            read += stored.bytes.len() as u64;
            chunks.push(stored);
        }
        Ok((chunks, read))
    }

    /// Of each leaf of a row group, whether its bounds can be trusted.
    fn sound(&self, group: usize) -> Arc<[bool]> {
        let chunks = self.reading.metadata().row_group(group).columns().iter();
        chunks.map(|chunk| self.has_sound_bounds(chunk)).collect()
    }
}

/// The runs of rows in between.
fn visible(rows: &Range<u64>, hidden: &RowMask) -> Vec<Range<u64>> {
    let mut visible = Vec::new();
    let mut next = rows.start;
    for run in hidden.runs().skip_while(|run| run.end <= rows.start) {
        if run.start >= rows.end {
            break;
        }
        if run.start > next {
            visible.push(next..run.start);
        }
        next = next.max(run.end);
    }
    if next < rows.end {
        visible.push(next..rows.end);
    }
    visible
}

fn kept(runs: impl Iterator<Item = Range<usize>>, rows: usize) -> BooleanArray {
    let mut kept = BooleanBufferBuilder::new(rows);
    for run in runs {
        kept.append_n(run.start - kept.len(), false);
        kept.append_n(run.len(), true);
    }
    kept.append_n(rows - kept.len(), false);
    BooleanArray::new(kept.finish(), None)
}

fn length(run: &Range<u64>) -> usize {
    usize::try_from(run.end - run.start).unwrap_or(usize::MAX)
}

impl StoredRows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Bytes that were read for them.
    pub fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory that they take, about.
    pub(in crate::write) fn memory(&self) -> usize {
        let lineage = self.lineage.iter().flatten();
        let stored: usize = self.chunks.0.iter().map(|chunk| chunk.bytes.len()).sum();
        let lineage: usize = lineage.map(|values| values.get_array_memory_size()).sum();
        stored + lineage + self.metadata
    }

    /// Bytes of some of them as they are stored, about.
    pub(in crate::write) fn bytes_each(&self) -> usize {
        let rows = self.reading.metadata().row_group(self.group).num_rows().max(1);
        usize::try_from(self.bytes / rows.cast_unsigned()).unwrap_or(usize::MAX)
    }

    /// Some of them.
    pub(in crate::write) fn slice(&self, start: usize, rows: usize) -> Self {
        let start = self.taken.start + start;
        Self {
            taken: start..start + rows,
            ..self.clone()
        }
    }

    /// Whether these are all rows of a row group.
    pub(in crate::write) fn is_whole(&self) -> bool {
        let all = self.reading.metadata().row_group(self.group).num_rows();
        self.selection.is_none() && usize::try_from(all).is_ok_and(|all| self.taken == (0..all))
    }

    /// What the footer says of the chunk of a leaf, if it is stored.
    pub(in crate::write) fn chunk(&self, leaf: usize) -> Option<&ColumnChunkMetaData> {
        let chunks = self.reading.metadata().row_group(self.group).columns();
        chunks[..self.leaves].get(leaf)
    }

    /// Whether the bounds of a leaf can be trusted.
    pub(in crate::write) fn is_sound(&self, leaf: usize) -> bool {
        self.sound.get(leaf).is_some_and(|sound| *sound)
    }

    /// Bytes of the chunk of a leaf.
    pub(in crate::write) fn chunk_bytes(&self, leaf: usize) -> u64 {
        self.chunk(leaf).map_or(0, |chunk| chunk.byte_range().1)
    }

    pub(in crate::write) fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// The page indexes of a leaf.
    pub(in crate::write) fn index(
        &self,
        leaf: usize,
    ) -> Option<(&ColumnIndexMetaData, &OffsetIndexMetaData)> {
        let indexed = self.indexed.as_deref()?;
        let bounds = indexed.column_index()?.get(self.group)?.get(leaf)?;
        Some((bounds, indexed.offset_index()?.get(self.group)?.get(leaf)?))
    }

    /// The values of a column of new files, decoded piece by piece.
    ///
    /// # Errors
    /// When they cannot be decoded, or are not as many as they should be.
    pub(in crate::write) fn decode(
        &self,
        number: usize,
        field: &FieldRef,
        mut take: impl FnMut(&ArrayRef) -> Result<()>,
    ) -> Result<()> {
        let given = number.checked_sub(self.columns);
        if let Some(values) = given.and_then(|number| self.lineage.as_ref()?.get(number)) {
            return take(&values.slice(self.taken.start, self.taken.len()));
        }
        let mut rows = 0;
        for batch in self.reader(number)? {
            let batch = batch?;
            rows += batch.num_rows();
            take(&renamed(batch.column(0), field)?)?;
        }
        if rows == self.taken.len() {
            return Ok(());
        }
        Err(Error::invalid(
            format!(
                "column {} of row group {} should have {} rows here, and has {rows}",
                field.name(),
                self.group,
                self.taken.len()
            ),
            &*self.path,
        ))
    }

    fn reader(&self, column: usize) -> Result<ParquetRecordBatchReader> {
        let mask = ProjectionMask::roots(self.reading.parquet_schema(), [column]);
        let mut reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.chunks.clone(), self.reading.clone())
                .with_projection(mask)
                .with_row_groups(vec![self.group])
                .with_batch_size(BATCH_ROWS);
        if let Some(selection) = &self.selection {
            reader = reader.with_row_selection(RowSelection::clone(selection));
        }
        Ok(reader
            .with_offset(self.taken.start)
            .with_limit(self.taken.len())
            .build()?)
    }
}
