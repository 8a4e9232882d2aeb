//! Expressions over batches, and clauses of which the first that applies takes a row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not, prep_null_mask_filter};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;

use crate::error::Result;
use crate::scan::compare_floats;

/// An expression that can be evaluated on batches of one schema.
#[derive(Debug, Clone)]
pub(super) struct Compiled(Arc<dyn PhysicalExpr>);

impl Compiled {
    /// Prepares an expression for batches whose columns are those of `schema`, in that order.
    pub(super) fn new(ctx: &SessionContext, expr: Expr, schema: &DFSchema) -> Result<Self> {
        Ok(Self(
            ctx.create_physical_expr(compare_floats(expr, schema)?, schema)?,
        ))
    }

    /// The value for each row.
    pub(super) fn values(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        Ok(self.0.evaluate(batch)?.into_array(batch.num_rows())?)
    }

    /// For which rows it is true; NULL is not true.
    pub(super) fn truth(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let values = self.values(batch)?;
        let Some(values) = values.as_boolean_opt() else {
            // A literal NULL.
            return Ok(BooleanArray::from(vec![false; batch.num_rows()]));
        };
        Ok(if values.null_count() == 0 {
            values.clone()
        } else {
            prep_null_mask_filter(values)
        })
    }
}

/// Gives each row to the first of these conditions that is true for it (`None` takes all that are
/// left). Conditions are evaluated only for rows that are left. Returns the rows of each condition
/// that got any.
pub(super) fn first_match(
    conditions: &[Option<Compiled>],
    batch: RecordBatch,
) -> Result<Vec<(usize, RecordBatch)>> {
    let mut taken = Vec::new();
    let mut left = batch;
    for (index, condition) in conditions.iter().enumerate() {
        if left.num_rows() == 0 {
            break;
        }
        let Some(condition) = condition else {
            taken.push((index, left));
            return Ok(taken);
        };
        let truth = condition.truth(&left)?;
        let mine = filter_record_batch(&left, &truth)?;
        if mine.num_rows() > 0 {
            taken.push((index, mine));
            // Not `and_not`: arrow 59 mixes up the offsets of its arguments when one is a slice.
            left = filter_record_batch(&left, &not(&truth)?)?;
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::datatypes::Int32Type;
    use datafusion::prelude::col;

    use super::*;

    #[test]
    fn slices_of_batches_are_split_as_the_condition_says() {
        let n: ArrayRef = Arc::new(Int32Array::from_iter_values(0..20));
        let flag: ArrayRef = Arc::new(BooleanArray::from_iter((0..20).map(|i| Some(i % 3 == 0))));
        let batch = RecordBatch::try_from_iter([("n", n), ("flag", flag)]).unwrap();
        let ctx = SessionContext::new();
        let schema = DFSchema::try_from(batch.schema().as_ref().clone()).unwrap();
        let condition = Compiled::new(&ctx, col("flag"), &schema).unwrap();
        let slice = batch.slice(11, 9);
        let taken = first_match(&[Some(condition), None], slice).unwrap();
        let values = |at: usize| {
            taken[at]
                .1
                .column(0)
                .as_primitive::<Int32Type>()
                .values()
                .to_vec()
        };
        assert_eq!(values(0), [12, 15, 18]);
        assert_eq!(values(1), [11, 13, 14, 16, 17, 19]);
    }
}
