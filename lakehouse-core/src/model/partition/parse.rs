//! Partitioning as users write it.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::{BucketHash, PartitionField, Transform};
use crate::error::{Error, Result};
use crate::model::check_chains;

const KNOWN: &str =
    "write column names, year(c), month(c), day(c), hour(c), bucket(N, c), truncate(W, c), joined by commas";

/// Parses what users write: `day(ts), bucket(16, id), region, truncate(4, name)`; plural names
/// (`days(ts)`) and `bucket(id, 16)` too. Bucket hashes are left as Iceberg's; the format sets its own.
///
/// # Errors
/// [`Error::Invalid`] naming the term that is not understood and the terms that are.
pub fn parse_partitioning(text: &str) -> Result<Vec<PartitionField>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let dialect = GenericDialect {};
    let broken = |why: String| {
        Error::invalid(format!("partitioning '{text}' cannot be read: {why}"), "").with_hint(KNOWN)
    };
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize()
        .map_err(|e| broken(e.to_string()))?;
    check_chains(&tokens)?;
    let mut parser = Parser::new(&dialect).with_tokens(tokens);
    let terms = parser
        .parse_comma_separated(Parser::parse_expr)
        .map_err(|e| broken(e.to_string()))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(broken(format!("'{}' is left over", rest.token)));
    }
    let fields = terms.iter().map(term).collect::<Result<Vec<_>>>()?;
    for (i, field) in fields.iter().enumerate() {
        if fields[..i]
            .iter()
            .any(|f| f.source == field.source && f.transform == field.transform)
        {
            return Err(
                Error::invalid(format!("partition term '{}' is given twice", terms[i]), "")
                    .with_hint("name each term once"),
            );
        }
    }
    Ok(fields)
}

fn term(expr: &Expr) -> Result<PartitionField> {
    let (source, transform) = match expr {
        Expr::Function(function) => call(function).ok_or_else(|| not_understood(expr))?,
        other => (
            column(other).ok_or_else(|| not_understood(expr))?,
            Transform::Identity,
        ),
    };
    Ok(PartitionField {
        source,
        transform,
        name: String::new(),
        field_id: 0,
        zone_slack_days: 0,
    })
}

fn not_understood(expr: &Expr) -> Error {
    Error::invalid(format!("partition term '{expr}' is not understood"), "").with_hint(KNOWN)
}

/// A column, `a.b` for a field inside a struct.
fn column(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(Ident { value, .. }) => Some(value.clone()),
        Expr::CompoundIdentifier(parts) => Some(
            parts
                .iter()
                .map(|p| p.value.as_str())
                .collect::<Vec<_>>()
                .join("."),
        ),
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<u32> {
    let Expr::Value(value) = expr else { return None };
    let Value::Number(digits, _) = &value.value else {
        return None;
    };
    digits
        .to_string()
        .parse()
        .ok()
        .filter(|n| (1..=i32::MAX as u32).contains(n))
}

fn call(function: &Function) -> Option<(String, Transform)> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let arguments = list
        .args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let name = function.name.to_string().to_lowercase();
    match arguments.as_slice() {
        [one] => {
            let transform = match name.as_str() {
                "identity" => Transform::Identity,
                "year" | "years" => Transform::Year,
                "month" | "months" => Transform::Month,
                "day" | "days" | "date" => Transform::Day,
                "hour" | "hours" => Transform::Hour,
                _ => return None,
            };
            Some((column(one)?, transform))
        }
        [a, b] => {
            let (n, source) = match (number(a), number(b)) {
                (Some(n), None) => (n, column(b)?),
                (None, Some(n)) => (n, column(a)?),
                _ => return None,
            };
            let transform = match name.as_str() {
                "bucket" | "buckets" => Transform::Bucket {
                    buckets: n,
                    hash: BucketHash::Iceberg,
                },
                "truncate" | "trunc" => Transform::Truncate(n),
                _ => return None,
            };
            Some((source, transform))
        }
        _ => None,
    }
}
