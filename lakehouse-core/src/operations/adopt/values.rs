//! The partition values of a file: from the names of its folders, or proved by its footer.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Schema};
use datafusion::scalar::ScalarValue;

use super::columns::type_of;
use super::listing::Key;
use crate::error::{Error, Result};
use crate::model::{ColumnStats, PartitionField, Transform};

/// Statistics as of the table's type, which may be wider than the file's.
pub(super) fn fit(stats: &mut ColumnStats, wanted: Option<&DataType>) {
    let cast = |bound: &Option<ScalarValue>| bound.as_ref().and_then(|b| b.cast_to(wanted?).ok());
    (stats.min, stats.max) = (cast(&stats.min), cast(&stats.max));
    stats.exact &= stats.min.is_some() && stats.max.is_some();
}

/// The values of the columns that folders name, by column.
///
/// # Errors
/// [`Error::Invalid`] naming the file: when a value is not one of the column's type, or the file has the column too
/// and its footer does not tell that all rows have this value.
pub(super) fn of_folders(
    file: &str,
    values: &[Option<String>],
    keys: &[Key],
    schema: &Schema,
    columns: &BTreeMap<String, ColumnStats>,
) -> Result<BTreeMap<String, ScalarValue>> {
    let mut found = BTreeMap::new();
    for (key, text) in keys.iter().zip(values) {
        let name = &key.name;
        let data_type = schema.field_with_name(name)?.data_type();
        let value = match text {
            None => ScalarValue::try_new_null(data_type)?,
            Some(text) => ScalarValue::try_from_string(text.clone(), data_type).map_err(|_| {
                Error::invalid(
                    format!("the folder says that {name} is {text:?}, which is no {data_type}"),
                    file,
                )
                .with_hint("give the column another type with --schema, or correct the folder's name")
            })?,
        };
        if let Some(stats) = columns.get(name)
            && only_value(stats, data_type).is_none_or(|only| only != value)
        {
            let said = text.as_deref().unwrap_or("NULL");
            return Err(Error::invalid(
                format!(
                    "the folder says that {name} is {said}, and the file has a column {name} that is something else, \
                     as far as its footer tells"
                ),
                file,
            )
            .with_hint("readers would not agree on the values: rename the folders, or load the file with `lake append`"));
        }
        found.insert(name.clone(), value);
    }
    Ok(found)
}

/// The value of a partition field for all rows of a file.
///
/// # Errors
/// [`Error::Invalid`] naming the file, when its rows may lie in several partitions.
pub(super) fn of_field(
    field: &PartitionField,
    by_folder: &BTreeMap<String, ScalarValue>,
    schema: &Schema,
    columns: &BTreeMap<String, ColumnStats>,
    file: &str,
) -> Result<ScalarValue> {
    if let Some(value) = by_folder.get(&field.source) {
        return field.transform.apply_scalar(value);
    }
    let several = || {
        Error::invalid(
            format!(
                "its rows lie in several partitions of {}({}), or its footer does not tell that they lie in one",
                field.transform, field.source
            ),
            file,
        )
        .with_hint("leave this out of the partitioning, or load the files with `lake append`, which splits them")
    };
    let data_type = type_of(schema, &field.source).ok_or_else(several)?;
    let Some(stats) = columns.get(&field.source) else {
        // The file lacks the column: it is NULL in all rows.
        return field
            .transform
            .apply_scalar(&ScalarValue::try_new_null(data_type)?);
    };
    if let Some(only) = only_value(stats, data_type) {
        return field.transform.apply_scalar(&only);
    }
    let keeps_order = !matches!(field.transform, Transform::Bucket { .. }) && !data_type.is_floating();
    match (&stats.min, &stats.max) {
        (Some(min), Some(max)) if keeps_order && stats.nulls == Some(0) => {
            let (low, high) = (
                field.transform.apply_scalar(min)?,
                field.transform.apply_scalar(max)?,
            );
            (low == high).then_some(low).ok_or_else(several)
        }
        _ => Err(several()),
    }
}

/// The one value that all rows have, if the footer tells: bounds that are equal leave no room for another, whether they
/// are exact or not. (Bounds of floating point values leave NaN out.)
fn only_value(stats: &ColumnStats, data_type: &DataType) -> Option<ScalarValue> {
    let nulls = stats.nulls?;
    if Some(nulls) == stats.values {
        return ScalarValue::try_new_null(data_type).ok();
    }
    let (min, max) = (stats.min.as_ref()?, stats.max.as_ref()?);
    (nulls == 0 && min == max && !data_type.is_floating()).then(|| min.clone())
}
