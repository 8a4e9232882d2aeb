//! Expressions that Spark SQL wrote into a table: CHECK constraints, generated columns, defaults.
//!
//! They are turned into text of ours, form by form: only what means the same here and there is understood, with the types
//! it has. Everything else is refused by name, since a rule that is understood wrongly lets wrong rows in. Times are
//! taken in UTC, where Spark takes them in its session's zone.

mod types;
mod words;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::logical_expr::Expr as Planned;
use datafusion::sql::sqlparser::ast::{
    CaseWhen, CastKind, DataType as SqlType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectNamePart, UnaryOperator, Value,
};
use datafusion::sql::sqlparser::dialect::DatabricksDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use super::expr::{MAX_DEPTH, columns_of, expect_end, parse_checked, syntax};
use super::trunc::DATE_TRUNC;
use crate::error::{Error, Result};
use crate::model::check_chains;
use types::check_types;
use words::{cast_type, count, date_part, escaped, literal, operator, part, pattern_of};

/// An expression of Spark SQL over the columns of a table (names in any case), planned and with its types coerced.
///
/// # Errors
/// [`Error::Unsupported`] for what might mean something else here; [`Error::Invalid`] for what is no expression.
pub fn parse_spark(text: &str, table: &Schema) -> Result<Planned> {
    let ours = translate(text, table)?;
    parse_checked(&ours, &columns_of(table, None)?, &|expr, schema| {
        check_types(expr, schema).map_err(|what| not_understood(&what, text))
    })
}

fn not_understood(what: &str, text: &str) -> Error {
    Error::unsupported(
        format!("{what} is not understood in the expression `{text}` of the table"),
        "write to the table with the engine that defined it, or define it with comparisons, arithmetic and \
         functions such as upper, substring, coalesce, year and date_trunc",
    )
}

fn translate(text: &str, table: &Schema) -> Result<String> {
    let dialect = DatabricksDialect;
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|e| syntax(&e.into(), text))?;
    check_chains(tokens.iter().map(|token| &token.token))?;
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(MAX_DEPTH)
        .with_tokens_with_locations(tokens);
    let parsed = parser.parse_expr().map_err(|e| syntax(&e, text))?;
    expect_end(&mut parser, text)?;
    Translation { table }
        .of(&parsed)
        .map_err(|what| not_understood(&what, text))
}

/// What is not understood.
type Said = Result<String, String>;

struct Translation<'a> {
    table: &'a Schema,
}

