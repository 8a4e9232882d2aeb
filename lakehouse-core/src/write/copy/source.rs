//! A data file whose row groups may be copied: which of them, and where their parts are.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::ArrayRef;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{ColumnOrder, Type};
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use parquet::schema::types::SchemaDescriptor;
use tokio::sync::OnceCell;

use super::{Stored, lineage, pages};
use crate::error::{Error, Result};
use crate::model::{DataFile, RowMask};
use crate::store::Store;
use crate::write::buffers::Buffers;
use crate::write::join::coded_pages;
use crate::write::layout::Leaf;
use crate::write::statistics;
use crate::write::writer::TableWriter;

/// Bloom filters of one chunk that take more are left behind.
const MAX_FILTER_BYTES: u64 = 16 << 20;

/// A data file of which row groups may be copied by the writer that made this.
#[derive(Debug)]
pub struct CopySource {
    pub(super) file: DataFile,
    /// The partition's key in the writer.
    pub(super) key: Box<[u8]>,
    pub(super) reading: ArrowReaderMetadata,
    /// For what is read of it.
    pub(super) buffers: Arc<Buffers>,
    groups: Vec<Group>,
    lineage: Lineage,
    /// The order of its bounds is defined.
    ordered: bool,
    /// Rows that pages must have to be joined, where the writer joins any.
    page_rows: Option<usize>,
    /// Bytes of memory that the footer takes.
    memory: usize,
    /// The metadata with all page indexes and its bytes of memory, once somebody looked whether there are any.
    indexed: OnceCell<Option<(Arc<ParquetMetaData>, usize)>>,
}

#[derive(Debug)]
struct Group {
    /// Positions of its rows in the file.
    rows: Range<u64>,
    bytes: u64,
    copyable: bool,
}

/// The columns of row lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lineage {
    /// New files have none.
    None,
    /// The file stores them, as new files do.
    Stored,
    /// The file does not store them.
    Inherited,
}

impl TableWriter {
    /// Whether a file's rows may move as they are stored, as far as that is known without its footer.
    pub fn may_move(&self, file: &DataFile) -> bool {
        self.same_partitioning(file).is_some()
    }

    /// Whether row groups of a file may be worth copying, as far as that is known without its footer.
    pub fn may_copy(&self, file: &DataFile) -> bool {
        self.may_move(file) && self.worth_copying(file.rows, file.bytes)
    }

    /// A file's row groups, to be copied ([`TableWriter::copy`]) or decoded column by column
    /// ([`TableWriter::write_stored`]), if this writer would store the same rows in just the same form: the same Parquet
    /// columns (names, field ids, types, repetition), the same partition. `footer` is that of the file. `None` where it
    /// would not.
    pub fn source(&self, file: &DataFile, footer: ParquetMetaData) -> Option<CopySource> {
        let key = self.same_partitioning(file)?;
        let lineage = same_columns(
            footer.file_metadata().schema_descr(),
            &self.recipe.parquet,
            self.recipe.layout.lineage,
        )?;
        let leaves = footer.file_metadata().schema_descr().num_columns();
        // Bounds of an order that nobody defined cannot be trusted.
        let ordered = |leaf| {
            matches!(
                footer.file_metadata().column_order(leaf),
                ColumnOrder::TYPE_DEFINED_ORDER(_)
            )
        };
        let ordered = (0..leaves).all(ordered);
        let mut groups = Vec::with_capacity(footer.num_row_groups());
        let mut start = 0;
        for group in footer.row_groups() {
            if !is_whole(group, file.bytes) {
                return None;
            }
            let rows = u64::try_from(group.num_rows()).ok()?;
            let mut bytes = 0;
            for chunk in group.columns() {
                let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                u64::try_from(start).ok()?;
                bytes += u64::try_from(chunk.compressed_size()).ok()?;
            }
            groups.push(Group {
                rows: start..start + rows,
                bytes,
                copyable: ordered
                    && rows > 0
                    && self.worth_copying(rows, bytes)
                    && group.columns().iter().all(is_trusted),
            });
            start += rows;
        }
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let reading = ArrowReaderMetadata::try_new(Arc::new(footer), options).ok()?;
        let stored = reading.schema().fields().iter();
        let mut both = stored.zip(self.recipe.layout.file.fields());
        let same = both.all(|(stored, new)| stored.data_type().equals_datatype(new.data_type()));
        (start == file.rows && same).then(|| CopySource {
            file: file.clone(),
            key,
            memory: reading.metadata().memory_size(),
            reading,
            buffers: Arc::clone(&self.recipe.reads),
            groups,
            lineage,
            ordered,
            page_rows: self.recipe.packing().map(|_| self.recipe.page_rows()),
            indexed: OnceCell::new(),
        })
    }

