//! Delta's schema JSON to Arrow and back (Delta protocol, "Schema Serialization Format").

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use serde_json::{Map, Value, json};

use super::hidden::GENERATION;
use crate::error::{Error, Result};
use crate::model::schema::{
    COMMENT, DEFAULT_EXPRESSION, FIELD_ID, GENERATED, PHYSICAL_NAME, WRITE_DEFAULT, WRITTEN_ID,
};

/// Field metadata: a condition on the column's values.
pub(super) const INVARIANTS: &str = "delta.invariants";
/// Field metadata: the expression of the value that new rows get which do not say.
pub(super) const CURRENT_DEFAULT: &str = "CURRENT_DEFAULT";

/// How columns are found in data files (`delta.columnMapping.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapping {
    /// By their name.
    None,
    /// By their physical name.
    Name,
    /// By their field id.
    Id,
}

/// One top-level column as recorded, hidden ones included.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// As users see it: type, nullability, and what a reader needs to find it in a file.
    pub(super) field: Field,
    /// Its name in data files, statistics and partition values.
    pub(super) physical: String,
    /// Its metadata as recorded.
    pub(super) metadata: Map<String, Value>,
}

/// Reads a table's `schemaString`.
///
/// # Errors
/// [`Error::Invalid`] when it is not a schema; [`Error::Unsupported`] naming the column of a type
/// that Arrow or we do not have.
pub(super) fn parse(schema: &str, mapping: Mapping) -> Result<Vec<Column>> {
    let value: Value = serde_json::from_str(schema)
        .map_err(|e| broken(&format!("the table's schema is not valid JSON: {e}")))?;
    let fields = value["fields"]
        .as_array()
        .ok_or_else(|| broken("the table's schema has no fields"))?;
    fields
        .iter()
        .map(|field| {
            let physical = match mapping {
                Mapping::None => name_of(field)?,
                _ => mapped_name(field)?,
            };
            Ok(Column {
                field: arrow_field(field, mapping, "")?,
                physical,
                metadata: field["metadata"].as_object().cloned().unwrap_or_default(),
            })
        })
        .collect()
}

fn broken(what: &str) -> Error {
    Error::invalid(what, "metaData.schemaString of the Delta log")
}

fn name_of(field: &Value) -> Result<String> {
    let name = field["name"].as_str();
    Ok(name
        .ok_or_else(|| broken("a field of the schema has no name"))?
        .to_owned())
}

fn mapped_name(field: &Value) -> Result<String> {
    let name = field["metadata"]["delta.columnMapping.physicalName"].as_str();
    let column = name_of(field)?;
    Ok(name
        .ok_or_else(|| {
            broken(&format!(
                "column {column} has no physical name although the table maps columns"
            ))
        })?
        .to_owned())
}

fn arrow_field(field: &Value, mapping: Mapping, parent: &str) -> Result<Field> {
    let name = name_of(field)?;
    let path = if parent.is_empty() {
        name.clone()
    } else {
        format!("{parent}.{name}")
    };
    let data_type = arrow_type(&field["type"], mapping, &path)?;
    let nullable = field["nullable"].as_bool().unwrap_or(true);
    let mut metadata = HashMap::new();
    if mapping != Mapping::None {
        metadata.insert(PHYSICAL_NAME.to_owned(), mapped_name(field)?);
    }
    let id = field["metadata"]["delta.columnMapping.id"].as_i64();
    match (mapping, id) {
        (Mapping::Id, None) => {
            return Err(broken(&format!(
                "column {path} has no id although the table maps by id"
            )));
        }
        (Mapping::Id, Some(id)) => {
            metadata.insert(FIELD_ID.to_owned(), id.to_string());
        }
        // Files that are older than the mapping have no ids, or others.
        (Mapping::Name, Some(id)) => {
            metadata.insert(WRITTEN_ID.to_owned(), id.to_string());
        }
        _ => {}
    }
    if let Some(comment) = field["metadata"][COMMENT].as_str() {
        metadata.insert(COMMENT.to_owned(), comment.to_owned());
    }
    for (key, meaning) in [(GENERATION, GENERATED), (CURRENT_DEFAULT, DEFAULT_EXPRESSION)] {
        if let Some(expression) = field["metadata"][key].as_str() {
            metadata.insert(meaning.to_owned(), expression.to_owned());
        }
    }
    Ok(Field::new(name, data_type, nullable).with_metadata(metadata))
}

