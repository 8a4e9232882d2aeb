//! Rows on their way to the encoder: batches of rows, and rows of other files as they are stored there.

use std::collections::VecDeque;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::FieldRef;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};

use super::copy::StoredRows;
use super::layout::Layout;
use super::statistics;
use super::writer::memory;
use crate::error::{Error, Result};

/// Batches that have fewer rows are joined before.
const SMALL_ROWS: usize = 2_048;

/// Rows that wait to be encoded.
#[derive(Debug, Clone)]
pub(super) enum Rows {
    /// With the columns of the table, or, in the encoder, of its files.
    Batch(RecordBatch),
    Stored(StoredRows),
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.num_rows(),
            Self::Stored(stored) => stored.len(),
        }
    }

    fn slice(&self, start: usize, rows: usize) -> Self {
        match self {
            Self::Batch(batch) => Self::Batch(batch.slice(start, rows)),
            Self::Stored(stored) => Self::Stored(stored.slice(start, rows)),
        }
    }

    /// Whether another file has them.
    pub(super) fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// Encodes the values of a field, which has these leaves, and counts their NaNs.
    ///
    /// # Errors
    /// When they cannot be decoded or encoded.
    pub(super) fn encode(
        &self,
        number: usize,
        field: &FieldRef,
        columns: &mut [ArrowColumnWriter],
        nans: &mut [Option<u64>],
    ) -> Result<()> {
        match self {
            Self::Batch(batch) => encode(batch.column(number), field, columns, nans),
            Self::Stored(stored) => encode_stored(stored, number, field, columns, nans),
        }
    }
}

/// The same of rows that are stored elsewhere.
///
/// # Errors
/// See [`Rows::encode`].
pub(super) fn encode_stored(
    stored: &StoredRows,
    number: usize,
    field: &FieldRef,
    columns: &mut [ArrowColumnWriter],
    nans: &mut [Option<u64>],
) -> Result<()> {
    stored.decode(number, field, |values| encode(values, field, columns, nans))
}

fn encode(
    values: &ArrayRef,
    field: &FieldRef,
    columns: &mut [ArrowColumnWriter],
    nans: &mut [Option<u64>],
) -> Result<()> {
    statistics::count_nans(values, nans);
    let leaves = compute_leaves(field, values)?;
    if leaves.len() != columns.len() {
        return Err(Error::invalid(
            "rows do not have the file's columns",
            field.name().as_str(),
        ));
    }
    for (column, leaf) in columns.iter_mut().zip(&leaves) {
        column.write(leaf)?;
    }
    Ok(())
}

/// A column chunk with its page indexes, or without.
///
/// # Errors
/// When its last page cannot be encoded.
pub(super) fn close(column: ArrowColumnWriter, indexed: bool) -> Result<ArrowColumnChunk> {
    let mut chunk = column.close()?;
    if !indexed {
        let close = chunk.close_mut();
        (close.column_index, close.offset_index) = (None, None);
    }
    Ok(chunk)
}

/// The rows as files have them, those of small batches joined: many of them cost more than the copy that joins them.
///
/// # Errors
/// When a batch has other columns than the table.
pub(super) fn prepared(waiting: Vec<Rows>, layout: &Layout) -> Result<VecDeque<Rows>> {
    let mut prepared = VecDeque::with_capacity(waiting.len());
    let mut batches = Vec::new();
    let join = |batches: &mut Vec<RecordBatch>, prepared: &mut VecDeque<Rows>| {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if batches.len() > 1 && rows < batches.len() * SMALL_ROWS {
            *batches = vec![concat_batches(batches[0].schema_ref(), &*batches)?];
        }
        for batch in batches.drain(..).filter(|batch| batch.num_rows() > 0) {
            prepared.push_back(Rows::Batch(layout.store(&batch)?));
        }
        Ok::<_, Error>(())
    };
    for rows in waiting {
        match rows {
            Rows::Batch(batch) => batches.push(batch),
            stored @ Rows::Stored(_) => {
                join(&mut batches, &mut prepared)?;
                prepared.push_back(stored);
            }
        }
    }
    join(&mut batches, &mut prepared)?;
    Ok(prepared)
}

/// The row groups of other files that these rows are, if they are nothing else.
pub(super) fn whole(rows: &VecDeque<Rows>) -> Option<Vec<&StoredRows>> {
    let whole = rows.iter().map(|rows| match rows {
        Rows::Stored(stored) if stored.is_whole() => Some(stored),
        _ => None,
    });
    whole.collect()
}

/// Takes the first rows: at most so many, and all of them batches, or all stored.
pub(super) fn first_rows(left: &mut VecDeque<Rows>, most: usize) -> Vec<Rows> {
    let mut taken: Vec<Rows> = Vec::new();
    let mut wanted = most;
    while let Some(rows) = left.pop_front() {
        let all = rows.len();
        let alike = taken
            .last()
            .is_none_or(|last| last.is_stored() == rows.is_stored());
        if all > wanted || !alike {
            let here = if alike { wanted } else { 0 };
            taken.extend((here > 0).then(|| rows.slice(0, here)));
            left.push_front(rows.slice(here, all - here));
            break;
        }
        wanted -= all;
        taken.push(rows);
    }
    taken
}

/// Bytes of these rows, about: in memory, or as they are stored; of each, as far as they are alike.
pub(super) fn bytes_each(rows: &VecDeque<Rows>, stored: bool) -> Option<usize> {
    let mut sum = (0, 0);
    for rows in rows {
        match rows {
            Rows::Batch(batch) if !stored => sum = (sum.0 + memory(batch), sum.1 + batch.num_rows()),
            Rows::Stored(rows) if stored => {
                sum = (sum.0 + rows.bytes_each() * rows.len(), sum.1 + rows.len());
            }
            _ => {}
        }
    }
    (sum.1 > 0).then(|| sum.0 / sum.1)
}
