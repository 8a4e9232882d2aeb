//! One Parquet file at a time, encoded in memory on a blocking thread, its columns side by side.

use std::cmp::Reverse;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::basic::Encoding;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescriptor};
use rayon::iter::{IntoParallelIterator, ParallelBridge, ParallelIterator};

use super::buffers::Buffers;
use super::codec::Codec;
use super::copy::{Incoming, StoredRows};
use super::join::{self, Finished, Frame, Packing};
use super::layout::Layout;
use super::names;
use super::profile::Profiles;
use super::rows::{Rows, bytes_each, close, first_rows, prepared, whole};
use super::sink::Sink;
use crate::error::{Error, Result};
use crate::model::{CommitId, FileOrder, is_small_file};

/// Rows handed to the encoder at once: how finely file sizes are met, and how often threads wait for each other. The
/// most, and what it is at least, however many bytes they have.
const STEP_ROWS: usize = 1 << 15;
const LEAST_STEP_ROWS: usize = 8_192;
/// Bytes of rows handed to the encoder at once, about.
const STEP_BYTES: usize = 8 << 20;
/// A row group that lacks less than this share is full, as a divisor.
const FULL: usize = 8;
/// Rows that a page has at least, on average, to be kept.
const PAGE_ROWS: usize = 4 << 10;
/// For fewer values than this, waking other threads costs more than they save.
const PARALLEL_VALUES: usize = 16_384;
/// Row groups at which a file is closed: the format numbers them with 16 bits.
const MAX_GROUPS: usize = i16::MAX as usize;
/// A file exceeds its size by so much of it, as a divisor, if its last row group gets full in return.
const FULL_GROUP: u64 = 8;

/// What every file of an operation has in common.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) layout: Layout,
    /// The layout as Parquet has it.
    pub(super) parquet: SchemaDescriptor,
    pub(super) commit_id: CommitId,
    pub(super) data_prefix: &'static str,
    pub(super) target_file_bytes: u64,
    /// Rows and (anticipated) bytes at which a row group is closed.
    pub(super) row_group_rows: usize,
    pub(super) row_group_bytes: usize,
    /// Bytes of rows that are stored elsewhere that wait until there are enough of them for a row group.
    pub(super) stored_bytes: usize,
    pub(super) codec: Codec,
    pub(super) order: Option<Arc<FileOrder>>,
    /// New files have no page indexes.
    pub(super) without_indexes: AtomicBool,
    pub(super) profiles: Profiles,
    /// For what is written, and for what is read to be moved.
    pub(super) buffers: Arc<Buffers>,
    pub(super) reads: Arc<Buffers>,
}

/// A file that is being encoded.
pub(super) struct Encoder {
    path: String,
    writer: SerializedFileWriter<Sink>,
    schema: SchemaRef,
    /// The row group that is being encoded.
    group: Option<OpenGroup>,
    /// The row groups have page indexes: all of them, or none.
    indexed: bool,
    /// Bytes of the row group that was written last.
    last_group: u64,
    max_group_rows: usize,
    max_group_bytes: usize,
    /// By leaf; `None` where a row group was copied whose NaNs nobody counted.
    nans: Vec<Option<u64>>,
    rows: u64,
}

/// A column that is encoded while others are copied.
struct Beside {
    writer: ArrowColumnWriter,
    field: FieldRef,
    values: ArrayRef,
}

struct OpenGroup {
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

/// A file that is complete, apart from what was taken out of the encoder before.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) path: String,
    /// The bytes that were not taken yet.
    pub(super) rest: Vec<Bytes>,
    /// Size of the whole file.
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) metadata: ParquetMetaData,
    pub(super) nans: Vec<Option<u64>>,
}

/// The schema of a file with this layout as Parquet has it.
///
/// # Errors
/// When a column has a type that Parquet cannot store.
pub(super) fn parquet_schema(layout: &Layout) -> Result<SchemaDescriptor> {
    // Lists and maps get the names that the Parquet format prescribes, as other engines expect.
    let converter = ArrowSchemaConverter::new().with_coerce_types(true);
    Ok(converter.convert(&layout.file)?)
}

