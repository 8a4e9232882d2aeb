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
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal, case, lit};
use datafusion::physical_expr::{ScalarFunctionExpr, conjunction, split_conjunction};
use datafusion::scalar::ScalarValue;

use crate::model::floats::AS_COMPARED;
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

/// The same filter, in which bounds decide nothing that NaN could change, and all that they can.
pub(super) fn guard(
    filter: &Arc<dyn PhysicalExpr>,
    columns: &BTreeSet<String>,
) -> Result<Arc<dyn PhysicalExpr>> {
    let mut parts = Vec::new();
    let mut changed = false;
    for part in split_conjunction(filter) {
        let before = parts.len();
        // The pruning of the engine looks neither into functions nor into CASE.
        match (plain(part)?, names_one(part, columns)?) {
            (Some(plain), false) => parts.push(plain),
            (Some(plain), true) => match without_nan(&plain) {
                Nan::Never => parts.push(plain),
                Nan::Negative => parts.extend([plain, Arc::clone(part)]),
                Nan::Perhaps => parts.push(Arc::clone(part)),
            },
            (None, true) if !matches!(without_nan(part), Nan::Never | Nan::Negative) => {
                parts.push(case(None, vec![(Arc::clone(part), lit(true))], Some(lit(false)))?);
            }
            (None, _) => parts.push(Arc::clone(part)),
        }
        changed |= parts.len() != before + 1 || !Arc::ptr_eq(&parts[before], part);
    }
    Ok(match changed {
        true => conjunction(parts),
        false => Arc::clone(filter),
    })
}

/// A comparison of a column with a constant as it would be without the function that spells the column as it is compared
/// ([`super::floats`]). Comparisons of the engine know that zeros have no sign; of NaN they know another order.
fn plain(part: &Arc<dyn PhysicalExpr>) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let Some(comparison) = part.downcast_ref::<BinaryExpr>() else {
        return Ok(None);
    };
    let stored = |side: &Arc<dyn PhysicalExpr>| {
        let call = side.downcast_ref::<ScalarFunctionExpr>()?;
        let inner = call.args().first()?;
        (call.name() == AS_COMPARED && column(inner).is_some()).then(|| Arc::clone(inner))
    };
    let (left, right) = (comparison.left(), comparison.right());
    let sides = match (stored(left), stored(right)) {
        (Some(left), None) if is_literal(right) => (left, Arc::clone(right)),
        (None, Some(right)) if is_literal(left) => (Arc::clone(left), right),
        _ => return Ok(None),
    };
    Ok(Some(Arc::new(BinaryExpr::new(
        sides.0,
        *comparison.op(),
        sides.1,
    ))))
}

/// The column, perhaps in a cast to another type of floating point.
fn column(side: &Arc<dyn PhysicalExpr>) -> Option<&Column> {
    match side.downcast_ref::<CastExpr>() {
        Some(cast) if cast.cast_type().is_floating() => cast.expr().downcast_ref(),
        _ => side.downcast_ref(),
    }
}

fn is_literal(side: &Arc<dyn PhysicalExpr>) -> bool {
    side.downcast_ref::<Literal>().is_some()
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

/// Whether NaN passes a comparison of a column with a number, in the engine's order.
enum Nan {
    /// `x = 1`.
    Never,
    /// One with the sign bit set: `x < 1`, `1 >= x`.
    Negative,
    /// All else.
    Perhaps,
}

fn without_nan(expr: &Arc<dyn PhysicalExpr>) -> Nan {
    let Some(comparison) = expr.downcast_ref::<BinaryExpr>() else {
        return Nan::Perhaps;
    };
    let number = |side: &Arc<dyn PhysicalExpr>| {
        side.downcast_ref::<Literal>()
            .is_some_and(|literal| match literal.value() {
                ScalarValue::Float64(Some(value)) => !value.is_nan(),
                ScalarValue::Float32(Some(value)) => !value.is_nan(),
                _ => false,
            })
    };
    let (left, right) = (comparison.left(), comparison.right());
    let on_left = column(left).is_some() && number(right);
    let on_right = number(left) && column(right).is_some();
    match comparison.op() {
        Operator::Eq if on_left || on_right => Nan::Never,
        Operator::Lt | Operator::LtEq if on_left => Nan::Negative,
        Operator::Gt | Operator::GtEq if on_right => Nan::Negative,
        _ => Nan::Perhaps,
    }
}
