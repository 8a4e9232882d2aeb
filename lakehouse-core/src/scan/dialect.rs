//! What parsed SQL means here, where the parser or the planner would have it mean something else.

use std::ops::ControlFlow;

use arrow::datatypes::DataType as Arrow;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, TimeUnit};
use datafusion::common::{DFSchema, Result as Planning};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr as Planned, ExprSchemable, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr, FunctionArg, FunctionArgExpr,
    FunctionArguments, TypedString, UnaryOperator, Value, Visit, VisitMut, visit_expressions,
    visit_expressions_mut,
};

use crate::error::{Error, Result};

/// Digits that a double keeps, whatever they are (IEEE 754 binary64).
const DOUBLE_DIGITS: usize = 15;

/// Digits of a fraction of a second in microseconds.
const MICROS: usize = 6;

/// Readies a statement or an expression for the planner, which would lose what is written in it:
/// * a number with more digits than a double keeps becomes a decimal, except where a function takes it,
/// * a time stamp that is written out is in microseconds, as those of tables are, unless it has more
///   digits: nanoseconds reach from 1677 to 2262 only,
/// * BETWEEN and IN with such values become comparisons, for [`Literals`] to see them.
///
/// # Errors
/// [`Error::Invalid`] for what the parser takes for something else: to it, `a IS DISTINCT FROM b AND c`
/// compares `a` with `b AND c` (sqlparser 0.62).
pub fn settle(parsed: &mut (impl Visit + VisitMut), place: &str) -> Result<()> {
    refuse_swallowed(parsed, place)?;
    let _: ControlFlow<()> = visit_expressions_mut(parsed, |expr| {
        settle_one(expr);
        ControlFlow::Continue(())
    });
    Ok(())
}

/// Settles an expression whose parts are settled.
fn settle_one(expr: &mut Expr) {
    match expr {
        Expr::Value(value) => {
            if let Value::Number(number, _) = &value.value
                && let Some(exact) = exact(number)
            {
                *expr = exact;
            }
        }
        // The sign belongs to the number.
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: inner,
        } => {
            if let Some(text) = decimal_text(inner)
                && !text.starts_with('-')
                && let Some(exact) = decimal(&format!("-{text}"))
            {
                *expr = exact;
            }
        }
        Expr::Function(function) => {
            if let FunctionArguments::List(list) = &mut function.args {
                list.args.iter_mut().for_each(approximate);
            }
        }
        Expr::TypedString(TypedString { data_type, value, .. }) => in_microseconds(data_type, &value.value),
        Expr::Cast { expr, data_type, .. } => {
            if let Expr::Value(value) = expr.as_ref() {
                in_microseconds(data_type, &value.value);
            }
        }
        Expr::Between {
            expr: value,
            negated,
            low,
            high,
        } if is_name(value) && (is_literal(low) || is_literal(high)) => {
            let (at_least, at_most, both) = match negated {
                false => (BinaryOperator::GtEq, BinaryOperator::LtEq, BinaryOperator::And),
                true => (BinaryOperator::Lt, BinaryOperator::Gt, BinaryOperator::Or),
            };
            let one = compared(value, at_least, low);
            let other = compared(value, at_most, high);
            *expr = Expr::Nested(Box::new(joined(one, both, other)));
        }
        Expr::InList {
            expr: value,
            list,
            negated,
        } if is_name(value) && list.iter().any(is_fraction) => {
            let (same, any) = match negated {
                false => (BinaryOperator::Eq, BinaryOperator::Or),
                true => (BinaryOperator::NotEq, BinaryOperator::And),
            };
            let all = list.iter().map(|one| compared(value, same.clone(), one));
            if let Some(all) = all.reduce(|one, other| joined(one, any.clone(), other)) {
                *expr = Expr::Nested(Box::new(all));
            }
        }
        _ => {}
    }
}

fn is_name(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::SingleQuotedString(_)) || is_fraction(expr),
        _ => is_fraction(expr),
    }
}

/// Whether it is a number with a point, or one that became a decimal.
fn is_fraction(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(&value.value, Value::Number(number, _) if number.contains('.')),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => is_fraction(expr),
        other => decimal_text(other).is_some(),
    }
}

fn compared(value: &Expr, op: BinaryOperator, with: &Expr) -> Expr {
    joined(value.clone(), op, with.clone())
}

