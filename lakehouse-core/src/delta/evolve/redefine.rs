//! The schema of a `metaData` action made the wanted one, field by field: what is recorded of a field stays, changes of its
//! type are noted at it (Delta protocol, "Type Widening").

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use serde_json::{Value, json};

use super::TYPE_CHANGES;
use crate::delta::create::check_name;
use crate::delta::mapping::{self, Names};
use crate::delta::protocol;
use crate::delta::schema::{self, CURRENT_DEFAULT, delta_field};
use crate::delta::state::State;
use crate::error::{Error, Result};
use crate::model::schema::{
    COMMENT, DEFAULT_EXPRESSION, INITIAL_DEFAULT, ORIGIN, PHYSICAL_NAME, WRITE_DEFAULT,
};

/// Makes the table's schema, which is JSON, the wanted one.
pub(super) struct Redefine {
    /// Types may become wider.
    pub(super) widening: bool,
    /// The names and ids by which files know columns, if the table maps them.
    pub(super) names: Option<Names>,
    /// Some types did.
    pub(super) widened: bool,
    /// What was done is possible only where names are mapped.
    pub(super) needs_names: bool,
}

impl Redefine {
    /// The columns of a table; hidden ones stay, last as whoever shows them does.
    pub(super) fn table(&mut self, value: &mut Value, wanted: &Schema, state: &State) -> Result<()> {
        let hidden: Vec<&str> = state
            .columns()
            .iter()
            .filter(|column| state.is_hidden(column))
            .map(|column| column.field.name().as_str())
            .collect();
        let is_hidden = |field: &Value| field["name"].as_str().is_some_and(|name| hidden.contains(&name));
        let fields = value["fields"].as_array().cloned().unwrap_or_default();
        let (kept, shown) = fields.into_iter().partition::<Vec<_>, _>(is_hidden);
        value["fields"] = Value::Array(shown);
        self.members(value, wanted.fields(), "")?;
        if let Some(fields) = value["fields"].as_array_mut() {
            fields.extend(kept);
        }
        Ok(())
    }

    fn members(&mut self, value: &mut Value, wanted: &[FieldRef], parent: &str) -> Result<()> {
        let mut old = value["fields"]
            .as_array()
            .cloned()
            .ok_or_else(|| Error::invalid(format!("struct {parent} has no fields"), "the table's schema"))?;
        let mut fields = Vec::with_capacity(wanted.len());
        let position = |old: &[Value], field: &Field| {
            old.iter().position(|known| {
                let (name, physical) = (known["name"].as_str(), mapping::physical(known));
                is_column(field, name.unwrap_or_default(), physical.unwrap_or_default())
            })
        };
        let renames =
            |field: &FieldRef| position(&old, field).is_some_and(|at| old[at]["name"] != **field.name());
        let kept = wanted
            .iter()
            .filter(|field| position(&old, field).is_some())
            .count();
        self.needs_names |= self.names.is_none() && (kept < old.len() || wanted.iter().any(renames));
        for field in wanted {
            let path = match parent {
                "" => field.name().clone(),
                parent => format!("{parent}.{}", field.name()),
            };
            if !parent.is_empty() && field.metadata().contains_key(WRITE_DEFAULT) {
                return Err(Error::unsupported(
                    format!("column {path} cannot have a default: in Delta only whole columns have one"),
                    "leave the default out, or use --format iceberg with format version 3",
                ));
            }
            let known = position(&old, field);
            fields.push(match known.map(|at| old.remove(at)) {
                Some(known) => self.kept(known, field, &path)?,
                None => self.added(field, parent)?,
            });
        }
        value["fields"] = Value::Array(fields);
        Ok(())
    }

    fn kept(&mut self, mut known: Value, wanted: &Field, path: &str) -> Result<Value> {
        let mut changes = Vec::new();
        self.data_type(&mut known["type"], wanted.data_type(), path, "", &mut changes)?;
        note(&mut known, changes);
        known["name"] = wanted.name().as_str().into();
        known["nullable"] = wanted.is_nullable().into();
        if let Some(metadata) = known["metadata"].as_object_mut() {
            match wanted.metadata().get(COMMENT) {
                Some(comment) => metadata.insert(COMMENT.to_owned(), comment.as_str().into()),
                None => metadata.remove(COMMENT),
            };
            match schema::current_default(wanted)? {
                Some(default) => drop(metadata.insert(CURRENT_DEFAULT.to_owned(), default.into())),
                None if wanted.metadata().contains_key(DEFAULT_EXPRESSION) => {}
                None => drop(metadata.remove(CURRENT_DEFAULT)),
            }
        }
        Ok(known)
    }

