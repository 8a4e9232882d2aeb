//! The types in which files are read that have none of their own.
//!
//! What the table knows is read as text, and its types are made of that by [`conform_at`], which checks
//! every value: the readers of CSV and JSON cut what does not fit (1.9 becomes 1, nanoseconds and digits of
//! decimals are dropped).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use super::files::Reader;
use crate::error::{Error, Result};
use crate::write::conform_at;

/// The field of the table that takes the values of a field of the input, as [`conform_at`] finds it: by its name, or else
/// ignoring case, unless the input has a field of that very name.
pub(super) fn counterpart<'a>(table: &'a Fields, given: &Fields, name: &str) -> Option<&'a Field> {
    let other = || {
        let lower = name.to_lowercase();
        let mut same = table.iter().filter(|field| field.name().to_lowercase() == lower);
        same.find(|field| given.find(field.name()).is_none())
    };
    let exact = table.iter().find(|field| field.name() == name);
    exact.or_else(other).map(FieldRef::as_ref)
}

/// The columns that the table has in its types, the others as they are read.
///
/// # Errors
/// None of its own; the reader's are [`Error::Invalid`] for a value that does not fit, with column, file and
/// row.
pub(super) fn fitted(
    read: SchemaRef,
    batches: Reader,
    table: &Schema,
    place: String,
) -> Result<(SchemaRef, Reader)> {
    let mut fields = read.fields().to_vec();
    let mut known = Vec::new();
    for (at, field) in fields.iter_mut().enumerate() {
        if let Some(stored) = counterpart(table.fields(), read.fields(), field.name()) {
            *field = renewed(field, stored.data_type().clone());
            known.push(at);
        }
    }
    let schema = Arc::new(Schema::new(fields));
    let stored = schema.project(&known)?;
    let target = Arc::clone(&schema);
    let mut before = 0;
    let fit = move |batch: RecordBatch| -> Result<RecordBatch> {
        let fitting = conform_at(&batch.project(&known)?, &stored, before).map_err(|e| in_file(e, &place))?;
        before += batch.num_rows() as u64;
        let mut columns = batch.columns().to_vec();
        for (at, column) in known.iter().zip(fitting.columns()) {
            columns[*at] = Arc::clone(column);
        }
        Ok(RecordBatch::try_new(Arc::clone(&target), columns)?)
    };
    let mut fit = fit;
    Ok((schema, Box::new(batches.map(move |batch| fit(batch?)))))
}

fn in_file(error: Error, file: &str) -> Error {
    match error {
        Error::Invalid { what, place, hint } => Error::Invalid {
            what,
            place: if place.is_empty() {
                file.to_owned()
            } else {
                format!("{file}, {place}")
            },
            hint,
        },
        other => other,
    }
}

/// Inferred types, and text for columns that the table has. All may be NULL, so that a missing value is
/// found where all are, with its column.
pub(super) fn of_csv(inferred: &Schema, table: Option<&Schema>) -> Schema {
    let field = |field: &FieldRef| -> Field {
        let known = table.is_some_and(|t| counterpart(t.fields(), inferred.fields(), field.name()).is_some());
        let data_type = match field.data_type() {
            // Nothing was ever seen in this column.
            DataType::Null => DataType::Utf8,
            _ if known => DataType::Utf8,
            inferred => inferred.clone(),
        };
        Field::new(field.name(), data_type, true)
    };
    Schema::new(inferred.fields().iter().map(field).collect::<Vec<_>>())
}

/// The same for JSON, inside structs, lists and maps too. Keys that the table lacks are kept: whoever
/// takes the rows refuses them by name.
pub(super) fn of_ndjson(inferred: &Schema, table: Option<&Schema>) -> Schema {
    let field = |field: &FieldRef| -> Field {
        let known = table.and_then(|t| counterpart(t.fields(), inferred.fields(), field.name()));
        Field::new(
            field.name(),
            of_value(field.data_type(), known.map(Field::data_type)),
            true,
        )
    };
    Schema::new(inferred.fields().iter().map(field).collect::<Vec<_>>())
}

