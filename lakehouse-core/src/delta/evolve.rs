//! A table redefined (Delta protocol, "Change Metadata"): a new `metaData` action, and where its columns need a table
//! feature that the table lacks, a new `protocol`.
//!
//! ```text
//! evolve        columns and properties of before -> those wanted
//! mapping       names and ids by which files know columns, once one was renamed or dropped
//! properties    what a property switches on
//! ```
//!
//! Columns that come with rows become wider only where the table's owner allows it (`delta.enableTypeWidening`): there
//! are readers that lack the feature. Elsewhere values that do not fit are refused. Who alters the table is its owner.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use serde_json::{Value, json};

use super::actions::{Action, Metadata};
use super::create::check_name;
use super::mapping::{self, Names};
use super::properties;
use super::protocol::{self, COLUMN_MAPPING, TIMESTAMP_NTZ, TYPE_WIDENING};
use super::schema::{self, CURRENT_DEFAULT, Column, Mapping, delta_field};
use super::state::State;
use crate::error::{Error, Result};
use crate::model::schema::{
    COMMENT, DEFAULT_EXPRESSION, INITIAL_DEFAULT, ORIGIN, PHYSICAL_NAME, WRITE_DEFAULT, ambiguous_paths,
};
use crate::model::{Redefinition, Snapshot};

/// Where a field's metadata says which types it had.
const TYPE_CHANGES: &str = "delta.typeChanges";

/// A version as if it had these columns and were defined so.
///
/// # Errors
/// [`Error::Unsupported`] for a type that Delta does not have, or that a column cannot become, and for what only other
/// formats have; [`Error::Invalid`] for a name that cannot be a column's.
pub(super) fn evolve(
    snapshot: &Snapshot,
    wanted: &Schema,
    redefinition: &Redefinition,
) -> Result<Arc<Snapshot>> {
    let evolved = State::of(snapshot)?.evolved(wanted, redefinition)?;
    Ok(Arc::new(evolved.into_snapshot(snapshot.timestamp_ms)))
}

impl State {
    /// This version with these columns and properties. What is recorded of the columns that are there stays.
    ///
    /// # Errors
    /// As [`evolve`].
    pub(super) fn evolved(&self, wanted: &Schema, redefinition: &Redefinition) -> Result<Self> {
        self.check_writable()?;
        refuse_foreign(redefinition)?;
        let (mut protocol, mut configuration) = properties::apply(
            self.protocol.clone(),
            self.metadata.configuration.clone(),
            &redefinition.properties,
        )?;
        let mut value: Value = serde_json::from_str(&self.metadata.schema_string)
            .map_err(|e| Error::invalid(format!("the table's schema is not valid JSON: {e}"), "metaData"))?;
        self.check_hidden(wanted)?;
        let mapped = protocol::mapping(&self.metadata)? != Mapping::None;
        let mut redefine = Redefine {
            widening: redefinition.upgrade || protocol::widening(&self.protocol, &configuration),
            names: mapped.then(|| Names::of(&value, &configuration)),
            widened: false,
            needs_names: configuration
                .get(mapping::MODE)
                .is_some_and(|mode| mode != "none")
                && !mapped,
        };
        let mut evolved = value.clone();
        redefine.table(&mut evolved, wanted, self)?;
        if redefine.needs_names {
            if !redefinition.upgrade {
                return Err(Error::unsupported(
                    "columns of this Delta table cannot be renamed or dropped: it does not map column names",
                    "alter the table for it",
                ));
            }
            // Files know the columns by the names of today from now on.
            let mut names = Names::of(&value, &configuration);
            names.give_all(&mut value);
            redefine.names = Some(names);
            evolved = value;
            redefine.table(&mut evolved, wanted, self)?;
            protocol = protocol.with(COLUMN_MAPPING, true);
        }
        if let Some(names) = &redefine.names {
            names.record(&mut configuration);
        }
        if redefine.widened {
            configuration.insert(protocol::ENABLE_WIDENING.to_owned(), "true".to_owned());
        }
        for (needed, feature) in [
            (schema::uses_timestamp_ntz(wanted), TIMESTAMP_NTZ),
            (redefine.widened, TYPE_WIDENING),
        ] {
            if needed {
                protocol = protocol.with(feature, true);
            }
        }
        if wanted
            .fields()
            .iter()
            .any(|field| field.metadata().contains_key(WRITE_DEFAULT))
        {
            protocol = protocol.with("allowColumnDefaults", false);
        }
        let partition_columns = self.partition_columns(wanted)?;
        let metadata = Metadata {
            schema_string: evolved.to_string(),
            partition_columns,
            configuration,
            ..self.metadata.clone()
        };
        let evolved = Self::with(self.replay.clone(), protocol, metadata)?;
        // Nobody makes a table that this program could not write any more.
        evolved.check_writable()?;
        if evolved.data_fields().is_empty() {
            return Err(Error::invalid(
                "every other column is a partition column: no column would be left to store in files",
                "the table's columns",
            )
            .with_hint("leave or add a column that the table is not partitioned by"));
        }
        let shown = self.columns().iter().filter(|column| !self.is_hidden(column));
        let before = ambiguous_paths(&shown.map(|column| &column.field).collect::<Vec<_>>());
        let after = ambiguous_paths(&wanted.fields().iter().map(AsRef::as_ref).collect::<Vec<_>>());
        if let Some(path) = after.iter().find(|path| !before.contains(path)) {
            return Err(Error::invalid(
                format!(
                    "two columns would be called {path}: one with a dot in its name, one inside a struct"
                ),
                "the table's columns",
            )
            .with_hint("choose another name"));
        }
        Ok(evolved)
    }