impl Recipe {
    /// Encodes rows into the open file, if there is one, and new ones below `folder`; files that
    /// reach the target size are completed, the last one too if `close` says so.
    pub(super) fn encode(
        &self,
        folder: &str,
        mut open: Option<Encoder>,
        rows: Vec<Rows>,
        close: bool,
    ) -> Result<(Option<Encoder>, Vec<Encoded>)> {
        let mut complete = Vec::new();
        let mut left = prepared(rows, &self.layout)?;
        let most = [
            self.batch_rows(bytes_each(&left, false)),
            self.stored_rows(bytes_each(&left, true)),
        ];
        while let Some(first) = left.front() {
            let most = most[usize::from(first.is_stored())];
            let encoder = self.open(folder, &mut open)?;
            if let Some(parts) = whole(&left).filter(|parts| self.make_a_group(encoder, parts, close)) {
                encoder.join(self, &parts)?;
                self.complete_if_full(&mut open, &mut complete)?;
                break;
            }
            let step = first_rows(&mut left, encoder.room().min(most));
            encoder.write(self, &step)?;
            self.complete_if_full(&mut open, &mut complete)?;
        }
        if close {
            complete.extend(open.take().map(|encoder| encoder.finish(self)).transpose()?);
        }
        Ok((open, complete))
    }

    /// Copies a row group into the open file, or into a new one below `folder` where that comes closer to
    /// the target size.
    pub(super) fn copy(
        &self,
        folder: &str,
        mut open: Option<Encoder>,
        group: Incoming,
    ) -> Result<(Option<Encoder>, Vec<Encoded>)> {
        let mut complete = Vec::new();
        if let Some(encoder) = &mut open {
            let before = encoder.size();
            let missing = self.target_file_bytes.saturating_sub(before);
            let exceeding = (before + group.bytes).saturating_sub(self.target_file_bytes);
            let large = self.is_large(before);
            // Page indexes are all or nothing, see `Encoder::leave_indexes_out`.
            if (large && exceeding > missing) || !(group.indexed || encoder.leave_indexes_out()) {
                complete.extend(open.take().map(|encoder| encoder.finish(self)).transpose()?);
            }
        }
        let indexed = group.indexed;
        let encoder = self.open(folder, &mut open)?;
        if !indexed {
            encoder.leave_indexes_out();
        }
        encoder.copy(self, group)?;
        self.complete_if_full(&mut open, &mut complete)?;
        Ok((open, complete))
    }

    fn open<'a>(&self, folder: &str, open: &'a mut Option<Encoder>) -> Result<&'a mut Encoder> {
        Ok(match open {
            Some(encoder) => encoder,
            None => open.insert(Encoder::new(self, folder)?),
        })
    }

    /// Rows of batches that are encoded at once, if each has so many bytes in memory.
    fn batch_rows(&self, each: Option<usize>) -> usize {
        let bytes = STEP_BYTES.min(self.share()).min(self.row_group_bytes);
        (bytes / each.unwrap_or(1).max(1)).clamp(LEAST_STEP_ROWS, STEP_ROWS)
    }

    /// The same of rows that are stored elsewhere with so many bytes each. They are decoded a few at a time: nothing
    /// speaks against a whole row group but the size of the file.
    fn stored_rows(&self, each: Option<usize>) -> usize {
        (self.share() / each.unwrap_or(1).max(1)).max(LEAST_STEP_ROWS)
    }

    /// Whether these row groups, together, are one of a new file.
    fn make_a_group(&self, encoder: &Encoder, parts: &[&StoredRows], last: bool) -> bool {
        let rows: usize = parts.iter().map(|part| part.len()).sum();
        let bytes: usize = parts.iter().map(|part| part.bytes_each() * part.len()).sum();
        let nearly = |all: usize| all - all / FULL;
        let full = last || rows >= nearly(self.row_group_rows) || bytes >= nearly(self.stored_bytes);
        let size = encoder.size() + bytes as u64;
        encoder.group.is_none()
            && full
            && rows * self.layout.leaves.len() >= PARALLEL_VALUES
            && rows <= self.row_group_rows
            && size <= self.target_file_bytes + self.target_file_bytes / FULL_GROUP
    }

    /// How pages of codes are compressed; `None` for codecs that only the encoder knows.
    pub(super) fn packing(&self) -> Option<Packing> {
        Packing::of(self.codec.parquet(), self.codec != Codec::default())
    }

    /// Rows that pages have at least, on average, to be kept.
    pub(super) fn page_rows(&self) -> usize {
        PAGE_ROWS.min(self.row_group_rows / 64)
    }

    /// By so many bytes a file may miss its size.
    fn share(&self) -> usize {
        usize::try_from(self.target_file_bytes / 8).unwrap_or(usize::MAX)
    }

    fn complete_if_full(&self, open: &mut Option<Encoder>, complete: &mut Vec<Encoded>) -> Result<()> {
        let Some(encoder) = open else { return Ok(()) };
        let many = encoder.groups() >= MAX_GROUPS;
        let (size, target) = (encoder.size(), self.target_file_bytes);
        let waits = match &encoder.group {
            // A last row group that is nearly full would stay so: better a file that is a little larger.
            Some(_) => size < target || (size - target) + encoder.missing() <= target / FULL_GROUP,
            // Another one would take it further away from the size than it is now.
            None => size + encoder.last_group / 2 < target,
        };
        if !many && waits {
            return Ok(());
        }
        // What the open row group takes is known for certain once it is closed. It can be much less, and a file that is
        // closed while it is small is one that the next compaction takes up again.
        encoder.flush(self)?;
        if many || self.is_large(encoder.size()) {
            complete.extend(open.take().map(|encoder| encoder.finish(self)).transpose()?);
        }
        Ok(())
    }

    /// Whether a file of so many bytes is as large as it should be, which compactions judge in the same way.
    fn is_large(&self, bytes: u64) -> bool {
        !is_small_file(bytes, self.target_file_bytes)
    }
}

