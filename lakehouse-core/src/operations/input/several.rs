//! Several inputs as one: columns by name, NULL where an input lacks one.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::types::counterpart;
use super::{Batches, Known, Rows};
use crate::error::{Error, Result};
use crate::write::conform_at;

/// The columns of all inputs.
///
/// # Errors
/// [`Error::Invalid`] when a column has types that do not go together.
pub(super) async fn schema(inputs: &[Rows], known: Known<'_>) -> Result<SchemaRef> {
    let table = known.schema();
    let mut all: Vec<Field> = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let schema = schema_of(input, known).await?;
        for field in &mut all {
            if schema.field_with_name(field.name()).is_err() {
                field.set_nullable(true);
            }
        }
        for field in schema.fields() {
            match all.iter_mut().find(|known| known.name() == field.name()) {
                Some(known) => {
                    let stored = table.and_then(|t| counterpart(t.fields(), schema.fields(), field.name()));
                    let data_type = common(known, field, stored).ok_or_else(|| {
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
fn schema_of<'a>(input: &'a Rows, known: Known<'a>) -> BoxFuture<'a, Result<SchemaRef>> {
    input.columns(known).boxed()
}

fn open_one<'a>(input: &'a Rows, known: Known<'a>) -> BoxFuture<'a, Result<(SchemaRef, Batches)>> {
    input.open(known).boxed()
}

/// The type that holds the values of both; the table's where it has the column.
fn common(one: &Field, other: &Field, stored: Option<&Field>) -> Option<DataType> {
    use DataType::{Float64, Int64};
    match (one.data_type(), other.data_type(), stored) {
        (one, other, _) if one == other => Some(one.clone()),
        (_, _, Some(stored)) => Some(stored.data_type().clone()),
        // What inference makes of `1` and `1.5`.
        (Int64, Float64, None) | (Float64, Int64, None) => Some(Float64),
        _ => None,
    }
}

/// Reads one input after the other; each is opened when its turn comes.
pub(super) async fn open(inputs: &Arc<Vec<Rows>>, known: Known<'_>) -> Result<(SchemaRef, Batches)> {
    let schema = schema(inputs, known).await?;
    let as_text = matches!(known, Known::Text(_));
    let table = known.schema().cloned().map(Arc::new);
    let target = Arc::clone(&schema);
    let inputs = Arc::clone(inputs);
    let batches = futures::stream::iter(0..inputs.len())
        .then(move |index| {
            let (inputs, table, target) = (Arc::clone(&inputs), table.clone(), Arc::clone(&target));
            async move {
                let known = match table.as_deref() {
                    None => Known::No,
                    Some(schema) if as_text => Known::Text(schema),
                    Some(schema) => Known::Table(schema),
                };
                let (_, batches) = open_one(&inputs[index], known).await?;
                let mut before = 0;
                Ok::<_, Error>(batches.map(move |batch| {
                    let batch = batch?;
                    let aligned = align(&batch, &target, table.as_deref(), before);
                    before += batch.num_rows() as u64;
                    aligned
                }))
            }
        })
        .try_flatten();
    Ok((schema, batches.boxed()))
}

/// The columns of `target`, by name; those of the table are checked as they are cast. `before` rows of the
/// same input came earlier.
fn align(
    batch: &RecordBatch,
    target: &SchemaRef,
    table: Option<&Schema>,
    before: u64,
) -> Result<RecordBatch> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let align = |field: &Field| -> Result<ArrayRef> {
        let Some(column) = batch.column_by_name(field.name()) else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        let stored = table.and_then(|t| counterpart(t.fields(), target.fields(), field.name()));
        if stored.is_none() {
            return Ok(cast_with_options(column, field.data_type(), &strict)?);
        }
        let one = batch.project(&[batch.schema_ref().index_of(field.name())?])?;
        let wanted = Schema::new(vec![field.clone().with_nullable(true)]);
        Ok(Arc::clone(conform_at(&one, &wanted, before)?.column(0)))
    };
    let columns: Vec<ArrayRef> = target.fields().iter().map(|f| align(f)).collect::<Result<_>>()?;
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
        let (schema, batches) = both.open(Known::No).await.unwrap();
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

    #[tokio::test]
    async fn a_column_of_the_table_gets_its_type_from_every_input() {
        let first = rows(vec![("a", Arc::new(Int64Array::from(vec![1])))]);
        let second = rows(vec![("a", Arc::new(StringArray::from(vec!["2.5"])))]);
        let both = Rows::several(vec![first, second]);
        let table = |data_type| Schema::new(vec![Field::new("a", data_type, true)]);
        let (_, batches) = both.open(Known::Table(&table(DataType::Float64))).await.unwrap();
        let all: Vec<_> = batches.try_collect().await.unwrap();
        assert_eq!(all[1]["a"].as_primitive::<Float64Type>().values(), &[2.5]);
        let (_, batches) = both.open(Known::Table(&table(DataType::Int32))).await.unwrap();
        let error = batches.try_collect::<Vec<_>>().await.unwrap_err().to_string();
        assert!(error.contains("'2.5'") && error.contains("row 1"), "{error}");
    }
}
