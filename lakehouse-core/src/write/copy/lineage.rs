//! Row ids and sequence numbers of rows that move (Iceberg specification, "Row Lineage"): what a file does not
//! store, its rows inherit; in another file they have to be written.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatchReader, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{concat_batches, is_not_null};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::Stored;
use crate::error::{Error, Result};
use crate::model::DataFile;

/// What rows at these positions of a file that stores nothing have: the first row's id and the position, and
/// the file's sequence number.
pub(super) fn inherited(file: &DataFile, positions: Range<u64>) -> [ArrayRef; 2] {
    let rows = usize::try_from(positions.end - positions.start).unwrap_or(usize::MAX);
    let unknown = || new_null_array(&DataType::Int64, rows);
    let ids = file.first_row_id.map(|first| {
        let ids = positions.map(|position| first.wrapping_add_unsigned(position));
        Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef
    });
    let updated = file
        .sequence
        .map(|sequence| Arc::new(Int64Array::from_value(sequence, rows)) as ArrayRef);
    [ids.unwrap_or_else(unknown), updated.unwrap_or_else(unknown)]
}

/// The stored values of these two columns of a row group; where they are NULL, the inherited ones.
///
/// # Errors
/// When the chunks cannot be decoded.
pub(super) fn completed(
    metadata: &Arc<ParquetMetaData>,
    group: usize,
    columns: Range<usize>,
    chunks: Vec<Stored>,
    inherited: [ArrayRef; 2],
) -> Result<[ArrayRef; 2]> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reading = ArrowReaderMetadata::try_new(Arc::clone(metadata), options)?;
    let mask = ProjectionMask::leaves(metadata.file_metadata().schema_descr(), columns);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(Chunks(chunks), reading)
        .with_projection(mask)
        .with_row_groups(vec![group])
        .build()?;
    let schema = reader.schema();
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    let stored = concat_batches(&schema, &batches)?;
    let [ids, updated] = inherited;
    if stored.num_columns() != 2 || stored.num_rows() != ids.len() {
        return Err(Error::invalid(
            "the columns of row lineage have another number of rows",
            "",
        ));
    }
    let filled = |stored: &ArrayRef, inherited: ArrayRef| zip(&is_not_null(stored)?, stored, &inherited);
    Ok([filled(stored.column(0), ids)?, filled(stored.column(1), updated)?])
}

/// Parts of a file.
struct Chunks(Vec<Stored>);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.iter().map(Length::len).max().unwrap_or_default()
    }
}

impl Chunks {
    fn holding(&self, start: u64) -> parquet::errors::Result<&Stored> {
        let found = self
            .0
            .iter()
            .find(|part| (part.start..part.len()).contains(&start));
        found.ok_or_else(|| ParquetError::EOF(format!("byte {start} was not read")))
    }
}

impl ChunkReader for Chunks {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.holding(start)?.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.holding(start)?.get_bytes(start, length)
    }
}
