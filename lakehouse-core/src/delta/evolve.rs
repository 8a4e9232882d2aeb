//! Columns added and widened by a commit (Delta protocol, "Change Metadata"): a new `metaData` action, and where a
//! column's type needs a table feature that the table lacks, a new `protocol`.
//!
//! Columns become wider only where the table's owner allows it (`delta.enableTypeWidening`): there are readers that
//! lack the feature. Elsewhere values that do not fit are refused.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use serde_json::{Value, json};

use super::actions::{Action, Metadata, Protocol};
use super::create::check_name;
use super::protocol::{self, TIMESTAMP_NTZ, TYPE_WIDENING};
use super::schema::{self, delta_field};
use super::state::State;
use crate::error::{Error, Result};
use crate::model::Snapshot;

/// Features that writer versions below 7 imply, and from which version on (Delta protocol, "Valid Feature
/// Names in Table Features").
const IMPLIED: [(i32, &str); 7] = [
    (2, "appendOnly"),
    (2, "invariants"),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
    (6, "identityColumns"),
];

/// Where a field's metadata says which types it had.
const TYPE_CHANGES: &str = "delta.typeChanges";

/// A version as if it had these columns.
///
/// # Errors
/// [`Error::Unsupported`] for a type that Delta does not have, or that a column cannot become;
/// [`Error::Invalid`] for a name that cannot be a column's.
pub(super) fn evolve(snapshot: &Snapshot, wanted: &Schema) -> Result<Arc<Snapshot>> {
    let evolved = State::of(snapshot)?.evolved(wanted)?;
    Ok(Arc::new(evolved.into_snapshot(snapshot.timestamp_ms)))
}

impl State {
    /// This version with these columns. What is recorded of the columns that are there stays.
    ///
    /// # Errors
    /// As [`evolve`].
    pub(super) fn evolved(&self, wanted: &Schema) -> Result<Self> {
        self.check_writable()?;
        let mut value: Value = serde_json::from_str(&self.metadata.schema_string)
            .map_err(|e| Error::invalid(format!("the table's schema is not valid JSON: {e}"), "metaData"))?;
        for field in wanted.fields() {
            let name = field.name().to_lowercase();
            let taken = |column: &&schema::Column| {
                column.field.name().to_lowercase() == name && self.is_hidden(column)
            };
            if let Some(column) = self.columns().iter().find(taken) {
                return Err(Error::invalid(
                    format!(
                        "column {} cannot be added: the table is partitioned by a hidden column of that name",
                        column.field.name()
                    ),
                    "the columns of the input",
                )
                .with_hint("rename the column in the input, or leave it out"));
            }
        }
        let mut grow = Grow {
            widening: protocol::widening(&self.protocol, &self.metadata),
            widened: false,
        };
        grow.members(&mut value, wanted.fields(), "")?;
        // Whoever shows hidden columns shows them last.
        let hides = |field: &Value| {
            let column = self
                .columns()
                .iter()
                .find(|column| field["name"] == **column.field.name());
            column.is_some_and(|column| self.is_hidden(column))
        };
        if let Some(fields) = value["fields"].as_array_mut() {
            fields.sort_by_key(hides);
        }
        let metadata = Metadata {
            schema_string: value.to_string(),
            ..self.metadata.clone()
        };
        let mut protocol = self.protocol.clone();
        for (needed, feature) in [
            (schema::uses_timestamp_ntz(wanted), TIMESTAMP_NTZ),
            (grow.widened, TYPE_WIDENING),
        ] {
            if needed && !protocol.has(feature) {
                protocol = with_feature(protocol, feature);
            }
        }
        Self::with(self.replay.clone(), protocol, metadata)
    }

    /// Whether the columns of this version are those of an older one, some of them wider perhaps, and some that were
    /// added: then its files can be read with them.
    pub(super) fn has_columns_of(&self, old: &Self) -> bool {
        let read = |state: &Self| serde_json::from_str::<Value>(&state.metadata.schema_string).ok();
        self.metadata.schema_string == old.metadata.schema_string
            || matches!((read(old), read(self)), (Some(old), Some(new)) if has_grown(&old, &new))
    }

    /// The actions that give a table whose state was `before` the columns of this one.
    pub(super) fn new_columns(&self, before: &Self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.protocol != before.protocol {
            actions.push(Action {
                protocol: Some(self.protocol.clone()),
                ..Action::default()
            });
        }
        actions.push(Action {
            meta_data: Some(self.metadata.clone()),
            ..Action::default()
        });
        actions
    }
}