    /// Each row group that may be copied, with its number, as if it were a data file: its rows, and what its own statistics
    /// say of them.
    pub fn as_files(&self, source: &CopySource) -> Vec<(usize, DataFile)> {
        let leaves = &self.recipe.layout.leaves;
        let uncounted = vec![None; leaves.len()];
        let groups = source
            .metadata()
            .row_groups()
            .iter()
            .zip(&source.groups)
            .enumerate();
        let file = |group: &RowGroupMetaData, rows: u64| DataFile {
            rows,
            columns: statistics::of_groups(std::slice::from_ref(group), leaves, &uncounted),
            ..source.file.clone()
        };
        groups
            .filter(|(_, (_, group))| group.copyable)
            .map(|(number, (metadata, _))| (number, file(metadata, source.rows_of(number))))
            .collect()
    }

    fn worth_copying(&self, rows: u64, bytes: u64) -> bool {
        let Some(least) = self.copy_from_bytes else {
            return false;
        };
        let share = |limit: u64| ((limit as f64 * self.copy_from_share) as u64).max(1);
        // A row group is no larger than its file.
        let most = (self.recipe.row_group_bytes as u64).min(self.recipe.target_file_bytes);
        bytes >= least || rows >= share(self.recipe.row_group_rows as u64) || bytes >= share(most)
    }
}

impl CopySource {
    /// Path of the file.
    pub fn path(&self) -> &str {
        &self.file.path
    }

    /// The row groups to copy if these rows go, in order: those that none goes of,
    /// and of the others as many as `may_stay` allows, those that lose the least first. It is asked about a number of
    /// rows and how many of them would be there for nothing.
    pub fn copied(&self, hidden: &RowMask, may_stay: impl Fn(u64, u64) -> bool) -> Vec<usize> {
        let rows_of = |number: usize| self.rows_of(number);
        let groups = self.groups.iter().enumerate();
        let mut left: Vec<(usize, u64)> = groups
            .filter(|(_, group)| group.copyable)
            .map(|(number, group)| (number, hidden.hidden_in(group.rows.clone())))
            .filter(|(number, gone)| *gone < rows_of(*number))
            .collect();
        left.sort_by_cached_key(|(number, gone)| gone * u64::from(u32::MAX) / rows_of(*number));
        let (mut rows, mut gone) = (0, 0);
        let kept = left.iter().take_while(|group| {
            (rows, gone) = (rows + rows_of(group.0), gone + group.1);
            gone == 0 || may_stay(rows, gone)
        });
        let mut kept: Vec<usize> = kept.map(|(number, _)| *number).collect();
        kept.sort_unstable();
        kept
    }

    /// Bytes of memory that the footer takes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Bytes of memory that the metadata of a row group takes, about, as far as it was read.
    pub(super) fn memory_each(&self) -> usize {
        let indexed = self.indexed.get().and_then(Option::as_ref);
        (self.memory + indexed.map_or(0, |indexed| indexed.1)) / self.groups.len().max(1)
    }

    /// Bytes of memory that the rows of a row group take as they are stored, with row ids if they are not stored.
    pub fn weight(&self, group: usize) -> u64 {
        const IDS: u64 = 16;
        let ids = self.lineage != Lineage::None && !self.stores_all_ids(group);
        self.bytes_of(group) + if ids { IDS * self.rows_of(group) } else { 0 }
    }

    /// Whether every chunk has an offset index, as far as the footer tells.
    pub fn has_page_indexes(&self) -> bool {
        let groups = self.metadata().row_groups().iter();
        let mut chunks = groups.flat_map(|group| group.columns());
        chunks.all(|chunk| chunk.offset_index_offset().is_some())
    }

    /// Positions of the rows of a row group.
    pub fn positions(&self, group: usize) -> Range<u64> {
        self.groups[group].rows.clone()
    }

    pub(super) fn rows_of(&self, group: usize) -> u64 {
        self.groups[group].rows.end - self.groups[group].rows.start
    }

    /// Bytes of a row group.
    pub fn bytes_of(&self, group: usize) -> u64 {
        self.groups[group].bytes
    }

    /// Every chunk has an offset index.
    pub(super) fn is_indexed(&self) -> bool {
        self.indexed().is_some()
    }