fn joined(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

/// A number as a decimal, if a double might not keep its digits and a decimal does.
fn exact(number: &str) -> Option<Expr> {
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    // Whole numbers that fit the integers of the engine are exact as they are.
    (digits > DOUBLE_DIGITS && number.parse::<u64>().is_err()).then(|| decimal(number))?
}

fn decimal(number: &str) -> Option<Expr> {
    let text = number.replace('_', "");
    let (precision, scale) = size(&text)?;
    Some(Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(Value::SingleQuotedString(text).into())),
        data_type: DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision.into(), scale.into())),
        format: None,
        array: false,
    })
}

/// The text of a number that became a decimal.
fn decimal_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Nested(inner) => decimal_text(inner),
        Expr::Cast {
            expr,
            data_type: DataType::Decimal(_),
            ..
        } => match expr.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Some(text),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Precision and scale of a number without an exponent, if a decimal can have them.
fn size(number: &str) -> Option<(u8, i8)> {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let precision = whole.trim_start_matches('0').len() + fraction.len();
    let precision = u8::try_from(precision.max(1)).ok()?;
    let scale = i8::try_from(fraction.len()).ok()?;
    (precision <= DECIMAL128_MAX_PRECISION).then_some((precision, scale))
}

/// A number that a function takes is what the planner makes of it: functions of decimals are few.
fn approximate(argument: &mut FunctionArg) {
    let (FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. } | FunctionArg::Unnamed(arg)) =
        argument;
    if let FunctionArgExpr::Expr(expr) = arg
        && let Some(text) = decimal_text(expr)
    {
        *expr = Expr::Value(Value::Number(text.to_owned(), false).into());
    }
}

/// Gives a time stamp without a precision the one of its text.
fn in_microseconds(data_type: &mut DataType, text: &Value) {
    if let (Value::SingleQuotedString(text), DataType::Timestamp(precision @ None, _)) = (text, data_type)
        && fraction(text) <= MICROS
    {
        *precision = Some(MICROS as u64);
    }
}

/// Digits behind the point of seconds.
fn fraction(text: &str) -> usize {
    let behind = text.split_once('.').map_or("", |(_, behind)| behind);
    behind.bytes().take_while(u8::is_ascii_digit).count()
}

/// Plans comparisons of a column with what is written out in the column's type, where the engine would
/// compare both in a third type: a decimal with a double (in 15 decimal places), a time stamp with text
/// (in nanoseconds).
#[derive(Debug)]
pub(super) struct Literals;

impl ExprPlanner for Literals {
    fn plan_binary_op(
        &self,
        mut raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Planning<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator as Op;
        let compares = matches!(
            raw.op,
            Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq | Op::Spaceship
        );
        if let Some(fitting) = fitting(&raw.right, &raw.left, schema, compares) {
            raw.right = fitting;
        } else if let Some(fitting) = fitting(&raw.left, &raw.right, schema, compares) {
            raw.left = fitting;
        }
        Ok(PlannerResult::Original(raw))
    }
}

/// What is written out, in the type of the other side; `None` if it may stay as it is.
fn fitting(written: &Planned, other: &Planned, schema: &DFSchema, compares: bool) -> Option<Planned> {
    let wanted = || other.get_type(schema).ok();
    if let Some(number) = exact_number(written) {
        return wanted()?
            .is_floating()
            .then(|| number.parse().ok().map(lit::<f64>))?;
    }
    if !compares {
        return None;
    }
    match written {
        Planned::Literal(ScalarValue::Float64(Some(number)), _) if number.is_finite() => {
            let text = number.to_string();
            let (precision, scale) = size(&text).filter(|_| wanted().is_some_and(|t| t.is_decimal()))?;
            let value = ScalarValue::Utf8(Some(text)).cast_to(&Arrow::Decimal128(precision, scale));
            Some(lit(value.ok()?))
        }
        Planned::Literal(ScalarValue::Utf8(Some(text)), _) if fraction(text) <= MICROS => {
            let coarse = |unit: &TimeUnit| *unit == TimeUnit::Microsecond;
            let wanted = wanted().filter(|t| matches!(t, Arrow::Timestamp(unit, _) if coarse(unit)))?;
            Some(Planned::Cast(Cast::new(Box::new(written.clone()), wanted)))
        }
        _ => None,
    }
}