/// The default that a column is to get, as Spark writes the value ([`CURRENT_DEFAULT`]); `None` if it is to get none.
///
/// # Errors
/// [`Error::Unsupported`] for a value that has no such form.
pub(super) fn current_default(field: &Field) -> Result<Option<String>> {
    let Some(text) = field.metadata().get(WRITE_DEFAULT) else {
        return Ok(None);
    };
    let plain = !text.is_empty() && text.bytes().all(|byte| b"0123456789+-.eE".contains(&byte));
    Ok(Some(match field.data_type() {
        // Whether a backslash escapes depends on the session.
        DataType::Utf8 if !text.contains('\\') => format!("'{}'", text.replace('\'', "''")),
        DataType::Boolean => text.clone(),
        DataType::Date32 => format!("DATE '{text}'"),
        other if other.is_numeric() && plain => text.clone(),
        other => {
            return Err(Error::unsupported(
                format!(
                    "column {} of type {other} cannot get the default {text}",
                    field.name()
                ),
                "numbers, text without backslashes, dates and booleans can be defaults of Delta columns here",
            ));
        }
    }))
}

/// The expression of a column's invariant: `{"expression": {"expression": "x > 3"}}` (Delta protocol, "Column
/// Invariants").
pub(super) fn invariant(column: &Column) -> Option<String> {
    let text = column.metadata.get(INVARIANTS)?.as_str()?;
    let invariant: Value = serde_json::from_str(text).ok()?;
    Some(invariant["expression"]["expression"].as_str()?.to_owned())
}

fn arrow_type(value: &Value, mapping: Mapping, path: &str) -> Result<DataType> {
    if let Some(name) = value.as_str() {
        return primitive(name, path);
    }
    let flag = |key: &str| value[key].as_bool().unwrap_or(true);
    match value["type"].as_str() {
        Some("struct") => {
            let fields = value["fields"]
                .as_array()
                .ok_or_else(|| broken(&format!("struct {path} has no fields")))?;
            let fields: Result<Vec<Field>> = fields
                .iter()
                .map(|field| arrow_field(field, mapping, path))
                .collect();
            Ok(DataType::Struct(fields?.into()))
        }
        Some("array") => {
            let element = arrow_type(&value["elementType"], mapping, &format!("{path}.element"))?;
            Ok(DataType::List(Arc::new(Field::new(
                "element",
                element,
                flag("containsNull"),
            ))))
        }
        Some("map") => {
            let key = arrow_type(&value["keyType"], mapping, &format!("{path}.key"))?;
            let item = arrow_type(&value["valueType"], mapping, &format!("{path}.value"))?;
            let entries = Fields::from(vec![
                Field::new("key", key, false),
                Field::new("value", item, flag("valueContainsNull")),
            ]);
            let entries = Field::new("key_value", DataType::Struct(entries), false);
            Ok(DataType::Map(Arc::new(entries), false))
        }
        _ => Err(unknown(&value.to_string(), path)),
    }
}

fn unknown(type_name: &str, column: &str) -> Error {
    Error::unsupported(
        format!("column {column} has the Delta type {type_name}, which is not read"),
        "read the table with a tool that has this type",
    )
}

pub(super) fn primitive(name: &str, path: &str) -> Result<DataType> {
    Ok(match name {
        "boolean" => DataType::Boolean,
        "byte" => DataType::Int8,
        "short" => DataType::Int16,
        "integer" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "string" => DataType::Utf8,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "decimal" => DataType::Decimal128(10, 0),
        other => {
            let arguments = other
                .strip_prefix("decimal(")
                .and_then(|rest| rest.strip_suffix(')'));
            let parsed = arguments
                .and_then(|text| text.split_once(','))
                .and_then(|(p, s)| Some((p.trim().parse::<u8>().ok()?, s.trim().parse::<i8>().ok()?)));
            match parsed {
                Some((p @ 1..=38, s)) if s >= 0 && s as u8 <= p => DataType::Decimal128(p, s),
                _ => return Err(unknown(other, path)),
            }
        }
    })
}

/// A column's metadata in the schema JSON.
pub(super) type FieldMetadata = Map<String, Value>;

