//! Arrow schemas with what the formats need to find a column in a file again.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result};

/// Field metadata: the Iceberg field id, or Delta's column mapping id. parquet-rs reads and writes it.
pub const FIELD_ID: &str = "PARQUET:field_id";

/// Field metadata: the column's name in data files, where it differs (Delta column mapping).
pub const PHYSICAL_NAME: &str = "lakehouse.physical_name";

/// Field metadata: the id that new files give the column, where columns are found by their physical names.
pub const WRITTEN_ID: &str = "lakehouse.written_id";

/// Field metadata: the names that the column has in files without field ids, joined by [`NAMES_JOINED_BY`], where they are
/// not just its name of today (Iceberg spec, "Column Projection", name mapping). Empty: no such file has it.
pub const MAPPED_NAMES: &str = "lakehouse.mapped_names";

/// Joins the names of [`MAPPED_NAMES`].
pub const NAMES_JOINED_BY: char = '\u{1f}';

/// Field metadata: the value that the column has in files which lack it, as text (Iceberg spec, "Default values").
pub const INITIAL_DEFAULT: &str = "lakehouse.initial_default";

/// Field metadata: the value that the column gets in new rows which do not say, as text.
pub const WRITE_DEFAULT: &str = "lakehouse.write_default";

/// Field metadata: the same as an expression of Spark SQL without columns (Delta protocol, "Default Columns").
pub const DEFAULT_EXPRESSION: &str = "lakehouse.default_expression";

/// Field metadata: the expression of Spark SQL over the other columns that the column's values come from (Delta
/// protocol, "Generated Columns").
pub const GENERATED: &str = "lakehouse.generated";

/// Field metadata: what is noted about the column.
pub const COMMENT: &str = "comment";

/// Field metadata of columns that are to be the table's ([`super::alter`]): the name that the column has now, among
/// its siblings, where that is to change; empty for a new column. Absent: the column of the same name, if there is one.
pub const ORIGIN: &str = "lakehouse.origin";

/// Name of the metadata column with the data file's path.
pub const FILE_COLUMN: &str = "_file";
/// Name of the metadata column with the row's position in its file.
pub const POSITION_COLUMN: &str = "_pos";
/// Name of the row id column (Iceberg row lineage, Delta row tracking).
pub const ROW_ID_COLUMN: &str = "_row_id";
/// Name of the column with the sequence number (Iceberg row lineage) or version (Delta row tracking) of the row's
/// last change.
pub const LAST_UPDATED_COLUMN: &str = "_last_updated_sequence_number";
/// Field id of [`ROW_ID_COLUMN`], reserved by the Iceberg spec ("Reserved Field IDs").
pub const ROW_ID_FIELD_ID: i32 = 2_147_483_540;
/// Field id of [`LAST_UPDATED_COLUMN`].
pub const LAST_UPDATED_FIELD_ID: i32 = 2_147_483_539;

/// Name of the column that says, in files of changed rows, what happened to the row (Delta change data feed).
pub const CHANGE_TYPE_COLUMN: &str = "_change_type";

/// The columns of row ids and of when rows last changed, found in files by what `key` says about each.
pub fn lineage_columns(key: &str, values: [String; 2]) -> [FieldRef; 2] {
    let [id, updated] = values;
    [(ROW_ID_COLUMN, id), (LAST_UPDATED_COLUMN, updated)].map(|(name, value)| {
        let metadata = [(key.to_owned(), value)].into();
        Arc::new(Field::new(name, DataType::Int64, true).with_metadata(metadata))
    })
}

/// The same by their reserved field ids (Iceberg).
pub fn lineage_by_id() -> [FieldRef; 2] {
    lineage_columns(
        FIELD_ID,
        [ROW_ID_FIELD_ID.to_string(), LAST_UPDATED_FIELD_ID.to_string()],
    )
}

/// The field id of a column, if it has one.
pub fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID)?.parse().ok()
}

/// The column's name in data files.
pub fn physical_name(field: &Field) -> &str {
    field
        .metadata()
        .get(PHYSICAL_NAME)
        .map_or(field.name(), String::as_str)
}

/// The same column, whatever it is called now: by id where columns have ids.
pub fn same_column(old: &Field, new: &Field) -> bool {
    match (field_id(old), field_id(new)) {
        (Some(old), Some(new)) => old == new,
        _ => physical_name(old) == physical_name(new),
    }
}

