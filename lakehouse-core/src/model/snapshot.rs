//! One version of a table.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};

use super::{PartitionField, Ref, SortColumn};

/// What the format calls a version: a Delta version number, an Iceberg snapshot id. 0 is an Iceberg
/// table that has no snapshot yet, and the first version of a Delta table.
pub type Version = i64;

/// Which version of a table to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The newest.
    Latest,
    /// This one. Negative counts back from the newest: -1 is the one before it.
    Version(Version),
    /// The newest that was committed at or before this instant, in milliseconds since 1970 UTC.
    Timestamp(i64),
    /// The one that a tag names, or the newest of a branch. A tag is read with the columns of its time, a branch
    /// with the table's columns of today.
    Ref(String),
}

/// One version of a table: everything that is known without listing its files.
pub struct Snapshot {
    /// The version that users see.
    pub version: Version,
    /// Which state of the metadata this was loaded from: the number of the Delta log entry, or N of
    /// Iceberg's `vN.metadata.json`. Grows by one with every commit; a commit is made against it.
    pub state: u64,
    /// When it was committed, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// The columns that users see. Fields carry the keys of [`super::schema`] in their metadata.
    pub schema: SchemaRef,
    /// Partition fields by partition spec id. Delta has exactly one spec, with id 0.
    pub specs: BTreeMap<i32, Vec<PartitionField>>,
    /// The spec that new files are written with.
    pub spec_id: i32,
    /// The order that rows of a file are meant to have; empty for none.
    pub sort_order: Vec<SortColumn>,
    /// The columns that tell rows apart, where the format keeps that (Iceberg's identifier fields).
    pub identifier: Vec<String>,
    /// What readers and writers need to understand: Delta's table features, `v2` or `v3` of Iceberg.
    pub features: Vec<String>,
    /// Table properties as stored.
    pub properties: BTreeMap<String, String>,
    /// What every row must satisfy.
    pub checks: Vec<Check>,
    /// Tags and branches, by name.
    pub refs: BTreeMap<String, Ref>,
    /// What this table can do.
    pub capabilities: Capabilities,
    /// Where rows carry a stable id that writers keep: the columns with the ids and with when the rows last changed,
    /// by the names [`super::schema::ROW_ID_COLUMN`] and [`super::schema::LAST_UPDATED_COLUMN`]. Data files that have
    /// them have them last.
    pub lineage: Option<[FieldRef; 2]>,
    /// How the format finds this version's files again. Only the format that made it looks inside.
    pub private: Arc<dyn Any + Send + Sync>,
}

impl Snapshot {
    /// The partition fields that new files are written with; empty for an unpartitioned table.
    pub fn partition_fields(&self) -> &[PartitionField] {
        self.specs.get(&self.spec_id).map_or(&[], Vec::as_slice)
    }

    /// The same version as if its columns were these, without its checks. Scans find columns in files by their field
    /// ids or physical names.
    #[must_use]
    pub fn read_as(&self, schema: SchemaRef) -> Self {
        Self {
            version: self.version,
            state: self.state,
            timestamp_ms: self.timestamp_ms,
            schema,
            specs: self.specs.clone(),
            spec_id: self.spec_id,
            sort_order: self.sort_order.clone(),
            identifier: self.identifier.clone(),
            features: self.features.clone(),
            properties: self.properties.clone(),
            checks: Vec::new(),
            refs: self.refs.clone(),
            capabilities: self.capabilities,
            lineage: self.lineage.clone(),
            private: Arc::clone(&self.private),
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.version)
            .field("state", &self.state)
            .field("timestamp_ms", &self.timestamp_ms)
            .field("spec_id", &self.spec_id)
            .finish_non_exhaustive()
    }
}

/// A condition that every row of the table satisfies (Delta protocol, "CHECK Constraints", "Column Invariants").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name, for messages.
    pub name: String,
    /// An expression of Spark SQL over the table's columns.
    pub expression: String,
}

/// Where tables differ. Operations ask here, never for a format's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Rows can be masked in place (deletion vectors, position deletes). Otherwise files are rewritten.
    pub masks: bool,
    /// The table has tags and branches.
    pub refs: bool,
    /// Identity partition columns are stored in new data files too, not only in the metadata. Files of other
    /// writers may lack them all the same.
    pub partition_columns_in_files: bool,
    /// Appends may be published over a winner that changed schema or partitioning, if they still fit.
    pub append_over_schema_change: bool,
    /// Columns may get wider types while files keep the narrower ones.
    pub widening: bool,
    /// Folder of new data files below the table root: `"data/"` or `""`.
    pub data_prefix: &'static str,
    /// Folder, below the table root, of files with changed rows: writers keep those of each commit there whose data
    /// files and masks do not say which rows changed (Delta's change data feed). `None` where the table wants none.
    pub change_files: Option<&'static str>,
    /// Rows that a table may hold per file before positions overflow its mask encoding.
    pub writable: bool,
}
