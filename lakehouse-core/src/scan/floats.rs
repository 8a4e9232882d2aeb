//! Comparisons of floating point mean what they mean in Spark SQL, in every plan and expression of ours: see
//! [`crate::model::floats`]. What is compared is put into a function that spells it in one way; scans take it off again
//! where the metadata say that a column has no NaN, so that filters skip row groups as ever ([`super::nan`]).

use std::sync::{Arc, LazyLock};

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, JoinConstraint, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator,
    ScalarFunctionArgs, ScalarUDF, Subquery,
};
use datafusion::optimizer::AnalyzerRule;

use super::function::{Function, call_of, calls, declared, only};
use super::narrowing::each_expression;
use crate::model::floats::{AS_COMPARED, as_compared, is_spelled_in_several_ways, value_as_compared};

static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(declared::<AsCompared>);

/// An expression whose comparisons of floating point are those of Spark, whatever they were. Types may be settled or not.
///
/// # Errors
/// None in practice.
pub fn compare_floats(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    settle(expr, schema).data()
}

/// What is compared, of an expression that spells it for that.
pub fn stored(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(call) if calls::<AsCompared>(call) => call.args.first(),
        _ => None,
    }
}

/// Spells every number of floating point that an expression compares as it is compared.
pub(super) fn settle(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|node| match node {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if compares(op) && (is_float(&left, schema) || is_float(&right, schema)) =>
        {
            let (left, right) = (
                Box::new(spelled(*left, schema)),
                Box::new(spelled(*right, schema)),
            );
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
        }
        Expr::Between(mut between) if is_float(&between.expr, schema) => {
            for part in [&mut between.expr, &mut between.low, &mut between.high] {
                **part = spelled(std::mem::take(&mut **part), schema);
            }
            Ok(Transformed::yes(Expr::Between(between)))
        }
        Expr::InList(mut list) if is_float(&list.expr, schema) => {
            list.expr = Box::new(spelled(*list.expr, schema));
            list.list = list.list.into_iter().map(|one| spelled(one, schema)).collect();
            Ok(Transformed::yes(Expr::InList(list)))
        }
        Expr::Case(mut case) if case.expr.as_ref().is_some_and(|expr| is_float(expr, schema)) => {
            case.expr = case.expr.map(|expr| Box::new(spelled(*expr, schema)));
            for (when, _) in &mut case.when_then_expr {
                **when = spelled(std::mem::take(&mut **when), schema);
            }
            Ok(Transformed::yes(Expr::Case(case)))
        }
        Expr::InSubquery(of) if stored(&of.expr).is_none() && is_float(&of.expr, schema) => {
            Ok(Transformed::yes(in_subquery(of, schema)?))
        }
        other => Ok(Transformed::no(other)),
    })
}

fn in_subquery(of: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let given = of.subquery.subquery;
    let Some(column) = given.schema().columns().into_iter().next() else {
        return internal_err!("a subquery without a column");
    };
    let column = spelled(Expr::Column(column), given.schema());
    let made = LogicalPlanBuilder::from(given).project([column])?;
    Ok(Expr::InSubquery(InSubquery {
        expr: Box::new(spelled(*of.expr, schema)),
        subquery: Subquery {
            subquery: Arc::new(made.build()?),
            ..of.subquery
        },
        negated: of.negated,
    }))
}

pub(super) fn compares(op: Operator) -> bool {
    use Operator as Op;
    matches!(
        op,
        Op::Eq
            | Op::NotEq
            | Op::Lt
            | Op::LtEq
            | Op::Gt
            | Op::GtEq
            | Op::IsDistinctFrom
            | Op::IsNotDistinctFrom
    )
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema)
        .is_ok_and(|data_type| is_spelled_in_several_ways(&data_type))
}

fn spelled(expr: Expr, schema: &DFSchema) -> Expr {
    match expr {
        Expr::Literal(value, metadata) => Expr::Literal(value_as_compared(value), metadata),
        other if stored(&other).is_some() || has_one_spelling(&other, schema) => other,
        other => call_of(&FUNCTION, other),
    }
}

/// Whether it is no number of floating point, or was another kind of number a moment ago.
fn has_one_spelling(expr: &Expr, schema: &DFSchema) -> bool {
    let before = match expr {
        Expr::Cast(cast) => cast.expr.get_type(schema),
        Expr::TryCast(cast) => cast.expr.get_type(schema),
        other => return !is_float(other, schema),
    };
    before.is_ok_and(|before| before.is_integer() || before.is_decimal())
}

/// The same for every plan of a session, the keys of its joins among them.
#[derive(Debug)]
pub(super) struct CompareFloats;

impl AnalyzerRule for CompareFloats {
    fn name(&self) -> &'static str {
        "compare_floats"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        each_expression(plan, &settle)?
            .transform_up_with_subqueries(|node| Ok(join_keys(node)))
            .data()
    }
}

/// Keys of joins are compared, too: those of USING, and of INTERSECT and EXCEPT.
fn join_keys(node: LogicalPlan) -> Transformed<LogicalPlan> {
    let LogicalPlan::Join(mut join) = node else {
        return Transformed::no(node);
    };
    let mut changed = false;
    let (left, right) = (Arc::clone(join.left.schema()), Arc::clone(join.right.schema()));
    for (of_left, of_right) in &mut join.on {
        if is_float(of_left, &left) || is_float(of_right, &right) {
            *of_left = spelled(std::mem::take(of_left), &left);
            *of_right = spelled(std::mem::take(of_right), &right);
            changed = true;
        }
    }
    if changed {
        // What USING leaves out of `*` is settled by now, and its keys would have to be columns.
        join.join_constraint = JoinConstraint::On;
    }
    Transformed::new_transformed(LogicalPlan::Join(join), changed)
}

/// Spells numbers as they are compared.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsCompared;

impl Function for AsCompared {
    const NAME: &'static str = AS_COMPARED;

    fn call(given: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(match only(given)? {
            ColumnarValue::Array(values) => ColumnarValue::Array(as_compared(&values)),
            ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value_as_compared(value)),
        })
    }
}
