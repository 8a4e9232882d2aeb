//! Row ids and sequence numbers of rows that move (Iceberg specification, "Row Lineage"): what a file does not
//! store, its rows inherit; in another file they have to be written.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatchReader, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{concat_batches, is_not_null};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};

use super::{Chunks, Stored};
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
    reading: &ArrowReaderMetadata,
    group: usize,
    columns: Range<usize>,
    chunks: Vec<Stored>,
    inherited: [ArrayRef; 2],
) -> Result<[ArrayRef; 2]> {
    let mask = ProjectionMask::leaves(reading.parquet_schema(), columns);
    let chunks = Chunks(chunks.into());
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, reading.clone())
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
