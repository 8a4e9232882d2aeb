//! One column at a time, through structs, lists and maps.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, MapArray, OffsetSizeTrait, StructArray, new_null_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use crate::model::schema::{WRITE_DEFAULT, default_of};

use super::{Misfit, cast, check_required, match_names};

/// Whether new rows have a value where the input has no such column.
fn has_default(field: &Field) -> bool {
    field.metadata().contains_key(WRITE_DEFAULT)
}

/// The column as `field` wants it; its default, or else NULL, if it is missing.
pub(super) fn column(array: Option<&ArrayRef>, field: &Field, rows: usize) -> Result<ArrayRef, Misfit> {
    let Some(array) = array else {
        if field.is_nullable() || has_default(field) {
            let default =
                default_of(field, WRITE_DEFAULT).and_then(|value| Ok(value.to_array_of_size(rows)?));
            return default.map_err(|e| Misfit::new(e.to_string()));
        }
        return Err(Misfit::new(
            "is missing from the input and the table requires a value",
        ));
    };
    let array = value(array, field)?;
    check_required(&array, field)?;
    Ok(array)
}

fn value(array: &ArrayRef, field: &Field) -> Result<ArrayRef, Misfit> {
    use DataType as T;
    let (from, to) = (array.data_type(), field.data_type());
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        (T::Null, _) => Ok(new_null_array(to, array.len())),
        (T::Dictionary(_, values), _) => value(&plain(array, values)?, field),
        (T::RunEndEncoded(_, values), _) => value(&plain(array, values.data_type())?, field),
        (T::Struct(_), T::Struct(fields)) => structs(array.as_struct(), fields),
        (T::List(_), T::List(inner)) => lists(array.as_list::<i32>(), inner),
        (T::LargeList(_), T::LargeList(inner)) => lists(array.as_list::<i64>(), inner),
        (
            T::LargeList(inner) | T::FixedSizeList(inner, _) | T::ListView(inner) | T::LargeListView(inner),
            T::List(_),
        ) => value(&plain(array, &T::List(Arc::clone(inner)))?, field),
        (
            T::List(inner) | T::FixedSizeList(inner, _) | T::ListView(inner) | T::LargeListView(inner),
            T::LargeList(_),
        ) => value(&plain(array, &T::LargeList(Arc::clone(inner)))?, field),
        (T::FixedSizeList(_, n), T::FixedSizeList(inner, m)) if n == m => {
            let list = array.as_fixed_size_list();
            let width = usize::try_from(*n).unwrap_or(1).max(1);
            let values = column(Some(list.values()), inner, list.values().len())
                .map_err(|misfit| outward(misfit, inner, |i| i / width))?;
            let list = arrow::array::FixedSizeListArray::try_new(
                Arc::clone(inner),
                *m,
                values,
                list.nulls().cloned(),
            );
            Ok(Arc::new(list.map_err(|e| Misfit::new(e.to_string()))?))
        }
        (T::Map(..), T::Map(entries, sorted)) => maps(array.as_map(), entries, *sorted),
        _ if from.is_nested() || to.is_nested() => Err(Misfit::new(format!(
            "is {}, the table wants {}",
            cast::name(from),
            cast::name(to)
        ))),
        _ => cast::checked(array, field),
    }
}

