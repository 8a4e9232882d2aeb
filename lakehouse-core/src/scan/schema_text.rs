//! Columns as users write them: `id bigint not null, ts timestamp, tags text[]`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, ColumnDef, ColumnOption, ColumnOptionDef, DataType as Sql, ExactNumberInfo, Expr,
    TimezoneInfo,
};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::expr::{expect_end, parser, syntax};
use crate::error::{Error, Result};
use crate::model::schema::COMMENT;
use crate::model::{ColumnPath, SortColumn};

const KNOWN: &str = "known types: boolean, tinyint, smallint, int, bigint, real (float), double, decimal(p,s), date, \
                     timestamp, timestamptz, text (string, varchar), binary (bytea), T[] (array<T>), \
                     struct<a T, ..>, map(K, V)";

/// Columns from the text of a column list, as in `CREATE TABLE`. Timestamps are in microseconds:
/// `timestamp` without zone, `timestamptz` in UTC. `float` is 32 bits, as in Spark.
///
/// # Errors
/// [`Error::Invalid`] naming the column and what is not understood: a type, a constraint, a name given twice.
pub fn parse_columns(text: &str) -> Result<SchemaRef> {
    let mut parser = parser(text)?;
    let mut fields: Vec<Field> = Vec::new();
    loop {
        let column = parser.parse_column_def().map_err(|e| {
            let hint = match text.to_lowercase().contains("map<") {
                true => "a map is written map(text, bigint)",
                false => "columns are written as in `id bigint not null, ts timestamp`",
            };
            syntax(&e, text).with_hint(hint)
        })?;
        let field = field(&column)?;
        if fields.iter().any(|other| other.name() == field.name()) {
            return Err(Error::invalid(
                format!("column {} is given twice", field.name()),
                text,
            ));
        }
        fields.push(field);
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    expect_end(&mut parser, text)?;
    Ok(Arc::new(Schema::new(fields)))
}

/// One new column from text: `tip double`, `address.zip text not null`; the struct that it belongs to, if any.
///
/// # Errors
/// As [`parse_columns`].
pub fn parse_new_column(text: &str) -> Result<(Option<ColumnPath>, Field)> {
    let mut parser = parser(text)?;
    let wrong = |e: &ParserError| {
        syntax(e, text).with_hint("a column is written as in `tip double` or `address.zip text`")
    };
    let name = parser.parse_object_name(false).map_err(|e| wrong(&e))?;
    let parts = name
        .0
        .iter()
        .filter_map(|part| Some(part.as_ident()?.value.clone()));
    let path = ColumnPath::new(parts.collect())?;
    let sql = parser.parse_data_type().map_err(|e| wrong(&e))?;
    let mut options = Vec::new();
    while let Some(option) = parser.parse_optional_column_option().map_err(|e| wrong(&e))? {
        options.push(ColumnOptionDef { name: None, option });
    }
    expect_end(&mut parser, text)?;
    let (parent, name) = path.split();
    let column = ColumnDef {
        name: name.into(),
        data_type: sql,
        options,
    };
    Ok((parent, field(&column)?))
}

/// A sort order from text: `ts desc nulls last, id`. NULLs come first in ascending order and last in descending order,
/// unless it says otherwise (Iceberg spec, "Sorting", as engines write it).
///
/// # Errors
/// [`Error::Invalid`] for what is not a column with a direction.
pub fn parse_sort_order(text: &str) -> Result<Vec<SortColumn>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = parser(text)?;
    let terms = parser
        .parse_comma_separated(Parser::parse_order_by_expr)
        .map_err(|e| syntax(&e, text))?;
    expect_end(&mut parser, text)?;
    let columns = terms.iter().map(|term| {
        let parts = match &term.expr {
            Expr::Identifier(name) => vec![name.value.clone()],
            Expr::CompoundIdentifier(names) => names.iter().map(|name| name.value.clone()).collect(),
            other => {
                return Err(Error::invalid(format!("{other} is not a column"), text)
                    .with_hint("a sort order is written as in `ts desc nulls last, id`"));
            }
        };
        let descending = term.options.asc == Some(false);
        Ok(SortColumn {
            column: ColumnPath::new(parts)?.dotted(),
            descending,
            nulls_first: term.options.nulls_first.unwrap_or(!descending),
        })
    });
    columns.collect()
}

fn field(column: &ColumnDef) -> Result<Field> {
    let name = &column.name.value;
    let mut nullable = true;
    let mut comment = None;
    for option in &column.options {
        match &option.option {
            ColumnOption::Null => nullable = true,
            ColumnOption::NotNull => nullable = false,
            ColumnOption::Comment(text) => comment = Some(text.clone()),
            other => {
                return Err(
                    Error::invalid(format!("`{other}` is not understood"), format!("column {name}"))
                        .with_hint("a column may be `null` or `not null`, and have a comment 'text'"),
                );
            }
        }
    }
    let field = Field::new(name, data_type(&column.data_type, name)?, nullable);
    let metadata = comment.map(|text| (COMMENT.to_owned(), text));
    Ok(field.with_metadata(metadata.into_iter().collect()))
}

