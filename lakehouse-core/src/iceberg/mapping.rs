//! Names of columns in files without field ids (spec, "Column Projection", "Name Mapping Serialization"), where they are
//! not just the columns' names of today.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use iceberg::spec::TableMetadata;
use serde_json::Value;

use super::evolve::NAME_MAPPING;
use crate::model::schema::{MAPPED_NAMES, field_id};

/// The columns with the names that the table's mapping gives them in files, noted where they differ. A mapping that
/// cannot be read is as good as none.
pub(super) fn mapped(schema: SchemaRef, metadata: &TableMetadata) -> SchemaRef {
    let mapping = metadata.properties().get(NAME_MAPPING);
    let Some(Value::Array(mapping)) = mapping.and_then(|text| serde_json::from_str(text).ok()) else {
        return schema;
    };
    let mut names = HashMap::new();
    collect(&mapping, &mut names);
    let fields: Vec<FieldRef> = schema.fields().iter().map(|field| noted(field, &names)).collect();
    Arc::new(Schema::new(fields))
}

fn collect<'a>(mapping: &'a [Value], names: &mut HashMap<i64, Vec<&'a str>>) {
    for entry in mapping {
        if let (Some(id), Some(given)) = (entry["field-id"].as_i64(), entry["names"].as_array()) {
            let given = given.iter().filter_map(Value::as_str);
            names.entry(id).or_default().extend(given);
        }
        if let Some(inner) = entry["fields"].as_array() {
            collect(inner, names);
        }
    }
}

fn noted(field: &FieldRef, names: &HashMap<i64, Vec<&str>>) -> FieldRef {
    let inner = |field: &FieldRef| noted(field, names);
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::List(element) => DataType::List(inner(element)),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        other => other.clone(),
    };
    let mut made =
        Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone());
    if let Some(id) = field_id(field) {
        let given = names.get(&i64::from(id)).map_or(&[][..], Vec::as_slice);
        if given != [field.name().as_str()] {
            made.metadata_mut()
                .insert(MAPPED_NAMES.to_owned(), Value::from(given).to_string());
        }
    }
    Arc::new(made)
}
