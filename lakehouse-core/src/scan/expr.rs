//! Expressions that users write: conditions and assignments of delete, update and merge.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Schema};
use chrono::DateTime;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, SchemaError, TableReference};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    AssignmentTarget, Expr as Parsed, ExprWithAlias, Ident, ObjectName, ObjectNamePart,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::{dialect, floats, narrowing, session, times, trunc};
use crate::error::{Error, Result};
use crate::model::check_chains;
use crate::store::clock;

/// Nesting depth at which an expression is refused.
pub(super) const MAX_DEPTH: usize = 100;

/// How many column names an error lists.
const LISTED_COLUMNS: usize = 30;

/// Functions and settings for planning expressions; tables play no part.
static PLANNER: LazyLock<SessionState> = LazyLock::new(|| {
    let state = SessionStateBuilder::new()
        .with_config(session::config())
        .with_expr_planners(session::planners())
        .with_scalar_functions(vec![trunc::spark_date_trunc()])
        .with_default_features()
        .build();
    session::with_times(state)
});

/// The columns of one table, under a qualifier (`target`, `source`) if one is given.
///
/// # Errors
/// When two columns have the same name.
pub fn columns_of(schema: &Schema, qualifier: Option<&str>) -> Result<DFSchema> {
    Ok(match qualifier {
        Some(qualifier) => DFSchema::try_from_qualified_schema(TableReference::bare(qualifier), schema)?,
        None => DFSchema::try_from(schema.clone())?,
    })
}

/// The columns of a merge: `target.x` and `source.x`.
///
/// # Errors
/// When two columns of one side have the same name.
pub fn columns_of_both(target: &Schema, source: &Schema) -> Result<DFSchema> {
    Ok(columns_of(target, Some("target"))?.join(&columns_of(source, Some("source"))?)?)
}

/// A condition over the columns of `schema`: types coerced, constants folded, every column checked
/// and qualified as the schema is.
///
/// # Errors
/// [`Error::Invalid`] for text that is no expression, a column that is not there (with those that
/// are), a name that both sides have, a result that is not a boolean, aggregates.
pub fn parse_predicate(text: &str, schema: &DFSchema) -> Result<Expr> {
    let expr = parse_expression(text, schema)?;
    match expr.get_type(schema)? {
        DataType::Boolean | DataType::Null => Ok(expr),
        other => Err(Error::invalid(
            format!("a condition must be true or false, this one is {other}"),
            text,
        )
        .with_hint("compare it with something: a = 1, b IS NOT NULL")),
    }
}

/// One value over the columns of `schema`, checked as [`parse_predicate`] checks.
///
/// # Errors
/// As [`parse_predicate`].
pub fn parse_expression(text: &str, schema: &DFSchema) -> Result<Expr> {
    let mut parser = parser(text)?;
    let parsed = parser.parse_expr().map_err(|e| syntax(&e, text))?;
    expect_end(&mut parser, text)?;
    plan(parsed, schema, text)
}

/// The same, looked at by `check` before its types are coerced.
///
/// # Errors
/// As [`parse_predicate`], and those of `check`.
pub(super) fn parse_checked(
    text: &str,
    schema: &DFSchema,
    check: &dyn Fn(&Expr, &DFSchema) -> Result<()>,
) -> Result<Expr> {
    let mut parser = parser(text)?;
    let parsed = parser.parse_expr().map_err(|e| syntax(&e, text))?;
    expect_end(&mut parser, text)?;
    let expr = planned(parsed, schema, text)?;
    check(&expr, schema)?;
    coerced(expr, schema, text)
}

