//! Filters that NaN may satisfy, hidden from the pruning of row groups and pages.
//!
//! Bounds in Parquet leave NaN out (`parquet.thrift`, `ColumnOrder`), while the engine counts NaN as larger
//! than every number: with bounds from 1 to 2, `x > 30` may still be true of a row.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal, case, lit};
use datafusion::physical_expr::{conjunction, split_conjunction};
use datafusion::scalar::ScalarValue;

use crate::model::{DataFile, Snapshot};

/// The columns of floating point, or with such inside, that may hold NaN in one of these files.
pub(super) fn columns<'a>(
    snapshot: &Snapshot,
    files: impl Iterator<Item = &'a DataFile> + Clone,
) -> BTreeSet<String> {
    let may_hold = |name: &String, data_type: &DataType| {
        let known = |file: &DataFile| file.columns.get(name).and_then(|stats| stats.nans) == Some(0);
        data_type.is_nested() || !files.clone().all(known)
    };
    let fields = snapshot.schema.fields().iter();
    fields
        .filter(|field| has_floats(field.data_type()) && may_hold(field.name(), field.data_type()))
        .map(|field| field.name().clone())
        .collect()
}

fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _) => has_floats(inner.data_type()),
        other => other.is_floating(),
    }
}

/// The same filter, in which bounds decide nothing that NaN could change.
pub(super) fn guard(
    filter: &Arc<dyn PhysicalExpr>,
    columns: &BTreeSet<String>,
) -> Result<Arc<dyn PhysicalExpr>> {
    let mut parts = Vec::new();
    let mut guarded = false;
    for part in split_conjunction(filter) {
        if names_one(part, columns)? && !excludes_nan(part) {
            // The pruning of the engine does not look into CASE.
            parts.push(case(None, vec![(Arc::clone(part), lit(true))], Some(lit(false)))?);
            guarded = true;
        } else {
            parts.push(Arc::clone(part));
        }
    }
    Ok(match guarded {
        true => conjunction(parts),
        false => Arc::clone(filter),
    })
}

/// Whether an expression names one of these columns.
pub(super) fn names_one(expr: &Arc<dyn PhysicalExpr>, columns: &BTreeSet<String>) -> Result<bool> {
    let mut found = false;
    expr.apply(|node| {
        found |= node
            .downcast_ref::<Column>()
            .is_some_and(|column| columns.contains(column.name()));
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// Whether it compares a column with a number so that NaN never passes: `x < 1`, `x = 1`, `1 >= x`.
fn excludes_nan(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let Some(comparison) = expr.downcast_ref::<BinaryExpr>() else {
        return false;
    };
    let column = |side: &Arc<dyn PhysicalExpr>| side.downcast_ref::<Column>().is_some();
    let number = |side: &Arc<dyn PhysicalExpr>| {
        side.downcast_ref::<Literal>()
            .is_some_and(|literal| match literal.value() {
                ScalarValue::Float64(Some(value)) => !value.is_nan(),
                ScalarValue::Float32(Some(value)) => !value.is_nan(),
                _ => false,
            })
    };
    let (left, right) = (comparison.left(), comparison.right());
    match comparison.op() {
        Operator::Eq => (column(left) && number(right)) || (number(left) && column(right)),
        Operator::Lt | Operator::LtEq => column(left) && number(right),
        Operator::Gt | Operator::GtEq => number(left) && column(right),
        _ => false,
    }
}
