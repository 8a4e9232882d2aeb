//! Columns added by a commit (Delta protocol, "Change Metadata"): a new `metaData` action, and where a column's
//! type needs a table feature that the table lacks, a new `protocol`.
//!
//! A column gets no wider type: that takes the feature `typeWidening`, and values that do not fit are
//! refused as they are without it.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use serde_json::Value;

use super::actions::{Action, Metadata, Protocol};
use super::create::check_name;
use super::partitions::hidden;
use super::protocol::TIMESTAMP_NTZ;
use super::schema::{self, delta_field};
use super::state::{State, visible};
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
                column.field.name().to_lowercase() == name
                    && hidden(column).is_some()
                    && self.is_partition(column)
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
        extend_struct(&mut value, wanted.fields(), "")?;
        // Whoever shows hidden columns shows them last.
        let hides = |field: &Value| {
            let column = self
                .columns()
                .iter()
                .find(|column| field["name"] == **column.field.name());
            column.is_some_and(|column| hidden(column).is_some() && self.is_partition(column))
        };
        if let Some(fields) = value["fields"].as_array_mut() {
            fields.sort_by_key(hides);
        }
        let metadata = Metadata {
            schema_string: value.to_string(),
            ..self.metadata.clone()
        };
        let mut protocol = self.protocol.clone();
        if schema::uses_timestamp_ntz(wanted) && !protocol.has(TIMESTAMP_NTZ) {
            protocol = with_feature(protocol, TIMESTAMP_NTZ);
        }
        Self::with(self.replay.clone(), protocol, metadata)
    }

    /// Whether the columns of this version are those of an older one, and perhaps some that were added: then
    /// its files can be read with them.
    pub(super) fn has_columns_of(&self, old: &Self) -> bool {
        let grown = old.evolved(&visible(self.columns(), &self.metadata.partition_columns));
        self.metadata.schema_string == old.metadata.schema_string
            || grown.is_ok_and(|grown| same(&grown.metadata.schema_string, &self.metadata.schema_string))
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

/// Whether two schemas say the same, however they are spelled.
fn same(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    read(one).is_some() && read(one) == read(other)
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

fn extend_struct(value: &mut Value, wanted: &[FieldRef], parent: &str) -> Result<()> {
    let fields = value["fields"]
        .as_array_mut()
        .ok_or_else(|| Error::invalid(format!("struct {parent} has no fields"), "the table's schema"))?;
    for field in wanted {
        let path = match parent {
            "" => field.name().clone(),
            parent => format!("{parent}.{}", field.name()),
        };
        match fields.iter_mut().find(|known| known["name"] == **field.name()) {
            Some(known) => extend(&mut known["type"], field.data_type(), &path)?,
            None => {
                check_names(field)?;
                fields.push(delta_field(field, parent)?);
            }
        }
    }
    Ok(())
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

/// Adds to a type what the wanted one has more.
fn extend(value: &mut Value, wanted: &DataType, path: &str) -> Result<()> {
    match (value["type"].as_str(), wanted) {
        (Some("struct"), DataType::Struct(fields)) => extend_struct(value, fields, path),
        (Some("array"), DataType::List(element)) => extend(
            &mut value["elementType"],
            element.data_type(),
            &format!("{path}.element"),
        ),
        (Some("map"), DataType::Map(entries, _)) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => extend(
                &mut value["valueType"],
                pair[1].data_type(),
                &format!("{path}.value"),
            ),
            _ => Ok(()),
        },
        _ => {
            let known = value
                .as_str()
                .map(|name| schema::primitive(name, path))
                .transpose()?;
            if known.as_ref() == Some(wanted) {
                return Ok(());
            }
            Err(Error::unsupported(
                format!(
                    "column {path} of this Delta table cannot become {wanted} (table feature typeWidening)"
                ),
                "cast the input to the column's type",
            ))
        }
    }
}
