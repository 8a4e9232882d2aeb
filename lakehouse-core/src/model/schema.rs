//! Arrow schemas with what the formats need to find a column in a file again.

use arrow::datatypes::Field;

/// Field metadata: the Iceberg field id, or Delta's column mapping id. parquet-rs reads and writes it.
pub const FIELD_ID: &str = "PARQUET:field_id";

/// Field metadata: the column's name in data files, where it differs (Delta column mapping).
pub const PHYSICAL_NAME: &str = "lakehouse.physical_name";

/// Field metadata: the names, as a JSON list, that the column has in data files without field ids, where these are not just
/// its own (Iceberg name mapping).
pub const MAPPED_NAMES: &str = "lakehouse.mapped_names";

/// Name of the metadata column with the data file's path.
pub const FILE_COLUMN: &str = "_file";
/// Name of the metadata column with the row's position in its file.
pub const POSITION_COLUMN: &str = "_pos";
/// Name of the row id column (Iceberg row lineage).
pub const ROW_ID_COLUMN: &str = "_row_id";
/// Name of the column with the sequence number of the row's last change (Iceberg row lineage).
pub const LAST_UPDATED_COLUMN: &str = "_last_updated_sequence_number";
/// Field id of [`ROW_ID_COLUMN`], reserved by the Iceberg spec ("Reserved Field IDs").
pub const ROW_ID_FIELD_ID: i32 = 2_147_483_540;
/// Field id of [`LAST_UPDATED_COLUMN`].
pub const LAST_UPDATED_FIELD_ID: i32 = 2_147_483_539;

/// The field id of a column, if it has one.
pub fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID)?.parse().ok()
}

/// Whether a column of a data file without field ids is this one by its name.
pub fn is_named(field: &Field, in_file: &str) -> bool {
    match field.metadata().get(MAPPED_NAMES) {
        None => physical_name(field) == in_file,
        Some(names) => serde_json::from_str::<Vec<String>>(names)
            .is_ok_and(|names| names.iter().any(|name| name == in_file)),
    }
}

/// The column's name in data files.
pub fn physical_name(field: &Field) -> &str {
    field
        .metadata()
        .get(PHYSICAL_NAME)
        .map_or(field.name(), String::as_str)
}

/// Whether a zone is UTC under one of its names. Times without a zone count as UTC wherever they are compared with
/// instants, so ask `zone.is_none_or(is_utc)`.
pub fn is_utc(zone: &str) -> bool {
    matches!(
        zone,
        "UTC" | "Z" | "Etc/UTC" | "GMT" | "+00:00" | "-00:00" | "+00" | "+0000"
    )
}
