//! The columns of all files as those of one table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use super::to_be_converted;
use crate::error::{Error, Result};
use crate::model::schema::{
    FIELD_ID, FILE_COLUMN, LAST_UPDATED_COLUMN, LAST_UPDATED_FIELD_ID, POSITION_COLUMN, ROW_ID_COLUMN,
    field_id,
};

/// Ids from here on are reserved (Iceberg spec, "Reserved Field IDs").
const RESERVED: i32 = LAST_UPDATED_FIELD_ID - 200;

/// Columns that some files have.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) schema: SchemaRef,
    /// The first file that has them.
    pub(super) file: String,
}

/// The columns of a file without what only its writer cares about.
pub(super) fn stored_by(shape: &Shape, with_ids: bool) -> Schema {
    let fields: Vec<Field> = shape.schema.fields().iter().map(|f| plain(f, with_ids)).collect();
    Schema::new(fields)
}

fn plain(field: &Field, with_ids: bool) -> Field {
    let keep = |key: &str| (with_ids && key == FIELD_ID) || key.starts_with("ARROW:extension:");
    let metadata: HashMap<String, String> = field
        .metadata()
        .iter()
        .filter(|(key, _)| keep(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let inner = |field: &FieldRef| Arc::new(plain(field, with_ids));
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::List(element) => DataType::List(inner(element)),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        other => other.clone(),
    };
    Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata)
}

/// The columns of all files, by name, in the order in which they are met. Those that a file lacks are nullable.
///
/// # Errors
/// [`Error::Invalid`] naming the column and the file, for types that do not go together.
pub(super) fn union(shapes: &[Shape], with_ids: bool) -> Result<Vec<Field>> {
    let mut all: Vec<Field> = Vec::new();
    for (number, shape) in shapes.iter().enumerate() {
        let fields = stored_by(shape, with_ids);
        let fields: Vec<Field> = fields.fields().iter().map(|f| f.as_ref().clone()).collect();
        check_names(&fields, &shape.file)?;
        all = match number {
            0 => fields,
            _ => both(&all, &fields, "", &shape.file)?,
        };
    }
    Ok(all)
}

fn check_names(fields: &[Field], file: &str) -> Result<()> {
    let made_up = [FILE_COLUMN, POSITION_COLUMN, ROW_ID_COLUMN, LAST_UPDATED_COLUMN];
    for (number, field) in fields.iter().enumerate() {
        let name = field.name();
        if made_up.contains(&name.as_str()) {
            return Err(Error::invalid(
                format!("column {name} has the name of one that readers make up"),
                file,
            )
            .with_hint(
                "load the file with `lake append` and a query that renames or leaves out the column",
            ));
        }
        if fields[..number].iter().any(|other| other.name() == name) {
            return Err(Error::invalid(format!("there are two columns {name}"), file));
        }
    }
    Ok(())
}

/// The fields of both; `file` is the one that the others come from.
fn both(known: &[Field], others: &[Field], parent: &str, file: &str) -> Result<Vec<Field>> {
    let mut all = Vec::with_capacity(known.len());
    for field in known {
        all.push(match others.iter().find(|other| other.name() == field.name()) {
            Some(other) => one(field, other, &path(parent, field.name()), file)?,
            None => field.clone().with_nullable(true),
        });
    }
    for other in others {
        if !known.iter().any(|field| field.name() == other.name()) {
            all.push(other.clone().with_nullable(true));
        }
    }
    Ok(all)
}

fn one(known: &Field, other: &Field, path: &str, file: &str) -> Result<Field> {
    let clash = || {
        Error::invalid(
            format!(
                "column {path} is {} here and {} in other files",
                other.data_type(),
                known.data_type()
            ),
            file,
        )
        .with_hint("leave the file out, and load it with `lake append`, which casts")
    };
    let data_type = match (known.data_type(), other.data_type()) {
        (DataType::Struct(a), DataType::Struct(b)) => {
            DataType::Struct(both(&owned(a), &owned(b), path, file)?.into())
        }
        (DataType::List(a), DataType::List(b)) => {
            DataType::List(Arc::new(one(a, b, &format!("{path}.element"), file)?))
        }
        (DataType::Map(a, sorted), DataType::Map(b, _)) => {
            let (DataType::Struct(a_pair), DataType::Struct(b_pair)) = (a.data_type(), b.data_type()) else {
                return Err(clash());
            };
            let ([key, value], [other_key, other_value]) = (a_pair.as_ref(), b_pair.as_ref()) else {
                return Err(clash());
            };
            let pair = vec![
                one(key, other_key, &format!("{path}.key"), file)?,
                one(value, other_value, &format!("{path}.value"), file)?,
            ];
            let entries = a.as_ref().clone().with_data_type(DataType::Struct(pair.into()));
            DataType::Map(Arc::new(entries), *sorted)
        }
        (a, b) if a == b || widens(b, a) => a.clone(),
        (a, b) if widens(a, b) => b.clone(),
        _ => return Err(clash()),
    };
    let mut field = known.clone().with_data_type(data_type);
    field.set_nullable(known.is_nullable() || other.is_nullable());
    if field_id(known).is_none() {
        field.set_metadata(other.metadata().clone());
    }
    Ok(field)
}

fn owned(fields: &Fields) -> Vec<Field> {
    fields.iter().map(|field| field.as_ref().clone()).collect()
}

fn path(parent: &str, name: &str) -> String {
    match parent {
        "" => name.to_owned(),
        parent => format!("{parent}.{name}"),
    }
}

