//! A file of a checkpoint, read as a stream (Delta protocol, "Checkpoint Schema"): of the files that a sieve holds back,
//! only the columns that the sieve asks for are decoded.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicate, ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, RowFilter,
};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::SchemaDescriptor;

use super::actions::{AddFile, Texts, Vector};
use super::listing::{Batch, Decided, Sidecar};
use super::log;
use super::sieve::Sieve;
use crate::error::{Error, Result};
use crate::store::Store;

/// Read from the end of a file in the hope that it holds the footer.
const FOOTER_GUESS: usize = 64 << 10;
/// Rows decoded together, if statistics as text do not take more than so many bytes.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: u64 = 8 << 20;

/// The bytes of a file, from a store that has looked at its footer.
#[derive(Clone)]
struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    bytes: u64,
}

impl AsyncFileReader for Object {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.store
            .get_range(&self.path, range)
            .map_err(Into::into)
            .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { Ok(self.store.get_ranges(&self.path, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_GUESS));
            let bytes = self.bytes;
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}

/// A file of a checkpoint whose footer is read.
pub(super) struct Part {
    reader: Object,
    metadata: ArrowReaderMetadata,
    key: String,
}

impl Part {
    /// Reads the footer of a file of so many bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no Parquet file, [`Error::Limit`] when its footer is too large.
    pub(super) async fn open(store: &Store, key: &str, bytes: u64) -> Result<Self> {
        let path = Path::parse(key).map_err(|e| Error::invalid(format!("this is no name: {e}"), key))?;
        let mut reader = Object {
            store: store.guarded(log::bound),
            path,
            bytes,
        };
        let failed = |error| failed(error, key);
        // What writers say of Arrow's types is not the format's: dictionaries, other offsets.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load_async(&mut reader, options.clone()).await;
        let metadata = metadata.map_err(failed)?;
        let options = options.with_schema(as_read(metadata.schema(), metadata.parquet_schema()));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options);
        Ok(Self {
            reader,
            metadata: metadata.map_err(failed)?,
            key: key.to_owned(),
        })
    }

    /// The columns whose path starts like one of these.
    fn mask(&self, wanted: impl Fn(&[String]) -> bool) -> ProjectionMask {
        let schema = self.metadata.parquet_schema();
        let leaves = (0..schema.num_columns()).filter(|at| wanted(schema.column(*at).path().parts()));
        ProjectionMask::leaves(schema, leaves)
    }

