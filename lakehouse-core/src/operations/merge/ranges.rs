//! The range of a merge's keys, for the pages inside of a file.
//!
//! The filter that the join hands to the scan speaks of all keys at once; the engine skips pages only by
//! conditions on a single column.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Schema};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Accumulator, Expr, lit};
use datafusion::scalar::ScalarValue;

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
    let stored = file.columns.get(name);
    let bounds = stored.and_then(|stored| Some((stored.min.as_ref()?, stored.max.as_ref()?)));
    let Some((min, max)) = bounds else { return false };
    let (Some(least), Some(greatest), Some(min), Some(max)) =
        (number(least), number(greatest), number(min), number(max))
    else {
        return false;
    };
    let shared = greatest.min(max) - least.max(min);
    max > min && shared <= NARROW * (max - min)
}

fn number(value: &ScalarValue) -> Option<f64> {
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(Some(number)) => Some(number as f64),
        _ => None,
    }
}
