//! Nested values brought into the table's shape: struct members are found by id or physical name.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    RecordBatch, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

use super::columns::find;
use crate::error::{Error, Result};
use crate::model::schema::{INITIAL_DEFAULT, default_of};

/// Values that do not fit are errors, not NULLs.
pub(super) const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow::util::display::FormatOptions::new(),
};

/// Brings values as a file has them (`from`) into the shape and type that the table declares (`to`).
pub(super) fn reshape(values: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef> {
    if from.data_type() == to.data_type() {
        return Ok(Arc::clone(values));
    }
    let misfit = || {
        Error::invalid(
            format!("the file has {}, the table {}", from.data_type(), to.data_type()),
            format!("column {}", to.name()),
        )
    };
    match (from.data_type(), to.data_type()) {
        (DataType::Struct(members), DataType::Struct(wanted)) => {
            members_of(values.as_struct(), members, wanted)
        }
        (DataType::List(item), DataType::List(wanted)) => items::<i32>(values, item, wanted),
        (DataType::LargeList(item), DataType::LargeList(wanted)) => items::<i64>(values, item, wanted),
        (DataType::FixedSizeList(item, size), DataType::FixedSizeList(wanted, wanted_size))
            if size == wanted_size =>
        {
            let list = values.as_fixed_size_list();
            let items = reshape(list.values(), item, wanted)?;
            let list = FixedSizeListArray::try_new(Arc::clone(wanted), *size, items, list.nulls().cloned())?;
            Ok(Arc::new(list))
        }
        (DataType::Map(entries, _), DataType::Map(wanted, sorted)) => {
            let (DataType::Struct(pair), DataType::Struct(wanted_pair)) =
                (entries.data_type(), wanted.data_type())
            else {
                return Err(misfit());
            };
            let ([key, value], [wanted_key, wanted_value]) = (pair.as_ref(), wanted_pair.as_ref()) else {
                return Err(misfit());
            };
            let map = values.as_map();
            let pairs = StructArray::try_new(
                wanted_pair.clone(),
                vec![
                    reshape(map.keys(), key, wanted_key)?,
                    reshape(map.values(), value, wanted_value)?,
                ],
                map.entries().nulls().cloned(),
            )?;
            let map = MapArray::try_new(
                Arc::clone(wanted),
                map.offsets().clone(),
                pairs,
                map.nulls().cloned(),
                *sorted,
            )?;
            Ok(Arc::new(map))
        }
        (from, to) if from.is_nested() || to.is_nested() => Err(misfit()),
        (_, to) => Ok(cast_with_options(values, to, &STRICT)?),
    }
}

fn members_of(values: &StructArray, members: &Fields, wanted: &Fields) -> Result<ArrayRef> {
    let columns = wanted
        .iter()
        .map(|wanted| match find(wanted, members) {
            Some(index) => reshape(values.column(index), &members[index], wanted),
            None if wanted.metadata().contains_key(INITIAL_DEFAULT) => {
                // That of the rows whose struct is there (Iceberg spec, "Default values").
                let default = default_of(wanted, INITIAL_DEFAULT)?.to_array_of_size(values.len())?;
                match values.nulls() {
                    Some(there) => Ok(nullif(&default, &BooleanArray::new(!there.inner(), None))?),
                    None => Ok(default),
                }
            }
            None if wanted.is_nullable() => Ok(new_null_array(wanted.data_type(), values.len())),
            None => Err(Error::invalid(
                "the file has no values for a required member of a struct",
                format!("column {}", wanted.name()),
            )),
        })
        .collect::<Result<Vec<_>>>()?;
    let made =
        StructArray::try_new_with_length(wanted.clone(), columns, values.nulls().cloned(), values.len())?;
    Ok(Arc::new(made))
}

fn items<O: OffsetSizeTrait>(values: &ArrayRef, item: &FieldRef, wanted: &FieldRef) -> Result<ArrayRef> {
    let list = values.as_list::<O>();
    let items = reshape(list.values(), item, wanted)?;
    let list = GenericListArray::<O>::try_new(
        Arc::clone(wanted),
        list.offsets().clone(),
        items,
        list.nulls().cloned(),
    )?;
    Ok(Arc::new(list))
}

/// [`reshape`] as an expression over a file's column.
#[derive(Debug, Eq)]
pub(super) struct Reshape {
    column: Arc<dyn PhysicalExpr>,
    from: FieldRef,
    to: FieldRef,
}

impl Reshape {
    pub(super) fn new(column: Arc<dyn PhysicalExpr>, from: FieldRef, to: FieldRef) -> Self {
        Self { column, from, to }
    }
}

impl PartialEq for Reshape {
    fn eq(&self, other: &Self) -> bool {
        self.column.eq(&other.column) && self.from == other.from && self.to == other.to
    }
}

impl Hash for Reshape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.from.hash(state);
        self.to.hash(state);
    }
}

impl fmt::Display for Reshape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.column, self.to.name())
    }
}

impl PhysicalExpr for Reshape {
    fn return_field(&self, _input: &Schema) -> datafusion::error::Result<FieldRef> {
        Ok(Arc::clone(&self.to))
    }

    fn evaluate(&self, batch: &RecordBatch) -> datafusion::error::Result<ColumnarValue> {
        let values = self.column.evaluate(batch)?.into_array(batch.num_rows())?;
        // The reader may have left out members that nobody asked for.
        let from = self
            .from
            .as_ref()
            .clone()
            .with_data_type(values.data_type().clone());
        Ok(ColumnarValue::Array(reshape(&values, &from, &self.to)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.column]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
        let column = children.pop().unwrap_or_else(|| Arc::clone(&self.column));
        Ok(Arc::new(Self::new(
            column,
            Arc::clone(&self.from),
            Arc::clone(&self.to),
        )))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt_sql(f)
    }
}
