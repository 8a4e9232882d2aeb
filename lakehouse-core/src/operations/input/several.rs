//! Several inputs as one: columns by name, NULL where an input lacks one.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::{Batches, Rows};
use crate::error::{Error, Result};

/// The columns of all inputs.
///
/// # Errors
/// [`Error::Invalid`] when a column has types that do not go together.
pub(super) async fn schema(inputs: &[Rows], table: Option<&Schema>) -> Result<SchemaRef> {
    let mut all: Vec<Field> = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let schema = schema_of(input, table).await?;
        for field in &mut all {
            if schema.field_with_name(field.name()).is_err() {
                field.set_nullable(true);
            }
        }
        for field in schema.fields() {
            match all.iter_mut().find(|known| known.name() == field.name()) {
                Some(known) => {
                    let data_type = common(known.data_type(), field.data_type()).ok_or_else(|| {
                        Error::invalid(
                            format!(
                                "column {} is {} in one input and {} in another",
                                field.name(),
                                known.data_type(),
                                field.data_type()
                            ),
                            "",
                        )
                        .with_hint("write them one after the other, into a table whose columns have types")
                    })?;
                    known.set_nullable(known.is_nullable() || field.is_nullable());
                    known.set_data_type(data_type);
                }
                None => {
                    let field = field.as_ref().clone();
                    let nullable = field.is_nullable() || index > 0;
                    all.push(field.with_nullable(nullable));
                }
            }
        }
    }
    Ok(Arc::new(Schema::new(all)))
}

/// An input may be several again: the boxes end the recursion of the types.
fn schema_of<'a>(input: &'a Rows, table: Option<&'a Schema>) -> BoxFuture<'a, Result<SchemaRef>> {
    input.schema_for(table).boxed()
}

fn open_one<'a>(input: &'a Rows, table: Option<&'a Schema>) -> BoxFuture<'a, Result<(SchemaRef, Batches)>> {
    input.open(table).boxed()
}

/// The type that holds the values of both.
fn common(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::{Float64, Int64};
    match (one, other) {
        (one, other) if one == other => Some(one.clone()),
        // What inference makes of `1` and `1.5`.
        (Int64, Float64) | (Float64, Int64) => Some(Float64),
        _ => None,
    }
}

/// Reads one input after the other; each is opened when its turn comes.
pub(super) async fn open(inputs: &Arc<Vec<Rows>>, table: Option<&Schema>) -> Result<(SchemaRef, Batches)> {
    let schema = schema(inputs, table).await?;
    let table = table.cloned().map(Arc::new);
    let target = Arc::clone(&schema);
    let inputs = Arc::clone(inputs);
    let batches = futures::stream::iter(0..inputs.len())
        .then(move |index| {
            let (inputs, table, target) = (Arc::clone(&inputs), table.clone(), Arc::clone(&target));
            async move {
                let (_, batches) = open_one(&inputs[index], table.as_deref()).await?;
                Ok::<_, Error>(batches.map(move |batch| align(&batch?, &target)))
            }
        })
        .try_flatten();
    Ok((schema, batches.boxed()))
}

/// The columns of `target`, by name.
fn align(batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let columns: Vec<ArrayRef> = target
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) => Ok(cast_with_options(column, field.data_type(), &strict)?),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect::<Result<_>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(target),
        columns,
        &rows,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::Float64Type;

    fn rows(columns: Vec<(&str, ArrayRef)>) -> Rows {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        Rows::batches(batch.schema(), vec![batch])
    }

    #[tokio::test]
    async fn columns_are_found_by_name_and_missing_ones_are_null() {
        let first = rows(vec![("a", Arc::new(Int64Array::from(vec![1])))]);
        let second = rows(vec![
            ("b", Arc::new(StringArray::from(vec!["x"])) as ArrayRef),
            ("a", Arc::new(Float64Array::from(vec![2.5]))),
        ]);
        let both = Rows::several(vec![first, second]);
        let (schema, batches) = both.open(None).await.unwrap();
        let all: Vec<_> = batches.try_collect().await.unwrap();
        let all = arrow::compute::concat_batches(&schema, &all).unwrap();
        assert_eq!(all["a"].as_primitive::<Float64Type>().values(), &[1.0, 2.5]);
        assert!(all["b"].is_null(0) && all["b"].is_valid(1));
    }

    #[tokio::test]
    async fn types_that_do_not_go_together_name_the_column() {
        let first = rows(vec![("a", Arc::new(Int64Array::from(vec![1])))]);
        let second = rows(vec![("a", Arc::new(StringArray::from(vec!["x"])))]);
        let error = Rows::several(vec![first, second]).schema().await.unwrap_err();
        assert!(error.to_string().contains("column a is Int64"), "{error}");
    }
}