    fn added(&mut self, wanted: &FieldRef, parent: &str) -> Result<Value> {
        // Where files have names of their own, those of columns are free.
        if self.names.is_none() && !self.needs_names {
            check_names(wanted)?;
        }
        if wanted.metadata().contains_key(INITIAL_DEFAULT) {
            return Err(Error::unsupported(
                format!(
                    "column {} cannot be added with a default: in rows that are there it is NULL",
                    wanted.name()
                ),
                "add it first, then give it the default in another change",
            ));
        }
        let mut field = delta_field(wanted, parent)?;
        if let Some(names) = &mut self.names {
            names.give_new(&mut field, wanted);
        }
        Ok(field)
    }

    /// Adds to a type what the wanted one has more. `inside` is where it is in its field, if that is a list or
    /// a map (`value.element`); `changes` are those of the field.
    fn data_type(
        &mut self,
        value: &mut Value,
        wanted: &DataType,
        path: &str,
        inside: &str,
        changes: &mut Vec<Value>,
    ) -> Result<()> {
        let mut deeper = |redefine: &mut Self, value: &mut Value, part: &str, wanted: &DataType| {
            let dot = if inside.is_empty() { "" } else { "." };
            let inside = format!("{inside}{dot}{part}");
            redefine.data_type(value, wanted, &format!("{path}.{part}"), &inside, changes)
        };
        match (value["type"].as_str(), wanted) {
            (Some("struct"), DataType::Struct(fields)) => self.members(value, fields, path),
            (Some("array"), DataType::List(element)) => {
                value["containsNull"] = element.is_nullable().into();
                deeper(self, &mut value["elementType"], "element", element.data_type())
            }
            (Some("map"), DataType::Map(entries, _)) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => {
                    value["valueContainsNull"] = pair[1].is_nullable().into();
                    deeper(self, &mut value["valueType"], "value", pair[1].data_type())
                }
                _ => Ok(()),
            },
            _ => self.primitive(value, wanted, path, inside, changes),
        }
    }

    fn primitive(
        &mut self,
        value: &mut Value,
        wanted: &DataType,
        path: &str,
        inside: &str,
        changes: &mut Vec<Value>,
    ) -> Result<()> {
        let known = value
            .as_str()
            .map(|name| schema::primitive(name, path))
            .transpose()?;
        if known.as_ref() == Some(wanted) {
            return Ok(());
        }
        if !known.is_some_and(|known| widens(&known, wanted)) {
            return Err(Error::unsupported(
                format!("column {path} of this Delta table cannot become {wanted}"),
                "integers and decimals may become wider and float double; for anything else add a column, or cast the \
                 input to the column's type",
            ));
        }
        if !self.widening {
            return Err(Error::unsupported(
                format!(
                    "column {path} of this Delta table may not become {wanted} (table feature typeWidening)"
                ),
                format!(
                    "set the table's property {}=true, or cast the input to the column's type",
                    protocol::ENABLE_WIDENING
                ),
            ));
        }
        let wider = schema::delta_type(wanted, path)?;
        let mut change = json!({"fromType": value, "toType": wider});
        if !inside.is_empty() {
            change["fieldPath"] = inside.into();
        }
        changes.push(change);
        *value = wider;
        self.widened = true;
        Ok(())
    }
}

/// Records changes of type at their field (Delta protocol, "Type Change Metadata").
fn note(field: &mut Value, changes: Vec<Value>) {
    if changes.is_empty() {
        return;
    }
    match &mut field["metadata"][TYPE_CHANGES] {
        Value::Array(before) => before.extend(changes),
        none => *none = Value::Array(changes),
    }
}

