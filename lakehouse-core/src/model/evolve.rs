//! The columns of a table and those of an input as one schema: what is new is added, what is wider is
//! widened.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};

use super::schema::{
    FIELD_ID, FILE_COLUMN, LAST_UPDATED_COLUMN, ORIGIN, PHYSICAL_NAME, POSITION_COLUMN, ROW_ID_COLUMN,
    WRITTEN_ID,
};
use crate::error::{Error, Result};

/// Names that scans, Iceberg ("Reserved Field IDs") and Delta's change feed give to columns of their own.
const RESERVED: [&str; 10] = [
    FILE_COLUMN,
    POSITION_COLUMN,
    ROW_ID_COLUMN,
    LAST_UPDATED_COLUMN,
    "_partition",
    "_spec_id",
    "_deleted",
    "_change_type",
    "_commit_version",
    "_commit_timestamp",
];

/// What became of a table's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evolved {
    /// The table's columns as they were, then the new ones, nullable. New fields have no ids, and may have
    /// types that the format stores as others.
    pub schema: Schema,
    /// Dotted names of the fields that were added: `tip`, `address.zip`, `stops.element.delay`.
    pub added: Vec<String>,
    /// Dotted names of the fields that are wider now.
    pub widened: Vec<String>,
}

/// Brings the columns of an input into a table's schema. Names are the same if they differ in case only.
/// `None` if the table has everything already. A field is widened (int to bigint, float to double, decimals
/// to more digits of the same scale) where `may_widen` allows it for the column; other differences of type
/// are left to whoever fits the values.
///
/// # Errors
/// [`Error::Invalid`] for a new column that is reserved, nameless or there twice.
pub fn evolve(
    table: &Schema,
    input: &[FieldRef],
    may_widen: &dyn Fn(&str) -> bool,
) -> Result<Option<Evolved>> {
    let mut walk = Walk::default();
    let mut fields = table.fields().to_vec();
    let known = fields.len();
    for field in input {
        let name = field.name();
        match find(name, &fields) {
            Some(at) if at < known => {
                walk.widen = may_widen(fields[at].name());
                let path = fields[at].name().clone();
                fields[at] = walk.field(&fields[at], field.data_type(), &path)?;
            }
            Some(at) => return Err(twice(fields[at].name(), name)),
            None if is_reserved(name) => {
                return Err(Error::invalid(
                    format!("column {name} cannot be added: the name is reserved"),
                    "the columns of the input",
                )
                .with_hint("leave it out of the input, or rename it"));
            }
            None => fields.push(walk.add(field, name)?),
        }
    }
    if walk.added.is_empty() && walk.widened.is_empty() {
        return Ok(None);
    }
    Ok(Some(Evolved {
        schema: Schema::new_with_metadata(fields, table.metadata().clone()),
        added: walk.added,
        widened: walk.widened,
    }))
}

/// Whether scans or formats give this name to a column of their own.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// The field of this name; of one that differs in case only, if there is none.
pub(super) fn find(name: &str, fields: &[FieldRef]) -> Option<usize> {
    let exact = fields.iter().position(|field| field.name() == name);
    exact.or_else(|| {
        let lower = name.to_lowercase();
        fields
            .iter()
            .position(|field| field.name().to_lowercase() == lower)
    })
}

fn twice(one: &str, other: &str) -> Error {
    let what = if one == other {
        format!("column {one} is in the input twice")
    } else {
        format!("the columns {one} and {other} of the input differ only in case")
    };
    Error::invalid(what, "the columns of the input").with_hint("rename one of them")
}

/// A field that the table gives its own ids: those of the file that it comes from say nothing here.
fn without_ids(field: &Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.retain(|key, _| ![FIELD_ID, ORIGIN, PHYSICAL_NAME, WRITTEN_ID].contains(&key.as_str()));
    let inner = |field: &FieldRef| Arc::new(without_ids(field));
    let data_type = match field.data_type() {
        DataType::Struct(members) => DataType::Struct(members.iter().map(inner).collect()),
        DataType::List(element) => DataType::List(inner(element)),
        DataType::LargeList(element) => DataType::LargeList(inner(element)),
        DataType::FixedSizeList(element, size) => DataType::FixedSizeList(inner(element), *size),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type).with_metadata(metadata)
}

