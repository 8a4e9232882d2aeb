//! Rows as bytes: equal rows have equal bytes, and the order of bytes is that of the columns' values.
//!
//! Compared are values, not spellings: 0.0 and -0.0 are one value, as are all NaNs, and maps with the same entries in
//! whatever order. So that rows are shown as they are stored, a row that is spelled otherwise keeps its own bytes beside
//! those that it is compared by.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, LargeBinaryArray, LargeBinaryBuilder,
    MapArray, OffsetSizeTrait, StructArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::error::Result;
use crate::model::floats;

/// Whether values of this type may be spelled in several ways.
pub(super) fn has_spellings(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float32 | DataType::Float64 | DataType::Map(..) => true,
        DataType::Struct(members) => members.iter().any(|member| has_spellings(member.data_type())),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_spellings(item.data_type())
        }
        _ => false,
    }
}

/// A converter of columns of these types.
pub(super) fn converter<'a>(types: impl Iterator<Item = &'a DataType>) -> Result<RowConverter> {
    Ok(RowConverter::new(types.cloned().map(SortField::new).collect())?)
}

/// The values in the one spelling that they are compared in.
pub(in crate::operations) fn canonical(values: &ArrayRef) -> Result<ArrayRef> {
    if !has_spellings(values.data_type()) {
        return Ok(Arc::clone(values));
    }
    Ok(match values.data_type() {
        DataType::Float32 | DataType::Float64 => floats::as_compared(values),
        DataType::Struct(members) => {
            let row = values.as_struct();
            let columns = row.columns().iter().map(canonical).collect::<Result<Vec<_>>>()?;
            let made =
                StructArray::try_new_with_length(members.clone(), columns, row.nulls().cloned(), row.len());
            Arc::new(made?)
        }
        DataType::List(item) => items::<i32>(values, item)?,
        DataType::LargeList(item) => items::<i64>(values, item)?,
        DataType::FixedSizeList(item, length) => {
            let list = values.as_fixed_size_list();
            let items = canonical(list.values())?;
            let made = FixedSizeListArray::try_new(Arc::clone(item), *length, items, list.nulls().cloned());
            Arc::new(made?)
        }
        DataType::Map(entries, sorted) => Arc::new(by_key(values.as_map(), entries, *sorted)?),
        _ => Arc::clone(values),
    })
}

fn items<O: OffsetSizeTrait>(values: &ArrayRef, item: &FieldRef) -> Result<ArrayRef> {
    let list = values.as_list::<O>();
    let items = canonical(list.values())?;
    let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
    Ok(Arc::new(GenericListArray::<O>::try_new(
        Arc::clone(item),
        offsets,
        items,
        nulls,
    )?))
}

/// Each map's entries in the order of their keys.
fn by_key(map: &MapArray, entries: &FieldRef, sorted: bool) -> Result<MapArray> {
    let keys = canonical(map.keys())?;
    let rows = converter([keys.data_type()].into_iter())?.convert_columns(std::slice::from_ref(&keys))?;
    let mut order: Vec<u64> = Vec::with_capacity(map.keys().len());
    for range in map.offsets().windows(2) {
        let start = order.len();
        // Offsets are not negative.
        order.extend((range[0]..range[1]).map(|at| u64::from(at.unsigned_abs())));
        order[start..].sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    }
    let order = UInt64Array::from(order);
    let pair = map.entries();
    let columns = vec![
        take(&keys, &order, None)?,
        take(&canonical(map.values())?, &order, None)?,
    ];
    let pair = StructArray::try_new(pair.fields().clone(), columns, None)?;
    let offsets = OffsetBuffer::from_lengths(map.offsets().lengths());
    let (entries, nulls) = (Arc::clone(entries), map.nulls().cloned());
    Ok(MapArray::try_new(entries, offsets, pair, nulls, sorted)?)
}

/// Columns as one column of bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Spelled {
    signature: Signature,
    /// NULL where the row is stored as it is compared; else what is stored. Otherwise what is compared.
    as_stored: bool,
}