/// Whether readers see values of the old type as ones of the new (Delta protocol, "Type Widening": of the changes
/// that are supported those that keep every value what it is in the other format too).
pub(super) fn widens(old: &DataType, new: &DataType) -> bool {
    use DataType as T;
    match (old, new) {
        (T::Int8, T::Int16 | T::Int32 | T::Int64)
        | (T::Int16, T::Int32 | T::Int64)
        | (T::Int32, T::Int64)
        | (T::Float32, T::Float64) => true,
        (T::Decimal128(digits, scale), T::Decimal128(more, same)) => more > digits && same == scale,
        _ => false,
    }
}

/// The names of a new field and of those inside it.
fn check_names(field: &FieldRef) -> Result<()> {
    fn inside(data_type: &DataType) -> Result<()> {
        match data_type {
            DataType::Struct(fields) => fields.iter().try_for_each(check_names),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                inside(item.data_type())
            }
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) => pair.iter().try_for_each(|part| inside(part.data_type())),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
    check_name(field.name())?;
    inside(field.data_type())
}

/// Whether a wanted field is the column of this name, which files have as `physical`.
pub(super) fn is_column(wanted: &Field, name: &str, physical: &str) -> bool {
    let says = |key: &str| wanted.metadata().get(key);
    match (says(ORIGIN), says(PHYSICAL_NAME)) {
        (Some(origin), _) => origin == name,
        (None, Some(mapped)) => mapped == physical,
        (None, None) => wanted.name() == name,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn list(element: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("element", element, true)))
    }

    fn columns(number: DataType) -> Schema {
        let member = DataType::Struct(vec![Field::new("x", list(number.clone()), true)].into());
        let pair = vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", list(number.clone()), true),
        ];
        let entries = Field::new("key_value", DataType::Struct(pair.into()), false);
        Schema::new(vec![
            Field::new("plain", number, true),
            Field::new("l", list(member), true),
            Field::new("m", DataType::Map(Arc::new(entries), false), true),
            Field::new("same", DataType::Utf8, true),
        ])
    }

    fn redefine(widening: bool) -> Redefine {
        Redefine {
            widening,
            names: None,
            widened: false,
            needs_names: false,
        }
    }

    #[test]
    fn changes_of_type_are_noted_at_the_nearest_field_one_after_the_other() {
        let mut value: Value =
            serde_json::from_str(&schema::render(&columns(DataType::Int16), &[]).unwrap()).unwrap();
        let mut grow = redefine(true);
        for number in [DataType::Int32, DataType::Int64] {
            grow.members(&mut value, columns(number).fields(), "").unwrap();
        }
        let changes = |path: Option<&str>| {
            let each = [("short", "integer"), ("integer", "long")];
            each.map(|(from, to)| match path {
                Some(path) => json!({"fromType": from, "toType": to, "fieldPath": path}),
                None => json!({"fromType": from, "toType": to}),
            })
        };
        let noted = |field: &Value| field["metadata"][TYPE_CHANGES].clone();
        let fields = &value["fields"];
        assert_eq!(noted(&fields[0]), json!(changes(None)));
        let member = &fields[1]["type"]["elementType"]["fields"][0];
        assert_eq!(noted(member), json!(changes(Some("element"))));
        assert_eq!(noted(&fields[2]), json!(changes(Some("value.element"))));
        for plain in [&fields[1], &fields[3]] {
            assert_eq!(noted(plain), Value::Null);
        }
        assert!(grow.widened);
    }

    #[test]
    fn a_type_that_loses_values_is_refused_and_so_is_any_without_the_owners_word() {
        for (widening, number, hint) in [
            (true, DataType::Int8, "cast the input"),
            (true, DataType::Float64, "cast the input"),
            (false, DataType::Int32, "delta.enableTypeWidening=true"),
        ] {
            let mut value: Value =
                serde_json::from_str(&schema::render(&columns(DataType::Int16), &[]).unwrap()).unwrap();
            let refused = redefine(widening)
                .members(&mut value, columns(number).fields(), "")
                .unwrap_err();
            assert!(refused.to_string().contains("column plain"), "{refused}");
            assert!(refused.hint().unwrap().contains(hint), "{refused}");
        }
    }
}
