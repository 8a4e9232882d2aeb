//! How the engine reads bytes of data files: through the table's store, with checked footers.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, parquet_to_arrow_schema};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataOptions,
    ParquetMetaDataReader,
};
use tokio::sync::OnceCell;

use crate::error::{Error, Result};
use crate::model::limits::{self, ROW_GROUP_ROWS};
use crate::model::{
    PARQUET_TAIL, check_parquet_footer, is_sane_parquet_index, largest_parquet_page, parquet_footer_length,
};
use crate::store::Store;

/// Key in the metadata of a file's schema: which file it is, for messages.
pub(super) const FILE_KEY: &str = "lakehouse.file";

/// Bytes read from the end of a file in the hope that they hold the footer: a share of the file, within these bounds.
const FOOTER_SHARE: u64 = 16;
const FOOTER_GUESS: (u64, u64) = (64 << 10, 256 << 10);

/// Footers kept for one scan, in bytes of memory.
const CACHED_FOOTERS: usize = 64 << 20;

/// Makes readers of data files. Footers are parsed once per file and scan, however many parts of the
/// file are read in parallel.
#[derive(Clone)]
pub(super) struct Readers {
    store: Store,
    footers: Arc<Mutex<Footers>>,
}

#[derive(Default)]
struct Footers {
    /// Parts of a file ask for its footer at the same time: the first one reads it, the others wait.
    by_path: HashMap<String, Arc<OnceCell<Footer>>>,
    memory: usize,
}

#[derive(Clone)]
struct Footer {
    metadata: Arc<ParquetMetaData>,
    /// Where the page indexes lie, in order.
    indexes: Arc<[Range<u64>]>,
}

impl Readers {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            footers: Arc::default(),
        }
    }

    /// A reader outside of an execution plan.
    pub(super) fn open(&self, path: &str, bytes: u64) -> Reader {
        Reader {
            readers: self.clone(),
            path: path.to_owned(),
            bytes,
            metrics: None,
            indexes: Arc::default(),
        }
    }

    /// The columns that a file stores.
    pub(super) async fn schema(&self, path: &str, bytes: u64) -> Result<Schema> {
        let footer = self.footer(path, bytes).await?;
        let file = footer.metadata.file_metadata();
        Ok(parquet_to_arrow_schema(file.schema_descr(), None)?)
    }

    async fn footer(&self, path: &str, bytes: u64) -> Result<Footer> {
        let cell = Arc::clone(self.footers().by_path.entry(path.to_owned()).or_default());
        let read = || async {
            let metadata = Arc::new(checked_footer(&self.store, path, bytes, None).await?);
            let indexes = indexes(&metadata);
            self.count(path, metadata.memory_size() + size_of_val(&*indexes));
            Ok::<_, Error>(Footer { metadata, indexes })
        };
        cell.get_or_try_init(read).await.cloned()
    }

    /// A footer was read that takes so much memory: it is kept if there is room for it.
    fn count(&self, path: &str, memory: usize) {
        let mut footers = self.footers();
        if footers.memory + memory <= CACHED_FOOTERS {
            footers.memory += memory;
        } else {
            footers.by_path.remove(path);
        }
    }

    fn footers(&self) -> MutexGuard<'_, Footers> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let path = file.object_meta.location.as_ref();
        let metrics = ParquetFileMetrics::new(partition_index, path, metrics);
        let mut reader = self.open(path, file.object_meta.size);
        reader.metrics = Some(metrics);
        Ok(Box::new(reader))
    }
}

/// Reads one data file.
pub(super) struct Reader {
    readers: Readers,
    path: String,
    bytes: u64,
    metrics: Option<ParquetFileMetrics>,
    /// Where the page indexes lie, in order, once the footer is read.
    indexes: Arc<[Range<u64>]>,
}