impl Recipe {
    /// How the next row group is stored.
    fn properties(&self) -> WriterProperties {
        // No copy of the Arrow schema in the file: types are the table's, and it would weigh more than a
        // small file.
        let properties = WriterProperties::builder()
            .set_compression(self.codec.parquet())
            .set_coerce_types(true);
        let all_compressed = self.codec != Codec::default();
        let mut properties = self.profiles.apply(properties, all_compressed);
        let fields = self.layout.file.fields();
        let own = fields.len().checked_sub(2).filter(|_| self.layout.lineage);
        for field in fields.iter().skip(own.unwrap_or(fields.len())) {
            // An id hardly comes twice, and most are one more than the one before; sequence numbers are mostly the same.
            let column = || ColumnPath::from(field.name().as_str());
            properties = properties
                .set_column_dictionary_enabled(column(), false)
                .set_column_encoding(column(), Encoding::DELTA_BINARY_PACKED);
        }
        if let Some(order) = &self.order {
            let note = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
            properties = properties
                .set_key_value_metadata(Some(vec![
                    note(FileOrder::NAME_KEY, &order.name),
                    note(FileOrder::RUN_KEY, &self.commit_id.0),
                    note(FileOrder::TARGET_KEY, &self.target_file_bytes.to_string()),
                ]))
                .set_sorting_columns(self.layout.sorting_columns(&order.sorted_by));
        }
        properties.build()
    }

    fn writer<W: Write + Send>(&self, out: W) -> Result<SerializedFileWriter<W>> {
        let root = self.parquet.root_schema_ptr();
        Ok(SerializedFileWriter::new(out, root, Arc::new(self.properties()))?)
    }

    /// The columns of the next row group, which has this number in its file.
    fn columns(&self, number: usize) -> Result<Vec<ArrowColumnWriter>> {
        // Columns take their properties from a file, and a file has the same for all of its row groups.
        let file = self.writer(io::sink())?;
        let factory = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&self.layout.file));
        Ok(factory.create_column_writers(number)?)
    }
}

