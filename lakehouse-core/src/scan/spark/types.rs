//! Types that meet in an expression of Spark's: where Spark converts one to the other in another way than we do, it is refused.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as Planned, ExprSchemable, Operator};
use datafusion::scalar::ScalarValue;

/// Kinds of types between which Spark and we convert in different ways.
#[derive(PartialEq, Clone, Copy)]
enum Family {
    Integer,
    Decimal,
    Float,
    Text,
    Time,
    Null,
    Other,
}

fn family(data_type: &DataType) -> Family {
    match data_type {
        DataType::Null => Family::Null,
        other if other.is_integer() => Family::Integer,
        DataType::Decimal128(..) => Family::Decimal,
        other if other.is_floating() => Family::Float,
        other if other.is_string() => Family::Text,
        DataType::Date32 | DataType::Timestamp(..) => Family::Time,
        _ => Family::Other,
    }
}

/// Refuses what depends on conversions that Spark makes otherwise.
pub(super) fn check_types(expr: &Planned, schema: &DFSchema) -> Result<(), String> {
    let mut refused = None;
    let visited = expr.apply(|node| {
        refused = conversion(node, schema);
        Ok(match refused {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    });
    match (visited, refused) {
        (Ok(_), None) => Ok(()),
        (Ok(_), Some(what)) => Err(what),
        (Err(error), _) => Err(error.to_string()),
    }
}

fn conversion(node: &Planned, schema: &DFSchema) -> Option<String> {
    let of = |expr: &Planned| expr.get_type(schema).unwrap_or(DataType::Null);
    let comparable = |one: &Planned, other: &Planned| {
        let (left, right) = (of(one), of(other));
        let literal = |expr: &Planned| matches!(expr, Planned::Literal(..));
        match (family(&left), family(&right)) {
            (Family::Null, _) | (_, Family::Null) => true,
            (Family::Other, _) | (_, Family::Other) => left == right,
            (Family::Text, Family::Time) => is_time(one),
            (Family::Time, Family::Text) => is_time(other),
            // Spark compares doubles.
            (Family::Float, Family::Decimal) | (Family::Decimal, Family::Float) => {
                literal(one) || literal(other)
            }
            (Family::Text, other) | (other, Family::Text) => other == Family::Text,
            (Family::Time, other) | (other, Family::Time) => other == Family::Time,
            _ => true,
        }
    };
    match node {
        Planned::BinaryExpr(binary) => {
            let (left, right) = (of(&binary.left), of(&binary.right));
            let allowed = match binary.op {
                Operator::Plus | Operator::Minus | Operator::Multiply => {
                    // A number with a point is a decimal to Spark: that makes no difference beside doubles only.
                    let written = |expr: &Planned| matches!(expr, Planned::Literal(value, _) if value.data_type().is_floating());
                    let beside =
                        |one: &Planned, other: &DataType| !written(one) || *other == DataType::Float64;
                    let both = written(&binary.left) && written(&binary.right);
                    !both
                        && beside(&binary.left, &right)
                        && beside(&binary.right, &left)
                        && matches!(
                            (family(&left), family(&right)),
                            (Family::Integer, Family::Integer | Family::Float | Family::Decimal)
                                | (Family::Float, Family::Integer | Family::Float)
                                | (Family::Decimal, Family::Integer | Family::Decimal)
                        )
                }
                Operator::Modulo => left.is_integer() && right.is_integer(),
                // Of all but decimals Spark makes doubles.
                Operator::Divide => left == DataType::Float64,
                Operator::StringConcat => left.is_string() && right.is_string(),
                Operator::And | Operator::Or => true,
                _ => comparable(&binary.left, &binary.right),
            };
            (!allowed).then(|| format!("{left} {} {right}", binary.op))
        }
        Planned::InList(list) => {
            let wrong = list.list.iter().find(|one| !comparable(&list.expr, one));
            wrong.map(|one| format!("IN with {one}"))
        }
        Planned::ScalarFunction(call)
            if call.name() == "nullif" && call.args.iter().any(|argument| of(argument).is_floating()) =>
        {
            Some("nullif of a floating-point number".into())
        }
        Planned::Between(between) => {
            let wrong = [&between.low, &between.high]
                .into_iter()
                .find(|one| !comparable(&between.expr, one));
            wrong.map(|one| format!("BETWEEN with {one}"))
        }
        Planned::Cast(cast) => {
            let (from, to) = (of(&cast.expr), cast.field.data_type());
            let numeric =
                |family: Family| matches!(family, Family::Integer | Family::Decimal | Family::Float);
            let allowed = match (family(&from), family(to)) {
                (Family::Null, _) => true,
                // Into what holds every value: the engine takes other casts apart where it compares them.
                (one, other) if numeric(one) && numeric(other) => {
                    from == *to
                        || digits(&from)
                            .zip(digits(to))
                            .is_some_and(|(from, to)| from.0 <= to.0 && from.1 <= to.1)
                        || (from.is_integer() || from == DataType::Float32) && *to == DataType::Float64
                }
                (Family::Integer, Family::Text) | (Family::Text, Family::Text) => true,
                (Family::Time, Family::Time) => true,
                (Family::Text, Family::Time) => is_time(&cast.expr),
                (Family::Time, Family::Text) => from == DataType::Date32,
                _ => from == *to,
            };
            (!allowed).then(|| format!("CAST of {from} to {to}"))
        }
        _ => None,
    }
}

/// Digits before and behind the point that a type of numbers holds.
fn digits(data_type: &DataType) -> Option<(i16, i16)> {
    Some(match data_type {
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::Decimal128(digits, scale) => (i16::from(*digits) - i16::from(*scale), i16::from(*scale)),
        _ => return None,
    })
}

/// A date or time that is written out in full: what else is one depends on the engine.
fn is_time(expr: &Planned) -> bool {
    let Planned::Literal(ScalarValue::Utf8(Some(text)), _) = expr else {
        return false;
    };
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let (date, time) = shape.split_at(shape.len().min(10));
    let time = time.strip_suffix('Z').unwrap_or(time);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    date == "0000-00-00"
        && ["", " 00:00", "T00:00", " 00:00:00", "T00:00:00"].contains(&clock)
        && fraction.len() <= 6
        && fraction.bytes().all(|byte| byte == b'0')
}