impl Reader {
    /// What a footer or page index points at must lie in the file: stores reserve memory for what is asked.
    fn inside(&self, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && (self.bytes == 0 || range.end <= self.bytes) {
            return Ok(());
        }
        let what = format!(
            "the Parquet file is damaged: it points at bytes {} to {} of {}",
            range.start, range.end, self.bytes
        );
        Err(Error::invalid(what, &self.path))
    }

    /// Page indexes among the bytes read: the engine's parser trusts the counts in them.
    fn check_indexes(&self, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
        let first = self.indexes.partition_point(|index| index.start < range.start);
        let inside = self.indexes[first..]
            .iter()
            .take_while(|index| index.start < range.end);
        for index in inside.filter(|index| index.end <= range.end) {
            let at = |offset: u64| usize::try_from(offset - range.start).unwrap_or(usize::MAX);
            if !bytes
                .get(at(index.start)..at(index.end))
                .is_some_and(is_sane_parquet_index)
            {
                let what = "the Parquet file is damaged: a page index cannot be read";
                return Err(Error::invalid(what, &self.path));
            }
        }
        Ok(())
    }

    /// Pages of column chunks, each range from the start of one on.
    fn check_pages(&self, chunks: &[Bytes]) -> Result<()> {
        let limit = self.readers.store.limits().page_bytes;
        chunks.iter().try_for_each(|pages| {
            let largest = largest_parquet_page(pages, &self.path)?;
            limits::at_most(largest, limit, "bytes in a page", &self.path)
        })
    }