    /// The metadata with all page indexes, if somebody looked and there are any.
    pub(super) fn indexed(&self) -> Option<&Arc<ParquetMetaData>> {
        Some(&self.indexed.get()?.as_ref()?.0)
    }

    /// Whether a column of a row group may be put together with those of others without decoding: then page indexes pay.
    pub(super) fn may_be_joined(&self, group: usize) -> bool {
        let rows = self.rows_of(group);
        let joinable = |chunk: &ColumnChunkMetaData| {
            let pages = coded_pages(chunk).zip(self.page_rows);
            pages.is_some_and(|(pages, least)| rows >= (pages * least) as u64)
        };
        self.metadata().row_group(group).columns().iter().any(joinable)
    }

    /// Whether the bounds of a chunk are in the order of its type. Of plain numbers there is only one.
    pub(super) fn has_sound_bounds(&self, chunk: &ColumnChunkMetaData) -> bool {
        let number = matches!(chunk.column_descr().physical_type(), Type::INT32 | Type::INT64);
        number || (self.ordered && is_trusted(chunk))
    }

    /// Where the column chunks of a row group are.
    pub(super) fn places(&self, group: usize) -> Vec<Range<u64>> {
        let chunks = self.metadata().row_group(group).columns().iter();
        chunks
            .map(|chunk| {
                let (start, length) = chunk.byte_range();
                start..start + length
            })
            .collect()
    }

    fn metadata(&self) -> &Arc<ParquetMetaData> {
        self.reading.metadata()
    }

    /// How many columns of the schema have these first leaves.
    pub(super) fn roots(&self, leaves: usize) -> usize {
        match leaves.checked_sub(1) {
            Some(last) => self.reading.parquet_schema().get_column_root_idx(last) + 1,
            None => 0,
        }
    }

    /// Numbers of the row groups that have a row that is not hidden, with the positions of their rows, in order.
    pub fn visible<'a>(&'a self, hidden: &'a RowMask) -> impl Iterator<Item = (usize, Range<u64>)> + 'a {
        let groups = self.groups.iter().map(|group| group.rows.clone()).enumerate();
        groups.filter(|(_, rows)| hidden.hidden_in(rows.clone()) < rows.end - rows.start)
    }

    /// How many chunks of each row group are copied; `beside`: the columns of lineage are encoded.
    pub(super) fn columns(&self, beside: bool) -> usize {
        let all = self.metadata().file_metadata().schema_descr().num_columns();
        match self.lineage {
            Lineage::Stored if beside => all - 2,
            _ => all,
        }
    }

    /// Reads the page indexes, once; returns the bytes read.
    pub(super) async fn load_pages(&self, store: &Store) -> Result<u64> {
        let bytes = AtomicU64::new(0);
        let load = || async {
            let (complete, read) = pages::load(store, &self.file, self.metadata(), &self.buffers).await?;
            bytes.store(read, Ordering::Relaxed);
            Ok::<_, Error>(complete.map(|complete| {
                let memory = complete.memory_size();
                (Arc::new(complete), memory)
            }))
        };
        self.indexed.get_or_try_init(load).await?;
        Ok(bytes.into_inner())
    }

    /// Whether the file stores ids and sequence numbers of all rows of a row group.
    fn stores_all_ids(&self, group: usize) -> bool {
        let chunks = self.metadata().row_group(group).columns().iter().rev().take(2);
        let known =
            |chunk: &ColumnChunkMetaData| chunk.statistics().and_then(Statistics::null_count_opt) == Some(0);
        self.lineage == Lineage::Stored && chunks.into_iter().all(known)
    }

    /// Row ids and sequence numbers of a row group, if they have to be encoded; and the bytes read for them.
    pub(super) async fn lineage(&self, store: &Store, group: usize) -> Result<(Option<[ArrayRef; 2]>, u64)> {
        let inherited = || lineage::inherited(&self.file, self.groups[group].rows.clone());
        match self.lineage {
            Lineage::None => Ok((None, 0)),
            Lineage::Inherited => Ok((Some(inherited()), 0)),
            Lineage::Stored => {
                if self.stores_all_ids(group) {
                    return Ok((None, 0));
                }
                let all = self.metadata().row_group(group).columns().len();
                let columns = all - 2..all;
                let (parts, read) = self.read_chunks(store, group, columns.clone()).await?;
                let completed = lineage::completed(&self.reading, group, columns, parts, inherited())?;
                Ok((Some(completed), read))
            }
        }
    }