impl Encoder {
    fn new(recipe: &Recipe, folder: &str) -> Result<Self> {
        Ok(Self {
            path: names::next(recipe.data_prefix, folder, &recipe.commit_id),
            writer: recipe.writer(Sink::new(Arc::clone(&recipe.buffers)))?,
            schema: Arc::clone(&recipe.layout.file),
            group: None,
            indexed: !recipe.without_indexes.load(Ordering::Relaxed),
            last_group: 0,
            max_group_rows: recipe.row_group_rows,
            max_group_bytes: recipe.row_group_bytes,
            nans: vec![Some(0); recipe.layout.leaves.len()],
            rows: 0,
        })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Encodes rows that the open row group has room for.
    fn write(&mut self, recipe: &Recipe, step: &[Rows]) -> Result<()> {
        self.encode(recipe, step)?;
        if self.room() == 0 {
            self.flush(recipe)?;
        }
        Ok(())
    }

    /// Rows that the open row group has room for, if they weigh what its rows weigh so far.
    fn room(&self) -> usize {
        let Some(group) = &self.group else {
            return self.max_group_rows;
        };
        let bytes = group.bytes();
        let each = (bytes / group.rows.max(1)).max(1);
        let by_rows = self.max_group_rows.saturating_sub(group.rows);
        by_rows.min(self.max_group_bytes.saturating_sub(bytes) / each)
    }

    /// Bytes that the open row group lacks until it is full, about.
    fn missing(&self) -> u64 {
        let each = |group: &OpenGroup| group.bytes() / group.rows.max(1);
        let each = self.group.as_ref().map_or(0, each);
        (self.room() * each) as u64
    }

    fn encode(&mut self, recipe: &Recipe, step: &[Rows]) -> Result<()> {
        let number = self.groups();
        let group = match &mut self.group {
            Some(group) => group,
            None => self.group.insert(OpenGroup {
                columns: recipe.columns(number)?,
                rows: 0,
            }),
        };
        let rows: usize = step.iter().map(Rows::len).sum();
        group.rows += rows;
        self.rows += rows as u64;
        let parallel = rows * group.columns.len() >= PARALLEL_VALUES;
        let leaves = &recipe.parquet;
        let root_of = |leaf: usize| leaves.get_column_root_idx(leaf);
        let mut fields = Vec::with_capacity(self.schema.fields().len());
        let (mut columns, mut nans) = (group.columns.as_mut_slice(), self.nans.as_mut_slice());
        let mut leaf = 0;
        while !columns.is_empty() {
            let field = root_of(leaf);
            let own = (leaf..leaves.num_columns()).take_while(|leaf| root_of(*leaf) == field);
            let own = own.count();
            leaf += own;
            let (first, rest) = columns.split_at_mut(own);
            let (counts, others) = nans.split_at_mut(own);
            fields.push((field, first, counts));
            (columns, nans) = (rest, others);
        }
        let schema = &self.schema;
        let write = |(number, columns, nans): (usize, &mut [_], &mut [_])| {
            let field = &schema.fields()[number];
            step.iter()
                .try_for_each(|rows| rows.encode(number, field, columns, nans))
        };
        if parallel {
            // The largest first, so that no thread waits for one that came last.
            let bytes = |column: &ArrowColumnWriter| column.get_estimated_total_bytes();
            fields.sort_by_cached_key(|(_, columns, _)| Reverse(columns.iter().map(bytes).sum::<usize>()));
            fields.into_iter().par_bridge().try_for_each(write)
        } else {
            fields.into_iter().try_for_each(write)
        }
    }

    /// Closes the open row group.
    fn flush(&mut self, recipe: &Recipe) -> Result<()> {
        let Some(group) = self.group.take() else {
            return Ok(());
        };
        let close = |column| close(column, self.indexed).map(Finished::Encoded);
        let chunks: Vec<_> = if group.rows * group.columns.len() < PARALLEL_VALUES {
            group.columns.into_iter().map(close).collect::<Result<_>>()?
        } else {
            group.columns.into_par_iter().map(close).collect::<Result<_>>()?
        };
        self.append(recipe, group.rows, chunks)
    }

    /// Puts row groups of other files together as one.
    fn join(&mut self, recipe: &Recipe, parts: &[&StoredRows]) -> Result<()> {
        let frame = Frame {
            fields: self.schema.fields(),
            parquet: &recipe.parquet,
            packing: recipe.packing(),
            indexed: self.indexed,
            page_rows: recipe.page_rows(),
        };
        let columns = recipe.columns(self.groups())?;
        let chunks = join::row_group(frame, parts, columns, &mut self.nans)?;
        let rows = parts.iter().map(|part| part.len()).sum();
        self.rows += rows as u64;
        self.append(recipe, rows, chunks)
    }

    /// Appends a row group that is complete.
    fn append(&mut self, recipe: &Recipe, rows: usize, chunks: Vec<Finished>) -> Result<()> {
        recipe
            .profiles
            .learn(rows, chunks.iter().filter_map(Finished::encoded));
        let bytes: u64 = chunks.iter().map(|chunk| chunk.close().bytes_written).sum();
        self.writer.inner_mut().expect(bytes);
        let before = self.writer.bytes_written();
        let mut out = self.writer.next_row_group()?;
        for chunk in chunks {
            chunk.append(&mut out)?;
        }
        out.close()?;
        self.last_group = (self.writer.bytes_written() - before) as u64;
        Ok(())
    }

    /// Appends a row group as it is stored elsewhere, and the lineage columns where it has none.
    fn copy(&mut self, recipe: &Recipe, mut group: Incoming) -> Result<()> {
        self.flush(recipe)?;
        // Nobody listens any more if reading has failed.
        let _ = group.place.send((self.path.clone(), self.rows));
        let beside = match group.lineage.take() {
            Some(values) => self.beside(recipe, values)?,
            None => Vec::new(),
        };
        self.writer.inner_mut().expect(group.bytes);
        let before = self.writer.bytes_written();
        let indexed = self.indexed;
        let mut out = self.writer.next_row_group()?;
        let mut encoded: Vec<Option<Result<ArrowColumnChunk>>> = beside.iter().map(|_| None).collect();
        rayon::in_place_scope(|scope| {
            for (column, encoded) in beside.into_iter().zip(&mut encoded) {
                scope.spawn(move |_| *encoded = Some(column.encode(indexed)));
            }
            for _ in 0..group.columns {
                let Some(mut chunk) = group.chunks.blocking_recv() else {
                    return Err(Error::invalid(
                        "reading a row group that is copied stopped",
                        self.path.as_str(),
                    ));
                };
                if !indexed {
                    (chunk.close.column_index, chunk.close.offset_index) = (None, None);
                }
                out.append_column(&chunk.stored, chunk.close)?;
            }
            Ok(())
        })?;
        for chunk in encoded.into_iter().flatten() {
            chunk?.append_to_row_group(&mut out)?;
        }
        out.close()?;
        self.last_group = (self.writer.bytes_written() - before) as u64;
        self.rows += group.rows;
        for (sum, nans) in self.nans.iter_mut().zip(&group.nans) {
            *sum = sum.zip(*nans).map(|(a, b)| a + b);
        }
        Ok(())
    }

    /// The last columns of the next row group, with their values.
    fn beside(&self, recipe: &Recipe, values: [ArrayRef; 2]) -> Result<Vec<Beside>> {
        let mut writers = recipe.columns(self.groups())?;
        let own = writers.len() - values.len();
        let fields = self.schema.fields().iter().rev().take(values.len()).rev();
        let columns = writers.drain(own..).zip(fields.cloned()).zip(values);
        Ok(columns
            .map(|((writer, field), values)| Beside {
                writer,
                field,
                values,
            })
            .collect())
    }

    /// From now on, row groups have no page indexes; false if some have. A file where some column chunks
    /// have an offset index and others have none is legal, but parquet 59 panics when it closes one
    /// (`ThriftMetadataWriter::finalize_offset_indexes`), and when it reads one, it ignores all of them.
    fn leave_indexes_out(&mut self) -> bool {
        if self.indexed && self.groups() == 0 {
            self.indexed = false;
        }
        !self.indexed
    }

    /// Row groups that are complete.
    fn groups(&self) -> usize {
        self.writer.flushed_row_groups().len()
    }

    /// Bytes that the file would have if it ended here, about.
    fn size(&self) -> u64 {
        (self.writer.bytes_written() + self.group.as_ref().map_or(0, OpenGroup::bytes)) as u64
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        let columns = self.group.iter().flat_map(|group| &group.columns);
        columns.map(ArrowColumnWriter::memory_size).sum::<usize>() + self.writer.inner().memory()
    }

    /// Bytes that could be taken.
    pub(super) fn ready(&self) -> usize {
        self.writer.inner().ready()
    }

    /// Takes the encoded bytes that are ready to be stored.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.writer.inner_mut().take_full()
    }

    fn finish(mut self, recipe: &Recipe) -> Result<Encoded> {
        self.flush(recipe)?;
        let metadata = self.writer.finish()?;
        let bytes = self.writer.bytes_written() as u64;
        let rest = self.writer.inner_mut().take_all();
        Ok(Encoded {
            path: self.path,
            rest,
            bytes,
            rows: self.rows,
            metadata,
            nans: self.nans,
        })
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl OpenGroup {
    /// Bytes that it would have if it ended here, about.
    fn bytes(&self) -> usize {
        self.columns
            .iter()
            .map(ArrowColumnWriter::get_estimated_total_bytes)
            .sum()
    }
}

impl Beside {
    fn encode(mut self, indexed: bool) -> Result<ArrowColumnChunk> {
        for leaf in compute_leaves(&self.field, &self.values)? {
            self.writer.write(&leaf)?;
        }
        close(self.writer, indexed)
    }
}