impl Translation<'_> {
    fn of(&self, expr: &Expr) -> Said {
        let one = |inner: &Expr, after: &str| Ok(format!("({} {after})", self.of(inner)?));
        let not = |negated: &bool| if *negated { "NOT " } else { "" };
        match expr {
            Expr::Identifier(name) => self.column(name),
            Expr::CompoundIdentifier(names) => {
                let [first, fields @ ..] = names.as_slice() else {
                    return Err("a name".into());
                };
                let mut found = named(self.table.fields(), first)?;
                let mut text = self.column(first)?;
                for name in fields {
                    let DataType::Struct(members) = found.data_type() else {
                        return Err(format!("the column {name} inside of {}", found.name()));
                    };
                    found = named(members, name)?;
                    text += &format!("['{}']", escaped(found.name()));
                }
                Ok(text)
            }
            Expr::Value(value) => literal(&value.value),
            Expr::TypedString(typed) => match (&typed.data_type, &typed.value.value) {
                (SqlType::Date, value) => Ok(format!("DATE {}", literal(value)?)),
                _ => Err(typed.to_string()),
            },
            Expr::Nested(inner) => Ok(format!("({})", self.of(inner)?)),
            Expr::UnaryOp { op, expr } => match op {
                UnaryOperator::Not => Ok(format!("(NOT {})", self.of(expr)?)),
                UnaryOperator::Minus => Ok(format!("(- {})", self.of(expr)?)),
                UnaryOperator::Plus => self.of(expr),
                other => Err(format!("the operator {other}")),
            },
            Expr::BinaryOp { left, op, right } => {
                let (left, spelled) = (self.of(left)?, operator(op, right)?);
                Ok(format!("({left} {spelled} {})", self.of(right)?))
            }
            Expr::IsNull(inner) => one(inner, "IS NULL"),
            Expr::IsNotNull(inner) => one(inner, "IS NOT NULL"),
            Expr::IsTrue(inner) => one(inner, "IS TRUE"),
            Expr::IsNotTrue(inner) => one(inner, "IS NOT TRUE"),
            Expr::IsFalse(inner) => one(inner, "IS FALSE"),
            Expr::IsNotFalse(inner) => one(inner, "IS NOT FALSE"),
            Expr::InList { expr, list, negated } => {
                let list = self.all(list)?.join(", ");
                Ok(format!("({} {}IN ({list}))", self.of(expr)?, not(negated)))
            }
            Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let (value, low, high) = (self.of(expr)?, self.of(low)?, self.of(high)?);
                Ok(format!("({value} {}BETWEEN {low} AND {high})", not(negated)))
            }
            Expr::Like {
                negated,
                any: false,
                expr,
                pattern,
                escape_char: None,
            } => match pattern.as_ref() {
                Expr::Value(value) => {
                    let pattern = literal(&value.value)?;
                    Ok(format!("({} {}LIKE {pattern})", self.of(expr)?, not(negated)))
                }
                other => Err(format!("LIKE {other}")),
            },
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                let mut text = "(CASE".to_owned();
                if let Some(operand) = operand {
                    text += &format!(" {}", self.of(operand)?);
                }
                for CaseWhen { condition, result } in conditions {
                    text += &format!(" WHEN {} THEN {}", self.of(condition)?, self.of(result)?);
                }
                if let Some(otherwise) = else_result {
                    text += &format!(" ELSE {}", self.of(otherwise)?);
                }
                Ok(text + " END)")
            }
            Expr::Cast {
                kind: CastKind::Cast,
                expr,
                data_type,
                format: None,
                ..
            } => Ok(format!("CAST({} AS {})", self.of(expr)?, cast_type(data_type)?)),
            Expr::Substring {
                expr,
                substring_from: Some(from),
                substring_for,
                ..
            } => {
                let mut arguments = vec![self.of(expr)?, count(from)?];
                if let Some(length) = substring_for {
                    arguments.push(count(length)?);
                }
                Ok(format!("substr({})", arguments.join(", ")))
            }
            Expr::Trim {
                trim_where: None,
                trim_what: None,
                trim_characters: None,
                expr,
            } => Ok(format!("btrim({})", self.of(expr)?)),
            Expr::Extract { field, expr, .. } => part(&date_part(field)?, &self.of(expr)?),
            Expr::Function(function) => {
                let plain = function.filter.is_none()
                    && function.over.is_none()
                    && function.null_treatment.is_none()
                    && function.within_group.is_empty()
                    && !function.uses_odbc_syntax;
                match function.name.0.as_slice() {
                    [ObjectNamePart::Identifier(name)] if plain => {
                        self.call(&name.value.to_lowercase(), &arguments(&function.args)?)
                    }
                    _ => Err(format!("the function {}", function.name)),
                }
            }
            other => Err(other.to_string()),
        }
    }

    fn all(&self, list: &[Expr]) -> Result<Vec<String>, String> {
        list.iter().map(|one| self.of(one)).collect()
    }

    /// The name of a column as the table spells it.
    fn column(&self, name: &Ident) -> Said {
        let found = named(self.table.fields(), name)?;
        Ok(format!("\"{}\"", found.name().replace('"', "\"\"")))
    }

    fn call(&self, name: &str, given: &[&Expr]) -> Said {
        let text = |at: usize| match given.get(at) {
            Some(Expr::Value(value)) => match &value.value {
                Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => {
                    Some(text.to_lowercase())
                }
                _ => None,
            },
            _ => None,
        };
        let all = given
            .iter()
            .map(|one| self.of(one))
            .collect::<Result<Vec<_>, _>>();
        let arguments = all?;
        let joined = arguments.join(", ");
        match (name, arguments.as_slice()) {
            ("upper" | "ucase", [_]) => Ok(format!("upper({joined})")),
            ("lower" | "lcase", [_]) => Ok(format!("lower({joined})")),
            ("length" | "len" | "char_length" | "character_length", [_]) => {
                Ok(format!("character_length({joined})"))
            }
            ("trim", [_]) => Ok(format!("btrim({joined})")),
            ("ltrim" | "rtrim" | "abs", [_]) => Ok(format!("{name}({joined})")),
            ("coalesce", [_, ..]) | ("nullif", [_, _]) => Ok(format!("{name}({joined})")),
            ("ifnull" | "nvl", [_, _]) => Ok(format!("coalesce({joined})")),
            ("greatest" | "least", [_, _, ..]) => Ok(format!("{name}({joined})")),
            ("startswith" | "starts_with", [_, _]) => Ok(format!("starts_with({joined})")),
            ("endswith" | "ends_with", [_, _]) => Ok(format!("ends_with({joined})")),
            ("isnull", [one]) => Ok(format!("({one} IS NULL)")),
            ("isnotnull", [one]) => Ok(format!("({one} IS NOT NULL)")),
            ("if" | "iff", [condition, one, other]) => {
                Ok(format!("(CASE WHEN {condition} THEN {one} ELSE {other} END)"))
            }
            // NULL if one is NULL, as `||` has it.
            ("concat", [_, _, ..]) => Ok(format!("({})", arguments.join(" || "))),
            ("substr" | "substring", [value, _]) => Ok(format!("substr({value}, {})", count(given[1])?)),
            ("substr" | "substring", [value, _, _]) => Ok(format!(
                "substr({value}, {}, {})",
                count(given[1])?,
                count(given[2])?
            )),
            ("to_date" | "date", [one]) => Ok(format!("CAST({one} AS DATE)")),
            ("year" | "quarter" | "month" | "day" | "hour" | "minute", [one]) => part(name, one),
            ("dayofmonth", [one]) => part("day", one),
            ("trunc", [one, _]) => match text(1).as_deref() {
                Some(unit @ ("year" | "quarter" | "month")) => {
                    Ok(format!("CAST({DATE_TRUNC}('{unit}', {one}) AS DATE)"))
                }
                _ => Err(format!("the unit of trunc({joined})")),
            },
            ("date_trunc", [_, one]) => match text(0).as_deref() {
                Some(unit @ ("year" | "quarter" | "month" | "day" | "hour" | "minute")) => {
                    Ok(format!("{DATE_TRUNC}('{unit}', {one})"))
                }
                _ => Err(format!("the unit of date_trunc({joined})")),
            },
            ("date_format", [one, _]) => {
                let Some(Expr::Value(pattern)) = given.get(1) else {
                    return Err(format!("the pattern of date_format({joined})"));
                };
                Ok(format!("to_char({one}, '{}')", pattern_of(&pattern.value)?))
            }
            ("current_timestamp" | "now", []) => Ok("now()".into()),
            ("current_date" | "curdate", []) => Ok("current_date()".into()),
            _ => Err(format!("the function {name} with {} arguments", given.len())),
        }
    }
}

