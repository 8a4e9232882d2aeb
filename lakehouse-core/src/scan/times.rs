//! Times beyond the reach of nanoseconds (1677 to 2262), which tables hold: they are compared and cut off in microseconds,
//! where the engine (DataFusion 55.2) would go by way of nanoseconds and fail.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::floats::compares;
use super::function::{Function, declared};
use super::narrowing::each_expression;
use crate::model::{month_start, months_of_day};

/// An expression whose types are settled, in which times of coarser units are compared in microseconds.
pub(super) fn settle(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|node| {
        Ok(match node {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
                match (in_micros(&left, schema), in_micros(&right, schema)) {
                    (Some(left), Some(right)) => {
                        let (left, right) = (Box::new(left), Box::new(right));
                        Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
                    }
                    _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
                }
            }
            Expr::Between(mut between) => {
                let parts = [&between.expr, &between.low, &between.high].map(|part| in_micros(part, schema));
                match parts {
                    [Some(expr), Some(low), Some(high)] => {
                        (*between.expr, *between.low, *between.high) = (expr, low, high);
                        Transformed::yes(Expr::Between(between))
                    }
                    _ => Transformed::no(Expr::Between(between)),
                }
            }
            other => Transformed::no(other),
        })
    })
}

/// A value that was brought to nanoseconds to be compared, in microseconds; `None` where that would lose something.
fn in_micros(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    match expr {
        Expr::Literal(ScalarValue::TimestampNanosecond(value, zone), metadata) => {
            let whole = value.is_none_or(|nanos| nanos % 1000 == 0);
            let micros =
                ScalarValue::TimestampMicrosecond(value.map(|nanos| nanos.div_euclid(1000)), zone.clone());
            whole.then(|| Expr::Literal(micros, metadata.clone()))
        }
        Expr::Cast(Cast { expr, field }) => {
            let DataType::Timestamp(TimeUnit::Nanosecond, zone) = field.data_type() else {
                return None;
            };
            let from = expr.get_type(schema).ok()?;
            let coarse = match &from {
                DataType::Timestamp(unit, _) => *unit != TimeUnit::Nanosecond,
                other => *other == DataType::Date32,
            };
            let to = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            coarse.then(|| match from == to {
                true => expr.as_ref().clone(),
                false => Expr::Cast(Cast::new(expr.clone(), to)),
            })
        }
        _ => None,
    }
}

/// The same for every plan of a session.
#[derive(Debug)]
pub(super) struct CompareTimes;

impl AnalyzerRule for CompareTimes {
    fn name(&self) -> &'static str {
        "compare_times"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        each_expression(plan, &settle)
    }
}

/// The name under which Spark's `date_trunc` is known to expressions of ours.
pub(super) const DATE_TRUNC: &str = "date_trunc_micros";

/// Spark's `date_trunc`, of dates and of times in UTC or without a zone, in microseconds.
pub(super) fn date_trunc() -> Arc<ScalarUDF> {
    declared::<DateTrunc>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc;

impl Function for DateTrunc {
    const NAME: &'static str = DATE_TRUNC;
    const TAKES: usize = 2;

    fn gives(given: &[FieldRef]) -> Result<FieldRef> {
        let zone = match given.last().map(|values| values.data_type()) {
            Some(DataType::Timestamp(_, zone)) => zone.clone(),
            Some(DataType::Date32 | DataType::Null) => Some("UTC".into()),
            other => return plan_err!("date_trunc of {other:?}"),
        };
        let times = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(Arc::new(Field::new(DATE_TRUNC, times, true)))
    }

    fn call(args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(unit), values] = args.args.as_slice() else {
            return exec_err!("the unit of date_trunc has to be written out");
        };
        let start = match unit.try_as_str().flatten() {
            Some("year") => |micros| of_months(micros, 12),
            Some("quarter") => |micros| of_months(micros, 3),
            Some("month") => |micros| of_months(micros, 1),
            Some("day") => |micros| of_micros(micros, DAY),
            Some("hour") => |micros| of_micros(micros, 3_600_000_000),
            Some("minute") => |micros| of_micros(micros, 60_000_000),
            other => return exec_err!("the unit {other:?} of date_trunc is not known"),
        };
        let given = values.to_array(args.number_rows)?;
        let to = args.return_field.data_type();
        let given = cast(&given, to)?;
        let cut: PrimitiveArray<TimestampMicrosecondType> =
            given.as_primitive::<TimestampMicrosecondType>().unary_opt(start);
        let cut: ArrayRef = Arc::new(cut.with_data_type(to.clone()));
        Ok(match values {
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&cut, 0)?),
            ColumnarValue::Array(_) => ColumnarValue::Array(cut),
        })
    }
}

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