/// Whether readers see values of one type as ones of the other, where the format widens types.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Int8, T::Int16 | T::Int32 | T::Int64)
        | (T::Int16, T::Int32 | T::Int64)
        | (T::Int32, T::Int64)
        | (T::Float32, T::Float64) => true,
        (T::Decimal128(precision, scale), T::Decimal128(more, same)) => scale == same && precision < more,
        _ => false,
    }
}

/// Refuses a file whose values cannot be read as those of the table's columns.
///
/// # Errors
/// [`Error::Unsupported`] naming the column and the file.
pub(super) fn check_fit(shape: &Shape, table: &Schema, widening: bool, format: &str) -> Result<()> {
    let fields = shape.schema.fields();
    match misfit(fields, table.fields(), "", widening) {
        None => Ok(()),
        Some((column, stored, wanted)) => {
            let what = format!("{stored}, which this {format} table would store as {wanted}");
            Err(to_be_converted(&column, &what, &shape.file))
        }
    }
}

type Misfit = (String, DataType, DataType);

fn misfit(stored: &Fields, table: &Fields, parent: &str, widening: bool) -> Option<Misfit> {
    stored.iter().find_map(|field| {
        let path = path(parent, field.name());
        let wanted = table.iter().find(|wanted| wanted.name() == field.name())?;
        misfit_type(field.data_type(), wanted.data_type(), path, widening)
    })
}

fn misfit_type(stored: &DataType, table: &DataType, path: String, widening: bool) -> Option<Misfit> {
    match (stored, table) {
        (DataType::Struct(a), DataType::Struct(b)) => misfit(a, b, &path, widening),
        (DataType::List(a), DataType::List(b)) => {
            misfit_type(a.data_type(), b.data_type(), format!("{path}.element"), widening)
        }
        (DataType::Map(a, _), DataType::Map(b, _)) => match (a.data_type(), b.data_type()) {
            (DataType::Struct(a), DataType::Struct(b)) if a.len() == b.len() => {
                a.iter().zip(b).zip(["key", "value"]).find_map(|((a, b), part)| {
                    misfit_type(a.data_type(), b.data_type(), format!("{path}.{part}"), widening)
                })
            }
            _ => Some((path, stored.clone(), table.clone())),
        },
        (a, b) if a == b || (widening && widens(a, b)) => None,
        _ => Some((path, stored.clone(), table.clone())),
    }
}

/// Whether files carry field ids. They must not contradict each other: a reader goes by ids where it finds any, and
/// would read another column without a word.
///
/// # Errors
/// [`Error::Invalid`] naming the column and the file.
pub(super) fn check_ids(shapes: &[Shape]) -> Result<bool> {
    let (mut by_path, mut by_id) = (BTreeMap::<String, i32>::new(), BTreeMap::<i32, String>::new());
    for shape in shapes {
        let mut found = Vec::new();
        collect(shape.schema.fields(), "", &mut found);
        if found.iter().all(|(_, id)| id.is_none()) {
            continue;
        }
        let refused = |what: String| {
            Error::invalid(what, &shape.file).with_hint(
                "field ids say which column is which, so these files cannot be in one table as they are: leave this \
                 one out, and load it with `lake append`",
            )
        };
        let mut seen = BTreeMap::new();
        for (path, id) in found {
            let Some(id) = id else {
                return Err(refused(format!(
                    "column {path} has no field id, others of the file have"
                )));
            };
            if !(0..RESERVED).contains(&id) {
                return Err(refused(format!(
                    "column {path} has the field id {id}, which no column can have"
                )));
            }
            if let Some(other) = seen.insert(id, path.clone()) {
                return Err(refused(format!(
                    "the columns {other} and {path} have the same field id {id}"
                )));
            }
            let known = by_path.insert(path.clone(), id).filter(|known| *known != id);
            if let Some(known) = known {
                return Err(refused(format!(
                    "column {path} has the field id {id}, in other files {known}"
                )));
            }
            let known = by_id.insert(id, path.clone()).filter(|known| *known != path);
            if let Some(known) = known {
                return Err(refused(format!(
                    "field id {id} is column {path}, in other files {known}"
                )));
            }
        }
    }
    Ok(!by_id.is_empty())
}

fn collect(fields: &Fields, parent: &str, found: &mut Vec<(String, Option<i32>)>) {
    for field in fields {
        let path = path(parent, field.name());
        let id = field_id(field);
        inside(field.data_type(), &path, found);
        found.push((path, id));
    }
}

fn inside(data_type: &DataType, path: &str, found: &mut Vec<(String, Option<i32>)>) {
    let mut step = |field: &Field, part: &str| {
        let path = format!("{path}.{part}");
        inside(field.data_type(), &path, found);
        found.push((path, field_id(field)));
    };
    match data_type {
        DataType::Struct(fields) => collect(fields, path, found),
        DataType::List(element) => step(element, "element"),
        DataType::Map(entries, _) => {
            if let DataType::Struct(pair) = entries.data_type() {
                pair.iter()
                    .zip(["key", "value"])
                    .for_each(|(field, part)| step(field, part));
            }
        }
        _ => {}
    }
}

/// The type of a column by its dotted name.
pub(super) fn type_of<'a>(schema: &'a Schema, column: &str) -> Option<&'a DataType> {
    fn within<'a>(fields: &'a Fields, column: &str) -> Option<&'a DataType> {
        fields.iter().find_map(|field| {
            let rest = column.strip_prefix(field.name().as_str())?;
            match (rest.strip_prefix('.'), field.data_type()) {
                _ if rest.is_empty() => Some(field.data_type()),
                (Some(rest), DataType::Struct(fields)) => within(fields, rest),
                _ => None,
            }
        })
    }
    within(schema.fields(), column)
}