/// The same values in another physical form (never lossy).
fn plain(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Misfit> {
    compute::cast(array, to).map_err(|e| Misfit::new(e.to_string()))
}

fn structs(array: &StructArray, fields: &Fields) -> Result<ArrayRef, Misfit> {
    let given: Vec<&str> = array.fields().iter().map(|f| f.name().as_str()).collect();
    let wanted: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
    let matched = match_names(&given, &wanted)?;
    let mut columns = Vec::with_capacity(fields.len());
    for (field, source) in fields.iter().zip(matched) {
        // Values below a NULL struct do not exist, whatever the child array holds there.
        let child = source.map(|i| visible(array, array.column(i))).transpose()?;
        let required_below_null = !field.is_nullable() && array.null_count() > 0;
        let relaxed;
        let target: &Field = if required_below_null {
            relaxed = field.as_ref().clone().with_nullable(true);
            &relaxed
        } else {
            field
        };
        if child.is_none() && !field.is_nullable() && !has_default(field) {
            return Err(Misfit::column(
                field.name(),
                "is missing from the input and the table requires a value",
            ));
        }
        let column = column(child.as_ref(), target, array.len()).map_err(|m| m.inside(field.name()))?;
        if required_below_null
            && let Some(row) = (0..array.len()).find(|row| array.is_valid(*row) && column.is_null(*row))
        {
            return Err(Misfit::at(row, "is NULL but the table requires a value").inside(field.name()));
        }
        columns.push(column);
    }
    StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|e| Misfit::new(e.to_string()))
}

/// A child with NULL wherever its struct is NULL.
fn visible(parent: &StructArray, child: &ArrayRef) -> Result<ArrayRef, Misfit> {
    let Some(nulls) = parent.nulls().filter(|n| n.null_count() > 0) else {
        return Ok(Arc::clone(child));
    };
    let hidden = arrow::array::BooleanArray::new(!nulls.inner(), None);
    compute::nullif(child, &hidden).map_err(|e| Misfit::new(e.to_string()))
}

fn lists<O: OffsetSizeTrait>(array: &GenericListArray<O>, inner: &FieldRef) -> Result<ArrayRef, Misfit> {
    let (offsets, values) = trimmed(array.offsets(), array.values());
    let values = elements(&values, inner, &offsets)?;
    GenericListArray::try_new(Arc::clone(inner), offsets, values, array.nulls().cloned())
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|e| Misfit::new(e.to_string()))
}

fn maps(array: &MapArray, entries: &FieldRef, sorted: bool) -> Result<ArrayRef, Misfit> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(Misfit::new("is a map without entries"));
    };
    // Keys and values are told apart by their place, whatever a writer calls them.
    let mut columns = Vec::with_capacity(2);
    for (field, values) in fields.iter().zip([array.keys(), array.values()]) {
        let (offsets, values) = trimmed(array.offsets(), values);
        columns.push(elements(&values, field, &offsets)?);
    }
    let (offsets, _) = trimmed(array.offsets(), array.keys());
    let values =
        StructArray::try_new(fields.clone(), columns, None).map_err(|e| Misfit::new(e.to_string()))?;
    MapArray::try_new(
        Arc::clone(entries),
        offsets,
        values,
        array.nulls().cloned(),
        sorted,
    )
    .map(|array| Arc::new(array) as ArrayRef)
    .map_err(|e| Misfit::new(e.to_string()))
}

/// Only the elements that belong to a row: the values of a slice hold those of the other rows too.
fn trimmed<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, values: &ArrayRef) -> (OffsetBuffer<O>, ArrayRef) {
    let (start, end) = (offsets[0], offsets[offsets.len() - 1]);
    let moved = offsets
        .iter()
        .map(|offset| *offset - start)
        .collect::<ScalarBuffer<O>>();
    let values = values.slice(start.as_usize(), (end - start).as_usize());
    (OffsetBuffer::new(moved), values)
}

fn elements<O: OffsetSizeTrait>(
    values: &ArrayRef,
    field: &Field,
    offsets: &OffsetBuffer<O>,
) -> Result<ArrayRef, Misfit> {
    let row_of = |i: usize| offsets.partition_point(|o| o.as_usize() <= i).saturating_sub(1);
    column(Some(values), field, values.len()).map_err(|misfit| outward(misfit, field, row_of))
}

/// A misfit of an element, as one of the row that holds it.
fn outward(misfit: Misfit, inner: &Field, row_of: impl Fn(usize) -> usize) -> Misfit {
    let row = misfit.row.map(row_of);
    Misfit { row, ..misfit }.inside(inner.name())
}
