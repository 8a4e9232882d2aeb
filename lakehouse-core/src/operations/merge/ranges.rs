//! The range of a merge's keys, for the pages inside of a file.
//!
//! The filter that the join hands to the scan speaks of all keys at once; the engine skips pages only by
//! conditions on a single column.

use arrow::array::{Array, ArrayRef};
use arrow::compute::and;
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::datatypes::{DataType, Schema};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Accumulator, Expr, lit};
use datafusion::scalar::ScalarValue;

use super::super::ahead::Guess;
use super::super::update::column;
use super::plan::{Key, TARGET, as_type};
use super::source::Source;
use crate::error::Result;
use crate::model::DataFile;

/// Up to this share of a file's own range a filter pays: it is evaluated for each row that is read.
const NARROW: f64 = 0.8;

/// Which rows of these files lie in the range of the source's keys, column by column, where that leaves out a
/// good part of one of them.
pub(super) fn within(
    keys: &[Key],
    table: &Schema,
    source: &Source,
    files: &[DataFile],
) -> Result<Option<Expr>> {
    let mut parts = Vec::new();
    for key in keys {
        let data_type = table.field_with_name(&key.target)?.data_type();
        if !has_distances(data_type) {
            continue;
        }
        let Some((least, greatest)) = range(key, data_type, source)? else {
            continue;
        };
        if files
            .iter()
            .any(|file| leaves_out(&least, &greatest, file, &key.target))
        {
            let name = column(Some(TARGET), &key.target);
            parts.push(name.clone().gt_eq(lit(least)));
            parts.push(name.lt_eq(lit(greatest)));
        }
    }
    Ok(conjunction(parts))
}

/// What is guessed of the rows that change. No file knows more of its rows than their range: there may be none with such
/// a key, and they may lie close together.
pub(super) fn guess(keys: &[Key], table: &Schema, source: &Source, files: &[DataFile]) -> Result<Guess> {
    let mut ranges = Vec::new();
    for key in keys {
        let data_type = table.field_with_name(&key.target)?.data_type();
        if has_distances(data_type)
            && let Some((least, greatest)) = range(key, data_type, source)?
        {
            ranges.push((key.target.clone(), least, greatest));
        }
    }
    let share = move |file: &DataFile| {
        let shares = ranges
            .iter()
            .map(|(name, least, greatest)| share(least, greatest, file, name));
        shares.fold(1.0, f64::min)
    };
    Ok(Guess {
        rows: rows_within(keys, table, source, files)?,
        share: Box::new(share),
    })
}

/// How many rows of the source lie in the range of these files.
fn rows_within(keys: &[Key], table: &Schema, source: &Source, files: &[DataFile]) -> Result<u64> {
    let mut least = source.rows();
    for key in keys {
        let data_type = table.field_with_name(&key.target)?.data_type();
        let Some((min, max)) = range_of_files(files, &key.target) else {
            continue;
        };
        if !has_distances(data_type) || min.data_type() != *data_type || max.data_type() != *data_type {
            continue;
        }
        let (min, max) = (min.to_scalar()?, max.to_scalar()?);
        let mut rows = 0;
        for batch in source.batches() {
            let given: &ArrayRef = batch.column(batch.schema_ref().index_of(&key.source)?);
            let Some(values) = as_type(given, data_type)? else {
                rows = source.rows();
                break;
            };
            let within = and(&gt_eq(&values, &min)?, &lt_eq(&values, &max)?)?;
            rows += within.true_count() as u64;
        }
        least = least.min(rows);
    }
    Ok(least)
}

/// The least and the greatest value of a column in all of these files, if each of them knows its own.
fn range_of_files(files: &[DataFile], name: &str) -> Option<(ScalarValue, ScalarValue)> {
    let mut range: Option<(ScalarValue, ScalarValue)> = None;
    for file in files {
        let stored = file.columns.get(name)?;
        let (min, max) = (stored.min.clone()?, stored.max.clone()?);
        range = Some(match range {
            None => (min, max),
            Some((least, greatest)) => (
                if min < least { min } else { least },
                if max > greatest { max } else { greatest },
            ),
        });
    }
    range
}

/// Types whose values have a distance; NaN does not, so numbers of floating point are none of them.
fn has_distances(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_temporal() || matches!(data_type, DataType::Decimal128(..))
}

/// The least and the greatest value that can match.
fn range(key: &Key, data_type: &DataType, source: &Source) -> Result<Option<(ScalarValue, ScalarValue)>> {
    let mut least = MinAccumulator::try_new(data_type)?;
    let mut greatest = MaxAccumulator::try_new(data_type)?;
    for batch in source.batches() {
        let given: &ArrayRef = batch.column(batch.schema_ref().index_of(&key.source)?);
        if key.null_safe && given.logical_null_count() > 0 {
            return Ok(None);
        }
        let Some(values) = as_type(given, data_type)? else {
            return Ok(None);
        };
        least.update_batch(std::slice::from_ref(&values))?;
        greatest.update_batch(std::slice::from_ref(&values))?;
    }
    let (least, greatest) = (least.evaluate()?, greatest.evaluate()?);
    Ok((!least.is_null() && !greatest.is_null()).then_some((least, greatest)))
}

fn leaves_out(least: &ScalarValue, greatest: &ScalarValue, file: &DataFile, name: &str) -> bool {
    share(least, greatest, file, name) <= NARROW
}

/// Which part of a file's range lies between these values: all of it, where that is not known.
fn share(least: &ScalarValue, greatest: &ScalarValue, file: &DataFile, name: &str) -> f64 {
    let stored = file.columns.get(name);
    let bounds = stored.and_then(|stored| Some((stored.min.as_ref()?, stored.max.as_ref()?)));
    let Some((min, max)) = bounds else { return 1.0 };
    let (Some(least), Some(greatest), Some(min), Some(max)) =
        (number(least), number(greatest), number(min), number(max))
    else {
        return 1.0;
    };
    let shared = greatest.min(max) - least.max(min);
    if max > min {
        (shared / (max - min)).max(0.0)
    } else {
        1.0
    }
}

fn number(value: &ScalarValue) -> Option<f64> {
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(Some(number)) => Some(number as f64),
        _ => None,
    }
}