    /// Whether there is a column whose path starts so.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        let schema = self.metadata.parquet_schema();
        (0..schema.num_columns()).any(|at| starts(schema.column(at).path().parts(), path))
    }

    /// The files that this one names.
    pub(super) async fn sidecars(&self) -> Result<Vec<Sidecar>> {
        if !self.has(&["sidecar", "path"]) {
            return Ok(Vec::new());
        }
        let wanted =
            |path: &[String]| starts(path, &["sidecar", "path"]) || starts(path, &["sidecar", "sizeInBytes"]);
        let rows = self.builder().with_projection(self.mask(wanted)).build();
        let mut rows = rows.map_err(|e| failed(e, &self.key))?;
        let mut found = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|e| failed(e, &self.key))?;
            let Some(sidecars) = batch.column_by_name("sidecar").and_then(|c| c.as_struct_opt()) else {
                continue;
            };
            let (paths, sizes) = (
                Texted::of(sidecars, "path")?,
                Numbers::long(sidecars, "sizeInBytes")?,
            );
            for row in (0..sidecars.len()).filter(|row| sidecars.is_valid(*row)) {
                let (Some(path), Some(size)) = (paths.get(row), sizes.get(row)) else {
                    return Err(Error::invalid("a sidecar has no path or size", &self.key));
                };
                found.push(Sidecar {
                    path: path.to_owned(),
                    size_in_bytes: u64::try_from(size)
                        .map_err(|_| Error::invalid("a sidecar has a negative size", &self.key))?,
                });
            }
        }
        Ok(found)
    }

    /// Hands on the rows, of which only these actions are read.
    pub(super) async fn rows(
        &self,
        wanted: &[&str],
        mut visit: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        if !wanted.iter().any(|action| self.has(&[action])) {
            return Ok(());
        }
        let mask = self.mask(|path| wanted.iter().any(|action| starts(path, &[action])));
        let rows = self.builder().with_projection(mask).build();
        let mut rows = rows.map_err(|e| failed(e, &self.key))?;
        while let Some(batch) = rows.next().await {
            visit(&batch.map_err(|e| failed(e, &self.key))?)?;
        }
        Ok(())
    }

    fn builder(&self) -> ParquetRecordBatchStreamBuilder<Object> {
        ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone())
            // Columns that decide are read again for the few rows that are kept.
            .with_max_predicate_cache_size(0)
            .with_batch_size(self.batch_rows())
    }

    /// Rows of which the statistics are about as large as a batch may be.
    fn batch_rows(&self) -> usize {
        let groups = self.metadata.metadata().row_groups();
        let rows: u64 = groups
            .iter()
            .map(|group| group.num_rows().max(0).cast_unsigned())
            .sum();
        let columns = groups.iter().flat_map(|group| group.columns());
        let stats = columns.filter(|column| starts(column.column_path().parts(), &["add", "stats"]));
        let bytes: u64 = stats
            .map(|column| column.uncompressed_size().max(0).cast_unsigned())
            .sum();
        let fit = BATCH_BYTES.saturating_mul(rows) / bytes.max(1);
        usize::try_from(fit).unwrap_or(BATCH_ROWS).clamp(64, BATCH_ROWS)
    }

    /// Whether statistics are there as text: they may be there as columns only.
    fn has_text(&self) -> bool {
        let groups = self.metadata.metadata().row_groups();
        let mut columns = groups.iter().flat_map(|group| group.columns());
        columns.any(|column| {
            let empty = column.statistics().and_then(|stats| stats.null_count_opt());
            starts(column.column_path().parts(), &["add", "stats"])
                && empty.is_none_or(|nulls| nulls < column.num_values().max(0).cast_unsigned())
        })
    }

    /// Hands on the files that are not decided and that the sieve lets through; `false` when nobody asks any more.
    pub(super) async fn files<S: AsyncFn(Batch) -> bool>(
        &self,
        decided: &Arc<Decided>,
        sieve: Option<&Arc<Sieve>>,
        send: &S,
    ) -> Result<bool> {
        if !self.has(&["add", "path"]) {
            return Ok(true);
        }
        let mut predicates: Vec<Box<dyn ArrowPredicate>> = Vec::new();
        let undecided = Arc::clone(decided);
        // Which files there are is asked first, and which partitions they are in: of the others nothing else is read.
        let alive = !decided.is_empty();
        let by_partition = sieve.is_some_and(|sieve| sieve.asks_partitions());
        if alive || sieve.is_some() {
            let mask = self.mask(|path| {
                starts(path, &["add", "size"])
                    || (alive && (starts(path, &["add", "path"]) || starts(path, &["add", "deletionVector"])))
                    || (by_partition && starts(path, &["add", "partitionValues"]))
            });
            let sieve = sieve.cloned();
            predicates.push(predicate(mask, move |adds| {
                let mut keep = alive_of(adds, &undecided)?;
                if let Some(sieve) = &sieve {
                    sieve.by_partition(adds, &mut keep)?;
                }
                Ok(keep)
            }));
        }
        if let Some(sieve) = sieve.filter(|sieve| sieve.asks_statistics()) {
            let columns = sieve.columns(self);
            let mask = self.mask(|path| {
                columns.wants(path)
                    || starts(path, &["add", "size"])
                    || (by_partition && starts(path, &["add", "partitionValues"]))
            });
            let sieve = Arc::clone(sieve);
            predicates.push(predicate(mask, move |adds| sieve.by_statistics(&columns, adds)));
        }
        let text = self.has_text() || !self.has(&["add", "stats_parsed"]);
        let mask = self.mask(|path| {
            let passed_over = match text {
                true => starts(path, &["add", "stats_parsed"]),
                false => starts(path, &["add", "stats"]),
            };
            starts(path, &["add"]) && !passed_over && !starts(path, &["add", "partitionValues_parsed"])
        });
        let mut rows = self
            .builder()
            .with_projection(mask)
            .with_row_filter(RowFilter::new(predicates))
            .build()
            .map_err(|e| failed(e, &self.key))?;
        while let Some(batch) = rows.next().await {
            let adds = read(&batch.map_err(|e| failed(e, &self.key))?)?;
            let batch = Batch {
                adds,
                sifted: sieve.is_some(),
            };
            if !batch.adds.is_empty() && !send(batch).await {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How columns are read: strings as they lie in the pages (most of a checkpoint is statistics as text), and the times
/// that Spark writes in twelve bytes (INT96) as microseconds, since nanoseconds do not reach far enough.
fn as_read(schema: &SchemaRef, parquet: &SchemaDescriptor) -> SchemaRef {
    let columns = parquet.columns().iter();
    let wide = columns.filter(|column| column.physical_type() == Type::INT96);
    let wide: HashSet<&[String]> = wide.map(|column| column.path().parts()).collect();
    fn typed(field: &Field, parents: &[String], wide: &HashSet<&[String]>) -> Field {
        let mut path = parents.to_vec();
        path.push(field.name().clone());
        let data_type = match field.data_type() {
            DataType::Struct(inner) => {
                let inner = inner.iter().map(|inner| typed(inner, &path, wide));
                DataType::Struct(inner.collect::<Vec<_>>().into())
            }
            DataType::Timestamp(..) if wide.contains(path.as_slice()) => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            DataType::Utf8 if starts(&path, &["add", "stats"]) || starts(&path, &["add", "path"]) => {
                DataType::Utf8View
            }
            other => other.clone(),
        };
        field.clone().with_data_type(data_type)
    }
    let fields = schema.fields().iter().map(|top| typed(top, &[], &wide));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(super) fn starts(path: &[String], with: &[&str]) -> bool {
    path.len() >= with.len() && path.iter().zip(with).all(|(a, b)| a == b)
}

fn predicate(
    mask: ProjectionMask,
    mut keep: impl FnMut(&StructArray) -> Result<Vec<bool>> + Send + 'static,
) -> Box<dyn ArrowPredicate> {
    Box::new(ArrowPredicateFn::new(mask, move |batch: RecordBatch| {
        let kept = adds_of(&batch).and_then(&mut keep);
        kept.map(BooleanArray::from)
            .map_err(|error| ArrowError::ExternalError(Box::new(error)))
    }))
}

fn adds_of(batch: &RecordBatch) -> Result<&StructArray> {
    let adds = batch
        .column_by_name("add")
        .and_then(|column| column.as_struct_opt());
    adds.ok_or_else(|| wrong("add"))
}

/// Which rows are files that are not decided yet.
fn alive_of(adds: &StructArray, decided: &Decided) -> Result<Vec<bool>> {
    let mut keep: Vec<bool> = (0..adds.len()).map(|row| adds.is_valid(row)).collect();
    if decided.is_empty() {
        return Ok(keep);
    }
    let (paths, vectors) = (Texted::of(adds, "path")?, Vectors::of(adds)?);
    for (row, keep) in keep.iter_mut().enumerate().filter(|(_, keep)| **keep) {
        let vector = || vectors.get(row).map(|vector| vector.id());
        *keep = paths.get(row).is_some_and(|path| !decided.has(path, vector));
    }
    Ok(keep)
}

/// Rows as `add` actions; those without one are left out.
fn read(batch: &RecordBatch) -> Result<Vec<AddFile>> {
    let adds = adds_of(batch)?;
    let (paths, stats) = (Texted::of(adds, "path")?, Texted::of(adds, "stats")?);
    let parsed = adds.column_by_name("stats_parsed").map(texts_of).transpose()?;
    let (size, modified) = (
        Numbers::long(adds, "size")?,
        Numbers::long(adds, "modificationTime")?,
    );
    let (row_id, commit) = (
        Numbers::long(adds, "baseRowId")?,
        Numbers::long(adds, "defaultRowCommitVersion")?,
    );
    let (vectors, clustering) = (Vectors::of(adds)?, Texted::of(adds, "clusteringProvider")?);
    let mut files = Vec::new();
    for row in (0..adds.len()).filter(|row| adds.is_valid(*row)) {
        let Some(path) = paths.get(row) else { continue };
        let stats = stats.get(row).map(str::to_owned);
        files.push(AddFile {
            path: path.to_owned(),
            partition_values: texts(adds, "partitionValues", row)?.unwrap_or_default(),
            size: size.get(row).unwrap_or_default(),
            modification_time: modified.get(row).unwrap_or_default(),
            data_change: false,
            stats: stats.or_else(|| parsed.as_ref().and_then(|parsed| parsed[row].clone())),
            tags: texts(adds, "tags", row)?,
            deletion_vector: vectors.get(row),
            base_row_id: row_id.get(row),
            default_row_commit_version: commit.get(row),
            clustering_provider: clustering.get(row).map(str::to_owned),
        });
    }
    Ok(files)
}

/// Statistics that are there as columns, as the text that the log would have.
fn texts_of(parsed: &Arc<dyn Array>) -> Result<Vec<Option<String>>> {
    let Some(rows) = parsed.as_struct_opt() else {
        return Err(wrong("stats_parsed"));
    };
    let mut texts = Vec::with_capacity(rows.len());
    for row in 0..rows.len() {
        if rows.is_null(row) {
            texts.push(None);
            continue;
        }
        let one = RecordBatch::from(rows.slice(row, 1));
        let mut text = Vec::new();
        let mut writer = arrow::json::LineDelimitedWriter::new(&mut text);
        writer.write(&one)?;
        writer.finish()?;
        drop(writer);
        texts.push(
            String::from_utf8(text)
                .ok()
                .map(|text| text.trim_end().to_owned()),
        );
    }
    Ok(texts)
}

/// A column of texts; all NULL if it is not there.
pub(super) struct Texted(Option<arrow::array::StringViewArray>);

impl Texted {
    pub(super) fn of(of: &StructArray, name: &str) -> Result<Self> {
        let Some(column) = of.column_by_name(name) else {
            return Ok(Self(None));
        };
        let views = match column.data_type() {
            DataType::Utf8View => Arc::clone(column),
            DataType::Utf8 => cast(column, &DataType::Utf8View)?,
            DataType::Null => return Ok(Self(None)),
            _ => return Err(wrong(name)),
        };
        Ok(Self(Some(views.as_string_view().clone())))
    }

    pub(super) fn get(&self, row: usize) -> Option<&str> {
        self.0
            .as_ref()
            .filter(|values| values.is_valid(row))
            .map(|values| values.value(row))
    }
}

/// A column of numbers; all NULL if it is not there.
pub(super) struct Numbers(Option<arrow::array::Int64Array>);

impl Numbers {
    pub(super) fn long(of: &StructArray, name: &str) -> Result<Self> {
        let Some(column) = of.column_by_name(name) else {
            return Ok(Self(None));
        };
        match column.data_type() {
            DataType::Int64 => Ok(Self(Some(column.as_primitive::<Int64Type>().clone()))),
            DataType::Int32 => {
                let values = column.as_primitive::<Int32Type>();
                Ok(Self(Some(values.unary(i64::from))))
            }
            _ => Err(wrong(name)),
        }
    }

    pub(super) fn get(&self, row: usize) -> Option<i64> {
        self.0
            .as_ref()
            .filter(|values| values.is_valid(row))
            .map(|values| values.value(row))
    }
}

/// Deletion vectors of files.
struct Vectors(Option<VectorColumns>);

struct VectorColumns {
    whole: StructArray,
    storage: Texted,
    place: Texted,
    offset: Numbers,
    bytes: Numbers,
    rows: Numbers,
}

impl Vectors {
    fn of(adds: &StructArray) -> Result<Self> {
        let Some(column) = adds.column_by_name("deletionVector") else {
            return Ok(Self(None));
        };
        let whole = column.as_struct_opt().ok_or_else(|| wrong("deletionVector"))?;
        Ok(Self(Some(VectorColumns {
            storage: Texted::of(whole, "storageType")?,
            place: Texted::of(whole, "pathOrInlineDv")?,
            offset: Numbers::long(whole, "offset")?,
            bytes: Numbers::long(whole, "sizeInBytes")?,
            rows: Numbers::long(whole, "cardinality")?,
            whole: whole.clone(),
        })))
    }

    fn get(&self, row: usize) -> Option<Vector> {
        let columns = self.0.as_ref().filter(|columns| columns.whole.is_valid(row))?;
        Some(Vector {
            storage_type: columns.storage.get(row)?.to_owned(),
            path_or_inline_dv: columns.place.get(row).unwrap_or_default().to_owned(),
            offset: columns.offset.get(row),
            size_in_bytes: columns.bytes.get(row).unwrap_or_default(),
            cardinality: columns.rows.get(row).unwrap_or_default(),
        })
    }
}

fn texts(of: &StructArray, name: &str, row: usize) -> Result<Option<Texts>> {
    let Some(column) = of.column_by_name(name) else {
        return Ok(None);
    };
    let maps = column.as_map_opt().ok_or_else(|| wrong(name))?;
    if maps.is_null(row) {
        return Ok(None);
    }
    let entries = maps.value(row);
    let (Some(keys), Some(values)) = (
        entries.column(0).as_string_opt::<i32>(),
        entries.column(1).as_string_opt::<i32>(),
    ) else {
        return Err(wrong(name));
    };
    Ok(Some(
        keys.iter()
            .zip(values.iter())
            .filter_map(|(key, value)| Some((key?.to_owned(), value.map(str::to_owned))))
            .collect(),
    ))
}

pub(super) fn wrong(name: &str) -> Error {
    Error::invalid(
        format!("the checkpoint has column {name} in another type"),
        "_delta_log",
    )
}

fn failed(error: ParquetError, key: &str) -> Error {
    if let Some(ours) = Error::within(&error) {
        return ours;
    }
    match error {
        ParquetError::External(source) => match source.downcast::<object_store::Error>() {
            Ok(source) => Error::Store {
                action: "read",
                path: key.to_owned(),
                source: *source,
            },
            Err(source) => Error::invalid(format!("the checkpoint cannot be read: {source}"), key),
        },
        error => Error::invalid(format!("the checkpoint cannot be read: {error}"), key),
    }
}