    /// Hidden columns are not among the wanted ones, which may not take their names nor leave them without the column
    /// that they are computed from.
    fn check_hidden(&self, wanted: &Schema) -> Result<()> {
        for column in self.columns().iter().filter(|column| self.is_hidden(column)) {
            let lower = column.field.name().to_lowercase();
            if wanted
                .fields()
                .iter()
                .any(|field| field.name().to_lowercase() == lower)
            {
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
        for partition in &self.partitions {
            let field = &partition.field;
            let source = |column: &&Column| *column.field.name() == field.source;
            let data_type = self
                .columns()
                .iter()
                .find(source)
                .map(|column| column.field.data_type());
            let stays = wanted
                .fields()
                .iter()
                .any(|new| *new.name() == field.source && Some(new.data_type()) == data_type);
            if field.source != field.name && !stays {
                return Err(Error::unsupported(
                    format!(
                        "column {} cannot be renamed, dropped or widened: the table is partitioned by {}, which is computed from it",
                        field.source, field.name
                    ),
                    "make a new table partitioned otherwise and copy the rows; Iceberg tables can",
                ));
            }
        }
        Ok(())
    }

    /// The partition columns under their new names.
    fn partition_columns(&self, wanted: &Schema) -> Result<Vec<String>> {
        let columns = self.metadata.partition_columns.iter().map(|name| {
            let column = self.columns().iter().find(|column| column.field.name() == name);
            let Some(column) = column.filter(|column| !self.is_hidden(column)) else {
                return Ok(name.clone());
            };
            let renamed = wanted
                .fields()
                .iter()
                .find(|field| is_column(field, name, &column.physical));
            renamed.map(|field| field.name().clone()).ok_or_else(|| {
                Error::unsupported(
                    format!("column {name} cannot be dropped: the table is partitioned by it"),
                    "make a new table partitioned otherwise and copy the rows",
                )
            })
        });
        columns.collect()
    }

    /// Whether the columns of this version are those of an older one, some of them wider or renamed perhaps, and some
    /// that were added or, where names are mapped, dropped: then its files can be read with them.
    pub(super) fn has_columns_of(&self, old: &Self) -> bool {
        let read = |state: &Self| serde_json::from_str::<Value>(&state.metadata.schema_string).ok();
        let may_drop = protocol::mapping(&self.metadata).is_ok_and(|mapping| mapping != Mapping::None);
        self.metadata.schema_string == old.metadata.schema_string
            || matches!((read(old), read(self)), (Some(old), Some(new)) if has_grown(&old, &new, may_drop))
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

/// What Delta tables do not have.
fn refuse_foreign(redefinition: &Redefinition) -> Result<()> {
    for (asked, what, hint) in [
        (
            redefinition.partitioning.is_some(),
            "the partitioning of a Delta table cannot be changed",
            "make a new table partitioned so and copy the rows; Iceberg tables can change theirs",
        ),
        (
            redefinition
                .sort_order
                .as_ref()
                .is_some_and(|order| !order.is_empty()),
            "Delta tables have no sort order",
            "leave it out; sort the rows when they are written",
        ),
        (
            redefinition
                .identifier
                .as_ref()
                .is_some_and(|names| !names.is_empty()),
            "Delta tables have no identifier fields",
            "leave them out; name the key in every merge",
        ),
        (
            redefinition.format_version.is_some(),
            "Delta tables have no format version",
            "leave it out; table features are switched on where they are needed",
        ),
    ] {
        if asked {
            return Err(Error::unsupported(what, hint));
        }
    }
    Ok(())
}

/// Whether a wanted field is the column of this name, which files have as `physical`.
fn is_column(wanted: &Field, name: &str, physical: &str) -> bool {
    let says = |key: &str| wanted.metadata().get(key);
    match (says(ORIGIN), says(PHYSICAL_NAME)) {
        (Some(origin), _) => origin == name,
        (None, Some(mapped)) => mapped == physical,
        (None, None) => wanted.name() == name,
    }
}

/// Whether a type has all that an older one has, in the same or a wider type, and beside that only what may be NULL.
fn has_grown(old: &Value, new: &Value, may_drop: bool) -> bool {
    let same = |key: &str| old[key] == new[key];
    match (old["type"].as_str(), new["type"].as_str()) {
        (Some("struct"), Some("struct")) => {
            let (Some(old), Some(new)) = (old["fields"].as_array(), new["fields"].as_array()) else {
                return false;
            };
            let stored = |fields: &[Value], field: &Value| {
                let name = mapping::physical(field);
                let found = fields.iter().find(|other| mapping::physical(other) == name);
                found.cloned()
            };
            let kept = old.iter().all(|field| match stored(new, field) {
                Some(new) => is_kept(field, &new, may_drop),
                None => may_drop,
            });
            let added = new.iter().filter(|field| stored(old, field).is_none());
            kept && added.into_iter().all(|field| field["nullable"] == true)
        }
        (Some("array"), Some("array")) => {
            same("containsNull") && has_grown(&old["elementType"], &new["elementType"], may_drop)
        }
        (Some("map"), Some("map")) => {
            same("valueContainsNull")
                && same("keyType")
                && has_grown(&old["valueType"], &new["valueType"], may_drop)
        }
        _ => {
            let primitive = |value: &Value| schema::primitive(value.as_str()?, "").ok();
            let widened = || Some(widens(&primitive(old)?, &primitive(new)?));
            old == new || widened().unwrap_or(false)
        }
    }
}

/// Whether a field is what it was, or grew.
fn is_kept(old: &Value, new: &Value, may_drop: bool) -> bool {
    let metadata = |field: &Value| {
        let mut metadata = field["metadata"].as_object().cloned().unwrap_or_default();
        for key in [
            TYPE_CHANGES,
            COMMENT,
            CURRENT_DEFAULT,
            mapping::ID,
            mapping::PHYSICAL,
        ] {
            metadata.remove(key);
        }
        metadata
    };
    // Whether values are there that must be by now is looked up before.
    metadata(old) == metadata(new) && has_grown(&old["type"], &new["type"], may_drop)
}

/// Makes the table's schema, which is JSON, the wanted one.
struct Redefine {
    /// Types may become wider.
    widening: bool,
    /// The names and ids by which files know columns, if the table maps them.
    names: Option<Names>,
    /// Some types did.
    widened: bool,
    /// What was done is possible only where names are mapped.
    needs_names: bool,
}

impl Redefine {
    /// The columns of a table; hidden ones stay, last as whoever shows them does.
    fn table(&mut self, value: &mut Value, wanted: &Schema, state: &State) -> Result<()> {
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