/// The schema JSON of a new table: the columns of `schema`, then `hidden` ones.
///
/// # Errors
/// [`Error::Unsupported`] naming the column of a type that Delta does not have.
pub(super) fn render(schema: &Schema, hidden: &[(String, String, FieldMetadata)]) -> Result<String> {
    let mut fields: Vec<Value> = Vec::new();
    for field in schema.fields() {
        fields.push(delta_field(field, "")?);
    }
    for (name, type_name, metadata) in hidden {
        fields.push(json!({"name": name, "type": type_name, "nullable": true, "metadata": metadata}));
    }
    Ok(json!({"type": "struct", "fields": fields}).to_string())
}

pub(super) fn delta_field(field: &Field, parent: &str) -> Result<Value> {
    let path = if parent.is_empty() {
        field.name().clone()
    } else {
        format!("{parent}.{}", field.name())
    };
    Ok(json!({
        "name": field.name(),
        "type": delta_type(field.data_type(), &path)?,
        "nullable": field.is_nullable(),
        "metadata": match field.metadata().get(COMMENT) {
            Some(comment) => json!({COMMENT: comment}),
            None => json!({}),
        },
    }))
}

/// A type as the schema JSON has it.
///
/// # Errors
/// [`Error::Unsupported`] naming the column of a type that Delta does not have.
pub(super) fn delta_type(data_type: &DataType, path: &str) -> Result<Value> {
    let refuse = |hint: &str| {
        Error::unsupported(
            format!("column {path} has the type {data_type}, which Delta does not have"),
            hint,
        )
    };
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        // What Delta lacks is stored as the next wider type that it has; the writer checks each value.
        DataType::Int16 | DataType::UInt8 => json!("short"),
        DataType::Int32 | DataType::UInt16 => json!("integer"),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => json!("long"),
        DataType::Float32 | DataType::Float16 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            json!("binary")
        }
        DataType::Date32 | DataType::Date64 => json!("date"),
        DataType::Timestamp(_, Some(_)) => json!("timestamp"),
        DataType::Timestamp(_, None) => json!("timestamp_ntz"),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) if *s >= 0 => {
            json!(format!("decimal({p},{s})"))
        }
        DataType::Dictionary(_, value) => delta_type(value, path)?,
        DataType::RunEndEncoded(_, values) => delta_type(values.data_type(), path)?,
        DataType::Struct(fields) => {
            let fields: Result<Vec<Value>> = fields.iter().map(|field| delta_field(field, path)).collect();
            json!({"type": "struct", "fields": fields?})
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => json!({
            "type": "array",
            "elementType": delta_type(item.data_type(), &format!("{path}.element"))?,
            "containsNull": item.is_nullable(),
        }),
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else {
                return Err(refuse("give the map keys and values"));
            };
            let [key, value] = pair.as_ref() else {
                return Err(refuse("give the map keys and values"));
            };
            json!({
                "type": "map",
                "keyType": delta_type(key.data_type(), &format!("{path}.key"))?,
                "valueType": delta_type(value.data_type(), &format!("{path}.value"))?,
                "valueContainsNull": value.is_nullable(),
            })
        }
        DataType::Null => return Err(refuse("give it a type, such as string")),
        _ => return Err(refuse("cast it to a type that Delta has, or leave it out")),
    })
}

/// Whether some column, at any depth, is a timestamp without a zone.
pub(super) fn uses_timestamp_ntz(schema: &Schema) -> bool {
    fn uses(data_type: &DataType) -> bool {
        match data_type {
            DataType::Timestamp(_, None) => true,
            DataType::Dictionary(_, value) => uses(value),
            DataType::RunEndEncoded(_, values) => uses(values.data_type()),
            DataType::Struct(fields) => fields.iter().any(|field| uses(field.data_type())),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::Map(item, _) => uses(item.data_type()),
            _ => false,
        }
    }
    schema.fields().iter().any(|field| uses(field.data_type()))
}

