//! What parsed SQL means here, where the parser or the planner would have it mean something else.

use std::ops::ControlFlow;

use arrow::datatypes::DataType as Arrow;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, TimeUnit};
use datafusion::common::{DFSchema, Result as Planning};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr as Planned, ExprSchemable, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr, Query, SetExpr, TypedString, UnaryOperator,
    Value, Visit, VisitMut, VisitorMut, visit_expressions,
};

use crate::error::{Error, Result};

/// Digits that a double keeps, whatever they are (IEEE 754 binary64).
const DOUBLE_DIGITS: usize = 15;

/// Digits of a fraction of a second in microseconds.
const MICROS: usize = 6;

/// Longest list after IN that becomes comparisons.
const LONGEST_LIST: usize = 100;

/// Begins the text of a number on its way to [`Literals`].
const NUMBER: &str = "\u{1}number ";

/// Readies a statement or an expression for the planner, which would lose what is written in it:
/// * a number with more digits than a double keeps goes to [`Literals`] as text, where a column may be
///   compared with it; in VALUES it is a decimal, if all of its column can be,
/// * a time stamp that is written out is in microseconds, as those of tables are, unless it has more
///   digits: nanoseconds reach from 1677 to 2262 only,
/// * BETWEEN, IN and IS DISTINCT FROM with such values become comparisons.
///
/// # Errors
/// [`Error::Invalid`] for what the parser takes for something else: to it, `a IS DISTINCT FROM b AND c`
/// compares `a` with `b AND c` (sqlparser 0.62).
pub fn settle(parsed: &mut (impl Visit + VisitMut), place: &str) -> Result<()> {
    refuse_swallowed(parsed, place)?;
    let _: ControlFlow<()> = parsed.visit(&mut Settler);
    Ok(())
}

struct Settler;

impl VisitorMut for Settler {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Values(values) = query.body.as_mut() {
            let width = values.rows.first().map_or(0, |row| row.len());
            for at in 0..width {
                let column = || values.rows.iter().filter_map(|row| row.get(at));
                let long = column().any(|cell| number(cell).is_some_and(|text| is_long(&text)));
                if !long || !column().all(|cell| number(cell).is_some_and(|text| size(&text).is_some())) {
                    continue;
                }
                for row in &mut values.rows {
                    if let Some(cell) = row.get_mut(at)
                        && let Some(exact) = number(cell).and_then(|text| decimal(&text))
                    {
                        *cell = exact;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        settle_one(expr);
        ControlFlow::Continue(())
    }
}

/// Settles an expression whose parts are settled.
fn settle_one(expr: &mut Expr) {
    match expr {
        Expr::BinaryOp { left, op, right } if compares(op) => {
            keep_digits(left);
            keep_digits(right);
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
        } if is_name(value) && (is_written(low) || is_written(high)) => {
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
        } if is_name(value)
            && list.len() <= LONGEST_LIST
            && (list.iter().all(|one| number(one).is_some()) || list.iter().all(is_instant))
            && list.iter().any(is_written) =>
        {
            let (same, any) = match negated {
                false => (BinaryOperator::Eq, BinaryOperator::Or),
                true => (BinaryOperator::NotEq, BinaryOperator::And),
            };
            let all = list.iter().map(|one| compared(value, same.clone(), one));
            if let Some(all) = all.reduce(|one, other| joined(one, any.clone(), other)) {
                *expr = Expr::Nested(Box::new(all));
            }
        }
        // What is written out is not NULL.
        Expr::IsNotDistinctFrom(value, written) if is_written(written) => {
            *expr = Expr::IsTrue(Box::new(Expr::Nested(Box::new(compared(
                value,
                BinaryOperator::Eq,
                written,
            )))));
        }
        Expr::IsDistinctFrom(value, written) if is_written(written) => {
            *expr = Expr::IsNotTrue(Box::new(Expr::Nested(Box::new(compared(
                value,
                BinaryOperator::Eq,
                written,
            )))));
        }
        _ => {}
    }
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        op,
        Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq | Op::Spaceship
    )
}

fn is_name(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// The text of a number that is written out, with its sign.
fn number(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => Some(number.replace('_', "")),
            _ => None,
        },
        Expr::Nested(inner) => number(inner),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => number(expr)
            .filter(|text| !text.starts_with('-'))
            .map(|text| format!("-{text}")),
        _ => None,
    }
}

/// Whether it is text that begins as a date does.
fn is_instant(expr: &Expr) -> bool {
    let Expr::Value(value) = expr else { return false };
    let Value::SingleQuotedString(text) = &value.value else {
        return false;
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    digits >= 4 && text.as_bytes().get(digits) == Some(&b'-')
}

/// Whether the type that it is compared in matters: a number with a point or many digits, an instant.
fn is_written(expr: &Expr) -> bool {
    is_instant(expr) || number(expr).is_some_and(|text| text.contains('.') || is_long(&text))
}

fn compared(value: &Expr, op: BinaryOperator, with: &Expr) -> Expr {
    let mut with = with.clone();
    keep_digits(&mut with);
    joined(value.clone(), op, with)
}

fn joined(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

/// Whether a double might not keep the digits of a number, and the integers of the engine do not either.
fn is_long(number: &str) -> bool {
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    digits > DOUBLE_DIGITS && number.parse::<i64>().is_err() && size(number).is_some()
}

/// Hands a long number to [`Literals`] as it is written.
fn keep_digits(expr: &mut Expr) {
    if let Some(text) = number(expr).filter(|text| is_long(text)) {
        *expr = Expr::Value(Value::SingleQuotedString(format!("{NUMBER}{text}")).into());
    }
}

/// A number that a decimal column is set to, with every digit.
pub(super) fn decimal_for(value: &Expr, column: &Arrow) -> Option<Planned> {
    let text = number(value).filter(|_| column.is_decimal())?;
    let (precision, scale) = size(&text)?;
    let text = ScalarValue::Utf8(Some(text));
    text.cast_to(&Arrow::Decimal128(precision, scale)).ok().map(lit)
}

fn decimal(text: &str) -> Option<Expr> {
    let (precision, scale) = size(text)?;
    Some(Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(Value::SingleQuotedString(text.to_owned()).into())),
        data_type: DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision.into(), scale.into())),
        format: None,
        array: false,
    })
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

