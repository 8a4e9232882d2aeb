//! Column mapping (Delta protocol, "Column Mapping"): the names and ids by which data files know columns, so that what
//! users call them can change.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::model::schema::PHYSICAL_NAME;
use crate::store::clock;

/// Table property: how columns are found in files.
pub(super) const MODE: &str = "delta.columnMapping.mode";
/// Table property: the largest id given so far.
const LAST_ID: &str = "delta.columnMapping.maxColumnId";
/// Field metadata: the column's id.
pub(super) const ID: &str = "delta.columnMapping.id";
/// Field metadata: the column's name in files.
pub(super) const PHYSICAL: &str = "delta.columnMapping.physicalName";

/// The name that files have for a field of the schema.
pub(super) fn physical(field: &Value) -> Option<&str> {
    field["metadata"][PHYSICAL]
        .as_str()
        .or_else(|| field["name"].as_str())
}

/// Gives fields their names and ids.
#[derive(Debug)]
pub(super) struct Names {
    last: i64,
}

impl Names {
    /// Goes on after the ids of this schema, those of columns that were dropped included.
    pub(super) fn of(schema: &Value, configuration: &BTreeMap<String, String>) -> Self {
        let recorded = configuration.get(LAST_ID).and_then(|id| id.trim().parse().ok());
        let mut last = recorded.unwrap_or(0);
        for_each(&mut schema.clone(), &mut |field| {
            last = last.max(field["metadata"][ID].as_i64().unwrap_or(0));
        });
        Self { last }
    }

    /// Names and ids for the columns of a table that had none: files have the names of today.
    pub(super) fn give_all(&mut self, schema: &mut Value) {
        for_each(schema, &mut |field| {
            let name = field["name"].as_str().unwrap_or_default().to_owned();
            self.give(field, name);
        });
    }

    /// A name and an id for a new field and those inside it. Its name in files is the one that a plan gave it, or one
    /// that no column ever had.
    pub(super) fn give_new(&mut self, field: &mut Value, wanted: &Field) {
        let planned = wanted.metadata().get(PHYSICAL_NAME).cloned();
        self.give(field, planned.unwrap_or_else(fresh));
        self.give_inside(&mut field["type"], wanted.data_type());
    }

    fn give_inside(&mut self, value: &mut Value, wanted: &DataType) {
        match wanted {
            DataType::Struct(members) => {
                let fields = value["fields"].as_array_mut().into_iter().flatten();
                fields
                    .zip(members)
                    .for_each(|(field, member)| self.give_new(field, member));
            }
            DataType::List(element) => self.give_inside(&mut value["elementType"], element.data_type()),
            DataType::Map(entries, _) => {
                if let DataType::Struct(pair) = entries.data_type() {
                    let parts = ["keyType", "valueType"].into_iter().zip(pair);
                    parts.for_each(|(key, part)| self.give_inside(&mut value[key], part.data_type()));
                }
            }
            _ => {}
        }
    }

    fn give(&mut self, field: &mut Value, physical: String) {
        self.last += 1;
        if !field["metadata"].is_object() {
            field["metadata"] = json!({});
        }
        field["metadata"][ID] = self.last.into();
        field["metadata"][PHYSICAL] = physical.into();
    }

    /// Writes down that columns are mapped, and the last id.
    pub(super) fn record(&self, configuration: &mut BTreeMap<String, String>) {
        configuration
            .entry(MODE.to_owned())
            .or_insert_with(|| "name".to_owned());
        configuration.insert(LAST_ID.to_owned(), self.last.to_string());
    }
}

/// The schema of a new table that maps its columns; files know them by the names that they begin with.
///
/// # Errors
/// When the schema is no JSON.
pub(super) fn mapped(schema: &str, configuration: &mut BTreeMap<String, String>) -> Result<String> {
    let mut value: Value = serde_json::from_str(schema)
        .map_err(|e| Error::invalid(format!("the schema is not valid JSON: {e}"), ""))?;
    let mut names = Names { last: 0 };
    names.give_all(&mut value);
    names.record(configuration);
    Ok(value.to_string())
}

fn fresh() -> String {
    format!("col-{}", clock::new_commit_id())
}

/// Every field of a struct, at any depth, outer ones first.
fn for_each(value: &mut Value, each: &mut dyn FnMut(&mut Value)) {
    if let Some(fields) = value.get_mut("fields").and_then(Value::as_array_mut) {
        for field in fields {
            each(field);
            for_each(&mut field["type"], each);
        }
    }
    for inner in ["elementType", "keyType", "valueType"] {
        if let Some(inner) = value.get_mut(inner) {
            for_each(inner, each);
        }
    }
}