/// Whether every column of old is there under its name, at any depth: none was renamed or dropped.
pub fn keeps_columns(old: &Fields, new: &Fields) -> bool {
    old.iter().all(|field| {
        let found = new.iter().find(|other| other.name() == field.name());
        found.is_some_and(|other| {
            same_column(field, other) && keeps_inside(field.data_type(), other.data_type())
        })
    })
}

fn keeps_inside(old: &DataType, new: &DataType) -> bool {
    match (old, new) {
        (DataType::Struct(old), DataType::Struct(new)) => keeps_columns(old, new),
        (DataType::List(old), DataType::List(new)) | (DataType::Map(old, _), DataType::Map(new, _)) => {
            keeps_inside(old.data_type(), new.data_type())
        }
        _ => true,
    }
}

/// Dotted paths (`a.b`) that more than one column has: a column with a dot in its name, and a field of a struct. What is
/// kept by such a path, as statistics are, says nothing about either.
pub fn ambiguous_paths(fields: &[&Field]) -> Vec<String> {
    fn members(field: &Field) -> Vec<&Field> {
        match field.data_type() {
            DataType::Struct(members) => members.iter().map(AsRef::as_ref).collect(),
            _ => Vec::new(),
        }
    }
    fn collect(fields: &[&Field], parent: &str, paths: &mut Vec<String>) {
        for field in fields {
            let path = format!("{parent}{}", field.name());
            collect(&members(field), &format!("{path}."), paths);
            paths.push(path);
        }
    }
    // Asked for every file of a table: nearly always there is nothing to look for.
    fn dotted(field: &Field) -> bool {
        let inside = |members: &Fields| members.iter().any(|member| dotted(member));
        field.name().contains('.')
            || matches!(field.data_type(), DataType::Struct(members) if inside(members))
    }
    if !fields.iter().any(|field| dotted(field)) {
        return Vec::new();
    }
    let mut paths = Vec::new();
    collect(fields, "", &mut paths);
    paths.sort_unstable();
    let twice = paths.windows(2).filter(|pair| pair[0] == pair[1]);
    let mut twice: Vec<String> = twice.map(|pair| pair[0].clone()).collect();
    twice.dedup();
    twice
}

/// A default of a column ([`INITIAL_DEFAULT`], [`WRITE_DEFAULT`]), of the column's type; NULL where it has none. Bytes are
/// written out in hexadecimal digits.
///
/// # Errors
/// [`Error::Invalid`] when the text is no value of the type.
pub fn default_of(field: &Field, kind: &str) -> Result<ScalarValue> {
    let Some(text) = field.metadata().get(kind) else {
        return Ok(ScalarValue::try_from(field.data_type())?);
    };
    let value = match field.data_type() {
        DataType::Binary => bytes_of(text).map(|bytes| ScalarValue::Binary(Some(bytes))),
        DataType::FixedSizeBinary(length) => bytes_of(text)
            .filter(|bytes| i32::try_from(bytes.len()) == Ok(*length))
            .map(|bytes| ScalarValue::FixedSizeBinary(*length, Some(bytes))),
        data_type => ScalarValue::try_from_string(text.clone(), data_type).ok(),
    };
    value.ok_or_else(|| {
        Error::invalid(
            format!(
                "the default {text:?} of column {} is no {}",
                field.name(),
                field.data_type()
            ),
            "the table's schema",
        )
    })
}

/// Two hexadecimal digits a byte.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let (pairs, []) = digits.as_deref()?.as_chunks::<2>() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Whether a member of a struct, at any depth, has an initial default ([`INITIAL_DEFAULT`]).
pub fn has_defaults_inside(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(members) => members.iter().any(|member| {
            member.metadata().contains_key(INITIAL_DEFAULT) || has_defaults_inside(member.data_type())
        }),
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _) => has_defaults_inside(inner.data_type()),
        _ => false,
    }
}

/// Whether a zone is UTC under one of its names. Times without a zone count as UTC wherever they are compared with
/// instants, so ask `zone.is_none_or(is_utc)`.
pub fn is_utc(zone: &str) -> bool {
    matches!(
        zone,
        "UTC" | "Z" | "Etc/UTC" | "GMT" | "+00:00" | "-00:00" | "+00" | "+0000"
    )
}
