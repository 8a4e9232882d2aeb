//! Versions and files that are not there, for tests: each test says what it is about, the rest is nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::{Capabilities, DataFile, PartitionField, Snapshot};

/// A version of a table with these columns and partition specs, the first of which is today's. It can do what Iceberg's can.
pub(crate) fn snapshot(schema: SchemaRef, specs: Vec<Vec<PartitionField>>) -> Snapshot {
    Snapshot {
        version: 1,
        state: 1,
        timestamp_ms: 0,
        schema,
        specs: (0..).zip(specs).collect(),
        spec_id: 0,
        sort_order: Vec::new(),
        identifier: Vec::new(),
        features: Vec::new(),
        properties: BTreeMap::new(),
        checks: Vec::new(),
        refs: BTreeMap::new(),
        capabilities: Capabilities {
            masks: true,
            refs: true,
            partition_columns_in_files: true,
            append_over_schema_change: true,
            widening: false,
            data_prefix: "",
            change_files: None,
            writable: true,
        },
        lineage: None,
        private: Arc::new(()),
    }
}

/// A file of an unpartitioned table, of which no statistics are known.
pub(crate) fn data_file(path: impl Into<String>, bytes: u64, rows: u64) -> DataFile {
    let path = path.into();
    DataFile {
        recorded: path.clone(),
        path,
        bytes,
        rows,
        spec_id: 0,
        partition: Vec::new(),
        columns: BTreeMap::new(),
        masks: Vec::new(),
        equality_deletes: Vec::new(),
        sequence: None,
        first_row_id: None,
        split_offsets: Vec::new(),
        notes: None,
    }
}