/// `column = value, ..` with the columns of `target` on the left (`target.column` too) and the
/// columns of `schema` on the right. Values are not cast to the column's type, except constants,
/// which must fit.
///
/// # Errors
/// [`Error::Invalid`] as [`parse_predicate`], and for a column set twice.
pub fn parse_assignments(text: &str, target: &Schema, schema: &DFSchema) -> Result<Vec<(String, Expr)>> {
    let mut parser = parser(text)?;
    let mut assignments: Vec<(String, Expr)> = Vec::new();
    loop {
        let parsed = parser.parse_assignment().map_err(|e| syntax(&e, text))?;
        let AssignmentTarget::ColumnName(name) = parsed.target else {
            return Err(Error::invalid("one column at a time can be set", text));
        };
        let name = target_column(&name, text)?;
        let Ok(field) = target.field_with_name(&name) else {
            return Err(unknown_column(
                &name,
                target.fields().iter().map(|f| f.name().clone()),
                text,
            ));
        };
        if assignments.iter().any(|(other, _)| *other == name) {
            return Err(Error::invalid(format!("column {name} is set twice"), text));
        }
        let value = match dialect::decimal_for(&parsed.value, field.data_type()) {
            Some(exact) => exact,
            None => plan(parsed.value, schema, text)?,
        };
        assignments.push((name, fit_constant(value, field.data_type(), field.name())?));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    expect_end(&mut parser, text)?;
    Ok(assignments)
}

/// Key columns: `k1, k2`, or nothing if the text is more than a list of names (a full condition).
pub fn parse_names(text: &str) -> Option<Vec<String>> {
    let mut parser = parser(text).ok()?;
    let names = parser.parse_comma_separated(Parser::parse_identifier).ok()?;
    let constant = |name: &Ident| {
        let word = name.value.to_lowercase();
        name.quote_style.is_none() && ["true", "false", "null"].contains(&word.as_str())
    };
    if names.iter().any(constant) {
        return None;
    }
    (parser.peek_token_ref().token == Token::EOF).then(|| names.into_iter().map(|n| n.value).collect())
}

pub(super) fn parser(text: &str) -> Result<Parser<'_>> {
    let tokens = Tokenizer::new(&GenericDialect, text)
        .tokenize_with_location()
        .map_err(|e| syntax(&e.into(), text))?;
    check_chains(tokens.iter().map(|token| &token.token))?;
    Ok(Parser::new(&GenericDialect)
        .with_recursion_limit(MAX_DEPTH)
        .with_tokens_with_locations(tokens))
}

pub(super) fn syntax(error: &ParserError, text: &str) -> Error {
    let what = match error {
        ParserError::TokenizerError(what) | ParserError::ParserError(what) => what.clone(),
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    };
    Error::invalid(format!("cannot be understood: {what}"), text)
        .with_hint("text goes in single quotes, unusual column names in double quotes")
}

pub(super) fn expect_end(parser: &mut Parser<'_>, text: &str) -> Result<()> {
    let next = parser.peek_token_ref();
    if next.token == Token::EOF {
        return Ok(());
    }
    let what = format!("cannot be understood from `{}` on", next.token);
    Err(Error::invalid(what, text))
}

fn target_column(name: &ObjectName, text: &str) -> Result<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(column)] => Ok(column.value.clone()),
        [
            ObjectNamePart::Identifier(side),
            ObjectNamePart::Identifier(column),
        ] if side.value == "target" => Ok(column.value.clone()),
        _ => Err(Error::invalid(
            format!("{name} cannot be set, only whole columns of the table can"),
            text,
        )),
    }
}

fn plan(parsed: Parsed, schema: &DFSchema, text: &str) -> Result<Expr> {
    coerced(planned(parsed, schema, text)?, schema, text)
}

/// The expression as it is written, over columns that are there.
fn planned(mut parsed: Parsed, schema: &DFSchema, text: &str) -> Result<Expr> {
    dialect::settle(&mut parsed, text)?;
    let parsed = ExprWithAlias {
        expr: parsed,
        alias: None,
    };
    let expr = PLANNER
        .create_logical_expr_from_sql_expr(parsed, schema)
        .map_err(|e| planning_error(e, text))?;
    refuse_more_than_rows(&expr, text)?;
    resolve(expr, schema, text)
}