fn of_micros(micros: i64, unit: i64) -> Option<i64> {
    micros.div_euclid(unit).checked_mul(unit)
}

fn of_months(micros: i64, months: i64) -> Option<i64> {
    let month = months_of_day(micros.div_euclid(DAY)).div_euclid(months) * months;
    month_start(month).checked_mul(DAY)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, TimestampMicrosecondArray};
    use arrow::datatypes::Schema;
    use chrono::{Datelike, NaiveDate, NaiveTime, TimeDelta, Timelike};
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::scan::{columns_of, parse_predicate, parse_spark};

    fn table() -> Schema {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Schema::new(vec![
            Field::new("ts", utc, true),
            Field::new("d", DataType::Date32, true),
        ])
    }

    /// Times from the year 1 to the year 9999.
    fn batch() -> arrow::array::RecordBatch {
        let day = 719_162_i64;
        let micros = (0..5000).map(|at| (at * 730_119 / 1000 - day) * DAY + at * 17_123_456_789 % DAY);
        let ts = TimestampMicrosecondArray::from_iter_values(micros.clone()).with_timezone("UTC");
        let d = Date32Array::from_iter_values(micros.map(|micros| micros.div_euclid(DAY) as i32));
        arrow::array::RecordBatch::try_new(Arc::new(table()), vec![Arc::new(ts), Arc::new(d)]).unwrap()
    }

    fn evaluate(expr: Expr) -> ArrayRef {
        let ctx = SessionContext::new();
        let schema = columns_of(&table(), None).unwrap();
        let batch = batch();
        let made = ctx.create_physical_expr(expr, &schema).unwrap();
        let values = made.evaluate(&batch).unwrap();
        values.into_array(batch.num_rows()).unwrap()
    }

    #[test]
    fn times_of_all_years_are_cut_off_as_the_calendar_says() {
        let batch = batch();
        let given = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        for unit in ["YEAR", "quarter", "MONTH", "day", "hour", "minute"] {
            let cut = evaluate(parse_spark(&format!("date_trunc('{unit}', ts)"), &table()).unwrap());
            let cut = cut.as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let at = given.value_as_datetime(row).unwrap();
                let (date, time) = (at.date(), at.time());
                let first = |month| NaiveDate::from_ymd_opt(date.year(), month, 1).unwrap();
                let hour = NaiveTime::from_hms_opt(time.hour(), 0, 0).unwrap();
                let expected = match unit {
                    "YEAR" => first(1).into(),
                    "quarter" => first((date.month() - 1) / 3 * 3 + 1).into(),
                    "MONTH" => first(date.month()).into(),
                    "day" => date.into(),
                    "hour" => date.and_time(hour),
                    _ => date.and_time(hour) + TimeDelta::minutes(time.minute().into()),
                };
                assert_eq!(cut.value_as_datetime(row), Some(expected), "{unit} of {at}");
            }
        }
    }

    #[test]
    fn dates_and_times_of_all_years_are_compared() {
        let schema = columns_of(&table(), None).unwrap();
        for text in [
            "ts >= d",
            "d <= ts",
            "ts BETWEEN d AND ts",
            "NOT (ts < d)",
            "ts > DATE '0001-01-01' OR d = DATE '0001-01-01'",
            "date_trunc('month', d) <= ts",
            "trunc(d, 'year') <= d",
            "date_trunc('day', ts) = d",
            "year(ts) = year(d)",
        ] {
            let all = |expr| evaluate(expr).as_boolean().true_count();
            assert_eq!(all(parse_spark(text, &table()).unwrap()), 5000, "{text}");
            if !text.contains('(') {
                assert_eq!(all(parse_predicate(text, &schema).unwrap()), 5000, "{text}");
            }
        }
    }
}
