//! What a new table shall be.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use super::PartitionField;

/// Property of tables that were made of files which were there before: the folder of these files below the table's
/// place, `.` for all of it. Other files there may be of others.
pub const ADOPTED: &str = "lakehouse.adopted";

/// What a new table shall be. Field ids and physical names are given by the format.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Columns, their Arrow types and whether they may be NULL.
    pub schema: SchemaRef,
    /// Hidden partitioning, in order; empty for none. `name` and `field_id` may be left for the format.
    pub partition_fields: Vec<PartitionField>,
    /// Table properties.
    pub properties: BTreeMap<String, String>,
    /// The format's own version number (Iceberg 2 or 3); `None` for its default.
    pub format_version: Option<u8>,
}
