//! A table redefined (Delta protocol, "Change Metadata"): a new `metaData` action, and where its columns need a table
//! feature that the table lacks, a new `protocol`.
//!
//! ```text
//! evolve        columns and properties of before -> those wanted
//!   redefine    the schema of the metaData action, field by field
//!   grown       whether files of an older version can be read with the columns of a newer one
//! mapping       names and ids by which files know columns, once one was renamed or dropped
//! properties    what a property switches on
//! ```
//!
//! Columns that come with rows become wider only where the table's owner allows it (`delta.enableTypeWidening`): there
//! are readers that lack the feature. Elsewhere values that do not fit are refused. Who alters the table is its owner.

mod grown;
mod redefine;

use std::sync::Arc;

use arrow::datatypes::Schema;
use serde_json::Value;

use super::actions::{Action, Metadata};
use super::mapping::{self, Names};
use super::properties;
use super::protocol::{self, COLUMN_MAPPING, TIMESTAMP_NTZ, TYPE_WIDENING};
use super::schema::{self, Column, Mapping};
use super::state::State;
use crate::error::{Error, Result};
use crate::model::schema::{WRITE_DEFAULT, ambiguous_paths};
use crate::model::{Redefinition, Snapshot};
use redefine::{Redefine, is_column};

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
