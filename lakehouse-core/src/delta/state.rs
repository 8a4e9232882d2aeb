//! One loaded version: what the log says about the table, as the rest of the crate sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use super::actions::{Metadata, Protocol};
use super::hidden::hidden;
use super::kernel::Replay;
use super::partitions::{self, PartitionColumn};
use super::protocol::{self, Refusal};
use super::schema::{self, Column};
use super::{change_feed, row_tracking};
use crate::error::{Error, Result};
use crate::model::{Capabilities, Check, Snapshot};

/// What a [`Snapshot`] of a Delta table carries for this module.
#[derive(Debug)]
pub(super) struct State {
    pub(super) replay: Replay,
    pub(super) protocol: Protocol,
    pub(super) metadata: Metadata,
    /// Partition columns, in order.
    pub(super) partitions: Vec<PartitionColumn>,
    /// Every column as recorded, hidden ones included.
    columns: Vec<Column>,
    refusal: Option<Refusal>,
}

impl State {
    /// Reads a version's protocol and metadata.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the table has a reader feature or a type that we do not honour.
    pub(super) fn new(replay: Replay) -> Result<Self> {
        let protocol = replay.protocol()?;
        protocol.check_readable()?;
        let metadata = replay.metadata()?;
        Self::with(replay, protocol, metadata)
    }

    /// A version whose protocol and metadata are these.
    ///
    /// # Errors
    /// As [`State::new`].
    pub(super) fn with(replay: Replay, protocol: Protocol, metadata: Metadata) -> Result<Self> {
        if metadata.format.provider != "parquet" {
            return Err(Error::unsupported(
                format!(
                    "the table's data files are {}, not Parquet",
                    metadata.format.provider
                ),
                "convert the table to Parquet",
            ));
        }
        let columns = schema::parse(&metadata.schema_string, protocol::mapping(&metadata)?)?;
        Ok(Self {
            partitions: partitions::load(&columns, &metadata.partition_columns)?,
            refusal: protocol::refusal(&protocol, &metadata, &columns),
            replay,
            protocol,
            metadata,
            columns,
        })
    }

    /// The snapshot that users of the door see.
    pub(super) fn into_snapshot(self, timestamp_ms: i64) -> Snapshot {
        let schema = visible(&self.columns, &self.metadata.partition_columns);
        let fields = self.partitions.iter().map(|p| p.field.clone()).collect();
        let version = self.replay.version();
        Snapshot {
            version: version.cast_signed(),
            state: version,
            timestamp_ms,
            schema,
            specs: BTreeMap::from([(0, fields)]),
            spec_id: 0,
            sort_order: Vec::new(),
            identifier: Vec::new(),
            features: self.protocol.features(),
            properties: self.metadata.configuration.clone(),
            checks: checks(&self.metadata, &self.columns),
            refs: BTreeMap::new(),
            capabilities: Capabilities {
                masks: self.refusal.is_none() && protocol::masks(&self.protocol, &self.metadata),
                refs: false,
                partition_columns_in_files: false,
                append_over_schema_change: false,
                widening: protocol::widening(&self.protocol, &self.metadata.configuration),
                data_prefix: "",
                change_files: change_feed::folder(&self.protocol, &self.metadata),
                writable: self.refusal.is_none(),
            },
            lineage: row_tracking::lineage(&self.protocol, &self.metadata),
            private: Arc::new(self),
        }
    }

    /// What a snapshot of this format carries.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the snapshot is another format's.
    pub(super) fn of(snapshot: &Snapshot) -> Result<&Self> {
        snapshot
            .private
            .downcast_ref()
            .ok_or_else(|| Error::invalid("the snapshot is not one of a Delta table", ""))
    }

    /// Refuses a table that has a writer feature which we do not honour.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the feature.
    pub(super) fn check_writable(&self) -> Result<()> {
        self.refusal
            .as_ref()
            .map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// The columns that data files and their statistics hold.
    pub(super) fn data_fields(&self) -> Vec<&Field> {
        self.columns
            .iter()
            .filter(|column| !self.is_partition(column))
            .map(|column| &column.field)
            .collect()
    }

    /// Every column as recorded, hidden ones included.
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// A whole number among the table's properties.
    pub(super) fn number(&self, property: &str) -> Option<i64> {
        self.metadata.configuration.get(property)?.trim().parse().ok()
    }

    pub(super) fn is_partition(&self, column: &Column) -> bool {
        self.metadata.partition_columns.contains(column.field.name())
    }

    /// Whether it is a partition column that users do not see.
    pub(super) fn is_hidden(&self, column: &Column) -> bool {
        self.is_partition(column) && hidden(column, &self.columns).is_some()
    }
}

/// What rows must satisfy: CHECK constraints and invariants of columns.
fn checks(metadata: &Metadata, columns: &[Column]) -> Vec<Check> {
    let constraints = metadata.configuration.iter().filter_map(|(key, expression)| {
        let name = key.strip_prefix(protocol::CONSTRAINT)?;
        Some(Check {
            name: format!("CHECK constraint {name}"),
            expression: expression.clone(),
        })
    });
    let invariants = columns.iter().filter_map(|column| {
        Some(Check {
            name: format!("invariant of column {}", column.field.name()),
            expression: schema::invariant(column)?,
        })
    });
    constraints.chain(invariants).collect()
}

/// The columns that users see: all but hidden partition columns.
pub(super) fn visible(columns: &[Column], partition_columns: &[String]) -> SchemaRef {
    let shown = |column: &&Column| {
        hidden(column, columns).is_none() || !partition_columns.contains(column.field.name())
    };
    let fields: Vec<Field> = columns.iter().filter(shown).map(|c| c.field.clone()).collect();
    Arc::new(Schema::new(fields))
}
