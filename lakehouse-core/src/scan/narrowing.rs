//! Casts that lose something stay where they are.
//!
//! The engine moves a cast from the column to the constant that it is compared with: `CAST(p AS INT) = 1` becomes
//! `p = 1.00` (DataFusion 55.2, `unwrap_cast`), which is not the same for 1.99, and neither for a number that the
//! narrower type cannot hold. It does not look through a function, so such casts are put into one that does nothing.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, TryCast,
};
use datafusion::optimizer::AnalyzerRule;

use super::function::{Function, call_of, calls, declared, only};

/// The function around such casts.
static NARROWED: LazyLock<Arc<ScalarUDF>> = LazyLock::new(declared::<Narrowed>);

/// Puts every narrowing cast of an expression whose types are settled into the function.
pub(super) fn keep(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|node| match &node {
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            if is_narrowing(&expr.get_type(schema)?, field.data_type()) {
                Ok(Transformed::yes(call_of(&NARROWED, node)))
            } else {
                Ok(Transformed::no(node))
            }
        }
        // It was there already.
        Expr::ScalarFunction(outer) if calls::<Narrowed>(outer) => match outer.args.as_slice() {
            [Expr::ScalarFunction(inner)] if calls::<Narrowed>(inner) => {
                Ok(Transformed::yes(Expr::ScalarFunction(inner.clone())))
            }
            _ => Ok(Transformed::no(node)),
        },
        _ => Ok(Transformed::no(node)),
    })
}

/// Whether two values of one type can be one of the other, or none, among the types that the engine moves casts for.
fn is_narrowing(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Date64, Dictionary, Timestamp};
    match (from, to) {
        (Dictionary(_, from), to) => is_narrowing(from, to),
        (from, Dictionary(_, to)) => is_narrowing(from, to),
        // Coarser units and dates are left alone by the engine, finer ones keep every instant apart.
        (Timestamp(..) | Date32 | Date64, Timestamp(..) | Date32 | Date64) => false,
        _ => match (Digits::of(from), Digits::of(to)) {
            (Some(from), Some(to)) => !from.fit(to),
            _ => false,
        },
    }
}

/// The numbers that a type can hold.
#[derive(Clone, Copy)]
enum Digits {
    /// Whole numbers with so many bits, and whether one is for the sign.
    Bits(u32, bool),
    /// Digits before the point and after it.
    Decimal(i32, i32),
}

impl Digits {
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Int8 => Self::Bits(8, true),
            DataType::Int16 => Self::Bits(16, true),
            DataType::Int32 | DataType::Date32 => Self::Bits(32, true),
            DataType::Int64
            | DataType::Date64
            | DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _)
            | DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _) => Self::Bits(64, true),
            DataType::UInt8 => Self::Bits(8, false),
            DataType::UInt16 => Self::Bits(16, false),
            DataType::UInt32 => Self::Bits(32, false),
            DataType::UInt64 => Self::Bits(64, false),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => {
                Self::Decimal(i32::from(*precision) - i32::from(*scale), i32::from(*scale))
            }
            _ => return None,
        })
    }

    /// Whether each of these numbers is one of the others.
    fn fit(self, others: Self) -> bool {
        match (self, others) {
            (Self::Bits(bits, signed), Self::Bits(wide, wide_signed)) => match (signed, wide_signed) {
                (true, false) => false,
                (false, true) => wide > bits,
                _ => wide >= bits,
            },
            (Self::Bits(bits, signed), Self::Decimal(whole, _)) => {
                let largest = u64::MAX >> (64 - bits + u32::from(signed));
                whole > largest.ilog10() as i32
            }
            (Self::Decimal(..), Self::Bits(..)) => false,
            (Self::Decimal(whole, fraction), Self::Decimal(wide, fine)) => wide >= whole && fine >= fraction,
        }
    }
}

/// The same for every plan of a session.
#[derive(Debug)]
pub(super) struct KeepNarrowing;

impl AnalyzerRule for KeepNarrowing {
    fn name(&self) -> &'static str {
        "keep_narrowing"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        each_expression(plan, &keep)
    }
}

/// A plan with every expression rewritten, subqueries included; columns of results keep their names.
pub(super) fn each_expression(
    plan: LogicalPlan,
    rewrite: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let mut schema = merge_schema(&node.inputs());
        if let LogicalPlan::TableScan(scan) = &node {
            let columns = scan.source.schema();
            schema.merge(&DFSchema::try_from_qualified_schema(
                scan.table_name.clone(),
                &columns,
            )?);
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(rewrite(expr, &schema)?.update_data(|expr| name.restore(expr)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .data()
}

/// Gives back what it is given.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Narrowed;

impl Function for Narrowed {
    const NAME: &'static str = "narrowed";

    fn call(given: ScalarFunctionArgs) -> Result<ColumnarValue> {
        only(given)
    }
}