    /// NaNs of a row group by leaf of a new file. A footer does not tell them, the table's metadata may.
    pub(super) fn nans(&self, group: usize, leaves: &[Leaf]) -> Vec<Option<u64>> {
        let chunks = self.metadata().row_group(group).columns();
        let none = |(number, leaf): (usize, &Leaf)| {
            let named = leaf.name.as_ref().filter(|_| leaf.data_type.is_floating());
            let Some(name) = named else { return Some(0) };
            let known = self.file.columns.get(name).and_then(|stats| stats.nans);
            let empty = chunks.get(number).is_some_and(|chunk| {
                let nulls = chunk.statistics().and_then(Statistics::null_count_opt);
                nulls == u64::try_from(chunk.num_values()).ok()
            });
            (known == Some(0) || empty).then_some(0)
        };
        leaves.iter().enumerate().map(none).collect()
    }

    /// What `SerializedRowGroupWriter::append_column` wants to know of a chunk, and the bytes read for it.
    pub(super) async fn close(
        &self,
        store: &Store,
        group: usize,
        column: usize,
    ) -> Result<(ColumnCloseResult, u64)> {
        let metadata = self.metadata().row_group(group).column(column);
        let (bloom_filter, read) = bloom_filter(store, &self.file, metadata, &self.buffers).await?;
        let indexed = self.indexed();
        let bounds = indexed.and_then(|indexed| indexed.column_index());
        let pages = indexed.and_then(|indexed| indexed.offset_index());
        let result = ColumnCloseResult {
            bytes_written: metadata.byte_range().1,
            rows_written: self.rows_of(group),
            metadata: metadata.clone(),
            bloom_filter,
            column_index: bounds
                .map(|index| &index[group][column])
                .filter(|index| !matches!(index, ColumnIndexMetaData::NONE))
                .cloned(),
            offset_index: pages.map(|index| index[group][column].clone()),
        };
        Ok((result, read))
    }
}

/// The bloom filter of a chunk, if it has a sound one.
async fn bloom_filter(
    store: &Store,
    file: &DataFile,
    chunk: &ColumnChunkMetaData,
    buffers: &Arc<Buffers>,
) -> Result<(Option<Sbbf>, u64)> {
    let place = || {
        let start = u64::try_from(chunk.bloom_filter_offset()?).ok()?;
        let length = u64::try_from(chunk.bloom_filter_length()?).ok()?;
        let end = start.checked_add(length)?;
        (length > 0 && length <= MAX_FILTER_BYTES && end <= file.bytes).then_some(start..end)
    };
    let Some(place) = place() else {
        return Ok((None, 0));
    };
    let read = place.end - place.start;
    let stored = Stored::read(store, &file.path, place, buffers).await?;
    let filter = Sbbf::from_bytes(&stored.bytes).ok();
    Ok((filter.filter(|filter| filter.num_blocks() > 0), read))
}

/// Whether a file has the columns of new files, leaf for leaf.
fn same_columns(old: &SchemaDescriptor, new: &SchemaDescriptor, lineage: bool) -> Option<Lineage> {
    let (old, new) = (old.root_schema().get_fields(), new.root_schema().get_fields());
    if old == new {
        return Some(if lineage { Lineage::Stored } else { Lineage::None });
    }
    let own = new.len().checked_sub(2).filter(|_| lineage)?;
    (old == &new[..own]).then_some(Lineage::Inherited)
}

/// Whether the statistics of a chunk can be trusted.
fn is_trusted(chunk: &ColumnChunkMetaData) -> bool {
    !chunk.statistics().is_some_and(are_of_old)
}

/// Whether every chunk lies in the file, in one piece.
fn is_whole(group: &RowGroupMetaData, file_bytes: u64) -> bool {
    group.num_rows() == 0
        || group.columns().iter().all(|chunk| {
            let data = chunk.data_page_offset();
            let start = chunk.dictionary_page_offset().unwrap_or(data);
            let end = start.checked_add(chunk.compressed_size());
            // The magic number comes first.
            let inside = start >= 4
                && data >= start
                && end.is_some_and(|end| data < end && end.cast_unsigned() <= file_bytes);
            let flat = chunk.column_descr().max_rep_level() == 0;
            inside && chunk.file_path().is_none() && (!flat || chunk.num_values() == group.num_rows())
        })
}

/// Bounds in the old fields, whose order was not defined for all types. Statistics without any bound look
/// the same.
pub(in crate::write) fn are_of_old(statistics: &Statistics) -> bool {
    let bound = statistics.min_bytes_opt().or_else(|| statistics.max_bytes_opt());
    statistics.is_min_max_deprecated() && bound.is_some()
}