fn of_value(inferred: &DataType, known: Option<&DataType>) -> DataType {
    use DataType as T;
    match (inferred, known) {
        (T::Struct(given), Some(T::Struct(known))) => {
            let fields = given.iter().map(|field| {
                let known = counterpart(known, given, field.name());
                renewed(field, of_value(field.data_type(), known.map(Field::data_type)))
            });
            T::Struct(fields.collect())
        }
        (T::Struct(_), Some(map @ T::Map(..))) => as_text(map),
        (T::List(given), Some(T::List(known) | T::LargeList(known))) => T::List(renewed(
            given,
            of_value(given.data_type(), Some(known.data_type())),
        )),
        (T::Null, Some(known)) => as_text(known),
        // A value of another shape than the table's: refused where columns are fitted.
        (inferred, Some(known)) if inferred.is_nested() || known.is_nested() => of_value(inferred, None),
        (_, Some(known)) => as_text(known),
        (T::Struct(given), None) => {
            let fields = given
                .iter()
                .map(|field| renewed(field, of_value(field.data_type(), None)));
            T::Struct(fields.collect())
        }
        (T::List(given), None) => T::List(renewed(given, of_value(given.data_type(), None))),
        // Nothing was ever seen here.
        (T::Null, None) => T::Utf8,
        (inferred, None) => inferred.clone(),
    }
}

/// The table's type with text for every value whose reading from JSON could lose something.
fn as_text(known: &DataType) -> DataType {
    use DataType as T;
    match known {
        // Bytes are written in hexadecimal, which no column of text could tell from the text itself; UUIDs
        // are not.
        T::Binary | T::LargeBinary | T::BinaryView => known.clone(),
        T::FixedSizeBinary(bytes) if *bytes != 16 => known.clone(),
        T::Struct(fields) => T::Struct(
            fields
                .iter()
                .map(|f| renewed(f, as_text(f.data_type())))
                .collect(),
        ),
        T::List(inner) | T::LargeList(inner) => T::List(renewed(inner, as_text(inner.data_type()))),
        T::Map(entries, sorted) => T::Map(entries_as_text(entries), *sorted),
        _ => T::Utf8,
    }
}

/// The entries of a map: keys stay required.
fn entries_as_text(entries: &FieldRef) -> FieldRef {
    let DataType::Struct(fields) = entries.data_type() else {
        return Arc::clone(entries);
    };
    let texts = fields.iter().map(|field| {
        let text = as_text(field.data_type());
        Arc::new(Field::new(field.name(), text, field.is_nullable()))
    });
    Arc::new(Field::new(
        entries.name(),
        DataType::Struct(texts.collect()),
        entries.is_nullable(),
    ))
}

fn renewed(field: &FieldRef, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(field.name(), data_type, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: Vec<Field>) -> Schema {
        Schema::new(fields)
    }

    fn nested(fields: Vec<Field>) -> DataType {
        DataType::Struct(fields.into())
    }

    #[test]
    fn known_values_are_text_at_every_depth_and_unknown_keys_stay() {
        use DataType::{Boolean, Decimal128, Float64, Int64, Null, Utf8};
        let table = of(vec![
            Field::new("id", Int64, false),
            Field::new("flag", Boolean, true),
            Field::new(
                "inner",
                nested(vec![Field::new("price", Decimal128(20, 2), true)]),
                true,
            ),
        ]);
        let inferred = of(vec![
            Field::new("id", Float64, true),
            Field::new("flag", Boolean, true),
            Field::new(
                "inner",
                nested(vec![
                    Field::new("price", Float64, true),
                    Field::new("more", Null, true),
                ]),
                true,
            ),
            Field::new("extra", Int64, true),
        ]);
        let read = of_ndjson(&inferred, Some(&table));
        let expected = of(vec![
            Field::new("id", Utf8, true),
            Field::new("flag", Utf8, true),
            Field::new(
                "inner",
                nested(vec![
                    Field::new("price", Utf8, true),
                    Field::new("more", Utf8, true),
                ]),
                true,
            ),
            Field::new("extra", Int64, true),
        ]);
        assert_eq!(read, expected);
    }
}