#[derive(Default)]
struct Walk {
    widen: bool,
    added: Vec<String>,
    widened: Vec<String>,
}

impl Walk {
    fn add(&mut self, field: &Field, path: &str) -> Result<FieldRef> {
        if field.name().is_empty() {
            return Err(Error::invalid("a column has no name", "the columns of the input"));
        }
        self.added.push(path.to_owned());
        // Rows that are there already have no value for it.
        Ok(without_ids(field).with_nullable(true).into())
    }

    /// A field of the table, as values of this type need it.
    fn field(&mut self, field: &FieldRef, input: &DataType, path: &str) -> Result<FieldRef> {
        let data_type = self.data_type(field.data_type(), input, path)?;
        if data_type == *field.data_type() {
            return Ok(field.clone());
        }
        Ok(field.as_ref().clone().with_data_type(data_type).into())
    }

    fn data_type(&mut self, table: &DataType, input: &DataType, path: &str) -> Result<DataType> {
        use DataType as T;
        Ok(match (table, input) {
            (table, T::Dictionary(_, values)) => self.data_type(table, values, path)?,
            (table, T::RunEndEncoded(_, values)) => self.data_type(table, values.data_type(), path)?,
            (T::Struct(members), T::Struct(given)) => T::Struct(self.members(members, given, path)?),
            (
                T::List(element),
                T::List(given)
                | T::LargeList(given)
                | T::FixedSizeList(given, _)
                | T::ListView(given)
                | T::LargeListView(given),
            ) => {
                let path = format!("{path}.element");
                T::List(self.field(element, given.data_type(), &path)?)
            }
            (T::Map(entries, sorted), T::Map(given, _)) => {
                T::Map(self.entries(entries, given, path)?, *sorted)
            }
            (table, input) => match wider(table, input).filter(|_| self.widen) {
                Some(wider) => {
                    self.widened.push(path.to_owned());
                    wider
                }
                None => table.clone(),
            },
        })
    }

    fn members(&mut self, members: &Fields, given: &Fields, path: &str) -> Result<Fields> {
        let mut fields = members.to_vec();
        let known = fields.len();
        for field in given {
            match find(field.name(), &fields) {
                Some(at) if at < known => {
                    let path = format!("{path}.{}", fields[at].name());
                    fields[at] = self.field(&fields[at], field.data_type(), &path)?;
                }
                Some(at) => return Err(twice(fields[at].name(), field.name())),
                None => fields.push(self.add(field, &format!("{path}.{}", field.name()))?),
            }
        }
        Ok(fields.into())
    }

    /// Keys stay as they are: they say which entries are the same.
    fn entries(&mut self, entries: &FieldRef, given: &Field, path: &str) -> Result<FieldRef> {
        let (DataType::Struct(pair), DataType::Struct(given)) = (entries.data_type(), given.data_type())
        else {
            return Ok(entries.clone());
        };
        let ([key, value], [_, given]) = (pair.as_ref(), given.as_ref()) else {
            return Ok(entries.clone());
        };
        let value = self.field(value, given.data_type(), &format!("{path}.value"))?;
        let pair = DataType::Struct(vec![key.clone(), value].into());
        Ok(entries.as_ref().clone().with_data_type(pair).into())
    }
}

