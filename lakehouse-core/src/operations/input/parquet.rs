//! Reading a Parquet file, its columns side by side.

use std::fs::File;
use std::io::{Read, Result as IoResult, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchReader};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::Result;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};
use rayon::iter::{IntoParallelRefMutIterator, ParallelIterator};

/// Smaller files, in bytes, are read by one thread.
const SMALL: u64 = 256 << 10;

/// The rows of a file.
pub(super) struct Columns {
    schema: SchemaRef,
    /// Each reads some columns of the same rows.
    readers: Vec<ParquetRecordBatchReader>,
    /// Where a column comes from: reader, and column there.
    places: Vec<(usize, usize)>,
}

impl Columns {
    /// Opens a file that is to be read in batches of so many rows.
    ///
    /// # Errors
    /// For what is no Parquet file, or a damaged one.
    pub(super) fn open(file: File, rows: usize) -> Result<Self> {
        let file = Shared::new(file)?;
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default())?;
        let schema = Arc::clone(metadata.schema());
        let columns = schema.fields().len();
        let reader = || {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata.clone());
            builder.with_batch_size(rows)
        };
        // Groups without columns are no columns in Arrow.
        let numbered = metadata.parquet_schema().root_schema().get_fields().len() == columns;
        if file.bytes < SMALL || !numbered {
            return Ok(Self {
                schema: Arc::new(Schema::new(schema.fields().clone())),
                readers: vec![reader().build()?],
                places: Vec::new(),
            });
        }
        let mut fields = vec![None; columns];
        let mut places = vec![(0, 0); columns];
        let mut readers = Vec::new();
        for share in shares(metadata.metadata(), columns, rayon::current_num_threads()) {
            let mask = ProjectionMask::roots(metadata.parquet_schema(), share.iter().copied());
            let opened = reader().with_projection(mask).build()?;
            for (at, column) in share.into_iter().enumerate() {
                places[column] = (readers.len(), at);
                fields[column] = Some(Arc::clone(&opened.schema().fields()[at]));
            }
            readers.push(opened);
        }
        Ok(Self {
            schema: Arc::new(Schema::new(fields.into_iter().flatten().collect::<Vec<_>>())),
            readers,
            places,
        })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for Columns {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let [alone] = &mut self.readers[..] {
            return alone.next();
        }
        let parts: Vec<_> = self.readers.par_iter_mut().map(Iterator::next).collect();
        if parts.iter().all(Option::is_none) {
            return None;
        }
        let parts = parts.into_iter().map(|part| {
            let ended = || ArrowError::ParquetError("its columns have different numbers of rows".to_owned());
            part.unwrap_or_else(|| Err(ended()))
        });
        Some(parts.collect::<Result<Vec<_>, _>>().and_then(|parts| {
            let columns = self.places.iter();
            let columns = columns.map(|(reader, at)| Arc::clone(parts[*reader].column(*at)));
            RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Vec<ArrayRef>>())
        }))
    }
}

/// Columns for each of at most `count` readers, so that all have about the same to do.
fn shares(file: &ParquetMetaData, columns: usize, count: usize) -> Vec<Vec<usize>> {
    let mut bytes = vec![0_u64; columns];
    let schema = file.file_metadata().schema_descr();
    for group in file.row_groups() {
        for (leaf, chunk) in group.columns().iter().enumerate() {
            let column = schema.get_column_root_idx(leaf);
            bytes[column] = bytes[column].saturating_add(chunk.uncompressed_size().max(0).cast_unsigned());
        }
    }
    let mut shares: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new()); count.min(columns).max(1)];
    let mut by_size: Vec<usize> = (0..columns).collect();
    by_size.sort_by_key(|column| std::cmp::Reverse(bytes[*column]));
    for column in by_size {
        if let Some((sum, share)) = shares.iter_mut().min_by_key(|(sum, _)| *sum) {
            *sum = sum.saturating_add(bytes[column].max(1));
            share.push(column);
        }
    }
    // A reader gives its columns in the order of the file.
    shares
        .into_iter()
        .map(|(_, mut share)| {
            share.sort_unstable();
            share
        })
        .collect()
}

/// A file that several readers read: copies of a file handle would share one position.
#[derive(Clone)]
struct Shared {
    file: Arc<Mutex<File>>,
    bytes: u64,
}

impl Shared {
    fn new(file: File) -> Result<Self> {
        Ok(Self {
            bytes: file.metadata()?.len(),
            file: Arc::new(Mutex::new(file)),
        })
    }

    fn read_at(&self, start: u64, buffer: &mut [u8]) -> IoResult<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        file.read(buffer)
    }
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Shared {
    type T = std::io::BufReader<At>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(std::io::BufReader::new(At {
            file: self.clone(),
            position: start,
        }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let mut buffer = Vec::with_capacity(length);
        let at = At {
            file: self.clone(),
            position: start,
        };
        let read = at.take(length as u64).read_to_end(&mut buffer)?;
        if read != length {
            return Err(parquet::errors::ParquetError::EOF(format!(
                "expected to read {length} bytes, read only {read}"
            )));
        }
        Ok(buffer.into())
    }
}

/// A place in a file, to read on from.
struct At {
    file: Shared,
    position: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let read = self.file.read_at(self.position, buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, StructArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Int32Type};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    use super::*;

    #[test]
    fn columns_read_side_by_side_are_the_rows_that_were_written() {
        let rows = 10_000;
        let ids = Int64Array::from_iter_values(0..rows);
        let names = StringArray::from_iter(
            (0..rows).map(|i| (i % 3 > 0).then(|| format!("row {i}, {}", i * i * 7919))),
        );
        let lists = (0..rows).map(|i| (i % 5 > 0).then(|| (0..i as i32 % 4).map(Some)));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        let pair = vec![
            (
                Arc::new(Field::new("a", DataType::Int64, false)),
                Arc::new(ids.clone()) as ArrayRef,
            ),
            (
                Arc::new(Field::new("b", DataType::Utf8, true)),
                Arc::new(names.clone()) as _,
            ),
        ];
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("pair", Arc::new(StructArray::from(pair))),
            ("id", Arc::new(ids)),
            ("list", Arc::new(lists)),
            ("name", Arc::new(names)),
        ];
        let written = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        let groups = WriterProperties::builder()
            .set_max_row_group_row_count(Some(1300))
            .build();
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = ArrowWriter::try_new(&mut file, written.schema(), Some(groups)).unwrap();
        writer.write(&written).unwrap();
        writer.close().unwrap();
        let read = Columns::open(file, 640).unwrap();
        assert!(read.readers.len() > 1 || rayon::current_num_threads() == 1);
        let batches: Vec<_> = read.map(|batch| batch.unwrap()).collect();
        assert_eq!(concat_batches(&written.schema(), &batches).unwrap(), written);
    }

    #[test]
    fn a_file_of_one_column_and_no_rows_has_one_reader() {
        let schema = Arc::new(Schema::new(vec![Field::new("only", DataType::Int64, false)]));
        let mut file = tempfile::tempfile().unwrap();
        ArrowWriter::try_new(&mut file, schema, None)
            .unwrap()
            .close()
            .unwrap();
        let read = Columns::open(file, 64).unwrap();
        assert_eq!((read.readers.len(), read.count()), (1, 0));
    }
}
