//! Rows as they come in, made to fit the table's schema, or refused by column and row.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::error::Result;

/// Brings a batch into the table's columns: by name, in the table's order, missing nullable columns
/// filled with NULL, types cast where no value can be lost (each value is checked).
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) naming the column (and the first row concerned) for an extra column, a
/// missing or NULL required column, a value that does not fit.
pub fn conform(batch: &RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    let _ = (batch, schema);
    unimplemented!()
}
