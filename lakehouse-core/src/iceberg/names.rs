//! The names of columns in files without field ids (Iceberg spec, "Column Projection", "Name Mapping Serialization").

use std::sync::Arc;

use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef,
};
use iceberg::spec::{NestedFieldRef, Schema, TableMetadata, Type};
use serde_json::{Value, json};

use crate::model::schema::{MAPPED_NAMES, NAMES_JOINED_BY, field_id};

/// Property with the mapping.
pub(super) const NAME_MAPPING: &str = "schema.name-mapping.default";

/// The table's name mapping with fields that are new and with new names, as a property; nothing where the table has
/// none, or one that is not understood. Names of before stay: files have them. An older field that it lacks stays so:
/// in files without field ids there is no such column.
pub(super) fn extended(metadata: &TableMetadata, schema: &Schema) -> Option<(String, String)> {
    let text = metadata.properties().get(NAME_MAPPING)?;
    let mut mapping: Value = serde_json::from_str(text).ok()?;
    extend(
        mapping.as_array_mut()?,
        schema.as_struct().fields(),
        metadata.last_column_id(),
    );
    Some((NAME_MAPPING.to_owned(), mapping.to_string()))
}

/// The name mapping of a table's first columns, as the value of the property.
pub(super) fn first(schema: &Schema) -> String {
    let mut mapping = Vec::new();
    extend(&mut mapping, schema.as_struct().fields(), 0);
    Value::Array(mapping).to_string()
}

/// Adds fields whose ids come after `last`, and new names of those that are there.
fn extend(mapping: &mut Vec<Value>, fields: &[NestedFieldRef], last: i32) {
    for field in fields {
        // A name stays with the column that had it first: files that need the mapping are older than its next owner.
        let holds = |entry: &Value| {
            let names = entry["names"].as_array();
            names.is_some_and(|names| names.iter().any(|name| *name == field.name))
        };
        let taken = mapping.iter().any(holds);
        let known = mapping.iter().position(|entry| entry["field-id"] == field.id);
        if known.is_none() && field.id <= last {
            continue;
        }
        let at = known.unwrap_or_else(|| {
            mapping.push(json!({"field-id": field.id, "names": []}));
            mapping.len() - 1
        });
        if let Some(names) = mapping[at]["names"].as_array_mut()
            && !taken
        {
            names.push(field.name.clone().into());
        }
        let nested: Vec<NestedFieldRef> = match field.field_type.as_ref() {
            Type::Primitive(_) => continue,
            Type::Struct(members) => members.fields().to_vec(),
            Type::List(list) => vec![Arc::clone(&list.element_field)],
            Type::Map(map) => vec![Arc::clone(&map.key_field), Arc::clone(&map.value_field)],
        };
        let Some(entry) = mapping[at].as_object_mut() else {
            continue;
        };
        if let Some(inner) = entry.entry("fields").or_insert_with(|| json!([])).as_array_mut() {
            extend(inner, &nested, last);
        }
    }
}

/// The columns with the names that the table's mapping gives them, where that is not just their name of today.
pub(super) fn noted(schema: ArrowSchemaRef, metadata: &TableMetadata) -> ArrowSchemaRef {
    let mapping = metadata.properties().get(NAME_MAPPING);
    let mapping = mapping.and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
    match mapping {
        Some(mapping) => {
            let fields = each(schema.fields(), &|field, mapping| note(field, mapping), &mapping);
            Arc::new(ArrowSchema::new_with_metadata(fields, schema.metadata().clone()))
        }
        None => schema,
    }
}

/// The columns without these names, which say nothing about what they are.
pub(super) fn forgotten(fields: &Fields) -> Fields {
    let forget = |field: Field, _: Option<&Value>| {
        let mut metadata = field.metadata().clone();
        metadata.remove(MAPPED_NAMES);
        field.with_metadata(metadata)
    };
    each(fields, &forget, &[])
}

fn note(field: Field, entry: Option<&Value>) -> Field {
    // A column that the mapping lacks is in no such file.
    let names = entry
        .and_then(|entry| entry["names"].as_array())
        .into_iter()
        .flatten();
    let names: Vec<&str> = names.filter_map(Value::as_str).collect();
    if names == [field.name().as_str()] || field_id(&field).is_none() {
        return field;
    }
    let mut metadata = field.metadata().clone();
    metadata.insert(MAPPED_NAMES.to_owned(), names.join(&NAMES_JOINED_BY.to_string()));
    field.with_metadata(metadata)
}

type Change<'a> = &'a dyn Fn(Field, Option<&Value>) -> Field;

/// Changes every field, each with its entry of the mapping.
fn each(fields: &Fields, change: Change<'_>, mapping: &[Value]) -> Fields {
    let one = |field: &FieldRef| -> FieldRef {
        let entry = mapping
            .iter()
            .find(|entry| entry["field-id"].as_i64() == field_id(field).map(i64::from));
        let inner = entry.and_then(|entry| entry["fields"].as_array());
        let inner = inner.map_or(&[][..], Vec::as_slice);
        let data_type = match field.data_type() {
            DataType::Struct(members) => DataType::Struct(each(members, change, inner)),
            DataType::List(element) => {
                let element = each(&Fields::from(vec![Arc::clone(element)]), change, inner);
                DataType::List(Arc::clone(&element[0]))
            }
            DataType::Map(entries, sorted) => match entries.data_type() {
                DataType::Struct(pair) => {
                    let pair = DataType::Struct(each(pair, change, inner));
                    DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(pair)), *sorted)
                }
                _ => field.data_type().clone(),
            },
            other => other.clone(),
        };
        Arc::new(change(field.as_ref().clone().with_data_type(data_type), entry))
    };
    fields.iter().map(one).collect()
}