impl Spelled {
    /// What rows of so many columns are compared by.
    pub(super) fn compared(columns: usize) -> Self {
        Self::new(columns, false)
    }

    /// How rows are stored, where that is another spelling.
    pub(super) fn stored(columns: usize) -> Self {
        Self::new(columns, true)
    }

    fn new(columns: usize, as_stored: bool) -> Self {
        Self {
            signature: Signature::any(columns, Volatility::Immutable),
            as_stored,
        }
    }
}

impl ScalarUDFImpl for Spelled {
    fn name(&self) -> &str {
        if self.as_stored {
            "row_as_stored"
        } else {
            "row_as_compared"
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> EngineResult<DataType> {
        Ok(DataType::LargeBinary)
    }

    fn invoke_with_args(&self, given: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let columns = given.args.into_iter();
        let columns = columns
            .map(|column| column.into_array(given.number_rows))
            .collect::<EngineResult<Vec<_>>>()?;
        let one = columns.iter().map(canonical).collect::<Result<Vec<_>>>()?;
        let converter = converter(columns.iter().map(|column| column.data_type()))?;
        let compared = converter.convert_columns(&one)?;
        if !self.as_stored {
            return Ok(ColumnarValue::Array(Arc::new(bytes(&compared))));
        }
        let stored = converter.convert_columns(&columns)?;
        let mut others = LargeBinaryBuilder::new();
        for (stored, compared) in stored.iter().zip(compared.iter()) {
            others.append_option((stored != compared).then(|| stored.data()));
        }
        Ok(ColumnarValue::Array(Arc::new(others.finish())))
    }
}

fn bytes(rows: &Rows) -> LargeBinaryArray {
    rows.iter().map(|row| Some(row.data().to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, Int32Builder, MapBuilder, StringBuilder};

    use super::*;

    fn maps(entries: &[&[(&str, i32)]]) -> ArrayRef {
        let mut builder = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
        for map in entries {
            for (key, value) in *map {
                builder.keys().append_value(key);
                builder.values().append_value(*value);
            }
            builder.append(true).unwrap();
        }
        Arc::new(builder.finish())
    }

    fn rows(values: &ArrayRef) -> Vec<Vec<u8>> {
        let one = canonical(values).unwrap();
        let converter = converter([one.data_type()].into_iter()).unwrap();
        let rows = converter.convert_columns(&[one]).unwrap();
        rows.iter().map(|row| row.data().to_vec()).collect()
    }

    #[test]
    fn zeros_are_one_value_and_so_are_nans_also_inside_of_lists() {
        let other_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![
            0.0,
            -0.0,
            f64::NAN,
            other_nan,
            -f64::NAN,
            1.5,
        ]));
        let found = rows(&numbers);
        assert_eq!(
            (&found[0], &found[2], &found[2]),
            (&found[1], &found[3], &found[4])
        );
        assert!(found[0] != found[2] && found[0] != found[5]);
        let item = Arc::new(arrow::datatypes::Field::new("element", DataType::Float64, true));
        let offsets = OffsetBuffer::from_lengths([1, 1, 1, 2, 1]);
        let lists: ArrayRef =
            Arc::new(GenericListArray::<i32>::try_new(item, offsets, numbers, None).unwrap());
        let found = rows(&lists);
        assert_eq!(found[0], found[1]);
        assert!(found[2] != found[3]);
    }

    #[test]
    fn maps_with_the_same_entries_are_equal_in_whatever_order() {
        let values = maps(&[
            &[("a", 1), ("b", 2)],
            &[("b", 2), ("a", 1)],
            &[("a", 2), ("b", 1)],
            &[],
            &[("a", 1)],
        ]);
        let found = rows(&values);
        assert_eq!(found[0], found[1]);
        let different: std::collections::BTreeSet<_> = found[1..].iter().collect();
        assert_eq!(different.len(), 4);
        // A slice, whose offsets do not begin at zero.
        assert_eq!(rows(&values.slice(1, 3)), found[1..4]);
    }

    #[test]
    fn values_of_other_types_have_one_spelling() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        assert!(Arc::ptr_eq(&canonical(&numbers).unwrap(), &numbers));
    }
}