/// The column, or the member of a struct, of this name in any case.
fn named<'a>(fields: &'a Fields, name: &Ident) -> Result<&'a Field, String> {
    let exact = fields.iter().find(|field| *field.name() == name.value);
    let mut same = fields
        .iter()
        .filter(|field| field.name().eq_ignore_ascii_case(&name.value));
    match (exact, same.next(), same.next()) {
        (Some(exact), ..) => Ok(exact),
        (None, Some(only), None) => Ok(only),
        _ => Err(format!("the column {name}")),
    }
}

fn arguments(given: &FunctionArguments) -> Result<Vec<&Expr>, String> {
    match given {
        FunctionArguments::None => Ok(Vec::new()),
        FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty() => {
            let mut plain = Vec::with_capacity(list.args.len());
            for argument in &list.args {
                match argument {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => plain.push(expr),
                    other => return Err(other.to_string()),
                }
            }
            Ok(plain)
        }
        other => Err(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, TimeUnit};

    use super::*;

    fn table() -> Schema {
        Schema::new(vec![
            Field::new("Id", DataType::Int64, true),
            Field::new("n", DataType::Int32, true),
            Field::new("x", DataType::Float64, true),
            Field::new("price", DataType::Decimal128(9, 2), true),
            Field::new("my name", DataType::Utf8, true),
            Field::new("d", DataType::Date32, true),
            Field::new(
                "ts",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                true,
            ),
            Field::new("ok", DataType::Boolean, true),
        ])
    }

    #[test]
    fn what_means_the_same_in_both_is_understood() {
        for text in [
            "id > 0",
            "ID > 0 AND (n IS NULL OR n BETWEEN 1 AND 10)",
            "`my name` <> ''",
            "`my name` IN ('a', \"b\")",
            "NOT ok",
            "price >= 0.5 AND price < 1e3",
            "x * 1.5 > n + 1",
            "x / 2 > 1",
            "n % 2 = 0",
            "ts >= '2020-01-01' AND d < DATE '2030-01-01'",
            "year(ts) = 2020",
            "EXTRACT(MONTH FROM ts) = 1",
            "date_trunc('MONTH', ts) = ts",
            "trunc(d, 'MM') = d OR trunc(d, 'MONTH') = d",
            "date_format(ts, 'yyyy-MM-dd-HH') = '2020-01-01-05'",
            "length(`my name`) < 10 AND upper(`my name`) LIKE 'A%'",
            "substring(`my name`, 1, 3) = 'abc'",
            "SUBSTRING(`my name` FROM 2) = 'abc'",
            "coalesce(n, 0) >= 0",
            "CASE WHEN n > 0 THEN 1 ELSE 2 END = 1",
            "if(n > 0, 1, 2) = 1",
            "concat(`my name`, '-', cast(id as string)) = 'x'",
            "CAST(ts AS DATE) = d",
            "id <=> n",
            "x NOT IN (0, 1, 2, 3, 4)",
            "CASE x WHEN 0 THEN n ELSE id END > 0",
        ] {
            let parsed = parse_spark(text, &table());
            // 'MM' is another name of MONTH, which is not among those that we know.
            assert_eq!(parsed.is_ok(), !text.contains("'MM'"), "{text}: {parsed:?}");
        }
    }

    #[test]
    fn what_might_mean_something_else_is_refused_by_name() {
        for (text, expected) in [
            ("id / 2 > 1", "/"),
            ("x / n > 1", "/"),
            ("n % id = 0", "%"),
            ("`my name` > 5", "Utf8"),
            ("ts > 5", ">"),
            ("CAST(x AS INT) = 1", "CAST"),
            ("CAST(price AS INT) = 1", "CAST"),
            ("CAST(id AS INT) = 1", "CAST"),
            ("n * 0.1 > 1", "*"),
            ("0.1 + 0.2 <> 0.3", "+"),
            ("nullif(x, 0) IS NULL", "nullif"),
            ("d > '20200105'", ">"),
            ("CAST(`my name` AS DATE) = d", "CAST"),
            ("CAST(`my name` AS INT) = 1", "CAST"),
            ("CAST(ts AS STRING) = ''", "CAST"),
            ("CAST(id AS TIMESTAMP) = ts", "TIMESTAMP"),
            ("round(x) = 1", "round"),
            ("`my name` RLIKE 'a.*'", "RLIKE"),
            ("`my name` LIKE 'a\\\\_b'", "value"),
            ("price * x > 1", "*"),
            ("date_format(ts, 'E') = 'Mon'", "pattern"),
            ("substring(`my name`, -1) = 'a'", "place"),
            ("nosuch > 1", "nosuch"),
            ("my_udf(id) > 1", "my_udf"),
            ("id > (SELECT 1)", "SELECT"),
            ("id > 0 id", "from"),
            ("count(id) > 1", "count"),
        ] {
            let error = parse_spark(text, &table()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