fn data_type(sql: &Sql, column: &str) -> Result<DataType> {
    let unknown =
        || Error::invalid(format!("type {sql} is not known"), format!("column {column}")).with_hint(KNOWN);
    Ok(match sql {
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) | Sql::Int16 => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) | Sql::Int32 => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) | Sql::Int64 => DataType::Int64,
        Sql::Float(_) | Sql::Real | Sql::Float4 | Sql::Float32 => DataType::Float32,
        Sql::Double(ExactNumberInfo::None) | Sql::DoublePrecision | Sql::Float8 | Sql::Float64 => {
            DataType::Float64
        }
        Sql::Numeric(info) | Sql::Decimal(info) | Sql::Dec(info) => decimal(info, column)?,
        Sql::Date => DataType::Date32,
        Sql::Timestamp(None | Some(6), zone) => match zone {
            TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => timestamp(false),
            TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => timestamp(true),
        },
        Sql::TimestampNtz(None | Some(6)) | Sql::Datetime(None | Some(6)) => timestamp(false),
        Sql::Text
        | Sql::String(_)
        | Sql::Varchar(_)
        | Sql::Char(_)
        | Sql::Character(_)
        | Sql::CharacterVarying(_)
        | Sql::CharVarying(_)
        | Sql::Nvarchar(_) => DataType::Utf8,
        Sql::Bytea | Sql::Binary(None) | Sql::Varbinary(None) | Sql::Blob(None) | Sql::Bytes(None) => {
            DataType::Binary
        }
        Sql::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::SquareBracket(item, None)) => {
            DataType::List(Arc::new(Field::new("element", data_type(item, column)?, true)))
        }
        Sql::Array(ArrayElemTypeDef::Parenthesis(item)) => {
            DataType::List(Arc::new(Field::new("element", data_type(item, column)?, true)))
        }
        Sql::Struct(members, _) => {
            let members = members
                .iter()
                .map(|member| {
                    let name = member.field_name.as_ref().ok_or_else(unknown)?;
                    let place = format!("{column}.{}", name.value);
                    Ok(Field::new(
                        &name.value,
                        data_type(&member.field_type, &place)?,
                        true,
                    ))
                })
                .collect::<Result<Fields>>()?;
            DataType::Struct(members)
        }
        Sql::Map(key, value) => {
            let entries = Fields::from(vec![
                Field::new("key", data_type(key, column)?, false),
                Field::new("value", data_type(value, column)?, true),
            ]);
            DataType::Map(
                Arc::new(Field::new("key_value", DataType::Struct(entries), false)),
                false,
            )
        }
        Sql::Custom(name, arguments) if arguments.is_empty() => {
            match name.to_string().to_ascii_lowercase().as_str() {
                "long" => DataType::Int64,
                "short" => DataType::Int16,
                "byte" => DataType::Int8,
                "timestamp_ntz" => timestamp(false),
                "timestamp_ltz" => timestamp(true),
                _ => return Err(unknown()),
            }
        }
        _ => return Err(unknown()),
    })
}

fn timestamp(zoned: bool) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zoned.then(|| "UTC".into()))
}

fn decimal(info: &ExactNumberInfo, column: &str) -> Result<DataType> {
    let (precision, scale) = match *info {
        // Spark's default.
        ExactNumberInfo::None => (10, 0),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s)) if s >= 0 && i64::from(s) <= i64::from(p) => Ok(DataType::Decimal128(p, s)),
        _ => Err(Error::invalid(
            format!("decimal({precision},{scale}) is out of range"),
            format!("column {column}"),
        )
        .with_hint("1 to 38 digits, of which no more than that many after the point")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_is_understood() {
        let schema = parse_columns(
            "id bigint not null, a int, b smallint, c tinyint, d double, e float, f real, g boolean, h date, \
             i timestamp, j timestamptz, k timestamp with time zone, l decimal(9,2), m numeric(5), n text, \
             o string, p varchar(20), q binary, r bytea, s int[], t array<text>, u struct<x int, y text>, \
             \"Mixed Case\" text null, v map(text, int), tailNum string",
        )
        .unwrap();
        let us = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        assert!(!schema.field(0).is_nullable());
        for (name, expected) in [
            ("id", DataType::Int64),
            ("a", DataType::Int32),
            ("b", DataType::Int16),
            ("c", DataType::Int8),
            ("d", DataType::Float64),
            ("e", DataType::Float32),
            ("h", DataType::Date32),
            ("i", us(None)),
            ("j", us(Some("UTC"))),
            ("k", us(Some("UTC"))),
            ("l", DataType::Decimal128(9, 2)),
            ("m", DataType::Decimal128(5, 0)),
            ("o", DataType::Utf8),
            ("p", DataType::Utf8),
            ("r", DataType::Binary),
            ("Mixed Case", DataType::Utf8),
            ("tailNum", DataType::Utf8),
        ] {
            assert_eq!(
                schema.field_with_name(name).unwrap().data_type(),
                &expected,
                "{name}"
            );
        }
        assert!(
            matches!(schema.field_with_name("s").unwrap().data_type(), DataType::List(f) if f.data_type() == &DataType::Int32)
        );
        assert!(
            matches!(schema.field_with_name("u").unwrap().data_type(), DataType::Struct(f) if f.len() == 2)
        );
        assert!(matches!(
            schema.field_with_name("v").unwrap().data_type(),
            DataType::Map(_, false)
        ));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, expected) in [
            ("id bigint, x geometry", "column x"),
            ("x geometry", "known types"),
            ("id bigint, id int", "given twice"),
            ("id bigint primary key", "PRIMARY KEY"),
            ("id bigint default 3", "DEFAULT"),
            ("id bigint,", "cannot be understood"),
            ("", "cannot be understood"),
            ("d decimal(50, 2)", "out of range"),
            ("t timestamp(9)", "type TIMESTAMP(9) is not known"),
            ("s struct<a int, b nosuch>", "column s.b"),
        ] {
            let error = parse_columns(text).unwrap_err();
            let message = format!("{error} {}", error.hint().unwrap_or_default());
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