/// Plans comparisons in a type that keeps both sides, where the engine would choose one that does not: for
/// a decimal and a double one of 15 decimal places, for time stamps and text or dates nanoseconds.
#[derive(Debug)]
pub(super) struct Literals;

impl ExprPlanner for Literals {
    fn plan_binary_op(
        &self,
        mut raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Planning<PlannerResult<RawBinaryExpr>> {
        if compares(&raw.op) {
            fit(&mut raw.left, &mut raw.right, schema);
            fit(&mut raw.right, &mut raw.left, schema);
        }
        Ok(PlannerResult::Original(raw))
    }
}

/// Brings `written` and `other` into one type, if it is known how.
fn fit(written: &mut Planned, other: &mut Planned, schema: &DFSchema) {
    let wanted = other.get_type(schema).unwrap_or(Arrow::Null);
    if let Some(text) = number_of(written) {
        let exact = wanted.is_decimal() || wanted.is_integer() || number_of(other).is_some();
        *written = match exact_literal(&text, &wanted).filter(|_| exact) {
            Some(literal) => literal,
            None => {
                in_doubles(other, &wanted);
                lit(text.parse::<f64>().unwrap_or(f64::NAN))
            }
        };
        return;
    }
    match written {
        Planned::Literal(ScalarValue::Float64(Some(number)), _) if wanted.is_decimal() => {
            match exact_literal(&number.to_string(), &wanted) {
                Some(literal) => *written = literal,
                None => in_doubles(other, &wanted),
            }
        }
        Planned::Literal(ScalarValue::Utf8(Some(text)), _)
            if is_micros(&wanted) && fraction(text) <= MICROS =>
        {
            *written = cast(written, wanted);
        }
        _ if is_micros(&wanted) && matches!(written.get_type(schema), Ok(Arrow::Date32 | Arrow::Date64)) => {
            *written = cast(written, wanted);
        }
        _ => {}
    }
}

/// A number that [`settle`] handed over as text.
fn number_of(expr: &Planned) -> Option<String> {
    match expr {
        Planned::Literal(ScalarValue::Utf8(Some(text)), _) => text.strip_prefix(NUMBER).map(str::to_owned),
        _ => None,
    }
}

/// The number as a decimal, if one type holds it and the values of `other`.
fn exact_literal(text: &str, other: &Arrow) -> Option<Planned> {
    let (precision, scale) = size(text)?;
    let (whole, places) = match other {
        Arrow::Decimal32(p, s) | Arrow::Decimal64(p, s) | Arrow::Decimal128(p, s) => {
            (i16::from(*p) - i16::from(*s), *s)
        }
        Arrow::Decimal256(..) => return None,
        // Digits of the largest 64-bit integers.
        _ => (20, 0),
    };
    let common = whole.max(i16::from(precision) - i16::from(scale)) + i16::from(places.max(scale));
    if common > i16::from(DECIMAL128_MAX_PRECISION) {
        return None;
    }
    let text = ScalarValue::Utf8(Some(text.to_owned()));
    text.cast_to(&Arrow::Decimal128(precision, scale)).ok().map(lit)
}

/// No decimal holds both sides: they are compared as doubles.
fn in_doubles(expr: &mut Planned, data_type: &Arrow) {
    if data_type.is_decimal() {
        *expr = cast(expr, Arrow::Float64);
    }
}

fn cast(expr: &Planned, to: Arrow) -> Planned {
    Planned::Cast(Cast::new(Box::new(expr.clone()), to))
}

fn is_micros(data_type: &Arrow) -> bool {
    matches!(data_type, Arrow::Timestamp(TimeUnit::Microsecond, _))
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
            (
                "price IS DISTINCT FROM 0.100000000000000001",
                "Decimal128(0.100000000000000001",
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
        // No decimal holds both.
        let (expr, _) = planned("price > 1e-30");
        assert_eq!(
            expr,
            "CAST(price AS Float64) > Float64(0.000000000000000000000000000001)"
        );
    }

    #[test]
    fn other_numbers_are_doubles_to_the_last_bit() {
        for text in [
            "1.0 * n / 3",
            "n / 3.14159265358979323846",
            "n * 1.12345678901234567890123456789",
            "power(2, 0.5)",
            "1e300",
            "score * 1.1",
            "score + 0.30000000000000004",
            "CASE WHEN n = 1 THEN 0.12345678901234567 ELSE score END",
            "coalesce(score, 0.30000000000000004)",
            "-1.5e-7",
        ] {
            assert_eq!(planned(text).1, DataType::Float64, "{text}");
        }
        for (text, expected) in [
            ("score > 1.5", "as_compared(score) > Float64(1.5)"),
            (
                "score = 0.30000000000000004",
                "as_compared(score) = Float64(0.30000000000000004)",
            ),
            (
                "-0.30000000000000004 = score",
                "Float64(-0.30000000000000004) = as_compared(score)",
            ),
        ] {
            assert_eq!(planned(text).0, expected);
        }
    }

    #[test]
    fn casts_that_are_written_stay_as_they_are() {
        for (text, expected) in [
            ("CAST('2.55' AS DECIMAL(3, 1))", "Decimal128(2.6,3,1)"),
            ("-CAST('1.55' AS DECIMAL(10, 1))", "Decimal128(-1.6,10,1)"),
            ("abs(CAST('-2.55' AS DECIMAL(3, 1)))", "Decimal128(2.6,3,1)"),
        ] {
            assert_eq!(planned(text).0, expected, "{text}");
        }
        assert_eq!(
            planned("coalesce(price, '1.5'::decimal(3, 1))").1,
            DataType::Decimal128(38, 18)
        );
    }

    #[test]
    fn instants_beyond_the_reach_of_nanoseconds_can_be_named() {
        for text in [
            "at < TIMESTAMP '1500-01-01 00:00:00'",
            "at < '1500-01-01'",
            "at < CAST('9999-12-31' AS TIMESTAMP)",
            "at BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'",
            "zoned < TIMESTAMPTZ '9999-12-31T00:00:00Z'",
            "at IN ('1500-06-01', '3000-01-01 00:00:00.000001')",
            "at IS NOT DISTINCT FROM '3000-01-01'",
            "at <=> '3000-01-01'",
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