/// Whether a type has all that an older one has, in the same or a wider type, and beside that only what may be NULL.
fn has_grown(old: &Value, new: &Value) -> bool {
    let same = |key: &str| old[key] == new[key];
    match (old["type"].as_str(), new["type"].as_str()) {
        (Some("struct"), Some("struct")) => {
            let (Some(old), Some(new)) = (old["fields"].as_array(), new["fields"].as_array()) else {
                return false;
            };
            let named = |fields: &[Value], field: &Value| {
                let found = fields.iter().find(|other| other["name"] == field["name"]);
                found.cloned()
            };
            let kept = old
                .iter()
                .all(|field| named(new, field).is_some_and(|new| is_kept(field, &new)));
            let added = new.iter().filter(|field| named(old, field).is_none());
            kept && added.into_iter().all(|field| field["nullable"] == true)
        }
        (Some("array"), Some("array")) => {
            same("containsNull") && has_grown(&old["elementType"], &new["elementType"])
        }
        (Some("map"), Some("map")) => {
            same("valueContainsNull") && same("keyType") && has_grown(&old["valueType"], &new["valueType"])
        }
        _ => {
            let primitive = |value: &Value| schema::primitive(value.as_str()?, "").ok();
            let widened = || Some(widens(&primitive(old)?, &primitive(new)?));
            old == new || widened().unwrap_or(false)
        }
    }
}

/// Whether a field is what it was, or grew.
fn is_kept(old: &Value, new: &Value) -> bool {
    let metadata = |field: &Value| {
        let mut metadata = field["metadata"].as_object().cloned().unwrap_or_default();
        metadata.remove(TYPE_CHANGES);
        metadata
    };
    old["nullable"] == new["nullable"]
        && metadata(old) == metadata(new)
        && has_grown(&old["type"], &new["type"])
}

/// The protocol with one more feature of readers and writers, those that its numbers imply spelled out.
fn with_feature(protocol: Protocol, feature: &str) -> Protocol {
    let mut writer = protocol.writer_features.unwrap_or_else(|| {
        let implied = IMPLIED
            .iter()
            .filter(|(from, _)| *from <= protocol.min_writer_version);
        implied.map(|(_, name)| (*name).to_owned()).collect()
    });
    let mut reader = protocol
        .reader_features
        .unwrap_or_else(|| match protocol.min_reader_version {
            2 => vec!["columnMapping".to_owned()],
            _ => Vec::new(),
        });
    for features in [&mut writer, &mut reader] {
        features.push(feature.to_owned());
    }
    Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: Some(reader),
        writer_features: Some(writer),
    }
}

/// Brings what a wanted schema has more into the table's, which is JSON.
struct Grow {
    /// Types may become wider.
    widening: bool,
    /// Some did.
    widened: bool,
}

impl Grow {
    fn members(&mut self, value: &mut Value, wanted: &[FieldRef], parent: &str) -> Result<()> {
        let fields = value["fields"]
            .as_array_mut()
            .ok_or_else(|| Error::invalid(format!("struct {parent} has no fields"), "the table's schema"))?;
        for field in wanted {
            let path = match parent {
                "" => field.name().clone(),
                parent => format!("{parent}.{}", field.name()),
            };
            match fields.iter_mut().find(|known| known["name"] == **field.name()) {
                Some(known) => {
                    let mut changes = Vec::new();
                    self.data_type(&mut known["type"], field.data_type(), &path, "", &mut changes)?;
                    note(known, changes);
                }
                None => {
                    check_names(field)?;
                    fields.push(delta_field(field, parent)?);
                }
            }
        }
        Ok(())
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
        let mut deeper = |grow: &mut Self, value: &mut Value, part: &str, wanted: &DataType| {
            let dot = if inside.is_empty() { "" } else { "." };
            let inside = format!("{inside}{dot}{part}");
            grow.data_type(value, wanted, &format!("{path}.{part}"), &inside, changes)
        };
        match (value["type"].as_str(), wanted) {
            (Some("struct"), DataType::Struct(fields)) => self.members(value, fields, path),
            (Some("array"), DataType::List(element)) => {
                deeper(self, &mut value["elementType"], "element", element.data_type())
            }
            (Some("map"), DataType::Map(entries, _)) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => {
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
                "cast the input to the column's type",
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
fn widens(old: &DataType, new: &DataType) -> bool {
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

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

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

    #[test]
    fn changes_of_type_are_noted_at_the_nearest_field_one_after_the_other() {
        let mut value: Value =
            serde_json::from_str(&schema::render(&columns(DataType::Int16), &[]).unwrap()).unwrap();
        let mut grow = Grow {
            widening: true,
            widened: false,
        };
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
            let mut grow = Grow {
                widening,
                widened: false,
            };
            let refused = grow
                .members(&mut value, columns(number).fields(), "")
                .unwrap_err();
            assert!(refused.to_string().contains("column plain"), "{refused}");
            assert!(refused.hint().unwrap().contains(hint), "{refused}");
        }
    }
}