/// Paths of the columns, at any depth, whose metadata has `key`.
pub(super) fn columns_with(schema: &str, key: &str) -> Vec<String> {
    fn visit(value: &Value, key: &str, path: &str, found: &mut Vec<String>) {
        for field in value["fields"].as_array().into_iter().flatten() {
            let name = field["name"].as_str().unwrap_or_default();
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            if field["metadata"].get(key).is_some() {
                found.push(path.clone());
            }
            visit(&field["type"], key, &path, found);
        }
        for inner in ["elementType", "keyType", "valueType"] {
            if let Some(inner) = value.get(inner) {
                visit(inner, key, path, found);
            }
        }
    }
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_str(schema) {
        visit(&value, key, "", &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_type() -> Schema {
        let item = |data_type| Arc::new(Field::new("element", data_type, true));
        let pair = DataType::Struct(
            vec![
                Field::new("key", DataType::Utf8, false),
                Field::new("value", DataType::Int32, true),
            ]
            .into(),
        );
        let inner = vec![
            Field::new("x", DataType::Int64, false),
            Field::new("y", DataType::List(item(DataType::Date32)), true),
        ];
        Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("b", DataType::Boolean, true),
            Field::new("i8", DataType::Int8, true),
            Field::new("i16", DataType::Int16, true),
            Field::new("i32", DataType::Int32, true),
            Field::new("f", DataType::Float32, true),
            Field::new("d", DataType::Float64, true),
            Field::new("s", DataType::Utf8, true),
            Field::new("bin", DataType::Binary, true),
            Field::new("day", DataType::Date32, true),
            Field::new(
                "ts",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                true,
            ),
            Field::new("ntz", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("dec", DataType::Decimal128(20, 4), true),
            Field::new("st", DataType::Struct(inner.into()), true),
            Field::new("l", DataType::List(item(DataType::Utf8)), true),
            Field::new(
                "m",
                DataType::Map(Arc::new(Field::new("key_value", pair, false)), false),
                true,
            ),
        ])
    }

    #[test]
    fn every_type_survives_the_way_through_json() {
        let schema = every_type();
        let columns = parse(&render(&schema, &[]).unwrap(), Mapping::None).unwrap();
        let back: Vec<Field> = columns.iter().map(|c| c.field.clone()).collect();
        assert_eq!(Schema::new(back), schema);
        assert!(uses_timestamp_ntz(&schema));
    }

    #[test]
    fn a_type_that_delta_lacks_is_refused_by_column_name_even_inside_a_struct() {
        let inner = vec![Field::new("n", DataType::Duration(TimeUnit::Second), true)];
        let schema = Schema::new(vec![Field::new("outer", DataType::Struct(inner.into()), true)]);
        let error = render(&schema, &[]).unwrap_err();
        assert!(error.to_string().contains("outer.n"), "{error}");
        assert!(error.hint().unwrap().contains("cast it to a type that Delta has"));
    }

    #[test]
    fn a_type_that_we_lack_is_refused_by_column_name() {
        let text =
            r#"{"type":"struct","fields":[{"name":"v","type":"variant","nullable":true,"metadata":{}}]}"#;
        let error = parse(text, Mapping::None).unwrap_err();
        assert!(error.to_string().contains("column v"), "{error}");
        assert!(parse("[", Mapping::None).is_err());
        assert!(parse("{}", Mapping::None).is_err());
    }

    #[test]
    fn mapped_columns_carry_their_physical_name_and_id() {
        let text = r#"{"type":"struct","fields":[{"name":"a","type":"long","nullable":true,"metadata":
            {"delta.columnMapping.id":4,"delta.columnMapping.physicalName":"col-1"}}]}"#;
        let columns = parse(text, Mapping::Id).unwrap();
        assert_eq!(columns[0].physical, "col-1");
        assert_eq!(columns[0].field.metadata()[FIELD_ID], "4");
        assert_eq!(columns[0].field.metadata()[PHYSICAL_NAME], "col-1");
        let by_name = parse(text, Mapping::Name).unwrap();
        assert!(!by_name[0].field.metadata().contains_key(FIELD_ID));
    }

    #[test]
    fn metadata_of_nested_columns_is_found() {
        let text = r#"{"type":"struct","fields":[{"name":"a","type":{"type":"array","elementType":
            {"type":"struct","fields":[{"name":"x","type":"long","nullable":true,"metadata":{"delta.invariants":"{}"}}]},
            "containsNull":true},"nullable":true,"metadata":{}}]}"#;
        assert_eq!(columns_with(text, "delta.invariants"), ["a.x"]);
    }
}
