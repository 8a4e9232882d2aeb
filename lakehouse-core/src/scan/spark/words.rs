//! Operators, literals, names of types, and patterns of Spark's that mean one thing here: each as text of ours.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType as SqlType, DateTimeField, ExactNumberInfo, Expr, Value,
};

use super::Said;

pub(super) fn operator(op: &BinaryOperator, right: &Expr) -> Result<&'static str, String> {
    use BinaryOperator as Op;
    Ok(match op {
        Op::And => "AND",
        Op::Or => "OR",
        Op::Eq => "=",
        Op::NotEq => "<>",
        Op::Lt => "<",
        Op::LtEq => "<=",
        Op::Gt => ">",
        Op::GtEq => ">=",
        Op::Spaceship => "<=>",
        Op::Plus => "+",
        Op::Minus => "-",
        Op::Multiply => "*",
        Op::StringConcat => "||",
        // By nothing but a number that is not zero: what a division by zero is depends on Spark's settings.
        Op::Divide if is_nonzero(right) => "/",
        Op::Modulo if is_nonzero(right) => "%",
        other => return Err(format!("the operator {other}")),
    })
}

fn is_nonzero(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse::<f64>().is_ok_and(|number| number != 0.0),
            _ => false,
        },
        Expr::Nested(inner) => is_nonzero(inner),
        _ => false,
    }
}

/// A number of 1 or more that is written out: what others mean differs.
pub(super) fn count(expr: &Expr) -> Said {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) if number.parse::<u32>().is_ok_and(|number| number > 0) => {
                Ok(number.clone())
            }
            other => Err(format!("the place {other}")),
        },
        other => Err(format!("the place {other}")),
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('\'', "''")
}

pub(super) fn literal(value: &Value) -> Said {
    match value {
        Value::Number(number, _) => Ok(number.clone()),
        // Spark takes a backslash for an escape, depending on its settings.
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) if !text.contains('\\') => {
            Ok(format!("'{}'", escaped(text)))
        }
        Value::HexStringLiteral(digits) => Ok(format!("X'{}'", escaped(digits))),
        Value::Boolean(true) => Ok("TRUE".into()),
        Value::Boolean(false) => Ok("FALSE".into()),
        Value::Null => Ok("NULL".into()),
        other => Err(format!("the value {other}")),
    }
}

pub(super) fn cast_type(data_type: &SqlType) -> Said {
    Ok(match data_type {
        SqlType::TinyInt(None) => "TINYINT".into(),
        SqlType::SmallInt(None) => "SMALLINT".into(),
        SqlType::Int(None) | SqlType::Integer(None) => "INT".into(),
        SqlType::BigInt(None) => "BIGINT".into(),
        SqlType::Double(_) => "DOUBLE".into(),
        SqlType::Boolean => "BOOLEAN".into(),
        SqlType::Date => "DATE".into(),
        SqlType::String(None) => "VARCHAR".into(),
        SqlType::Decimal(ExactNumberInfo::None) => "DECIMAL(10, 0)".into(),
        SqlType::Decimal(ExactNumberInfo::Precision(digits)) => format!("DECIMAL({digits}, 0)"),
        SqlType::Decimal(_) => data_type.to_string(),
        other => return Err(format!("the type {other}")),
    })
}

pub(super) fn date_part(field: &DateTimeField) -> Said {
    let name = field.to_string().to_lowercase();
    match name.as_str() {
        "year" | "quarter" | "month" | "day" | "hour" | "minute" => Ok(name),
        _ => Err(format!("EXTRACT({field} ..)")),
    }
}

pub(super) fn part(name: &str, of: &str) -> Said {
    Ok(format!("CAST(date_part('{name}', {of}) AS INT)"))
}

/// The pattern of Spark's `date_format` as chrono has it.
pub(super) fn pattern_of(pattern: &Value) -> Said {
    let (Value::SingleQuotedString(text) | Value::DoubleQuotedString(text)) = pattern else {
        return Err(format!("the pattern {pattern}"));
    };
    let mut rest = text.as_str();
    let mut ours = String::new();
    while let Some(first) = rest.chars().next() {
        let known = [
            ("yyyy", "%Y"),
            ("MM", "%m"),
            ("dd", "%d"),
            ("HH", "%H"),
            ("mm", "%M"),
            ("ss", "%S"),
        ];
        let run = rest.len() - rest.trim_start_matches(first).len();
        let (letters, after) = rest.split_at(run);
        match known.iter().find(|(spark, _)| *spark == letters) {
            Some((_, chrono)) => ours += chrono,
            None if "-/_:. ".contains(first) => ours += letters,
            None => return Err(format!("the pattern '{text}'")),
        }
        rest = after;
    }
    Ok(ours)
}
