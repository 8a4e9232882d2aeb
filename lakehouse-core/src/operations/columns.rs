//! Columns that come with rows: the version that an operation plans on, as if it had them.

use std::sync::Arc;

use arrow::datatypes::FieldRef;

use super::input::Known;
use super::rules::ruled_columns;
use super::work::Work;
use super::{Rows, SchemaMode};
use crate::error::Result;
use crate::model::{PartitionField, Redefinition, Transform, evolve};

impl Work {
    /// [`Work::evolve`] for the columns of these rows, which are not read yet.
    ///
    /// # Errors
    /// As there, and those of opening a file.
    pub(super) async fn evolve_for(&mut self, rows: &Rows) -> Result<()> {
        if self.options.schema_mode == SchemaMode::Strict {
            return Ok(());
        }
        let input = rows.columns(Known::Text(&self.snapshot.schema)).await?;
        self.evolve(input.fields())
    }

    /// Gives the table the columns of the input that it lacks, if that was asked for: `snapshot` is then the
    /// version as if it had them, and the change carries them. Before anything is written.
    ///
    /// # Errors
    /// For a column that the table cannot have.
    pub(super) fn evolve(&mut self, input: &[FieldRef]) -> Result<()> {
        if self.options.schema_mode == SchemaMode::Strict {
            return Ok(());
        }
        let snapshot = &self.snapshot;
        // A partition's values are recorded with their type, and files are found by them. Rules were written for the types.
        let ruled = ruled_columns(snapshot)?;
        let may_widen = |name: &str| {
            let top = name.split('.').next().unwrap_or(name).to_lowercase();
            if ruled.iter().any(|(column, _)| *column == top) {
                return false;
            }
            let mut fields = snapshot.specs.values().flatten();
            let partitions = |source: &str| {
                let rest = source.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let live = |field: &&PartitionField| field.transform != Transform::Void;
            snapshot.capabilities.widening && !fields.any(|field| live(&field) && partitions(&field.source))
        };
        let Some(evolved) = evolve(&snapshot.schema, input, &may_widen)? else {
            return Ok(());
        };
        self.snapshot = self
            .handle
            .format
            .evolve(snapshot, &evolved.schema, &Redefinition::default())?;
        self.change.set_schema(Arc::clone(&self.snapshot.schema));
        self.note_columns(evolved);
        Ok(())
    }
}