/// The type that holds the values of both and that readers can promote the table's to (Iceberg spec, "Schema
/// Evolution", valid type promotions; Delta protocol, "Type Widening", for integers that only Delta has).
fn wider(table: &DataType, input: &DataType) -> Option<DataType> {
    use DataType as T;
    match (table, input) {
        (T::Int8, T::Int16 | T::UInt8) => Some(T::Int16),
        (T::Int8 | T::Int16, T::Int32 | T::UInt16) => Some(T::Int32),
        (T::Int8 | T::Int16 | T::Int32, T::Int64 | T::UInt32 | T::UInt64) => Some(T::Int64),
        (T::Float32, T::Float64) => Some(T::Float64),
        (
            T::Decimal128(digits, scale),
            T::Decimal32(more, same)
            | T::Decimal64(more, same)
            | T::Decimal128(more, same)
            | T::Decimal256(more, same),
        ) if same == scale && more > digits && *more <= 38 => Some(T::Decimal128(*more, *scale)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn field(name: &str, data_type: DataType) -> Field {
        Field::new(name, data_type, true)
    }

    fn with(table: Vec<Field>, input: Vec<Field>) -> Result<Option<Evolved>> {
        let input: Fields = input.into();
        evolve(&Schema::new(table), &input, &|_| true)
    }

    #[test]
    fn a_table_that_has_everything_stays_as_it_is() {
        let table = vec![field("id", DataType::Int64), field("Name", DataType::Utf8)];
        let input = vec![field("name", DataType::LargeUtf8), field("id", DataType::Int32)];
        assert_eq!(with(table, input).unwrap(), None);
    }

    #[test]
    fn new_columns_come_last_and_are_nullable_and_old_ones_keep_their_ids() {
        let id = Field::new("id", DataType::Int64, false)
            .with_metadata(HashMap::from([(FIELD_ID.to_owned(), "7".to_owned())]));
        let tip = Field::new("tip", DataType::Float64, false);
        let evolved = with(vec![id.clone()], vec![tip, field("id", DataType::Int64)]);
        let evolved = evolved.unwrap().unwrap();
        assert_eq!(evolved.added, ["tip"]);
        assert_eq!(evolved.schema.field(0), &id);
        assert_eq!(evolved.schema.field(1), &field("tip", DataType::Float64));
    }

    #[test]
    fn fields_are_added_and_widened_inside_structs_lists_and_map_values_but_not_keys() {
        let member = |wide: bool| {
            let mut members = vec![field("n", if wide { DataType::Int64 } else { DataType::Int32 })];
            if wide {
                members.push(field("more", DataType::Utf8));
            }
            DataType::Struct(members.into())
        };
        let nested = |wide: bool| {
            let pair = vec![
                Field::new("key", member(wide), false),
                field("value", member(wide)),
            ];
            vec![
                field("s", member(wide)),
                field("l", DataType::List(Arc::new(field("element", member(wide))))),
                field(
                    "m",
                    DataType::Map(
                        Arc::new(Field::new("key_value", DataType::Struct(pair.into()), false)),
                        false,
                    ),
                ),
            ]
        };
        let evolved = with(nested(false), nested(true)).unwrap().unwrap();
        assert_eq!(evolved.added, ["s.more", "l.element.more", "m.value.more"]);
        assert_eq!(evolved.widened, ["s.n", "l.element.n", "m.value.n"]);
    }

    #[test]
    fn only_safe_widenings_happen_and_only_where_they_may() {
        use DataType as T;
        for (table, input, expected) in [
            (T::Int32, T::Int64, Some(T::Int64)),
            (T::Int32, T::UInt32, Some(T::Int64)),
            (T::Int8, T::UInt8, Some(T::Int16)),
            (T::Int8, T::Int32, Some(T::Int32)),
            (T::Int16, T::UInt8, None),
            (T::Int16, T::Int64, Some(T::Int64)),
            (T::Int64, T::Int32, None),
            (T::Int32, T::Float64, None),
            (T::Float32, T::Float64, Some(T::Float64)),
            (
                T::Decimal128(5, 2),
                T::Decimal128(9, 2),
                Some(T::Decimal128(9, 2)),
            ),
            (T::Decimal128(5, 2), T::Decimal128(9, 3), None),
            (T::Decimal128(9, 2), T::Decimal128(5, 2), None),
            (
                T::Date32,
                T::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
                None,
            ),
        ] {
            let evolved = with(vec![field("c", table.clone())], vec![field("c", input.clone())]).unwrap();
            let found = evolved.map(|evolved| evolved.schema.field(0).data_type().clone());
            assert_eq!(found, expected, "{table} {input}");
        }
        let (table, input) = (
            Schema::new(vec![field("c", T::Int32)]),
            Fields::from(vec![field("c", T::Int64)]),
        );
        assert_eq!(evolve(&table, &input, &|_| false).unwrap(), None);
    }

    #[test]
    fn reserved_and_ambiguous_names_are_refused() {
        let table = || vec![field("id", DataType::Int64)];
        for input in [
            vec![field("_file", DataType::Utf8)],
            vec![field("x", DataType::Utf8), field("X", DataType::Utf8)],
            vec![field("x", DataType::Utf8), field("x", DataType::Utf8)],
            vec![field("", DataType::Utf8)],
        ] {
            let error = with(table(), input).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
    }
}