/// The same with types that fit each other, constants folded.
fn coerced(expr: Expr, schema: &DFSchema, text: &str) -> Result<Expr> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(PLANNER.config_options()))
        .with_query_execution_start_time(DateTime::from_timestamp_millis(clock::now_ms()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let coerced = times::prefer_micros(expr, schema)
        .and_then(|expr| simplifier.coerce(expr, schema))
        .and_then(|coerced| narrowing::keep(coerced, schema).data())
        .and_then(|coerced| floats::compare_floats(coerced, schema))
        .and_then(|coerced| times::settle(coerced, schema).data())
        .map_err(|e| planning_error(e, text))?;
    simplifier.simplify(coerced).map_err(|e| planning_error(e, text))
}

/// Gives every column its qualifier; refuses those that are unknown or on both sides.
fn resolve(expr: Expr, schema: &DFSchema, text: &str) -> Result<Expr> {
    let resolved = expr
        .transform_up(|node| {
            let Expr::Column(column) = node else {
                return Ok(Transformed::no(node));
            };
            let found: Vec<Column> = schema
                .iter()
                .filter(|(qualifier, field)| {
                    field.name() == &column.name
                        && (column.relation.is_none() || column.relation.as_ref() == *qualifier)
                })
                .map(|(qualifier, field)| Column::new(qualifier.cloned(), field.name().clone()))
                .collect();
            match found.as_slice() {
                [one] => Ok(Transformed::yes(Expr::Column(one.clone()))),
                [] => Err(unknown_column(&column.flat_name(), names(schema), text).into()),
                several => Err(ambiguous(&column.name, several, text).into()),
            }
        })
        .data()?;
    Ok(resolved)
}

fn ambiguous(name: &str, candidates: &[Column], text: &str) -> Error {
    let spelled: Vec<String> = candidates.iter().map(Column::flat_name).collect();
    Error::invalid(format!("column {name} is ambiguous: both sides have it"), text)
        .with_hint(format!("write {}", spelled.join(" or ")))
}

fn names(schema: &DFSchema) -> impl Iterator<Item = String> {
    schema.columns().into_iter().map(|column| column.flat_name())
}

/// The error for a column that is not there: names those that are, and the one that differs only in case.
pub fn unknown_column(name: &str, known: impl IntoIterator<Item = String>, place: &str) -> Error {
    let known: Vec<String> = known.into_iter().collect();
    let bare = name.rsplit('.').next().unwrap_or(name);
    let near = known
        .iter()
        .find(|k| k.rsplit('.').next().unwrap_or(k).eq_ignore_ascii_case(bare));
    let mut hint = match near {
        Some(near) => format!("did you mean {near}? Names are case-sensitive. Columns: "),
        None => "columns: ".to_owned(),
    };
    hint.push_str(&known[..known.len().min(LISTED_COLUMNS)].join(", "));
    if known.len() > LISTED_COLUMNS {
        hint.push_str(" ..");
    }
    Error::invalid(format!("there is no column {name}"), place).with_hint(hint)
}

/// Aggregates, window functions and subqueries have no meaning for one row.
fn refuse_more_than_rows(expr: &Expr, text: &str) -> Result<()> {
    let mut found = None;
    expr.apply(|node| {
        found = match node {
            Expr::AggregateFunction(_) => Some("an aggregate function"),
            Expr::WindowFunction(_) => Some("a window function"),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
                Some("a subquery")
            }
            Expr::Placeholder(_) => Some("a parameter"),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })?;
    match found {
        Some(what) => Err(
            Error::invalid(format!("{what} cannot be used here"), text).with_hint(
                "the expression is evaluated for one row at a time; `lake merge` takes a query as its source",
            ),
        ),
        None => Ok(()),
    }
}

/// Casts a constant to the column's type, if nothing is lost by it. Other expressions stay as they are.
fn fit_constant(expr: Expr, to: &DataType, column: &str) -> Result<Expr> {
    let Expr::Literal(value, metadata) = expr else {
        return Ok(expr);
    };
    let misfit = || {
        Error::invalid(format!("{value} does not fit {to}"), format!("column {column}"))
            .with_hint("write a value of the column's type")
    };
    let cast = cast_number(&value, to).map_err(|_| misfit())?;
    if cast.is_null() != value.is_null() {
        return Err(misfit());
    }
    let numbers = value.data_type().is_numeric() && to.is_numeric();
    if numbers
        && !value.is_null()
        && !to.is_floating()
        && cast_number(&cast, &value.data_type()).ok().as_ref() != Some(&value)
    {
        return Err(misfit());
    }
    Ok(Expr::Literal(cast, metadata))
}

/// Between doubles and decimals by way of the digits, which a calculation would not keep.
fn cast_number(value: &ScalarValue, to: &DataType) -> Result<ScalarValue, DataFusionError> {
    let from = value.data_type();
    if value.is_null()
        || !((from.is_floating() && to.is_decimal()) || (from.is_decimal() && to.is_floating()))
    {
        return value.cast_to(to);
    }
    ScalarValue::Utf8(Some(value.to_string())).cast_to(to)
}

/// An error of the engine's planner as one of ours, with the columns that exist where one does not.
pub fn planning_error(error: DataFusionError, place: &str) -> Error {
    if let DataFusionError::SchemaError(schema_error, _) = error.find_root() {
        return match schema_error.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => unknown_column(
                &field.flat_name(),
                valid_fields.iter().map(Column::flat_name),
                place,
            ),
            SchemaError::AmbiguousReference { field } => {
                Error::invalid(format!("column {} is ambiguous", field.flat_name()), place)
                    .with_hint("put the table's name or alias and a point in front")
            }
            other => Error::invalid(other.to_string(), place),
        };
    }
    match Error::from(error) {
        Error::Engine(inner) => Error::invalid(first_line(&inner.strip_backtrace()), place),
        ours => ours,
    }
}

fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.trim_start_matches("Error during planning: ").to_owned()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, TimeUnit};
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn flights() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("tailNum", DataType::Utf8, true),
            Field::new(
                "ts",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                true,
            ),
            Field::new("delay", DataType::Int32, true),
        ])
    }

    fn message(error: &Error) -> String {
        format!("{error} | {}", error.hint().unwrap_or_default())
    }

    #[test]
    fn predicate_folds_constants_to_the_column_type() {
        let schema = columns_of(&flights(), None).unwrap();
        let expr = parse_predicate("ts >= '2013-02-01' AND id IN (1, 2)", &schema).unwrap();
        let text = expr.to_string();
        assert!(text.contains("TimestampMicrosecond(1359676800000000"), "{text}");
        assert!(!text.contains("CAST(ts"), "{text}");
    }

    #[test]
    fn unknown_column_lists_those_that_exist() {
        let schema = columns_of(&flights(), None).unwrap();
        let error = parse_predicate("tailnum = 'N1'", &schema).unwrap_err();
        let text = message(&error);
        assert!(text.contains("no column tailnum"), "{text}");
        assert!(
            text.contains("did you mean tailNum") && text.contains("delay"),
            "{text}"
        );
    }

    #[test]
    fn ambiguous_name_asks_for_a_side() {
        let schema = columns_of_both(&flights(), &flights()).unwrap();
        let error = parse_predicate("delay > 3", &schema).unwrap_err();
        let text = message(&error);
        assert!(
            text.contains("ambiguous") && text.contains("target.delay or source.delay"),
            "{text}"
        );
        let fine = parse_predicate("target.id = source.id and source.delay > 3", &schema).unwrap();
        assert!(fine.to_string().contains("source.delay"), "{fine}");
    }

    #[test]
    fn unqualified_name_of_one_side_is_qualified() {
        let source = Schema::new(vec![Field::new("op", DataType::Utf8, true)]);
        let schema = columns_of_both(&flights(), &source).unwrap();
        assert_eq!(
            parse_predicate("op = 'D'", &schema).unwrap(),
            col("source.op").eq(lit("D"))
        );
        let error = parse_predicate("source.id = 1", &schema).unwrap_err();
        assert!(
            message(&error).contains("no column source.id"),
            "{}",
            message(&error)
        );
    }

    #[test]
    fn parentheses_tell_where_a_null_safe_comparison_ends() {
        let schema = columns_of(&flights(), None).unwrap();
        let clear = parse_predicate("(id IS NOT DISTINCT FROM delay) AND id = 1", &schema).unwrap();
        assert_eq!(
            clear,
            parse_predicate("id <=> delay AND id = 1", &schema).unwrap()
        );
        parse_predicate("id = 1 OR id IS DISTINCT FROM delay + 1", &schema).unwrap();
    }

    #[test]
    fn what_is_not_a_condition_is_refused() {
        let schema = columns_of(&flights(), None).unwrap();
        for (text, expected) in [
            ("id + 1", "true or false"),
            ("id = 1; drop table t", "from `;` on"),
            ("id = ", "cannot be understood"),
            ("count(*) > 1", "aggregate"),
            ("id in (select 1)", "subquery"),
            ("nosuch(id) = 1", "nosuch"),
            (
                "id is not distinct from delay and id = 1",
                "where this comparison ends",
            ),
        ] {
            let error = parse_predicate(text, &schema).unwrap_err();
            let message = message(&error);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn assignments_are_checked_against_the_table() {
        let target = flights();
        let schema = columns_of_both(&target, &target).unwrap();
        let set = parse_assignments(
            "delay = 3, target.tailNum = upper(source.tailNum)",
            &target,
            &schema,
        )
        .unwrap();
        assert_eq!(set[0], ("delay".to_owned(), lit(3_i32)));
        assert_eq!(set[1].0, "tailNum");
        for (text, expected) in [
            ("nosuch = 1", "no column nosuch"),
            ("delay = 1, delay = 2", "set twice"),
            ("source.delay = 1", "cannot be set"),
            ("delay = 3.5", "does not fit"),
            ("delay = 'x'", "does not fit"),
            ("delay = 3 4", "from `4` on"),
            ("delay", "cannot be understood"),
        ] {
            let error = parse_assignments(text, &target, &schema).unwrap_err();
            let message = message(&error);
            assert!(message.contains(expected), "{text}: {message}");
        }
        let ts = parse_assignments("ts = '2013-01-01 05:00:00', delay = NULL", &target, &schema).unwrap();
        assert!(
            matches!(
                &ts[0].1,
                Expr::Literal(ScalarValue::TimestampMicrosecond(Some(_), Some(_)), _)
            ),
            "{ts:?}"
        );
        assert!(
            matches!(&ts[1].1, Expr::Literal(ScalarValue::Int32(None), _)),
            "{ts:?}"
        );
    }

    #[test]
    fn key_lists_and_conditions_are_told_apart() {
        assert_eq!(
            parse_names("k1, \"k 2\""),
            Some(vec!["k1".to_owned(), "k 2".to_owned()])
        );
        assert_eq!(parse_names("target.id = source.id"), None);
        assert_eq!(parse_names("true"), None);
        assert_eq!(parse_names("\"true\""), Some(vec!["true".to_owned()]));
    }
}