    fn count(&self, bytes: u64) {
        if let Some(metrics) = &self.metrics {
            metrics
                .bytes_scanned
                .add(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.count(range.end.saturating_sub(range.start));
        async move {
            self.inside(&range).map_err(external)?;
            let read = self.readers.store.get_range(&self.path, range.clone()).await;
            let bytes = read.map_err(external)?;
            self.check_indexes(&range, &bytes).map_err(external)?;
            Ok(bytes)
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.count(ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum());
        async move {
            for range in &ranges {
                self.inside(range).map_err(external)?;
            }
            let fetch = |range| self.readers.store.get_range(&self.path, range);
            let read =
                object_store::coalesce_ranges(&ranges, fetch, object_store::OBJECT_STORE_COALESCE_DEFAULT);
            let chunks = read.await.map_err(external)?;
            self.check_pages(&chunks).map_err(external)?;
            Ok(chunks)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let footer = self
                .readers
                .footer(&self.path, self.bytes)
                .await
                .map_err(external)?;
            self.indexes = footer.indexes;
            Ok(footer.metadata)
        }
        .boxed()
    }
}

/// Where the page indexes of a file lie, in order.
fn indexes(footer: &ParquetMetaData) -> Arc<[Range<u64>]> {
    let columns = footer.row_groups().iter().flat_map(|group| group.columns());
    let places = columns.flat_map(|column| {
        [
            (column.column_index_offset(), column.column_index_length()),
            (column.offset_index_offset(), column.offset_index_length()),
        ]
    });
    let range = |(offset, length): (Option<i64>, Option<i32>)| {
        let (start, length) = (u64::try_from(offset?).ok()?, u64::try_from(length?).ok()?);
        Some(start..start.checked_add(length)?)
    };
    let mut found: Vec<_> = places.filter_map(range).collect();
    found.sort_unstable_by_key(|place| place.start);
    found.into()
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// The footer of a data file of `bytes` bytes, with all that it says about encodings. Row groups and
/// their chunks lie inside of the file.
///
/// # Errors
/// [`Error::Invalid`] for what is no Parquet file, or a damaged one; those of the store.
pub async fn read_footer(store: &Store, path: &str, bytes: u64) -> Result<ParquetMetaData> {
    let everything = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
    checked_footer(store, path, bytes, Some(&everything)).await
}

/// Reads and checks a footer. What the writer noted about its own Arrow schema is dropped, so that
/// every file reads alike whoever wrote it, with the field ids of the Parquet schema; the file's name
/// is noted in its place.
async fn checked_footer(
    store: &Store,
    path: &str,
    bytes: u64,
    options: Option<&ParquetMetaDataOptions>,
) -> Result<ParquetMetaData> {
    let bytes = match bytes {
        0 => store.head(path).await?.map_or(0, |found| found.bytes),
        known => known,
    };
    let tail_bytes = PARQUET_TAIL as u64;
    if bytes < tail_bytes + 4 {
        return Err(Error::invalid(
            format!("not a Parquet file: it has {bytes} bytes"),
            path,
        ));
    }
    let guess = (bytes / FOOTER_SHARE).clamp(FOOTER_GUESS.0, FOOTER_GUESS.1);
    let guess_start = bytes.saturating_sub(guess);
    let end = store.get_range(path, guess_start..bytes).await?;
    let mut tail = [0; PARQUET_TAIL];
    tail.copy_from_slice(&end[end.len() - PARQUET_TAIL..]);
    let length = parquet_footer_length(tail, bytes, store.limits().parquet_footer_bytes, path)?;
    let start = bytes - tail_bytes - length;
    let footer = if start >= guess_start {
        let from = usize::try_from(start - guess_start).unwrap_or(usize::MAX);
        end.slice(from..end.len() - PARQUET_TAIL)
    } else {
        store.get_range(path, start..bytes - tail_bytes).await?
    };
    check_parquet_footer(&footer, path)?;
    let metadata = ParquetMetaDataReader::decode_metadata_with_options(&footer, options)
        .map_err(|e| Error::invalid(format!("not a Parquet file: {e}"), path))?;
    let broken = |what: String| Error::invalid(format!("the Parquet file is damaged: {what}"), path);
    check_places(&metadata, bytes).map_err(broken)?;
    Ok(named(metadata, path))
}

/// Column chunks and indexes must lie in the file, and row groups add up: readers rely on it.
fn check_places(metadata: &ParquetMetaData, bytes: u64) -> Result<(), String> {
    let end = i64::try_from(bytes).unwrap_or(i64::MAX);
    let inside = |start: i64, length: i64| {
        start >= 0 && length >= 0 && start.checked_add(length).is_some_and(|last| last <= end)
    };
    let mut rows: i64 = 0;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        if !(0..=ROW_GROUP_ROWS).contains(&group.num_rows()) {
            return Err(format!("row group {number} has {} rows", group.num_rows()));
        }
        rows = rows.saturating_add(group.num_rows());
        for column in group.columns() {
            let data = column.data_page_offset();
            let start = column.dictionary_page_offset().unwrap_or(data);
            let indexes = [
                (column.column_index_offset(), column.column_index_length()),
                (column.offset_index_offset(), column.offset_index_length()),
                (column.bloom_filter_offset(), column.bloom_filter_length()),
            ];
            let indexed = indexes.iter().all(|(offset, length)| {
                offset.is_none_or(|offset| inside(offset, length.unwrap_or(0).into()))
            });
            if !inside(start, column.compressed_size())
                || !inside(data, 0)
                || column.uncompressed_size() < 0
                || !indexed
            {
                return Err(format!(
                    "column {} of row group {number} lies outside of it",
                    column.column_path()
                ));
            }
        }
    }
    match metadata.file_metadata().num_rows() {
        total if total == rows => Ok(()),
        total => Err(format!("it claims {total} rows, its row groups have {rows}")),
    }
}

fn named(metadata: ParquetMetaData, path: &str) -> ParquetMetaData {
    let file = metadata.file_metadata();
    let mut pairs: Vec<KeyValue> = file.key_value_metadata().cloned().unwrap_or_default();
    pairs.retain(|pair| pair.key != ARROW_SCHEMA_META_KEY && pair.key != FILE_KEY);
    pairs.push(KeyValue::new(FILE_KEY.to_owned(), path.to_owned()));
    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_owned),
        Some(pairs),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let mut metadata = metadata.into_builder();
    let row_groups = metadata.take_row_groups();
    ParquetMetaDataBuilder::new(file)
        .set_row_groups(row_groups)
        .build()
}