/// The text of a number that became a decimal.
fn exact_number(expr: &Planned) -> Option<&str> {
    match expr {
        Planned::Cast(cast) if cast.field.data_type().is_decimal() => match cast.expr.as_ref() {
            Planned::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn refuse_swallowed(parsed: &impl Visit, place: &str) -> Result<()> {
    use BinaryOperator::{And, Or, Xor};
    let found = visit_expressions(parsed, |expr| match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => match right.as_ref() {
            Expr::BinaryOp {
                op: And | Or | Xor, ..
            } => ControlFlow::Break(expr.to_string()),
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(Error::invalid(
            format!("it is not clear where this comparison ends: {what}"),
            place,
        )
        .with_hint("put it in parentheses: (a IS NOT DISTINCT FROM b) AND c")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use datafusion::logical_expr::ExprSchemable;

    use crate::scan::{columns_of, parse_expression};

    fn table() -> Schema {
        let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        Schema::new(vec![
            Field::new("price", DataType::Decimal128(38, 18), true),
            Field::new("score", DataType::Float64, true),
            Field::new("n", DataType::Int64, true),
            Field::new("at", micros(None), true),
            Field::new("zoned", micros(Some("UTC")), true),
            Field::new("fine", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        ])
    }

    fn planned(text: &str) -> (String, DataType) {
        let schema = columns_of(&table(), None).unwrap();
        let expr = parse_expression(text, &schema).unwrap_or_else(|e| panic!("{text}: {e}"));
        let data_type = expr.get_type(&schema).unwrap();
        (expr.to_string(), data_type)
    }

    #[test]
    fn what_a_decimal_column_is_compared_with_keeps_every_digit() {
        for (text, digits) in [
            (
                "price = 12345678901234567890.123456789012345678",
                "Decimal128(12345678901234567890.123456789012345678",
            ),
            (
                "price <= -0.100000000000000001",
                "Decimal128(-0.100000000000000001",
            ),
            (
                "price NOT IN (0.1, 0.100000000000000001)",
                "Decimal128(0.100000000000000001",
            ),
            (
                "price BETWEEN -0.5 AND 0.100000000000000001",
                "Decimal128(-0.500000000000000000",
            ),
            ("0.1 < price", "Decimal128(0.100000000000000000"),
            (
                "n = 12345678901234567890123",
                "Decimal128(12345678901234567890123",
            ),
        ] {
            let (expr, _) = planned(text);
            assert!(
                expr.contains(digits) && !expr.contains("Float64"),
                "{text}: {expr}"
            );
            assert!(!expr.contains("CAST(price"), "{text}: {expr}");
        }
    }

    #[test]
    fn other_numbers_are_doubles_to_the_last_bit() {
        for text in [
            "1.0 * n / 3",
            "power(2, 0.5)",
            "1e300",
            "score * 1.1",
            "score + 0.30000000000000004",
            "CASE WHEN n = 1 THEN 0.5 ELSE score END",
            "coalesce(score, 0.30000000000000004)",
            "-1.5e-7",
        ] {
            assert_eq!(planned(text).1, DataType::Float64, "{text}");
        }
        for (text, expected) in [
            ("score > 1.5", "score > Float64(1.5)"),
            (
                "score = 0.30000000000000004",
                "score = Float64(0.30000000000000004)",
            ),
            (
                "-0.30000000000000004 = score",
                "score = Float64(-0.30000000000000004)",
            ),
        ] {
            assert_eq!(planned(text).0, expected);
        }
    }

    #[test]
    fn instants_beyond_the_reach_of_nanoseconds_can_be_named() {
        for text in [
            "at < TIMESTAMP '1500-01-01 00:00:00'",
            "at < '1500-01-01'",
            "at < CAST('9999-12-31' AS TIMESTAMP)",
            "at BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'",
            "zoned < TIMESTAMPTZ '9999-12-31T00:00:00Z'",
            "zoned < TIMESTAMP WITH TIME ZONE '1500-01-01T00:00:00Z'",
        ] {
            let (expr, _) = planned(text);
            assert!(
                expr.contains("TimestampMicrosecond") && !expr.contains("CAST("),
                "{text}: {expr}"
            );
        }
        let (expr, _) = planned("fine = TIMESTAMP '2013-01-01 00:00:00.123456789'");
        assert!(expr.contains("TimestampNanosecond(1356998400123456789"), "{expr}");
    }
}
